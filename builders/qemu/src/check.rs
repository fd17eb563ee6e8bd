//! What a local QEMU can't do of a spec, found before anything is made. Pure: what was found on this machine comes in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use forge_machine::{DiskSpec, Facts, Finding, MachineSpec, NetworkSpec, SourceSpec};

use crate::args::{Chipset, Settings, is_uefi, machine_of};
use crate::drives::{BUSES, CACHES, CDROM_BUSES, SCSI_CONTROLLERS, bus_of};
use crate::firmware::{Firmware, Firmwares};
use crate::hardware::{ADAPTERS, NETWORK_OPTIONS, Vga};

/// Keys of `[vm.qemu]` that are understood, with the values they may have; the first is the default.
const EXTRA_KEYS: &[(&str, &[&str])] = &[
    ("machine", &["q35", "pc", "i440fx", "microvm"]),
    ("vga", &["std", "virtio", "qxl", "cirrus", "vmware", "none"]),
    ("cdrom-interface", &CDROM_BUSES),
    // Files, whatever their names.
    (EFI_CODE, &[]),
    (EFI_VARIABLES, &[]),
];
/// The files of a firmware that the profile brings itself, by Packer's names.
const EFI_CODE: &str = "efi-firmware-code";
const EFI_VARIABLES: &str = "efi-firmware-vars";
/// Options of a disk that have an effect here.
const DISK_OPTIONS: [&str; 3] = ["cache", "serial", "ssd"];
/// The machine takes so many sockets at most as NUMA nodes (QEMU, `MAX_NODES`).
const MOST_NODES: u32 = 128;

/// What this machine has besides QEMU.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    pub(crate) firmwares: Firmwares,
    pub(crate) tpm: Option<PathBuf>,
}

impl Host {
    /// Looks on this machine.
    pub(crate) fn look() -> Self {
        let tpm = crate::process::find_program(std::path::Path::new("swtpm"));
        Self { firmwares: Firmwares::find(), tpm }
    }

    /// The firmware that a spec asks for; `None` when it asks for BIOS. `Err` when there is none.
    pub(crate) fn firmware(&self, spec: &MachineSpec) -> Result<Option<Firmware>, String> {
        if !is_uefi(spec) {
            return Ok(None);
        }
        let machine = machine_of(spec);
        let chipset = Chipset::of(&machine).unwrap_or(Chipset::Q35);
        let keys = spec.hardware.efi_disk.as_ref().is_some_and(|disk| disk.pre_enrolled_keys);
        // Variables that Secure Boot relies on are protected by the board, and only q35 can do that.
        let board = chipset == Chipset::Q35 || (chipset == Chipset::I440fx && !keys);
        if let (true, Some(code), Some(variables)) =
            (board, spec.extra.get(EFI_CODE), spec.extra.get(EFI_VARIABLES))
        {
            return Ok(Some(Firmware::of_files(code.into(), variables.into(), keys)));
        }
        self.firmwares.choose(keys, chipset).cloned().map(Some).ok_or_else(|| {
            let with = if keys { " with enrolled keys for Secure Boot" } else { "" };
            format!("this machine has no UEFI firmware{with} for {machine}")
        })
    }
}

/// What a spec asks for and a local QEMU does not do.
pub(crate) fn findings(spec: &MachineSpec, facts: &Facts, host: &Host) -> Vec<Finding> {
    let mut found = Vec::new();
    if let SourceSpec::Clone { name, .. } = &spec.source {
        found.push(Finding::fatal(
            "source.clone",
            format!("a local QEMU has no VM `{name}` to clone"),
            "name a disk image with `source.image`, or build on a Proxmox VE target",
        ));
    }
    hardware(spec, host, &mut found);
    disks(spec, facts, &mut found);
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
    if !spec.iso_slots.is_empty() {
        found.push(Finding::warning(
            "source.iso",
            "the `slot` of a medium counts on Proxmox VE only: a local QEMU has drives of its own",
            "leave `slot` out where it does not matter",
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
    extras(&spec.extra, &mut found);
    found.extend(own_firmware(spec));
    found
}

/// What a machine lacks where its processor is translated; `host` says whether that is all that this machine offers.
pub(crate) fn emulated(spec: &MachineSpec, host: bool) -> Option<Finding> {
    let microvm = Chipset::of(&machine_of(spec)) == Some(Chipset::Microvm);
    let told = spec.kernel.as_ref().is_some_and(|kernel| kernel.is_told_clock);
    (microvm && !told && (host || spec.hardware.kvm == Some(false))).then(|| {
        Finding::warning(
            "vm.machine",
            "a microvm has no clock that a Linux kernel could start with unless KVM gives it one, and this VM is emulated",
            "use q35 (observed on QEMU 10.0 with Linux 6.1: it mostly stops after \"tsc: No reference\"); a kernel of \
             `source.kernel` starts when `source.cmdline` has `tsc_early_khz=` and this machine's TSC frequency in kHz",
        )
    })
}

fn hardware(spec: &MachineSpec, host: &Host, found: &mut Vec<Finding>) {
    let hardware = &spec.hardware;
    let machine = machine_of(spec);
    let chipset = Chipset::of(&machine);
    if chipset.is_none() && hardware.machine.is_some() {
        let help = "use q35, i440fx or microvm; versions are named like pc-q35-9.2";
        found.push(Finding::fatal("vm.machine", format!("`{machine}` is no machine of forge's"), help));
    }
    if let Err(message) = host.firmware(spec) {
        let keys = hardware.efi_disk.as_ref().is_some_and(|disk| disk.pre_enrolled_keys);
        let help = match chipset {
            Some(Chipset::Microvm) => "microvm has none: use q35, or leave `vm.bios` out",
            Some(Chipset::I440fx) if keys => "Secure Boot needs `vm.machine = \"q35\"`",
            _ => {
                "install it: package ovmf (Debian, Ubuntu), edk2-ovmf (Fedora, Rocky, Arch), qemu-ovmf-x86_64 (openSUSE)"
            }
        };
        found.push(Finding::fatal("vm.bios", message, help));
    }
    if hardware.tpm.is_some() && host.tpm.is_none() {
        let message = "`swtpm` is not installed, and it is the VM's TPM";
        found.push(Finding::fatal("vm.tpm", message, "install it (package swtpm)"));
    }
    if let Some(scsihw) = &hardware.scsihw
        && !SCSI_CONTROLLERS.iter().any(|(name, _)| name == scsihw)
    {
        let help = format!("use one of {}", SCSI_CONTROLLERS.map(|(name, _)| name).join(", "));
        found.push(Finding::fatal("vm.scsihw", format!("`{scsihw}` is no SCSI controller"), help));
    }
    if let Err((message, help)) = Vga::check(spec) {
        found.push(Finding::fatal("vm.vga", message, help));
    }
    if chipset == Some(Chipset::Microvm) && hardware.vga.is_some() {
        let message = "microvm has no graphics adapter, so this has no effect";
        found.push(Finding::warning("vm.vga", message, "leave it out, or use q35"));
    }
    if hardware.numa == Some(true) {
        let nodes = spec.sockets.unwrap_or(1).max(1);
        if chipset == Some(Chipset::Microvm) {
            found.push(Finding::fatal("vm.numa", "microvm has no NUMA", "leave it out, or use q35"));
        } else if nodes > MOST_NODES {
            let message = format!("QEMU has {MOST_NODES} NUMA nodes at most, and there are {nodes} sockets");
            found.push(Finding::fatal("vm.numa", message, "use fewer sockets with more cores each"));
        }
    }
    // They would take the VM out of forge's hands, and forge could not tell why.
    for (word, why) in [
        ("-daemonize", "QEMU has to stay forge's child"),
        ("-pidfile", "forge finds QEMU by its own"),
        ("-qmp", "a second monitor may change what forge relies on; use `-mon` if you need one"),
    ] {
        if hardware.args.iter().any(|arg| arg == word) {
            found.push(Finding::fatal("vm.args", format!("`{word}` can't be used: {why}"), "leave it out"));
        }
    }
    let nonce = forge_machine::Nonce::from_bytes([0; 8]);
    let seed_disc = spec.seed_disc.then(Vec::new);
    let attachments = forge_machine::Attachments { seed_disc, ..Default::default() };
    // As it is when all media are on this machine.
    let mut brought = spec.clone();
    brought.media_mut().for_each(|medium| *medium = forge_machine::Medium::file("medium"));
    let settings = Settings::new(&brought, &nonce, &attachments);
    if let Some(bus) = settings.drives().crowded() {
        let message = format!("{bus} has no port left for all CD-ROMs");
        let help = "move them with `vm.qemu.cdrom-interface = \"scsi\"`, or use fewer disks there";
        found.push(Finding::fatal("source.iso", message, help));
    }
    if chipset == Some(Chipset::Microvm) && spec.floppy {
        let help = "use q35 or i440fx, or bring the files on a disc (`seed.disc`)";
        found.push(Finding::fatal("seed.floppy", "microvm has no floppy drive", help));
    }
    if chipset == Some(Chipset::Microvm) && !spec.isos.is_empty() && settings.cdrom_bus == "ide" {
        let help = "vm.qemu.cdrom-interface = \"virtio\"";
        found.push(Finding::fatal("vm.qemu.cdrom-interface", "microvm has no IDE", help));
    }
}

fn disks(spec: &MachineSpec, facts: &Facts, found: &mut Vec<Finding>) {
    let source_size =
        facts.source.as_ref().and_then(|source| source.disks.first()).map_or(0, |disk| disk.size);
    let chipset = Chipset::of(&machine_of(spec)).unwrap_or(Chipset::Q35);
    let from_image = matches!(spec.source, SourceSpec::Image { .. });
    for (number, disk) in spec.disks.iter().enumerate() {
        let setting = |field: &str| format!("vm.disks[{number}].{field}");
        if let Some((message, help)) = slot_problem(disk, chipset, &spec.disks) {
            found.push(Finding::fatal(setting("slot"), message, help));
        }
        let is_image = from_image && number == 0;
        match disk.size {
            None if !is_image => found.push(Finding::fatal(
                setting("size"),
                format!("{} is a new disk, and its size is not said", disk.slot),
                "size = \"20GiB\"",
            )),
            Some(size) if is_image && size < source_size => found.push(Finding::fatal(
                setting("size"),
                format!("{size} bytes are less than the image's {source_size}"),
                "a disk is grown, never shrunk: ask for more, or leave the size out",
            )),
            _ => {}
        }
        for (option, value) in &disk.options {
            if !DISK_OPTIONS.contains(&option.as_str()) {
                let message = "it has no effect on a local QEMU";
                found.push(Finding::warning(setting(option), message, "it is for a Proxmox VE target"));
            } else if option == "cache" && !CACHES.contains(&value.as_str()) {
                let help = format!("use one of {}", CACHES.join(", "));
                found.push(Finding::fatal(setting("cache"), format!("`{value}` is no way to cache"), help));
            }
        }
    }
}

/// What is wrong with a disk's slot, and what to do.
fn slot_problem(disk: &DiskSpec, chipset: Chipset, all: &[DiskSpec]) -> Option<(String, String)> {
    let bus = bus_of(&disk.slot);
    let known = BUSES.iter().find(|(name, _)| *name == bus);
    let number = disk.slot.get(bus.len()..).and_then(|digits| digits.parse::<usize>().ok());
    let (Some((_, last)), Some(number)) = (known, number) else {
        let help = "use virtio0, scsi0, sata0, ide0 or nvme0";
        return Some((format!("`{}` is no disk slot", disk.slot), help.to_owned()));
    };
    if number > *last {
        return Some((
            format!("`{}` is beyond the bus's last slot", disk.slot),
            format!("use {bus}0-{last}"),
        ));
    }
    let twin = all.iter().any(|other| {
        chipset == Chipset::Q35
            && ((bus == "ide" && other.slot == format!("sata{number}"))
                || (bus == "sata" && other.slot == format!("ide{number}")))
    });
    if twin {
        let message =
            format!("q35 has one controller for `ide` and `sata`, and {} is there twice", disk.slot);
        return Some((message, "give them different numbers, or use `vm.machine = \"i440fx\"`".to_owned()));
    }
    if chipset == Chipset::Microvm && bus == "ide" {
        return Some(("microvm has no IDE".to_owned(), "use virtio0".to_owned()));
    }
    None
}

fn extras(extra: &BTreeMap<String, String>, found: &mut Vec<Finding>) {
    for (key, value) in extra {
        let setting = format!("vm.qemu.{key}");
        match EXTRA_KEYS.iter().find(|(name, _)| name == key) {
            None => {
                let known: Vec<&str> = EXTRA_KEYS.iter().map(|(name, _)| *name).collect();
                let help = format!("known are {}", known.join(", "));
                found.push(Finding::fatal(setting, "no such setting of a local QEMU", help));
            }
            Some((_, [])) => {
                if let Err(message) = readable(value) {
                    found.push(Finding::fatal(
                        setting,
                        message,
                        "name the file of a firmware by its whole path",
                    ));
                }
            }
            Some((_, values)) if !values.contains(&value.as_str()) => {
                let help = format!("use one of {}", values.join(", "));
                found.push(Finding::fatal(setting, format!("`{value}` is not among its values"), help));
            }
            Some(_) => {}
        }
    }
}

/// Whether a file of a firmware can be taken. It is opened here: a VM that is there already would have to be removed.
fn readable(path: &str) -> Result<(), String> {
    if !std::path::Path::new(path).is_absolute() {
        return Err(format!("`{path}` is no whole path"));
    }
    let is_file = std::fs::File::open(path).and_then(|file| file.metadata()).map(|meta| meta.is_file());
    match is_file {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{path} is no file")),
        Err(error) => Err(format!("{path} can't be opened: {error}")),
    }
}

/// What is wrong with the files of a firmware together; each by itself is looked at with the other keys.
fn own_firmware(spec: &MachineSpec) -> Option<Finding> {
    let (given, other) = match (spec.extra.contains_key(EFI_CODE), spec.extra.contains_key(EFI_VARIABLES)) {
        (false, false) => return None,
        (true, true) => (EFI_CODE, None),
        (true, false) => (EFI_CODE, Some(EFI_VARIABLES)),
        (false, true) => (EFI_VARIABLES, Some(EFI_CODE)),
    };
    let setting = format!("vm.qemu.{given}");
    match other {
        Some(other) => {
            let message = format!("a firmware has two files, and `{other}` is missing");
            Some(Finding::fatal(setting, message, format!("name `vm.qemu.{other}` too, or leave both out")))
        }
        None if !is_uefi(spec) => {
            let message = "this VM starts with a BIOS, so a UEFI firmware has no effect";
            Some(Finding::fatal(setting, message, "add `vm.bios = \"ovmf\"`"))
        }
        None => None,
    }
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
    for (option, value) in &network.options {
        let setting = format!("vm.networks[{number}].{}", option.replace('_', "-"));
        // 1 is the bridge's own size.
        if !NETWORK_OPTIONS.contains(&option.as_str()) || network.model != "virtio" || value == "1" {
            let message = "it has no effect on a local QEMU";
            found.push(Finding::warning(setting, message, "it is for a Proxmox VE target"));
        } else if !value.parse().is_ok_and(|mtu: u32| (68..=65_535).contains(&mtu)) {
            let help = "a number from 68 to 65535";
            found.push(Finding::fatal(setting, format!("`{value}` is no size of a packet"), help));
        }
    }
    let bridge = network.bridge.as_ref().map(|_| "bridge");
    for field in bridge.into_iter().chain(network.vlan.map(|_| "vlan")) {
        found.push(Finding::warning(
            format!("vm.networks[{number}].{field}"),
            "it is for a Proxmox VE target and has no effect here",
            "a bridge of this machine is `bridge` of the target; without it guests use QEMU's user network",
        ));
    }
    found
}

/// The value of a key of `[vm.qemu]`, or its default.
pub(crate) fn extra(extra: &BTreeMap<String, String>, key: &str) -> String {
    let default = EXTRA_KEYS.iter().find(|(name, _)| *name == key).and_then(|(_, values)| values.first());
    extra.get(key).cloned().unwrap_or_else(|| default.copied().unwrap_or_default().to_owned())
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
