//! Every setting of the hardware on the lab: set once, the same when set again, and the rest as the source had it.

use forge_lab::{ImportVm, LabConfig, PveVersion, StorageConfig};
use forge_machine::{
    Attachments, Checksum, CloudInitDrive, CloudInitSettings, DiskSpec, Fetch, Growth, Hypervisor as _,
    Location, MachineSpec, Medium, NetworkSpec, PortError, SourceSpec, VmRef,
};

use crate::support::{bench, bench_with, mark, query, spec};

fn text(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn disk(slot: &str, size: Option<u64>, options: &[(&str, &str)]) -> DiskSpec {
    DiskSpec { slot: slot.into(), size, options: text(options), ..DiskSpec::default() }
}

/// All that a profile can ask of a clone.
fn everything() -> MachineSpec {
    let net = |vlan, mac: Option<&str>, options: &[(&str, &str)]| NetworkSpec {
        model: "virtio".into(),
        bridge: Some("vmbr0".into()),
        vlan,
        mac: mac.map(str::to_owned),
        options: text(options),
    };
    MachineSpec {
        cores: Some(2),
        sockets: Some(2),
        cpu: Some("x86-64-v2-AES,flags=+aes".into()),
        memory_mib: Some(2048),
        disks: vec![
            disk("scsi0", Some(3 << 30), &[("cache", "writeback"), ("ssd", "1"), ("iothread", "1")]),
            DiskSpec {
                discard: Some(true),
                storage: Some("fast".into()),
                ..disk("virtio1", Some(5 << 30), &[("format", "raw"), ("aio", "native"), ("backup", "0")])
            },
            disk("efidisk0", None, &[("efitype", "4m"), ("pre-enrolled-keys", "1")]),
            disk("tpmstate0", None, &[("version", "v2.0")]),
        ],
        networks: vec![
            net(Some(7), None, &[("firewall", "1"), ("queues", "2")]),
            net(None, Some("BC:24:11:00:00:01"), &[("mtu", "1400"), ("link_down", "1")]),
        ],
        extra: text(&[
            ("balloon", "512"),
            ("bios", "ovmf"),
            ("boot", "order=virtio1;scsi0;net0"),
            ("hotplug", "network,disk"),
            ("machine", "q35"),
            ("numa", "1"),
            ("onboot", "1"),
            ("ostype", "l26"),
            ("protection", "1"),
            ("rng0", "source=/dev/urandom,max_bytes=1024"),
            ("scsihw", "virtio-scsi-single"),
            ("serial0", "socket"),
            ("startup", "order=3"),
            ("vga", "virtio,memory=64"),
        ]),
        ..spec()
    }
}

fn two_storages(version: PveVersion) -> LabConfig {
    LabConfig {
        run_guests: false,
        version,
        storages: vec![StorageConfig::everything("local"), StorageConfig::everything("fast")],
        ..LabConfig::default()
    }
}

#[tokio::test]
async fn every_setting_reaches_the_vm_once_and_is_the_same_when_set_again() {
    let bench = bench_with(two_storages(PveVersion::V9)).await;
    let mark = mark(1);
    let at = bench.clone_vm(&mark).await;
    let machine = bench.pve.machine(&at);
    let spec = everything();
    let (facts, findings) = bench.pve.facts(&query()).await.expect("asked");
    assert_eq!(findings, []);
    assert_eq!(bench.pve.check(&spec, &facts), []);
    let mut disks = Vec::new();
    for round in ["first", "again"] {
        let configured = machine.configure(&spec, &mark, &Attachments::default()).await;
        configured.unwrap_or_else(|error| panic!("{round}: {error:?}"));
        let get = |key: &str| bench.config_of(&at, key).unwrap_or_default();
        for (key, value) in [
            ("cores", "2"),
            ("sockets", "2"),
            ("cpu", "x86-64-v2-AES,flags=+aes"),
            ("memory", "2048"),
            ("balloon", "512"),
            ("bios", "ovmf"),
            ("boot", "order=virtio1;scsi0;net0"),
            ("hotplug", "network,disk"),
            ("machine", "q35"),
            ("numa", "1"),
            ("onboot", "0"),
            ("protection", "0"),
            ("ostype", "l26"),
            ("rng0", "source=/dev/urandom,max_bytes=1024"),
            ("scsihw", "virtio-scsi-single"),
            ("serial0", "socket"),
            ("startup", "order=3"),
            ("vga", "virtio,memory=64"),
        ] {
            assert_eq!(get(key), value, "{key}, {round}");
        }
        for (key, parts) in [
            ("scsi0", vec!["local:", "size=3G", "cache=writeback", "ssd=1", "iothread=1"]),
            ("virtio1", vec!["fast:", ".raw", "size=5G", "discard=on", "aio=native", "backup=0"]),
            ("efidisk0", vec!["local:", "efitype=4m", "pre-enrolled-keys=1"]),
            ("tpmstate0", vec!["local:", "version=v2.0"]),
            ("net0", vec!["virtio=", "tag=7", "firewall=1", "queues=2", "bridge=vmbr0"]),
            ("net1", vec!["virtio=BC:24:11:00:00:01", "mtu=1400", "link_down=1", "bridge=vmbr0"]),
        ] {
            let value = get(key);
            assert!(parts.iter().all(|part| value.contains(part)), "{key} = {value}, {round}: {parts:?}");
        }
        let volumes: Vec<String> =
            ["scsi0", "virtio1", "efidisk0", "tpmstate0"].iter().map(|key| get(key)).collect();
        if disks.is_empty() {
            disks = volumes;
        } else {
            assert_eq!(disks, volumes, "nothing was made a second time");
        }
        assert_eq!(bench.config_of(&at, "unused0"), None, "{round}");
    }
    machine.detach(&spec).await.expect("detached");
    assert_eq!(bench.config_of(&at, "onboot").as_deref(), Some("1"), "the template starts with its node");
    assert_eq!(bench.config_of(&at, "protection").as_deref(), Some("1"));
    machine.destroy().await.expect("a protected build VM is removed all the same");
    bench.lab.stop().await;
}

#[tokio::test]
async fn what_the_profile_does_not_name_stays_as_the_source_has_it() {
    let bench = bench().await;
    let mark = mark(2);
    let source: Vec<(String, String)> = bench.lab.vm(100).expect("it is there").config.into_iter().collect();
    let at = bench.clone_vm(&mark).await;
    let machine = bench.pve.machine(&at);
    machine.configure(&spec(), &mark, &Attachments::default()).await.expect("configured");
    // A clone is another VM: these are its own.
    let own = ["name", "tags", "description", "smbios1", "vmgenid", "meta", "onboot", "protection", "digest"];
    for (key, value) in source.iter().filter(|(key, _)| !own.contains(&key.as_str())) {
        let got = bench.config_of(&at, key).unwrap_or_default();
        match key.as_str() {
            // Volume and MAC address are the clone's own.
            key if key.starts_with("scsi") || key.starts_with("net") || key.starts_with("ide") => {
                let rest = |text: &str| text.split_once(',').map(|(_, rest)| rest.to_owned());
                assert_eq!(rest(&got), rest(value), "{key}");
            }
            key => assert_eq!(got, *value, "{key}"),
        }
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_disk_is_moved_to_the_storage_that_the_profile_names_and_grown_there() {
    let bench = bench_with(two_storages(PveVersion::V9)).await;
    let mark = mark(3);
    let at = bench.clone_vm(&mark).await;
    let machine = bench.pve.machine(&at);
    let spec = MachineSpec {
        disks: vec![DiskSpec { storage: Some("fast".into()), ..disk("scsi0", Some(4 << 30), &[]) }],
        ..spec()
    };
    for _ in 0..2 {
        machine.configure(&spec, &mark, &Attachments::default()).await.expect("configured");
        let moved = bench.config_of(&at, "scsi0").expect("scsi0");
        assert!(moved.starts_with("fast:") && moved.contains("size=4G"), "{moved}");
        assert_eq!(bench.config_of(&at, "unused0"), None, "the old copy is gone");
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn settings_are_judged_by_the_release_of_the_server() {
    for (version, expected) in [(PveVersion::V8, 1), (PveVersion::V9, 0)] {
        let bench = bench_with(two_storages(version)).await;
        let (facts, _) = bench.pve.facts(&query()).await.expect("asked");
        let spec = MachineSpec { extra: text(&[("allow-ksm", "0")]), ..spec() };
        let found = bench.pve.check(&spec, &facts);
        assert_eq!(found.iter().filter(|each| each.setting == "vm.proxmox.allow-ksm").count(), expected);
        let unknown = MachineSpec { cpu: Some("hots".into()), ..spec };
        let found = bench.pve.check(&unknown, &facts);
        let cpu = found.iter().find(|each| each.setting == "vm.cpu").expect("told");
        assert!(cpu.fatal && cpu.help.contains("did you mean `host`?"), "{cpu:?}");
        bench.lab.stop().await;
    }
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBs/pKYCXUa1NsAQUngaX6ppcDn49GIeAAm/mrcaOcUQ ops";

#[tokio::test]
async fn the_templates_cloud_init_drive_has_the_fields_of_the_profile_and_else_those_of_the_source() {
    let bench = bench().await;
    let source =
        ImportVm { vmid: 101, name: "with-drive".into(), cloudinit_drive: true, ..ImportVm::default() };
    bench.lab.import_vm(source).await.expect("imported");
    let change = forge_proxmox::api::encode::Params::new()
        .with("ciuser", "site")
        .with("searchdomain", "site.example")
        .with("ipconfig0", "ip=192.0.2.5/24,gw=192.0.2.1");
    bench.pve.client().put("/nodes/pve/qemu/101/config", &change).await.expect("changed");
    let of_source = SourceSpec::Clone {
        vm: VmRef::new("101", "pve"),
        name: "with-drive".into(),
        full: true,
        storage: None,
    };
    let drive = CloudInitDrive { slot: "ide2".into(), storage: "local".into(), inherited: true };
    let plain = MachineSpec { source: of_source, cloud_init: Some(drive), ..spec() };
    let named = MachineSpec {
        extra: text(&[
            ("ciuser", "ops"),
            ("sshkeys", KEY),
            ("ipconfig0", "ip=dhcp,ip6=auto"),
            ("nameserver", "192.0.2.53 192.0.2.54"),
            ("cicustom", "vendor=local:snippets/vendor.yaml"),
            ("ciupgrade", "0"),
        ]),
        ..plain.clone()
    };
    let seed = Attachments {
        cloud_init: Some(CloudInitSettings {
            user: "forge".into(),
            password_hash: None,
            ssh_keys: vec![KEY.into()],
            ip_config: "ip=dhcp".into(),
        }),
        ..Attachments::default()
    };
    for (byte, spec, expected) in [
        (
            1,
            &plain,
            [
                ("ciuser", Some("site")),
                ("ipconfig0", Some("ip=192.0.2.5/24,gw=192.0.2.1")),
                ("sshkeys", None),
            ],
        ),
        (
            2,
            &named,
            [
                ("ciuser", Some("ops")),
                ("ipconfig0", Some("ip=dhcp,ip6=auto")),
                ("nameserver", Some("192.0.2.53 192.0.2.54")),
            ],
        ),
    ] {
        let mark = mark(byte);
        let at = bench.pve.propose_id(spec, &[]).await.expect("an id");
        let task = bench.pve.submit_create(spec, &at, &mark).await.expect("submitted");
        bench.pve.wait(&task).await.expect("cloned");
        let machine = bench.pve.machine(&at);
        machine.configure(spec, &mark, &seed).await.expect("configured");
        assert_eq!(bench.config_of(&at, "ciuser").as_deref(), Some("forge"), "during the build");
        assert_eq!(bench.config_of(&at, "cicustom"), None, "during the build");
        for _ in 0..2 {
            machine.detach(spec).await.expect("detached");
            for (key, value) in expected {
                assert_eq!(bench.config_of(&at, key).as_deref(), value, "{key}");
            }
            assert_eq!(bench.config_of(&at, "searchdomain").as_deref(), Some("site.example"));
        }
        if byte == 2 {
            let keys = bench.config_of(&at, "sshkeys").expect("set");
            assert_eq!(keys, forge_proxmox::api::encode::escape(KEY));
            assert_eq!(
                bench.config_of(&at, "cicustom").as_deref(),
                Some("vendor=local:snippets/vendor.yaml")
            );
            assert_eq!(bench.config_of(&at, "ciupgrade").as_deref(), Some("0"));
        }
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_clone_goes_to_the_node_and_the_storage_that_are_asked_for_full_or_linked() {
    let shared = |name: &str| StorageConfig::everything(name).shared();
    let bench = bench_with(LabConfig {
        run_guests: false,
        nodes: vec!["pve".into(), "pve2".into()],
        storages: vec![shared("local"), shared("fast")],
        ..LabConfig::default()
    })
    .await;
    let template = ImportVm { vmid: 102, name: "base".into(), template: true, ..ImportVm::default() };
    bench.lab.import_vm(template).await.expect("imported");
    for (byte, full, node, storage, expected) in [
        (1, true, "pve2", Some("fast"), "fast:"),
        (2, true, "pve", None, "local:"),
        (3, false, "pve", None, "local:102/base-102-disk-0"),
        (4, false, "pve2", None, "local:102/base-102-disk-0"),
    ] {
        let spec = MachineSpec {
            source: SourceSpec::Clone {
                vm: VmRef::new("102", "pve"),
                name: "base".into(),
                full,
                storage: storage.map(str::to_owned),
            },
            node: node.into(),
            ..spec()
        };
        let mark = mark(byte);
        let at = bench.pve.propose_id(&spec, &[]).await.expect("an id");
        let task = bench.pve.submit_create(&spec, &at, &mark).await.expect("submitted");
        bench.pve.wait(&task).await.expect("cloned");
        bench.pve.machine(&at).configure(&spec, &mark, &Attachments::default()).await.expect("configured");
        let vm = bench.lab.vm(at.id.parse().expect("a number")).expect("it is there");
        assert_eq!(vm.node, node, "{full} {node}");
        assert!(vm.config["scsi0"].starts_with(expected), "{full} {node}: {}", vm.config["scsi0"]);
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_boot_vm_finds_the_media_in_drives_of_their_own_and_the_template_has_none_of_them() {
    let bench = bench().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut isos = Vec::new();
    for name in ["tools.iso", "more.iso"] {
        let file = folder.path().join(name);
        std::fs::write(&file, name.repeat(1000)).expect("ours");
        isos.push(Medium::file(file));
    }
    bench.lab.import_iso("local", "there.iso", &folder.path().join("tools.iso")).expect("put there");
    isos.push(Medium { location: Location::Volume("local:iso/there.iso".into()), checksum: Checksum::None });
    let drive = CloudInitDrive { slot: "ide2".into(), storage: "local".into(), inherited: false };
    let spec = MachineSpec { isos, cloud_init: Some(drive), ..spec() };
    // A token that may not put media there is told so by the plan.
    let (facts, _) = bench.pve.facts(&query()).await.expect("asked");
    let told = bench.pve.check(&spec, &facts);
    assert!(told.len() == 1 && told[0].message.contains("Datastore.AllocateTemplate"), "{told:?}");
    let pve = bench.with_media(false);
    let (facts, _) = pve.facts(&query()).await.expect("asked");
    assert_eq!(pve.check(&spec, &facts), []);
    let prepared = pve.prepare_media(&spec, &Nobody).await.expect("brought");
    let volumes: Vec<String> = prepared.isos.iter().map(ToString::to_string).collect();
    assert!(volumes[0].starts_with("local:iso/forge-") && volumes[0].ends_with("-tools.iso"), "{volumes:?}");
    assert_eq!(volumes[2], "local:iso/there.iso");
    let mark = mark(5);
    let at = bench.clone_vm(&mark).await;
    let machine = bench.pve.machine(&at);
    for _ in 0..2 {
        machine.configure(&prepared, &mark, &Attachments::default()).await.expect("configured");
        for (slot, volume) in ["ide3", "ide0", "ide1"].iter().zip(&volumes) {
            let drive = bench.config_of(&at, slot).unwrap_or_default();
            assert!(drive.starts_with(volume.as_str()) && drive.contains("media=cdrom"), "{slot}: {drive}");
        }
    }
    // Taking off knows the spec of the plan, before the media had their places.
    for _ in 0..2 {
        machine.detach(&spec).await.expect("detached");
        for slot in ["ide3", "ide0", "ide1"] {
            assert_eq!(bench.config_of(&at, slot), None, "{slot}");
        }
        assert!(bench.config_of(&at, "ide2").is_some_and(|drive| drive.contains("cloudinit")));
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_medium_is_in_the_drive_that_the_profile_names_and_takes_no_disks_place() {
    let bench = bench().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("there.iso");
    std::fs::write(&file, "a medium").expect("ours");
    for name in ["one.iso", "two.iso"] {
        bench.lab.import_iso("local", name, &file).expect("put there");
    }
    let volume = |name: &str| Medium {
        location: Location::Volume(format!("local:iso/{name}")),
        checksum: Checksum::None,
    };
    let named = |slot: &str| MachineSpec {
        isos: vec![volume("one.iso"), volume("two.iso")],
        iso_slots: [(1, slot.to_owned())].into(),
        ..spec()
    };
    let (facts, _) = bench.pve.facts(&query()).await.expect("asked");
    let told = bench.pve.check(&named("scsi0"), &facts);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].fatal && told[0].setting == "source.additional-isos[0]", "{told:?}");
    assert!(told[0].message.contains("scsi0 is the slot of a disk"), "{told:?}");
    assert_eq!(bench.pve.check(&named("sata3"), &facts), []);

    let mark = mark(6);
    let at = bench.clone_vm(&mark).await;
    let machine = bench.pve.machine(&at);
    // The source's disk stays, whoever asks for it.
    let error =
        machine.configure(&named("scsi0"), &mark, &Attachments::default()).await.expect_err("refused");
    assert!(error.to_string().contains("name another `slot`"), "{error}");
    assert!(bench.config_of(&at, "scsi0").is_some_and(|disk| !disk.contains("cdrom")));
    for _ in 0..2 {
        machine.configure(&named("sata3"), &mark, &Attachments::default()).await.expect("configured");
        for (slot, volume) in [("ide2", "local:iso/one.iso"), ("sata3", "local:iso/two.iso")] {
            let drive = bench.config_of(&at, slot).unwrap_or_default();
            assert!(drive.starts_with(volume) && drive.contains("media=cdrom"), "{slot}: {drive}");
        }
    }
    machine.detach(&named("sata3")).await.expect("detached");
    assert_eq!((bench.config_of(&at, "ide2"), bench.config_of(&at, "sata3")), (None, None));
    bench.lab.stop().await;
}

/// All media of these tests are here.
struct Nobody;

#[async_trait::async_trait]
impl Fetch for Nobody {
    async fn fetch(
        &self,
        medium: &Medium,
        _growth: Option<&Growth>,
    ) -> Result<std::path::PathBuf, PortError> {
        Err(PortError::NotFound { what: medium.to_string() })
    }

    fn tell(&self, _what: &str) {}
}
