//! The templates that a site collects: what `forge prune`, `forge promote` and `forge rollback` do to them.

use std::collections::BTreeMap;

use forge_lab::{Fault, Gate, ImportVm};
use forge_proxmox::ProxmoxHypervisor;
use forge_proxmox::api::encode::Params;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::lab_matrix::config_of;
use crate::support::lab_site::{Done, FIRST_ID, LabSite, PROFILE, reached};

const DAY: i64 = 86_400;

/// Puts a template there as a build of that profile left it so many days ago.
pub(crate) async fn template(
    site: &LabSite,
    vmid: u32,
    profile: &str,
    days: i64,
    tags: &str,
) -> anyhow::Result<()> {
    let made = Timestamp::now() - SignedDuration::from_secs(days * DAY);
    let notes = format!(
        "Template built by forge.\n\n* chain id: CHAIN-{}-{profile}-{vmid}\n* profile: {profile}\n* os: debian 12\n",
        made.strftime("%Y%m%dT%H%M%SZ")
    );
    let import = ImportVm {
        vmid,
        name: format!("tpl-{profile}"),
        template: true,
        tags: tags.into(),
        extra: [("description".to_owned(), notes)].into(),
        ..ImportVm::default()
    };
    site.lab.import_vm(import).await
}

/// Makes a linked clone, as anybody does it.
pub(crate) async fn linked_clone(site: &LabSite, of: u32, vmid: u32, name: &str) {
    let config = config_of(&site.lab.url(), site.lab.fingerprint(), &site.secret);
    let target = ProxmoxHypervisor::connect(config).expect("its settings are sound");
    let body = Params::new().with("newid", vmid).with("name", name).with("full", 0);
    let path = format!("/nodes/pve/qemu/{of}/clone");
    let reply = target.client().post(&path, &body).await.expect("the clone begins");
    let upid = reply.data.as_str().and_then(forge_proxmox::api::task::Upid::parse).expect("a task");
    target.client().wait_task(&upid).await.expect("the clone ends");
}

/// What became of each, by VMID, and why.
pub(crate) fn fates(done: &Done) -> BTreeMap<u64, (String, String)> {
    let rows = done.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    rows.map(|row| {
        let vmid = text(&row, "vmid").parse().expect("a number");
        (vmid, (text(&row, "fate"), text(&row, "why")))
    })
    .collect()
}

/// The templates and VMs that are there, but for the boot VM.
pub(crate) fn ids(site: &LabSite) -> Vec<u32> {
    site.others().iter().map(|vm| vm.vmid).collect()
}

fn bearers(site: &LabSite) -> Vec<u32> {
    let latest = |tags: &str| tags.split(';').any(|tag| tag == "latest");
    site.others().iter().filter(|vm| latest(&vm.tags)).map(|vm| vm.vmid).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_removes_old_templates_of_forge_and_nothing_that_somebody_needs() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    for (vmid, days, tags) in [
        (9015, 1, "forge"),
        (9014, 20, "forge;latest"),
        (9013, 100, "forge"),
        (9012, 110, "forge"),
        (9011, 120, "forge"),
    ] {
        template(&site, vmid, "web", days, tags).await?;
    }
    template(&site, 9021, "db", 200, "forge;latest").await?;
    template(&site, 9022, "db", 300, "forge").await?;
    // Not forge's, for all that somebody copied its tag.
    let by_hand = ImportVm {
        vmid: 9031,
        name: "tpl-web".into(),
        template: true,
        tags: "forge".into(),
        ..ImportVm::default()
    };
    site.lab.import_vm(by_hand).await?;
    linked_clone(&site, 9012, 9041, "shop").await;
    let all = ids(&site);

    let done = site.run(&["prune", "--profile", "web", "--keep", "1"]).await;
    assert_eq!(done.code, Some(3), "nobody can be asked: {}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("--yes removes them") && done.stdout.is_empty(), "{}", done.stderr);
    let done = site.run(&["prune", "--profile", "web", "--keep", "1", "--dry-run", "--json"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let found = fates(&done);
    let fate = |vmid: u64| (found[&vmid].0.as_str(), found[&vmid].1.as_str());
    assert_eq!(fate(9015), ("kept", "the newest of web"));
    assert_eq!(fate(9014), ("kept", "it bears the tag `latest`"));
    assert_eq!(fate(9013), ("would-go", ""));
    assert_eq!(fate(9012), ("kept", "VM 9041 (shop) is a linked clone of it"));
    assert_eq!(fate(9011), ("would-go", ""));
    assert_eq!(found.len(), 5, "{}", done.stdout);
    assert_eq!(ids(&site), all, "nothing was removed yet");

    // First those that are to go are tagged, whoever needs them; then what has the tag goes, but for what is needed.
    let done = site
        .run(&[
            "prune",
            "--profile",
            "web",
            "--keep",
            "1",
            "--older-than",
            "105d",
            "--deprecate",
            "--yes",
            "--json",
        ])
        .await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let found = fates(&done);
    assert_eq!((found[&9012].0.as_str(), found[&9011].0.as_str()), ("deprecated", "deprecated"));
    assert_eq!(ids(&site), all, "nothing was removed yet");
    let tags = |vmid: u32| site.lab.vm(vmid).map(|vm| vm.tags).unwrap_or_default();
    assert_eq!([tags(9013), tags(9012), tags(9011)], ["forge", "deprecated;forge", "deprecated;forge"]);
    let done =
        site.run(&["prune", "--profile", "web", "--keep", "1", "--deprecated", "--dry-run", "--json"]).await;
    let found = fates(&done);
    assert_eq!(found[&9013], ("kept".into(), "it does not bear the tag `deprecated`".into()));
    assert_eq!((found[&9012].0.as_str(), found[&9011].0.as_str()), ("kept", "would-go"));

    let done = site.run(&["prune", "--keep", "1", "--older-than", "105d", "--yes", "--json"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let found = fates(&done);
    assert_eq!(found[&9013], ("kept".into(), "it is 100 days old".into()));
    assert_eq!((found[&9011].0.as_str(), found[&9022].0.as_str()), ("removed", "removed"));
    assert!(found[&9031].1.contains("do not tell which build"), "{found:?}");
    let left: Vec<u32> = all.iter().copied().filter(|vmid| ![9011, 9022].contains(vmid)).collect();
    assert_eq!(ids(&site), left);
    let disks = site.lab.image_files();
    for (vmid, there) in [("/9011/", false), ("/9022/", false), ("/9012/", true), ("/9014/", true)] {
        let found = disks.iter().any(|path| path.to_string_lossy().contains(vmid));
        assert_eq!(found, there, "{vmid}: {disks:?}");
    }
    assert_eq!(site.lab.running_tasks(), []);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_of_a_system_is_told_in_each_form_and_the_list_names_each_once() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    template(&site, 9015, "web", 1, "forge;latest;validated").await?;
    template(&site, 9014, "web", 9, "forge;validated").await?;
    template(&site, 9016, "db", 0, "forge;latest").await?;
    let latest = async |more: &[&str]| {
        let done = site.run(&[&["latest", "--os", "debian-12"], more].concat()).await;
        assert_eq!(done.code, Some(0), "{more:?}: {}", done.stderr);
        done.stdout
    };
    assert_eq!(latest(&[]).await, "9016\n", "the newest of all profiles");
    assert_eq!(latest(&["--validated"]).await, "9015\n");
    assert_eq!(latest(&["--profile", "web", "-o", "vmid"]).await, "9015\n");
    assert_eq!(latest(&["--profile", "web", "-o", "name"]).await, "tpl-web\n");
    assert_eq!(
        latest(&["--validated", "-o", "tfvars"]).await,
        "template_vmid = 9015\ntemplate_name = \"tpl-web\"\ntemplate_node = \"pve\"\n"
    );
    let table = latest(&["--validated", "-o", "table"]).await;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert_eq!(
        (rows[0][..2].to_vec(), rows[1][..3].to_vec()),
        (vec!["NAME", "VMID"], vec!["tpl-web", "9015", "pve"])
    );
    for more in [&["-o", "json"][..], &["--json"]] {
        let entry: Value = serde_json::from_str(&latest(&[more, &["--profile", "web"]].concat()).await)?;
        assert_eq!((&entry["vmid"], &entry["profile"]), (&"9015".into(), &"web".into()), "{entry}");
    }
    let done = site.run(&["list", "--os", "debian-12"]).await;
    let named: Vec<&str> =
        done.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!((done.code, named), (Some(0), vec!["9016", "9015", "9014"]), "newest first: {}", done.stdout);
    let done = site.run(&["latest", "--os", "ubuntu-24.04"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(3), ""), "{}", done.stderr);
    for words in
        ["no template with os `ubuntu-24.04` is published as `latest`", "there are templates of: debian-12;"]
    {
        assert!(done.stderr.contains(words), "{words}: {}", done.stderr);
    }
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_cannot_be_removed_is_told_and_the_others_go() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    for (vmid, days, tags) in
        [(9015, 1, "forge;latest"), (9014, 2, "forge"), (9013, 3, "forge"), (9012, 4, "forge")]
    {
        template(&site, vmid, "web", days, tags).await?;
    }
    let failure = Fault::TaskFail { text: "base volume is still in use by linked cloned".into() };
    site.lab.faults().on("DELETE", "/nodes/pve/qemu/9014").then(failure);
    // The answer is lost, the template is gone: what counts is what is there.
    site.lab.faults().on("DELETE", "/nodes/pve/qemu/9013").then(Fault::DoThenDrop);
    let done = site.run(&["prune", "--keep", "1", "--yes"]).await;
    assert_eq!(done.code, Some(4), "{}{}", done.stdout, done.stderr);
    let line = |vmid: &str| done.stdout.lines().find(|line| line.contains(vmid)).unwrap_or_default();
    assert!(line("9014").contains("failed") && line("9014").contains("still in use"), "{}", done.stdout);
    assert!(line("9013").contains("removed") && line("9012").contains("removed"), "{}", done.stdout);
    assert_eq!(ids(&site), [9014, 9015]);
    let done = site.run(&["prune", "--keep", "1", "--yes"]).await;
    assert_eq!((done.code, ids(&site)), (Some(0), vec![9015]), "{}", done.stderr);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn promote_and_rollback_move_latest_and_the_next_build_is_the_latest_again() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    for (vmid, days, tags) in [(9015, 1, "forge;latest"), (9014, 2, "forge;gold"), (9013, 3, "forge")] {
        template(&site, vmid, "web", days, tags).await?;
    }
    template(&site, 9021, "db", 9, "forge;latest").await?;
    let latest = async || site.run(&["latest", "--profile", "web"]).await.stdout.trim().to_owned();
    let done = site.run(&["rollback"]).await;
    assert_eq!(done.code, Some(3), "which profile? {}", done.stdout);
    assert!(done.stderr.contains("--profile: db, web"), "{}", done.stderr);
    let done = site.run(&["rollback", "--profile", "web"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(done.stdout, "tpl-web (VM 9014) is the latest of web, before it VM 9015\n");
    assert_eq!((bearers(&site), latest().await), (vec![9014, 9021], "9014".into()));
    assert!(site.lab.vm(9014).is_some_and(|vm| vm.tags.contains("gold")), "its own tags stay");
    let done = site.run(&["promote", "9013", "--json"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let told: Value = serde_json::from_str(&done.stdout)?;
    assert_eq!((&told["latest"]["vmid"], &told["before"][0]["vmid"]), (&"9013".into(), &"9014".into()));
    assert_eq!((bearers(&site), latest().await), (vec![9013, 9021], "9013".into()));
    let done = site.run(&["rollback", "--profile", "web"]).await;
    assert_eq!(done.code, Some(3), "{}", done.stdout);
    assert!(done.stderr.contains("older than tpl-web (VM 9013)"), "{}", done.stderr);
    let done = site.run(&["promote", "tpl-web"]).await;
    assert_eq!(done.code, Some(3), "{}", done.stdout);
    assert!(done.stderr.contains("VMID: 9015, 9014, 9013"), "{}", done.stderr);
    let done = site.run(&["promote", "boot-vm"]).await;
    assert_eq!(done.code, Some(3), "the boot VM is not forge's: {}", done.stdout);
    assert_eq!(site.journals(), [""; 0]);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_is_killed_half_way_has_one_answer_and_gc_ends_it() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    for (vmid, days, tags) in [(9015, 1, "forge;latest"), (9014, 2, "forge")] {
        template(&site, vmid, "web", days, tags).await?;
    }
    for (at, found, after) in [(9014_u32, vec![9015], 9015), (9015, vec![9014, 9015], 9014)] {
        let gate = Gate::new();
        site.lab.faults().on("PUT", &format!("/nodes/pve/qemu/{at}/config")).then(Fault::Hold(gate.clone()));
        let mut running = site.start(&["promote", "9014"]);
        reached(&gate, &mut running).await;
        // Whatever happens, somebody bears the tag.
        assert_eq!(bearers(&site), found, "held at {at}");
        running.kill().await;
        site.lab.faults().clear();
        drop(gate);
        let done = site.run(&["gc"]).await;
        assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
        assert_eq!(bearers(&site), [after], "{}", done.stdout);
        assert_eq!(site.journals(), [""; 0]);
    }
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_force_a_tiny_guest_becomes_a_template_beside_the_old_one_which_nothing_removes()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let site = site.with_old_template("tiny").await?;
    site.write("tiny.toml", &PROFILE.replace("echo hello from $(hostname)", "exit 7"));
    let failed = site.run(&["build", "tiny.toml", "--force"]).await;
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    site.assert_nothing_left();
    site.assert_old_template(true, "a build that failed");
    site.write("tiny.toml", PROFILE);
    let done = site.run(&["build", "tiny.toml", "--force"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    assert_eq!(site.lab.vm(FIRST_ID).expect("it is there").tags, "forge;latest");
    site.assert_old_template(false, "a build that succeeded");
    site.close().await;
    Ok(())
}
