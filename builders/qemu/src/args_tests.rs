//! Argument lists, as tables.

use forge_machine::{DiskSpec, Hardware, NetworkSpec, SourceSpec, TpmState};

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
        ("sata0", "-device ide-cd,drive=seed0,bus=ide.1"),
    ] {
        let spec = MachineSpec { disks: vec![disk(slot)], ..spec() };
        let text = lines(&spec, &attachments, Accelerator::Tcg);
        assert!(text.contains("-drive file=seed.iso,format=raw,if=none,id=seed0,readonly=on"), "{text}");
        assert!(text.contains(device), "{slot}: {text}");
    }
}

#[test]
fn a_floppy_is_a_write_protected_drive_whatever_the_disks_hang_on() {
    let attachments = Attachments { floppy: Some(vec![0; 1440 << 10]), ..Attachments::default() };
    let drive = "-drive file=floppy.img,format=raw,if=floppy,readonly=on";
    for slot in ["virtio0", "scsi0", "sata0", "nvme0"] {
        let spec = MachineSpec { disks: vec![disk(slot)], ..spec() };
        let text = lines(&spec, &attachments, Accelerator::Tcg);
        assert!(text.lines().any(|line| line == drive), "{slot}: {text}");
    }
    assert!(!lines(&spec(), &Attachments::default(), Accelerator::Tcg).contains("floppy"));
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
-vnc unix:vnc.sock,key-delay-ms=1
-chardev socket,id=serial0,path=serial.sock,server=on,wait=off,logfile=serial.log,logappend=on
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
fn on_a_bridge_each_adapter_has_a_mac_of_its_own_and_no_port_is_forwarded() {
    let mut own = network("virtio");
    own.mac = Some("BC:24:11:00:00:01".into());
    let spec = MachineSpec { networks: vec![network("e1000"), own], ..spec() };
    let nonce = Nonce::from_bytes([0xab; 8]);
    let mut settings = Settings::new(&spec, &nonce, &Attachments::default());
    settings.put_on("br0", &nonce);
    let arguments = settings.arguments(Accelerator::Kvm, 0).join(" ");
    for words in [
        "-netdev bridge,id=net0,br=br0 -device e1000,netdev=net0,mac=52:54:00:ab:ab:ab",
        "-netdev bridge,id=net1,br=br0 -device virtio-net-pci,netdev=net1,mac=BC:24:11:00:00:01",
    ] {
        assert!(arguments.contains(words), "{arguments}");
    }
    assert!(!arguments.contains("hostfwd") && !arguments.contains("user,"), "{arguments}");
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
            &["-device ide-hd,drive=disk0,bus=ide.1,bootindex=1"],
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

/// A new machine with these disks and media.
fn install(disks: &[&str], isos: &[&str], extra: &[(&str, &str)]) -> MachineSpec {
    MachineSpec {
        source: SourceSpec::New,
        disks: disks.iter().map(|slot| disk(slot)).collect(),
        isos: isos.iter().copied().map(Medium::file).collect(),
        extra: extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..spec()
    }
}

#[test]
fn disks_come_first_in_their_order_and_then_the_media() {
    let cases: &[(MachineSpec, &[&str])] = &[
        (
            install(&["virtio0", "nvme3"], &["/a,b.iso", "/c.iso"], &[]),
            &[
                "-drive file=disk-1.qcow2,format=qcow2,if=none,id=disk1,cache=unsafe,discard=unmap,detect-zeroes=unmap",
                "-device virtio-blk-pci,drive=disk0,bootindex=1",
                "-device nvme,drive=disk1,serial=forge-3,bootindex=2",
                "-drive file=/a,,b.iso,format=raw,if=none,id=cd0,readonly=on",
                "-device ide-cd,drive=cd0,bus=ide.0,bootindex=3",
                "-device ide-cd,drive=cd1,bus=ide.1,bootindex=4",
            ],
        ),
        (
            install(&["sata0", "ide2"], &["/a.iso", "/c.iso"], &[]),
            &[
                "-device ide-hd,drive=disk0,bus=ide.0,bootindex=1",
                "-device ide-hd,drive=disk1,bus=ide.2,bootindex=2",
                "-device ide-cd,drive=cd0,bus=ide.1,bootindex=3",
                "-device ide-cd,drive=cd1,bus=ide.3,bootindex=4",
            ],
        ),
        (
            install(&["ide0", "sata1"], &["/a.iso"], &[("machine", "pc"), ("cdrom-interface", "ide")]),
            &[
                "-device ahci,id=sata",
                "-device ide-hd,drive=disk0,bus=ide.0,unit=0,bootindex=1",
                "-device ide-hd,drive=disk1,bus=sata.1,bootindex=2",
                "-device ide-cd,drive=cd0,bus=ide.0,unit=1,bootindex=3",
            ],
        ),
        (
            install(&["virtio0"], &["/a.iso"], &[("cdrom-interface", "scsi")]),
            &["-device virtio-scsi-pci,id=scsi0", "-device scsi-cd,drive=cd0,bus=scsi0.0,bootindex=2"],
        ),
        (
            install(&["scsi2"], &["/a.iso"], &[("cdrom-interface", "virtio")]),
            &[
                "-device scsi-hd,drive=disk0,bus=scsi0.0,scsi-id=2,bootindex=1",
                "-device virtio-blk-pci,drive=cd0,bootindex=2",
            ],
        ),
    ];
    for (spec, expected) in cases {
        let text = lines(spec, &Attachments::default(), Accelerator::Kvm);
        let got: Vec<&str> = text.lines().collect();
        for line in *expected {
            assert!(got.contains(line), "no `{line}` in\n{text}");
        }
    }
}

#[test]
fn a_kernel_without_a_boot_loader_ends_the_vm_at_the_guests_reboot() {
    let nonce = Nonce::from_bytes([1; 8]);
    let mut settings = Settings::new(&install(&["virtio0"], &[], &[]), &nonce, &Attachments::default());
    assert!(!settings.arguments(Accelerator::Tcg, 1).iter().any(|word| word == "-action"));
    settings.kernel = Some(Kernel {
        kernel: "/boot/vmlinuz".into(),
        initrd: Some("initrd".into()),
        cmdline: "ks=http://10.0.2.2/a,b console=ttyS0".into(),
    });
    let words = settings.arguments(Accelerator::Tcg, 1);
    for pair in [
        ["-kernel", "/boot/vmlinuz"],
        ["-initrd", "initrd"],
        ["-append", "ks=http://10.0.2.2/a,b console=ttyS0"],
        ["-action", "reboot=shutdown"],
    ] {
        assert!(words.windows(2).any(|two| two == pair), "{pair:?} in {words:?}");
    }
}

#[test]
fn settings_by_proxmoxs_names_show_in_the_argument_list() {
    let hardware = Hardware {
        vga: Some("type=virtio,memory=64".into()),
        numa: Some(true),
        localtime: Some(true),
        kvm: Some(false),
        ..Hardware::default()
    };
    let options = [("mtu".to_owned(), "1400".to_owned())].into();
    let ssd = [("ssd".to_owned(), "1".to_owned())].into();
    let spec = MachineSpec {
        hardware,
        cores: Some(2),
        sockets: Some(2),
        memory_mib: Some(1025),
        networks: vec![NetworkSpec { mac: Some("BC:24:11:00:00:01".into()), options, ..network("virtio") }],
        disks: vec![DiskSpec { options: ssd, ..disk("scsi0") }],
        ..spec()
    };
    let text = lines(&spec, &Attachments::default(), Accelerator::Kvm);
    for line in [
        "-accel tcg,thread=multi",
        "-object memory-backend-ram,id=ram0,size=513M",
        "-numa node,nodeid=0,cpus=0-1,memdev=ram0",
        "-object memory-backend-ram,id=ram1,size=512M",
        "-numa node,nodeid=1,cpus=2-3,memdev=ram1",
        "-rtc base=localtime",
        "-vga virtio",
        "-global virtio-vga.max_hostmem=67108864",
        "-device virtio-net-pci,netdev=net0,mac=BC:24:11:00:00:01,host_mtu=1400",
        "-device scsi-hd,drive=disk0,bus=scsi0.0,rotation_rate=1,bootindex=1",
    ] {
        assert!(text.lines().any(|each| each == line), "no `{line}` in\n{text}");
    }
}

#[test]
fn firmware_and_further_hardware_show_in_the_argument_list() {
    let nonce = Nonce::from_bytes([1; 8]);
    let hardware = Hardware {
        tpm: Some(TpmState::default()),
        rng: Some(false),
        args: vec!["-device".into(), "usb-ehci".into()],
        ..Hardware::default()
    };
    let spec = MachineSpec { hardware, ..spec() };
    let mut settings = Settings::new(&spec, &nonce, &Attachments::default());
    settings.firmware = Some(Firmware {
        code: "/usr/share/OVMF/code.fd".into(),
        code_format: "qcow2".into(),
        variables: "/usr/share/OVMF/vars.fd".into(),
        variables_format: "raw".into(),
        secure: true,
    });
    let text = settings.arguments(Accelerator::Tcg, 1).join(" ");
    for part in [
        "-machine q35,smm=on -global driver=cfi.pflash01,property=secure,value=on -global ICH9-LPC.disable_s3=1",
        "-drive if=pflash,unit=0,format=qcow2,readonly=on,file=/usr/share/OVMF/code.fd",
        "-drive if=pflash,unit=1,format=raw,file=efivars.fd",
        "-chardev socket,id=tpm0,path=swtpm.sock -tpmdev emulator,id=tpm0,chardev=tpm0 -device tpm-tis,tpmdev=tpm0",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(!text.contains("virtio-rng"), "{text}");
    assert!(text.ends_with("-pidfile qemu.pid -device usb-ehci"), "they are appended: {text}");

    let plain = |machine: &str| {
        let hardware = Hardware { machine: Some(machine.into()), ..Hardware::default() };
        let spec = MachineSpec { hardware, ..super::tests::spec() };
        Settings::new(&spec, &nonce, &Attachments::default()).arguments(Accelerator::Tcg, 1).join(" ")
    };
    assert!(plain("i440fx").contains("-machine pc -accel"));
    assert!(plain("pc-q35-9.2").contains("-machine pc-q35-9.2 -accel"));
    let microvm = plain("microvm");
    assert!(microvm.contains("-machine microvm,pcie=on") && !microvm.contains("-vga"), "{microvm}");
    assert!(
        microvm.contains("virtio-blk-device,drive=disk0") && !microvm.contains("virtio-blk-pci"),
        "{microvm}"
    );
}
