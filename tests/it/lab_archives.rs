//! `forge prune --archive`: a template goes only when a backup of it is there and was looked into.

use std::collections::BTreeMap;

use forge_lab::{Fault, Gate, LEAST_PRIVILEGES_PVE9, LabConfig, StorageConfig};
use forge_proxmox::ProxmoxHypervisor;
use forge_proxmox::api::encode::Params;
use forge_proxmox::api::task::Upid;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab_matrix::config_of;
use crate::lab_versions::{fates, ids, linked_clone, template};
use crate::support::lab_site::{Done, LabSite, TOKEN, reached};

const DUMP: &str = "/nodes/pve/vzdump";

/// Of `web` the newest, and an old one that is to go; a token that may archive.
async fn site() -> anyhow::Result<LabSite> {
    let config = LabConfig {
        run_guests: false,
        storages: vec![
            StorageConfig::everything("local"),
            StorageConfig::of("disks", &["images"]),
            StorageConfig::of("tight", &["backup"]).with_size(100),
        ],
        ..LabConfig::default()
    };
    let site = LabSite::with(config, forge_lab::ImportVm::default()).await?;
    may(&site, &["VM.Backup"]);
    template(&site, 9015, "web", 1, "forge;latest").await?;
    template(&site, 9014, "web", 100, "forge").await?;
    Ok(site)
}

/// Gives the token what builds need and this.
fn may(site: &LabSite, more: &[&str]) {
    site.lab.set_token_access(TOKEN, &[("/", &[LEAST_PRIVILEGES_PVE9, more].concat())]);
}

async fn prune(site: &LabSite, place: &str) -> Done {
    site.run(&["prune", "--keep", "1", "--older-than", "90d", "--archive", place, "--yes", "--json"]).await
}

/// The row of one template.
fn row(done: &Done, vmid: u32) -> Value {
    let rows = done.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let wanted = Value::from(vmid.to_string());
    let own = rows.into_iter().find(|row| row["vmid"] == wanted);
    own.unwrap_or_else(|| panic!("{vmid} is not told: {}{}", done.stdout, done.stderr))
}

/// The changes that were asked for, in their order: method and path.
fn changes(site: &LabSite) -> Vec<String> {
    let all = site.lab.requests().into_iter().filter(|request| request.method != "GET");
    all.map(|request| format!("{} {}", request.method, request.path)).collect()
}

/// How many times a backup was asked for.
fn dumps(site: &LabSite) -> usize {
    changes(site).iter().filter(|change| change.ends_with("/vzdump")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_template_is_deprecated_then_archived_then_removed() -> anyhow::Result<()> {
    let site = site().await?;
    let done = site.run(&["prune", "--keep", "1", "--archive", "local", "--dry-run", "--json"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(fates(&done)[&9014], ("would-go".into(), "after it is archived: storage local".into()));
    assert_eq!(changes(&site), [""; 0], "a dry run changes nothing");

    let chain_id = {
        let notes = site.lab.vm(9014).expect("there").description;
        let line = notes.lines().find_map(|line| line.strip_prefix("* chain id: ")).map(str::to_owned);
        line.expect("it tells its build")
    };
    let done = prune(&site, "local").await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert_eq!(ids(&site), [9015]);
    let row = row(&done, 9014);
    let volid = row["archive"].as_str().unwrap_or_default();
    assert!(volid.starts_with("local:backup/vzdump-qemu-9014-") && row["fate"] == "removed", "{row}");
    assert_eq!(
        changes(&site),
        ["PUT /nodes/pve/qemu/9014/config", "POST /nodes/pve/vzdump", "DELETE /nodes/pve/qemu/9014"]
    );
    // What is kept is the template, whole, and nobody's nightly job takes it away.
    let archive = site.lab.archive("pve", volid)?;
    assert!(archive.config.contains(&format!("#* chain id%3A {chain_id}\n")), "{}", archive.config);
    assert!(archive.config.contains("\ntags: deprecated;forge\n"), "{}", archive.config);
    let disks: Vec<&str> = archive.devices.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(disks, ["drive-scsi0"]);
    let request = site.lab.requests().into_iter().find(|request| request.path.ends_with("/vzdump"));
    assert_eq!(request.and_then(|request| request.status), Some(200));
    assert_eq!(
        site.lab.backup_marks("pve", volid),
        (true, format!("tpl-web, archived by forge, chain id {chain_id}"))
    );
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_brought_back_as_the_readme_says_and_is_the_template_that_it_was() -> anyhow::Result<()>
{
    let site = site().await?;
    let before = site.lab.vm(9014).expect("there");
    let done = prune(&site, "local").await;
    assert_eq!((done.code, ids(&site)), (Some(0), vec![9015]), "{}{}", done.stdout, done.stderr);
    let volid = row(&done, 9014)["archive"].as_str().expect("it is kept").to_owned();

    let config = config_of(&site.lab.url(), site.lab.fingerprint(), &site.secret);
    let target = ProxmoxHypervisor::connect(config)?;
    let body = Params::new().with("vmid", 9014).with("archive", &volid);
    let reply = target.client().post("/nodes/pve/qemu", &body).await?;
    target.client().wait_task(&reply.data.as_str().and_then(Upid::parse).expect("a task")).await?;
    let after = site.lab.vm(9014).expect("it is back");
    assert!(after.template && after.tags == "deprecated;forge", "{after:?}");
    // Proxmox VE gives each VM a generation of its own.
    let own = |config: &BTreeMap<String, String>| {
        let mut config = config.clone();
        config.retain(|key, _| key != "tags" && key != "vmgenid");
        // Its notes are lines of remarks in the archive, the last of which has no end of its own.
        config.entry("description".to_owned()).and_modify(|notes| notes.truncate(notes.trim_end().len()));
        config
    };
    assert_eq!(own(&after.config), own(&before.config));

    // forge knows it again; a second archive holds the same disks.
    target.client().put("/nodes/pve/qemu/9014/config", &Params::new().with("tags", "forge")).await?;
    let promoted = site.run(&["promote", "9014"]).await;
    assert_eq!(promoted.code, Some(0), "{}{}", promoted.stdout, promoted.stderr);
    assert_eq!(site.lab.vm(9014).expect("there").tags, "forge;latest");
    let first = site.lab.archive("pve", &volid)?;
    let dump = Params::new().with("vmid", 9014).with("storage", "local").with("compress", "zstd");
    let reply = target.client().post(DUMP, &dump).await?;
    target.client().wait_task(&reply.data.as_str().and_then(Upid::parse).expect("a task")).await?;
    let again = site.lab.backups("pve", "local").into_iter().find(|other| *other != volid).expect("another");
    assert_eq!(site.lab.archive("pve", &again)?.devices, first.devices);
    site.close().await;
    Ok(())
}

/// What goes wrong with the archive, and what is said of it.
struct Trouble {
    route: (&'static str, &'static str),
    fault: Fault,
    words: &'static str,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_about_the_archive_leaves_the_template_and_the_next_run_goes_on() -> anyhow::Result<()>
{
    let extract = "/nodes/pve/vzdump/extractconfig";
    let refuse = |reason: &str| Fault::Refuse { status: 500, reason: reason.into() };
    let fail = |text: &str| Fault::TaskFail { text: text.into() };
    for Trouble { route: (method, path), fault, words } in [
        Trouble { route: ("POST", DUMP), fault: fail("job errors"), words: "job errors" },
        Trouble {
            route: ("POST", DUMP),
            fault: Fault::TaskFailAt { percent: 40.0, text: "no space left on device".into() },
            words: "no space left",
        },
        Trouble {
            route: ("POST", DUMP),
            fault: Fault::TaskFailAfter { text: "job errors".into() },
            words: "job errors",
        },
        Trouble { route: ("POST", DUMP), fault: Fault::TaskDie, words: "unexpected status" },
        Trouble { route: ("POST", DUMP), fault: Fault::DropBefore, words: "archive the template" },
        Trouble { route: ("POST", DUMP), fault: refuse("got no worker upid"), words: "got no worker upid" },
        Trouble { route: ("GET", extract), fault: refuse("unable to read it"), words: "is no archive of it" },
        Trouble {
            route: ("GET", "/nodes/pve/storage/local/content"),
            fault: refuse("storage 'local' is not online"),
            words: "is not online",
        },
    ] {
        let site = site().await?;
        let case = format!("{method} {path}: {fault:?}");
        // The storage is also listed for linked clones; a proof is asked for before and after.
        site.lab.faults().on(method, path).then(fault);
        let done = prune(&site, "local").await;
        assert_ne!(done.code, Some(0), "{case}: {}{}", done.stdout, done.stderr);
        assert!(
            format!("{}{}", done.stdout, done.stderr).contains(words),
            "{case}: {}{}",
            done.stdout,
            done.stderr
        );
        assert_eq!(ids(&site), [9014, 9015], "{case}");
        let left = site.lab.vm(9014).expect("there");
        assert!(left.template && left.lock.is_none(), "{case}: {left:?}");
        assert_eq!(site.lab.running_tasks(), [], "{case}");
        site.lab.faults().clear();
        let done = prune(&site, "local").await;
        assert_eq!((done.code, ids(&site)), (Some(0), vec![9015]), "{case}: {}{}", done.stdout, done.stderr);
        site.close().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_there_already_counts_and_one_that_vanished_does_not() -> anyhow::Result<()> {
    let site = site().await?;
    // The answer is lost, the task runs: it is found and waited for.
    let gate = Gate::new();
    site.lab.faults().on("POST", DUMP).then(Fault::TaskHold(gate.clone()));
    site.lab.faults().on("POST", DUMP).then(Fault::DoThenDrop);
    // The template itself can't be removed this time.
    site.lab
        .faults()
        .on("DELETE", "/nodes/pve/qemu/9014")
        .then(Fault::TaskFail { text: "zfs error: dataset is busy".into() });
    let mut running = site.start(&["prune", "--keep", "1", "--archive", "local", "--yes", "--json"]);
    reached(&gate, &mut running).await;
    gate.release();
    let done = running.ended().await;
    assert_eq!(done.code, Some(4), "{}{}", done.stdout, done.stderr);
    let row = row(&done, 9014);
    assert!(row["why"].as_str().is_some_and(|why| why.contains("dataset is busy")), "{row}");
    let volid = row["archive"].as_str().expect("it is kept").to_owned();
    assert_eq!((ids(&site), dumps(&site)), (vec![9014, 9015], 1));

    // Somebody removes the archive: it is made anew. Then nothing more is made.
    site.lab.faults().clear();
    site.lab
        .faults()
        .on("DELETE", "/nodes/pve/qemu/9014")
        .call(1)
        .then(Fault::TaskFail { text: "busy".into() });
    site.lab.remove_volume("pve", &volid)?;
    let done = prune(&site, "local").await;
    assert_eq!((done.code, dumps(&site)), (Some(4), 2), "{}{}", done.stdout, done.stderr);
    let done = prune(&site, "local").await;
    assert_eq!(
        (done.code, dumps(&site), ids(&site)),
        (Some(0), 2, vec![9015]),
        "{}{}",
        done.stdout,
        done.stderr
    );
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_vanishes_before_it_is_looked_into_keeps_the_template() -> anyhow::Result<()> {
    let site = site().await?;
    let gate = Gate::new();
    site.lab.faults().on("POST", DUMP).then(Fault::TaskHoldAfter(gate.clone()));
    let mut running = site.start(&["prune", "--keep", "1", "--archive", "local", "--yes", "--json"]);
    reached(&gate, &mut running).await;
    for volid in site.lab.backups("pve", "local") {
        site.lab.remove_volume("pve", &volid)?;
    }
    gate.release();
    let done = running.ended().await;
    assert_eq!((done.code, ids(&site)), (Some(4), vec![9014, 9015]), "{}{}", done.stdout, done.stderr);
    let why = row(&done, 9014)["why"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("local lists no backup of VM 9014 on pve"), "{why}");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_ends_the_archiving_and_the_template_stays() -> anyhow::Result<()> {
    let site = site().await?;
    let gate = Gate::new();
    site.lab.faults().on("POST", DUMP).then(Fault::TaskHold(gate.clone()));
    let mut running = site.start(&["prune", "--keep", "1", "--archive", "local", "--yes", "--json"]);
    reached(&gate, &mut running).await;
    running.says("archiving tpl-web (VM 9014)").await;
    running.signal(Signal::SIGINT);
    let done = running.ended().await;
    assert_eq!((done.code, ids(&site)), (Some(130), vec![9014, 9015]), "{}{}", done.stdout, done.stderr);
    assert_eq!(fates(&done)[&9014], ("would-go".into(), "it was interrupted while it was archived".into()));
    assert_eq!(site.lab.running_tasks(), []);
    assert_eq!(site.lab.backups("pve", "local"), [""; 0]);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_against_archiving_is_told_before_anything_is_done() -> anyhow::Result<()> {
    let site = site().await?;
    linked_clone(&site, 9014, 9041, "shop").await;
    let before = changes(&site).len();
    let done = prune(&site, "local").await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(fates(&done)[&9014], ("kept".into(), "VM 9041 (shop) is a linked clone of it".into()));
    assert_eq!(changes(&site).len(), before, "and nothing is archived");

    template(&site, 9013, "web", 110, "forge").await?;
    for (place, more, words) in [
        (
            "local",
            &[][..],
            &["lacks VM.Backup on /vms/9013 (needed to archive the template)", "pveum acl modify /vms/9013"]
                [..],
        ),
        (
            "nfs",
            &["VM.Backup"],
            &["there is no storage `nfs` on pve", "storages that take backups: local, tight"],
        ),
        (
            "disks",
            &["VM.Backup"],
            &["the storage `disks` takes no backups", "pvesm set disks --content images,backup"],
        ),
        (
            "/mnt/archive",
            &["VM.Backup"],
            &["lets only root@pam, by password, name a folder", "pvesm add dir archive --path /mnt/archive"],
        ),
    ] {
        may(&site, more);
        for flag in ["--yes", "--dry-run"] {
            let done = site.run(&["prune", "--keep", "1", "--archive", place, flag]).await;
            assert_eq!(done.code, Some(3), "{place}: {}{}", done.stdout, done.stderr);
            for word in words {
                assert!(done.stderr.contains(word), "`{word}` is not in:\n{}", done.stderr);
            }
        }
    }
    let done = site.run(&["prune", "--keep", "1", "--archive", "--yes"]).await;
    assert_eq!(done.code, Some(3), "{}", done.stdout);
    assert!(done.stderr.contains("storage = { archives = \"STORAGE\" }"), "{}", done.stderr);
    assert_eq!(changes(&site).len(), before);

    // The site's own place, and one that is full: the backup fails, and nothing goes.
    may(&site, &["VM.Backup"]);
    let toml = site.forge_toml().replace("isos = \"local\"", "isos = \"local\", archives = \"tight\"");
    site.write("forge.toml", &toml);
    let done = site.run(&["prune", "--keep", "1", "--archive", "--yes"]).await;
    assert_eq!(done.code, Some(4), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("No space left on device"), "{}{}", done.stdout, done.stderr);
    assert!(ids(&site).contains(&9013));
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn root_by_password_may_name_a_folder_of_the_node() -> anyhow::Result<()> {
    let site = site().await?;
    site.lab.set_password("root@pam", &site.secret);
    let toml = site.forge_toml().replace(&format!("token-id = \"{TOKEN}\""), "user = \"root@pam\"");
    site.write("forge.toml", &toml.replace("token-secret = ", "password = "));
    let done = prune(&site, "/mnt/pve/nowhere").await;
    assert_eq!((done.code, ids(&site)), (Some(4), vec![9014, 9015]), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("does not exist"), "{}{}", done.stdout, done.stderr);
    let done = prune(&site, "/var/lib/vz/").await;
    assert_eq!((done.code, ids(&site)), (Some(0), vec![9015]), "{}{}", done.stdout, done.stderr);
    let archive = row(&done, 9014)["archive"].as_str().unwrap_or_default().to_owned();
    assert!(archive.starts_with("/var/lib/vz/vzdump-qemu-9014-"), "{archive}");
    site.close().await;
    Ok(())
}
