//! Disks that go to another storage or to another VM: what is refused, and what the configurations hold afterwards.

use forge_lab::{ImportVm, Lab, LabConfig, StorageConfig};
use serde_json::json;

use super::client::Client;
use super::{TOKEN, lab_with};

const VM: &str = "/nodes/pve1/qemu/9000";
const MOVE: &str = "/nodes/pve1/qemu/9000/move_disk";

/// Two nodes, three storages; 9000 and 9001 on the first node, 9002 on the second, 9003 a template.
async fn lab() -> anyhow::Result<(Lab, Client)> {
    let (lab, client) = lab_with(LabConfig {
        run_guests: false,
        nodes: vec!["pve1".to_owned(), "pve2".to_owned()],
        storages: vec![
            StorageConfig::everything("local"),
            StorageConfig::of("second", &["images"]),
            StorageConfig::of("isos", &["iso"]),
        ],
        ..LabConfig::default()
    })
    .await?;
    for (vmid, node, template) in
        [(9000, "pve1", false), (9001, "pve1", false), (9002, "pve2", false), (9003, "pve1", true)]
    {
        let node = Some(node.to_owned());
        lab.import_vm(ImportVm { vmid, node, template, ..ImportVm::default() }).await?;
    }
    Ok((lab, client))
}

async fn refused(client: &Client, form: &str) -> anyhow::Result<String> {
    Ok(client.call("POST", MOVE, form).await?.line())
}

#[tokio::test]
async fn a_move_says_where_to_in_one_way() -> anyhow::Result<()> {
    let (lab, client) = lab().await?;
    for (form, text) in [
        ("disk=scsi0", "both 'storage' and 'target-vmid' missing, either needs to be set"),
        ("disk=scsi0&storage=second&target-vmid=9001", "either set 'storage' or 'target-vmid', but not both"),
    ] {
        let reply = client.call("POST", MOVE, form).await?;
        assert_eq!(reply.line(), "400 Parameter verification failed.");
        let errors = json!({"storage": text, "target-vmid": text});
        assert_eq!(
            reply.json(),
            json!({"data": null, "message": "Parameter verification failed.\n", "errors": errors})
        );
    }
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_disk_moves_to_another_storage_and_leaves_an_unused_one() -> anyhow::Result<()> {
    let (lab, client) = lab().await?;
    let same = "500 you can't move to the same storage with same format";
    assert_eq!(refused(&client, "disk=scsi0&storage=local").await?, same);
    assert_eq!(refused(&client, "disk=scsi7&storage=second").await?, "500 disk 'scsi7' does not exist");
    let reply = client.call("POST", MOVE, "disk=scsi0&storage=isos").await?;
    assert_eq!(
        (reply.status, &reply.json()["errors"]),
        (400, &json!({"storage": "storage 'isos' does not support vm images"}))
    );
    assert_eq!(
        refused(&client, "disk=scsi0&storage=second&digest=00").await?,
        "500 checksum mismatch (file change by other user?)"
    );
    let moved = client.call("POST", MOVE, "disk=scsi0&storage=second&format=raw").await?;
    let (exit, log) = client.task(&moved).await?;
    assert_eq!(exit, "OK");
    let old = "local:9000/vm-9000-disk-0.qcow2";
    assert_eq!(
        log[0],
        format!("copying volume '{old}' from current storage 'local' to target storage 'second'")
    );
    assert!(log.contains(&format!("adding source volume '{old}' as 'unused0' to config")), "{log:?}");
    let config = client.get(&format!("{VM}/config")).await?.data();
    assert!(config["scsi0"].as_str().is_some_and(|disk| disk.starts_with("second:9000/vm-9000-disk-0.raw,")));
    assert_eq!(config["unused0"], old);
    // What is unused moves too.
    assert_eq!(client.done("POST", MOVE, "disk=unused0&storage=second&delete=1").await?, "OK");
    let config = client.get(&format!("{VM}/config")).await?.data();
    assert_eq!(config["unused0"], "second:9000/vm-9000-disk-1.qcow2");
    // A template's disk stays a base volume.
    let template = "/nodes/pve1/qemu/9003";
    let form = "disk=scsi0&storage=second&delete=1";
    assert_eq!(client.done("POST", &format!("{template}/move_disk"), form).await?, "OK");
    let disk = client.get(&format!("{template}/config")).await?.data()["scsi0"].clone();
    assert!(
        disk.as_str().is_some_and(|disk| disk.starts_with("second:9003/base-9003-disk-0.qcow2,")),
        "{disk}"
    );
    // A snapshot's disk may go, but not be deleted.
    assert_eq!(client.done("POST", "/nodes/pve1/qemu/9001/snapshot", "snapname=s1").await?, "OK");
    let reply =
        client.call("POST", "/nodes/pve1/qemu/9001/move_disk", "disk=scsi0&storage=second&delete=1").await?;
    assert_eq!(reply.line(), "500 you can't move a disk with snapshots and delete the source");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_disk_becomes_another_vms() -> anyhow::Result<()> {
    let (lab, client) = lab().await?;
    let form = "scsi1=local:1,format=qcow2,discard=on&boot=order%3Dscsi0%3Bscsi1";
    assert_eq!(client.call("PUT", &format!("{VM}/config"), form).await?.line(), "200 OK");
    let reply = client.call("POST", MOVE, "disk=scsi1&target-vmid=9001&target-disk=virtio0").await?;
    let upid = reply.data().as_str().unwrap_or_default().to_owned();
    assert!(upid.contains(":qmmove:9000-scsi1>9001-virtio0:"), "{upid}");
    let (exit, log) = client.task(&reply).await?;
    assert_eq!(exit, "OK");
    assert_eq!(
        log[..3],
        [
            "reassign disk 'scsi1' from VM '9000' as 'virtio0' to VM '9001'",
            "removing disk 'scsi1' from boot order config",
            "removing disk 'scsi1' from VM '9000' config",
        ]
    );
    let from = client.get(&format!("{VM}/config")).await?.data();
    assert_eq!((from.get("scsi1"), &from["boot"]), (None, &json!("order=scsi0")));
    let to = client.get("/nodes/pve1/qemu/9001/config").await?.data();
    assert_eq!(to["virtio0"], "local:9001/vm-9001-disk-1.qcow2,discard=on,size=1G");
    let files = lab.image_files();
    let of = |name: &str| files.iter().filter(|file| file.to_string_lossy().ends_with(name)).count();
    assert_eq!((of("vm-9001-disk-1.qcow2"), of("vm-9000-disk-1.qcow2")), (1, 0), "{files:?}");

    // The key stays the same unless another is given; a linked clone's disk keeps its base.
    let clone = "newid=9010&full=0";
    assert_eq!(client.done("POST", "/nodes/pve1/qemu/9003/clone", clone).await?, "OK");
    let path = "/nodes/pve1/qemu/9010/move_disk";
    assert_eq!(client.done("POST", path, "disk=scsi0&target-vmid=9001&target-disk=scsi5").await?, "OK");
    let to = client.get("/nodes/pve1/qemu/9001/config").await?.data();
    assert!(
        to["scsi5"].as_str().is_some_and(|disk| {
            disk.starts_with("local:9003/base-9003-disk-0.qcow2/9001/vm-9001-disk-2.qcow2")
        }),
        "{to}"
    );
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_unused_disk_leaves_a_vm_that_runs() -> anyhow::Result<()> {
    let (lab, client) = lab().await?;
    assert_eq!(client.done("POST", MOVE, "disk=scsi0&storage=second").await?, "OK");
    assert_eq!(client.done("POST", &format!("{VM}/status/start"), "").await?, "OK");
    assert_eq!(
        refused(&client, "disk=scsi0&target-vmid=9001&target-disk=scsi1").await?,
        "500 Cannot move disk to another VM while the source VM is running - detach first"
    );
    assert_eq!(client.done("POST", MOVE, "disk=unused0&target-vmid=9001").await?, "OK");
    let (from, to) = (lab.vm(9000).map(|vm| vm.config), lab.vm(9001).map(|vm| vm.config));
    assert!(from.is_some_and(|config| !config.contains_key("unused0")));
    let unused = to.and_then(|config| config.get("unused0").cloned());
    assert_eq!(unused.as_deref(), Some("local:9001/vm-9001-disk-1.qcow2"));
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_disk_that_another_vm_can_not_have_is_refused_at_once() -> anyhow::Result<()> {
    let (lab, client) = lab().await?;
    let set = async |form: &str| client.call("PUT", &format!("{VM}/config"), form).await;
    assert_eq!(set("ide2=none,media=cdrom&scsi1=local:1,format=qcow2,ssd=1").await?.line(), "200 OK");
    let reply = client.call("POST", MOVE, "disk=scsi0&target-vmid=9000").await?;
    let text = "must be different than source VMID to reassign disk";
    assert_eq!((reply.status, &reply.json()["errors"]), (400, &json!({"target-vmid": text})));
    for (form, line) in [
        ("disk=scsi0&target-vmid=9999", "500 could not find target VM 9999"),
        ("disk=scsi0&target-vmid=9002", "500 Both VMs need to be on the same node (pve1 != pve2)"),
        ("disk=scsi0&target-vmid=9003", "500 Can't move disks from or to template VMs"),
        ("disk=scsi9&target-vmid=9001", "500 Disk 'scsi9' for VM '9000' does not exist"),
        ("disk=scsi0&target-vmid=9001", "500 Target disk key 'scsi0' is already in use for VM '9001'"),
        ("disk=ide2&target-vmid=9001", "500 CD drive contents can't be moved to another VM"),
        (
            "disk=scsi1&target-vmid=9001&target-disk=virtio0",
            "500 failed to parse source disk for target disk format -",
        ),
        (
            "disk=scsi1&target-vmid=9001&digest=00",
            "500 VM 9000: checksum mismatch (file change by other user?)",
        ),
        (
            "disk=scsi1&target-vmid=9001&target-digest=00",
            "500 VM 9001: checksum mismatch (file change by other user?)",
        ),
    ] {
        assert_eq!(refused(&client, form).await?, line, "{form}");
    }
    assert_eq!(client.done("POST", &format!("{VM}/snapshot"), "snapname=s1").await?, "OK");
    assert_eq!(
        refused(&client, "disk=scsi1&target-vmid=9001").await?,
        "500 Can't move disk used by a snapshot to another VM"
    );
    assert_eq!(client.done("POST", "/nodes/pve1/qemu/9001/status/start", "").await?, "OK");
    assert_eq!(client.done("POST", "/nodes/pve1/qemu/9001/status/suspend", "todisk=1").await?, "OK");
    assert_eq!(refused(&client, "disk=scsi1&target-vmid=9001").await?, "500 VM is locked (suspended)");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn both_vms_and_the_storage_are_asked_for_permission() -> anyhow::Result<()> {
    let (lab, client) = lab().await?;
    let own: &[&str] = &["VM.Config.Disk"];
    let room: &[&str] = &["Datastore.AllocateSpace"];
    let form = "disk=scsi0&target-vmid=9001&target-disk=scsi3";
    lab.set_token_access(TOKEN, &[("/vms/9000", own)]);
    assert_eq!(refused(&client, form).await?, "403 Permission check failed (/vms/9001, VM.Config.Disk)");
    lab.set_token_access(TOKEN, &[("/vms/9000", own), ("/vms/9001", own)]);
    assert_eq!(
        refused(&client, form).await?,
        "403 Permission check failed (/storage/local, Datastore.AllocateSpace)"
    );
    lab.set_token_access(TOKEN, &[("/vms/9000", own), ("/vms/9001", own), ("/storage/local", room)]);
    assert_eq!(client.call("POST", MOVE, form).await?.status, 200);
    lab.stop().await;
    Ok(())
}
