//! `POST move_disk`: a disk to another storage or format, copied by `qemu-img` or, while the VM runs, by QEMU itself; or
//! to another VM, which is `reassign`'s. What is checked, in which order and with which words, is qemu-server's
//! (`API2/Qemu.pm`, `move_vm_disk`); not observed on a real server.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::clone::transfer;
use super::suspend::execute;
use super::{Answer, Call, drives, reassign, template};
use crate::cluster::Cluster;
use crate::error::{ApiError, ApiResult};
use crate::state::{Drive, Power, Vm, Volume};
use crate::vm::RunningVm;

/// Goes by what is given: a storage, or another VM.
pub fn move_disk(call: &Call) -> ApiResult<Answer> {
    match (call.params.get("storage"), call.params.number::<u32>("target-vmid")) {
        (Some(_), Some(_)) => Err(of_both("either set 'storage' or 'target-vmid', but not both")),
        (None, Some(target)) => reassign::reassign(call, target),
        (Some(storage), None) => Move::of(call, storage).start(call),
        (None, None) => Err(of_both("both 'storage' and 'target-vmid' missing, either needs to be set")),
    }
}

/// The 400 that blames both ways to say where the disk goes.
fn of_both(text: &str) -> ApiError {
    let names = ["storage", "target-vmid"];
    ApiError::parameters(
        names.map(|name| (name.to_owned(), Value::from(text))).into_iter().collect::<Map<_, _>>(),
    )
}

/// A move that was asked for.
struct Move {
    cluster: Arc<Cluster>,
    node: String,
    vmid: u32,
    disk: String,
    storage: String,
    format: Option<String>,
    digest: Option<String>,
    delete: bool,
}

impl Move {
    fn of(call: &Call, storage: &str) -> Self {
        Move {
            cluster: Arc::clone(&call.cluster),
            node: call.node().to_owned(),
            vmid: call.vmid(),
            disk: call.params.text("disk").to_owned(),
            storage: storage.to_owned(),
            format: call.params.get("format").map(str::to_owned),
            digest: call.params.get("digest").map(str::to_owned),
            delete: call.params.flag("delete"),
        }
    }

    fn start(self, call: &Call) -> ApiResult<Answer> {
        call.require(&format!("/storage/{}", self.storage), &["Datastore.AllocateSpace"])?;
        self.check()?;
        call.spawn("qmmove", self.vmid, |log| async move {
            let _lock = self.cluster.lock_config(self.vmid).await?;
            self.run(&log).await
        })
    }

    /// What is checked before the task and again in it: the VM, its disk, and the format that the copy gets.
    fn check(&self) -> ApiResult<(Vm, Drive, String)> {
        let Move { cluster, disk, storage, .. } = self;
        let vm = cluster.vm(&self.node, self.vmid)?;
        vm.check_lock()?;
        vm.check_digest(self.digest.as_deref())?;
        let value = vm.get(disk).ok_or_else(|| ApiError::die(format!("disk '{disk}' does not exist")))?;
        let drive = Drive::parse(value);
        if drive.is_cdrom() {
            return Err(ApiError::die("you can't move a cdrom"));
        }
        let source = Volume::parse(&drive.volume)?;
        let format = self.format.clone().unwrap_or_else(|| source.format().to_owned());
        if source.storage == *storage && source.format() == format {
            return Err(ApiError::die("you can't move to the same storage with same format"));
        }
        if !cluster.storages.get_on(&self.node, storage)?.takes("images") {
            let text = format!("storage '{storage}' does not support vm images");
            return Err(ApiError::parameter("storage", text));
        }
        if self.delete && vm.uses(&drive.volume, disk) {
            return Err(ApiError::die("you can't move a disk with snapshots and delete the source"));
        }
        Ok((vm, drive, format))
    }

    async fn run(&self, log: &crate::tasks::TaskLog) -> Result<(), String> {
        let Move { cluster, node, vmid, disk, storage, .. } = self;
        let (vm, mut drive, format) = self.check()?;
        let old = drive.volume.clone();
        let own = drive.storage().unwrap_or_default();
        log.line(format!(
            "copying volume '{old}' from current storage '{own}' to target storage '{storage}'"
        ));
        let from = cluster.storages.path(node, &old)?;
        let size = cluster.disks.size(&from).await?;
        if vm.uses(&old, disk) {
            log.line("moving disk with snapshots, snapshots will not be moved!");
        }
        log.line(format!("create full clone of drive {disk} ({old})"));
        let fresh = cluster.storages.new_disk(node, storage, *vmid, &format, &[])?;
        let to = cluster.storages.path(node, &fresh)?;
        let copied = match &vm.power {
            // A disk that the guest does not have is copied as it lies there.
            Power::On(process) if !disk.starts_with("unused") => {
                match cluster.disks.create(&to, &format, size).await {
                    Ok(()) => mirror(process, disk, &to.to_string_lossy(), &format).await,
                    Err(error) => Err(error),
                }
            }
            _ => transfer(cluster, Some(log), &from, &to, &format, size, None).await,
        };
        if let Err(error) = copied {
            drives::remove_volume(cluster, node, &fresh);
            return Err(format!("storage migration failed: {error}"));
        }
        drive.volume = fresh;
        if vm.is_template() {
            template::make_base(cluster, node, &mut drive)?;
        }
        {
            let mut state = cluster.state();
            let vm = state.vm_mut(node, *vmid)?;
            vm.config.insert(disk.clone(), drive.print());
            if !self.delete {
                if let Some(name) = vm.add_unused(&old) {
                    log.line(format!("adding source volume '{old}' as '{name}' to config"));
                }
                return Ok(());
            }
        }
        log.line(format!("removing source volume '{old}' after successful copy"));
        drives::remove_volume(cluster, node, &old);
        Ok(())
    }
}

/// Copies a disk in use and switches the guest over to the copy.
async fn mirror(process: &RunningVm, disk: &str, target: &str, format: &str) -> Result<(), String> {
    let job = format!("mirror-{disk}");
    let arguments = json!({
        "job-id": job, "device": format!("drive-{disk}"), "target": target, "format": format,
        "sync": "full", "mode": "existing",
    });
    execute(process, "drive-mirror", arguments).await?;
    let mut completing = false;
    loop {
        let jobs = execute(process, "query-block-jobs", json!({})).await?;
        let own = jobs.as_array().into_iter().flatten().find(|entry| entry["device"] == job).cloned();
        match own {
            None if completing => return Ok(()),
            None => return Err("the mirror ended early".to_owned()),
            Some(entry) if entry["ready"] == true && !completing => {
                execute(process, "block-job-complete", json!({"device": job})).await?;
                completing = true;
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
