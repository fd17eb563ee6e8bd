//! Debian's Packer, unmodified, builds templates on the lab as it does on a real Proxmox VE: by `proxmox-clone` and by
//! `proxmox-iso`, logging in as `root@pam` with a password.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use forge_lab::{ImportVm, Lab, LabConfig, SshForward, images};
use serde_json::{Value, json};
use tokio::process::Command;

use super::client::Client;
use super::install::medium;
use super::lab_with;

/// How long a build may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(900);

/// Whether Debian's Packer is there; later ones have no Proxmox builder of their own.
fn is_there() -> bool {
    let said = std::process::Command::new("packer").arg("version").env("CHECKPOINT_DISABLE", "1").output();
    said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("v1.6."))
}

/// What both builders are told.
fn template(lab: &Lab, builder: &str, name: &str, more: &Value) -> Value {
    let mut all = json!({
        "type": builder,
        "proxmox_url": format!("{}/api2/json", lab.url()),
        "insecure_skip_tls_verify": true,
        "username": "root@pam",
        "password": "packer's own",
        "node": "pve",
        "vm_name": name,
        "template_name": name,
        "template_description": "made by Packer",
        "memory": 512,
        "os": "l26",
        "scsi_controller": "virtio-scsi-pci",
        "network_adapters": [{"model": "virtio", "bridge": "vmbr0"}],
        "qemu_agent": true,
        "ssh_timeout": "10m",
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    json!({
        "builders": [all],
        "provisioners": [{"type": "shell", "inline": ["echo provisioned by $(id -un) on $(hostname)", "sync"]}],
    })
}

/// Runs `packer build` to its end and returns what it said.
async fn build(folder: &Path, template: &Value) -> anyhow::Result<String> {
    std::fs::write(folder.join("template.json"), template.to_string())?;
    let mut packer = Command::new("packer");
    packer
        .args(["build", "-color=false", "template.json"])
        .current_dir(folder)
        .env("CHECKPOINT_DISABLE", "1")
        .env("PACKER_CACHE_DIR", folder.join("cache"))
        .env("PACKER_LOG", "1")
        .env("PACKER_LOG_PATH", folder.join("packer.log"))
        .env("HOME", folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, packer.output()).await;
    let log = || {
        let log = std::fs::read_to_string(folder.join("packer.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    };
    let output = output.with_context(|| format!("packer does not end:\n{}", log()))??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "packer failed:\n{said}\n{}", log());
    Ok(said)
}

/// What a template of Packer's must be.
fn assert_template(lab: &Lab, said: &str, name: &str, login: &str) -> anyhow::Result<u32> {
    ensure!(said.contains(&format!("provisioned by {login}")), "{said}");
    let vm = lab.vms().into_iter().find(|vm| vm.name == name).context("no VM of that name")?;
    assert!(vm.template && !vm.running, "{vm:?}");
    assert_eq!(vm.description, "made by Packer");
    assert!(vm.config.values().any(|value| value.contains(&format!("base-{}-disk-", vm.vmid))), "{vm:?}");
    // It logged in with a password: no call but the login came without a ticket, none came with a token.
    let callers: BTreeMap<String, usize> = lab.requests().iter().filter_map(|call| call.caller.clone()).fold(
        BTreeMap::new(),
        |mut all, caller| {
            *all.entry(caller).or_default() += 1;
            all
        },
    );
    assert!(callers.contains_key("root@pam"), "{callers:?}");
    Ok(vm.vmid)
}

/// A lab whose guests have addresses that Packer takes: it passes over loopback addresses.
async fn lab_for_packer() -> Option<(Lab, Client)> {
    let (lab, client) = lab_with(LabConfig { ssh: SshForward::Outer, ..LabConfig::default() }).await.ok()?;
    lab.set_password("root@pam", "packer's own");
    Some((lab, client))
}

/// Why a lab for Packer can't be had.
const ON_THE_HOST: &str = "skipped: Packer passes over guests at loopback addresses, and only the namespace of cargo lab test has others";

#[tokio::test(flavor = "multi_thread")]
async fn packer_clones_a_debian_guest_into_a_template() -> anyhow::Result<()> {
    let cache = images::default_cache_root();
    let debian = tokio::task::spawn_blocking(move || images::debian(&cache)).await?;
    let disk = match debian {
        Ok(image) if is_there() => image.disk,
        Ok(_) => {
            println!("skipped: there is no Packer 1.6 (Debian's package packer)");
            return Ok(());
        }
        Err(error) => {
            println!("skipped: there is no Debian guest: {error:#}");
            return Ok(());
        }
    };
    let Some((lab, _)) = lab_for_packer().await else {
        println!("{ON_THE_HOST}");
        return Ok(());
    };
    lab.import_vm(ImportVm {
        vmid: 9500,
        name: "base".to_owned(),
        disk: Some(disk),
        cloudinit_drive: true,
        ..ImportVm::default()
    })
    .await?;
    let folder = tempfile::tempdir()?;
    let more =
        json!({"clone_vm": "base", "full_clone": true, "ssh_username": "packer", "cores": 2, "memory": 1024});
    let said = build(folder.path(), &template(&lab, "proxmox-clone", "from-a-clone", &more)).await?;
    let vmid = assert_template(&lab, &said, "from-a-clone", "packer on from-a-clone")?;
    assert_ne!(vmid, 9500);
    lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn packer_installs_a_guest_from_an_iso_by_typing_at_its_boot_menu() -> anyhow::Result<()> {
    let iso = match medium().await? {
        Ok(iso) if is_there() => iso,
        Ok(_) => {
            println!("skipped: there is no Packer 1.6 (Debian's package packer)");
            return Ok(());
        }
        Err(reason) => {
            println!("{reason}");
            return Ok(());
        }
    };
    let Some((lab, client)) = lab_for_packer().await else {
        println!("{ON_THE_HOST}");
        return Ok(());
    };
    lab.import_iso("local", "install.iso", &iso)?;
    let folder = tempfile::tempdir()?;
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join("key"));
    ensure!(keygen.status().await?.success(), "ssh-keygen failed");
    let key = std::fs::read_to_string(folder.path().join("key.pub"))?;
    let web = folder.path().join("web");
    std::fs::create_dir(&web)?;
    std::fs::write(web.join("answers"), format!("hostname=installed\nkey={}\nafter=reboot\n", key.trim()))?;
    let more = json!({
        "iso_file": "local:iso/install.iso",
        "disks": [{"type": "scsi", "disk_size": "1G", "storage_pool": "local", "storage_pool_type": "directory", "format": "qcow2"}],
        "http_directory": "web",
        // GRUB's command line; the guest reaches the host under this address of QEMU's user network.
        // Packer types blind. A busy machine takes long to come to the menu, which then waits for a minute, and a slow
        // boot loader keeps few keys.
        "boot_wait": "40s",
        "boot_key_interval": "200ms",
        "boot_command": [
            "c<wait2>",
            "linux /boot/vmlinuz no_timer_check console=ttyS0 console=tty0 answers=http://10.0.2.2:{{ .HTTPPort }}/answers<enter><wait2>",
            "initrd /boot/initrd<enter><wait3>",
            "boot<enter>",
        ],
        "ssh_username": "root",
        "ssh_private_key_file": "key",
    });
    let said = match build(folder.path(), &template(&lab, "proxmox-iso", "from-an-iso", &more)).await {
        Ok(said) => said,
        Err(error) => {
            let serial: String = lab.vms().iter().map(|vm| lab.serial_log(vm.vmid)).collect();
            return Err(error.context(serial));
        }
    };
    let vmid = assert_template(&lab, &said, "from-an-iso", "root on installed")?;
    // It can't unmount the ISO (`unmount_iso`), there as here: it wants the value to end with `media=cdrom`, and Proxmox
    // ends it with the size.
    let config = client.get(&format!("/nodes/pve/qemu/{vmid}/config")).await?.data();
    assert!(
        config["ide2"].as_str().is_some_and(|cd| cd.starts_with("local:iso/install.iso,media=cdrom,size="))
    );
    lab.stop().await;
    Ok(())
}
