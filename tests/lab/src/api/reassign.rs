//! `POST move_disk` with `target-vmid`: a disk becomes another VM's, by a new name in the same storage.
//!
//! Checks, their order and their words are qemu-server's (`API2/Qemu.pm`, `move_vm_disk`), the new name pve-storage's
//! (`Storage/Plugin.pm`, `rename_volume`); not observed on a real server.

use std::sync::Arc;

use super::{Answer, Call, qemu_config};
use crate::cluster::Cluster;
use crate::error::{ApiError, ApiResult};
use crate::schema::parse_property_string;
use crate::state::{Drive, Vm, Volume};
use crate::tasks::TaskLog;

/// A disk that is to change hands.
struct Reassign {
    cluster: Arc<Cluster>,
    node: String,
    vmid: u32,
    disk: String,
    digest: Option<String>,
    target: u32,
    target_disk: String,
    target_digest: Option<String>,
}

/// Checks at once what Proxmox checks at once, then renames in a task.
pub fn reassign(call: &Call, target: u32) -> ApiResult<Answer> {
    let disk = call.params.text("disk").to_owned();
    let wanted = Reassign {
        cluster: Arc::clone(&call.cluster),
        node: call.node().to_owned(),
        vmid: call.vmid(),
        target_disk: call.params.get("target-disk").unwrap_or(&disk).to_owned(),
        disk,
        digest: call.params.get("digest").map(str::to_owned),
        target,
        target_digest: call.params.get("target-digest").map(str::to_owned),
    };
    call.require(&format!("/vms/{target}"), &["VM.Config.Disk"])?;
    if wanted.vmid == target {
        let text = "must be different than source VMID to reassign disk";
        return Err(ApiError::parameter("target-vmid", text));
    }
    let (_, drive) = wanted.check()?;
    let storage = drive.storage().unwrap_or_default();
    call.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    let id = format!("{}-{}>{target}-{}", wanted.vmid, wanted.disk, wanted.target_disk);
    call.spawn("qmmove", id, |log| async move { wanted.run(&log).await })
}

impl Reassign {
    /// What is checked before the task and again in it: the VM that gives, and the drive as the other gets it.
    fn check(&self) -> ApiResult<(Vm, Drive)> {
        let Reassign { vmid, disk, target, target_disk, .. } = self;
        let die = |text: String| Err(ApiError::die(text));
        let (source, other) = {
            let state = self.cluster.state();
            match (state.vms.get(vmid), state.vms.get(target)) {
                (None, _) => return die(format!("could not find VM {vmid}")),
                (_, None) => return die(format!("could not find target VM {target}")),
                (Some(source), Some(other)) => (source.clone(), other.clone()),
            }
        };
        if source.node != other.node {
            return die(format!("Both VMs need to be on the same node ({} != {})", source.node, other.node));
        }
        source.check_lock()?;
        other.check_lock()?;
        if source.is_template() || other.is_template() {
            return die("Can't move disks from or to template VMs".to_owned());
        }
        for (vm, given) in [(&source, &self.digest), (&other, &self.target_digest)] {
            vm.check_digest(given.as_deref())
                .map_err(|error| ApiError::die(format!("VM {}: {}", vm.vmid, error.message)))?;
        }
        let Some(value) = source.get(disk) else {
            return die(format!("Disk '{disk}' for VM '{vmid}' does not exist"));
        };
        if other.get(target_disk).is_some() {
            return die(format!("Target disk key '{target_disk}' is already in use for VM '{target}'"));
        }
        let drive = Drive::parse(value);
        if drive.is_cdrom() {
            return die("CD drive contents can't be moved to another VM".to_owned());
        }
        if Volume::parse(&drive.volume).is_err() {
            return die(format!("Volume '{}' not managed by PVE", drive.volume));
        }
        if source.uses(&drive.volume, disk) {
            return die("Can't move disk used by a snapshot to another VM".to_owned());
        }
        if source.is_running() && !disk.starts_with("unused") {
            let text = "Cannot move disk to another VM while the source VM is running - detach first";
            return die(text.to_owned());
        }
        if target_disk.starts_with("unused") {
            return Ok((source, Drive { volume: drive.volume, ..Drive::default() }));
        }
        // An option that the other bus does not know: a virtio disk is no SSD.
        if parse_property_string(target_disk, value).is_err() {
            return die("failed to parse source disk for target disk format -".to_owned());
        }
        Ok((source, drive))
    }

    async fn run(&self, log: &TaskLog) -> Result<(), String> {
        let Reassign { cluster, node, vmid, disk, target, target_disk, .. } = self;
        let _lock = cluster.lock_config(*vmid).await?;
        let lock = cluster.lock_config(*target).await?;
        let _volumes = cluster.own_volumes(*vmid).await?;
        let (_, mut drive) = self.check()?;
        log.line(format!("reassign disk '{disk}' from VM '{vmid}' as '{target_disk}' to VM '{target}'"));
        drive.volume = rename(cluster, node, &drive.volume, *target)?;
        {
            let mut state = cluster.state();
            let vm = state.vm_mut(node, *vmid)?;
            if qemu_config::prune_boot(vm, disk, false) {
                log.line(format!("removing disk '{disk}' from boot order config"));
            }
            vm.config.remove(disk);
            log.line(format!("removing disk '{disk}' from VM '{vmid}' config"));
            if target_disk.starts_with("unused") {
                state.vm_mut(node, *target)?.config.insert(target_disk.clone(), drive.print());
                return Ok(());
            }
        }
        qemu_config::set_drive(cluster, node, *target, target_disk, &drive, &lock).await
    }
}

/// Gives a volume's file the next free name of another VM; returns its new identifier. A linked clone keeps its base.
fn rename(cluster: &Cluster, node: &str, volid: &str, target: u32) -> ApiResult<String> {
    let volume = Volume::parse(volid)?;
    let from = cluster.storages.path(node, volid)?;
    let fresh = cluster.storages.new_disk(node, &volume.storage, target, volume.format(), &[])?;
    let to = cluster.storages.path(node, &fresh)?;
    let failed = |error: std::io::Error| {
        ApiError::die(format!("rename '{}' to '{}' failed - {error}", from.display(), to.display()))
    };
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::rename(&from, &to).map_err(failed)?;
    if let Some(folder) = from.parent() {
        // Only an empty folder goes.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(match (volume.base, fresh.split_once(':')) {
        (Some(base), Some((storage, name))) => format!("{storage}:{base}/{name}"),
        _ => fresh,
    })
}
