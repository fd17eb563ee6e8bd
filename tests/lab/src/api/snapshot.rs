//! Snapshots: of the configuration, of qcow2 disks (QEMU's internal ones), and of the memory.
//!
//! Texts from cloudinit-snapshot.txt; those of a raw disk and a missing snapshot from PVE::AbstractConfig's facts.

use std::sync::Arc;

use serde_json::{Value, json};

use super::suspend::{execute, save_memory, state_storage};
use super::{Answer, Call, drives, power};
use crate::cluster::Cluster;
use crate::error::{ApiError, ApiResult};
use crate::state::{Drive, Power, Snapshot, Vm, Volume, config_json, digest};
use crate::tasks::TaskLog;

/// The name that stands for the present.
const CURRENT: &str = "current";

fn no_such(name: &str) -> String {
    format!("snapshot '{name}' does not exist")
}

/// `GET snapshot`.
pub fn list(call: &Call) -> ApiResult<Answer> {
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    let mut list: Vec<Value> = Vec::new();
    for (name, snapshot) in &vm.snapshots {
        let mut entry = json!({
            "name": name,
            "description": snapshot.description.clone().unwrap_or_default(),
            "snaptime": snapshot.time,
            "vmstate": u8::from(snapshot.state.is_some()),
        });
        if let Some(parent) = snapshot.config.get("parent") {
            entry["parent"] = parent.clone().into();
        }
        list.push(entry);
    }
    let mut current = json!({
        "name": CURRENT,
        "description": "You are here!",
        "digest": digest(&vm.config, &vm.pending),
        "running": u8::from(vm.is_running()),
    });
    if let Some(parent) = vm.get("parent") {
        current["parent"] = parent.into();
    }
    list.push(current);
    Ok(Value::Array(list).into())
}

/// `GET snapshot/{snapname}`.
pub fn index(call: &Call) -> ApiResult<Answer> {
    find(call)?;
    Ok(json!([{"cmd": "rollback"}, {"cmd": "config"}]).into())
}

/// `GET snapshot/{snapname}/config`.
pub fn config(call: &Call) -> ApiResult<Answer> {
    let snapshot = find(call)?;
    let mut answer = config_json(&snapshot.config, "");
    if let Some(map) = answer.as_object_mut() {
        map.remove("digest");
        map.insert("snaptime".to_owned(), snapshot.time.into());
        if let Some(description) = snapshot.description {
            map.insert("description".to_owned(), description.into());
        }
        if let Some(state) = snapshot.state {
            map.insert("vmstate".to_owned(), state.into());
        }
    }
    Ok(answer.into())
}

/// `PUT snapshot/{snapname}/config`.
pub fn describe(call: &Call) -> ApiResult<Answer> {
    find(call)?;
    let mut state = call.cluster.state();
    let vm = state.vm_mut(call.node(), call.vmid())?;
    if let (Some(snapshot), Some(text)) =
        (vm.snapshots.get_mut(call.params.text("snapname")), call.params.get("description"))
    {
        snapshot.description = Some(text.to_owned());
    }
    Ok(Value::Null.into())
}

fn find(call: &Call) -> ApiResult<Snapshot> {
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    let name = call.params.text("snapname");
    vm.snapshots.get(name).cloned().ok_or_else(|| ApiError::die(no_such(name)))
}

/// `GET feature`.
pub fn feature(call: &Call) -> ApiResult<Answer> {
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    let has = match call.params.text("feature") {
        "snapshot" => check_disks(&vm).is_ok(),
        "clone" => {
            let base = |drive: &Drive| {
                Volume::parse(&drive.volume).is_ok_and(|volume| volume.file.starts_with("base-"))
            };
            disks(&vm).iter().all(|(_, drive)| base(drive))
        }
        _ => true,
    };
    Ok(json!({"hasFeature": u8::from(has), "nodes": call.cluster.config.nodes}).into())
}

/// The disks that a snapshot holds.
fn disks(vm: &Vm) -> Vec<(String, Drive)> {
    let kept = vm.drives().filter(|(_, drive)| drive.has_volume() && !drive.is_cdrom());
    kept.map(|(key, drive)| (key.to_owned(), drive)).collect()
}

fn check_disks(vm: &Vm) -> Result<(), String> {
    for (_, drive) in disks(vm) {
        if Volume::parse(&drive.volume)?.format() != "qcow2" {
            return Err("snapshot feature is not available".to_owned());
        }
    }
    Ok(())
}

/// `POST snapshot`.
pub fn create(call: &Call) -> ApiResult<Answer> {
    let name = call.params.text("snapname").to_owned();
    if matches!(name.as_str(), CURRENT | "pending") {
        return Err(ApiError::die(format!("unable to use snapshot name '{name}' (reserved name)")));
    }
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let description = call.params.get("description").map(str::to_owned);
    let with_memory = call.params.flag("vmstate");
    call.spawn("qmsnapshot", vmid, |log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        let vm = cluster.vm(&node, vmid)?;
        vm.check_lock()?;
        if vm.is_template() {
            return Err("you can't take a snapshot if it's a template".to_owned());
        }
        if vm.snapshots.contains_key(&name) {
            return Err(format!("snapshot name '{name}' already used"));
        }
        check_disks(&vm)?;
        let state = (with_memory && vm.is_running())
            .then(|| format!("{}:{vmid}/vm-{vmid}-state-{name}.raw", state_storage(&vm)));
        take(&cluster, &node, &vm, &name, state.as_deref(), &log).await?;
        let mut guard = cluster.state();
        let vm = guard.vm_mut(&node, vmid)?;
        let snapshot = Snapshot { config: vm.config.clone(), description, time: crate::ids::now(), state };
        vm.snapshots.insert(name.clone(), snapshot);
        vm.config.insert("parent".to_owned(), name);
        Ok(())
    })
}

/// Takes the disks and, while the VM is paused, its memory, so that both are of one moment.
async fn take(
    cluster: &Cluster,
    node: &str,
    vm: &Vm,
    name: &str,
    state: Option<&str>,
    log: &TaskLog,
) -> Result<(), String> {
    let process = match &vm.power {
        Power::On(process) => Some(process),
        Power::Off | Power::Flag { .. } => None,
    };
    if let (Some(process), Some(_)) = (process, state) {
        execute(process, "stop", json!({})).await?;
    }
    for (key, drive) in disks(vm) {
        log.line(format!("snapshotting 'drive-{key}' ({})", drive.volume));
        match process {
            Some(process) if !is_firmware(&key) => {
                let arguments = json!({"device": format!("drive-{key}"), "name": name});
                execute(process, "blockdev-snapshot-internal-sync", arguments).await?;
            }
            _ => cluster.disks.snapshot("-c", name, &cluster.storages.path(node, &drive.volume)?).await?,
        }
    }
    if let Some(volume) = state {
        let path = cluster.storages.path(node, volume)?;
        log.line(format!("saving VM state and RAM using storage '{}'", state_storage(vm)));
        save_memory(vm, &path).await?;
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        log.line(format!("completed saving the VM state, saved {:.2} MiB", bytes as f64 / 1_048_576.0));
    }
    if let (Some(process), Some(_)) = (process, state) {
        execute(process, "cont", json!({})).await?;
    }
    Ok(())
}

fn is_firmware(key: &str) -> bool {
    key.starts_with("tpmstate")
}

/// `POST snapshot/{snapname}/rollback`.
pub fn rollback(call: &Call) -> ApiResult<Answer> {
    let name = call.params.text("snapname").to_owned();
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let start = call.params.flag("start");
    let caller = call.caller.clone();
    call.spawn("qmrollback", vmid, |log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        let vm = cluster.vm(&node, vmid)?;
        vm.check_lock()?;
        let snapshot = vm.snapshots.get(&name).cloned().ok_or_else(|| no_such(&name))?;
        if vm.is_template() {
            return Err("you can't rollback if vm is a template".to_owned());
        }
        power::halt(&cluster, &vm).await;
        let past = Vm { config: snapshot.config.clone(), ..vm.clone() };
        for (_, drive) in disks(&past) {
            cluster.disks.snapshot("-a", &name, &cluster.storages.path(&node, &drive.volume)?).await?;
        }
        {
            let mut state = cluster.state();
            let vm = state.vm_mut(&node, vmid)?;
            let mut config = snapshot.config.clone();
            config.insert("parent".to_owned(), name.clone());
            // A guest must be able to tell that time has run twice.
            if config.contains_key("vmgenid") && snapshot.state.is_none() {
                config.insert("vmgenid".to_owned(), crate::ids::uuid());
            }
            vm.config = config;
            vm.pending.clear();
        }
        if start || snapshot.state.is_some() {
            power::start_from(&cluster, &node, vmid, &caller, &log, snapshot.state.as_deref()).await?;
        }
        Ok(())
    })
}

/// `DELETE snapshot/{snapname}`.
pub fn delete(call: &Call) -> ApiResult<Answer> {
    let name = call.params.text("snapname").to_owned();
    let force = call.params.flag("force");
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    call.spawn("qmdelsnapshot", vmid, |log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        let vm = cluster.vm(&node, vmid)?;
        vm.check_lock()?;
        let snapshot = vm.snapshots.get(&name).cloned().ok_or_else(|| no_such(&name))?;
        let past = Vm { config: snapshot.config.clone(), ..vm.clone() };
        for (key, drive) in disks(&past) {
            let gone = match &vm.power {
                Power::On(process) if vm.config.contains_key(&key) => {
                    let arguments = json!({"device": format!("drive-{key}"), "name": name});
                    execute(process, "blockdev-snapshot-delete-internal-sync", arguments).await.map(drop)
                }
                _ => cluster.disks.snapshot("-d", &name, &cluster.storages.path(&node, &drive.volume)?).await,
            };
            match gone {
                Err(error) if force => log.warn(&error),
                other => other?,
            }
        }
        if let Some(state) = &snapshot.state {
            drives::remove_volume(&cluster, &node, state);
        }
        let parent = snapshot.config.get("parent").cloned();
        let mut state = cluster.state();
        let vm = state.vm_mut(&node, vmid)?;
        vm.snapshots.remove(&name);
        let children = vm.snapshots.values_mut().map(|child| &mut child.config).chain([&mut vm.config]);
        for child in children.filter(|config| config.get("parent") == Some(&name)) {
            match &parent {
                Some(parent) => drop(child.insert("parent".to_owned(), parent.clone())),
                None => drop(child.remove("parent")),
            }
        }
        Ok(())
    })
}
