//! Reading and changing a VM's configuration.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::OwnedMutexGuard;

use super::drives::{DriveInput, remove_volume};
use super::{Answer, Call, drives, rules, tags};
use crate::error::{ApiError, ApiResult};
use crate::state::{Config, Drive, Power, config_json, digest, is_drive_key, typed};

/// Keys that take effect on a running VM at once; the others wait for the next start.
const LIVE: &[&str] = &[
    "description",
    "hookscript",
    "lock",
    "name",
    "onboot",
    "protection",
    "shares",
    "startup",
    "tags",
    "template",
    "vmstatestorage",
    "migrate_downtime",
    "migrate_speed",
];

/// `GET config`.
pub fn get(call: &Call) -> ApiResult<Answer> {
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    let digest = digest(&vm.config, &vm.pending);
    let config = if call.params.flag("current") { vm.config.clone() } else { vm.with_pending() };
    Ok(config_json(&config, &digest).into())
}

/// `GET pending`.
pub fn pending(call: &Call) -> ApiResult<Answer> {
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    let mut list = vec![json!({"key": "digest", "value": digest(&vm.config, &vm.pending)})];
    for (key, value) in &vm.config {
        let mut entry = Map::new();
        entry.insert("key".to_owned(), key.clone().into());
        entry.insert("value".to_owned(), typed(key, value));
        match vm.pending.get(key) {
            Some(Some(pending)) => drop(entry.insert("pending".to_owned(), typed(key, pending))),
            Some(None) => drop(entry.insert("delete".to_owned(), 1.into())),
            None => {}
        }
        list.push(Value::Object(entry));
    }
    for (key, value) in vm.pending.iter().filter(|(key, _)| !vm.config.contains_key(*key)) {
        if let Some(value) = value {
            list.push(json!({"key": key, "pending": typed(key, value)}));
        }
    }
    Ok(Value::Array(list).into())
}

/// A checked change.
struct Change {
    set: Config,
    delete: Vec<String>,
    revert: Vec<String>,
    text: String,
}

/// Everything that is checked before a change is made or its task is started.
fn check(call: &Call) -> ApiResult<Change> {
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    let list = |name: &str| -> Vec<String> {
        let text = call.params.get(name).unwrap_or_default();
        crate::schema::split_list(text)
            .map(|key| if key == "cdrom" { "ide2" } else { key }.to_owned())
            .collect()
    };
    let (delete, revert) = (list("delete"), list("revert"));
    let mut set = rules::config_values(&call.params);
    if set.is_empty() && delete.is_empty() && revert.is_empty() {
        return Err(ApiError::die("no options specified"));
    }
    for key in &delete {
        if set.contains_key(key) {
            let text = format!("you can't use '-{key}' and -delete {key}' at the same time");
            return Err(ApiError::parameter("delete", text));
        }
        if !rules::is_known(key) {
            return Err(ApiError::parameter("delete", format!("unknown option '{key}'")));
        }
    }
    let path = format!("/vms/{}", vm.vmid);
    rules::check_values(call, &set)?;
    rules::check_storages(call, &set)?;
    let going: Vec<(String, Option<String>)> =
        delete.iter().map(|key| (key.clone(), vm.get(key).map(str::to_owned))).collect();
    // A drive that is replaced counts as what it was, too: ejecting the cloud-init drive needs its privilege.
    rules::check_privileges(call, &path, &set, &going, false)?;
    if let Some(new) =
        set.get("tags").map(String::as_str).or(delete.iter().any(|key| key == "tags").then_some(""))
    {
        tags::check(call, vm.get("tags").unwrap_or_default(), new)?;
    }
    rules::check_bridges(call, &set)?;
    if !call.params.flag("skiplock") {
        vm.check_lock()?;
    }
    vm.check_digest(call.params.get("digest"))?;
    let text = set.iter().fold(format!("update VM {}:", vm.vmid), |text, (key, value)| {
        let shown = if key == "cipassword" { "<hidden>" } else { value };
        format!("{text} -{key} {shown}")
    });
    rules::normalise(&mut set);
    Ok(Change { set, delete, revert, text })
}

/// `PUT config`: done when it answers.
pub async fn put(call: Call) -> ApiResult<Answer> {
    let change = check(&call)?;
    let lock = call.cluster.lock_config(call.vmid()).await?;
    apply(&call.cluster, call.node(), call.vmid(), change, &lock).await.map_err(ApiError::die)?;
    Ok(Value::Null.into())
}

/// `POST config`: a task.
pub async fn post(call: Call) -> ApiResult<Answer> {
    let change = check(&call)?;
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let answer = call.spawn("qmconfig", vmid, |log| async move {
        log.line(change.text.clone());
        let lock = cluster.lock_config(vmid).await?;
        apply(&cluster, &node, vmid, change, &lock).await
    })?;
    let Some(delay) = call.params.number::<u64>("background_delay") else { return Ok(answer) };
    let Answer::Data(Value::String(upid)) = &answer else { return Ok(answer) };
    let Some(task) = call.cluster.tasks.find(upid) else { return Ok(answer) };
    match tokio::time::timeout(std::time::Duration::from_secs(delay), task.ended()).await {
        Ok(exit) if exit == "OK" => Ok(Value::Null.into()),
        Ok(exit) => Err(ApiError::die(exit)),
        Err(_) => Ok(answer),
    }
}

/// Makes the change. Proxmox applies key by key; the lab all at once, after the drives could be allocated.
async fn apply(
    cluster: &Arc<crate::cluster::Cluster>,
    node: &str,
    vmid: u32,
    mut change: Change,
    _lock: &OwnedMutexGuard<()>,
) -> Result<(), String> {
    let vm = cluster.vm(node, vmid)?;
    vm.check_lock()?;
    let mut current = vm.with_pending();
    for key in &change.delete {
        current.remove(key);
    }
    let name = rules::name_of(&current, vmid);
    let input = DriveInput { cluster, node, vmid, name: &name };
    let made = drives::allocate(&input, &change.set, &current, None).await?;
    change.set.extend(made);
    let mut after = current.clone();
    after.extend(change.set.clone());
    if let Some(boot) = change.set.get("boot") {
        rules::check_boot(boot, &after)?;
    }
    if let Power::On(process) = &vm.power {
        for (key, value) in change.set.iter().filter(|(key, _)| is_drive_key(key)) {
            change_medium(cluster, node, process, &vm.config, key, value).await?;
        }
    }
    let mut state = cluster.state();
    let vm = state.vm_mut(node, vmid)?;
    let running = vm.is_running();
    for key in &change.revert {
        vm.pending.remove(key);
    }
    for key in &change.delete {
        if running && !LIVE.contains(&key.as_str()) {
            if vm.config.contains_key(key) {
                vm.pending.insert(key.clone(), None);
            } else {
                vm.pending.remove(key);
            }
        } else {
            vm.pending.remove(key);
            if let Some(value) = vm.config.remove(key) {
                detach(cluster, node, vm, key, &value);
            }
        }
        prune_boot(vm, key, running);
    }
    for (key, value) in change.set {
        let live = LIVE.contains(&key.as_str())
            || (is_drive_key(&key) && Drive::parse(&value).is_cdrom() && vm.config.contains_key(&key));
        if running && !live {
            vm.pending.insert(key, Some(value));
        } else {
            vm.pending.remove(&key);
            if key == "template" && value == "0" {
                vm.config.remove(&key);
                continue;
            }
            vm.config.insert(key, value);
        }
    }
    Ok(())
}

/// Changes the disc of a CD drive of a running VM.
async fn change_medium(
    cluster: &crate::cluster::Cluster,
    node: &str,
    process: &crate::vm::RunningVm,
    config: &Config,
    key: &str,
    value: &str,
) -> Result<(), String> {
    let drive = Drive::parse(value);
    if !drive.is_cdrom() || !config.contains_key(key) {
        return Ok(());
    }
    let result = if drive.has_volume() {
        let path = cluster.storages.path(node, &drive.volume)?;
        let format = cluster.disks.format(&path).await?;
        let arguments =
            json!({"id": key, "filename": path.to_string_lossy(), "format": format, "force": true});
        process.qmp.execute("blockdev-change-medium", arguments).await
    } else {
        process.qmp.execute("eject", json!({"id": key, "force": true})).await
    };
    result.map(drop).map_err(|error| error.to_string())
}

/// A disk that goes becomes `unusedN`; a cloud-init drive is removed at once, and so is an `unusedN`.
fn detach(cluster: &crate::cluster::Cluster, node: &str, vm: &mut crate::state::Vm, key: &str, value: &str) {
    let drive = Drive::parse(value);
    if key.starts_with("unused") || drive.is_cloudinit() {
        remove_volume(cluster, node, &drive.volume);
    } else if is_drive_key(key) && drive.has_volume() && !drive.is_cdrom() {
        vm.add_unused(&drive.volume);
    }
}

/// Takes a device out of the boot order; whether it was in it.
pub fn prune_boot(vm: &mut crate::state::Vm, key: &str, running: bool) -> bool {
    let current = match vm.pending.get("boot") {
        Some(Some(boot)) => boot.clone(),
        _ => vm.config.get("boot").cloned().unwrap_or_default(),
    };
    let Some(order) = current.strip_prefix("order=") else { return false };
    if !order.split(';').any(|device| device == key) {
        return false;
    }
    let rest: Vec<&str> = order.split(';').filter(|device| *device != key).collect();
    let boot = format!("order={}", rest.join(";"));
    if running {
        vm.pending.insert("boot".to_owned(), Some(boot));
    } else {
        vm.config.insert("boot".to_owned(), boot);
    }
    true
}

/// Gives a VM a drive whose volume is there already, as a change of its configuration would.
///
/// # Errors
/// The text of what failed.
pub async fn set_drive(
    cluster: &Arc<crate::cluster::Cluster>,
    node: &str,
    vmid: u32,
    key: &str,
    drive: &Drive,
    lock: &OwnedMutexGuard<()>,
) -> Result<(), String> {
    let set = Config::from([(key.to_owned(), drive.print())]);
    let change = Change { set, delete: Vec::new(), revert: Vec::new(), text: String::new() };
    apply(cluster, node, vmid, change, lock).await
}

/// `PUT unlink`: deletes keys; `force` also removes the volumes.
pub async fn unlink(call: Call) -> ApiResult<Answer> {
    let keys: Vec<String> =
        crate::schema::split_list(call.params.text("idlist")).map(str::to_owned).collect();
    let lock = call.cluster.lock_config(call.vmid()).await?;
    let values: Vec<String> = {
        let vm = call.cluster.vm(call.node(), call.vmid())?;
        vm.check_lock()?;
        keys.iter().filter_map(|key| vm.get(key).map(str::to_owned)).collect()
    };
    let change = Change { set: Config::new(), delete: keys, revert: Vec::new(), text: String::new() };
    apply(&call.cluster, call.node(), call.vmid(), change, &lock).await.map_err(ApiError::die)?;
    if call.params.flag("force") {
        let mut state = call.cluster.state();
        let vm = state.vm_mut(call.node(), call.vmid())?;
        for volume in values.iter().map(|value| Drive::parse(value).volume) {
            vm.config.retain(|key, value| !(key.starts_with("unused") && *value == volume));
            remove_volume(&call.cluster, call.node(), &volume);
        }
    }
    Ok(Value::Null.into())
}
