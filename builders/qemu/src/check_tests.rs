//! What is found before anything is made, as tables.

use forge_machine::facts::SourceDisk;
use forge_machine::{
    Bios, BootFile, Checksum, EfiDisk, Hardware, KernelSpec, Medium, SourceFacts, TpmState, VmRef,
};

use super::*;

fn spec() -> MachineSpec {
    MachineSpec::new(SourceSpec::image("/images/debian.qcow2"), "localhost")
}

fn network(model: &str) -> NetworkSpec {
    NetworkSpec { model: model.into(), bridge: None, vlan: None, ..NetworkSpec::default() }
}

fn disk(slot: &str) -> DiskSpec {
    DiskSpec { slot: slot.into(), size: None, discard: None, ..DiskSpec::default() }
}

fn sized(slot: &str) -> DiskSpec {
    DiskSpec { size: Some(4 << 30), ..disk(slot) }
}

fn with_options(options: &[(&str, &str)]) -> MachineSpec {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    MachineSpec { disks: vec![DiskSpec { options, ..disk("scsi0") }], ..spec() }
}

fn with_network(options: &[(&str, &str)], model: &str) -> MachineSpec {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    MachineSpec { networks: vec![NetworkSpec { options, ..network(model) }], ..spec() }
}

fn hardware(hardware: Hardware) -> MachineSpec {
    MachineSpec { hardware, ..spec() }
}

/// A board with disks, media on its SATA ports, and the disc with the seed or none.
fn crowd(machine: &str, slots: &[&str], isos: usize, seed_disc: bool) -> MachineSpec {
    MachineSpec {
        disks: slots.iter().map(|slot| sized(slot)).collect(),
        isos: vec![Medium::file("/a.iso"); isos],
        seed_disc,
        ..hardware(Hardware { machine: Some(machine.into()), ..Hardware::default() })
    }
}

/// A medium that is not here yet.
fn url() -> Medium {
    Medium { location: forge_machine::Location::Url("https://x/a.iso".into()), checksum: Checksum::None }
}

fn sum() -> Checksum {
    Checksum::parse(&"ab".repeat(32)).expect("a checksum")
}

/// A machine with nothing but QEMU.
fn host() -> Host {
    Host::default()
}

fn facts() -> Facts {
    Facts {
        product: "QEMU".into(),
        notes: Vec::new(),
        nodes: vec!["localhost".into()],
        placed: None,
        source: Some(SourceFacts {
            vm: VmRef::new("/images/debian.qcow2", "localhost"),
            name: "debian.qcow2".into(),
            template: false,
            running: false,
            disks: vec![SourceDisk { slot: "virtio0".into(), storage: String::new(), size: 4 << 30 }],
            cloud_init: None,
            agent: true,
            networks: Vec::new(),
            memory_mib: 0,
            cores: 0,
        }),
        storages: Vec::new(),
        bridges: None,
        endpoint: None,
        no_seed_disc: None,
    }
}

#[test]
fn what_a_local_qemu_can_not_do_is_found_before_anything_is_made() {
    let clone = SourceSpec::Clone {
        vm: VmRef::new("100", "pve1"),
        name: "boot-vm".into(),
        full: true,
        storage: None,
    };
    let cases: &[(MachineSpec, &[(&str, bool)])] = &[
        (spec(), &[]),
        (MachineSpec { source: clone, ..spec() }, &[("source.clone", true)]),
        (MachineSpec { disks: vec![disk("nvme0")], ..spec() }, &[]),
        (MachineSpec { disks: vec![disk("floppy0")], ..spec() }, &[("vm.disks[0].slot", true)]),
        (MachineSpec { disks: vec![disk("sata6")], ..spec() }, &[("vm.disks[0].slot", true)]),
        (MachineSpec { disks: vec![disk("scsi")], ..spec() }, &[("vm.disks[0].slot", true)]),
        (MachineSpec { disks: vec![disk("scsi0"), disk("scsi1")], ..spec() }, &[("vm.disks[1].size", true)]),
        (MachineSpec { disks: vec![disk("scsi0"), sized("scsi1")], ..spec() }, &[]),
        (
            MachineSpec { disks: vec![disk("sata1"), sized("ide1")], ..spec() },
            &[("vm.disks[0].slot", true), ("vm.disks[1].slot", true)],
        ),
        (MachineSpec { source: SourceSpec::New, disks: vec![sized("nvme0")], ..spec() }, &[]),
        (
            MachineSpec { source: SourceSpec::New, disks: vec![disk("nvme0")], ..spec() },
            &[("vm.disks[0].size", true)],
        ),
        (with_options(&[("cache", "none"), ("serial", "x")]), &[]),
        (
            with_options(&[("cache", "never"), ("ssd", "1"), ("iothread", "1")]),
            &[("vm.disks[0].cache", true), ("vm.disks[0].iothread", false)],
        ),
        (MachineSpec { isos: vec![Medium::file("/a.iso"); 6], ..spec() }, &[]),
        (MachineSpec { isos: vec![Medium::file("/a.iso"); 7], ..spec() }, &[("source.iso", true)]),
        (MachineSpec { isos: vec![url(); 7], ..spec() }, &[("source.iso", true)]),
        (crowd("q35", &["sata0"], 5, false), &[]),
        (crowd("q35", &["sata0"], 5, true), &[("source.iso", true)]),
        // Two controllers: the seed's is that of the main disk.
        (crowd("pc", &["ide0"], 6, true), &[]),
        (crowd("pc", &["ide0"], 7, false), &[("source.iso", true)]),
        (crowd("pc", &["ide0", "ide1", "ide2", "ide3"], 1, false), &[]),
        (crowd("pc", &["ide0", "ide1", "ide2", "ide3"], 1, true), &[("source.iso", true)]),
        (MachineSpec { isos: vec![Medium { checksum: sum(), ..Medium::file("/a.iso") }], ..spec() }, &[]),
        (hardware(Hardware { machine: Some("microvm".into()), ..Hardware::default() }), &[]),
        (hardware(Hardware { machine: Some("pc-q35-9.2".into()), ..Hardware::default() }), &[]),
        (MachineSpec { floppy: true, ..spec() }, &[]),
        (MachineSpec { floppy: true, ..crowd("microvm", &["virtio0"], 0, false) }, &[("seed.floppy", true)]),
        (
            hardware(Hardware { machine: Some("isapc".into()), ..Hardware::default() }),
            &[("vm.machine", true)],
        ),
        (hardware(Hardware { scsihw: Some("pvscsi".into()), ..Hardware::default() }), &[]),
        (hardware(Hardware { scsihw: Some("scsi".into()), ..Hardware::default() }), &[("vm.scsihw", true)]),
        (hardware(Hardware { args: vec!["-S".into()], ..Hardware::default() }), &[]),
        (hardware(Hardware { args: vec!["-daemonize".into()], ..Hardware::default() }), &[("vm.args", true)]),
        (
            MachineSpec { disks: vec![DiskSpec { size: Some(1 << 30), ..disk("scsi0") }], ..spec() },
            &[("vm.disks[0].size", true)],
        ),
        (MachineSpec { networks: vec![network("token-ring")], ..spec() }, &[("vm.networks[0].model", true)]),
        (
            MachineSpec {
                networks: vec![NetworkSpec {
                    bridge: Some("vmbr0".into()),
                    vlan: Some(7),
                    ..network("virtio")
                }],
                ..spec()
            },
            &[("vm.networks[0].bridge", false), ("vm.networks[0].vlan", false)],
        ),
        (with_network(&[("mtu", "1400")], "virtio"), &[]),
        (with_network(&[("mtu", "1400")], "e1000"), &[("vm.networks[0].mtu", false)]),
        (with_network(&[("mtu", "7")], "virtio"), &[("vm.networks[0].mtu", true)]),
        (with_network(&[("link_down", "1")], "virtio"), &[("vm.networks[0].link-down", false)]),
        (hardware(Hardware { vga: Some("virtio,memory=64".into()), ..Hardware::default() }), &[]),
        (hardware(Hardware { vga: Some("virtio-gl".into()), ..Hardware::default() }), &[("vm.vga", true)]),
        (
            hardware(Hardware {
                machine: Some("microvm".into()),
                vga: Some("std".into()),
                numa: Some(true),
                ..Hardware::default()
            }),
            &[("vm.vga", false), ("vm.numa", true)],
        ),
        (
            MachineSpec {
                sockets: Some(129),
                ..hardware(Hardware { numa: Some(true), ..Hardware::default() })
            },
            &[("vm.numa", true)],
        ),
        (MachineSpec { memory_mib: Some(0), ..spec() }, &[("vm.memory", true)]),
        (MachineSpec { cpu: Some("-hda x".into()), ..spec() }, &[("vm.cpu", true)]),
        (
            MachineSpec { extra: [("machien".into(), "pc".into())].into(), ..spec() },
            &[("vm.qemu.machien", true)],
        ),
        (MachineSpec { extra: [("vga".into(), "x,y".into())].into(), ..spec() }, &[("vm.qemu.vga", true)]),
    ];
    for (spec, expected) in cases {
        let found = findings(spec, &facts(), &host());
        let got: Vec<(&str, bool)> = found.iter().map(|each| (each.setting.as_str(), each.fatal)).collect();
        assert_eq!(got, *expected);
        assert!(found.iter().all(|each| !each.help.is_empty()));
    }
}

#[test]
fn missing_firmware_and_a_missing_tpm_are_told_with_the_package() {
    let uefi = |machine: &str, keys| Hardware {
        bios: Some(Bios::Ovmf),
        machine: Some(machine.into()),
        efi_disk: Some(EfiDisk { pre_enrolled_keys: keys, storage: None }),
        ..Hardware::default()
    };
    let tpm = Hardware { tpm: Some(TpmState::default()), ..Hardware::default() };
    for (asked, setting, message, help) in [
        (uefi("q35", false), "vm.bios", "no UEFI firmware for q35", "package ovmf"),
        (uefi("q35", true), "vm.bios", "with enrolled keys for Secure Boot for q35", "package ovmf"),
        (uefi("i440fx", true), "vm.bios", "for pc", "q35"),
        (uefi("microvm", false), "vm.bios", "for microvm", "use q35"),
        (tpm, "vm.tpm", "`swtpm` is not installed", "package swtpm"),
    ] {
        let found = findings(&hardware(asked), &facts(), &host());
        let [found] = found.as_slice() else { panic!("{found:?}") };
        assert!(found.fatal && found.setting == setting, "{found:?}");
        assert!(found.message.contains(message) && found.help.contains(help), "{found:?}");
    }
}

#[test]
fn a_microvm_that_is_emulated_is_warned_of() {
    let on = |machine: &str, kvm| {
        let hardware = hardware(Hardware { machine: Some(machine.into()), kvm, ..Hardware::default() });
        [false, true].map(|host| emulated(&hardware, host).is_some_and(|finding| !finding.fatal))
    };
    assert_eq!(on("microvm", None), [false, true]);
    assert_eq!(on("microvm", Some(false)), [true, true]);
    assert_eq!(on("q35", None), [false, false]);
    let told = |is_told_clock| MachineSpec {
        kernel: Some(KernelSpec {
            kernel: BootFile::Medium(Medium::file("/vmlinuz")),
            initrds: Vec::new(),
            is_told_clock,
        }),
        ..hardware(Hardware { machine: Some("microvm".into()), ..Hardware::default() })
    };
    assert!(emulated(&told(false), true).is_some());
    assert_eq!(emulated(&told(true), true), None, "its kernel has what it needs");
}

#[test]
fn files_of_a_firmware_are_looked_at_before_anything_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("code.fd").display().to_string();
    std::fs::write(&file, "code").expect("written");
    let uefi = |bios, extra: &[(&str, &str)]| MachineSpec {
        extra: extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..hardware(Hardware { bios, ..Hardware::default() })
    };
    let (code, vars) = ("efi-firmware-code", "efi-firmware-vars");
    let both = [(code, file.as_str()), (vars, file.as_str())];
    assert_eq!(findings(&uefi(Some(Bios::Ovmf), &both), &facts(), &host()), []);
    let folder = folder.path().display().to_string();
    for (spec, setting, words) in [
        (uefi(None, &both), "vm.qemu.efi-firmware-code", "this VM starts with a BIOS"),
        (uefi(None, &both[..1]), "vm.qemu.efi-firmware-code", "`efi-firmware-vars` is missing"),
        (uefi(None, &both[1..]), "vm.qemu.efi-firmware-vars", "`efi-firmware-code` is missing"),
        (
            uefi(Some(Bios::Ovmf), &[(code, "code.fd"), both[1]]),
            "vm.qemu.efi-firmware-code",
            "`code.fd` is no whole path",
        ),
        (
            uefi(Some(Bios::Ovmf), &[both[0], (vars, "/nowhere/vars.fd")]),
            "vm.qemu.efi-firmware-vars",
            "/nowhere/vars.fd can't be opened: No such file",
        ),
        (uefi(Some(Bios::Ovmf), &[both[0], (vars, &folder)]), "vm.qemu.efi-firmware-vars", "is no file"),
    ] {
        let found = findings(&spec, &facts(), &host());
        let [found] = found.as_slice() else { panic!("{found:?}") };
        assert!(found.fatal && found.setting == setting && found.message.contains(words), "{found:?}");
    }
    // Nor does a firmware of one's own make a board protect its variables.
    let older = |bios| Hardware { machine: Some("i440fx".into()), bios, ..Hardware::default() };
    let keys = Some(EfiDisk { pre_enrolled_keys: true, storage: None });
    let asked = Hardware { efi_disk: keys, ..older(Some(Bios::Ovmf)) };
    let spec = MachineSpec { hardware: asked, ..uefi(None, &both) };
    let found = findings(&spec, &facts(), &host());
    assert!(found.iter().any(|each| each.fatal && each.help.contains("q35")), "{found:?}");
}
