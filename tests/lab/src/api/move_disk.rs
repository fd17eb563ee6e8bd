//! `POST move_disk`: a disk to another storage or format, copied by `qemu-img` or, while the VM runs, by QEMU itself.
//!
//! Simplified: a disk can't be given to another VM (`target-vmid`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::clone::transfer;
use super::suspend::execute;
use super::{Answer, Call, drives};
use crate::error::{ApiError, ApiResult};
use crate::state::{Power, Volume};
use crate::vm::RunningVm;

/// Checks at once what Proxmox checks at once, then copies in a task.
pub fn move_disk(call: &Call) -> ApiResult<Answer> {
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    if call.params.get("target-vmid").is_some() {
        return Err(ApiError::die("the lab gives no disk to another VM"));
    }
    let Some(storage) = call.params.get("storage").map(str::to_owned) else {
        let text = "both 'storage' and 'target-vmid' missing, either needs to be set";
        return Err(ApiError::die(text));
    };
    let disk = call.params.text("disk").to_owned();
    let vm = cluster.vm(&node, vmid)?;
    call.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    cluster.storages.check_images(&storage)?;
    if let Some(given) = call.params.get("digest")
        && given != crate::state::digest(&vm.config, &vm.pending)
    {
        return Err(ApiError::die("checksum mismatch (file change by other user?)"));
    }
    vm.check_lock()?;
    let drive = drives::disk_of(&vm.config, &disk)?;
    if drive.is_cdrom() {
        return Err(ApiError::die("you can't move a cdrom"));
    }
    let source = Volume::parse(&drive.volume)?;
    let format = call.params.get("format").unwrap_or_else(|| source.format()).to_owned();
    if source.storage == storage && source.format() == format {
        return Err(ApiError::die("you can't move to the same storage with same format"));
    }
    if !vm.snapshots.is_empty() && call.params.flag("delete") {
        return Err(ApiError::die("you can't move a disk with snapshots and delete the source"));
    }
    let delete = call.params.flag("delete");
    call.spawn("qmmove", vmid, |log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        let vm = cluster.vm(&node, vmid)?;
        vm.check_lock()?;
        let mut drive = drives::disk_of(&vm.config, &disk)?;
        let old = drive.volume.clone();
        let from = cluster.storages.path(&node, &old)?;
        let size = cluster.disks.size(&from).await?;
        log.line(format!("create full clone of drive {disk} ({old})"));
        let fresh = cluster.storages.new_disk(&node, &storage, vmid, &format, &[])?;
        let to = cluster.storages.path(&node, &fresh)?;
        let copied = match &vm.power {
            Power::On(process) => match cluster.disks.create(&to, &format, size).await {
                Ok(()) => mirror(process, &disk, &to.to_string_lossy(), &format).await,
                Err(error) => Err(error),
            },
            Power::Off | Power::Flag { .. } => {
                transfer(&cluster, Some(&log), &from, &to, &format, size, None).await
            }
        };
        if let Err(error) = copied {
            drives::remove_volume(&cluster, &node, &fresh);
            return Err(format!("storage migration failed: {error}"));
        }
        drive.volume = fresh;
        let mut state = cluster.state();
        let vm = state.vm_mut(&node, vmid)?;
        vm.config.insert(disk, drive.print());
        if !delete {
            let free =
                (0..256).map(|number| format!("unused{number}")).find(|name| !vm.config.contains_key(name));
            if let Some(name) = free {
                vm.config.insert(name, old);
            }
            return Ok(());
        }
        drop(state);
        drives::remove_volume(&cluster, &node, &old);
        Ok(())
    })
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
