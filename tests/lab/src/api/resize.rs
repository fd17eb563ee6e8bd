//! `PUT resize`: a task, whose checks come after the fork.

use std::sync::Arc;

use super::{Answer, Call, drives};
use crate::error::ApiResult;
use crate::state::{Drive, Power, Volume, parse_size, print_size};

/// Grows a disk to a size, or by one with `+`.
pub fn resize(call: &Call) -> ApiResult<Answer> {
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let disk = call.params.text("disk").to_owned();
    let size = call.params.text("size").to_owned();
    let storage_check = {
        let vm = cluster.vm(&node, vmid)?;
        vm.get(&disk).and_then(|value| Drive::parse(value).storage().map(str::to_owned))
    };
    let allowed = storage_check
        .map_or(Ok(()), |storage| call.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"]));
    call.spawn("resize", vmid, |log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        let vm = cluster.vm(&node, vmid)?;
        vm.check_lock()?;
        let mut drive = drives::disk_of(&vm.config, &disk)?;
        allowed.map_err(|error| format!("403 {}", error.message))?;
        let path = cluster.storages.path(&node, &drive.volume)?;
        let shown = Volume::parse(&drive.volume)?;
        let old = cluster.disks.size(&path).await?;
        let new = match size.strip_prefix('+') {
            Some(by) => old + parse_size(by).unwrap_or(0),
            None => parse_size(&size).unwrap_or(0),
        };
        if new < old {
            return Err("shrinking disks is not supported".to_owned());
        }
        if new == old {
            return Ok(());
        }
        if shown.file.starts_with("base-") {
            let path = shown.display_path();
            log.line(format!("qemu-img: Could not open '{path}': Could not open '{path}': Operation not permitted"));
            return Err(format!(
                "command '/usr/bin/qemu-img resize '--preallocation=metadata' -f {} {path} {new}' failed: exit code 1",
                shown.format()
            ));
        }
        match &vm.power {
            Power::On(process) => {
                let arguments = serde_json::json!({"device": format!("drive-{disk}"), "size": new});
                process.qmp.execute("block_resize", arguments).await.map_err(|error| error.to_string())?;
            }
            Power::Off | Power::Flag { .. } => {
                cluster.disks.resize(&path, shown.format(), new).await?;
                log.line("Image resized.");
            }
        }
        drive.options.insert("size".to_owned(), print_size(new));
        cluster.state().vm_mut(&node, vmid)?.config.insert(disk, drive.print());
        Ok(())
    })
}
