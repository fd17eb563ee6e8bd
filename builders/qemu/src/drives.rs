//! Disks and CD-ROMs as QEMU's arguments: which bus each hangs on, and in which order the firmware tries them.
//!
//! Disks come first, in the profile's order, then the media: an empty disk is passed over, so that a new machine starts
//! its installer, and what was installed starts after it, with nobody changing the order.

use std::path::{Path, PathBuf};

use forge_machine::{DiskSpec, MachineSpec};
use serde::{Deserialize, Serialize};

use super::args::{Chipset, DISK_FILE, Line, SEED_FILE, escape};

/// The ports of q35's SATA controller (QEMU, `hw/i386/pc_q35.c`), and of the one that is added to others.
pub(crate) const SATA_PORTS: usize = 6;
/// The slot of a disk that a profile does not name.
const DEFAULT_SLOT: &str = "virtio0";
/// Buses of disks with the number of their last slot.
pub(crate) const BUSES: [(&str, usize); 5] =
    [("virtio", 15), ("scsi", 30), ("sata", SATA_PORTS - 1), ("ide", 3), ("nvme", 7)];
/// Where CD-ROM drives can hang.
pub(crate) const CDROM_BUSES: [&str; 4] = ["sata", "ide", "scsi", "virtio"];
/// SCSI controllers by Proxmox's names, and QEMU's devices for them.
pub(crate) const SCSI_CONTROLLERS: [(&str, &str); 6] = [
    ("virtio-scsi-pci", "virtio-scsi-pci"),
    ("virtio-scsi-single", "virtio-scsi-pci"),
    ("lsi", "lsi53c895a"),
    ("lsi53c810", "lsi53c810"),
    ("megasas", "megasas"),
    ("pvscsi", "pvscsi"),
];
/// QEMU's words for `cache=`.
pub(crate) const CACHES: [&str; 5] = ["none", "writeback", "writethrough", "directsync", "unsafe"];

/// A disk of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Disk {
    /// Its image in the work directory.
    pub file: String,
    /// Its slot, by Proxmox's names, and `nvme0`.
    pub slot: String,
    /// Whether discards free space.
    pub discard: bool,
    /// QEMU's `cache=`.
    pub cache: String,
    /// The serial number that the guest sees.
    pub serial: Option<String>,
    /// Whether the guest sees a disk that does not turn.
    #[serde(default)]
    pub ssd: bool,
}

impl Disk {
    fn new(index: usize, spec: &DiskSpec) -> Self {
        let option = |name: &str| spec.options.get(name).cloned();
        Self {
            file: disk_file(index),
            slot: spec.slot.clone(),
            discard: spec.discard.unwrap_or(true),
            // The guest's flushes need not reach this machine's disk, whose crash loses the build. They reach its page
            // cache, which a crash of forge or QEMU leaves: what the guest has flushed by then is there.
            cache: option("cache").unwrap_or_else(|| "unsafe".to_owned()),
            serial: option("serial"),
            ssd: option("ssd").is_some_and(|on| on == "1"),
        }
    }

    fn bus(&self) -> &str {
        bus_of(&self.slot)
    }

    fn number(&self) -> usize {
        self.slot.get(self.bus().len()..).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

/// The disks of a spec; one where it names none.
pub(crate) fn disks_of(spec: &MachineSpec) -> Vec<Disk> {
    let one = DiskSpec { slot: DEFAULT_SLOT.to_owned(), ..DiskSpec::default() };
    let named: &[DiskSpec] = if spec.disks.is_empty() { std::slice::from_ref(&one) } else { &spec.disks };
    named.iter().enumerate().map(|(index, disk)| Disk::new(index, disk)).collect()
}

/// The image of the disk at that place in the profile.
pub(crate) fn disk_file(index: usize) -> String {
    if index == 0 { DISK_FILE.to_owned() } else { format!("disk-{index}.qcow2") }
}

/// A slot without its number.
pub(crate) fn bus_of(slot: &str) -> &str {
    slot.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// What hangs on the buses of a VM.
pub(crate) struct Drives<'a> {
    pub(crate) chipset: Chipset,
    pub(crate) disks: &'a [Disk],
    pub(crate) cdroms: &'a [PathBuf],
    pub(crate) cdrom_bus: &'a str,
    pub(crate) scsi_controller: &'a str,
    pub(crate) seed_disc: bool,
}

impl Drives<'_> {
    pub(crate) fn arguments(&self, line: &mut Line) {
        self.controllers(line);
        for (index, disk) in self.disks.iter().enumerate() {
            self.disk(line, index, disk);
        }
        for (number, medium) in self.cdroms.iter().enumerate() {
            self.cdrom(line, number, medium, self.disks.len() + 1 + number);
        }
        if self.seed_disc {
            self.seed(line);
        }
    }

    fn controllers(&self, line: &mut Line) {
        let seed_on_scsi = self.seed_disc && self.main_bus() == "scsi";
        let on = |bus: &str| {
            self.disks.iter().any(|disk| disk.bus() == bus)
                || (!self.cdroms.is_empty() && self.cdrom_bus == bus)
        };
        if on("scsi") || seed_on_scsi {
            let device = SCSI_CONTROLLERS.iter().find(|(name, _)| *name == self.scsi_controller);
            let virtio = self.chipset.virtio("scsi");
            let device = device.map(|(_, device)| *device).filter(|device| *device != "virtio-scsi-pci");
            line.option("-device", &[device.unwrap_or(&virtio), "id=scsi0"]);
        }
        // q35 has a controller of its own, whose ports are called `ide.N`.
        if self.chipset != Chipset::Q35 && on("sata") {
            line.option("-device", &["ahci", "id=sata"]);
        }
    }

    fn disk(&self, line: &mut Line, index: usize, disk: &Disk) {
        let discard = if disk.discard { "discard=unmap" } else { "discard=ignore" };
        line.option(
            "-drive",
            &[
                &format!("file={}", disk.file),
                "format=qcow2",
                "if=none",
                &format!("id=disk{index}"),
                &format!("cache={}", disk.cache),
                discard,
                "detect-zeroes=unmap",
            ],
        );
        let number = disk.number();
        let mut device = match disk.bus() {
            "scsi" => {
                // Without a number the bus gives the next one: the first disk needs none.
                let place = if number == 0 { String::new() } else { format!(",scsi-id={number}") };
                format!("scsi-hd,drive=disk{index},bus=scsi0.0{place}")
            }
            "sata" | "ide" => format!("ide-hd,drive=disk{index},{}", self.ata(disk.bus(), number)),
            "nvme" => {
                let serial = disk.serial.clone().unwrap_or_else(|| format!("forge-{number}"));
                format!("nvme,drive=disk{index},serial={}", escape(&serial))
            }
            _ => format!("{},drive=disk{index}", self.chipset.virtio("blk")),
        };
        if let Some(serial) = disk.serial.as_ref().filter(|_| disk.bus() != "nvme") {
            device = format!("{device},serial={}", escape(serial));
        }
        // The rate that ATA and SCSI give to what does not turn (ACS-3, word 217; SBC-3, 6.5.3).
        if disk.ssd && matches!(disk.bus(), "scsi" | "sata" | "ide") {
            device.push_str(",rotation_rate=1");
        }
        line.option("-device", &[device, format!("bootindex={}", index + 1)]);
    }

    fn cdrom(&self, line: &mut Line, number: usize, medium: &Path, boot: usize) {
        let file = format!("file={}", escape(&medium.to_string_lossy()));
        let id = format!("id=cd{number}");
        line.option("-drive", &[file.as_str(), "format=raw", "if=none", &id, "readonly=on"]);
        let device = match self.cdrom_bus {
            "scsi" => format!("scsi-cd,drive=cd{number},bus=scsi0.0"),
            "virtio" => format!("{},drive=cd{number}", self.chipset.virtio("blk")),
            bus => {
                let port = self.free_ports(bus).nth(number).unwrap_or(SATA_PORTS);
                format!("ide-cd,drive=cd{number},{}", self.ata(bus, port))
            }
        };
        line.option("-device", &[device, format!("bootindex={boot}")]);
    }

    /// The seed disc goes on the main disk's bus: that is the one bus whose driver a guest has for certain. Debian's
    /// cloud kernel, for one, has no driver for the AHCI controller of q35 (observed on 6.1), so a CD there is not seen.
    /// Readers of seeds look for the label, not for the kind of drive.
    fn seed(&self, line: &mut Line) {
        let file = format!("file={SEED_FILE}");
        let drive = ["format=raw", "if=none", "id=seed0", "readonly=on"];
        line.option("-drive", &[&[file.as_str()], drive.as_slice()].concat());
        let device = match self.main_bus() {
            "scsi" => "scsi-cd,drive=seed0,bus=scsi0.0".to_owned(),
            bus @ ("sata" | "ide") => {
                let taken =
                    if self.cdrom_bus == bus || self.chipset == Chipset::Q35 { self.ata_cdroms() } else { 0 };
                let port = self.free_ports(bus).nth(taken).unwrap_or(SATA_PORTS);
                format!("ide-cd,drive=seed0,{}", self.ata(bus, port))
            }
            _ => format!("{},drive=seed0", self.chipset.virtio("blk")),
        };
        line.option("-device", &[device]);
    }

    fn main_bus(&self) -> &str {
        self.disks.first().map_or("virtio", Disk::bus)
    }

    /// How many media are on a bus of ATA drives.
    fn ata_cdroms(&self) -> usize {
        if matches!(self.cdrom_bus, "sata" | "ide") { self.cdroms.len() } else { 0 }
    }

    /// The ports of a bus that no disk has.
    fn free_ports(&self, bus: &str) -> impl Iterator<Item = usize> {
        let same = move |other: &str| {
            // On q35 both names mean the one controller.
            other == bus || (self.chipset == Chipset::Q35 && matches!(other, "sata" | "ide"))
        };
        let taken: Vec<usize> = self.disks.iter().filter(|disk| same(disk.bus())).map(Disk::number).collect();
        let ports = if self.chipset != Chipset::Q35 && bus == "ide" { 4 } else { SATA_PORTS };
        (0..ports).filter(move |port| !taken.contains(port))
    }

    /// Where on the board a port of that number is.
    fn ata(&self, bus: &str, port: usize) -> String {
        match (self.chipset, bus) {
            (Chipset::Q35, _) => format!("bus=ide.{port}"),
            (_, "ide") => format!("bus=ide.{},unit={}", port / 2, port % 2),
            _ => format!("bus=sata.{port}"),
        }
    }

    /// Whether everything has a port; else which bus is too small.
    pub(crate) fn crowded(&self) -> Option<&str> {
        let seed = usize::from(self.seed_disc && matches!(self.main_bus(), "sata" | "ide"));
        let (media, main) = (self.ata_cdroms(), self.main_bus());
        let one_controller = main == self.cdrom_bus || self.chipset == Chipset::Q35;
        let (on_media_bus, on_main) = match one_controller && media > 0 {
            true => (media + seed, 0),
            false => (media, seed),
        };
        [(self.cdrom_bus, on_media_bus), (main, on_main)]
            .into_iter()
            .find(|(bus, wanted)| *wanted > 0 && self.free_ports(bus).count() < *wanted)
            .map(|(bus, _)| bus)
    }
}
