//! What a build VM is made of beside processors, memory, disks and network, by Proxmox's names. `None` stays as the
//! source has it, or is the backend's default.

use serde::{Deserialize, Serialize};

/// The firmware, by Proxmox's words for `bios`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bios {
    /// BIOS.
    Seabios,
    /// UEFI.
    Ovmf,
}

impl Bios {
    /// The words of `vm.bios`.
    pub const NAMES: [&str; 2] = ["seabios", "ovmf"];

    /// The firmware of a word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "seabios" => Some(Self::Seabios),
            "ovmf" => Some(Self::Ovmf),
            _ => None,
        }
    }
}

/// The disk with the UEFI variables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EfiDisk {
    /// Whether Secure Boot is on, with Microsoft's and the distributions' keys enrolled.
    pub pre_enrolled_keys: bool,
    /// The storage; `None` takes that of the first disk.
    pub storage: Option<String>,
}

/// The TPM 2.0 and where its state lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TpmState {
    /// The storage; `None` takes that of the first disk.
    pub storage: Option<String>,
}

/// See the module's page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Hardware {
    /// The firmware.
    pub bios: Option<Bios>,
    /// The chipset (`q35`, `i440fx`; on local QEMU also `microvm`).
    pub machine: Option<String>,
    /// The UEFI variables.
    pub efi_disk: Option<EfiDisk>,
    /// The TPM.
    pub tpm: Option<TpmState>,
    /// Whether the guest is given random numbers (virtio-rng).
    pub rng: Option<bool>,
    /// The SCSI controller (`virtio-scsi-pci`, `virtio-scsi-single`, `lsi`, …).
    pub scsihw: Option<String>,
    /// The graphics adapter: `std`, or a property string such as `type=virtio,memory=64`.
    pub vga: Option<String>,
    /// Whether each socket is a NUMA node with its part of the memory.
    pub numa: Option<bool>,
    /// Whether the hardware clock shows local time.
    pub localtime: Option<bool>,
    /// `false` keeps the processor's virtualisation from being used.
    pub kvm: Option<bool>,
    /// Arguments for QEMU, appended to forge's own. On Proxmox VE only root may set them.
    pub args: Vec<String>,
}
