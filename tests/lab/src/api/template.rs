//! `POST template`: disks become base volumes.

use std::sync::Arc;

use super::{Answer, Call};
use crate::cluster::Cluster;
use crate::error::{ApiError, ApiResult};
use crate::state::Drive;

/// Checks at once what Proxmox checks at once, then renames in a task.
pub fn template(call: &Call) -> ApiResult<Answer> {
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let vm = cluster.vm(&node, vmid)?;
    vm.check_lock()?;
    if vm.is_template() {
        return Err(ApiError::die("you can't convert a template to a template"));
    }
    if vm.is_running() {
        return Err(ApiError::die("you can't convert a VM to template if VM is running"));
    }
    if !vm.snapshots.is_empty() {
        return Err(ApiError::die("unable to create template, because VM contains snapshots"));
    }
    let only = call.params.get("disk").map(str::to_owned);
    call.spawn("qmtemplate", vmid, |_log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        let _volumes = cluster.own_volumes(vmid).await?;
        let vm = cluster.vm(&node, vmid)?;
        vm.check_lock()?;
        if vm.is_running() {
            return Err("you can't convert a VM to template if VM is running".to_owned());
        }
        let disks: Vec<(String, Drive)> = vm
            .drives()
            .filter(|(key, drive)| {
                drive.has_volume() && !drive.is_cdrom() && only.as_deref().is_none_or(|only| only == *key)
            })
            .map(|(key, drive)| (key.to_owned(), drive))
            .collect();
        for (key, mut drive) in disks {
            make_base(&cluster, &node, &mut drive)?;
            cluster.state().vm_mut(&node, vmid)?.config.insert(key, drive.print());
        }
        let mut state = cluster.state();
        let vm = state.vm_mut(&node, vmid)?;
        vm.config.insert("template".to_owned(), "1".to_owned());
        Ok(())
    })
}

/// Makes a disk a base volume: its new name, and read-only. What is one already stays.
///
/// # Errors
/// The file can't be renamed.
pub fn make_base(cluster: &Cluster, node: &str, drive: &mut Drive) -> Result<(), String> {
    // A linked clone's own file is renamed; its base stays named in the volume.
    let Some(at) = drive.volume.rfind("/vm-") else { return Ok(()) };
    let from = cluster.storages.path(node, &drive.volume)?;
    drive.volume.replace_range(at..at + 4, "/base-");
    let to = cluster.storages.path(node, &drive.volume)?;
    std::fs::rename(&from, &to).map_err(|error| format!("rename failed: {error}"))?;
    let mut permissions = to.metadata().map_err(|error| error.to_string())?.permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&to, permissions).map_err(|error| error.to_string())
}
