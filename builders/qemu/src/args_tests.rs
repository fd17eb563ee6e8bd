//! Argument lists and findings, as tables.

use forge_machine::facts::SourceDisk;
use forge_machine::{DiskSpec, SourceFacts, VmRef};

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

fn lines(spec: &MachineSpec, attachments: &Attachments, accelerator: Accelerator) -> String {
    let nonce = Nonce::from_bytes([0xab; 8]);
    let mut text = String::new();
    for word in Settings::new(spec, &nonce, attachments).arguments(accelerator, 4022) {
        let separator = if word.starts_with('-') { "\n" } else { " " };
        text = format!("{text}{separator}{word}");
    }
    text.trim_start().to_owned()
}

#[test]
fn a_seed_disc_is_a_read_only_drive_on_the_main_disks_bus() {
    let attachments = Attachments { seed_disc: Some(vec![0; 2048]), ..Attachments::default() };
    for (slot, device) in [
        ("virtio0", "-device virtio-blk-pci,drive=seed0"),
        ("scsi0", "-device scsi-cd,drive=seed0,bus=scsi0.0"),
        ("sata0", "-device ide-cd,drive=seed0"),
    ] {
        let spec = MachineSpec { disks: vec![disk(slot)], ..spec() };
        let text = lines(&spec, &attachments, Accelerator::Tcg);
        assert!(text.contains("-drive file=seed.iso,format=raw,if=none,id=seed0,readonly=on"), "{text}");
        assert!(text.contains(device), "{slot}: {text}");
    }
}

#[test]
fn a_bare_spec_becomes_this_argument_list() {
    let attachments = Attachments {
        smbios_serial: Some("ds=nocloud;s=http://10.0.2.2:8800/a,b/".into()),
        ..Attachments::default()
    };
    let expected = "\
-name forge-abababababababab
-uuid 666f7267-65ab-4aba-8bab-abababab0000
-no-user-config
-nodefaults
-machine q35
-accel tcg,thread=multi
-cpu max
-smp 2,sockets=1,cores=2,threads=1
-m 2048M
-drive file=disk.qcow2,format=qcow2,if=none,id=disk0,cache=unsafe,discard=unmap,detect-zeroes=unmap
-device virtio-blk-pci,drive=disk0,bootindex=1
-netdev user,id=net0,hostfwd=tcp:127.0.0.1:4022-:22
-device virtio-net-pci,netdev=net0
-vga std
-vnc unix:vnc.sock
-chardev file,id=serial0,path=serial.log,append=on
-serial chardev:serial0
-object rng-random,id=rng0,filename=/dev/urandom
-device virtio-rng-pci,rng=rng0
-chardev socket,id=qga0,path=qga.sock,server=on,wait=off
-device virtio-serial-pci
-device virtserialport,chardev=qga0,name=org.qemu.guest_agent.0
-smbios type=1,serial=ds=nocloud;s=http://10.0.2.2:8800/a,,b/
-qmp unix:qmp.sock,server=on,wait=off
-pidfile qemu.pid";
    assert_eq!(lines(&spec(), &attachments, Accelerator::Tcg), expected);
}

#[test]
fn each_setting_shows_in_the_argument_list() {
    let cases: &[(&str, MachineSpec, &[&str])] = &[
        (
            "cpu and memory",
            MachineSpec { cpu: Some("Nehalem".into()), memory_mib: Some(512), ..spec() },
            &["-cpu Nehalem", "-m 512M"],
        ),
        (
            "sockets",
            MachineSpec { cores: Some(3), sockets: Some(2), ..spec() },
            &["-smp 6,sockets=2,cores=3,threads=1"],
        ),
        (
            "scsi",
            MachineSpec { disks: vec![disk("scsi0")], ..spec() },
            &["-device virtio-scsi-pci,id=scsi0", "-device scsi-hd,drive=disk0,bus=scsi0.0,bootindex=1"],
        ),
        (
            "sata",
            MachineSpec { disks: vec![disk("sata1")], ..spec() },
            &["-device ide-hd,drive=disk0,bootindex=1"],
        ),
        (
            "no discard",
            MachineSpec { disks: vec![DiskSpec { discard: Some(false), ..disk("virtio0") }], ..spec() },
            &[
                "-drive file=disk.qcow2,format=qcow2,if=none,id=disk0,cache=unsafe,discard=ignore,detect-zeroes=unmap",
            ],
        ),
        (
            "two adapters",
            MachineSpec { networks: vec![network("e1000"), network("virtio")], ..spec() },
            &[
                "-netdev user,id=net0,hostfwd=tcp:127.0.0.1:4022-:22",
                "-device e1000,netdev=net0",
                "-netdev user,id=net1",
                "-device virtio-net-pci,netdev=net1",
            ],
        ),
        (
            "extra",
            MachineSpec { extra: [("machine".into(), "pc".into())].into(), ..spec() },
            &["-machine pc"],
        ),
    ];
    for (name, spec, expected) in cases {
        let text = lines(spec, &Attachments::default(), Accelerator::Kvm);
        let got: Vec<&str> = text.lines().collect();
        for line in *expected {
            assert!(got.contains(line), "{name}: no `{line}` in\n{text}");
        }
        assert!(got.contains(&"-accel kvm"), "{name}");
    }
    let without =
        lines(&MachineSpec { agent: Some(false), ..spec() }, &Attachments::default(), Accelerator::Kvm);
    assert!(!without.contains("qga") && !without.contains("smbios"), "{without}");
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
        (MachineSpec { disks: vec![disk("nvme0")], ..spec() }, &[("vm.disks[0].slot", true)]),
        (MachineSpec { disks: vec![disk("scsi")], ..spec() }, &[("vm.disks[0].slot", true)]),
        (MachineSpec { disks: vec![disk("scsi0"), disk("scsi1")], ..spec() }, &[("vm.disks[1]", true)]),
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
        (MachineSpec { memory_mib: Some(0), ..spec() }, &[("vm.memory", true)]),
        (MachineSpec { cpu: Some("-hda x".into()), ..spec() }, &[("vm.cpu", true)]),
        (
            MachineSpec { extra: [("machien".into(), "pc".into())].into(), ..spec() },
            &[("vm.qemu.machien", true)],
        ),
        (MachineSpec { extra: [("vga".into(), "x,y".into())].into(), ..spec() }, &[("vm.qemu.vga", true)]),
    ];
    for (spec, expected) in cases {
        let found = findings(spec, &facts());
        let got: Vec<(&str, bool)> = found.iter().map(|each| (each.setting.as_str(), each.fatal)).collect();
        assert_eq!(got, *expected);
        assert!(found.iter().all(|each| !each.help.is_empty()));
    }
}

#[test]
fn what_a_profile_may_say_and_this_backend_does_not_do_is_a_finding_and_never_ignored() {
    use forge_machine::{BootFile, Checksum, Hardware, KernelSpec, Medium, TpmState};
    let sum = Checksum::parse(&"ab".repeat(32)).expect("a checksum");
    let image = |copy, checksum| SourceSpec::Image {
        image: Medium { checksum, ..Medium::file("/images/debian.qcow2") },
        copy,
    };
    let kernel = KernelSpec { kernel: BootFile::InIso("/vmlinuz".into()), initrds: Vec::new() };
    let hardware = |hardware| MachineSpec { hardware, ..spec() };
    let defaults = Hardware::default;
    for (spec, setting) in [
        (MachineSpec { source: SourceSpec::New, ..spec() }, "source"),
        (MachineSpec { isos: vec![Medium::file("/a.iso")], ..spec() }, "source.iso"),
        (MachineSpec { kernel: Some(kernel), ..spec() }, "source.kernel"),
        (MachineSpec { source: image(false, sum), ..spec() }, "source.image.checksum"),
        (MachineSpec { source: image(true, Checksum::None), ..spec() }, "source.image.copy"),
        (hardware(Hardware { bios: Some(Bios::Ovmf), ..defaults() }), "vm.bios"),
        (hardware(Hardware { tpm: Some(TpmState::default()), ..defaults() }), "vm.tpm"),
        (hardware(Hardware { machine: Some("microvm".into()), ..defaults() }), "vm.machine"),
        (hardware(Hardware { args: vec!["-S".into()], ..defaults() }), "vm.args"),
    ] {
        let found = findings(&spec, &facts());
        let told: Vec<&str> =
            found.iter().filter(|each| each.fatal).map(|each| each.setting.as_str()).collect();
        assert_eq!(told, [setting]);
    }
}
