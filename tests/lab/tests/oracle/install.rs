//! The install medium on the lab: BIOS and UEFI, answers from a second CD, a guest that comes up from the disk.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use forge_lab::{Lab, LabConfig, images};

use super::client::Client;
use super::hardware::form;
use super::lab_with;

/// How long a guest may take for a step; a loaded machine is slow.
const LIMIT: Duration = Duration::from_secs(240);

/// Waits for a text on a guest's serial port, pressing a key once a second meanwhile when there is one to press.
pub async fn until_it_says(
    lab: &Lab,
    client: &Client,
    vmid: u32,
    text: &str,
    key: Option<&str>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        let said = lab.serial_log(vmid);
        if said.contains(text) {
            return Ok(());
        }
        if let Some(failed) = said.lines().find(|line| line.contains("FAILED")) {
            bail!("{failed}");
        }
        if let Some(key) = key {
            let reply =
                client.call("PUT", &format!("/nodes/pve/qemu/{vmid}/sendkey"), &format!("key={key}")).await?;
            anyhow::ensure!(reply.status == 200, "{}", reply.line());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    bail!("VM {vmid} did not say {text:?}; it said:\n{}", lab.serial_log(vmid))
}

/// The medium, or a line that says why the test is skipped.
pub async fn medium() -> anyhow::Result<Result<PathBuf, String>> {
    let cache = images::default_cache_root();
    let made = tokio::task::spawn_blocking(move || images::install(&cache)).await?;
    Ok(made
        .map(|medium| medium.iso)
        .map_err(|error| format!("skipped: there is no install medium: {error:#}")))
}

/// A disc with answers, for the second CD drive.
async fn answers_disc(folder: &std::path::Path, text: &str) -> anyhow::Result<PathBuf> {
    let (tree, iso) = (folder.join("answers"), folder.join("answers.iso"));
    std::fs::create_dir(&tree)?;
    std::fs::write(tree.join("answers"), text)?;
    let mut command = tokio::process::Command::new("genisoimage");
    command.args(["-quiet", "-J", "-R", "-V", "cidata", "-o"]).arg(&iso).arg(&tree);
    anyhow::ensure!(command.status().await?.success(), "genisoimage failed");
    Ok(iso)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uefi_guest_is_installed_from_a_cd_with_answers_on_a_second_one() -> anyhow::Result<()> {
    let iso = match medium().await? {
        Ok(iso) => iso,
        Err(reason) => {
            println!("{reason}");
            return Ok(());
        }
    };
    let (lab, client) = lab_with(LabConfig::default()).await?;
    let folder = tempfile::tempdir()?;
    let answers = answers_disc(folder.path(), "hostname=from-a-disc\nafter=reboot\n").await?;
    lab.import_iso("local", "install.iso", &iso)?;
    lab.import_iso("local", "answers.iso", &answers)?;
    let create = form(&[
        ("vmid", "300"),
        ("memory", "384"),
        ("bios", "ovmf"),
        ("machine", "q35"),
        ("efidisk0", "local:1,efitype=4m,pre-enrolled-keys=0"),
        ("scsihw", "virtio-scsi-single"),
        ("scsi0", "local:1,format=qcow2,discard=on"),
        ("scsi1", "local:iso/answers.iso,media=cdrom"),
        ("scsi2", "local:iso/install.iso,media=cdrom"),
        ("serial0", "socket"),
        ("rng0", "source=/dev/urandom"),
        ("agent", "1"),
        ("net0", "virtio,bridge=vmbr0"),
        ("boot", "order=scsi2"),
        ("start", "1"),
    ]);
    assert_eq!(client.done("POST", "/nodes/pve/qemu", &create).await?, "OK");
    until_it_says(&lab, &client, 300, "installer: starting", Some("ret")).await?;
    until_it_says(&lab, &client, 300, "installer: reading the answers from the disc", None).await?;
    until_it_says(&lab, &client, 300, "installer: installed", None).await?;
    assert_eq!(client.done("POST", "/nodes/pve/qemu/300/status/stop", "").await?, "OK");

    // The tiny guest has a boot loader for BIOS only, so its disk is started with the other firmware.
    let change = form(&[("bios", "seabios"), ("boot", "order=scsi0"), ("delete", "scsi2,efidisk0,scsi1")]);
    assert_eq!(client.call("PUT", "/nodes/pve/qemu/300/config", &change).await?.line(), "200 OK");
    assert_eq!(client.done("POST", "/nodes/pve/qemu/300/status/start", "").await?, "OK");
    let started = Instant::now();
    loop {
        let reply = client.get("/nodes/pve/qemu/300/agent/get-host-name").await?;
        if reply.status == 200 {
            assert_eq!(reply.data()["result"]["host-name"], "from-a-disc");
            break;
        }
        if started.elapsed() > LIMIT {
            return Err(anyhow::anyhow!("{}", reply.line())).context(lab.serial_log(300));
        }
    }
    lab.stop().await;
    Ok(())
}
