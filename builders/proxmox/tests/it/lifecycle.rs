//! A build's way over the port, without a guest.

use std::time::Duration;

use forge_lab::Fault;
use forge_machine::{
    Artefact, Attachments, BuildState, CloudInitDrive, CloudInitSettings, DiskSpec, Finish, Hypervisor as _,
    NetworkSpec, Ownership, PortError, Power, Standing, StopRung,
};

use crate::support::{SOURCE, bench, ladder, mark, spec};

fn finish(notes: &str) -> Finish {
    Finish::Template {
        name: "tpl-debian-12".into(),
        tags: vec!["golden".into(), "debian".into()],
        notes: notes.into(),
    }
}

#[tokio::test]
async fn a_clone_becomes_a_template_and_stays_one() {
    let bench = bench().await;
    let mark = mark(1);
    let at = bench.clone_vm(&mark).await;
    assert_eq!(bench.config_of(&at, "name").as_deref(), Some("forge-0101010101010101"));
    let ours = Standing::Ours { power: Power::Stopped, kept: false };
    assert_eq!(bench.pve.standing(&at, &mark.nonce).await.expect("asked"), ours);

    let machine = bench.pve.machine(&at);
    let mut spec = spec();
    spec.cores = Some(2);
    spec.memory_mib = Some(1024);
    spec.disks = vec![DiskSpec {
        slot: "scsi0".into(),
        size: Some(3 << 30),
        discard: Some(true),
        ..DiskSpec::default()
    }];
    spec.networks =
        vec![NetworkSpec { model: "virtio".into(), bridge: None, vlan: Some(7), ..NetworkSpec::default() }];
    spec.cloud_init = Some(CloudInitDrive { slot: "ide2".into(), storage: "local".into(), inherited: false });
    let seed = Attachments {
        smbios_serial: Some("ds=nocloud;s=http://10.0.2.2:8800/x/".into()),
        cloud_init: Some(CloudInitSettings {
            user: "forge".into(),
            password_hash: None,
            ssh_keys: vec![
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBs/pKYCXUa1NsAQUngaX6ppcDn49GIeAAm/mrcaOcUQ forge"
                    .into(),
            ],
            ip_config: "ip=dhcp".into(),
        }),
        ..Attachments::default()
    };
    let mac_before = bench.config_of(&at, "net0").expect("net0");
    for round in ["first", "again"] {
        machine.configure(&spec, &mark, &seed).await.unwrap_or_else(|error| panic!("{round}: {error:?}"));
        assert_eq!(bench.config_of(&at, "cores").as_deref(), Some("2"));
        assert_eq!(bench.config_of(&at, "memory").as_deref(), Some("1024"));
        assert_eq!(bench.config_of(&at, "onboot").as_deref().unwrap_or("0"), "0");
        assert_eq!(bench.config_of(&at, "tags").as_deref(), Some("forge-build"));
        let disk = bench.config_of(&at, "scsi0").expect("scsi0");
        assert!(disk.contains("size=3G") && disk.contains("discard=on"), "{disk}");
        let net = bench.config_of(&at, "net0").expect("net0");
        let mac = mac_before.split(',').next().expect("a MAC");
        assert!(net.starts_with(mac) && net.contains("tag=7") && net.contains("bridge=vmbr0"), "{net}");
        assert!(bench.config_of(&at, "ide2").is_some_and(|drive| drive.contains("cloudinit")));
        assert!(bench.config_of(&at, "smbios1").is_some_and(|text| text.contains("serial=")));
        assert_eq!(bench.config_of(&at, "ciuser").as_deref(), Some("forge"));
    }

    for _ in 0..2 {
        let task = machine.submit_start().await.expect("submitted");
        bench.pve.wait(&task).await.expect("started");
        assert_eq!(machine.state().await.expect("asked").power, Power::Running);
    }
    assert_eq!(machine.stop(&ladder(20, true)).await.expect("stopped"), StopRung::Shutdown);
    assert_eq!(machine.stop(&ladder(20, true)).await.expect("stopped"), StopRung::AlreadyStopped);
    machine.detach(&spec).await.expect("detached");
    let smbios = bench.config_of(&at, "smbios1").expect("smbios1");
    assert!(smbios.starts_with("uuid=") && !smbios.contains("serial"), "{smbios}");
    assert_eq!((bench.config_of(&at, "ciuser"), bench.config_of(&at, "sshkeys")), (None, None));

    let notes = format!("# Debian 12\n\n{}", mark.to_description());
    let task = machine.submit_finalize(&finish(&notes)).await.expect("submitted");
    bench.pve.wait(&task).await.expect("converted");
    assert_eq!(bench.pve.standing(&at, &mark.nonce).await.expect("asked"), Standing::Committed);
    let unpublished = bench.lab.vm(at.id.parse().expect("a number")).expect("there");
    assert_eq!((unpublished.name, unpublished.tags.as_str()), (mark.nonce.vm_name(), "forge-build"));
    for _ in 0..2 {
        machine.publish(&finish(&notes)).await.expect("published");
    }
    let made = machine.artefact(&finish(&notes)).await.expect("it is there");
    assert_eq!(made, Artefact::Template { vm: at.clone(), name: "tpl-debian-12".into() });
    let again = machine.submit_finalize(&finish(&notes)).await.expect("repeating is no error");
    assert!(again.is_finished());

    let error = machine.destroy().await.expect_err("a template is never removed");
    assert!(matches!(error, PortError::Failed { .. }), "{error:?}");
    assert!(
        bench
            .lab
            .vm(at.id.parse().expect("a number"))
            .is_some_and(|vm| vm.template && vm.tags == "debian;golden")
    );
    let bearers = bench.pve.templates(Some("golden")).await.expect("asked");
    assert!(bearers.len() == 1 && bearers[0].vm == at, "{bearers:?}");
    assert_eq!(bench.pve.templates(Some("silver")).await.expect("asked"), []);
    bench.lab.stop().await;
}

#[tokio::test]
async fn what_a_failed_build_made_is_removed_whatever_it_inherited() {
    let bench = bench().await;
    let mark = mark(2);
    let at = bench.clone_vm(&mark).await;
    let machine = bench.pve.machine(&at);
    let task = machine.submit_start().await.expect("submitted");
    bench.pve.wait(&task).await.expect("started");
    // As inherited from a protected source, by a build that died before its first change.
    let protect = forge_proxmox::api::encode::Params::new().with("protection", 1);
    bench.pve.client().put(&format!("/nodes/pve/qemu/{}/config", at.id), &protect).await.expect("set");

    machine.power_off().await.expect("off");
    machine.power_off().await.expect("off already");
    machine.destroy().await.expect("removed");
    assert_eq!(bench.pve.standing(&at, &mark.nonce).await.expect("asked"), Standing::Gone);
    machine.destroy().await.expect("gone already");
    machine.power_off().await.expect("gone already");
    assert!(matches!(machine.state().await, Err(PortError::NotFound { .. })));
    let left: Vec<u32> = bench.lab.vms().iter().map(|vm| vm.vmid).collect();
    assert_eq!((left, bench.lab.image_files().len()), (vec![SOURCE], 1));
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_disk_that_bears_the_vmid_and_is_not_the_vms_own_outlives_it() {
    let bench = bench().await;
    let at = bench.clone_vm(&mark(2)).await;
    // A shared storage holds the disks of other clusters too, with the same numbers.
    let size = forge_proxmox::api::encode::Params::new().with("vmid", &at.id).with("size", "1M");
    let foreign = format!("vm-{}-disk-7.raw", at.id);
    let content = "/nodes/pve/storage/local/content";
    bench.pve.client().post(content, &size.with("filename", &foreign)).await.expect("put there");
    bench.pve.machine(&at).destroy().await.expect("removed");
    assert_eq!(bench.pve.standing(&at, &mark(2).nonce).await.expect("asked"), Standing::Gone);
    let of_its_number: Vec<String> = bench
        .lab
        .image_files()
        .iter()
        .map(|path| path.display().to_string())
        .filter(|path| path.contains(&format!("/{}/", at.id)))
        .collect();
    assert!(of_its_number.len() == 1 && of_its_number[0].ends_with(&foreign), "{of_its_number:?}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_kept_vm_says_so_and_a_foreign_one_is_told_apart() {
    let bench = bench().await;
    let building = mark(3);
    let at = bench.clone_vm(&building).await;
    let kept = Ownership { state: BuildState::Kept, ..building.clone() };
    bench.pve.machine(&at).describe(&kept).await.expect("marked");
    assert_eq!(bench.config_of(&at, "tags").as_deref(), Some("forge-kept"));
    let standing = bench.pve.standing(&at, &building.nonce).await.expect("asked");
    assert_eq!(standing, Standing::Ours { power: Power::Stopped, kept: true });
    let other = mark(4).nonce;
    let standing = bench.pve.standing(&at, &other).await.expect("asked");
    assert_eq!(standing, Standing::Foreign { name: "forge-0303030303030303".into() });
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_taken_id_is_told_as_such() {
    let bench = bench().await;
    let at = bench.clone_vm(&mark(5)).await;
    let error = bench.pve.submit_create(&spec(), &at, &mark(6)).await.expect_err("taken");
    assert!(matches!(&error, PortError::IdTaken { id } if *id == at.id), "{error:?}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn what_a_task_warns_of_is_told_and_no_failure() {
    let bench = bench().await;
    let text = "the guest's disk is on a slow storage".to_owned();
    bench.lab.faults().on("POST", "/nodes/*/qemu/*/clone").then(Fault::TaskWarn { text: text.clone() });
    let at = bench.pve.propose_id(&spec(), &[]).await.expect("an id");
    let task = bench.pve.submit_create(&spec(), &at, &mark(1)).await.expect("submitted");
    bench.pve.wait(&task).await.expect("a warning is no failure");
    assert_eq!(bench.pve.warnings(&task), [text]);
    assert_eq!(bench.pve.warnings(&task), Vec::<String>::new(), "told once");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_task_that_takes_long_and_says_something_now_and_then_is_not_given_up() {
    let bench = bench().await;
    let (stall, every, lines) = (Duration::from_secs(4), Duration::from_millis(500), 12);
    let pve = bench.pve.stalling_after(stall);
    bench.lab.faults().on("POST", "/nodes/*/qemu/*/clone").call(1).then(Fault::TaskTalk { lines, every });
    let at = pve.propose_id(&spec(), &[]).await.expect("an id");
    let began = std::time::Instant::now();
    let task = pve.submit_create(&spec(), &at, &mark(1)).await.expect("submitted");
    pve.wait(&task).await.expect("it went on all the time");
    assert!(began.elapsed() > stall, "longer than a silent one may take");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_task_is_given_up_when_it_says_nothing_new_and_not_before() {
    let bench = bench().await;
    let stall = Duration::from_secs(2);
    let pve = bench.pve.stalling_after(stall);
    let hung = bench.lab.faults().on("POST", "/nodes/*/qemu/*/clone").call(1).then(Fault::TaskHang);
    let at = pve.propose_id(&spec(), &[]).await.expect("an id");
    let task = pve.submit_create(&spec(), &at, &mark(1)).await.expect("submitted");
    let began = std::time::Instant::now();
    let error = pve.wait(&task).await.expect_err("it never ends");
    assert!(began.elapsed() >= stall, "not before");
    assert!(format!("{error}").contains("no progress for"), "{error}");
    pve.stop_task(&task).await.expect("stopped");
    drop(hung);
    bench.lab.stop().await;
}
