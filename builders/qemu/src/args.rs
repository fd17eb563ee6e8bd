//! From a machine's spec to QEMU's argument list. Pure: asks nobody, opens nothing.
//!
//! Names of the VM's own files are relative, because QEMU runs in the VM's work directory: no path needs escaping, and no
//! socket path is too long for its address.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use forge_machine::{Attachments, Bios, Location, MachineSpec, Medium, Nonce};
use serde::{Deserialize, Serialize};

use crate::accel::Accelerator;
use crate::bridge;
use crate::check::extra;
use crate::drives::{Disk, Drives, disks_of};
use crate::firmware::Firmware;
use crate::hardware::{Adapter, Vga};

/// The disc with the seed.
pub const SEED_FILE: &str = "seed.iso";
/// The floppy.
pub const FLOPPY_FILE: &str = "floppy.img";
/// The image of the first disk, that takes the guest's writes.
pub const DISK_FILE: &str = "disk.qcow2";
/// QEMU's monitor.
pub const QMP_SOCKET: &str = "qmp.sock";
/// The guest agent's port.
pub const AGENT_SOCKET: &str = "qga.sock";
/// The display.
pub const VNC_SOCKET: &str = "vnc.sock";
/// What the guest writes to its first serial port.
pub const SERIAL_LOG: &str = "serial.log";
/// Where that port is a terminal.
pub const SERIAL_SOCKET: &str = "serial.sock";
/// The UEFI variables; where this file is, it is kept beside the image.
pub const FIRMWARE_VARIABLES_FILE: &str = "efivars.fd";
/// The TPM's socket.
pub const TPM_SOCKET: &str = "swtpm.sock";
/// Where QEMU writes its own process id.
pub const PID_FILE: &str = "qemu.pid";

/// The address of this machine in QEMU's user network (QEMU docs, `system/devices/net`).
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

const DEFAULT_CORES: u32 = 2;
const DEFAULT_MEMORY_MIB: u32 = 2048;

/// The board, as far as the argument list depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chipset {
    /// `q35`: PCI Express and SATA.
    Q35,
    /// `pc`: PCI and IDE.
    I440fx,
    /// `microvm`: no legacy devices, no graphics adapter.
    Microvm,
}

impl Chipset {
    /// The device of a kind of virtio on this board.
    pub(crate) fn virtio(self, kind: &str) -> String {
        let bus = if self == Self::Microvm { "device" } else { "pci" };
        format!("virtio-{kind}-{bus}")
    }

    /// The board of a machine's name, `pc-q35-9.2` and the like included; `None` when it is none of ours.
    pub(crate) fn of(machine: &str) -> Option<Self> {
        match machine {
            "q35" => Some(Self::Q35),
            "pc" | "i440fx" => Some(Self::I440fx),
            "microvm" => Some(Self::Microvm),
            _ if machine.contains(',') => None,
            _ if machine.starts_with("pc-q35-") => Some(Self::Q35),
            _ if machine.starts_with("pc-i440fx-") => Some(Self::I440fx),
            _ => None,
        }
    }
}

/// The kernel of the first start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kernel {
    /// The kernel, absolute or in the work directory.
    pub kernel: PathBuf,
    /// The initrd, likewise.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub cmdline: String,
}

/// All that starting a VM needs, kept in its work directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    /// The process's name: `forge-<nonce>`, by which it is told from any other process.
    pub name: String,
    /// The SMBIOS UUID, made from the nonce, so that it stays the same from start to start.
    pub uuid: String,
    /// The chipset (`q35`, `pc`, `microvm`, or one of their versions).
    pub machine: String,
    /// The graphics adapter.
    pub vga: Vga,
    /// CPU cores per socket.
    pub cores: u32,
    /// CPU sockets.
    pub sockets: u32,
    /// A CPU model other than the accelerator's best.
    pub cpu: Option<String>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Whether each socket is a NUMA node.
    pub numa: bool,
    /// Whether the hardware clock shows local time.
    pub localtime: bool,
    /// Whether the processor's virtualisation is left alone.
    pub emulated: bool,
    /// The disks, in the order in which the firmware tries them.
    pub disks: Vec<Disk>,
    /// The media in the CD-ROM drives; tried after the disks.
    pub cdroms: Vec<PathBuf>,
    /// The bus of the CD-ROM drives.
    pub cdrom_bus: String,
    /// The SCSI controller, by Proxmox's names.
    pub scsi_controller: String,
    /// The kernel that the next start takes; taken away by that start.
    pub kernel: Option<Kernel>,
    /// UEFI; `None` is BIOS.
    pub firmware: Option<Firmware>,
    /// Whether there is a TPM 2.0.
    pub tpm: bool,
    /// Whether the guest is given random numbers.
    pub rng: bool,
    /// The network adapters.
    pub adapters: Vec<Adapter>,
    /// The bridge of this machine that they are on; `None` is QEMU's user network.
    #[serde(default)]
    pub bridge: Option<String>,
    /// Whether the guest agent's port is there.
    pub agent: bool,
    /// The SMBIOS system serial.
    pub smbios_serial: Option<String>,
    /// Whether a disc with the seed is in its drive.
    #[serde(default)]
    pub seed_disc: bool,
    /// Whether there is a floppy in its drive.
    #[serde(default)]
    pub floppy: bool,
    /// Arguments of the profile's own, after all others.
    pub args: Vec<String>,
}

impl Settings {
    /// The settings of a spec, with defaults where it says nothing. Kernel and firmware are files that have to be looked
    /// for, and are filled in by who has found them.
    #[must_use]
    pub fn new(spec: &MachineSpec, nonce: &Nonce, attachments: &Attachments) -> Self {
        let hardware = &spec.hardware;
        Self {
            name: nonce.vm_name(),
            uuid: uuid_of(nonce),
            machine: machine_of(spec),
            vga: Vga::of(spec),
            cores: spec.cores.unwrap_or(DEFAULT_CORES).max(1),
            sockets: spec.sockets.unwrap_or(1).max(1),
            cpu: spec.cpu.clone(),
            memory_mib: spec.memory_mib.unwrap_or(DEFAULT_MEMORY_MIB),
            numa: hardware.numa.unwrap_or(false),
            localtime: hardware.localtime.unwrap_or(false),
            emulated: hardware.kvm == Some(false),
            disks: disks_of(spec),
            cdroms: spec.isos.iter().filter_map(file_of).collect(),
            cdrom_bus: extra(&spec.extra, "cdrom-interface"),
            scsi_controller: hardware.scsihw.clone().unwrap_or_else(|| "virtio-scsi-pci".to_owned()),
            kernel: None,
            firmware: None,
            tpm: hardware.tpm.is_some(),
            rng: hardware.rng.unwrap_or(true),
            adapters: Adapter::all(spec),
            bridge: None,
            agent: spec.agent.unwrap_or(true),
            smbios_serial: attachments.smbios_serial.clone(),
            seed_disc: attachments.seed_disc.is_some(),
            floppy: attachments.floppy.is_some(),
            args: hardware.args.clone(),
        }
    }

    /// Puts the adapters on a bridge of this machine, each with a MAC address that no other VM has.
    pub(crate) fn put_on(&mut self, bridge: &str, nonce: &Nonce) {
        self.bridge = Some(bridge.to_owned());
        for (number, adapter) in self.adapters.iter_mut().enumerate() {
            adapter.mac.get_or_insert_with(|| bridge::mac(nonce.as_str(), number));
        }
    }

    /// The board; q35 where its name means none.
    pub(crate) fn chipset(&self) -> Chipset {
        Chipset::of(&self.machine).unwrap_or(Chipset::Q35)
    }

    /// What hangs on its buses.
    pub(crate) fn drives(&self) -> Drives<'_> {
        Drives {
            chipset: self.chipset(),
            disks: &self.disks,
            cdroms: &self.cdroms,
            cdrom_bus: &self.cdrom_bus,
            scsi_controller: &self.scsi_controller,
            seed_disc: self.seed_disc,
        }
    }

    /// QEMU's arguments.
    ///
    /// `ssh_port` of 127.0.0.1 is forwarded to the guest's port 22, where the guest is on QEMU's user network.
    #[must_use]
    pub fn arguments(&self, accelerator: Accelerator, ssh_port: u16) -> Vec<String> {
        let mut line = Line::default();
        line.option("-name", &[&self.name]);
        line.option("-uuid", &[&self.uuid]);
        line.flag("-no-user-config").flag("-nodefaults");
        self.board(&mut line);
        let accelerator = if self.emulated { Accelerator::Tcg } else { accelerator };
        let [accel, accel_value, cpu, cpu_value] = accelerator.arguments();
        line.option(accel, &[accel_value.to_owned()]);
        line.option(cpu, &[self.cpu.as_deref().map_or_else(|| cpu_value.to_owned(), crate::cpu::argument)]);
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
        if self.numa {
            crate::hardware::numa(&mut line, self.sockets, self.cores, self.memory_mib);
        }
        if self.localtime {
            line.option("-rtc", &["base=localtime"]);
        }
        self.drives().arguments(&mut line);
        if self.floppy {
            // The firmware tries it after all that has a place in its order.
            let file = format!("file={FLOPPY_FILE}");
            line.option("-drive", &[file.as_str(), "format=raw", "if=floppy", "readonly=on"]);
        }
        self.kernel(&mut line);
        self.network(&mut line, ssh_port);
        if self.chipset() != Chipset::Microvm {
            self.vga.arguments(&mut line);
        }
        // By default QEMU waits 10 ms after each key that goes down and each that comes up (its manual, `-vnc`): a line of 200
        // characters then takes 2.4 s, else 0.6 s. How fast is too fast for the guest, the console sees on its screen.
        line.option("-vnc", &[format!("unix:{VNC_SOCKET}").as_str(), "key-delay-ms=1"]);
        let (path, log) = (format!("path={SERIAL_SOCKET}"), format!("logfile={SERIAL_LOG}"));
        let serial = ["socket", "id=serial0", &path, "server=on", "wait=off", &log, "logappend=on"];
        line.option("-chardev", &serial);
        line.option("-serial", &["chardev:serial0"]);
        if self.rng {
            line.option("-object", &["rng-random", "id=rng0", "filename=/dev/urandom"]);
            line.option("-device", &[self.chipset().virtio("rng").as_str(), "rng=rng0"]);
        }
        if self.agent {
            let path = format!("path={AGENT_SOCKET}");
            line.option("-chardev", &["socket", "id=qga0", &path, "server=on", "wait=off"]);
            line.option("-device", &[self.chipset().virtio("serial")]);
            line.option("-device", &["virtserialport", "chardev=qga0", "name=org.qemu.guest_agent.0"]);
        }
        if self.tpm {
            line.option("-chardev", &["socket", "id=tpm0", &format!("path={TPM_SOCKET}")]);
            line.option("-tpmdev", &["emulator", "id=tpm0", "chardev=tpm0"]);
            line.option("-device", &["tpm-tis", "tpmdev=tpm0"]);
        }
        if let Some(serial) = &self.smbios_serial {
            line.option("-smbios", &["type=1".to_owned(), format!("serial={}", escape(serial))]);
        }
        line.option("-qmp", &[format!("unix:{QMP_SOCKET}"), "server=on".to_owned(), "wait=off".to_owned()]);
        line.option("-pidfile", &[PID_FILE]);
        line.0.extend(self.args.iter().cloned());
        line.0
    }

    /// The board and its firmware.
    fn board(&self, line: &mut Line) {
        let secure = self.firmware.as_ref().is_some_and(|firmware| firmware.secure);
        let options: &[&str] = match self.chipset() {
            Chipset::Q35 if secure => &["smm=on"],
            // PCI Express for what is no virtio device; its firmware boots from virtio-mmio alone (observed on SeaBIOS
            // 1.16.3), and such devices of today's kind are what guests have drivers for.
            Chipset::Microvm => &["pcie=on", "acpi=on", "rtc=on"],
            _ => &[],
        };
        line.option("-machine", &[&[self.machine.as_str()], options].concat());
        if self.chipset() == Chipset::Microvm {
            line.option("-global", &["virtio-mmio.force-legacy=false"]);
        }
        let Some(firmware) = &self.firmware else { return };
        if secure {
            line.option("-global", &["driver=cfi.pflash01", "property=secure", "value=on"]);
            // Waking up from sleep would leave the protected mode behind (edk2, OvmfPkg/README, "SMM support").
            line.option("-global", &["ICH9-LPC.disable_s3=1"]);
        }
        let code = format!("file={}", escape(&firmware.code.to_string_lossy()));
        let format = format!("format={}", firmware.code_format);
        line.option("-drive", &["if=pflash", "unit=0", &format, "readonly=on", &code]);
        let variables = format!("file={FIRMWARE_VARIABLES_FILE}");
        line.option("-drive", &["if=pflash", "unit=1", "format=raw", &variables]);
    }

    /// A kernel without a boot loader would start again at the guest's reboot: QEMU ends there instead, and the next
    /// start is from the disks.
    fn kernel(&self, line: &mut Line) {
        let Some(kernel) = &self.kernel else { return };
        line.0.extend(["-kernel".to_owned(), kernel.kernel.to_string_lossy().into_owned()]);
        if let Some(initrd) = &kernel.initrd {
            line.0.extend(["-initrd".to_owned(), initrd.to_string_lossy().into_owned()]);
        }
        line.0.extend(["-append".to_owned(), kernel.cmdline.clone()]);
        line.option("-action", &["reboot=shutdown"]);
    }

    fn network(&self, line: &mut Line, ssh_port: u16) {
        for (number, adapter) in self.adapters.iter().enumerate() {
            let id = format!("id=net{number}");
            let backend = match &self.bridge {
                Some(bridge) => vec!["bridge".to_owned(), id, format!("br={}", escape(bridge))],
                None if number > 0 => vec!["user".to_owned(), id],
                None => vec!["user".to_owned(), id, format!("hostfwd=tcp:127.0.0.1:{ssh_port}-:22")],
            };
            line.option("-netdev", &backend);
            line.option("-device", &adapter.device(self.chipset(), number));
        }
    }
}

/// How many CPUs a spec asks for, with the default where it says nothing.
pub(crate) fn processors_of(spec: &MachineSpec) -> u32 {
    let (cores, sockets) = (spec.cores.unwrap_or(DEFAULT_CORES), spec.sockets.unwrap_or(1));
    cores.max(1).saturating_mul(sockets.max(1))
}

/// The machine's name: that of the profile's part for QEMU, or of the profile, or q35.
pub(crate) fn machine_of(spec: &MachineSpec) -> String {
    let general = spec.hardware.machine.clone().filter(|_| !spec.extra.contains_key("machine"));
    let named = general.unwrap_or_else(|| extra(&spec.extra, "machine"));
    if named == "i440fx" { "pc".to_owned() } else { named }
}

/// Whether a spec asks for UEFI.
pub(crate) fn is_uefi(spec: &MachineSpec) -> bool {
    spec.hardware.bios == Some(Bios::Ovmf)
}

/// The file of a medium that is on this machine.
pub(crate) fn file_of(medium: &Medium) -> Option<PathBuf> {
    match &medium.location {
        Location::File(path) => Some(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        Location::Url(_) | Location::Volume(_) => None,
    }
}

/// The nonce as the last 64 bits of a random-type UUID (RFC 9562, version 4).
fn uuid_of(nonce: &Nonce) -> String {
    let digits = nonce.as_str();
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("666f7267-65{}-4{}-8{}-{}{}", part(0, 2), part(2, 5), part(5, 8), part(8, 16), "0000")
}

/// Doubles commas, as QEMU's option syntax wants them in values.
pub(crate) fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// An argument list in the making.
#[derive(Default)]
pub(crate) struct Line(Vec<String>);

impl Line {
    pub(crate) fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.to_owned());
        self
    }

    pub(crate) fn option<S: AsRef<str>>(&mut self, name: &str, parts: &[S]) {
        self.0.push(name.to_owned());
        self.0.push(parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(","));
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
