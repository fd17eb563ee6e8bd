//! `POST clone`: full copies and linked overlays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Answer, Call, drives, rules};
use crate::cluster::Cluster;
use crate::error::{ApiError, ApiResult};
use crate::state::{Config, Drive, Vm, Volume, is_drive_key, parse_net, print_net, print_size};
use crate::tasks::TaskLog;

/// What a clone is to become.
struct Plan {
    cluster: Arc<Cluster>,
    node: String,
    target_node: String,
    vmid: u32,
    newid: u32,
    full: bool,
    storage: Option<String>,
    format: Option<String>,
    rate: Option<u64>,
    name: Option<String>,
    description: Option<String>,
}

/// Checks, reserves the new VMID with a configuration locked by `clone`, and starts the task.
pub async fn clone(call: Call) -> ApiResult<Answer> {
    let cluster = Arc::clone(&call.cluster);
    let source = cluster.vm(call.node(), call.vmid())?;
    let newid: u32 = call.params.number("newid").unwrap_or(0);
    let full = match call.params.get("full") {
        Some(flag) => flag == "1",
        None => !source.is_template(),
    };
    let storage = call.params.get("storage").map(str::to_owned);
    if !full {
        for parameter in ["storage", "format"] {
            if call.params.get(parameter).is_some() {
                return Err(ApiError::die(format!("parameter '{parameter}' not allowed for linked clones")));
            }
        }
    }
    if let Some(storage) = &storage {
        cluster.storages.check_images(storage)?;
    }
    let target_node = call.params.get("target").unwrap_or(call.node()).to_owned();
    check_target(&cluster, &source, &target_node)?;
    source.check_lock()?;
    rules::check_bridges(&call, &source.config)?;
    for (key, drive) in source.drives().filter(|(_, drive)| !drive.is_cdrom() || drive.is_cloudinit()) {
        let own = drive.storage().unwrap_or_default().to_owned();
        let to = storage.as_ref().filter(|_| full).unwrap_or(&own);
        call.require(&format!("/storage/{to}"), &["Datastore.AllocateSpace"])?;
        if !full && !drive.is_cloudinit() && !Volume::parse(&drive.volume)?.file.starts_with("base-") {
            return Err(ApiError::die(format!(
                "Linked clone feature is not supported for '{}' ({key})",
                drive.volume
            )));
        }
    }
    let lock = {
        let mut state = cluster.state();
        if state.vms.contains_key(&newid) {
            return Err(ApiError::die(format!("unable to create VM {newid}: config file already exists")));
        }
        let config = BTreeMap::from([
            ("description".to_owned(), " qmclone temporary file".to_owned()),
            ("lock".to_owned(), "clone".to_owned()),
        ]);
        state.insert(&cluster.network, newid, &target_node, config);
        state.locks(newid).config.try_lock_owned().ok()
    };
    let limit = call.params.number::<u64>("bwlimit").filter(|limit| *limit > 0).map(|limit| limit << 10);
    let plan = Plan {
        cluster: Arc::clone(&cluster),
        node: call.node().to_owned(),
        target_node: target_node.clone(),
        vmid: call.vmid(),
        newid,
        full,
        storage,
        format: call.params.get("format").map(str::to_owned),
        rate: limit.or(cluster.config.clone_rate),
        name: call.params.get("name").map(str::to_owned),
        description: call.params.get("description").map(str::to_owned),
    };
    let pool = call.params.get("pool").map(str::to_owned);
    if let Some(pool) = pool.as_deref().filter(|pool| !cluster.auth().pools.contains_key(*pool)) {
        drives::forget_vm(&cluster, &target_node, newid);
        return Err(ApiError::forbidden(&format!("pool '{pool}' does not exist")));
    }
    let undo = async move { drives::forget_vm(&cluster, &target_node, newid) };
    call.spawn_with_undo(
        "qmclone",
        plan.vmid,
        |log| async move {
            let lock = lock;
            let made = copy(&plan, &log).await;
            drop(lock);
            if made.is_ok() {
                plan.cluster.auth().add_to_pool(pool.as_deref(), newid);
            }
            made
        },
        undo,
    )
}

/// Another node needs shared storage.
fn check_target(cluster: &Cluster, source: &Vm, target: &str) -> ApiResult<()> {
    if target == source.node {
        return Ok(());
    }
    if !cluster.config.nodes.iter().any(|node| node == target) {
        return Err(ApiError::parameter("target", format!("no such cluster node '{target}'")));
    }
    for (_, drive) in source.drives() {
        let Some(storage) = drive.storage() else { continue };
        if !cluster.storages.get(storage)?.shared {
            return Err(ApiError::parameter(
                "target",
                format!("can't clone VM to node '{target}' (VM uses local storage)"),
            ));
        }
    }
    Ok(())
}

async fn copy(plan: &Plan, log: &TaskLog) -> Result<(), String> {
    let Plan { cluster, vmid, newid, .. } = plan;
    let _volumes = cluster.share_volumes(*vmid).await?;
    let source = cluster.vm(&plan.node, *vmid)?;
    log.line(format!("creating a clone of VM {vmid} with ID {newid}"));
    let mut config = inherited(plan, &source);
    let mut taken = Vec::new();
    for (key, drive) in source.drives() {
        // Discs in drives stay where they are; only the cloud-init drive is the VM's own.
        if !drive.has_volume() || (drive.is_cdrom() && !drive.is_cloudinit()) {
            continue;
        }
        let copied = copy_drive(plan, log, key, &drive, &mut taken)
            .await
            .map_err(|error| format!("clone failed: {error}"))?;
        config.insert(key.to_owned(), copied.print());
    }
    let mut state = cluster.state();
    state.vm_mut(&plan.target_node, *newid)?.config = config;
    Ok(())
}

/// Everything but snapshots, lock, template and unused disks comes along; identities are new.
fn inherited(plan: &Plan, source: &Vm) -> Config {
    let mut config = source.config.clone();
    config.retain(|key, _| {
        !matches!(key.as_str(), "lock" | "template" | "parent" | "snaptime") && !key.starts_with("unused")
    });
    for (key, value) in &mut config {
        if key.starts_with("net") && key[3..].bytes().all(|byte| byte.is_ascii_digit()) {
            let (model, _, options) = parse_net(value);
            *value = print_net(&model, &crate::ids::mac(), &options);
        } else if key == "smbios1" {
            let mut parts: Vec<String> =
                value.split(',').filter(|part| !part.starts_with("uuid=")).map(str::to_owned).collect();
            parts.push(format!("uuid={}", crate::ids::uuid()));
            parts.sort_unstable();
            *value = parts.join(",");
        } else if key == "vmgenid" {
            *value = crate::ids::uuid();
        }
    }
    let name = plan.name.clone().unwrap_or_else(|| match source.get("name") {
        Some(name) => format!("Copy-of-VM-{name}"),
        None => format!("Copy-of-VM-{}", source.vmid),
    });
    config.insert("name".to_owned(), name);
    if let Some(description) = &plan.description {
        config.insert("description".to_owned(), description.clone());
    }
    config
}

async fn copy_drive(
    plan: &Plan,
    log: &TaskLog,
    key: &str,
    drive: &Drive,
    taken: &mut Vec<String>,
) -> Result<Drive, String> {
    let Plan { cluster, newid, .. } = plan;
    let from = cluster.storages.path(&plan.node, &drive.volume)?;
    let source = Volume::parse(&drive.volume)?;
    let size = cluster.disks.size(&from).await?;
    let mut copy = drive.clone();
    if !plan.full && !drive.is_cloudinit() {
        log.line(format!("create linked clone of drive {key} ({})", drive.volume));
        let fresh = cluster.storages.new_disk(&plan.target_node, &source.storage, *newid, "qcow2", taken)?;
        let name = fresh.split_once(':').map(|(_, name)| name.to_owned()).unwrap_or_default();
        let base = format!("{}/{}", plan.vmid, source.file);
        copy.volume = format!("{}:{base}/{name}", source.storage);
        let path = cluster.storages.path(&plan.target_node, &copy.volume)?;
        cluster.disks.overlay(&path, std::path::Path::new(&format!("../{base}")), source.format()).await?;
        log.line(format!("clone {base}: images, {name}, {newid} to {name} (base=../{base})"));
        taken.push(copy.volume.clone());
    } else {
        log.line(format!("create full clone of drive {key} ({})", drive.volume));
        let storage = plan.storage.as_ref().unwrap_or(&source.storage);
        let format = plan.format.as_deref().unwrap_or_else(|| source.format());
        copy.volume = if drive.is_cloudinit() {
            format!("{storage}:{newid}/vm-{newid}-cloudinit.qcow2")
        } else {
            cluster.storages.new_disk(&plan.target_node, storage, *newid, format, taken)?
        };
        taken.push(copy.volume.clone());
        let path = cluster.storages.path(&plan.target_node, &copy.volume)?;
        let shown = Volume::parse(&copy.volume)?;
        log.line(format!("Formatting '{}', fmt={} size={size}", shown.display_path(), shown.format()));
        log.line(format!("allocated target volume '{}'", copy.volume));
        transfer(cluster, Some(log), &from, &path, shown.format(), size, plan.rate).await?;
    }
    if is_drive_key(key) {
        copy.options.insert("size".to_owned(), print_size(size));
    }
    Ok(copy)
}

/// Copies an image with Proxmox's lines of progress.
///
/// # Errors
/// `copy failed: …`.
pub async fn transfer(
    cluster: &Cluster,
    log: Option<&TaskLog>,
    from: &std::path::Path,
    to: &std::path::Path,
    format: &str,
    size: u64,
    rate: Option<u64>,
) -> Result<(), String> {
    let total = human(size as f64);
    let say = |text: String| {
        if let Some(log) = log {
            log.line(text);
        }
    };
    let last = AtomicU64::new(0);
    say(format!("transferred 0.0 B of {total} (0.00%)"));
    let progress = |percent: f64| {
        if let Some(log) = log {
            log.progress(percent);
        }
        // A line for each further percent, as Proxmox's own filter does.
        let whole = percent as u64;
        if whole > last.load(Ordering::Relaxed) && percent < 100.0 {
            last.store(whole, Ordering::Relaxed);
            say(format!("transferred {} of {total} ({percent:.2}%)", human(size as f64 * percent / 100.0)));
        }
    };
    cluster
        .disks
        .convert(from, to, format, rate, &progress)
        .await
        .map_err(|error| format!("copy failed: {error}"))?;
    say(format!("transferred {total} of {total} (100.00%)"));
    Ok(())
}

fn human(bytes: f64) -> String {
    for (unit, factor) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let scale = f64::from(1u32 << factor);
        if bytes >= scale {
            return format!("{:.1} {unit}", bytes / scale);
        }
    }
    format!("{bytes:.1} B")
}
