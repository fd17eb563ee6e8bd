//! Clone, template, delete, power and keys on VMs that run in name only (clone-template-delete.txt, sendkey-vnc.txt).

use std::time::Duration;

use forge_lab::{Fault, Gate, ImportVm, LabConfig};
use serde_json::json;

use super::{fast_lab, lab_with};

const VM: &str = "/nodes/pve/qemu/9000";

#[tokio::test]
async fn a_clone_is_locked_while_it_is_made_and_gets_identities_of_its_own() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    let extra = [("protection", "1"), ("onboot", "1"), ("description", "of the source"), ("cipassword", "x")];
    let extra = extra.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    lab.import_vm(ImportVm {
        vmid: 9000,
        tags: "a;b".to_owned(),
        cloudinit_drive: true,
        extra,
        ..ImportVm::default()
    })
    .await?;
    let gate = Gate::new();
    lab.faults().on("POST", "/nodes/*/qemu/*/clone").call(1).then(Fault::TaskHold(gate.clone()));
    let clone = client
        .call(
            "POST",
            &format!("{VM}/clone"),
            "newid=9100&name=c1&full=1&storage=local&format=qcow2&description=mine",
        )
        .await?;
    gate.reached().await;
    let config = client.get("/nodes/pve/qemu/9100/config").await?.data();
    assert_eq!(
        (&config["description"], &config["lock"]),
        (&json!(" qmclone temporary file"), &json!("clone"))
    );
    let busy = client.call("PUT", "/nodes/pve/qemu/9100/config", "memory=128").await?;
    assert_eq!(busy.line(), "500 VM is locked (clone)");
    assert_eq!(busy.json(), json!({"data": null, "message": "VM is locked (clone)\n"}));
    let taken = client.call("POST", &format!("{VM}/clone"), "newid=9100").await?;
    assert_eq!(taken.line(), "500 unable to create VM 9100: config file already exists");
    assert_eq!(
        client.call("PUT", &format!("{VM}/config"), "cores=2").await?.status,
        200,
        "the source takes changes"
    );
    gate.release();
    let (exit, log) = client.task(&clone).await?;
    assert_eq!(exit, "OK");
    assert_eq!(log[0], "creating a clone of VM 9000 with ID 9100");
    assert!(
        log.iter().any(|line| line == "create full clone of drive scsi0 (local:9000/vm-9000-disk-0.qcow2)"),
        "{log:?}"
    );
    assert_eq!(log.last().map(String::as_str), Some("TASK OK"));

    let (source, copy) = (lab.vm(9000).expect("there"), lab.vm(9100).expect("there"));
    assert_eq!(
        (copy.name.as_str(), copy.description.as_str(), copy.tags.as_str(), copy.lock),
        ("c1", "mine", "a;b", None)
    );
    for inherited in ["protection", "onboot", "agent", "cipassword", "boot", "memory"] {
        assert_eq!(copy.config.get(inherited), source.config.get(inherited), "{inherited}");
    }
    for own in ["net0", "smbios1", "vmgenid", "scsi0", "ide2"] {
        assert_ne!(copy.config.get(own), source.config.get(own), "{own}");
    }
    assert_eq!(copy.config["ide2"], "local:9100/vm-9100-cloudinit.qcow2,media=cdrom,size=4M");
    assert_eq!(
        client.done("DELETE", "/nodes/pve/qemu/9100", "").await?,
        "500 can't remove VM 9100 - protection mode enabled"
    );
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_holds_the_lock_file_makes_others_wait_and_give_up() -> anyhow::Result<()> {
    let config =
        LabConfig { run_guests: false, lock_timeout: Duration::from_millis(200), ..LabConfig::default() };
    let (lab, client) = lab_with(config).await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    let gate = Gate::new();
    lab.faults().on("POST", "/nodes/*/qemu/*/clone").then(Fault::TaskHold(gate.clone()));
    let clone = client.call("POST", &format!("{VM}/clone"), "newid=9100").await?;
    gate.reached().await;
    let text = "can't lock file '/var/lock/qemu-server/lock-9100.conf' - got timeout";
    assert_eq!(client.done("POST", "/nodes/pve/qemu/9100/status/start", "").await?, text);
    assert_eq!(client.done("DELETE", "/nodes/pve/qemu/9100", "").await?, text);
    gate.release();
    assert_eq!(client.task(&clone).await?.0, "OK");
    assert_eq!(client.done("POST", "/nodes/pve/qemu/9100/status/start", "").await?, "OK");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_stopped_clone_leaves_nothing() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    let before = lab.image_files();
    let gate = Gate::new();
    lab.faults().on("POST", "/nodes/*/qemu/*/clone").then(Fault::TaskHoldAfter(gate.clone()));
    let clone = client.call("POST", &format!("{VM}/clone"), "newid=9100").await?;
    gate.reached().await;
    assert!(lab.image_files().len() > before.len());
    let upid = clone.data().as_str().unwrap_or_default().to_owned();
    assert_eq!(client.call("DELETE", &format!("/nodes/pve/tasks/{upid}"), "").await?.status, 200);
    assert_eq!(client.task(&clone).await?.0, "received interrupt");
    assert_eq!((lab.vms().len(), lab.image_files()), (1, before));
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_template_keeps_its_linked_clones_and_does_not_start() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9000, cloudinit_drive: true, ..ImportVm::default() }).await?;
    let linked = client.call("POST", &format!("{VM}/clone"), "newid=9101&full=0").await?;
    assert_eq!(
        linked.line(),
        "500 Linked clone feature is not supported for 'local:9000/vm-9000-disk-0.qcow2' (scsi0)"
    );
    assert_eq!(client.done("POST", &format!("{VM}/status/start"), "").await?, "OK");
    assert_eq!(
        client.done("POST", &format!("{VM}/template"), "").await?,
        "500 you can't convert a VM to template if VM is running"
    );
    assert_eq!(client.done("DELETE", VM, "").await?, "500 VM 9000 is running - destroy failed");
    assert_eq!(client.done("POST", &format!("{VM}/status/shutdown"), "").await?, "OK");
    assert_eq!(client.done("POST", &format!("{VM}/template"), "").await?, "OK");
    assert_eq!(
        client.done("POST", &format!("{VM}/template"), "").await?,
        "500 you can't convert a template to a template"
    );
    let config = client.get(&format!("{VM}/config")).await?.data();
    assert_eq!(
        (&config["template"], &config["scsi0"]),
        (&json!(1), &json!("local:9000/base-9000-disk-0.qcow2,size=1G"))
    );
    assert_eq!(config["ide2"], "local:9000/vm-9000-cloudinit.qcow2,media=cdrom");

    assert_eq!(
        client.done("POST", &format!("{VM}/status/start"), "").await?,
        "you can't start a vm if it's a template"
    );
    assert_eq!(
        client.call("PUT", &format!("{VM}/config"), "description=tpl+desc&memory=1024").await?.status,
        200
    );
    let resized = client.done("PUT", &format!("{VM}/resize"), "disk=scsi0&size=%2B1G").await?;
    assert_eq!(
        resized,
        "command '/usr/bin/qemu-img resize '--preallocation=metadata' -f qcow2 /var/lib/vz/images/9000/base-9000-disk-0.qcow2 2147483648' failed: exit code 1"
    );
    let wrong = client.call("POST", &format!("{VM}/clone"), "newid=9102&storage=local").await?;
    assert_eq!(wrong.line(), "500 parameter 'storage' not allowed for linked clones");
    assert_eq!(client.done("POST", &format!("{VM}/clone"), "newid=9101&name=lc").await?, "OK");
    assert_eq!(
        lab.vm(9101).expect("there").config["scsi0"],
        "local:9000/base-9000-disk-0.qcow2/9101/vm-9101-disk-0.qcow2,size=1G"
    );
    assert_eq!(
        client.done("DELETE", VM, "").await?,
        "base volume 'local:9000/base-9000-disk-0.qcow2' is still in use by linked cloned"
    );
    let content = client.get("/nodes/pve/storage/local/content?content=images").await?.data();
    let volumes: Vec<&str> =
        content.as_array().into_iter().flatten().filter_map(|entry| entry["volid"].as_str()).collect();
    assert!(volumes.contains(&"local:9000/base-9000-disk-0.qcow2/9101/vm-9101-disk-0.qcow2"), "{volumes:?}");

    // With the parameter goes what bears the number, whoever put it there; without, only what the VM has.
    for vmid in ["9000", "9101"] {
        let body = format!("vmid={vmid}&filename=vm-{vmid}-disk-7.raw&size=1M");
        assert_eq!(client.call("POST", "/nodes/pve/storage/local/content", &body).await?.status, 200);
    }
    let purge =
        client.call("DELETE", "/nodes/pve/qemu/9101?purge=1&destroy-unreferenced-disks=1", "").await?;
    assert_eq!(
        client.task(&purge).await?,
        (
            "OK".to_owned(),
            vec!["purging VM 9101 from related configurations..".to_owned(), "TASK OK".to_owned()]
        )
    );
    assert_eq!(client.done("DELETE", VM, "").await?, "OK");
    let left = lab.image_files();
    assert_eq!((lab.vms().len(), left.len()), (0, 1), "{left:?}");
    assert!(left[0].ends_with("9000/vm-9000-disk-7.raw"), "{left:?}");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn keys_and_power_answer_as_a_real_server() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    let key = format!("{VM}/sendkey");
    assert_eq!(client.call("PUT", &key, "key=a").await?.line(), "500 VM 9000 not running");
    assert_eq!(
        client.call("POST", &format!("{VM}/status/reset"), "").await?.line(),
        "500 VM 9000 not running"
    );
    assert_eq!(
        client.call("POST", &format!("{VM}/agent/ping"), "").await?.line(),
        "500 VM 9000 is not running"
    );
    assert_eq!(client.done("POST", &format!("{VM}/status/stop"), "").await?, "OK");
    assert_eq!(client.done("POST", &format!("{VM}/status/start"), "").await?, "OK");
    for good in [
        "ret",
        "a",
        "shift-a",
        "ctrl-alt-delete",
        "spc",
        "0x1c",
        "a%2020",
        "a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a",
    ] {
        assert_eq!(client.call("PUT", &key, &format!("key={good}")).await?.line(), "200 OK", "{good}");
    }
    for bad in ["nosuchkey", "a%2Bb", "ret-", "A"] {
        let reply = client.call("PUT", &key, &format!("key={bad}")).await?;
        assert_eq!((reply.line().as_str(), reply.body.as_str()), ("400 Bad Request", ""), "{bad}");
    }
    let status = client.get(&format!("{VM}/status/current")).await?.data();
    assert_eq!(
        (&status["status"], &status["qmpstatus"], &status["agent"]),
        (&json!("running"), &json!("running"), &json!(1))
    );
    assert_eq!(
        client.call("POST", &format!("{VM}/agent/ping"), "").await?.line(),
        "500 QEMU guest agent is not running"
    );
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_bridge_that_is_not_there_is_found_at_the_start_only() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    let set = client.call("PUT", &format!("{VM}/config"), "net0=virtio%2Cbridge%3Dvmbr99").await?;
    assert_eq!(set.line(), "200 OK");
    let start = client.call("POST", &format!("{VM}/status/start"), "").await?;
    assert_eq!(start.line(), "200 OK");
    let (exit, _) = client.task(&start).await?;
    assert_eq!(exit, "bridge 'vmbr99' does not exist");
    assert!(!lab.vm(9000).expect("there").running);
    lab.stop().await;
    Ok(())
}
