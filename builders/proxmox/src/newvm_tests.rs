use forge_machine::{BuildState, ChainId, Checksum, DiskSpec, NetworkSpec, Nonce};

use super::*;

fn volume(name: &str) -> Medium {
    Medium { location: Location::Volume(name.into()), checksum: Checksum::None }
}

fn mark() -> Ownership {
    Ownership {
        nonce: Nonce::from_bytes([0xab; 8]),
        chain_id: ChainId::new("CHAIN-20261121T040506Z-rocky-9"),
        owner: "ops@ci".into(),
        started: "2026-11-21T04:05:06Z".parse().expect("valid"),
        heartbeat: "2026-11-21T04:05:06Z".parse().expect("valid"),
        state: BuildState::Building,
        memory_mib: None,
    }
}

fn install() -> MachineSpec {
    let state = |slot: &str| DiskSpec { slot: slot.into(), ..DiskSpec::default() };
    MachineSpec {
        isos: vec![volume("local:iso/rocky.iso"), volume("local:iso/drivers.iso")],
        memory_mib: Some(2048),
        disks: vec![
            state("efidisk0"),
            DiskSpec {
                slot: "scsi0".into(),
                size: Some(20 << 30),
                discard: Some(true),
                ..DiskSpec::default()
            },
        ],
        networks: vec![NetworkSpec { model: "virtio".into(), ..NetworkSpec::default() }],
        extra: [("bios", "ovmf"), ("onboot", "1")].map(|(key, value)| (key.into(), value.into())).into(),
        ..MachineSpec::new(SourceSpec::New, "pve")
    }
}

fn created(spec: &MachineSpec) -> std::collections::BTreeMap<String, String> {
    let at = VmRef::new("9001", "pve");
    let params = create(spec, &at, &mark(), Some("fast"), Some("vmbr0")).expect("sound").expect("no clone");
    params.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_new_vm_starts_from_its_disk_and_while_that_is_empty_from_the_first_medium() {
    let sent = created(&install());
    for (key, value) in [
        ("vmid", "9001"),
        ("name", "forge-abababababababab"),
        ("tags", "forge-build"),
        ("agent", "enabled=1"),
        ("memory", "2048"),
        ("net0", "virtio,bridge=vmbr0"),
        ("efidisk0", "fast:1"),
        ("scsi0", "fast:20,discard=on"),
        ("ide2", "local:iso/rocky.iso,media=cdrom"),
        ("ide3", "local:iso/drivers.iso,media=cdrom"),
        ("boot", "order=scsi0;ide2"),
        ("scsihw", "virtio-scsi-single"),
        ("bios", "ovmf"),
    ] {
        assert_eq!(sent.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(sent["description"].contains("abababababababab"), "{}", sent["description"]);
    assert!(!sent.contains_key("onboot"), "that is the template's");
    let own = MachineSpec {
        extra: [("boot", "order=ide2"), ("scsihw", "lsi")]
            .map(|(key, value)| (key.into(), value.into()))
            .into(),
        ..install()
    };
    let sent = created(&own);
    assert_eq!((sent["boot"].as_str(), sent["scsihw"].as_str()), ("order=ide2", "lsi"));
}

#[test]
fn a_medium_stands_on_the_slot_that_is_named_and_the_others_on_those_that_are_left() {
    let third = volume("local:iso/tools.iso");
    let spec = MachineSpec {
        isos: [install().isos, vec![third]].concat(),
        iso_slots: [(0, "sata1".to_owned()), (2, "ide2".to_owned())].into(),
        ..install()
    };
    let sent = created(&spec);
    for (key, value) in [
        ("sata1", "local:iso/rocky.iso,media=cdrom"),
        ("ide3", "local:iso/drivers.iso,media=cdrom"),
        ("ide2", "local:iso/tools.iso,media=cdrom"),
        ("boot", "order=scsi0;sata1"),
    ] {
        assert_eq!(sent.get(key).map(String::as_str), Some(value), "{key}");
    }
    let drives = ["sata1", "ide3", "ide2"].map(|slot| (slot, sent[slot].as_str()));
    let gone = gone(&spec, &present(&drives), None);
    assert_eq!(gone.iter().collect::<Vec<_>>(), [("delete", "sata1,ide3,ide2")]);
    // What a clone's source has there is not overwritten.
    let source = present(&[("sata1", "fast:vm-1-disk-1,size=8G")]);
    let told = occupied(&spec, Some(&source)).unwrap_or_default();
    assert!(told.contains("sata1") && told.contains("fast:vm-1-disk-1"), "{told}");
    assert_eq!(occupied(&spec, Some(&present(&[("sata2", "x")]))), None);
}

#[test]
fn an_image_becomes_the_first_disk_that_is_none_of_the_firmwares() {
    let image = volume("local:import/forge-ab-noble.qcow2");
    let spec =
        MachineSpec { isos: Vec::new(), source: SourceSpec::Image { image, copy: false }, ..install() };
    let sent = created(&spec);
    assert_eq!(sent["scsi0"], "fast:0,import-from=local:import/forge-ab-noble.qcow2,discard=on");
    assert_eq!((sent["efidisk0"].as_str(), sent["boot"].as_str()), ("fast:1", "order=scsi0"));
    let clone = SourceSpec::Clone { vm: VmRef::new("1", "pve"), name: "b".into(), full: true, storage: None };
    let at = VmRef::new("9001", "pve");
    let none = create(&MachineSpec { source: clone, ..spec }, &at, &mark(), None, None);
    assert_eq!(none, Ok(None));
    let without = create(&install(), &at, &mark(), None, None);
    assert_eq!(without, Err("no storage is named for the new disk efidisk0".into()));
}

fn present(pairs: &[(&str, &str)]) -> VmConfig {
    pairs.iter().copied().collect()
}

#[test]
fn drives_go_or_stay_empty_or_stay_as_the_profile_says() {
    let now = present(&[
        ("ide2", "local:iso/rocky.iso,media=cdrom,size=1G"),
        ("ide3", "none,media=cdrom"),
        ("scsi0", "fast:vm-9001-disk-0,size=20G"),
    ]);
    let text =
        |params: &Params| params.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    for (drives, expected) in [
        (IsoDrives::Drop, vec!["delete=ide2,ide3"]),
        (IsoDrives::Empty, vec!["ide2=none,media=cdrom"]),
        (IsoDrives::Keep, vec![]),
    ] {
        let spec = MachineSpec { iso_drives: drives, ..install() };
        assert_eq!(text(&gone(&spec, &now, None)), expected, "{drives:?}");
    }
    assert_eq!(text(&emptied(&install(), &now, None)), ["ide2=none,media=cdrom"]);
    assert!(gone(&install(), &present(&[("scsi0", "x")]), None).is_empty(), "they are gone already");
}

#[test]
fn a_clones_own_drives_stay_also_when_its_source_can_not_be_read_any_more() {
    let clone = SourceSpec::Clone { vm: VmRef::new("1", "pve"), name: "b".into(), full: true, storage: None };
    let isos = vec![Medium::file("/isos/tools 1.iso"), volume("local:iso/there.iso")];
    let spec = MachineSpec { source: clone, isos, ..install() };
    let now = present(&[
        ("ide2", "local:iso/of-the-source.iso,media=cdrom"),
        ("ide3", "local:iso/forge-0123456789abcdef0123-tools_1.iso,media=cdrom"),
        ("ide0", "local:iso/there.iso,media=cdrom"),
        ("ide1", "local:1/vm-1-cloudinit.qcow2,media=cdrom"),
    ]);
    let source = present(&[("ide2", "local:iso/of-the-source.iso,media=cdrom")]);
    let deleted = |source: Option<&VmConfig>| {
        let params = gone(&spec, &now, source);
        let mut slots: Vec<String> =
            params.iter().flat_map(|(_, value)| value.split(',').map(str::to_owned)).collect();
        slots.sort();
        slots
    };
    assert_eq!(deleted(Some(&source)), ["ide0", "ide3"]);
    assert_eq!(deleted(None), ["ide0", "ide3"]);
}
