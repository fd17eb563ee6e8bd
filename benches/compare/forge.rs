//! `forge build`, on the lab or with QEMU alone.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use forge::event::{Envelope, Event};
use forge_lab::Lab;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::Builder;
use crate::family::Family;
use crate::measure::{Marks, Run, watch};
use crate::scene::{BUILD_VM, CORES, MEMORY, Scene, TOKEN, USER, bytes_of, free_port, script};

/// Seal operations: none, since the others have none.
fn profile(source: &str, vm: &str) -> String {
    let lines: Vec<String> = script().iter().map(|line| format!("{line:?}")).collect();
    let seal: Vec<String> = forge::seal::enabled(&BTreeMap::new(), false)
        .iter()
        .map(|name| format!("{name} = false\n"))
        .collect();
    format!(
        "schema = 1\nname = \"bench\"\n\n[source]\n{source}\n\n[vm]\ncores = {CORES}\nmemory = {MEMORY}\n{vm}\n\
         [seed]\ndelivery = [\"smbios\"]\n\n[access]\nuser = \"{USER}\"\n\n\
         [[provision]]\nname = \"bench\"\nshell = [{}]\n\n[seal]\n{}",
        lines.join(", "),
        seal.concat(),
    )
}

fn site(lab: &Lab) -> String {
    format!(
        "[targets.lab]\ntype = \"proxmox\"\nurl = \"{}\"\ntoken-id = \"{TOKEN}\"\n\
         token-secret = {{ env = \"PROXMOX_TOKEN_SECRET\" }}\ntls = {{ fingerprint = \"{}\" }}\nnodes = [\"pve\"]\n\
         storage = {{ disks = \"local\" }}\nbridge = \"vmbr0\"\nvmids = \"{BUILD_VM}-9099\"\n\
         seed = {{ bind = \"127.0.0.1\", address = \"10.0.2.2\" }}\n",
        lab.url(),
        lab.fingerprint(),
    )
}

/// Builds a template on the lab, once.
pub async fn on_lab(scene: &Scene) -> anyhow::Result<Run> {
    let (lab, secret) = scene.lab().await?;
    let folder = scene.fresh("forge")?;
    std::fs::write(folder.join("forge.toml"), site(&lab))?;
    std::fs::write(folder.join("bench.toml"), profile("clone = \"boot-vm\"", ""))?;
    let runs = |_: &Family| !lab.qemu_pids().is_empty();
    let run = build(&folder, Some(&secret), runs, || lab.ssh_address(BUILD_VM)).await?;
    ensure!(lab.vm(BUILD_VM).is_some_and(|vm| vm.template), "forge made no template");
    lab.stop().await;
    Ok(run)
}

/// Builds an image with QEMU alone, once.
pub async fn on_qemu(scene: &Scene) -> anyhow::Result<Run> {
    let folder = scene.fresh("forge")?;
    let port = free_port()?;
    let site =
        format!("[targets.local]\ntype = \"qemu\"\nimages = \"images\"\nssh-ports = \"{port}-{port}\"\n");
    std::fs::write(folder.join("forge.toml"), site)?;
    // The board of the other two, since another one boots faster or slower.
    let profile = profile(&format!("image = {:?}", scene.disk), "machine = \"i440fx\"\n");
    std::fs::write(folder.join("bench.toml"), profile)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut run = build(&folder, None, |family| family.has_guest(port), || Some(address)).await?;
    run.image = Some(bytes_of(&folder.join("images/tpl-bench.qcow2"))?);
    Ok(run)
}

/// Runs forge in a folder with its files. `runs` says whether the guest is there, `address` where its SSH server is.
async fn build(
    folder: &Path,
    secret: Option<&str>,
    runs: impl Fn(&Family) -> bool,
    address: impl Fn() -> Option<SocketAddr>,
) -> anyhow::Result<Run> {
    let log = std::fs::File::create(folder.join("stderr"))?;
    let marks = Marks::start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_forge"))
        .args(["--state-dir", "state", "build", "bench.toml", "--json"])
        .current_dir(folder)
        .env("PROXMOX_TOKEN_SECRET", secret.unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("forge can't be run")?;
    let family = Family::of(child.id().context("forge ended")?);
    let mut lines = BufReader::new(child.stdout.take().context("forge has no stdout")?).lines();
    let mut stages = Vec::new();
    let build = async {
        while let Some(line) = lines.next_line().await? {
            let envelope: Envelope = serde_json::from_str(&line).context("forge printed no event")?;
            match envelope.event {
                Event::BuildStarted { .. } => stages.push(("plan".to_owned(), marks.elapsed())),
                Event::Output { line, .. } => marks.line(&line),
                Event::StageFinished { stage, took_ms, .. } => {
                    stages.push((stage.name().to_owned(), Duration::from_millis(took_ms)));
                }
                _ => {}
            }
        }
        anyhow::Ok(child.wait().await?)
    };
    let status = tokio::select! {
        biased;
        status = build => status?,
        never = watch(&marks, || runs(&family), address) => match never {},
        never = family.watch_memory() => match never {},
    };
    let mut run = marks.end(Builder::Forge, stages);
    run.memory = Some(family.memory());
    let said = std::fs::read_to_string(folder.join("stderr")).unwrap_or_default();
    ensure!(status.success(), "forge failed ({status}): {said}");
    Ok(run)
}
