//! What to build: the VM, where it comes from, and what it becomes. Plain data, part of the plan.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::hardware::{Bios, Hardware};
use crate::source::{BootFile, IsoDrives, KernelSpec, Medium, SourceSpec};

/// How a profile names the VM to clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloneSelector {
    /// By name; more than one VM of that name is an error.
    Name(String),
    /// By VMID.
    Vmid(u32),
    /// The newest template that has all these tags.
    Tags(Vec<String>),
}

impl fmt::Display for CloneSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Vmid(vmid) => write!(f, "VM {vmid}"),
            Self::Tags(tags) => write!(f, "the newest with tags {}", tags.join(", ")),
        }
    }
}

/// A disk as the profile names it. Only what is given is changed on a clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DiskSpec {
    /// The slot, by Proxmox's names (`scsi0`, `virtio0`, `sata1`, `ide0`), and `nvme0` where the backend has it. A disk
    /// that the source does not have is made, empty, and needs a size.
    pub slot: String,
    /// The size in bytes; a clone's disk is grown to it, never shrunk.
    pub size: Option<u64>,
    /// Whether discards of the guest free space of the storage.
    pub discard: Option<bool>,
    /// The storage that holds it; `None` takes the source's or the target's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// Further options by the backend's own names (Proxmox: `cache`, `ssd`, `iothread`, …), passed through.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// A network adapter as the profile names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NetworkSpec {
    /// The model by Proxmox's name (`virtio`, `e1000`, …).
    pub model: String,
    /// The bridge; `None` takes the target's.
    pub bridge: Option<String>,
    /// The VLAN tag.
    pub vlan: Option<u16>,
    /// The MAC address; `None` keeps the one that is there, or lets the target make one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Further options by the backend's own names (Proxmox: `firewall`, `mtu`, `queues`, …), passed through.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// The cloud-init drive that a finished template carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CloudInitDrive {
    /// The slot, by Proxmox's names (`ide2`).
    pub slot: String,
    /// The storage that holds it.
    pub storage: String,
    /// Whether the source already has it, so that none is added.
    pub inherited: bool,
}

/// The build VM. Fields that are `None` stay as the source has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MachineSpec {
    /// What it starts from.
    pub source: SourceSpec,
    /// The media in its CD-ROM drives; the first is the one to install from.
    pub isos: Vec<Medium>,
    /// The slots of the drives, by the medium's place in `isos`, where they are named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub iso_slots: BTreeMap<usize, String>,
    /// What becomes of those drives.
    #[serde(default)]
    pub iso_drives: IsoDrives,
    /// The kernel that the first start takes instead of a boot loader.
    pub kernel: Option<KernelSpec>,
    /// Firmware, chipset, TPM and the like.
    pub hardware: Hardware,
    /// The node that holds the VM.
    pub node: String,
    /// The ids forge may use: inclusive; `None` asks the target for the next one.
    pub ids: Option<(u32, u32)>,
    /// The resource pool.
    pub pool: Option<String>,
    /// CPU cores per socket.
    pub cores: Option<u32>,
    /// CPU sockets.
    pub sockets: Option<u32>,
    /// CPU type.
    pub cpu: Option<String>,
    /// Memory in MiB.
    pub memory_mib: Option<u32>,
    /// Disks to change.
    pub disks: Vec<DiskSpec>,
    /// Network adapters `net0`, `net1`, …; empty keeps the source's.
    pub networks: Vec<NetworkSpec>,
    /// Whether the guest agent's device is there.
    pub agent: Option<bool>,
    /// Whether the first serial port is wanted as a terminal ([`crate::Machine::terminal`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminal: bool,
    /// The cloud-init drive of build VM and template.
    pub cloud_init: Option<CloudInitDrive>,
    /// Whether it is given a disc with its seed: it takes a place on a bus.
    #[serde(default)]
    pub seed_disc: bool,
    /// Whether it starts from that disc as long as its disks hold no system, before any medium.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub boot_disc: bool,
    /// Whether it is given a floppy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub floppy: bool,
    /// Keys of this backend only (`[vm.proxmox]`, `[vm.qemu]`), passed through.
    pub extra: BTreeMap<String, String>,
}

impl MachineSpec {
    /// A VM on a node of which nothing else is said.
    #[must_use]
    pub fn new(source: SourceSpec, node: impl Into<String>) -> Self {
        Self {
            source,
            isos: Vec::new(),
            iso_slots: BTreeMap::new(),
            iso_drives: IsoDrives::Drop,
            kernel: None,
            hardware: Hardware::default(),
            node: node.into(),
            ids: None,
            pool: None,
            cores: None,
            sockets: None,
            cpu: None,
            memory_mib: None,
            disks: Vec::new(),
            networks: Vec::new(),
            agent: None,
            terminal: false,
            cloud_init: None,
            seed_disc: false,
            boot_disc: false,
            floppy: false,
            extra: BTreeMap::new(),
        }
    }

    /// Whether an installer writes the disks: the guest reboots or powers off when it is done, and only then is what
    /// the build is about.
    #[must_use]
    pub fn is_install(&self) -> bool {
        matches!(self.source, SourceSpec::New)
    }

    /// Every medium that the build reads.
    pub fn media(&self) -> impl Iterator<Item = &Medium> {
        let image = match &self.source {
            SourceSpec::Image { image, .. } => Some(image),
            SourceSpec::Clone { .. } | SourceSpec::New => None,
        };
        let files =
            self.kernel.iter().flat_map(|kernel| std::iter::once(&kernel.kernel).chain(&kernel.initrds));
        let files = files.filter_map(|file| match file {
            BootFile::Medium(medium) => Some(medium),
            BootFile::InIso(_) => None,
        });
        image.into_iter().chain(&self.isos).chain(files)
    }

    /// Likewise, to be replaced by what is known better.
    pub fn media_mut(&mut self) -> impl Iterator<Item = &mut Medium> {
        let image = match &mut self.source {
            SourceSpec::Image { image, .. } => Some(image),
            SourceSpec::Clone { .. } | SourceSpec::New => None,
        };
        let kernel = self.kernel.iter_mut();
        let files = kernel.flat_map(|kernel| std::iter::once(&mut kernel.kernel).chain(&mut kernel.initrds));
        let files = files.filter_map(|file| match file {
            BootFile::Medium(medium) => Some(medium),
            BootFile::InIso(_) => None,
        });
        image.into_iter().chain(&mut self.isos).chain(files)
    }
}

/// An output format of [`Finish::Files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileFormat {
    /// QEMU's copy-on-write format. Compressed: its clusters, by zstd.
    Qcow2,
    /// Plain sectors. Compressed: the whole file, by zstd.
    Raw,
    /// VMware's format, a sparse file. Compressed: the stream-optimized form, which an OVA holds.
    Vmdk,
}

impl FileFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Qcow2, Self::Raw, Self::Vmdk];

    /// Its name in profiles and in QEMU.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
        }
    }

    /// The ending of its files' names.
    #[must_use]
    pub fn ending(self, compressed: bool) -> &'static str {
        match (self, compressed) {
            (Self::Raw, true) => "raw.zst",
            _ => self.name(),
        }
    }

    /// The name of the image of a disk: `NAME.qcow2` for the first, `NAME-1.qcow2` and so on for the others, as Packer
    /// names them.
    #[must_use]
    pub fn file_name(self, name: &str, disk: usize, compressed: bool) -> String {
        let ending = self.ending(compressed);
        if disk == 0 { format!("{name}.{ending}") } else { format!("{name}-{disk}.{ending}") }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The tag of the template that is the newest of its profile. Published before the older one loses it, so at any moment
/// the newest that bears it is the one to take.
pub const TAG_LATEST: &str = "latest";

/// The tag of a template that a trial found wrong.
pub const TAG_FAILED: &str = "test-failed";

/// The tag of a template that was built to be tried before anybody takes it, until that was done.
pub const TAG_UNTESTED: &str = "untested";

/// The tag that every template of forge bears.
pub const TAG_OWN: &str = "forge";

/// The tag of a template that a trial found right.
pub const TAG_VALIDATED: &str = "validated";

/// The tags that a trial puts on a template or takes off it.
pub const TAGS_OF_TRIALS: [&str; 3] = [TAG_UNTESTED, TAG_VALIDATED, TAG_FAILED];

/// The tag of a template that is to go: a later `forge prune` removes it.
pub const TAG_DEPRECATED: &str = "deprecated";

/// What the build VM becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Finish {
    /// A template on the target.
    #[serde(rename_all = "kebab-case")]
    Template {
        /// Its name, a DNS name.
        name: String,
        /// Its tags.
        tags: Vec<String>,
        /// Its notes (Markdown).
        notes: String,
    },
    /// Files on this machine.
    #[serde(rename_all = "kebab-case")]
    Files {
        /// The directory they go to.
        directory: PathBuf,
        /// Their name without ending.
        name: String,
        /// The formats.
        formats: Vec<FileFormat>,
        /// Whether they are compressed.
        #[serde(default)]
        compress: bool,
        /// Whether files of these names are replaced; else they are left alone, and finishing fails.
        #[serde(default)]
        replace: bool,
        /// What the manifest says about the build, by name.
        #[serde(default)]
        about: BTreeMap<String, String>,
    },
}

impl Finish {
    /// The files that are made of a machine, in their order: the images of each disk, the UEFI variables, the checksums,
    /// the manifest. Templates have none.
    #[must_use]
    pub fn files(&self, machine: &MachineSpec) -> Vec<PathBuf> {
        let Self::Files { directory, name, formats, compress, .. } = self else { return Vec::new() };
        let mut files = Vec::new();
        let disks = 0..machine.disks.len().max(1);
        let images =
            disks.flat_map(|disk| formats.iter().map(move |format| format.file_name(name, disk, *compress)));
        let variables = (machine.hardware.bios == Some(Bios::Ovmf)).then_some(VARIABLES_ENDING);
        let rest = variables.into_iter().chain([SUMS_ENDING, MANIFEST_ENDING]);
        for file in images.chain(rest.map(|ending| format!("{name}.{ending}"))) {
            let file = directory.join(file);
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }
}

/// The ending of the file of UEFI variables of [`Finish::Files`], which is Packer's name for it.
pub const VARIABLES_ENDING: &str = "efivars.fd";

/// The ending of the file of checksums of [`Finish::Files`], for `sha256sum --check`.
pub const SUMS_ENDING: &str = "SHA256SUMS";
/// The ending of the manifest of [`Finish::Files`]: the file that is put in place last.
pub const MANIFEST_ENDING: &str = "manifest.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_machine_are_its_disks_in_every_format_its_variables_sums_and_manifest() {
        let finish = Finish::Files {
            directory: "/images".into(),
            name: "web".into(),
            formats: vec![FileFormat::Qcow2, FileFormat::Raw, FileFormat::Qcow2],
            compress: true,
            replace: false,
            about: BTreeMap::new(),
        };
        let names = |machine: &MachineSpec| -> Vec<String> {
            let files = finish.files(machine);
            files.iter().map(|file| file.display().to_string().replace("/images/", "")).collect()
        };
        let mut machine = MachineSpec::new(SourceSpec::New, "localhost");
        assert_eq!(names(&machine), ["web.qcow2", "web.raw.zst", "web.SHA256SUMS", "web.manifest.json"]);
        machine.disks = vec![DiskSpec::default(), DiskSpec::default()];
        machine.hardware.bios = Some(Bios::Ovmf);
        let expected = [
            "web.qcow2",
            "web.raw.zst",
            "web-1.qcow2",
            "web-1.raw.zst",
            "web.efivars.fd",
            "web.SHA256SUMS",
            "web.manifest.json",
        ];
        assert_eq!(names(&machine), expected);
    }
}
