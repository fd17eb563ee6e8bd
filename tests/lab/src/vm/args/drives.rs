//! Drives, their controllers and their place in the boot order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Arguments, Launch, escape, is_net, is_q35};
use crate::state::{Config, Drive, is_drive_key};

/// A drive with the file behind it.
#[derive(Debug, Clone, Default)]
pub struct DiskFile {
    /// Configuration key: `scsi0`.
    pub key: String,
    /// Image, `None` for an empty CD drive.
    pub path: Option<PathBuf>,
    /// Image format.
    pub format: String,
    /// Whether it is a CD drive.
    pub cdrom: bool,
    /// The drive's options as the configuration has them.
    pub options: BTreeMap<String, String>,
}

impl DiskFile {
    fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    fn is_on(&self, name: &str) -> bool {
        matches!(self.option(name), Some("1" | "on"))
    }

    /// `scsi` and 0 of `scsi0`.
    fn slot(&self) -> (&str, usize) {
        let base = self.key.trim_end_matches(|c: char| c.is_ascii_digit());
        (base, self.key[base.len()..].parse().unwrap_or(0))
    }
}

/// Devices in the order in which the firmware tries them. Without `order=` the old form counts: letters for the boot
/// disk (`c`), the first CD drive (`d`) and the network (`n`).
pub(super) fn boot_order(config: &Config) -> Vec<String> {
    let boot = config.get("boot").map_or("cdn", String::as_str);
    if let Some(order) = boot.split(',').find_map(|part| part.strip_prefix("order=")) {
        return order.split(';').filter(|device| !device.is_empty()).map(str::to_owned).collect();
    }
    let legacy = boot.strip_prefix("legacy=").unwrap_or(boot);
    let first = |cdrom: bool| {
        let found = config.iter().find(|(key, value)| {
            let base = key.trim_end_matches(|c: char| c.is_ascii_digit());
            is_drive_key(key)
                && !matches!(base, "efidisk" | "tpmstate")
                && Drive::parse(value).is_cdrom() == cdrom
        });
        found.map(|(key, _)| key.clone())
    };
    let devices = legacy.chars().filter_map(|letter| match letter {
        'c' => config.get("bootdisk").cloned().or_else(|| first(false)),
        'd' => first(true),
        'n' => config.keys().find(|key| is_net(key)).cloned(),
        _ => None,
    });
    devices.collect()
}

/// Position of a device in the boot order, from 100 as Proxmox counts.
pub(super) fn boot_index(config: &Config, key: &str) -> Option<usize> {
    boot_order(config).iter().position(|device| device == key).map(|index| index + 100)
}

pub(super) fn disks(list: &mut Arguments, launch: &Launch<'_>) {
    let hardware = launch.config.get("scsihw").map_or("lsi", String::as_str);
    let q35 = is_q35(launch.config);
    let mut controllers: Vec<String> = Vec::new();
    for disk in &launch.disks {
        if disk.path.is_some() {
            list.add("-drive", backend(disk));
        }
        let (base, number) = disk.slot();
        let threaded = disk.is_on("iothread")
            && (base == "virtio" || (base == "scsi" && hardware == "virtio-scsi-single"));
        if threaded {
            list.add("-object", format!("iothread,id=iothread-{}", disk.key));
        }
        let Place { controller, mut device } = place(base, number, hardware, disk.cdrom, q35);
        if let Some((id, mut arguments)) = controller
            && !controllers.contains(&id)
        {
            if threaded {
                arguments.push_str(&format!(",iothread=iothread-{}", disk.key));
            }
            list.add("-device", arguments);
            controllers.push(id);
        } else if threaded {
            device.push_str(&format!(",iothread=iothread-{}", disk.key));
        }
        if disk.path.is_some() {
            device.push_str(&format!(",drive=drive-{}", disk.key));
        }
        device.push_str(&format!(",id={}", disk.key));
        if disk.is_on("ssd") && !disk.cdrom && base != "virtio" {
            device.push_str(",rotation_rate=1");
        }
        if !disk.cdrom {
            for (option, property) in [("serial", "serial"), ("wwn", "wwn")] {
                if let Some(value) = disk.option(option) {
                    device.push_str(&format!(",{property}={}", escape(value)));
                }
            }
        }
        if let Some(index) = boot_index(launch.config, &disk.key) {
            device.push_str(&format!(",bootindex={index}"));
        }
        list.add("-device", device);
    }
}

/// The image behind a drive. Every cache mode is the fastest one here: a lab's disks need to outlive its processes, not
/// the machine's power.
fn backend(disk: &DiskFile) -> String {
    let path = disk.path.clone().unwrap_or_default();
    let mut drive = format!(
        "if=none,id=drive-{},file={},format={}",
        disk.key,
        escape(&path.to_string_lossy()),
        disk.format
    );
    if disk.cdrom {
        drive.push_str(",media=cdrom,readonly=on");
        return drive;
    }
    drive.push_str(",cache=unsafe");
    drive.push_str(if disk.option("detect_zeroes") == Some("0") { "" } else { ",detect-zeroes=unmap" });
    drive.push_str(if disk.is_on("discard") { ",discard=unmap" } else { ",discard=ignore" });
    if disk.is_on("ro") {
        drive.push_str(",readonly=on");
    }
    if disk.is_on("snapshot") {
        drive.push_str(",snapshot=on");
    }
    let limits = [
        ("bps", "bps", 1.0),
        ("bps_rd", "bps_rd", 1.0),
        ("bps_wr", "bps_wr", 1.0),
        ("mbps", "bps", 1_048_576.0),
        ("mbps_rd", "bps_rd", 1_048_576.0),
        ("mbps_wr", "bps_wr", 1_048_576.0),
        ("iops", "iops", 1.0),
        ("iops_rd", "iops_rd", 1.0),
        ("iops_wr", "iops_wr", 1.0),
    ];
    for (option, property, factor) in limits {
        if let Some(number) = disk.option(option).and_then(|text| text.parse::<f64>().ok()) {
            drive.push_str(&format!(",{property}={}", (number * factor) as u64));
        }
    }
    drive
}

/// Where a drive is plugged in.
struct Place {
    /// Identifier and arguments of a controller that must be there.
    controller: Option<(String, String)>,
    /// The device up to its own options.
    device: String,
}

fn place(base: &str, number: usize, hardware: &str, cdrom: bool, q35: bool) -> Place {
    match base {
        "scsi" => scsi(number, hardware, cdrom),
        "virtio" => Place { controller: None, device: "virtio-blk-pci".to_owned() },
        "sata" => {
            let kind = if cdrom { "ide-cd" } else { "ide-hd" };
            Place {
                controller: Some(("ahci0".to_owned(), "ahci,id=ahci0".to_owned())),
                device: format!("{kind},bus=ahci0.{number}"),
            }
        }
        _ => {
            let kind = if cdrom { "ide-cd" } else { "ide-hd" };
            // A q35 board has no IDE: its `ide.N` are the SATA ports of its own chip, one drive each, and such a guest
            // needs a driver for AHCI.
            let device = match q35 {
                true => format!("{kind},bus=ide.{number},unit=0"),
                false => format!("{kind},bus=ide.{},unit={}", number / 2, number % 2),
            };
            Place { controller: None, device }
        }
    }
}

/// `lsi` and `pvscsi` address by target, the others by logical unit behind target 0 (qemu-server's own way, seen in the
/// guests of a real server as `scsi 0:0:0:N`).
fn scsi(number: usize, hardware: &str, cdrom: bool) -> Place {
    let kind = if cdrom { "scsi-cd" } else { "scsi-hd" };
    match hardware {
        "lsi" | "lsi53c810" | "pvscsi" => {
            let (controller, unit) = (number / 7, number % 7);
            let model = if hardware == "lsi" { "lsi53c895a" } else { hardware };
            Place {
                controller: Some((format!("scsihw{controller}"), format!("{model},id=scsihw{controller}"))),
                device: format!("{kind},bus=scsihw{controller}.0,scsi-id={unit}"),
            }
        }
        "virtio-scsi-single" => {
            let id = format!("virtioscsi{number}");
            Place {
                controller: Some((id.clone(), format!("virtio-scsi-pci,id={id}"))),
                device: format!("{kind},bus={id}.0,channel=0,scsi-id=0,lun={number}"),
            }
        }
        "megasas" => Place {
            controller: Some(("scsihw0".to_owned(), "megasas,id=scsihw0".to_owned())),
            device: format!("{kind},bus=scsihw0.0,channel=0,scsi-id={number},lun=0"),
        },
        _ => Place {
            controller: Some(("scsihw0".to_owned(), "virtio-scsi-pci,id=scsihw0".to_owned())),
            device: format!("{kind},bus=scsihw0.0,channel=0,scsi-id=0,lun={number}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Config {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_boot_order_is_read_in_its_new_and_its_old_form() {
        let drives = [
            ("ide2", "local:iso/a.iso,media=cdrom"),
            ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
            ("scsi0", "local:9000/vm-9000-disk-0.qcow2"),
            ("efidisk0", "local:9000/vm-9000-disk-1.raw"),
        ];
        let with = |boot: &str| {
            let mut all = config(&drives);
            all.insert("boot".to_owned(), boot.to_owned());
            boot_order(&all)
        };
        assert_eq!(with("order=ide2;scsi0"), ["ide2", "scsi0"]);
        assert_eq!(with("dc"), ["ide2", "scsi0"]);
        assert_eq!(with("legacy=n"), ["net0"]);
        assert_eq!(boot_order(&config(&drives)), ["scsi0", "ide2", "net0"]);
        assert_eq!(boot_index(&config(&drives), "ide2"), Some(101));
    }

    #[test]
    fn controllers_address_as_proxmox_lays_them_out() {
        let device = |key: &str, hardware: &str, q35: bool| {
            let disk = DiskFile { key: key.to_owned(), ..DiskFile::default() };
            let (base, number) = disk.slot();
            place(base, number, hardware, false, q35).device
        };
        assert_eq!(device("scsi9", "lsi", false), "scsi-hd,bus=scsihw1.0,scsi-id=2");
        assert_eq!(
            device("scsi9", "virtio-scsi-pci", false),
            "scsi-hd,bus=scsihw0.0,channel=0,scsi-id=0,lun=9"
        );
        assert_eq!(
            device("scsi1", "virtio-scsi-single", false),
            "scsi-hd,bus=virtioscsi1.0,channel=0,scsi-id=0,lun=1"
        );
        assert_eq!(device("ide3", "", false), "ide-hd,bus=ide.1,unit=1");
        assert_eq!(device("ide3", "", true), "ide-hd,bus=ide.3,unit=0");
        assert_eq!(device("sata5", "", true), "ide-hd,bus=ahci0.5");
    }
}
