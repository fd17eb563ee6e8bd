//! The argument list of a VM's QEMU, from its configuration.
//!
//! What a real server has and the lab leaves out: the USB tablet (it costs time under emulation), the boot menu's
//! wait, network boot, hugepages, sound, SPICE, and passthrough of devices. The processor is the lab's, whatever `cpu`
//! says: under emulation there is no host to hand on.

mod devices;
mod drives;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::firmware::Uefi;
use crate::state::Config;

pub use drives::DiskFile;

/// Everything that makes a VM's command line.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its configuration.
    pub config: &'a Config,
    /// Its drives, without the firmware's and the TPM's.
    pub disks: Vec<DiskFile>,
    /// Folder of the sockets.
    pub folder: &'a Path,
    /// Value of `-accel`.
    pub accel: &'a str,
    /// Value of `-cpu`.
    pub cpu: &'a str,
    /// Where the guest's port 22 is reached.
    pub ssh: Option<SocketAddr>,
    /// Tap devices of its adapters, by their keys; the others are on QEMU's user network.
    pub taps: BTreeMap<String, String>,
    /// UEFI firmware; BIOS without.
    pub uefi: Option<Uefi>,
    /// The control socket of its TPM.
    pub tpm: Option<PathBuf>,
    /// A saved state of memory and devices, from which it goes on.
    pub state: Option<PathBuf>,
}

impl Launch<'_> {
    /// A file in the VM's folder.
    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }
}

/// The arguments, without the program.
pub fn arguments(launch: &Launch<'_>) -> Vec<String> {
    let mut list = Arguments::default();
    let config = launch.config;
    let get = |key: &str| config.get(key).map(String::as_str);
    let number = |key: &str, otherwise: u32| get(key).and_then(|text| text.parse().ok()).unwrap_or(otherwise);

    list.add("-name", escape(launch.name));
    list.flag("-no-user-config");
    list.flag("-nodefaults");
    list.add("-machine", machine(launch));
    list.add("-accel", launch.accel);
    list.add("-cpu", launch.cpu);
    let (sockets, cores) = (number("sockets", 1), number("cores", 1));
    let processors = number("vcpus", sockets * cores).min(sockets * cores);
    let most = sockets * cores;
    list.add("-smp", format!("{processors},sockets={sockets},cores={cores},maxcpus={most}"));
    list.add("-m", format!("{}M", memory(get("memory"))));
    list.add("-boot", "menu=off,strict=on");
    list.add("-qmp", format!("unix:{},server=on,wait=off", launch.file("qmp.sock")));
    list.add("-vnc", format!("unix:{},password=on", launch.file("vnc.sock")));
    list.add("-smbios", smbios(get("smbios1").unwrap_or_default()));
    if let Some(guid) = get("vmgenid").filter(|guid| guid.len() == 36) {
        list.add("-device", format!("vmgenid,guid={guid}"));
    }
    if get("localtime") == Some("1") {
        list.add("-rtc", "base=localtime");
    }
    if get("freeze") == Some("1") {
        list.flag("-S");
    }
    if let Some(uefi) = &launch.uefi {
        uefi.arguments(|name, value| list.add(name, value));
    }
    devices::video(&mut list, get("vga"));
    devices::agent(&mut list, launch);
    devices::serial_ports(&mut list, launch);
    devices::others(&mut list, launch);
    drives::disks(&mut list, launch);
    devices::networks(&mut list, launch);
    if let Some(state) = &launch.state {
        list.add("-incoming", format!("file:{}", state.to_string_lossy()));
    }
    list.0.extend(get("args").map(shell_words).unwrap_or_default());
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
pub(super) fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

/// The words of `args` as a shell would split them.
fn shell_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, ' ' | '\t' | '\n') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), close) if open == close => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// The board's name without Proxmox's own suffix.
fn board(config: &Config) -> String {
    let value = config.get("machine").map_or("pc", String::as_str);
    let parsed = crate::schema::parse_property_string("machine", value).unwrap_or_default();
    let name = parsed.get("type").map_or("pc", String::as_str);
    name.split('+').next().unwrap_or(name).trim_end_matches(".pxe").to_owned()
}

fn is_q35(config: &Config) -> bool {
    board(config).contains("q35")
}

fn machine(launch: &Launch<'_>) -> String {
    let mut machine = format!("{},usb=off", board(launch.config));
    if launch.config.get("acpi").is_some_and(|acpi| acpi == "0") {
        machine.push_str(",acpi=off");
    }
    if launch.uefi.as_ref().is_some_and(|uefi| uefi.secure) {
        machine.push_str(",smm=on");
    }
    machine
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
    fn extra_arguments_are_split_as_a_shell_would() {
        let words = shell_words(r#"-device 'a b',x=1 -fw_cfg name="opt \"x\"" c\ d"#);
        assert_eq!(words, ["-device", "a b,x=1", "-fw_cfg", "name=opt \"x\"", "c d"]);
        assert!(shell_words("  ").is_empty());
    }

    fn line(config: &Config, disks: Vec<DiskFile>) -> String {
        let launch = Launch {
            name: "a",
            config,
            disks,
            folder: Path::new("/run"),
            accel: "tcg,thread=multi",
            cpu: "max",
            ssh: Some("127.77.0.10:22".parse().expect("an address")),
            taps: BTreeMap::new(),
            uefi: None,
            tpm: None,
            state: None,
        };
        arguments(&launch).join(" ")
    }

    fn config(pairs: &[(&str, &str)]) -> Config {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn disks_get_their_bus_and_place_in_the_boot_order() {
        let config = config(&[
            ("boot", "order=scsi0;ide2"),
            ("scsihw", "virtio-scsi-pci"),
            ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
        ]);
        let disk = |key: &str, cdrom: bool| DiskFile {
            key: key.to_owned(),
            path: Some("/x/a.qcow2".into()),
            format: "qcow2".to_owned(),
            cdrom,
            ..DiskFile::default()
        };
        let line = line(&config, vec![disk("ide2", true), disk("scsi0", false)]);
        assert!(
            line.contains(
                "scsi-hd,bus=scsihw0.0,channel=0,scsi-id=0,lun=0,drive=drive-scsi0,id=scsi0,bootindex=100"
            ),
            "{line}"
        );
        assert!(line.contains("ide-cd,bus=ide.1,unit=0,drive=drive-ide2,id=ide2,bootindex=101"), "{line}");
        assert!(line.contains("hostfwd=tcp:127.77.0.10:22-:22"), "{line}");
    }

    #[test]
    fn the_forms_of_the_schema_reach_qemu() {
        let cases = [
            (&[("machine", "pc-q35-9.2+pve1")][..], "-machine pc-q35-9.2,usb=off"),
            (&[("machine", "q35"), ("acpi", "0")], "-machine q35,usb=off,acpi=off"),
            (&[("vga", "type=cirrus")], "-device cirrus-vga"),
            (&[("vga", "std,memory=32")], "-device VGA,vgamem_mb=32"),
            (&[("serial1", "socket")], "isa-serial,chardev=serial1,index=1"),
            (&[("agent", "1,type=isa")], "isa-serial,chardev=qga0"),
            (
                &[("rng0", "source=/dev/urandom,max_bytes=1024,period=500")],
                "virtio-rng-pci,rng=rng0,max-bytes=1024,period=500",
            ),
            (&[("watchdog", "model=i6300esb,action=reset")], "-device i6300esb -watchdog-action reset"),
            (&[("net0", "e1000=BC:24:11:00:00:01,bridge=vmbr0")], "e1000,netdev=net0"),
            (&[("sockets", "2"), ("cores", "2"), ("vcpus", "3")], "-smp 3,sockets=2,cores=2,maxcpus=4"),
            (&[("args", "-device usb-ehci")], "-device usb-ehci"),
        ];
        for (pairs, expected) in cases {
            let line = line(&config(pairs), Vec::new());
            assert!(line.contains(expected), "{pairs:?}: {line}");
        }
        assert!(!line(&config(&[("vga", "serial0")]), Vec::new()).contains("VGA"));
    }
}
