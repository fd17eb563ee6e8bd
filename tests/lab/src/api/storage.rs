//! `/nodes/{node}/storage`.

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::error::{ApiError, ApiResult};
use crate::state::{StorageConfig, Volume};

/// Privileges with which a storage is seen.
const SEE: &[&str] = &["Datastore.Audit", "Datastore.AllocateSpace"];

fn path_of(storage: &str) -> String {
    format!("/storage/{storage}")
}

/// `GET /nodes/{node}/storage`: only what the caller may see.
pub fn list(call: &Call) -> ApiResult<Answer> {
    let content = call.params.get("content");
    let mut list = Vec::new();
    for storage in call.cluster.storages.all() {
        let wanted = content.is_none_or(|list| {
            crate::schema::split_list(list).any(|kind| storage.content.iter().any(|content| content == kind))
        });
        let named = call.params.get("storage").is_none_or(|name| name == storage.name);
        if wanted && named && call.may(&path_of(&storage.name), SEE) {
            let mut entry = figures(call, storage)?;
            entry.insert("storage".to_owned(), storage.name.clone().into());
            list.push(Value::Object(entry));
        }
    }
    Ok(Value::Array(list).into())
}

/// `GET status`.
pub fn status(call: &Call) -> ApiResult<Answer> {
    let storage = call.cluster.storages.get(call.params.text("storage"))?;
    Ok(Value::Object(figures(call, storage)?).into())
}

fn figures(call: &Call, storage: &StorageConfig) -> ApiResult<Map<String, Value>> {
    let folder = call.cluster.storages.folder(call.node(), &storage.name)?;
    let (total, avail) = match nix::sys::statvfs::statvfs(&folder) {
        Ok(stat) => {
            let block = stat.fragment_size();
            (stat.blocks() * block, stat.blocks_available() * block)
        }
        Err(_) => (0, 0),
    };
    let used = total.saturating_sub(avail);
    let share = if total > 0 { used as f64 / total as f64 } else { 0.0 };
    let value = json!({
        "type": "dir", "content": storage.content_text(), "active": 1, "enabled": 1,
        "shared": u8::from(storage.shared), "total": total, "avail": avail, "used": used, "used_fraction": share,
    });
    Ok(value.as_object().cloned().unwrap_or_default())
}

/// `GET content`.
pub async fn content(call: &Call) -> ApiResult<Answer> {
    let name = call.params.text("storage");
    let storage = call.cluster.storages.get(name)?;
    let wanted = call.params.get("content");
    let owner = call.params.get("vmid");
    let mut list = Vec::new();
    for kind in ["iso", "vztmpl", "import", "snippets"] {
        if owner.is_some() || wanted.is_some_and(|wanted| wanted != kind) || !has(storage, kind) {
            continue;
        }
        let folder = call.cluster.storages.content_folder(call.node(), name, kind)?;
        for (file, size, ctime) in files(&folder) {
            let format = file.rsplit('.').next().unwrap_or("raw").to_owned();
            list.push(json!({"volid": format!("{name}:{kind}/{file}"), "content": kind, "format": format, "size": size, "ctime": ctime}));
        }
    }
    if wanted.is_none_or(|wanted| wanted == "images" || wanted == "rootdir") && has(storage, "images") {
        let folder = call.cluster.storages.content_folder(call.node(), name, "images")?;
        for (vmid, _, _) in files(&folder) {
            if owner.is_some_and(|owner| owner != vmid) {
                continue;
            }
            for (file, used, ctime) in files(&folder.join(&vmid)) {
                let Some(volid) = image_volid(call, name, &vmid, &file) else { continue };
                let path = folder.join(&vmid).join(&file);
                let size = call.cluster.disks.size(&path).await.unwrap_or(used);
                let parent = Volume::parse(&volid)
                    .ok()
                    .and_then(|volume| volume.base)
                    .map(|base| format!("../{base}"));
                list.push(json!({"volid": volid, "content": "images", "format": Volume::parse(&volid)?.format(),
                    "size": size, "used": used, "ctime": ctime, "vmid": vmid.parse::<u32>().unwrap_or(0), "parent": parent}));
            }
        }
    }
    Ok(Value::Array(list).into())
}

fn has(storage: &StorageConfig, kind: &str) -> bool {
    storage.content.iter().any(|content| content == kind)
}

/// The identifier of an image file: as a configuration names it, for linked clones name their base.
fn image_volid(call: &Call, storage: &str, vmid: &str, file: &str) -> Option<String> {
    if !file.starts_with("vm-") && !file.starts_with("base-") {
        return None;
    }
    let plain = format!("{storage}:{vmid}/{file}");
    let suffix = format!("/{vmid}/{file}");
    let state = call.cluster.state();
    let linked =
        state.vms.values().flat_map(|vm| vm.drives().map(|(_, drive)| drive.volume).collect::<Vec<_>>());
    Some(linked.into_iter().find(|volume| volume.ends_with(&suffix)).unwrap_or(plain))
}

fn files(folder: &Path) -> Vec<(String, u64, i64)> {
    let mut list: Vec<(String, u64, i64)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let metadata = entry.metadata().ok();
            let size = metadata.as_ref().map_or(0, std::fs::Metadata::len);
            let time = metadata
                .and_then(|metadata| metadata.modified().ok())
                .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
                .map_or(0, |time| time.as_secs().cast_signed());
            (entry.file_name().to_string_lossy().into_owned(), size, time)
        })
        .collect();
    list.sort();
    list
}

fn volume_id(call: &Call) -> String {
    let volume = call.params.text("volume");
    if volume.contains(':') { volume.to_owned() } else { format!("{}:{volume}", call.params.text("storage")) }
}

/// `GET content/{volume}`.
pub async fn volume(call: &Call) -> ApiResult<Answer> {
    let volid = volume_id(call);
    let volume = Volume::parse(&volid)?;
    call.require_any(&path_of(&volume.storage), SEE)?;
    let path = call.cluster.storages.path(call.node(), &volid)?;
    if !path.exists() {
        return Err(ApiError::die(format!("volume_size_info on '{volid}' failed - no such file")));
    }
    let size = match volume.content.as_str() {
        "images" => call.cluster.disks.size(&path).await.map_err(ApiError::die)?,
        _ => path.metadata().map_or(0, |metadata| metadata.len()),
    };
    Ok(json!({"path": volume.display_path(), "size": size, "used": size, "format": volume.format()}).into())
}

/// `DELETE content/{volume}`: deleting what is not there succeeds.
pub fn delete(call: &Call) -> ApiResult<Answer> {
    let volid = volume_id(call);
    let volume = Volume::parse(&volid)?;
    let privilege = if volume.content == "images" { "Datastore.AllocateSpace" } else { "Datastore.Allocate" };
    call.require(&path_of(&volume.storage), &[privilege])?;
    let path = call.cluster.storages.path(call.node(), &volid)?;
    call.spawn("imgdel", volid.clone(), |log| async move {
        if path.exists() {
            std::fs::remove_file(&path).map_err(|error| format!("unlink failed - {error}"))?;
        }
        log.line(format!("Removed volume '{volid}'"));
        Ok(())
    })
}
