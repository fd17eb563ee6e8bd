//! Volumes: allocating the drives of a configuration, and removing what a VM leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::error::{ApiError, ApiResult};
use crate::state::{Config, Drive, Volume, is_drive_key, print_size};
use crate::tasks::TaskLog;
use crate::vm::{CloudInit, Disks, EfiKind, write_drive};

/// For which VM drives are allocated.
pub struct DriveInput<'a> {
    /// The lab.
    pub cluster: &'a Arc<Cluster>,
    /// Node.
    pub node: &'a str,
    /// The VM.
    pub vmid: u32,
    /// Its name, for the cloud-init drive.
    pub name: &'a str,
}

/// Replaces `STORE:SIZE`, `STORE:cloudinit` and imports by volumes that exist; volumes made are removed again when
/// a later one fails. `current` is the configuration the drives are added to.
///
/// # Errors
/// Proxmox's text, without the leading `unable to create VM …`.
pub async fn allocate(
    input: &DriveInput<'_>,
    set: &Config,
    current: &Config,
    log: Option<&TaskLog>,
) -> Result<Config, String> {
    let mut made: Vec<String> = Vec::new();
    let mut values = Config::new();
    for (key, value) in set.iter().filter(|(key, _)| is_drive_key(key)) {
        let mut whole = current.clone();
        whole.extend(set.clone());
        match allocate_one(input, key, value, &whole, &mut made, log).await {
            Ok(value) => drop(values.insert(key.clone(), value)),
            Err(error) => {
                for volid in &made {
                    remove_volume(input.cluster, input.node, volid);
                }
                return Err(error);
            }
        }
    }
    Ok(values)
}

async fn allocate_one(
    input: &DriveInput<'_>,
    key: &str,
    value: &str,
    whole: &Config,
    made: &mut Vec<String>,
    log: Option<&TaskLog>,
) -> Result<String, String> {
    let DriveInput { cluster, node, vmid, name } = *input;
    let mut drive = Drive::parse(value);
    if !drive.has_volume() {
        return Ok(drive.print());
    }
    let storage = drive.storage().unwrap_or_default().to_owned();
    let rest = drive.volume[storage.len() + 1..].to_owned();
    if rest == "cloudinit" {
        if let Some((other, _)) = whole
            .iter()
            .find(|(other, value)| *other != key && is_drive_key(other) && Drive::parse(value).is_cloudinit())
        {
            return Err(format!("{key} - cloud-init drive is already attached at '{other}'"));
        }
        drive.volume = format!("{storage}:{vmid}/vm-{vmid}-cloudinit.qcow2");
        drive.options.insert("media".to_owned(), "cdrom".to_owned());
        made.push(drive.volume.clone());
        write_cloudinit(cluster, node, vmid, name, whole, &drive.volume).await?;
        return Ok(drive.print());
    }
    if let Some(source) = drive.options.remove("import-from") {
        return import(input, key, drive, &source, made, log).await;
    }
    if let Ok(gigabytes) = rest.parse::<f64>() {
        let wanted = drive.options.remove("format");
        let format = wanted.unwrap_or_else(|| "raw".to_owned());
        let base = key.trim_end_matches(|c: char| c.is_ascii_digit());
        let efi = (base == "efidisk").then(|| EfiKind::of(&drive.options));
        let bytes = match base {
            "efidisk" => efi.map_or(0, EfiKind::size),
            "tpmstate" => 4 << 20,
            _ => (gigabytes * (1u64 << 30) as f64) as u64,
        };
        let volid = cluster.storages.new_disk(node, &storage, vmid, &format, made)?;
        let path = cluster.storages.path(node, &volid)?;
        made.push(volid.clone());
        match efi.filter(|_| cluster.disks == Disks::Real) {
            Some(kind) => {
                let template = kind.template();
                if !template.is_file() {
                    return Err(format!("EFI vars default image '{}' not found", template.display()));
                }
                cluster.disks.convert(&template, &path, &format, None, &|_| {}).await?;
            }
            None => cluster.disks.create(&path, &format, bytes).await?,
        }
        drive.volume = volid;
        drive.options.insert("size".to_owned(), print_size(bytes));
        if let Some(log) = log {
            let path = Volume::parse(&drive.volume)?.display_path();
            log.line(format!("Formatting '{path}', fmt={format} size={bytes}"));
            log.line(format!("{key}: successfully created disk '{}'", drive.print()));
        }
        return Ok(drive.print());
    }
    let path = cluster.storages.path(node, &drive.volume)?;
    if !path.exists() {
        return Err(format!("volume '{}' does not exist", drive.volume));
    }
    if !drive.is_cloudinit() {
        let size = match Volume::parse(&drive.volume)?.content.as_str() {
            "images" => cluster.disks.size(&path).await?,
            // What qemu-img sees: whole sectors.
            _ => path.metadata().map_or(0, |metadata| metadata.len().next_multiple_of(512)),
        };
        drive.options.insert("size".to_owned(), print_size(size));
    }
    Ok(drive.print())
}

/// Copies an image of a storage, or of another VM, into a new disk (observed: download-import-pools-tasks.txt).
async fn import(
    input: &DriveInput<'_>,
    key: &str,
    mut drive: Drive,
    source: &str,
    made: &mut Vec<String>,
    log: Option<&TaskLog>,
) -> Result<String, String> {
    let DriveInput { cluster, node, vmid, .. } = *input;
    let from = match source.starts_with('/') {
        true => cluster.storages.behind(node, source),
        false => cluster.storages.path(node, source)?,
    };
    if !from.exists() {
        return Err(format!("volume '{source}' does not exist"));
    }
    let storage = drive.storage().unwrap_or_default().to_owned();
    let format = match drive.options.remove("format") {
        Some(format) => format,
        None if key.starts_with("efidisk") || key.starts_with("tpmstate") => "raw".to_owned(),
        None => match cluster.disks.format(&from).await?.as_str() {
            known @ ("qcow2" | "vmdk") => known.to_owned(),
            _ => "raw".to_owned(),
        },
    };
    let volid = cluster.storages.new_disk(node, &storage, vmid, &format, made)?;
    let path = cluster.storages.path(node, &volid)?;
    made.push(volid.clone());
    let size = cluster.disks.size(&from).await?;
    if let Some(log) = log {
        log.line(format!("create full clone of drive ({source})"));
        log.line(format!("Formatting '{}', fmt={format} size={size}", Volume::parse(&volid)?.display_path()));
        log.line(format!("allocated target volume '{volid}'"));
    }
    super::clone::transfer(cluster, log, &from, &path, &format, size, None).await?;
    drive.volume = volid;
    drive.options.insert("size".to_owned(), print_size(size));
    if let Some(log) = log {
        log.line(format!("{key}: successfully created disk '{}'", drive.print()));
    }
    Ok(drive.print())
}

/// Writes the cloud-init drive of a configuration.
///
/// # Errors
/// The text of what failed.
pub async fn write_cloudinit(
    cluster: &Cluster,
    node: &str,
    vmid: u32,
    name: &str,
    config: &Config,
    volid: &str,
) -> Result<(), String> {
    let path = cluster.storages.path(node, volid)?;
    if cluster.disks == Disks::Stub {
        return cluster.disks.create(&path, "qcow2", 4 << 20).await;
    }
    let folder = vm_folder(cluster, vmid)?;
    write_drive(&CloudInit::of(config, name), &folder, &path).await
}

/// The folder of a VM's sockets and scratch files, made when it is missing.
///
/// # Errors
/// It can't be made.
pub fn vm_folder(cluster: &Cluster, vmid: u32) -> Result<std::path::PathBuf, String> {
    let folder = cluster.run_dir.join(vmid.to_string());
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("can't create '{}': {error}", folder.display()))?;
    Ok(folder)
}

/// Removes a volume's file; what is gone already is fine.
pub fn remove_volume(cluster: &Cluster, node: &str, volid: &str) {
    let Ok(path) = cluster.storages.path(node, volid) else { return };
    let _ = std::fs::remove_file(&path);
    if let Some(folder) = path.parent() {
        // Only an empty folder goes.
        let _ = std::fs::remove_dir(folder);
    }
}

/// Removes a VM that came to nothing: its configuration and every image in its folders.
pub fn forget_vm(cluster: &Cluster, node: &str, vmid: u32) {
    forget_config(cluster, vmid);
    remove_images(cluster, node, vmid);
}

/// Removes a VM's configuration and what is about it; its disks stay.
pub fn forget_config(cluster: &Cluster, vmid: u32) {
    cluster.state().vms.remove(&vmid);
    cluster.auth().forget_vm(vmid);
    let _ = std::fs::remove_dir_all(cluster.run_dir.join(vmid.to_string()));
}

/// Removes every image that bears a VMID, on each storage of the node that takes images.
pub fn remove_images(cluster: &Cluster, node: &str, vmid: u32) {
    for storage in cluster.storages.on(node).filter(|storage| storage.takes("images")) {
        if let Ok(folder) = cluster.storages.content_folder(node, &storage.name, "images") {
            let _ = std::fs::remove_dir_all(folder.join(vmid.to_string()));
        }
    }
}

/// The first linked clone of one of a VM's base volumes: the volume that is in use.
pub fn base_in_use(cluster: &Cluster, node: &str, vmid: u32) -> ApiResult<Option<String>> {
    let state = cluster.state();
    let bases: BTreeMap<String, String> = state
        .vm(node, vmid)?
        .drives()
        .filter_map(|(_, drive)| Some((drive.volume.split_once(':')?.1.to_owned(), drive.volume.clone())))
        .collect();
    for other in state.vms.values().filter(|other| other.vmid != vmid) {
        for (_, drive) in other.drives() {
            let Some(base) = Volume::parse(&drive.volume).ok().and_then(|volume| volume.base) else {
                continue;
            };
            if let Some(volume) = bases.get(&base) {
                return Ok(Some(volume.clone()));
            }
        }
    }
    Ok(None)
}

/// Demands that a disk exists in a configuration.
///
/// # Errors
/// 500 `disk '…' does not exist`.
pub fn disk_of(config: &Config, key: &str) -> ApiResult<Drive> {
    config
        .get(key)
        .filter(|_| is_drive_key(key))
        .map(|value| Drive::parse(value))
        .ok_or_else(|| ApiError::die(format!("disk '{key}' does not exist")))
}
