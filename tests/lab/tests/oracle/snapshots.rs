//! Snapshots with and without memory, suspending, rebooting, the monitor and moving disks (cloudinit-snapshot.txt).

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use forge_lab::{ImportVm, LabConfig, StorageConfig};
use serde_json::{Value, json};

use super::client::Client;
use super::{fast_lab, lab_with, tiny_disk};

const VM: &str = "/nodes/pve/qemu/9000";

#[tokio::test]
async fn snapshots_answer_as_a_real_server() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    let snapshot = format!("{VM}/snapshot");
    let taken = client.call("POST", &snapshot, "snapname=s1&description=d").await?;
    let (exit, log) = client.task(&taken).await?;
    assert_eq!(exit, "OK");
    assert_eq!(log[0], "snapshotting 'drive-scsi0' (local:9000/vm-9000-disk-0.qcow2)");
    let list = client.get(&snapshot).await?.data();
    assert_eq!(
        (&list[0]["name"], &list[0]["vmstate"], &list[0]["description"]),
        (&json!("s1"), &json!(0), &json!("d"))
    );
    assert_eq!(
        (&list[1]["name"], &list[1]["description"], &list[1]["parent"], &list[1]["running"]),
        (&json!("current"), &json!("You are here!"), &json!("s1"), &json!(0))
    );
    let bad = client.call("POST", &snapshot, "snapname=1bad").await?;
    assert_eq!(
        bad.json()["errors"],
        json!({"snapname": "invalid format - invalid configuration ID '1bad'\n"})
    );
    assert_eq!(client.done("POST", &snapshot, "snapname=s1").await?, "snapshot name 's1' already used");
    assert_eq!(
        client.call("POST", &format!("{VM}/template"), "").await?.line(),
        "500 unable to create template, because VM contains snapshots"
    );
    assert_eq!(client.call("PUT", &format!("{VM}/config"), "memory=1024").await?.status, 200);
    assert_eq!(client.done("POST", &snapshot, "snapname=s2").await?, "OK");
    assert_eq!(client.done("POST", &format!("{snapshot}/s1/rollback"), "").await?, "OK");
    assert_eq!(client.get(&format!("{VM}/config")).await?.data()["memory"], "512");
    assert_eq!(client.get(&format!("{snapshot}/s2/config")).await?.data()["memory"], "1024");
    assert_eq!(client.done("DELETE", &format!("{snapshot}/s1"), "").await?, "OK");
    assert!(client.get(&format!("{VM}/config")).await?.data().get("parent").is_none());
    assert_eq!(client.done("DELETE", &format!("{snapshot}/s1"), "").await?, "snapshot 's1' does not exist");
    assert_eq!(client.done("DELETE", &format!("{snapshot}/s2"), "").await?, "OK");
    assert_eq!(client.done("POST", &format!("{VM}/template"), "").await?, "OK");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_vm_is_suspended_to_memory_and_to_disk_and_resumed() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    for action in ["reboot", "suspend", "resume"] {
        let reply = client.call("POST", &format!("{VM}/status/{action}"), "").await?;
        assert_eq!(reply.line(), "500 VM 9000 not running", "{action}");
    }
    let status = async || anyhow::Ok(client.get(&format!("{VM}/status/current")).await?.data());
    let done =
        async |action: &str, form: &str| client.done("POST", &format!("{VM}/status/{action}"), form).await;
    assert_eq!(done("start", "").await?, "OK");
    assert_eq!(done("suspend", "").await?, "OK");
    assert_eq!(status().await?["qmpstatus"], "paused");
    assert_eq!(done("resume", "").await?, "OK");
    assert_eq!(status().await?["qmpstatus"], "running");
    assert_eq!(done("suspend", "todisk=1").await?, "OK");
    let stopped = status().await?;
    assert_eq!((&stopped["status"], &stopped["lock"]), (&json!("stopped"), &json!("suspended")));
    assert_eq!(
        client.call("PUT", &format!("{VM}/config"), "memory=64").await?.line(),
        "500 VM is locked (suspended)"
    );
    assert_eq!(done("resume", "").await?, "OK");
    assert_eq!((&status().await?["status"], lab.image_files().len()), (&json!("running"), 1));
    lab.stop().await;
    Ok(())
}

/// Runs a command in the guest by its agent, and returns what it wrote.
async fn run(client: &Client, command: &str) -> anyhow::Result<String> {
    let body = json!({"command": ["sh", "-c", command]}).to_string();
    let started = Instant::now();
    loop {
        let reply = client.call("POST", &format!("{VM}/agent/exec"), &body).await?;
        if reply.status == 200 {
            let pid = reply.data()["pid"].clone();
            loop {
                let status = client.get(&format!("{VM}/agent/exec-status?pid={pid}")).await?.data();
                if status["exited"] == 1 {
                    return Ok(status["out-data"].as_str().unwrap_or_default().trim().to_owned());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        if started.elapsed() > Duration::from_secs(400) {
            bail!("{}", reply.line());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_goes_back_in_time_with_its_memory_and_its_disk() -> anyhow::Result<()> {
    let Some(disk) = tiny_disk().await? else { return Ok(()) };
    let storages = vec![StorageConfig::everything("local"), StorageConfig::everything("second")];
    let config = LabConfig { agent_ping: Duration::from_secs(1), storages, ..LabConfig::default() };
    let (lab, client) = lab_with(config).await?;
    lab.import_vm(ImportVm { vmid: 9000, disk: Some(disk), ..ImportVm::default() }).await?;
    let done = async |path: &str, form: &str| client.done("POST", &format!("{VM}/{path}"), form).await;
    assert_eq!(done("status/start", "").await?, "OK");
    // One word on the disk and one in memory alone.
    run(&client, "echo old >/root/word; echo old >/run/word; sync").await?;
    assert_eq!(done("snapshot", "snapname=warm&vmstate=1").await?, "OK");
    run(&client, "echo new >/root/word; echo new >/run/word; sync").await?;
    assert_eq!(run(&client, "cat /root/word /run/word").await?, "new\nnew");
    assert_eq!(done("snapshot/warm/rollback", "").await?, "OK");
    assert_eq!(run(&client, "cat /root/word /run/word").await?, "old\nold");
    assert!(client.get(&format!("{VM}/status/current")).await?.data()["status"] == "running");

    // While it runs, its disk moves away under it.
    assert_eq!(client.done("DELETE", &format!("{VM}/snapshot/warm"), "").await?, "OK");
    assert_eq!(done("move_disk", "disk=scsi0&storage=second&delete=1").await?, "OK");
    let disk = lab.vm(9000).context("there")?.config["scsi0"].clone();
    assert_eq!(disk, "second:9000/vm-9000-disk-0.qcow2,size=256M");
    assert_eq!(run(&client, "echo moved >/root/word; sync; cat /root/word").await?, "moved");

    let info = client.call("POST", &format!("{VM}/monitor"), "command=info+status").await?.data();
    assert_eq!(info, Value::from("VM status: running\r\n"));
    let before = lab.qemu_pids();
    assert_eq!(done("status/reboot", "timeout=120").await?, "OK");
    assert_eq!(run(&client, "cat /root/word; ls /run/word 2>/dev/null").await?, "moved");
    assert_ne!(lab.qemu_pids(), before, "another process: pending changes would be in effect");
    lab.stop().await;
    Ok(())
}
