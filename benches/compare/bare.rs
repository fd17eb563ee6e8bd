//! The floor without Proxmox: QEMU by hand, an overlay of the same image with the same seed, a probe every
//! [`TICK`](crate::measure::TICK), one login in which the script and the power-off run, one copy at the end.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use forge_http_seed::serial::smbios_serial;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::Builder;
use crate::floor::{provision, serve};
use crate::measure::{Mark, Marks, Run, watch};
use crate::scene::{CORES, HOST, MEMORY, Scene, bytes_of, free_port, script};

/// Builds once.
pub async fn run(scene: &Scene) -> anyhow::Result<Run> {
    let folder = scene.fresh("floor")?;
    let (overlay, image) = (folder.join("overlay.qcow2"), folder.join("image.qcow2"));
    let port = free_port()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));

    let marks = Marks::start();
    let mut stages: Vec<(String, Duration)> = Vec::new();
    let mut last = Duration::ZERO;
    let mut stage = |name: &str| {
        let now = marks.elapsed();
        stages.push((name.to_owned(), now - last));
        last = now;
    };
    let stop = CancellationToken::new();
    let closes = stop.clone().drop_guard();
    let server = serve(scene, stop).await?;
    stage("seed");

    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(&scene.disk).arg(&overlay);
    ensure!(create.status().await?.success(), "qemu-img create failed");
    stage("create");

    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "pc,usb=off", "-accel", "tcg,thread=multi", "-cpu", "max", "-nodefaults"]);
    qemu.args(["-smp", &CORES.to_string(), "-m", &MEMORY.to_string(), "-vga", "std", "-display", "none"]);
    qemu.args(["-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0"]);
    qemu.arg("-drive").arg(format!("file={},if=virtio,discard=unmap", overlay.display()));
    qemu.args(["-netdev", &format!("user,id=net0,hostfwd=tcp:127.0.0.1:{port}-:22")]);
    qemu.args(["-device", "virtio-net-pci,netdev=net0"]);
    // A comma in an option's value is doubled.
    let serial = smbios_serial(&server.url(HOST)).replace(',', ",,");
    qemu.args(["-smbios", &format!("type=1,serial={serial}")]);
    let mut guest = qemu.stdin(Stdio::null()).kill_on_drop(true).spawn().context("QEMU can't be run")?;
    let own = std::path::PathBuf::from(format!("/proc/{}/exe", guest.id().context("QEMU ended")?));
    stage("boot");

    // Once it is gone, so is the link to its program, though nobody has asked for its status yet.
    let runs = || std::fs::read_link(&own).is_ok();
    let built = async {
        let mut lines = script().to_vec();
        lines.push("sudo shutdown -P now".to_owned());
        let mut shell = provision(scene, &marks, address, &lines, || stage("connect")).await?;
        ensure!(marks.has(Mark::Last), "the script failed ({})", shell.wait().await?);
        stage("provision");
        guest.wait().await?;
        marks.set(Mark::Off);
        stage("shutdown");
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-O", "qcow2"]).arg(&overlay).arg(&image);
        ensure!(convert.status().await?.success(), "qemu-img convert failed");
        stage("finish");
        anyhow::Ok(())
    };
    tokio::select! {
        biased;
        built = built => built?,
        never = watch(&marks, runs, || Some(address)) => match never {},
    }
    drop(closes);
    let mut run = marks.end(Builder::Floor, stages);
    run.image = Some(bytes_of(&image)?);
    Ok(run)
}
