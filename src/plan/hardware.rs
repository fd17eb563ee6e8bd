//! `[vm]` for a target that has no keys of Proxmox VE: the hardware in the port's own words, and what of the profile has
//! no effect there.

use forge_machine::{Bios, EfiDisk, Hardware, TpmState};

use super::make::located;
use crate::config::Finding;
use crate::config::profile::{CloudInit, Profile, Vm};

/// Keys of Proxmox that [`hardware`] reads.
const READ: [&str; 9] = ["args", "bios", "kvm", "localtime", "machine", "numa", "rng0", "scsihw", "vga"];

/// The hardware in the port's own words; Proxmox VE reads it from its own keys.
pub(super) fn hardware(vm: &Vm) -> Hardware {
    let key = |name: &str| vm.proxmox.get(name).map(String::as_str);
    let flag = |name: &str| key(name).map(|value| value != "0");
    let state = |slot: &str| vm.state_disks.iter().find(|disk| disk.slot == slot);
    let efi_disk = state("efidisk0").map(|disk| EfiDisk {
        pre_enrolled_keys: disk.options.get("pre-enrolled-keys").is_some_and(|on| on == "1"),
        storage: disk.storage.clone(),
    });
    Hardware {
        bios: key("bios").and_then(Bios::from_name).or(efi_disk.as_ref().map(|_| Bios::Ovmf)),
        machine: key("machine").map(str::to_owned),
        efi_disk,
        tpm: state("tpmstate0").map(|disk| TpmState { storage: disk.storage.clone() }),
        rng: vm
            .origins
            .contains_key("vm.proxmox.rng0")
            .then(|| key("rng0").is_some())
            .or_else(|| flag("rng0")),
        scsihw: key("scsihw").map(str::to_owned),
        vga: key("vga").map(str::to_owned),
        numa: flag("numa"),
        localtime: flag("localtime"),
        kvm: flag("kvm"),
        args: key("args").and_then(shlex::split).unwrap_or_default(),
    }
}

/// What a profile says of its VM that only Proxmox VE can do. Its table `[vm.proxmox]` is for Proxmox alone by its name.
pub(super) fn without_effect(profile: &Profile) -> Vec<Finding> {
    let vm = &profile.vm;
    let mut idle: Vec<String> = Vec::new();
    for (key, origin) in &vm.origins {
        let key = key.trim_start_matches("vm.proxmox.");
        let value = vm.proxmox.get(key).map(String::as_str);
        // No balloon, no start with the host, and a serial port that can be read: so it is anyway.
        let so_anyway =
            matches!((key, value), ("balloon" | "onboot", Some("0")) | ("serial0", Some("socket")));
        if !READ.contains(&key) && !so_anyway && !idle.contains(origin) {
            idle.push(origin.clone());
        }
    }
    // Random numbers come from this machine's urandom, as many as the guest wants.
    if vm.proxmox.get("rng0").is_some_and(|rng| rng != "source=/dev/urandom" && rng != "/dev/urandom") {
        idle.push("vm.rng".to_owned());
    }
    let places = [("vm.node", &vm.node), ("vm.pool", &vm.pool), ("vm.storage", &vm.storage)];
    idle.extend(places.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| (*name).to_owned()));
    idle.extend(vm.vmid.map(|_| "vm.vmid".to_owned()));
    let disks = vm.disks.iter().enumerate().filter(|(_, disk)| disk.storage.is_some());
    idle.extend(disks.map(|(index, _)| format!("vm.disks[{index}].storage")));
    for disk in &vm.state_disks {
        let (name, option, fixed) = match disk.slot.as_str() {
            "efidisk0" => ("vm.efi-disk", ("efitype", "type"), "4m"),
            _ => ("vm.tpm", ("version", "version"), "v2.0"),
        };
        idle.extend(disk.storage.as_ref().map(|_| format!("{name}.storage")));
        let other = disk.options.get(option.0).is_some_and(|value| value != fixed);
        idle.extend(other.then(|| format!("{name}.{}", option.1)));
    }
    if let CloudInit::Add { storage: Some(_), .. } = &vm.cloud_init {
        idle.push("vm.cloud-init.storage".to_owned());
    }
    let message = "it has no effect on a local QEMU";
    let told =
        |name: &String| located(profile, name, message).help("it is for a Proxmox VE target").warning();
    idle.iter().map(told).collect()
}
