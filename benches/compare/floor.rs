//! The floor: the calls that forge sends to the lab, in the same order, with nothing between them but polling every
//! [`TICK`]; the script over OpenSSH's client. Whatever is faster than this has left something out.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use forge_http_seed::serial::smbios_serial;
use forge_http_seed::server::{Fetch, SeedObserver, SeedServer, SeedToken, ServerOptions};
use forge_lab::Lab;
use forge_proxmox::api::client::Client;
use forge_proxmox::api::encode::Params;
use forge_proxmox::api::task::Upid;
use forge_proxmox::{ProxmoxConfig, TlsChoice};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::Builder;
use crate::measure::{Marks, Run, TICK, has_banner, watch};
use crate::scene::{BOOT_VM, BUILD_VM, CORES, HOST, MEMORY, Scene, TOKEN, USER, script};

const QEMU: &str = "/nodes/pve/qemu";

struct Silent;

impl SeedObserver for Silent {
    fn fetched(&self, _fetch: &Fetch) {}
}

/// Builds once.
pub async fn run(scene: &Scene) -> anyhow::Result<Run> {
    let (lab, secret) = scene.lab().await?;
    let client = Client::new(&ProxmoxConfig {
        target: "lab".into(),
        url: lab.url(),
        more_urls: Vec::new(),
        proxy: forge_proxmox::ProxyChoice::None,
        token_id: TOKEN.into(),
        role: None,
        token_secret: secret.as_str().into(),
        tls: TlsChoice::Fingerprint(lab.fingerprint().to_owned()),
        nodes: Vec::new(),
        disk_storage: None,
        iso_storage: None,
        bridge: None,
    })?;
    let marks = Marks::start();
    let stop = CancellationToken::new();
    let closes = stop.clone().drop_guard();
    let stages = tokio::select! {
        biased;
        stages = build(scene, &lab, &client, &marks, stop) => stages?,
        never = watch(&marks, || !lab.qemu_pids().is_empty(), || lab.ssh_address(BUILD_VM)) => match never {},
    };
    drop(closes);
    let run = marks.end(Builder::Floor, stages);
    ensure!(lab.vm(BUILD_VM).is_some_and(|vm| vm.template), "the floor made no template");
    lab.stop().await;
    Ok(run)
}

async fn build(
    scene: &Scene,
    lab: &Lab,
    client: &Client,
    marks: &Marks,
    stop: CancellationToken,
) -> anyhow::Result<Vec<(String, Duration)>> {
    let mut stages = Vec::new();
    let mut last = Duration::ZERO;
    let mut stage = |name: &str| {
        let now = marks.elapsed();
        stages.push((name.to_owned(), now - last));
        last = now;
    };
    let vm = format!("{QEMU}/{BUILD_VM}");

    let server = serve(scene, stop).await?;
    stage("seed");

    let clone = Params::new().with("newid", BUILD_VM).with("name", "bench").with("full", 1);
    task(client, &format!("{QEMU}/{BOOT_VM}/clone"), &clone).await?;
    let serial = base64::engine::general_purpose::STANDARD.encode(smbios_serial(&server.url(HOST)));
    let config = Params::new()
        .with("cores", CORES)
        .with("memory", MEMORY)
        .with("smbios1", format!("base64=1,serial={serial}"));
    client.put(&format!("{vm}/config"), &config).await?;
    stage("create");

    task(client, &format!("{vm}/status/start"), &Params::new()).await?;
    stage("boot");

    let agent = format!("{vm}/agent/network-get-interfaces");
    while client.get::<Value>(&agent, &Params::new()).await.is_err() {
        sleep(TICK).await;
    }
    let address = lab.ssh_address(BUILD_VM).context("the guest has no address")?;
    let mut guest = provision(scene, marks, address, &script(), || stage("connect")).await?;
    let status = guest.wait().await?;
    ensure!(status.success(), "the script failed ({status})");
    stage("provision");

    task(client, &format!("{vm}/status/shutdown"), &Params::new().with("timeout", 300)).await?;
    stage("shutdown");

    client.put(&format!("{vm}/config"), &Params::new().with("delete", "smbios1")).await?;
    task(client, &format!("{vm}/template"), &Params::new()).await?;
    stage("finish");
    Ok(stages)
}

/// Serves the seed until it is told to stop.
pub async fn serve(scene: &Scene, stop: CancellationToken) -> anyhow::Result<SeedServer> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let options = ServerOptions { token: SeedToken::generate(), allowed_networks: Vec::new() };
    Ok(SeedServer::start(listener, scene.seed()?.files()?, options, Arc::new(Silent), stop)?)
}

/// Waits for the guest's SSH server and runs lines in one login; returns when no more is said. `connected` is called at
/// the first word.
pub async fn provision(
    scene: &Scene,
    marks: &Marks,
    address: SocketAddr,
    script: &[String],
    mut connected: impl FnMut(),
) -> anyhow::Result<tokio::process::Child> {
    while !has_banner(address).await {
        sleep(TICK).await;
    }
    let mut guest = ssh(scene, address)?;
    let mut lines = BufReader::new(guest.stdout.take().context("ssh has no stdout")?).lines();
    let mut stdin = guest.stdin.take().context("ssh has no stdin")?;
    stdin.write_all(format!("{}\n", script.join("\n")).as_bytes()).await?;
    drop(stdin);
    let mut first = true;
    while let Some(line) = lines.next_line().await? {
        marks.line(&line);
        if std::mem::replace(&mut first, false) {
            connected();
        }
    }
    Ok(guest)
}

/// Calls what answers with a task, and waits for it.
async fn task(client: &Client, path: &str, params: &Params) -> anyhow::Result<()> {
    let reply = client.post(path, params).await?;
    let upid = reply.data.as_str().and_then(Upid::parse).with_context(|| format!("{path}: no task"))?;
    loop {
        let status = client.task_status(&upid).await?;
        if status.is_over() {
            return match status.exitstatus.as_deref() {
                Some("OK") => Ok(()),
                other => bail!("{}: {other:?}", upid.describe()),
            };
        }
        sleep(TICK).await;
    }
}

/// A shell in the guest that reads the script from its standard input: one login for all.
fn ssh(scene: &Scene, address: SocketAddr) -> anyhow::Result<tokio::process::Child> {
    let mut ssh = Command::new("ssh");
    ssh.arg("-i").arg(scene.key()).args(["-p", &address.port().to_string(), "-l", USER, "-F", "/dev/null"]);
    for option in [
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "GlobalKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        // The cheapest for an emulated processor.
        "KexAlgorithms=curve25519-sha256",
    ] {
        ssh.args(["-o", option]);
    }
    ssh.arg(address.ip().to_string()).args(["sh", "-s"]);
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().context("ssh can't be run")
}
