//! VMs that are no clones on the lab: made with their media, started, and rid of them.

use forge_lab::{Fault, LEAST_PRIVILEGES_PVE9, LabConfig, PveVersion, StorageConfig};
use forge_machine::{
    Attachments, Checksum, DiskSpec, FactsQuery, Fetch, Growth, Hypervisor as _, IsoDrives, Location,
    MachineSpec, Medium, NetworkSpec, PortError, SourceSelector, SourceSpec, Standing,
};
use forge_proxmox::Secret;

use crate::support::{Bench, TOKEN, bench, bench_with, ladder, mark, query, spec};

fn volume(name: &str) -> Medium {
    Medium { location: Location::Volume(name.into()), checksum: Checksum::None }
}

fn disk(slot: &str, size: Option<u64>) -> DiskSpec {
    DiskSpec { slot: slot.into(), size, ..DiskSpec::default() }
}

/// An installer with a disc of drivers.
fn install() -> MachineSpec {
    MachineSpec {
        source: SourceSpec::New,
        isos: vec![volume("local:iso/installer.iso"), volume("local:iso/drivers.iso")],
        cores: Some(2),
        memory_mib: Some(1024),
        disks: vec![disk("efidisk0", None), disk("tpmstate0", None), disk("scsi0", Some(4 << 30))],
        networks: vec![NetworkSpec { model: "virtio".into(), ..NetworkSpec::default() }],
        extra: [("bios", "ovmf"), ("machine", "q35"), ("ostype", "l26"), ("onboot", "1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..spec()
    }
}

fn asked(spec: &MachineSpec) -> FactsQuery {
    let source = match &spec.source {
        SourceSpec::Image { image, .. } => SourceSelector::Image(image.clone()),
        _ => SourceSelector::New,
    };
    FactsQuery { source, isos: spec.isos.clone(), ..query() }
}

fn with_isos(bench: &Bench) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["installer.iso", "drivers.iso"] {
        let file = folder.path().join(name);
        std::fs::write(&file, name.repeat(500)).expect("ours");
        bench.lab.import_iso("local", name, &file).expect("put there");
    }
    folder
}

#[tokio::test]
async fn a_new_vm_is_made_in_one_call_and_loses_its_media_when_it_is_installed() {
    for (byte, drives) in [(1, IsoDrives::Drop), (2, IsoDrives::Empty), (3, IsoDrives::Keep)] {
        let bench = bench().await;
        let _isos = with_isos(&bench);
        let spec = MachineSpec { iso_drives: drives, ..install() };
        let (facts, findings) = bench.pve.facts(&asked(&spec)).await.expect("asked");
        assert_eq!(findings, []);
        assert_eq!(bench.pve.check(&spec, &facts), []);
        let mark = mark(byte);
        let at = bench.pve.propose_id(&spec, &[]).await.expect("an id");
        let task = bench.pve.submit_create(&spec, &at, &mark).await.expect("submitted");
        bench.pve.wait(&task).await.expect("created");
        let get = |key: &str| bench.config_of(&at, key).unwrap_or_default();
        assert!(get("description").contains(mark.nonce.as_str()), "whose it is from the first moment");
        assert!(matches!(bench.pve.standing(&at, &mark.nonce).await, Ok(Standing::Ours { .. })));
        let again = bench.pve.submit_create(&spec, &at, &mark).await;
        assert!(matches!(again, Err(PortError::IdTaken { .. })), "{again:?}");
        let machine = bench.pve.machine(&at);
        let mut first = None;
        for round in ["first", "again"] {
            machine.configure(&spec, &mark, &Attachments::default()).await.expect(round);
            for (key, parts) in [
                ("scsi0", vec!["local:", "size=4G"]),
                ("efidisk0", vec!["local:"]),
                ("tpmstate0", vec!["local:"]),
                ("ide2", vec!["local:iso/installer.iso", "media=cdrom"]),
                ("ide3", vec!["local:iso/drivers.iso", "media=cdrom"]),
                ("boot", vec!["order=scsi0;ide2"]),
                ("net0", vec!["virtio=", "bridge=vmbr0"]),
                ("scsihw", vec!["virtio-scsi-single"]),
                ("agent", vec!["enabled=1"]),
                ("onboot", vec!["0"]),
            ] {
                let value = get(key);
                assert!(parts.iter().all(|part| value.contains(part)), "{key} = {value}, {round}");
            }
            let disks = (get("scsi0"), get("efidisk0"), get("tpmstate0"), get("net0"));
            assert_eq!(*first.get_or_insert_with(|| disks.clone()), disks, "nothing is made a second time");
        }
        let task = machine.submit_start().await.expect("submitted");
        bench.pve.wait(&task).await.expect("started");
        for _ in 0..2 {
            machine.eject(&spec).await.expect("out of the running VM");
            for slot in ["ide2", "ide3"] {
                let kept = drives == IsoDrives::Keep;
                assert_eq!(get(slot).contains("local:iso/"), kept, "{drives:?}: {}", get(slot));
            }
        }
        machine.stop(&ladder(5, true)).await.expect("stopped");
        for _ in 0..2 {
            machine.detach(&spec).await.expect("detached");
        }
        for slot in ["ide2", "ide3"] {
            let left = bench.config_of(&at, slot);
            match drives {
                IsoDrives::Drop => assert_eq!(left, None),
                IsoDrives::Empty => assert_eq!(left.as_deref(), Some("none,media=cdrom")),
                IsoDrives::Keep => assert!(left.is_some_and(|drive| drive.starts_with("local:iso/"))),
            }
        }
        assert_eq!(get("onboot"), "1", "the template's");
        machine.destroy().await.expect("removed");
        bench.lab.stop().await;
    }
}

#[tokio::test]
async fn a_new_vm_goes_to_a_node_that_has_the_media_which_the_profile_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = bench_with(LabConfig {
        run_guests: false,
        nodes: ["pve", "pve2"].map(str::to_owned).to_vec(),
        state_dir: Some(folder.path().to_owned()),
        ..LabConfig::default()
    })
    .await;
    bench.lab.set_token_access(TOKEN, &[("/", &[LEAST_PRIVILEGES_PVE9, &["Sys.Audit"]].concat())]);
    let _isos = with_isos(&bench);
    let asked = asked(&install());
    let (facts, _) = bench.pve.facts(&asked).await.expect("asked");
    assert_eq!(facts.placed.as_deref(), Some("pve"), "both have them: the first by name");
    std::fs::remove_file(folder.path().join("storage/pve/local/template/iso/drivers.iso")).expect("ours");
    let (facts, findings) = bench.pve.facts(&asked).await.expect("asked");
    assert_eq!((facts.placed.as_deref(), findings.as_slice()), (Some("pve2"), &[][..]));
    // No node has it: told of the one where the build would have gone.
    std::fs::remove_file(folder.path().join("storage/pve2/local/template/iso/drivers.iso")).expect("ours");
    let (facts, findings) = bench.pve.facts(&asked).await.expect("asked");
    assert_eq!(facts.placed, None);
    assert!(findings.iter().any(|each| each.fatal && each.message.contains("drivers.iso")), "{findings:?}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_new_vm_is_refused_at_once_to_a_token_that_may_not_set_its_controller() {
    let bench = bench().await;
    let _isos = with_isos(&bench);
    let less: Vec<&str> =
        LEAST_PRIVILEGES_PVE9.iter().copied().filter(|each| *each != "VM.Config.HWType").collect();
    bench.lab.set_token_access(TOKEN, &[("/", &less)]);
    let (_, findings) = bench.pve.facts(&asked(&install())).await.expect("asked");
    let found: Vec<_> = findings.iter().filter(|each| each.fatal).collect();
    assert!(found.len() == 1 && found[0].message.contains("VM.Config.HWType"), "{findings:?}");
    let (_, findings) = bench.pve.facts(&query()).await.expect("asked");
    assert!(findings.iter().all(|each| !each.fatal), "a clone has its controller: {findings:?}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_stopped_vm_loses_its_media_with_their_drives_at_once() {
    let bench = bench().await;
    let _isos = with_isos(&bench);
    let (spec, mark) = (install(), mark(1));
    let at = bench.pve.propose_id(&spec, &[]).await.expect("an id");
    let task = bench.pve.submit_create(&spec, &at, &mark).await.expect("submitted");
    bench.pve.wait(&task).await.expect("created");
    let machine = bench.pve.machine(&at);
    for _ in 0..2 {
        machine.eject(&spec).await.expect("taken out");
        assert_eq!((bench.config_of(&at, "ide2"), bench.config_of(&at, "ide3")), (None, None));
        assert_eq!(bench.config_of(&at, "boot").as_deref(), Some("order=scsi0"));
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_new_vm_whose_creation_fails_in_its_task_is_not_there_and_says_why() {
    let bench = bench().await;
    let (spec, mark) = (install(), mark(1));
    let at = bench.pve.propose_id(&spec, &[]).await.expect("an id");
    let task = bench.pve.submit_create(&spec, &at, &mark).await.expect("submitted");
    let error = bench.pve.wait(&task).await.expect_err("no such medium");
    assert!(format!("{error}").contains("local:iso/installer.iso"), "{error}");
    assert!(matches!(bench.pve.standing(&at, &mark.nonce).await, Ok(Standing::Gone)));
    // The answer is lost: the VM is there all the same, and known by its nonce.
    let _isos = with_isos(&bench);
    bench.lab.faults().on("POST", "/nodes/*/qemu").then(Fault::DoThenDrop);
    let error = bench.pve.submit_create(&spec, &at, &mark).await.expect_err("lost");
    assert!(error.is_outcome_unknown(), "{error}");
    let waited = async {
        loop {
            match bench.pve.standing(&at, &mark.nonce).await {
                Ok(Standing::Ours { .. }) => return,
                _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(120), waited).await.expect("it is there");
    bench.lab.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_media_is_told_before_anything_is_made() {
    let bench = bench_with(LabConfig {
        run_guests: false,
        storages: vec![StorageConfig::of("local", &["images", "iso"])],
        ..LabConfig::default()
    })
    .await;
    let _isos = with_isos(&bench);
    let file = |path: &str| Medium::file(path);
    let image = |medium: Medium| SourceSpec::Image { image: medium, copy: false };
    for (case, change, setting, words) in [
        (
            "a name",
            install().with_isos(vec![volume("local:iso/instaler.iso")]),
            "source.iso",
            "installer.iso",
        ),
        ("a storage", install().with_isos(vec![volume("lokal:iso/installer.iso")]), "source.iso", "lokal"),
        (
            "a file",
            install().with_isos(vec![volume("local:iso/drivers.iso"), file("/nowhere/x.iso")]),
            "source.additional-isos[0]",
            "/nowhere/x.iso",
        ),
        (
            "a content type",
            MachineSpec { source: image(file("/nowhere/x.qcow2")), isos: vec![], ..install() },
            "source.image",
            "content type `import`",
        ),
    ] {
        let (_, findings) = bench.pve.facts(&asked(&change)).await.expect("asked");
        let found: Vec<_> = findings.iter().filter(|finding| finding.setting == setting).collect();
        let told = format!("{findings:?}");
        assert!(found.len() == 1 && found[0].fatal && told.contains(words), "{case}: {told}");
    }
    let (facts, _) = bench.pve.facts(&asked(&install())).await.expect("asked");
    let none = install().with_isos(Vec::new());
    assert!(bench.pve.check(&none, &facts).iter().any(|each| each.fatal && each.setting == "source"));
    let forgetful = MachineSpec { disks: vec![disk("scsi0", Some(1 << 30))], ..install() };
    let warned = bench.pve.check(&forgetful, &facts);
    assert!(warned.iter().any(|each| !each.fatal && each.setting == "vm.bios"), "{warned:?}");
    bench.lab.stop().await;
}

trait WithIsos {
    fn with_isos(self, isos: Vec<Medium>) -> Self;
}

impl WithIsos for MachineSpec {
    fn with_isos(self, isos: Vec<Medium>) -> Self {
        Self { isos, ..self }
    }
}

/// Files of this machine only.
struct Here;

#[async_trait::async_trait]
impl Fetch for Here {
    async fn fetch(
        &self,
        medium: &Medium,
        _growth: Option<&Growth>,
    ) -> Result<std::path::PathBuf, PortError> {
        Err(PortError::NotFound { what: medium.to_string() })
    }

    fn tell(&self, _what: &str) {}
}

#[tokio::test]
async fn a_disk_image_is_sent_once_and_becomes_the_first_disk_grown_to_its_size() {
    let bench = bench().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cloud.img");
    let made = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&file)
        .arg("256M")
        .status();
    assert!(made.expect("qemu-img runs").success());
    let pve = bench.with_media(false);
    let spec = MachineSpec {
        source: SourceSpec::Image { image: Medium::file(&file), copy: false },
        disks: vec![DiskSpec { discard: Some(true), ..disk("virtio0", Some(2 << 30)) }],
        networks: install().networks,
        ..spec()
    };
    let (facts, findings) = pve.facts(&asked(&spec)).await.expect("asked");
    assert_eq!(findings, []);
    assert_eq!(pve.check(&spec, &facts), []);
    let mut volumes = Vec::new();
    for byte in [1, 2] {
        let prepared = pve.prepare_media(&spec, &Here).await.expect("brought");
        let SourceSpec::Image { image, .. } = &prepared.source else { panic!("{prepared:?}") };
        volumes.push(image.to_string());
        let mark = mark(byte);
        let at = pve.propose_id(&prepared, &[]).await.expect("an id");
        let task = pve.submit_create(&prepared, &at, &mark).await.expect("submitted");
        pve.wait(&task).await.expect("created");
        let machine = pve.machine(&at);
        for round in ["first", "again"] {
            machine.configure(&prepared, &mark, &Attachments::default()).await.expect(round);
            let disk = bench.config_of(&at, "virtio0").unwrap_or_default();
            assert!(disk.contains("size=2G") && disk.contains("discard=on"), "{round}: {disk}");
            assert_eq!(bench.config_of(&at, "boot").as_deref(), Some("order=virtio0"), "{round}");
        }
    }
    assert!(
        volumes[0].starts_with("local:import/forge-") && volumes[0].ends_with("-cloud.qcow2"),
        "{volumes:?}"
    );
    assert_eq!(volumes[0], volumes[1]);
    let sent = bench.lab.requests().iter().filter(|call| call.path.ends_with("/upload")).count();
    assert_eq!(sent, 1, "the second build finds it there");
    bench.lab.stop().await;
}

#[tokio::test]
async fn where_no_images_can_be_uploaded_the_disk_of_a_vm_is_imported() {
    let bench = bench_with(LabConfig {
        run_guests: false,
        version: PveVersion::V8,
        storages: vec![StorageConfig::of("local", &["images", "iso"])],
        ..LabConfig::default()
    })
    .await;
    let source = bench.lab.vm(100).expect("the boot VM").config["scsi0"].clone();
    let source = source.split(',').next().expect("a volume");
    let spec = MachineSpec {
        source: SourceSpec::Image { image: volume(source), copy: false },
        disks: vec![disk("scsi0", None)],
        networks: install().networks,
        ..spec()
    };
    let (facts, findings) = bench.pve.facts(&asked(&spec)).await.expect("asked");
    let fatal: Vec<_> = findings.iter().filter(|finding| finding.setting.starts_with("source")).collect();
    assert!(fatal.is_empty(), "{fatal:?}");
    assert_eq!(bench.pve.check(&spec, &facts), []);
    let prepared = bench.pve.prepare_media(&spec, &Here).await.expect("it is there");
    let mark = mark(1);
    let at = bench.pve.propose_id(&prepared, &[]).await.expect("an id");
    let task = bench.pve.submit_create(&prepared, &at, &mark).await.expect("submitted");
    bench.pve.wait(&task).await.expect("created");
    assert!(bench.config_of(&at, "scsi0").is_some_and(|disk| disk.contains("size=1G")));
    bench.lab.stop().await;
}

#[tokio::test]
async fn where_no_images_can_be_uploaded_root_has_a_file_imported_by_its_path() {
    let bench = bench_with(LabConfig {
        run_guests: false,
        version: PveVersion::V8,
        storages: vec![StorageConfig::of("local", &["images", "iso"])],
        ..LabConfig::default()
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cloud.qcow2");
    std::fs::write(&file, "an image in name only").expect("ours");
    let spec = MachineSpec {
        source: SourceSpec::Image { image: Medium::file(&file), copy: false },
        disks: vec![disk("scsi0", None)],
        networks: install().networks,
        ..spec()
    };
    // A token may not, and is told who may.
    let (_, findings) = bench.pve.facts(&asked(&spec)).await.expect("asked");
    let told = findings.iter().find(|finding| finding.fatal && finding.setting == "source.image");
    assert!(told.is_some_and(|finding| finding.help.contains("`user = \"root@pam\"`")), "{findings:?}");

    bench.lab.set_password("root@pam", "correct horse");
    let pve = bench.client(|config| {
        config.token_id = "root@pam".into();
        config.token_secret = Secret::new("correct horse");
    });
    let (facts, findings) = pve.facts(&asked(&spec)).await.expect("asked");
    assert_eq!(findings, []);
    assert_eq!(pve.check(&spec, &facts), []);
    let prepared = pve.prepare_media(&spec, &Here).await.expect("brought");
    let SourceSpec::Image { image, .. } = &prepared.source else { panic!("{prepared:?}") };
    let path = image.to_string();
    assert!(
        path.starts_with("/var/lib/vz/template/iso/forge-") && path.ends_with("-cloud.img"),
        "what is said to be an ISO: {path}"
    );
    let mark = mark(1);
    let at = pve.propose_id(&prepared, &[]).await.expect("an id");
    let task = pve.submit_create(&prepared, &at, &mark).await.expect("submitted");
    pve.wait(&task).await.expect("created");
    assert!(bench.config_of(&at, "scsi0").is_some_and(|disk| disk.contains("size=1G")));
    bench.lab.stop().await;
}
