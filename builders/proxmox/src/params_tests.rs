//! Tables for [`super`]: what is sent for which spec and which present configuration.

use forge_machine::{ChainId, CloudInitDrive, DiskSpec, Nonce};

use super::*;

fn spec() -> MachineSpec {
    MachineSpec::new(
        SourceSpec::Clone {
            vm: VmRef::new("9000", "pve1"),
            name: "boot-vm".into(),
            full: true,
            storage: None,
        },
        "pve1",
    )
}

fn the_mark(state: BuildState) -> Ownership {
    Ownership {
        nonce: Nonce::from_bytes([0xab; 8]),
        chain_id: ChainId::new("CHAIN-20261121T040506Z-debian-12"),
        owner: "ops@ci".into(),
        started: "2026-11-21T04:05:06Z".parse().expect("valid"),
        heartbeat: "2026-11-21T04:05:06Z".parse().expect("valid"),
        state,
        memory_mib: None,
    }
}

fn present() -> VmConfig {
    VmConfig::from_iter([
        ("name", "c1"),
        ("cores", "1"),
        ("memory", "256"),
        ("agent", "enabled=1"),
        ("net0", "virtio=BC:24:11:FD:94:79,bridge=vmbr0,firewall=1"),
        ("scsi0", "local:9100/vm-9100-disk-0.qcow2,discard=on,iothread=1,size=2G,ssd=1"),
        ("ide2", "local:iso/seed.iso,media=cdrom,size=98K"),
        ("smbios1", "uuid=4053d1cb-cd4f-4a85-8a1c-4fb538c888e5"),
    ])
}

fn sent(params: &Params) -> Vec<(String, String)> {
    params.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_clone_call_carries_the_nonce_and_only_what_proxmox_takes() {
    let mark = the_mark(BuildState::Building);
    let at = VmRef::new("9100", "pve1");
    let (source, params) = clone(&spec(), &at, &mark).expect("a clone");
    assert_eq!(source, VmRef::new("9000", "pve1"));
    assert_eq!(params.get("name"), Some("forge-abababababababab"));
    assert_eq!(Ownership::from_description(params.get("description").expect("set")), Some(mark.clone()));
    assert_eq!((params.get("full"), params.get("storage"), params.get("target")), (Some("1"), None, None));

    let mut linked = spec();
    linked.pool = Some("builds".into());
    linked.source = SourceSpec::Clone {
        vm: VmRef::new("9000", "pve2"),
        name: "x".into(),
        full: false,
        storage: Some("lvm".into()),
    };
    let (_, params) = clone(&linked, &at, &mark).expect("a clone");
    assert_eq!(
        (params.get("full"), params.get("storage")),
        (Some("0"), None),
        "a linked clone names no storage"
    );
    assert_eq!((params.get("target"), params.get("pool")), (Some("pve1"), Some("builds")));

    linked.source = SourceSpec::image("x.qcow2");
    assert!(clone(&linked, &at, &mark).is_none());
}

#[test]
fn the_first_change_takes_over_what_a_clone_inherits() {
    let params = identity(&the_mark(BuildState::Building));
    let keys: Vec<&str> = params.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["name", "tags", "description", "onboot", "protection"]);
    assert_eq!(
        (params.get("onboot"), params.get("protection"), params.get("tags")),
        (Some("0"), Some("0"), Some("forge-build"))
    );
    assert_eq!(mark(&the_mark(BuildState::Kept)).get("tags"), Some("forge-kept"));
}

#[test]
fn hardware_sends_only_what_differs() {
    type Case = (&'static str, MachineSpec, Vec<(String, String)>);
    let cases: Vec<Case> = vec![
        ("nothing asked", spec(), pairs(&[])),
        (
            "all as it is",
            MachineSpec { cores: Some(1), memory_mib: Some(256), agent: Some(true), ..spec() },
            pairs(&[]),
        ),
        (
            "cpu and memory",
            MachineSpec {
                cores: Some(2),
                sockets: Some(1),
                cpu: Some("host".into()),
                memory_mib: Some(4096),
                ..spec()
            },
            pairs(&[("cores", "2"), ("sockets", "1"), ("cpu", "host"), ("memory", "4096")]),
        ),
        ("agent off", MachineSpec { agent: Some(false), ..spec() }, pairs(&[("agent", "enabled=0")])),
        (
            "network keeps MAC, bridge and firewall",
            MachineSpec {
                networks: vec![NetworkSpec {
                    model: "virtio".into(),
                    bridge: None,
                    vlan: None,
                    ..NetworkSpec::default()
                }],
                ..spec()
            },
            pairs(&[]),
        ),
        (
            "network to another bridge and VLAN, and a second one",
            MachineSpec {
                networks: vec![
                    NetworkSpec {
                        model: "e1000".into(),
                        bridge: Some("vmbr1".into()),
                        vlan: Some(7),
                        ..NetworkSpec::default()
                    },
                    NetworkSpec {
                        model: "virtio".into(),
                        bridge: None,
                        vlan: None,
                        ..NetworkSpec::default()
                    },
                ],
                ..spec()
            },
            pairs(&[
                ("net0", "e1000=BC:24:11:FD:94:79,bridge=vmbr1,firewall=1,tag=7"),
                ("net1", "virtio,bridge=site0"),
            ]),
        ),
        (
            "discard off keeps the rest of the drive",
            MachineSpec {
                disks: vec![DiskSpec {
                    slot: "scsi0".into(),
                    size: None,
                    discard: Some(false),
                    ..DiskSpec::default()
                }],
                ..spec()
            },
            pairs(&[("scsi0", "local:9100/vm-9100-disk-0.qcow2,discard=ignore,iothread=1,size=2G,ssd=1")]),
        ),
        (
            "extra keys pass through, forge's own do not",
            MachineSpec {
                extra: [("kvm", "0"), ("protection", "1"), ("name", "x")]
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .into(),
                ..spec()
            },
            pairs(&[("kvm", "0")]),
        ),
    ];
    for (case, spec, expected) in cases {
        assert_eq!(sent(&hardware(&spec, &present(), Some("site0"))), expected, "{case}");
    }
}

#[test]
fn the_sites_bridge_is_used_where_neither_profile_nor_source_has_one() {
    let wanted = NetworkSpec { model: "virtio".into(), bridge: None, vlan: None, ..NetworkSpec::default() };
    assert_eq!(
        network_adapter(&wanted, Some("virtio=BC:24:11:00:00:01"), Some("b")),
        "virtio=BC:24:11:00:00:01,bridge=b"
    );
    assert_eq!(network_adapter(&wanted, None, None), "virtio");
}

#[test]
fn disks_grow_appear_and_never_shrink() {
    let disk = |slot: &str, size| DiskSpec {
        slot: slot.into(),
        size: Some(size),
        discard: Some(true),
        ..DiskSpec::default()
    };
    let with = |disks| MachineSpec { disks, ..spec() };
    let grow = |size: &str| vec![DiskChange::Grow { slot: "scsi0".into(), size: size.into() }];
    let add = |value: &str| vec![DiskChange::Add { slot: "scsi1".into(), value: value.into() }];
    for (case, spec, storage, expected) in [
        ("same size", with(vec![disk("scsi0", 2 << 30)]), None, Ok(vec![])),
        ("grows", with(vec![disk("scsi0", 20 << 30)]), None, Ok(grow("20G"))),
        ("odd size", with(vec![disk("scsi0", (2 << 30) + 512)]), None, Ok(grow("2147484160"))),
        (
            "new disk beside the source's",
            with(vec![disk("scsi1", 3 << 29)]),
            None,
            Ok(add("local:1.500,discard=on")),
        ),
        (
            "new disk on the site's storage",
            with(vec![disk("scsi1", 1 << 30)]),
            Some("lvm"),
            Ok(add("lvm:1,discard=on")),
        ),
        (
            "shrinks",
            with(vec![disk("scsi0", 1 << 30)]),
            None,
            Err("disk scsi0 has 2G and can't shrink to 1G".to_owned()),
        ),
    ] {
        assert_eq!(disks(&spec, &present(), storage), expected, "{case}");
    }
}

#[test]
fn a_cloud_init_drive_is_added_only_when_there_is_none() {
    let wanted = CloudInitDrive { slot: "ide3".into(), storage: "local".into(), inherited: false };
    let spec = MachineSpec { cloud_init: Some(wanted), ..spec() };
    assert_eq!(cloud_init_drive(&spec, &present()), Some(("ide3".into(), "local:cloudinit".into())));
    let has = VmConfig::from_iter([("scsi1", "lvm:vm-9100-cloudinit,media=cdrom")]);
    assert_eq!(cloud_init_drive(&spec, &has), None);
}

#[test]
fn the_seed_goes_into_the_serial_and_comes_out_again_with_the_uuid_unchanged() {
    const UUID: &str = "uuid=4053d1cb-cd4f-4a85-8a1c-4fb538c888e5";
    let seed = Attachments {
        smbios_serial: Some("ds=nocloud;s=http://10.0.2.2:8800/x/".into()),
        ..Attachments::default()
    };
    for (case, before, during, after) in [
        (
            "only a UUID",
            UUID.to_owned(),
            format!("{UUID},base64=1,serial=ZHM9bm9jbG91ZDtzPWh0dHA6Ly8xMC4wLjIuMjo4ODAwL3gv"),
            UUID.to_owned(),
        ),
        (
            "plain fields",
            format!("{UUID},manufacturer=ACME"),
            format!(
                "{UUID},base64=1,serial=ZHM9bm9jbG91ZDtzPWh0dHA6Ly8xMC4wLjIuMjo4ODAwL3gv,manufacturer=QUNNRQ=="
            ),
            format!("{UUID},base64=1,manufacturer=QUNNRQ=="),
        ),
    ] {
        let config = VmConfig::from_iter([("smbios1", before.as_str())]);
        assert_eq!(attachments(&seed, &config).get("smbios1"), Some(during.as_str()), "{case}");
        let config = VmConfig::from_iter([("smbios1", during.as_str())]);
        assert!(attachments(&seed, &config).is_empty(), "{case}: repeating changes nothing");
        assert_eq!(detach(&spec(), &config, None).get("smbios1"), Some(after.as_str()), "{case}");
    }
    let own = VmConfig::from_iter([("smbios1", "uuid=1,serial=ABC")]);
    assert!(detach(&spec(), &own, None).is_empty(), "a serial of the source's own stays");
}

#[test]
fn cloud_init_settings_are_escaped_inside_and_removed_afterwards() {
    let settings = CloudInitSettings {
        user: "forge".into(),
        password_hash: None,
        ssh_keys: vec!["ssh-ed25519 AAAA/B+ forge@x\n".into(), "ssh-ed25519 CCCC y".into()],
        ip_config: "ip=dhcp".into(),
    };
    let params =
        attachments(&Attachments { cloud_init: Some(settings), ..Attachments::default() }, &present());
    assert_eq!(
        sent(&params),
        pairs(&[
            ("ciuser", "forge"),
            ("sshkeys", "ssh-ed25519%20AAAA%2FB%2B%20forge%40x%0Assh-ed25519%20CCCC%20y"),
            ("ipconfig0", "ip=dhcp"),
        ])
    );
    assert!(params.encode().contains("sshkeys=ssh-ed25519%2520AAAA%252FB"), "{}", params.encode());

    let drive = CloudInitDrive { slot: "ide3".into(), storage: "local".into(), inherited: true };
    let with_drive = MachineSpec { cloud_init: Some(drive), ..spec() };
    let config = VmConfig::from_iter([("ciuser", "forge"), ("sshkeys", "x"), ("ipconfig0", "ip=dhcp")]);
    assert_eq!(sent(&detach(&with_drive, &config, None)), pairs(&[("delete", "ciuser,sshkeys")]));
    assert!(detach(&with_drive, &present(), None).is_empty());
    assert!(detach(&spec(), &config, None).is_empty(), "without a drive of ours the source's settings stay");

    // A build on the console set a password; another leaves the source's, which nobody can read.
    let with_password = VmConfig::from_iter([("cipassword", "**********")]);
    assert!(detach(&with_drive, &with_password, Some(&with_password)).is_empty());
    let terminal = MachineSpec { terminal: true, ..with_drive.clone() };
    let gone = pairs(&[("delete", "cipassword")]);
    assert_eq!(sent(&detach(&terminal, &with_password, Some(&with_password))), gone);

    // What the build's user overwrote is as in the source again, and what the profile names is the template's.
    let source = VmConfig::from_iter([("ciuser", "site"), ("sshkeys", "k"), ("nameserver", "192.0.2.53")]);
    let back = pairs(&[("ciuser", "site"), ("sshkeys", "k")]);
    assert_eq!(sent(&detach(&with_drive, &config, Some(&source))), back);
    let mut named = with_drive;
    for (key, value) in
        [("ciuser", "ops"), ("sshkeys", "ssh-ed25519 A b"), ("ipconfig1", "ip=dhcp"), ("ciupgrade", "0")]
    {
        named.extra.insert(key.into(), value.into());
    }
    assert!(hardware(&named, &config, None).is_empty(), "not during the build");
    assert_eq!(
        sent(&detach(&named, &config, Some(&source))),
        pairs(&[
            ("ciupgrade", "0"),
            ("ciuser", "ops"),
            ("ipconfig1", "ip=dhcp"),
            ("sshkeys", "ssh-ed25519%20A%20b"),
        ])
    );
}

#[test]
fn a_terminal_is_a_serial_port_that_is_added_where_there_is_none() {
    let terminal = MachineSpec { terminal: true, ..spec() };
    assert_eq!(hardware(&terminal, &present(), None).get("serial0"), Some("socket"));
    let has_one = VmConfig::from_iter([("serial0", "/dev/ttyS0")]);
    assert_eq!(hardware(&terminal, &has_one, None).get("serial0"), None);
    let settings = CloudInitSettings { password_hash: Some("$6$a".into()), ..CloudInitSettings::default() };
    let given =
        attachments(&Attachments { cloud_init: Some(settings), ..Attachments::default() }, &present());
    assert_eq!(given.get("cipassword"), Some("$6$a"));
}

#[test]
fn the_final_identity_is_name_tags_and_notes() {
    assert_eq!(
        sent(&finish("tpl", &["b".into(), "a".into()], "notes")),
        pairs(&[("name", "tpl"), ("description", "notes"), ("tags", "b;a")])
    );
    assert_eq!(finish("tpl", &[], "notes").get("delete"), Some("tags"));
}

#[test]
fn a_repeatable_address_follows_from_the_vmid_as_packer_makes_it() {
    let named =
        |mac: &str| NetworkSpec { model: "virtio".into(), mac: Some(mac.into()), ..NetworkSpec::default() };
    let networks = vec![named("repeatable"), named("BC:24:11:00:00:01"), named("repeatable")];
    let spec = MachineSpec { networks, ..spec() };
    for (vmid, first, third) in [
        ("100", "00:18:59:00:0C:80", "00:18:59:00:0C:82"),
        ("9001", "00:18:59:04:65:20", "00:18:59:04:65:22"),
    ] {
        let with = with_addresses(&spec, &VmRef::new(vmid, "pve"));
        let macs: Vec<&str> = with.networks.iter().filter_map(|each| each.mac.as_deref()).collect();
        assert_eq!(macs, [first, "BC:24:11:00:00:01", third]);
    }
}
