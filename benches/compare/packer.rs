//! Packer's `qemu` builder on the same image, with the same seed, key and script.
//!
//! Beside builds on the lab it copies the image once, as the lab does for a full clone: an overlay (`use_backing_file`)
//! would be less, but `qemu-img` from 6.1 on refuses the way in which Packer 1.6.6 asks for it; the copy at the end
//! (`skip_compaction`) would be more. Beside builds with QEMU alone it does as by default: both copies, since forge and the
//! floor end with a copy too.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use forge_http_seed::serial::smbios_serial;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::family::Family;
use crate::measure::{Marks, Run, watch};
use crate::scene::{CORES, MEMORY, Scene, USER, bytes_of, free_port, script};
use crate::{Backend, Builder};

/// The version that is there; why not, otherwise.
pub async fn version() -> anyhow::Result<String> {
    let output = Command::new("packer")
        .arg("version")
        .env("CHECKPOINT_DISABLE", "1")
        .output()
        .await
        .context("it can't be run (Debian's package is `packer`)")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // Another program of that name (cracklib's) knows no `version`.
    if text.starts_with("Packer v") { Ok(text) } else { bail!("`packer version` says `{text}`") }
}

fn template(scene: &Scene, folder: &Path, port: u16, backend: Backend) -> String {
    let serial = smbios_serial("http://{{ .HTTPIP }}:{{ .HTTPPort }}/");
    let template = json!({
        "builders": [{
            "type": "qemu",
            "accelerator": "tcg",
            "disk_image": true,
            "skip_compaction": backend == Backend::Lab,
            "iso_url": scene.disk,
            "iso_checksum": "none",
            "format": "qcow2",
            "disk_size": "4096M",
            "disk_interface": "virtio",
            "net_device": "virtio-net",
            "memory": MEMORY,
            "cpus": CORES,
            "headless": true,
            "boot_wait": "1s",
            "http_directory": folder.join("seed"),
            "qemuargs": [
                ["-cpu", "max"],
                ["-smbios", format!("type=1,serial={serial}")],
                ["-pidfile", folder.join("qemu.pid")],
            ],
            "host_port_min": port,
            "host_port_max": port,
            "ssh_username": USER,
            "ssh_private_key_file": scene.key(),
            "ssh_timeout": "15m",
            "shutdown_command": "sudo shutdown -P now",
            "output_directory": folder.join("output"),
        }],
        "provisioners": [{ "type": "shell", "inline": script() }],
    });
    format!("{template:#}\n")
}

/// Builds once.
pub async fn run(scene: &Scene, backend: Backend) -> anyhow::Result<Run> {
    let folder = scene.fresh("packer")?;
    let seed = folder.join("seed");
    std::fs::create_dir(&seed)?;
    for (name, text) in scene.seed()?.files()?.texts() {
        std::fs::write(seed.join(name), text)?;
    }
    let port = free_port()?;
    std::fs::write(folder.join("template.json"), template(scene, &folder, port, backend))?;
    let log = std::fs::File::create(folder.join("stderr"))?;

    let marks = Marks::start();
    let mut child = Command::new("packer")
        .args(["build", "-color=false", "template.json"])
        .current_dir(&folder)
        .env("CHECKPOINT_DISABLE", "1")
        .env("PACKER_CACHE_DIR", folder.join("cache"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("packer can't be run")?;
    let family = Family::of(child.id().context("packer ended")?);
    let mut lines = BufReader::new(child.stdout.take().context("packer has no stdout")?).lines();
    let mut said = String::new();
    let build = async {
        while let Some(line) = lines.next_line().await? {
            marks.line(&line);
            said.push_str(&line);
            said.push('\n');
        }
        anyhow::Ok(child.wait().await?)
    };
    let pid_file = folder.join("qemu.pid");
    let runs = || {
        let pid = std::fs::read_to_string(&pid_file).unwrap_or_default();
        !pid.trim().is_empty() && Path::new("/proc").join(pid.trim()).exists()
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let status = tokio::select! {
        biased;
        status = build => status?,
        never = watch(&marks, runs, || Some(address)) => match never {},
        never = family.watch_memory() => match never {},
    };
    let mut run = marks.end(Builder::Packer, Vec::new());
    ensure!(status.success(), "packer failed ({status}):\n{said}");
    run.memory = Some(family.memory());
    let mut made = std::fs::read_dir(folder.join("output"))?.flatten();
    run.image = Some(bytes_of(&made.next().context("packer made no image")?.path())?);
    Ok(run)
}
