//! The argument list of a VM's QEMU, from its configuration.
//!
//! What a real server has and the lab leaves out: the USB tablet (it costs time under emulation), the boot menu's
//! wait, hugepages, and passthrough of devices.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::state::{Config, parse_net};

/// A drive with the file behind it.
#[derive(Debug, Clone)]
pub struct DiskFile {
    /// Configuration key: `scsi0`.
    pub key: String,
    /// Image, `None` for an empty CD drive.
    pub path: Option<PathBuf>,
    /// Image format.
    pub format: String,
    /// Whether it is a CD drive.
    pub cdrom: bool,
    /// Whether discards reach the image.
    pub discard: bool,
    /// Whether the guest is told that it is a solid state disk.
    pub ssd: bool,
    /// Serial number.
    pub serial: Option<String>,
}

/// Everything that makes a VM's command line.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its configuration.
    pub config: &'a Config,
    /// Its drives.
    pub disks: Vec<DiskFile>,
    /// Folder of the sockets.
    pub folder: &'a Path,
    /// Value of `-accel`.
    pub accel: &'a str,
    /// Value of `-cpu`.
    pub cpu: &'a str,
    /// Where the guest's port 22 is reached.
    pub ssh: Option<SocketAddr>,
}

/// The arguments, without the program.
pub fn arguments(launch: &Launch<'_>) -> Vec<String> {
    let mut list = Arguments::default();
    let config = launch.config;
    let get = |key: &str| config.get(key).map(String::as_str);
    let number = |key: &str, otherwise: u32| get(key).and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let file = |name: &str| launch.folder.join(name).to_string_lossy().into_owned();

    list.add("-name", escape(launch.name));
    list.flag("-no-user-config");
    list.flag("-nodefaults");
    list.add("-machine", machine(get("machine")));
    list.add("-accel", launch.accel);
    list.add("-cpu", launch.cpu);
    list.add(
        "-smp",
        format!(
            "{},sockets={},cores={}",
            number("sockets", 1) * number("cores", 1),
            number("sockets", 1),
            number("cores", 1)
        ),
    );
    list.add("-m", format!("{}M", memory(get("memory"))));
    list.add("-boot", "menu=off,strict=on");
    list.add("-qmp", format!("unix:{},server=on,wait=off", file("qmp.sock")));
    list.add("-vnc", format!("unix:{},password=on", file("vnc.sock")));
    list.add("-smbios", smbios(get("smbios1").unwrap_or_default()));
    if let Some(guid) = get("vmgenid").filter(|guid| guid.len() == 36) {
        list.add("-device", format!("vmgenid,guid={guid}"));
    }
    video(&mut list, get("vga"));

    list.add("-device", "virtio-serial-pci,id=virtio-serial0");
    list.add("-chardev", format!("socket,path={},server=on,wait=off,id=qga0", file("qga.sock")));
    list.add("-device", "virtserialport,chardev=qga0,name=org.qemu.guest_agent.0");
    if get("serial0") == Some("socket") {
        list.add(
            "-chardev",
            format!(
                "socket,path={},server=on,wait=off,id=serial0,logfile={}",
                file("serial0.sock"),
                file("serial.log")
            ),
        );
    } else {
        list.add("-chardev", format!("file,id=serial0,path={}", file("serial.log")));
    }
    list.add("-device", "isa-serial,chardev=serial0");
    if get("rng0").is_some() {
        list.add("-object", "rng-random,id=rng0,filename=/dev/urandom");
        list.add("-device", "virtio-rng-pci,rng=rng0");
    }
    disks(&mut list, launch);
    networks(&mut list, launch);
    list.0
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    fn add(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(name.to_owned());
        self.0.push(value.into());
    }
}

/// A comma separates options, so one in a value is doubled.
fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

fn machine(value: Option<&str>) -> String {
    match value {
        Some(name) if name.starts_with("q35") || name.starts_with("pc-q35") => "q35,usb=off".to_owned(),
        _ => "pc,usb=off".to_owned(),
    }
}

fn memory(value: Option<&str>) -> u64 {
    let text = value.unwrap_or("512");
    text.strip_prefix("current=").unwrap_or(text).parse().unwrap_or(512)
}

fn smbios(value: &str) -> String {
    let parsed = crate::schema::parse_property_string("smbios1", value).unwrap_or_default();
    let encoded = parsed.get("base64").is_some_and(|flag| flag == "1");
    let mut text = "type=1".to_owned();
    for (key, value) in parsed.iter().filter(|(key, _)| key.as_str() != "base64") {
        let plain = match STANDARD.decode(value) {
            Ok(bytes) if encoded && key != "uuid" => String::from_utf8_lossy(&bytes).into_owned(),
            _ => value.clone(),
        };
        text.push_str(&format!(",{key}={}", escape(&plain)));
    }
    text
}

fn video(list: &mut Arguments, vga: Option<&str>) {
    let value = vga.unwrap_or("std");
    let kind = value.split(',').next().unwrap_or("std");
    match kind.strip_prefix("type=").unwrap_or(kind) {
        "none" => {}
        "virtio" | "virtio-gl" => list.add("-device", "virtio-vga"),
        "cirrus" => list.add("-device", "cirrus-vga"),
        serial if serial.starts_with("serial") => {}
        _ => list.add("-device", "VGA,vgamem_mb=16"),
    }
}

/// Position of a device in the boot order, from 100 as Proxmox counts.
fn boot_index(config: &Config, key: &str) -> Option<usize> {
    let order = config.get("boot").and_then(|boot| boot.strip_prefix("order="))?;
    order.split(';').position(|device| device == key).map(|index| index + 100)
}

fn disks(list: &mut Arguments, launch: &Launch<'_>) {
    let hardware = launch.config.get("scsihw").map_or("lsi", String::as_str);
    let mut controllers: Vec<String> = Vec::new();
    for disk in &launch.disks {
        let base = disk.key.trim_end_matches(|c: char| c.is_ascii_digit());
        let number: usize = disk.key[base.len()..].parse().unwrap_or(0);
        if let Some(path) = &disk.path {
            let mut drive = format!(
                "if=none,id=drive-{},file={},format={}",
                disk.key,
                escape(&path.to_string_lossy()),
                disk.format
            );
            if disk.cdrom {
                drive.push_str(",media=cdrom,readonly=on");
            } else {
                // A lab's disks need to outlive its processes, not the machine's power.
                drive.push_str(",cache=unsafe,detect-zeroes=unmap");
                drive.push_str(if disk.discard { ",discard=unmap" } else { ",discard=ignore" });
            }
            list.add("-drive", drive);
        }
        let (controller, mut device) = device(base, number, hardware, disk.cdrom);
        if let Some((id, arguments)) = controller
            && !controllers.contains(&id)
        {
            list.add("-device", arguments);
            controllers.push(id);
        }
        if disk.path.is_some() {
            device.push_str(&format!(",drive=drive-{}", disk.key));
        }
        device.push_str(&format!(",id={}", disk.key));
        if disk.ssd && !disk.cdrom && base != "virtio" {
            device.push_str(",rotation_rate=1");
        }
        if let Some(serial) = &disk.serial {
            device.push_str(&format!(",serial={}", escape(serial)));
        }
        if let Some(index) = boot_index(launch.config, &disk.key) {
            device.push_str(&format!(",bootindex={index}"));
        }
        list.add("-device", device);
    }
}

/// The controller a drive needs (identifier and arguments) and its device.
fn device(base: &str, number: usize, hardware: &str, cdrom: bool) -> (Option<(String, String)>, String) {
    match base {
        "scsi" => {
            let kind = if cdrom { "scsi-cd" } else { "scsi-hd" };
            if hardware.starts_with("lsi") {
                let controller = ("scsihw0".to_owned(), "lsi53c895a,id=scsihw0".to_owned());
                return (Some(controller), format!("{kind},bus=scsihw0.0,scsi-id={}", number % 7));
            }
            let id = if hardware == "virtio-scsi-single" {
                format!("virtioscsi{number}")
            } else {
                "scsihw0".to_owned()
            };
            let controller = (id.clone(), format!("virtio-scsi-pci,id={id}"));
            let lun = if hardware == "virtio-scsi-single" { number } else { 0 };
            let target = if hardware == "virtio-scsi-single" { 0 } else { number };
            (Some(controller), format!("{kind},bus={id}.0,channel=0,scsi-id={target},lun={lun}"))
        }
        "virtio" => (None, "virtio-blk-pci".to_owned()),
        "sata" => {
            let kind = if cdrom { "ide-cd" } else { "ide-hd" };
            (Some(("ahci0".to_owned(), "ahci,id=ahci0".to_owned())), format!("{kind},bus=ahci0.{number}"))
        }
        _ => {
            let kind = if cdrom { "ide-cd" } else { "ide-hd" };
            (None, format!("{kind},bus=ide.{},unit={}", number / 2, number % 2))
        }
    }
}

fn networks(list: &mut Arguments, launch: &Launch<'_>) {
    let mut forward = launch.ssh;
    for (key, value) in launch.config.iter().filter(|(key, _)| is_net(key)) {
        let (model, mac, options) = parse_net(value);
        let mut netdev = format!("user,id={key},ipv6=off");
        if let Some(address) = forward.take() {
            netdev.push_str(&format!(",hostfwd=tcp:{}:{}-:22", address.ip(), address.port()));
        }
        let device = match model.as_str() {
            "virtio" => "virtio-net-pci",
            other => other,
        };
        list.add("-netdev", netdev);
        let mut device = format!("{device},netdev={key},id={key}-dev,romfile=");
        if let Some(mac) = mac {
            device.push_str(&format!(",mac={}", mac.to_lowercase()));
        }
        list.add("-device", device);
        if options.get("link_down").is_some_and(|down| down == "1") {
            tracing::debug!(key, "link_down is not simulated");
        }
    }
}

fn is_net(key: &str) -> bool {
    key.strip_prefix("net")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smbios_is_decoded_and_commas_are_doubled() {
        let serial = STANDARD.encode("ds=nocloud;s=http://h/a,b/");
        let text = smbios(&format!("uuid=205ae1a7-d182-4612-b0db-5061f633f2d3,base64=1,serial={serial}"));
        assert_eq!(
            text,
            "type=1,serial=ds=nocloud;s=http://h/a,,b/,uuid=205ae1a7-d182-4612-b0db-5061f633f2d3"
        );
    }

    #[test]
    fn disks_get_their_bus_and_place_in_the_boot_order() {
        let config = Config::from([
            ("boot".to_owned(), "order=scsi0;ide2".to_owned()),
            ("scsihw".to_owned(), "virtio-scsi-pci".to_owned()),
            ("net0".to_owned(), "virtio=BC:24:11:00:00:01,bridge=vmbr0".to_owned()),
        ]);
        let disk = |key: &str, cdrom: bool| DiskFile {
            key: key.to_owned(),
            path: Some("/x/a.qcow2".into()),
            format: "qcow2".to_owned(),
            cdrom,
            discard: true,
            ssd: false,
            serial: None,
        };
        let launch = Launch {
            name: "a",
            config: &config,
            disks: vec![disk("ide2", true), disk("scsi0", false)],
            folder: Path::new("/run"),
            accel: "tcg,thread=multi",
            cpu: "max",
            ssh: Some("127.77.0.10:22".parse().expect("an address")),
        };
        let line = arguments(&launch).join(" ");
        assert!(
            line.contains(
                "scsi-hd,bus=scsihw0.0,channel=0,scsi-id=0,lun=0,drive=drive-scsi0,id=scsi0,bootindex=100"
            ),
            "{line}"
        );
        assert!(line.contains("ide-cd,bus=ide.1,unit=0,drive=drive-ide2,id=ide2,bootindex=101"), "{line}");
        assert!(line.contains("hostfwd=tcp:127.77.0.10:22-:22"), "{line}");
    }
}
