//! `/nodes/{node}/qemu`: list, create and current status.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::OwnedMutexGuard;

use super::drives::DriveInput;
use super::{Answer, Call, drives, rules, suspend};
use crate::error::{ApiError, ApiResult};
use crate::state::{Power, Vm};

/// What list and status say about a VM, and whether it runs.
pub fn summary(vm: &Vm) -> (Map<String, Value>, bool) {
    let (running, uptime, pid) = match &vm.power {
        Power::Off => (false, 0, None),
        Power::Flag { since, pid, .. } => (true, since.elapsed().as_secs(), Some(*pid)),
        Power::On(process) => (!process.has_ended(), process.since.elapsed().as_secs(), Some(process.pid)),
    };
    let number = |key: &str| vm.get(key).and_then(|text| text.parse::<u64>().ok());
    let disk =
        vm.drives().filter(|(_, drive)| !drive.is_cdrom()).find_map(|(_, drive)| drive.size()).unwrap_or(0);
    let value = json!({
        "vmid": vm.vmid, "name": vm.name(), "status": if running { "running" } else { "stopped" },
        "cpus": number("cores").unwrap_or(1) * number("sockets").unwrap_or(1),
        "maxmem": number("memory").unwrap_or(512) << 20, "maxdisk": disk,
        "uptime": if running { uptime } else { 0 },
        "cpu": 0, "mem": 0, "memhost": 0, "disk": 0, "netin": 0, "netout": 0, "diskread": 0, "diskwrite": 0,
    });
    let mut entry = value.as_object().cloned().unwrap_or_default();
    if let (true, Some(pid)) = (running, pid) {
        entry.insert("pid".to_owned(), pid.into());
    }
    if vm.is_template() {
        entry.insert("template".to_owned(), 1.into());
    }
    for key in ["tags", "lock"] {
        if let Some(value) = vm.get(key) {
            entry.insert(key.to_owned(), value.into());
        }
    }
    if vm.get("serial0").is_some() {
        entry.insert("serial".to_owned(), 1.into());
    }
    (entry, running)
}

/// `GET /nodes/{node}/qemu`: only VMs the caller may audit.
pub fn list(call: &Call) -> ApiResult<Answer> {
    let state = call.cluster.state();
    let visible = state
        .vms
        .values()
        .filter(|vm| vm.node == call.node() && call.may(&format!("/vms/{}", vm.vmid), &["VM.Audit"]));
    Ok(visible.map(|vm| Value::Object(summary(vm).0)).collect::<Value>().into())
}

/// `GET status/current`.
pub async fn current(call: &Call) -> ApiResult<Answer> {
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    let (mut entry, running) = summary(&vm);
    entry.insert(
        "qmpstatus".to_owned(),
        if running { suspend::qmp_status(&vm).await } else { "stopped".to_owned() }.into(),
    );
    entry.insert("ha".to_owned(), json!({"managed": 0}));
    entry.insert("clipboard".to_owned(), Value::Null);
    if vm.agent_enabled() {
        entry.insert("agent".to_owned(), 1.into());
    }
    Ok(Value::Object(entry).into())
}

/// Takes the VMID of a call for a VM that is being made.
///
/// # Errors
/// Another one has it.
pub(super) fn reserve(call: &Call, what: &str) -> ApiResult<Option<OwnedMutexGuard<()>>> {
    let vmid = call.vmid();
    let mut state = call.cluster.state();
    if let Some(vm) = state.vms.get(&vmid) {
        let text = format!("{what} {vmid} - VM {vmid} already exists on node '{}'", vm.node);
        return Err(ApiError::die(text));
    }
    let config = BTreeMap::from([("lock".to_owned(), "create".to_owned())]);
    state.insert(&call.cluster.network, vmid, call.node(), config);
    Ok(state.locks(vmid).config.try_lock_owned().ok())
}

/// `POST /nodes/{node}/qemu`.
pub fn create(call: &Call) -> ApiResult<Answer> {
    let cluster = Arc::clone(&call.cluster);
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let path = format!("/vms/{vmid}");
    let pool = call.params.get("pool").map(str::to_owned);
    if let Some(pool) = pool.as_deref().filter(|pool| !cluster.auth().pools.contains_key(*pool)) {
        return Err(ApiError::forbidden(&format!("pool '{pool}' does not exist")));
    }
    let in_pool = pool.as_ref().is_some_and(|pool| call.may(&format!("/pool/{pool}"), &["VM.Allocate"]));
    if !in_pool && !call.may(&path, &["VM.Allocate"]) {
        return Err(ApiError::forbidden_unnamed());
    }
    if let Some(archive) = call.params.get("archive") {
        return super::restore::restore(call, archive, pool);
    }
    let start = call.params.flag("start");
    if start {
        call.require(&path, &["VM.PowerMgmt"])?;
    }
    let mut set = rules::config_values(&call.params);
    rules::check_values(call, &set)?;
    rules::check_storages(call, &set)?;
    // What the pool's entry allows needs none of the VM's own.
    let by_pool = pool
        .as_ref()
        .is_some_and(|pool| rules::check_privileges(call, &format!("/pool/{pool}"), &set, &[], true).is_ok());
    if !by_pool {
        rules::check_privileges(call, &path, &set, &[], true)?;
    }
    rules::check_bridges(call, &set)?;
    // The task finds out, before the VM is in its pool (qemu-server `API2/Qemu.pm`, `create_vm`).
    let refused = match set.get("tags") {
        Some(tags) => {
            let checked = call.require(&path, &["VM.Config.Options"]);
            checked.and_then(|()| super::tags::check(call, "", tags)).err().map(|error| error.message)
        }
        None => None,
    };
    rules::normalise(&mut set);

    let lock = reserve(call, "unable to create VM")?;
    let undo = {
        let (cluster, node) = (Arc::clone(&cluster), node.clone());
        async move { drives::forget_vm(&cluster, &node, vmid) }
    };
    let caller = call.caller.clone();
    call.spawn_with_undo(
        "qmcreate",
        vmid,
        |log| async move {
            let failed = |text: String| format!("unable to create VM {vmid} - {text}");
            if let Some(text) = refused {
                return Err(failed(text));
            }
            rules::add_defaults(&mut set);
            let input =
                DriveInput { cluster: &cluster, node: &node, vmid, name: &rules::name_of(&set, vmid) };
            let made = drives::allocate(&input, &set, &BTreeMap::new(), Some(&log)).await.map_err(failed)?;
            set.extend(made);
            cluster.state().vm_mut(&node, vmid)?.config = set;
            drop(lock);
            cluster.auth().add_to_pool(pool.as_deref(), vmid);
            if start {
                super::power::start_vm(&cluster, &node, vmid, &caller, &log).await?;
            }
            Ok(())
        },
        undo,
    )
}
