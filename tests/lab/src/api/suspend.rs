//! `status/reboot`, `status/suspend` and `status/resume`, and saving a VM's memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, Call, not_running, power};
use crate::cluster::Cluster;
use crate::error::ApiResult;
use crate::state::{Power, Vm};
use crate::vm::RunningVm;

/// How long a reboot waits for the guest when the caller names no time (qemu-server's own default for a shutdown).
const REBOOT: u64 = 60;

/// QEMU's own word for what a running VM does.
pub async fn qmp_status(vm: &Vm) -> String {
    let status = match &vm.power {
        Power::On(process) => {
            let asked = process.qmp.execute("query-status", json!({})).await;
            asked.ok().and_then(|answer| answer["status"].as_str().map(str::to_owned))
        }
        Power::Flag { paused: true, .. } => Some("paused".to_owned()),
        Power::Flag { .. } | Power::Off => None,
    };
    status.unwrap_or_else(|| "running".to_owned())
}

fn running(call: &Call) -> ApiResult<Vm> {
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    if vm.is_running() { Ok(vm) } else { Err(not_running(vm.vmid)) }
}

/// `POST status/reboot`: shuts down, applies what was pending, and starts again.
pub fn reboot(call: &Call) -> ApiResult<Answer> {
    running(call)?;
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let limit = Duration::from_secs(call.params.number("timeout").unwrap_or(REBOOT));
    let caller = call.caller.clone();
    call.spawn("qmreboot", vmid, |log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        let vm = cluster.vm(&node, vmid)?;
        vm.check_lock()?;
        power::shut_down(&cluster, &vm, limit, false, &log).await?;
        power::start_vm(&cluster, &node, vmid, &caller, &log).await
    })
}

/// `POST status/suspend`: pauses; with `todisk` saves the memory and stops.
pub fn suspend(call: &Call) -> ApiResult<Answer> {
    let vm = running(call)?;
    let to_disk = call.params.flag("todisk");
    let storage = match call.params.get("statestorage") {
        Some(storage) => storage.to_owned(),
        None => state_storage(&vm),
    };
    if to_disk {
        call.cluster.storages.check_images(&storage)?;
        call.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    }
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    call.spawn("qmsuspend", vmid, |log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        let vm = cluster.vm(&node, vmid)?;
        vm.check_lock()?;
        if !to_disk {
            return pause(&cluster, &node, &vm, true).await;
        }
        let volume = format!("{storage}:{vmid}/vm-{vmid}-state-suspend-{}.raw", crate::ids::now());
        let path = cluster.storages.path(&node, &volume)?;
        log.line(format!("saving VM state and RAM using storage '{storage}'"));
        save_memory(&vm, &path).await?;
        power::halt(&cluster, &vm).await;
        let mut state = cluster.state();
        let config = &mut state.vm_mut(&node, vmid)?.config;
        config.insert("lock".to_owned(), "suspended".to_owned());
        config.insert("vmstate".to_owned(), volume);
        Ok(())
    })
}

/// `POST status/resume`.
pub fn resume(call: &Call) -> ApiResult<Answer> {
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    let from_disk = vm.get("lock") == Some("suspended");
    if !from_disk && !vm.is_running() {
        return Err(not_running(vm.vmid));
    }
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let caller = call.caller.clone();
    call.spawn("qmresume", vmid, |log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        let vm = cluster.vm(&node, vmid)?;
        if from_disk {
            return power::start_vm(&cluster, &node, vmid, &caller, &log).await;
        }
        vm.check_lock()?;
        pause(&cluster, &node, &vm, false).await
    })
}

async fn pause(cluster: &Cluster, node: &str, vm: &Vm, pause: bool) -> Result<(), String> {
    if let Power::On(process) = &vm.power {
        let command = if pause { "stop" } else { "cont" };
        process.qmp.execute(command, json!({})).await.map_err(|error| error.to_string())?;
    }
    if let Power::Flag { paused, .. } = &mut cluster.state().vm_mut(node, vm.vmid)?.power {
        *paused = pause;
    }
    Ok(())
}

/// The storage on which a VM's memory is saved: `vmstatestorage`, else that of its first disk.
pub fn state_storage(vm: &Vm) -> String {
    let disk = vm.drives().find(|(_, drive)| !drive.is_cdrom() && drive.has_volume());
    let first = disk.and_then(|(_, drive)| drive.storage().map(str::to_owned));
    vm.get("vmstatestorage").map(str::to_owned).or(first).unwrap_or_else(|| "local".to_owned())
}

/// Pauses a VM and saves its memory and devices; the VM stays paused, and its images are free for others.
///
/// # Errors
/// The text of what failed.
pub async fn save_memory(vm: &Vm, path: &Path) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    }
    let Power::On(process) = &vm.power else {
        return std::fs::write(path, "{}").map_err(|error| error.to_string());
    };
    execute(process, "stop", json!({})).await?;
    execute(process, "migrate", json!({"uri": format!("file:{}", path.to_string_lossy())})).await?;
    loop {
        let answer = execute(process, "query-migrate", json!({})).await?;
        match answer["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                return Err(format!("saving the state failed: {}", answer["error-desc"]));
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Runs a monitor command.
///
/// # Errors
/// QEMU's own text.
pub async fn execute(process: &RunningVm, command: &str, arguments: Value) -> Result<Value, String> {
    process.qmp.execute(command, arguments).await.map_err(|error| error.to_string())
}
