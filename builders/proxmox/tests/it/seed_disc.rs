//! The seed on a disc, as far as the lab's storages and configurations show it.

use forge_lab::{Fault, LEAST_PRIVILEGES_PVE9};
use forge_machine::{Attachments, Hypervisor as _, VmRef};
use forge_proxmox::{ProxmoxHypervisor, Secret};

use crate::support::{Bench, bench, mark, query, spec};

/// More than a sector, so that what was blanked is told from what is there.
fn seed() -> Attachments {
    Attachments { seed_disc: Some(b"the answers of the seed ".repeat(200)), ..Attachments::default() }
}

/// A target with a token that may also put files on storages and, if so, remove them.
fn may(bench: &Bench, remove: bool) -> ProxmoxHypervisor {
    let mut privileges = [LEAST_PRIVILEGES_PVE9, &["Datastore.AllocateTemplate"]].concat();
    if remove {
        privileges.push("Datastore.Allocate");
    }
    let secret = bench.lab.add_token("forge@pve!disc", &[("/", &privileges)]);
    bench.client(|config| {
        config.token_id = "forge@pve!disc".into();
        config.token_secret = Secret::new(secret);
        config.iso_storage = Some("local".into());
    })
}

/// The size of the VM's disc on the storage; `None` when it is not there.
async fn on_storage(pve: &ProxmoxHypervisor, at: &VmRef) -> Option<u64> {
    let volumes = pve.client().volumes(&at.node, "local", "iso").await.expect("listed");
    let volume = format!("local:iso/forge-seed-{}.iso", at.id);
    volumes.into_iter().find(|each| each.volid == volume).map(|each| each.size)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_s_disc_is_in_a_drive_while_it_is_built_and_nowhere_afterwards() {
    let bench = bench().await;
    for (byte, remove, left) in [(1, true, None), (2, false, Some(2048))] {
        let pve = may(&bench, remove);
        let (facts, _) = pve.facts(&query()).await.expect("asked");
        assert_eq!(facts.no_seed_disc, None);
        let at = bench.clone_vm(&mark(byte)).await;
        let machine = pve.machine(&at);
        machine.configure(&spec(), &mark(byte), &seed()).await.expect("configured");
        assert_eq!(on_storage(&pve, &at).await, Some(4800));
        let drive = bench.config_of(&at, "ide3").expect("a drive");
        assert!(drive.starts_with(&format!("local:iso/forge-seed-{}.iso,media=cdrom", at.id)), "{drive}");
        machine.configure(&spec(), &mark(byte), &seed()).await.expect("as often as you like");
        machine.detach(&spec()).await.expect("taken off");
        assert_eq!(bench.config_of(&at, "ide3"), None);
        assert_eq!(on_storage(&pve, &at).await, left, "removed, or blank where it can't be");
        machine.detach(&spec()).await.expect("once more");
    }
    bench.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_is_removed_takes_its_seed_s_disc_along_also_one_that_never_came_into_a_drive() {
    let bench = bench().await;
    let pve = may(&bench, true);
    for (byte, in_drive) in [(1, true), (2, false)] {
        let at = bench.clone_vm(&mark(byte)).await;
        let machine = pve.machine(&at);
        if !in_drive {
            // The identity is set first, the drive next.
            let refused = Fault::Refuse { status: 500, reason: "no".into() };
            bench.lab.faults().on("PUT", "/nodes/*/qemu/*/config").call(2).then(refused);
        }
        let done = machine.configure(&spec(), &mark(byte), &seed()).await;
        assert_eq!(done.is_ok(), in_drive, "{done:?}");
        bench.lab.faults().clear();
        assert_eq!(on_storage(&pve, &at).await, Some(4800));
        assert_eq!(bench.config_of(&at, "ide3").is_some(), in_drive);
        machine.destroy().await.expect("removed");
        assert_eq!(on_storage(&pve, &at).await, None);
    }
    bench.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_put_no_disc_there_is_told_before_anything_is_done() {
    let bench = bench().await;
    let (facts, _) = bench.pve.facts(&query()).await.expect("asked");
    let told = "token forge@pve!build lacks Datastore.AllocateTemplate on /storage/local";
    assert_eq!(facts.no_seed_disc.as_deref(), Some(told));
    bench.lab.stop().await;
}
