//! Guests on real bridges: addresses by DHCP, two adapters, a bridge without DHCP, an address that changes at a reboot.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use forge_lab::{ImportVm, Lab, LabConfig, SshForward};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::client::Client;
use super::hardware::form;
use super::{lab_with, tiny_disk};

const VM: &str = "/nodes/pve/qemu/9200";

/// How long a guest may take for a step on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

/// The address by which the guest's SSH server answers, which must be another than `old`.
async fn address(lab: &Lab, old: Option<Ipv4Addr>) -> anyhow::Result<Ipv4Addr> {
    let started = Instant::now();
    loop {
        ensure!(started.elapsed() < LIMIT, "no address; the guest said:\n{}", lab.serial_log(9200));
        let (std::net::IpAddr::V4(ip), port) =
            lab.ssh_address(9200).map_or((Ipv4Addr::UNSPECIFIED.into(), 22), |at| (at.ip(), at.port()))
        else {
            continue;
        };
        let mut banner = [0; 8];
        let read = async { TcpStream::connect((ip, port)).await?.read_exact(&mut banner).await };
        if Some(ip) != old
            && !ip.is_unspecified()
            && let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(2), read).await
        {
            assert_eq!(&banner, b"SSH-2.0-");
            return Ok(ip);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The addresses that the guest's agent tells, by hardware address.
async fn told(client: &Client, mac: &str) -> anyhow::Result<Vec<String>> {
    let started = Instant::now();
    loop {
        let reply = client.get(&format!("{VM}/agent/network-get-interfaces")).await?;
        if reply.status == 200 {
            let all = reply.data()["result"].clone();
            let own = all
                .as_array()
                .into_iter()
                .flatten()
                .find(|entry| entry["hardware-address"] == mac.to_lowercase().as_str());
            let own = own.with_context(|| format!("no {mac} in {all}"))?;
            let list = own["ip-addresses"].as_array().cloned().unwrap_or_default();
            let v4 = list.iter().filter(|entry| entry["ip-address-type"] == "ipv4");
            return Ok(v4.filter_map(|entry| entry["ip-address"].as_str().map(str::to_owned)).collect());
        }
        ensure!(started.elapsed() < LIMIT, "{}", reply.line());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_on_a_real_bridge_has_an_address_of_its_own_that_changes_at_a_reboot()
-> anyhow::Result<()> {
    let Some(disk) = tiny_disk().await? else { return Ok(()) };
    let config = LabConfig {
        ssh: SshForward::Bridge,
        bridges: vec!["vmbr0".to_owned(), "vmbr1".to_owned()],
        silent_bridges: vec!["vmbr1".to_owned()],
        agent_ping: Duration::from_secs(1),
        ..LabConfig::default()
    };
    let (lab, client) = match lab_with(config).await {
        Ok(there) => there,
        Err(error) if std::env::var_os("FORGE_LAB_NETNS").is_none() => {
            println!("skipped: only the namespace of cargo lab test has real bridges: {error:#}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    lab.import_vm(ImportVm { vmid: 9200, disk: Some(disk), ..ImportVm::default() }).await?;
    let second = form(&[("net1", "virtio=BC:24:11:00:00:99,bridge=vmbr1")]);
    assert_eq!(client.call("PUT", &format!("{VM}/config"), &second).await?.line(), "200 OK");
    assert_eq!(client.done("POST", &format!("{VM}/status/start"), "").await?, "OK");
    let first = address(&lab, None).await?;
    assert_eq!(first.octets()[..2], [198, 19]);
    let net0 = lab.vm(9200).context("the VM")?.config["net0"].clone();
    let mac = net0.split(['=', ',']).nth(1).context("an address")?.to_owned();
    assert_eq!(told(&client, &mac).await?, [first.to_string()]);
    assert!(told(&client, "bc:24:11:00:00:99").await?.is_empty(), "nobody gives addresses there");

    let next = lab.move_address(9200)?;
    assert_eq!(client.done("POST", &format!("{VM}/status/reset"), "").await?, "OK");
    assert_eq!(address(&lab, Some(first)).await?, next);
    assert_eq!(told(&client, &mac).await?, [next.to_string()]);
    assert_eq!(client.done("POST", &format!("{VM}/status/stop"), "").await?, "OK");
    lab.stop().await;
    Ok(())
}
