//! What a VM that is put into a lab looks like.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::state::{Drive, normalise_tags};

/// A VM to be put into a lab without going through its API.
#[derive(Debug, Clone)]
pub struct ImportVm {
    /// Its number.
    pub vmid: u32,
    /// Its name.
    pub name: String,
    /// Node; the first one when `None`.
    pub node: Option<String>,
    /// Storage of its disk; the first that takes images when `None`.
    pub storage: Option<String>,
    /// Image that becomes the backing file of its disk; an empty 1 GiB disk when `None`.
    pub disk: Option<PathBuf>,
    /// Slot of the disk: `scsi0`, `virtio0`, `sata0`, `ide0`.
    pub disk_slot: String,
    /// Whether it has a cloud-init drive, on ide2.
    pub cloudinit_drive: bool,
    /// Whether it is a template.
    pub template: bool,
    /// Its tags, as Proxmox takes them.
    pub tags: String,
    /// Memory in MiB.
    pub memory: u32,
    /// Cores of its one socket.
    pub cores: u32,
    /// Whether the guest agent is switched on.
    pub agent: bool,
    /// Further configuration keys, which win over the ones above.
    pub extra: BTreeMap<String, String>,
}

impl Default for ImportVm {
    fn default() -> Self {
        ImportVm {
            vmid: 100,
            name: "boot-vm".to_owned(),
            node: None,
            storage: None,
            disk: None,
            disk_slot: "scsi0".to_owned(),
            cloudinit_drive: false,
            template: false,
            tags: String::new(),
            memory: 512,
            cores: 1,
            agent: true,
            extra: BTreeMap::new(),
        }
    }
}

/// The configuration of an imported VM, but for its cloud-init drive.
pub(super) fn configuration(import: &ImportVm, drive: &Drive) -> BTreeMap<String, String> {
    let mut config: BTreeMap<String, String> = [
        ("name", import.name.clone()),
        ("memory", import.memory.to_string()),
        ("cores", import.cores.to_string()),
        ("sockets", "1".to_owned()),
        ("ostype", "l26".to_owned()),
        ("scsihw", "virtio-scsi-pci".to_owned()),
        ("net0", format!("virtio={},bridge=vmbr0", crate::ids::mac())),
        ("boot", format!("order={};net0", import.disk_slot)),
        ("smbios1", format!("uuid={}", crate::ids::uuid())),
        ("vmgenid", crate::ids::uuid()),
        ("meta", format!("creation-qemu=10.0.2,ctime={}", crate::ids::now())),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    config.insert(import.disk_slot.clone(), drive.print());
    if import.agent {
        config.insert("agent".to_owned(), "enabled=1".to_owned());
    }
    if import.template {
        config.insert("template".to_owned(), "1".to_owned());
    }
    let tags = normalise_tags(&import.tags);
    if !tags.is_empty() {
        config.insert("tags".to_owned(), tags);
    }
    config
}
