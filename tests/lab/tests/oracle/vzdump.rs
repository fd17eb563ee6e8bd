//! Backups: who may make and see them, what they hold, and what is left of one that fails. The words are those of
//! pve-manager's and pve-storage's sources; not observed.

use forge_lab::{Fault, Gate, ImportVm, Lab, LabConfig, StorageConfig};

use super::client::Client;
use super::{TOKEN, lab_with};

const DUMP: &str = "/nodes/pve1/vzdump";
const CONTENT: &str = "/nodes/pve1/storage/local/content?content=backup";

/// Two nodes; 9000 a template on the first, 9001 on the second.
async fn lab() -> anyhow::Result<(Lab, Client)> {
    let (lab, client) = lab_with(LabConfig {
        run_guests: false,
        nodes: vec!["pve1".to_owned(), "pve2".to_owned()],
        storages: vec![
            StorageConfig::everything("local"),
            StorageConfig::of("disks", &["images"]),
            StorageConfig::of("tight", &["backup"]).with_size(100),
        ],
        ..LabConfig::default()
    })
    .await?;
    let notes = "Template: web\n50% of it";
    let template = ImportVm {
        vmid: 9000,
        name: "tpl-web".into(),
        template: true,
        extra: [("description".to_owned(), notes.to_owned())].into(),
        ..ImportVm::default()
    };
    lab.import_vm(template).await?;
    lab.import_vm(ImportVm { vmid: 9001, node: Some("pve2".into()), ..ImportVm::default() }).await?;
    Ok((lab, client))
}

async fn volids(client: &Client) -> anyhow::Result<Vec<String>> {
    let list = client.get(CONTENT).await?.data();
    let all = list.as_array().into_iter().flatten();
    Ok(all.filter_map(|entry| entry["volid"].as_str().map(str::to_owned)).collect())
}

#[tokio::test]
async fn a_backup_has_its_name_its_notes_and_the_configuration_in_it() -> anyhow::Result<()> {
    let (lab, client) = lab().await?;
    let form =
        "vmid=9000&storage=local&compress=zstd&protected=1&notes-template=made%20of%20{{guestname}}%5Cnmore";
    let reply = client.call("POST", DUMP, form).await?;
    let (exit, log) = client.task(&reply).await?;
    assert_eq!(exit, "OK", "{log:#?}");
    let line = |words: &str| log.iter().any(|line| line.contains(words));
    assert!(line("INFO: creating vzdump archive '/var/lib/vz/dump/vzdump-qemu-9000-"), "{log:#?}");
    assert!(line("INFO: archive file size: ") && line("INFO: Backup job finished successfully"), "{log:#?}");
    let entry = client.get(CONTENT).await?.data()[0].clone();
    let volid = entry["volid"].as_str().unwrap_or_default().to_owned();
    assert!(volid.starts_with("local:backup/vzdump-qemu-9000-") && volid.ends_with(".vma.zst"), "{entry}");
    assert_eq!(
        (&entry["vmid"], &entry["notes"], &entry["protected"], &entry["format"]),
        (&9000.into(), &"made of tpl-web".into(), &1.into(), &"vma.zst".into()),
        "{entry}"
    );
    let extract = format!("/nodes/pve1/vzdump/extractconfig?volume={volid}");
    let config = client.get(&extract).await?.data();
    let config = config.as_str().unwrap_or_default();
    assert!(config.starts_with("#Template%3A web\n#50% of it\n"), "{config}");
    for words in ["\nname: tpl-web\n", "\ntemplate: 1\n", "\n#qmdump#map:scsi0:drive-scsi0:local:qcow2:\n"] {
        assert!(config.contains(words), "{config}");
    }
    assert!(!config.contains("lock:"), "{config}");
    assert!(lab.vm(9000).is_some_and(|vm| vm.lock.is_none()));

    let protected = client.done("DELETE", &format!("/nodes/pve1/storage/local/content/{volid}"), "").await?;
    assert_eq!(protected, format!("cannot remove protected volume '{volid}'"));
    let marks =
        client.get("/nodes/pve1/storage/local/prunebackups?prune-backups=keep-last%3D1").await?.data();
    assert_eq!(marks[0]["mark"], "protected", "{marks}");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn who_may_back_up_which_vm_to_where_is_checked() -> anyhow::Result<()> {
    let (lab, client) = lab().await?;
    let refused = async |form: &str| client.call("POST", DUMP, form).await.map(|reply| reply.line());
    let of_root = client.call("POST", DUMP, "vmid=9000&dumpdir=/mnt/pve/local").await?;
    assert_eq!(of_root.json()["errors"]["dumpdir"], "Only root may set this option.");
    let both = client.call("POST", DUMP, "vmid=9000&all=maybe").await?;
    assert_eq!(both.line(), "400 Parameter verification failed.");
    // Of another node: nothing is done, and nothing said.
    assert_eq!(client.call("POST", DUMP, "vmid=9001&storage=local").await?.data(), "OK");
    let exit = client.done("POST", DUMP, "vmid=9000&storage=disks").await?;
    assert_eq!(
        exit,
        "could not get storage information for 'disks': can't use storage 'disks' for backups - wrong content type"
    );
    assert_eq!(client.done("POST", DUMP, "vmid=9000&storage=local").await?, "OK");
    assert_eq!(volids(&client).await?.len(), 1);

    lab.set_token_access(
        TOKEN,
        &[("/vms", &["VM.Audit"]), ("/storage", &["Datastore.AllocateSpace"]), ("/", &["Sys.Audit"])],
    );
    assert_eq!(
        client.done("POST", DUMP, "vmid=9000&storage=local").await?,
        "Permission check failed (/vms/9000, VM.Backup)",
        "it is found out by the task"
    );
    assert_eq!(volids(&client).await?, [""; 0], "and what is there is not shown");
    lab.set_token_access(TOKEN, &[("/vms", &["VM.Backup"]), ("/", &["Sys.Audit"])]);
    let line = refused("vmid=9000&storage=local").await?;
    assert_eq!(line, "403 Permission check failed (/storage/local, Datastore.AllocateSpace)");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_backup_that_fails_or_is_stopped_leaves_neither_a_file_nor_a_lock() -> anyhow::Result<()> {
    let (lab, client) = lab().await?;
    let form = "vmid=9000&storage=local&compress=gzip";
    lab.faults().on("POST", DUMP).call(1).then(Fault::TaskFailAfter { text: "job errors".into() });
    assert_eq!(client.done("POST", DUMP, form).await?, "job errors");
    let gate = Gate::new();
    lab.faults().on("POST", DUMP).call(1).then(Fault::TaskHold(gate.clone()));
    let reply = client.call("POST", DUMP, form).await?;
    gate.reached().await;
    let upid = reply.data().as_str().unwrap_or_default().to_owned();
    client.call("DELETE", &format!("/nodes/pve1/tasks/{upid}"), "").await?;
    assert_eq!(client.task_of(&upid).await?.0, "received interrupt");
    let reply = client.call("POST", DUMP, "vmid=9000&storage=tight").await?;
    let (exit, log) = client.task(&reply).await?;
    assert_eq!(exit, "job errors");
    assert!(log.iter().any(|line| line.contains("No space left on device")), "{log:#?}");
    // The first of the three has failed after its work was done.
    assert_eq!(volids(&client).await?.len(), 1);
    let tight = client.get("/nodes/pve1/storage/tight/content").await?.data();
    assert_eq!(tight.as_array().map(Vec::len), Some(0), "{tight}");
    assert!(lab.vm(9000).is_some_and(|vm| vm.lock.is_none()));
    lab.stop().await;
    Ok(())
}

/// A disk of a real guest, in a backup as it is on the storage.
#[tokio::test]
async fn the_disk_of_a_tiny_guest_is_in_its_backup() -> anyhow::Result<()> {
    let Some(disk) = super::tiny_disk().await? else { return Ok(()) };
    let (lab, client) = lab_with(LabConfig::default()).await?;
    let raw = tempfile::NamedTempFile::new()?;
    let copied = std::process::Command::new("qemu-img")
        .args(["convert", "-O", "raw"])
        .args([disk.as_path(), raw.path()])
        .status()?;
    assert!(copied.success());
    lab.import_vm(ImportVm { vmid: 9000, disk: Some(disk), template: true, ..ImportVm::default() }).await?;
    let exit = client.done("POST", "/nodes/pve/vzdump", "vmid=9000&storage=local&compress=zstd").await?;
    assert_eq!(exit, "OK");
    let list = client.get("/nodes/pve/storage/local/content?content=backup").await?.data();
    let archive = lab.archive("pve", list[0]["volid"].as_str().unwrap_or_default())?;
    let bytes = std::fs::read(raw.path())?;
    let digest: String =
        <sha2::Sha256 as sha2::Digest>::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(archive.devices, [("drive-scsi0".to_owned(), bytes.len() as u64, digest)]);
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_backup_of_a_template_is_restored_to_one_where_and_by_whom_it_may_be() -> anyhow::Result<()> {
    let (lab, client) = lab().await?;
    assert_eq!(client.done("POST", DUMP, "vmid=9000&storage=local&compress=zstd").await?, "OK");
    let volid = volids(&client).await?.remove(0);
    let before = lab.vm(9000).expect("there");
    let create = "/nodes/pve1/qemu";
    let restore = |vmid: u32, more: &str| format!("vmid={vmid}&archive={volid}{more}");
    let line = async |form: String| client.call("POST", create, &form).await.map(|reply| reply.line());
    assert_eq!(
        line(restore(9000, "")).await?,
        "500 unable to restore VM 9000 - VM 9000 already exists on node 'pve1'"
    );
    let both = client.call("POST", create, &restore(9002, "&scsi0=local:1")).await?;
    assert_eq!(both.json()["errors"]["scsi0"], "option conflicts with option 'archive'");
    let gone =
        line("vmid=9002&archive=local:backup/vzdump-qemu-9-2026_01_01-00_00_00.vma".to_owned()).await?;
    assert!(gone.ends_with("does not exist"), "{gone}");
    assert_eq!(
        client.done("POST", create, &restore(9002, "&storage=tight")).await?,
        "unable to restore VM 9002 - storage 'tight' does not support vm images"
    );
    assert!(lab.vm(9002).is_none(), "what failed leaves nothing");

    assert_eq!(client.done("POST", create, &restore(9002, "&storage=disks")).await?, "OK");
    let after = lab.vm(9002).expect("restored");
    assert!(after.template && after.lock.is_none(), "{after:?}");
    assert_eq!((&after.name, &after.description), (&before.name, &before.description));
    let disk = &after.config["scsi0"];
    assert!(disk.starts_with("disks:9002/base-9002-disk-0.qcow2,"), "{disk}");
    assert_eq!(client.done("POST", DUMP, "vmid=9002&storage=local&compress=zstd").await?, "OK");
    let again = volids(&client).await?.into_iter().find(|other| *other != volid).expect("another");
    assert_eq!(lab.archive("pve1", &again)?.devices, lab.archive("pve1", &volid)?.devices);

    lab.set_token_access(TOKEN, &[("/vms", &["VM.Allocate"]), ("/", &["Sys.Audit"])]);
    assert_eq!(
        line(restore(9003, "")).await?,
        "403 Permission check failed (/storage/local, Datastore.AllocateSpace)"
    );
    lab.set_token_access(TOKEN, &[("/", &["VM.Allocate", "Datastore.AllocateSpace"])]);
    assert_eq!(line(restore(9003, "")).await?, "403 Permission check failed (/vms/9000, VM.Backup)");
    lab.set_token_access(TOKEN, &[("/", &["VM.Backup", "Datastore.AllocateSpace"])]);
    assert_eq!(line(restore(9003, "")).await?, "403 Permission check failed");
    lab.stop().await;
    Ok(())
}
