//! Scripted faults, and tasks that go on when the client hangs up.

use std::time::Duration;

use forge_lab::{Fault, Gate, ImportVm, Lab};

use super::fast_lab;

async fn until(lab: &Lab, what: &str, condition: impl Fn(&Lab) -> bool) {
    for _ in 0..500 {
        if condition(lab) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_cut_connection_says_nothing_of_whether_it_was_done() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    let clone = "/nodes/pve/qemu/9000/clone";
    lab.faults().on("POST", "/nodes/*/qemu/*/clone").call(1).then(Fault::DropBefore);
    lab.faults().on("POST", "/nodes/*/qemu/*/clone").call(2).then(Fault::DoThenDrop);
    lab.faults()
        .on("POST", "/nodes/*/qemu/*/clone")
        .call(3)
        .then(Fault::Refuse { status: 595, reason: "Connection refused".to_owned() });
    lab.faults()
        .on("POST", "/nodes/*/qemu/*/clone")
        .call(4)
        .then(Fault::TaskFail { text: "clone failed: no space left".to_owned() });
    lab.faults().on("POST", "/nodes/*/qemu/*/clone").call(5).then(Fault::TaskWarn { text: "odd".to_owned() });
    assert!(client.call("POST", clone, "newid=9101").await.is_err());
    assert!(lab.vm(9101).is_none());
    assert!(client.call("POST", clone, "newid=9102").await.is_err());
    until(&lab, "the cut clone is made", |lab| lab.vm(9102).is_some_and(|vm| vm.lock.is_none())).await;
    let refused = client.call("POST", clone, "newid=9103").await?;
    assert_eq!((refused.line().as_str(), refused.body.as_str()), ("595 Connection refused", ""));
    assert_eq!(client.done("POST", clone, "newid=9104").await?, "clone failed: no space left");
    assert!(lab.vm(9104).is_none());
    assert_eq!(client.done("POST", clone, "newid=9105").await?, "WARNINGS: 1");
    let statuses: Vec<Option<u16>> = lab
        .requests()
        .iter()
        .filter(|request| request.path.ends_with("/clone"))
        .map(|request| request.status)
        .collect();
    assert_eq!(statuses, [None, None, Some(595), Some(200), Some(200)]);
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_held_call_is_done_when_it_is_released_though_the_client_left() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    let gate = Gate::new();
    lab.faults().on("PUT", "/nodes/pve/qemu/9000/config").then(Fault::Hold(gate.clone()));
    let call =
        tokio::spawn(
            async move { client.call("PUT", "/nodes/pve/qemu/9000/config", "description=late").await },
        );
    gate.reached().await;
    call.abort();
    assert_eq!(lab.vm(9000).expect("there").description, "");
    gate.release();
    until(&lab, "the change is made", |lab| lab.vm(9000).is_some_and(|vm| vm.description == "late")).await;
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_disk_grows_and_never_shrinks() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    let gate = Gate::new();
    lab.faults().on("PUT", "/nodes/*/qemu/*/resize").then(Fault::TaskHoldAfter(gate.clone()));
    let resize = client.call("PUT", "/nodes/pve/qemu/9000/resize", "disk=scsi0&size=%2B1G").await?;
    gate.reached().await;
    gate.release();
    assert_eq!(client.task(&resize).await?.0, "OK");
    assert_eq!(lab.vm(9000).expect("there").config["scsi0"], "local:9000/vm-9000-disk-0.qcow2,size=2G");
    let cases = [
        ("disk=scsi0&size=1G", "shrinking disks is not supported"),
        ("disk=scsi7&size=5G", "disk 'scsi7' does not exist"),
        ("disk=scsi0&size=5GB", "400 Parameter verification failed."),
    ];
    for (form, outcome) in cases {
        assert_eq!(client.done("PUT", "/nodes/pve/qemu/9000/resize", form).await?, outcome, "{form}");
    }
    lab.stop().await;
    Ok(())
}
