//! From a machine's spec to QEMU's argument list. Pure: asks nobody, opens nothing.
//!
//! All file names are relative, because QEMU runs in the VM's work directory: no path needs escaping, and no socket
//! path is too long for its address.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use forge_machine::{
    Attachments, Bios, Checksum, Facts, Finding, MachineSpec, NetworkSpec, Nonce, SourceSpec,
};
use serde::{Deserialize, Serialize};

use crate::accel::Accelerator;

/// The disc with the seed.
pub const SEED_FILE: &str = "seed.iso";
/// The overlay that takes the guest's writes.
pub const DISK_FILE: &str = "disk.qcow2";
/// QEMU's monitor.
pub const QMP_SOCKET: &str = "qmp.sock";
/// The guest agent's port.
pub const AGENT_SOCKET: &str = "qga.sock";
/// The display.
pub const VNC_SOCKET: &str = "vnc.sock";
/// What the guest writes to its first serial port.
pub const SERIAL_LOG: &str = "serial.log";
/// The UEFI variables; where this file is, it is kept beside the image.
pub const FIRMWARE_VARIABLES_FILE: &str = "efivars.fd";
/// Where QEMU writes its own process id.
pub const PID_FILE: &str = "qemu.pid";

/// The address of this machine in QEMU's user network (QEMU docs, `system/devices/net`).
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

const DEFAULT_CORES: u32 = 2;
const DEFAULT_MEMORY_MIB: u32 = 2048;
const DEFAULT_SLOT: &str = "virtio0";
/// Keys of `[vm.qemu]` that are understood, with the values they may have.
const EXTRA_KEYS: &[(&str, &[&str])] =
    &[("machine", &["q35", "pc"]), ("vga", &["std", "virtio", "qxl", "cirrus"])];
/// Adapter models by Proxmox's names, and QEMU's devices for them.
const ADAPTERS: &[(&str, &str)] = &[
    ("virtio", "virtio-net-pci"),
    ("e1000", "e1000"),
    ("e1000e", "e1000e"),
    ("rtl8139", "rtl8139"),
    ("vmxnet3", "vmxnet3"),
];

/// All that starting a VM needs, kept in its work directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    /// The process's name: `forge-<nonce>`, by which it is told from any other process.
    pub name: String,
    /// The SMBIOS UUID, made from the nonce, so that it stays the same from start to start.
    pub uuid: String,
    /// The chipset (`q35`, `pc`).
    pub machine: String,
    /// The graphics adapter.
    pub vga: String,
    /// CPU cores per socket.
    pub cores: u32,
    /// CPU sockets.
    pub sockets: u32,
    /// A CPU model other than the accelerator's best.
    pub cpu: Option<String>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The slot of the disk, by Proxmox's names.
    pub slot: String,
    /// Whether discards free space.
    pub discard: bool,
    /// The adapters' models, by Proxmox's names.
    pub adapters: Vec<String>,
    /// Whether the guest agent's port is there.
    pub agent: bool,
    /// The SMBIOS system serial.
    pub smbios_serial: Option<String>,
    /// Whether a disc with the seed is in its drive.
    #[serde(default)]
    pub seed_disc: bool,
}

impl Settings {
    /// The settings of a spec, with defaults where it says nothing.
    #[must_use]
    pub fn new(spec: &MachineSpec, nonce: &Nonce, attachments: &Attachments) -> Self {
        let disk = spec.disks.first();
        let adapters: Vec<String> = spec.networks.iter().map(|network| network.model.clone()).collect();
        Self {
            name: nonce.vm_name(),
            uuid: uuid_of(nonce),
            machine: extra(&spec.extra, "machine"),
            vga: extra(&spec.extra, "vga"),
            cores: spec.cores.unwrap_or(DEFAULT_CORES).max(1),
            sockets: spec.sockets.unwrap_or(1).max(1),
            cpu: spec.cpu.clone(),
            memory_mib: spec.memory_mib.unwrap_or(DEFAULT_MEMORY_MIB),
            slot: disk.map_or_else(|| DEFAULT_SLOT.to_owned(), |disk| disk.slot.clone()),
            discard: disk.and_then(|disk| disk.discard).unwrap_or(true),
            adapters: if adapters.is_empty() { vec!["virtio".to_owned()] } else { adapters },
            agent: spec.agent.unwrap_or(true),
            smbios_serial: attachments.smbios_serial.clone(),
            seed_disc: attachments.seed_disc.is_some(),
        }
    }

    /// QEMU's arguments.
    ///
    /// `ssh_port` of 127.0.0.1 is forwarded to the guest's port 22.
    #[must_use]
    pub fn arguments(&self, accelerator: Accelerator, ssh_port: u16) -> Vec<String> {
        let mut line = Line::default();
        line.option("-name", &[&self.name]);
        line.option("-uuid", &[&self.uuid]);
        line.flag("-no-user-config").flag("-nodefaults");
        line.option("-machine", &[&self.machine]);
        let [accel, accel_value, cpu, cpu_value] = accelerator.arguments();
        line.option(accel, &[accel_value.to_owned()]);
        line.option(cpu, &[self.cpu.clone().unwrap_or_else(|| cpu_value.to_owned())]);
        let processors = self.cores.saturating_mul(self.sockets);
        line.option(
            "-smp",
            &[
                processors.to_string(),
                format!("sockets={}", self.sockets),
                format!("cores={}", self.cores),
                "threads=1".to_owned(),
            ],
        );
        line.option("-m", &[format!("{}M", self.memory_mib)]);
        self.disk(&mut line);
        self.network(&mut line, ssh_port);
        line.option("-vga", &[&self.vga]);
        line.option("-vnc", &[format!("unix:{VNC_SOCKET}")]);
        line.option("-chardev", &["file", "id=serial0", &format!("path={SERIAL_LOG}"), "append=on"]);
        line.option("-serial", &["chardev:serial0"]);
        line.option("-object", &["rng-random", "id=rng0", "filename=/dev/urandom"]);
        line.option("-device", &["virtio-rng-pci", "rng=rng0"]);
        if self.agent {
            let path = format!("path={AGENT_SOCKET}");
            line.option("-chardev", &["socket", "id=qga0", &path, "server=on", "wait=off"]);
            line.option("-device", &["virtio-serial-pci"]);
            line.option("-device", &["virtserialport", "chardev=qga0", "name=org.qemu.guest_agent.0"]);
        }
        if self.seed_disc {
            self.seed_drive(&mut line);
        }
        if let Some(serial) = &self.smbios_serial {
            line.option("-smbios", &["type=1".to_owned(), format!("serial={}", escape(serial))]);
        }
        line.option("-qmp", &[format!("unix:{QMP_SOCKET}"), "server=on".to_owned(), "wait=off".to_owned()]);
        line.option("-pidfile", &[PID_FILE]);
        line.0
    }

    /// The seed disc goes on the main disk's bus: that is the one bus whose driver a guest has for certain. Debian's
    /// cloud kernel, for one, has no driver for the AHCI controller of q35 (observed on 6.1), so a CD there is not seen.
    /// Readers of seeds look for the label, not for the kind of drive.
    fn seed_drive(&self, line: &mut Line) {
        let file = format!("file={SEED_FILE}");
        let drive = ["format=raw", "if=none", "id=seed0", "readonly=on"];
        line.option("-drive", &[&[file.as_str()], drive.as_slice()].concat());
        let device: &[&str] = match self.bus() {
            "scsi" => &["scsi-cd", "drive=seed0", "bus=scsi0.0"],
            "sata" | "ide" => &["ide-cd", "drive=seed0"],
            _ => &["virtio-blk-pci", "drive=seed0"],
        };
        line.option("-device", device);
    }

    /// The main disk's bus: its slot without the number.
    fn bus(&self) -> &str {
        self.slot.trim_end_matches(|c: char| c.is_ascii_digit())
    }

    fn disk(&self, line: &mut Line) {
        let discard = if self.discard { "discard=unmap" } else { "discard=ignore" };
        // A crash of the host loses the build anyway, so the guest's flushes need not reach the disk; a crash of
        // forge or QEMU loses nothing, because the page cache stays.
        line.option(
            "-drive",
            &[
                &format!("file={DISK_FILE}"),
                "format=qcow2",
                "if=none",
                "id=disk0",
                "cache=unsafe",
                discard,
                "detect-zeroes=unmap",
            ],
        );
        match self.bus() {
            "scsi" => {
                line.option("-device", &["virtio-scsi-pci", "id=scsi0"]);
                line.option("-device", &["scsi-hd", "drive=disk0", "bus=scsi0.0", "bootindex=1"]);
            }
            "sata" | "ide" => line.option("-device", &["ide-hd", "drive=disk0", "bootindex=1"]),
            _ => line.option("-device", &["virtio-blk-pci", "drive=disk0", "bootindex=1"]),
        }
    }

    fn network(&self, line: &mut Line, ssh_port: u16) {
        for (number, model) in self.adapters.iter().enumerate() {
            let mut backend = vec!["user".to_owned(), format!("id=net{number}")];
            if number == 0 {
                backend.push(format!("hostfwd=tcp:127.0.0.1:{ssh_port}-:22"));
            }
            line.option("-netdev", &backend);
            let device =
                ADAPTERS.iter().find(|(name, _)| name == model).map_or("virtio-net-pci", |found| found.1);
            line.option("-device", &[device.to_owned(), format!("netdev=net{number}")]);
        }
    }
}

/// What a spec asks for and a local QEMU does not do.
#[must_use]
pub fn findings(spec: &MachineSpec, facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if let SourceSpec::Clone { name, .. } = &spec.source {
        found.push(Finding::fatal(
            "source.clone",
            format!("a local QEMU has no VM `{name}` to clone"),
            "name a disk image with `source.image`, or build on a Proxmox VE target",
        ));
    }
    let hardware = &spec.hardware;
    let (checked, copied) = match &spec.source {
        SourceSpec::Image { image, copy } => (image.checksum != Checksum::None, *copy),
        SourceSpec::Clone { .. } | SourceSpec::New => (false, false),
    };
    let missing = [
        ("source", spec.is_install(), "does not install from media"),
        ("source.iso", !spec.isos.is_empty(), "attaches no media"),
        ("source.kernel", spec.kernel.is_some(), "starts no kernel without a boot loader"),
        ("source.image.checksum", checked, "does not check an image's checksum"),
        ("source.image.copy", copied, "works on an overlay of the image, and on no copy,"),
        ("vm.bios", hardware.bios == Some(Bios::Ovmf), "has no UEFI"),
        ("vm.tpm", hardware.tpm.is_some(), "has no TPM"),
        ("vm.machine", hardware.machine.as_deref().is_some_and(|name| name != "q35"), "has q35 alone"),
        ("vm.args", !hardware.args.is_empty(), "takes no arguments of QEMU's"),
    ];
    for (setting, _, what) in missing.iter().filter(|(_, asked, _)| *asked) {
        let message = format!("this version of forge {what} on a local QEMU");
        found.push(Finding::fatal(*setting, message, "leave it out"));
    }
    let source_size =
        facts.source.as_ref().and_then(|source| source.disks.first()).map_or(0, |disk| disk.size);
    for (number, disk) in spec.disks.iter().enumerate() {
        let setting = |field: &str| format!("vm.disks[{number}].{field}");
        let bus = disk.slot.trim_end_matches(|c: char| c.is_ascii_digit());
        if !matches!(bus, "scsi" | "virtio" | "sata" | "ide") || bus.len() == disk.slot.len() {
            found.push(Finding::fatal(
                setting("slot"),
                format!("`{}` is no disk slot", disk.slot),
                "use scsi0, virtio0, sata0 or ide0",
            ));
        }
        if number > 0 {
            found.push(Finding::fatal(
                format!("vm.disks[{number}]"),
                "a local QEMU build has one disk, that of its image",
                "remove the other disks, or build on a Proxmox VE target",
            ));
        }
        if let Some(size) = disk.size.filter(|size| *size < source_size) {
            found.push(Finding::fatal(
                setting("size"),
                format!("{size} bytes are less than the image's {source_size}"),
                "a disk is grown, never shrunk: ask for more, or leave the size out",
            ));
        }
    }
    for (number, network) in spec.networks.iter().enumerate() {
        found.extend(network_findings(number, network));
    }
    if spec.cloud_init.is_some() {
        found.push(Finding::fatal(
            "vm.cloud-init",
            "a local QEMU has no cloud-init drive of its own",
            "remove it; the seed reaches the guest by the SMBIOS serial",
        ));
    }
    if spec.memory_mib.is_some_and(|memory| memory < 32) {
        found.push(Finding::fatal("vm.memory", "less than 32 MiB boots nothing", "give it more memory"));
    }
    // Letters, digits and signs only: the value goes into an argument whose commas separate options.
    if spec.cpu.as_ref().is_some_and(|cpu| cpu.is_empty() || cpu.starts_with(['-', ',']) || cpu.contains(' '))
    {
        found.push(Finding::fatal("vm.cpu", "this is no CPU model", "see `qemu-system-x86_64 -cpu help`"));
    }
    for (key, value) in &spec.extra {
        let setting = format!("vm.qemu.{key}");
        match EXTRA_KEYS.iter().find(|(name, _)| name == key) {
            None => {
                let known: Vec<&str> = EXTRA_KEYS.iter().map(|(name, _)| *name).collect();
                let help = format!("known are {}", known.join(", "));
                found.push(Finding::fatal(setting, "no such setting of a local QEMU", help));
            }
            Some((_, values)) if !values.contains(&value.as_str()) => {
                let help = format!("use one of {}", values.join(", "));
                found.push(Finding::fatal(setting, format!("`{value}` is not among its values"), help));
            }
            Some(_) => {}
        }
    }
    found
}

fn network_findings(number: usize, network: &NetworkSpec) -> Vec<Finding> {
    let mut found = Vec::new();
    if !ADAPTERS.iter().any(|(name, _)| *name == network.model) {
        let known: Vec<&str> = ADAPTERS.iter().map(|(name, _)| *name).collect();
        found.push(Finding::fatal(
            format!("vm.networks[{number}].model"),
            format!("`{}` is no adapter model", network.model),
            format!("use one of {}", known.join(", ")),
        ));
    }
    let bridge = network.bridge.as_ref().map(|_| "bridge");
    for field in bridge.into_iter().chain(network.vlan.map(|_| "vlan")) {
        found.push(Finding::warning(
            format!("vm.networks[{number}].{field}"),
            "a local QEMU build uses QEMU's user network, so this has no effect",
            "remove it, or build on a Proxmox VE target",
        ));
    }
    found
}

fn extra(extra: &BTreeMap<String, String>, key: &str) -> String {
    let default = EXTRA_KEYS.iter().find(|(name, _)| *name == key).and_then(|(_, values)| values.first());
    extra.get(key).cloned().unwrap_or_else(|| default.copied().unwrap_or_default().to_owned())
}

/// The nonce as the last 64 bits of a random-type UUID (RFC 9562, version 4).
fn uuid_of(nonce: &Nonce) -> String {
    let digits = nonce.as_str();
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("666f7267-65{}-4{}-8{}-{}{}", part(0, 2), part(2, 5), part(5, 8), part(8, 16), "0000")
}

/// Doubles commas, as QEMU's option syntax wants them in values.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// An argument list in the making.
#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.to_owned());
        self
    }

    fn option<S: AsRef<str>>(&mut self, name: &str, parts: &[S]) {
        self.0.push(name.to_owned());
        self.0.push(parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(","));
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
