//! The site file that points forge at a lab, and the boot VM that every lab of these commands holds.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::{ImportVm, Lab};

/// The VMID of the boot VM.
pub const BOOT_VM: u32 = 9000;
/// The name of the boot VM, as profiles clone it.
pub const BOOT_VM_NAME: &str = "boot-vm";
/// The token of the lab's user.
pub const TOKEN_ID: &str = "forge@pve!build";
/// The environment variable that holds the token's secret.
pub const SECRET_VARIABLE: &str = "PROXMOX_TOKEN_SECRET";

/// The text of a `forge.toml` for this lab. Guests reach the host as 10.0.2.2 (QEMU's user network), and what they ask
/// there arrives at the loopback interface: the seed server needs no other. On real bridges it listens on the first one.
pub fn forge_toml(lab: &Lab, nodes: &[String]) -> String {
    let host = lab.host_address();
    let bind = if host.octets()[0] == 10 { Ipv4Addr::LOCALHOST } else { host };
    let nodes: Vec<String> = nodes.iter().map(|node| format!("{node:?}")).collect();
    format!(
        "# Written by forge-lab: points forge at the lab at {url}.\n\
         default-target = \"lab\"\n\n\
         [targets.lab]\n\
         type = \"proxmox\"\n\
         url = \"{url}\"\n\
         token-id = \"{TOKEN_ID}\"\n\
         token-secret = {{ env = \"{SECRET_VARIABLE}\" }}\n\
         tls = {{ fingerprint = \"{fingerprint}\" }}\n\
         nodes = [{nodes}]\n\
         storage = {{ disks = \"local\", isos = \"local\" }}\n\
         bridge = \"vmbr0\"\n\
         vmids = \"9001-9099\"\n\
         seed = {{ bind = \"{bind}\", address = \"{host}\" }}\n",
        url = lab.url(),
        fingerprint = lab.fingerprint(),
        nodes = nodes.join(", "),
    )
}

/// The boot VM on that disk.
pub fn boot_vm(disk: Option<PathBuf>, cloudinit_drive: bool) -> ImportVm {
    ImportVm {
        vmid: BOOT_VM,
        name: BOOT_VM_NAME.to_owned(),
        disk,
        cloudinit_drive,
        memory: 1024,
        cores: 2,
        ..ImportVm::default()
    }
}
