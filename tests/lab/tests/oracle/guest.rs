//! One VM in a real QEMU: start, screen over the websocket, keys, shutdown, stop (start.txt, vnc-websocket.txt).

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use forge_lab::{Fault, ImportVm, LabConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::header;
use super::lab_with;
use super::websocket::{frame, masked, open};

const VM: &str = "/nodes/pve/qemu/9000";

/// The protocol of the tests.
const BINARY: &str = "Sec-WebSocket-Protocol: binary\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_a_real_qemu_with_a_real_screen() -> anyhow::Result<()> {
    if !Path::new("/usr/bin/qemu-system-x86_64").exists() {
        println!("skipped: qemu-system-x86_64 is not installed");
        return Ok(());
    }
    let config = LabConfig { agent_ping: Duration::from_millis(200), ..LabConfig::default() };
    let (lab, client) = lab_with(config).await?;
    lab.import_vm(ImportVm { vmid: 9000, memory: 64, cloudinit_drive: true, ..ImportVm::default() }).await?;
    let start = client.call("POST", &format!("{VM}/status/start"), "").await?;
    let (exit, log) = client.task(&start).await?;
    assert_eq!((exit.as_str(), log[0].as_str()), ("OK", "generating cloud-init ISO"), "{log:?}");
    let pids = lab.qemu_pids();
    assert_eq!(pids.len(), 1);
    let status = client.get(&format!("{VM}/status/current")).await?.data();
    assert_eq!(status["pid"], json!(pids[0]));
    assert_eq!(
        client.call("POST", &format!("{VM}/agent/ping"), "").await?.line(),
        "500 QEMU guest agent is not running"
    );
    assert_eq!(client.call("PUT", &format!("{VM}/sendkey"), "key=shift-a").await?.line(), "200 OK");
    assert_eq!(
        client.call("PUT", &format!("{VM}/sendkey"), "key=nosuchkey").await?.line(),
        "400 Bad Request"
    );
    assert_eq!(client.call("PUT", &format!("{VM}/config"), "ide2=none,media=cdrom").await?.line(), "200 OK");

    let proxy =
        client.call("POST", &format!("{VM}/vncproxy"), "websocket=1&generate-password=1").await?.data();
    let text = |key: &str| proxy[key].as_str().map(str::to_owned).with_context(|| key.to_owned());
    let (port, ticket, password) = (text("port")?, text("ticket")?, text("password")?);
    assert!(ticket.starts_with(&format!("{password}:PVEVNC:")), "{ticket}");
    assert_eq!(password.len(), 8);
    let (head, mut stream, mut rest) = open(&client, &port, &ticket, BINARY).await?;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert_eq!(header(&head, "sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(header(&head, "sec-websocket-protocol").as_deref(), Some("binary"));
    assert_eq!(frame(&mut stream, &mut rest).await?, b"RFB 003.008\n");
    stream.write_all(&masked(b"RFB 003.008\n")).await?;
    let mut types = Vec::new();
    while types.len() < 2 {
        types.extend(frame(&mut stream, &mut rest).await?);
    }
    assert_eq!(types, [1, 2], "one security type: VNC authentication");
    drop(stream);
    let ended = client.task_of(&text("upid")?).await?;
    assert_eq!(ended.0, "OK");
    let (_, mut second, _) = open(&client, &port, &ticket, BINARY).await?;
    let mut byte = [0];
    assert!(matches!(second.read(&mut byte).await, Ok(0) | Err(_)), "a used port closes without a word");

    // A fault cuts it after the greeting.
    lab.faults().on("GET", "/nodes/*/qemu/*/vncwebsocket").then(Fault::LoseWebsocket { after_bytes: 12 });
    let proxy = client.call("POST", &format!("{VM}/vncproxy"), "websocket=1").await?.data();
    let text = |key: &str| proxy[key].as_str().unwrap_or_default().to_owned();
    let (_, mut lost, mut rest) = open(&client, &text("port"), &text("ticket"), BINARY).await?;
    assert_eq!(frame(&mut lost, &mut rest).await?, b"RFB 003.008\n");
    lost.write_all(&masked(b"RFB 003.008\n")).await?;
    assert!(frame(&mut lost, &mut rest).await.is_err(), "the connection is lost");

    let shutdown = client.call("POST", &format!("{VM}/status/shutdown"), "timeout=1").await?;
    let (exit, log) = client.task(&shutdown).await?;
    assert_eq!(exit, "VM quit/powerdown failed - got timeout");
    assert_eq!(
        log[0],
        "QEMU Guest Agent is not running - VM 9000 qga command 'guest-ping' failed - got timeout"
    );
    assert_eq!(client.done("PUT", &format!("{VM}/resize"), "disk=scsi0&size=%2B1G").await?, "OK");
    assert_eq!(client.done("POST", &format!("{VM}/status/reset"), "").await?, "OK");
    assert_eq!(client.done("POST", &format!("{VM}/status/stop"), "").await?, "OK");
    assert!(lab.qemu_pids().is_empty());
    assert_eq!(client.done("POST", &format!("{VM}/clone"), "newid=9100&full=1").await?, "OK");
    assert_eq!(client.done("POST", &format!("{VM}/template"), "").await?, "OK");
    assert_eq!(client.done("POST", &format!("{VM}/clone"), "newid=9101").await?, "OK");
    assert_eq!(client.done("POST", "/nodes/pve/qemu/9101/status/start", "").await?, "OK");
    let pid = lab.qemu_pids()[0];
    lab.stop().await;
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "no QEMU outlives its lab");
    Ok(())
}
