//! `DELETE /nodes/{node}/qemu/{vmid}`.

use std::sync::Arc;

use super::{Answer, Call, drives};
use crate::error::{ApiError, ApiResult};

/// Checks at once what Proxmox checks at once, then removes in a task.
pub fn destroy(call: &Call) -> ApiResult<Answer> {
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let early = {
        let (cluster, node) = (Arc::clone(&cluster), node.clone());
        move || -> ApiResult<()> {
            let vm = cluster.vm(&node, vmid)?;
            if vm.get("protection") == Some("1") {
                return Err(ApiError::die(format!("can't remove VM {vmid} - protection mode enabled")));
            }
            if vm.is_running() {
                return Err(ApiError::die(format!("VM {vmid} is running - destroy failed")));
            }
            Ok(())
        }
    };
    early()?;
    let (purge, unreferenced) = (call.params.flag("purge"), call.params.flag("destroy-unreferenced-disks"));
    call.spawn("qmdestroy", vmid, |log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        let _volumes = cluster.own_volumes(vmid).await?;
        early()?;
        cluster.vm(&node, vmid)?.check_lock()?;
        if let Some(volume) = drives::base_in_use(&cluster, &node, vmid)? {
            return Err(format!("base volume '{volume}' is still in use by linked cloned"));
        }
        if purge {
            log.line(format!("purging VM {vmid} from related configurations.."));
        }
        let volumes: Vec<String> = {
            let vm = cluster.vm(&node, vmid)?;
            let drives = vm.drives().filter(|(_, drive)| !drive.is_cdrom() || drive.is_cloudinit());
            let mut volumes: Vec<String> = drives.map(|(_, drive)| drive.volume).collect();
            let memories = vm.snapshots.values().filter_map(|snapshot| snapshot.state.clone());
            volumes.extend(memories);
            let others = vm.config.iter().filter(|(key, _)| key.starts_with("unused") || *key == "vmstate");
            volumes.extend(others.map(|(_, value)| value.clone()));
            volumes
        };
        for volume in volumes.iter().filter(|volume| volume.contains(':')) {
            drives::remove_volume(&cluster, &node, volume);
        }
        // As the real one: whatever bears the VMID, whoever put it there.
        if unreferenced {
            drives::remove_images(&cluster, &node, vmid);
        }
        drives::forget_config(&cluster, vmid);
        Ok(())
    })
}
