//! The tiny guest on the lab: cloud-init drive, agent, address, commands, files, shutdown (guest-agent.txt).

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::bail;
use forge_lab::{Fault, ImportVm, LabConfig};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::client::Client;
use super::{lab_with, tiny_disk};

const VM: &str = "/nodes/pve/qemu/9200";

async fn until_the_agent_answers(client: &Client) -> anyhow::Result<()> {
    // Each takes a second while there is no agent; a busy machine boots slowly.
    for _ in 0..300 {
        match client.call("POST", &format!("{VM}/agent/ping"), "").await?.line().as_str() {
            "200 OK" => return Ok(()),
            "500 QEMU guest agent is not running" => {}
            other => bail!("{other}"),
        }
    }
    bail!("the agent never answers")
}

async fn ended(client: &Client, pid: &Value) -> anyhow::Result<Value> {
    for _ in 0..100 {
        let status = client.get(&format!("{VM}/agent/exec-status?pid={pid}")).await?.data();
        if status["exited"] == 1 {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("process {pid} does not end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_is_reached_through_agent_and_network() -> anyhow::Result<()> {
    let Some(disk) = tiny_disk().await? else { return Ok(()) };
    let (lab, client) =
        lab_with(LabConfig { agent_ping: Duration::from_secs(1), ..LabConfig::default() }).await?;
    lab.import_vm(ImportVm { vmid: 9200, name: "tiny".to_owned(), disk: Some(disk), ..ImportVm::default() })
        .await?;
    let key = "ssh-ed25519%2520AAAAC3NzaC1lZDI1NTE5AAAAIBs%252FpKYCXUa1NsAQUngaX6ppcDn49GIeAAm%252FmrcaOcUQ%2520root%2540vm%250A";
    let form = format!("ide2=local%3Acloudinit&ciuser=forge&sshkeys={key}&ipconfig0=ip%3Ddhcp");
    assert_eq!(client.call("PUT", &format!("{VM}/config"), &form).await?.line(), "200 OK");
    assert_eq!(client.done("POST", &format!("{VM}/status/start"), "").await?, "OK");
    until_the_agent_answers(&client).await?;

    let ping = format!("{VM}/agent/ping");
    lab.faults().on("POST", "/nodes/*/qemu/*/agent/ping").from(2).then(Fault::AgentGone);
    assert_eq!(client.call("POST", &ping, "").await?.line(), "200 OK");
    for _ in 0..2 {
        assert_eq!(client.call("POST", &ping, "").await?.line(), "500 QEMU guest agent is not running");
    }
    lab.faults().clear();

    for call in [
        "GET /agent",
        "GET /agent/get-fsinfo",
        "GET /agent/get-host-name",
        "GET /agent/get-memory-block-info",
        "GET /agent/get-memory-blocks",
        "GET /agent/get-time",
        "GET /agent/get-timezone",
        "GET /agent/get-users",
        "GET /agent/get-vcpus",
        "GET /agent/info",
        "POST /agent/fsfreeze-status",
        "POST /agent/fstrim",
    ] {
        let (method, path) = call.split_once(' ').expect("two words");
        let reply = client.call(method, &format!("{VM}{path}"), "").await?;
        // What this guest's agent can't do, it says itself.
        assert!(
            reply.status == 200 || reply.line().starts_with("500 Agent error: "),
            "{call}: {}",
            reply.line()
        );
    }
    let command = client.call("POST", &format!("{VM}/agent"), "command=ping").await?;
    assert_eq!(command.line(), "200 OK");

    let os = client.get(&format!("{VM}/agent/get-osinfo")).await?.data();
    assert_eq!(os["result"]["id"], "tiny");
    let address = lab.ssh_address(9200).expect("the VM is there");
    let mut banner = [0; 8];
    for attempt in 0.. {
        let read = async { TcpStream::connect(address).await?.read_exact(&mut banner).await };
        match tokio::time::timeout(Duration::from_secs(2), read).await {
            Ok(Ok(_)) => break,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused && attempt > 20 => {
                bail!("{error}")
            }
            _ if attempt > 100 => bail!("no banner from {address}"),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    assert_eq!(&banner, b"SSH-2.0-");
    let interfaces =
        client.get(&format!("{VM}/agent/network-get-interfaces")).await?.data()["result"].clone();
    let mac = lab.vm(9200).expect("there").config["net0"].to_lowercase();
    let own = interfaces
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["hardware-address"].as_str().is_some_and(|address| mac.contains(address)));
    let shown = own.map(|entry| entry["ip-addresses"][0]["ip-address"].clone()).unwrap_or_default();
    assert!(shown.as_str().is_some_and(|shown| shown.starts_with("127.77.")), "{interfaces}");

    let exec = format!("{VM}/agent/exec");
    let pid = client
        .call("POST", &exec, "command=sh&command=-c&command=echo+out%3B+echo+err+%3E%262%3B+exit+3")
        .await?
        .data();
    let status = ended(&client, &pid["pid"]).await?;
    assert_eq!(
        status,
        json!({"exited": 1, "exitcode": 3, "out-data": "out\n", "err-data": "err\n", "out-truncated": 0, "err-truncated": 0})
    );
    let pid = client
        .call("POST", &exec, "{\"command\": [\"cat\"], \"input-data\": \"stdin text\\n\"}")
        .await?
        .data();
    assert_eq!(ended(&client, &pid["pid"]).await?["out-data"], "stdin text\n");
    // What has ended is told once; the words are those of the guest's agent.
    let again = client.get(&format!("{VM}/agent/exec-status?pid={}", pid["pid"])).await?;
    assert!(again.line().starts_with("500 Agent error: "), "{}", again.line());
    // One word is one program's name, spaces and all; that it is missing breaks pvedaemon's answer.
    let missing = client.call("POST", &exec, "command=sh+-c+%22echo+hi%22").await?;
    assert_eq!((missing.line().as_str(), missing.body.as_str()), ("596 Broken pipe", ""));
    let write = client
        .call("POST", &format!("{VM}/agent/file-write"), "file=%2Ftmp%2Fx&content=hello%0A%C3%BC%C3%B1%0A")
        .await?;
    assert_eq!(write.line(), "200 OK");
    let read = client.get(&format!("{VM}/agent/file-read?file=/tmp/x")).await?.data();
    assert_eq!((&read["bytes-read"], &read["content"]), (&json!(9), &json!("hello\nüñ\n")));
    let write = format!("{VM}/agent/file-write");
    let binary = client.call("POST", &write, "file=%2Ftmp%2Fy&content=AAFiaW4%3D&encode=0").await?;
    assert_eq!(binary.line(), "200 OK");
    let read = client.get(&format!("{VM}/agent/file-read?file=/tmp/y")).await?.data();
    assert_eq!((&read["bytes-read"], &read["content"]), (&json!(5), &json!("\0\u{1}bin")));
    for (length, line) in [(61_440, "200 OK"), (61_441, "400 Parameter verification failed.")] {
        let form = format!("file=%2Ftmp%2Fz&content={}", "A".repeat(length));
        assert_eq!(client.call("POST", &write, &form).await?.line(), line, "{length}");
    }
    let missing = client.get(&format!("{VM}/agent/file-read?file=/nosuch")).await?;
    assert_eq!(
        missing.line(),
        "500 Agent error: failed to open file '/nosuch' (mode: 'r'): No such file or directory"
    );

    assert_eq!(client.done("POST", &format!("{VM}/status/shutdown"), "timeout=60").await?, "OK");
    assert_eq!(client.get(&format!("{VM}/status/current")).await?.data()["status"], "stopped");
    assert_eq!(client.done("POST", &format!("{VM}/template"), "").await?, "OK");
    lab.stop().await;
    Ok(())
}
