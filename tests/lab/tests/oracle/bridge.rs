//! Guests on real bridges: addresses by DHCP, two adapters, a bridge without DHCP, an address that changes at a reboot.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use forge_lab::{Lab, LabConfig, Scenario, SshForward};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;

use super::client::Client;
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
    let scenario = Scenario::parse(include_str!("../../scenarios/bridges.toml"))?;
    let mut config = LabConfig { agent_ping: Duration::from_secs(1), ..LabConfig::default() };
    scenario.configure(&mut config)?;
    assert_eq!(config.ssh, SshForward::Bridge);
    let (lab, client) = match lab_with(config).await {
        Ok(there) => there,
        Err(error) if std::env::var_os("FORGE_LAB_NETNS").is_none() => {
            println!("skipped: only the namespace of cargo lab test has real bridges: {error:#}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    scenario.fill(&lab, Some(&disk)).await?;
    assert_eq!(client.done("POST", &format!("{VM}/status/start"), "").await?, "OK");
    let first = address(&lab, None).await?;
    assert_eq!(first.octets()[..2], [198, 19]);
    let net0 = lab.vm(9200).context("the VM")?.config["net0"].clone();
    let mac = net0.split(['=', ',']).nth(1).context("an address")?.to_owned();
    assert_eq!(told(&client, &mac).await?, [first.to_string()]);
    assert!(told(&client, "bc:24:11:00:00:99").await?.is_empty(), "nobody gives addresses there");

    assert_eq!(client.done("POST", &format!("{VM}/status/reset"), "").await?, "OK");
    let next = address(&lab, Some(first)).await?;
    assert_eq!(told(&client, &mac).await?, [next.to_string()]);
    assert_eq!(client.done("POST", &format!("{VM}/status/stop"), "").await?, "OK");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn cargo_lab_serve_makes_the_bridges_that_it_is_asked_for() -> anyhow::Result<()> {
    if std::env::var_os("FORGE_LAB_NETNS").is_none() {
        println!("skipped: it is for the namespace of cargo lab test");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let scenario = folder.path().join("two.toml");
    std::fs::write(&scenario, "bridges = [\"vmbr0\", \"vmbr1\"]\nsilent-bridges = [\"vmbr1\"]\n")?;
    let mut serve = tokio::process::Command::new(env!("CARGO_BIN_EXE_forge-lab"))
        .args(["serve", "--listen", "127.0.0.1:0", "--guest", "none", "--network", "bridge", "--scenario"])
        .arg(&scenario)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(serve.stdout.take().context("no stdout")?).lines();
    let mut host = None;
    while let Some(line) = lines.next_line().await? {
        // The last line of the site file that it prints: guests ask the first bridge's own address.
        if let Some(rest) = line.strip_prefix("seed = { bind = \"") {
            host = rest.split('"').next().map(str::to_owned);
            break;
        }
    }
    let host: Ipv4Addr = host.context("no seed line")?.parse()?;
    let [198, 19, lab, 1] = host.octets() else { anyhow::bail!("{host} is on no bridge of a lab") };
    let links = async || -> anyhow::Result<String> {
        let shown = tokio::process::Command::new("ip").args(["-o", "address"]).output().await?;
        Ok(String::from_utf8_lossy(&shown.stdout).into_owned())
    };
    let shown = links().await?;
    for (number, address) in [(0, host), (1, Ipv4Addr::new(198, 19, lab, 65))] {
        let wanted = format!("lab{lab}br{number}    inet {address}/26");
        assert!(shown.contains(&wanted), "no {wanted:?} in {shown}");
    }
    let pid = nix::unistd::Pid::from_raw(serve.id().context("it ended")?.try_into()?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    assert!(serve.wait().await?.success());
    assert!(!links().await?.contains(&format!("lab{lab}br")), "its bridges go with it");
    Ok(())
}
