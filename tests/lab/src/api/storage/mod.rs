//! `/nodes/{node}/storage` and `/storage`.

pub mod backup;
mod download;
mod fetch;
mod prune;
mod upload;

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::error::{ApiError, ApiResult};
use crate::state::{StorageConfig, Volume};

/// Privileges with which a storage is seen.
const SEE: &[&str] = &["Datastore.Audit", "Datastore.AllocateSpace"];
/// Privileges with which a storage's configuration is seen.
const SEE_CONFIG: &[&str] = &["Datastore.Allocate", "Datastore.Audit", "Datastore.AllocateSpace"];

/// Answers a call below `/nodes/{node}/storage`.
pub async fn dispatch(method: &str, below: &str, call: Call) -> Option<ApiResult<Answer>> {
    Some(match (method, below) {
        ("GET", "") => list(&call),
        ("GET", "/{storage}") => index(),
        ("GET", "/{storage}/status") => status(&call),
        ("GET", "/{storage}/content") => content(&call).await,
        ("POST", "/{storage}/content") => allocate(&call).await,
        ("GET", "/{storage}/content/{volume}") => volume(&call).await,
        ("DELETE", "/{storage}/content/{volume}") => delete(&call).await,
        ("POST", "/{storage}/upload") => upload::upload(call),
        ("POST", "/{storage}/download-url") => download::download(&call),
        ("GET", "/{storage}/prunebackups") => prune::list(&call),
        ("DELETE", "/{storage}/prunebackups") => prune::prune(&call),
        _ => return None,
    })
}

pub use download::metadata as query_url_metadata;

fn path_of(storage: &str) -> String {
    format!("/storage/{storage}")
}

fn index() -> ApiResult<Answer> {
    let names = ["content", "download-url", "prunebackups", "status", "upload"];
    Ok(names.iter().map(|name| json!({"subdir": name})).collect::<Value>().into())
}

/// `GET /storage`: the configuration of the storages one may see.
pub fn configurations(call: &Call) -> ApiResult<Answer> {
    let kind = call.params.get("type");
    let seen = call.cluster.storages.all().iter().filter(|storage| {
        kind.is_none_or(|kind| kind == storage.kind()) && call.may(&path_of(&storage.name), SEE_CONFIG)
    });
    Ok(seen.map(configuration).collect::<Value>().into())
}

/// `GET /storage/{storage}`.
pub fn read_configuration(call: &Call) -> ApiResult<Answer> {
    let storage = call.cluster.storages.get(call.params.text("storage"))?;
    Ok(configuration(storage).into())
}

fn configuration(storage: &StorageConfig) -> Value {
    let mut entry = json!({"storage": storage.name, "type": storage.kind(), "content": storage.content_text(),
        "path": if storage.name == "local" { "/var/lib/vz".to_owned() } else { format!("/mnt/pve/{}", storage.name) },
        "digest": "0".repeat(40)});
    if storage.shared {
        entry["shared"] = 1.into();
    }
    if let Some(nodes) = &storage.nodes {
        entry["nodes"] = nodes.join(",").into();
    }
    entry
}

/// `GET /nodes/{node}/storage`: only what the caller may see.
fn list(call: &Call) -> ApiResult<Answer> {
    let content = call.params.get("content");
    let mut list = Vec::new();
    for storage in call.cluster.storages.on(call.node()) {
        let wanted =
            content.is_none_or(|list| crate::schema::split_list(list).any(|kind| storage.takes(kind)));
        let named = call.params.get("storage").is_none_or(|name| name == storage.name);
        let reached = call.params.get("target").is_none_or(|node| storage.shared && storage.is_on(node));
        if wanted && named && reached && call.may(&path_of(&storage.name), SEE) {
            let mut entry = figures(call, storage)?;
            entry.insert("storage".to_owned(), storage.name.clone().into());
            list.push(Value::Object(entry));
        }
    }
    Ok(Value::Array(list).into())
}

/// `GET status`.
fn status(call: &Call) -> ApiResult<Answer> {
    let storage = call.cluster.storages.get_on(call.node(), call.params.text("storage"))?;
    let mut entry = figures(call, storage)?;
    entry.remove("used_fraction");
    Ok(Value::Object(entry).into())
}

fn figures(call: &Call, storage: &StorageConfig) -> ApiResult<Map<String, Value>> {
    let (total, used) = call.cluster.storages.usage(call.node(), storage)?;
    let share = if total > 0 { used as f64 / total as f64 } else { 0.0 };
    let value = json!({
        "type": storage.kind(), "content": storage.content_text(), "active": 1, "enabled": 1,
        "shared": u8::from(storage.shared), "total": total, "avail": total - used, "used": used,
        "used_fraction": share,
    });
    Ok(value.as_object().cloned().unwrap_or_default())
}

/// `GET content`.
async fn content(call: &Call) -> ApiResult<Answer> {
    let name = call.params.text("storage");
    let storage = call.cluster.storages.get_on(call.node(), name)?;
    let wanted = call.params.get("content");
    let owner = call.params.get("vmid");
    let mut list = Vec::new();
    for kind in ["iso", "vztmpl", "import", "snippets", "backup"] {
        if wanted.is_some_and(|wanted| wanted != kind) || !storage.takes(kind) {
            continue;
        }
        let folder = call.cluster.storages.content_folder(call.node(), name, kind)?;
        for (file, size, ctime) in files(&folder) {
            let of_backup = (kind == "backup").then(|| backup::format(&file));
            if of_backup == Some(None) {
                continue;
            }
            let volid = format!("{name}:{kind}/{file}");
            if of_backup.is_some() && backup::check_access(call, &Volume::parse(&volid)?).is_err() {
                continue;
            }
            let vmid = (kind == "backup").then(|| prune::owner(&file)).flatten();
            // Observed: what is to be imported is listed whatever VM is asked for.
            if kind != "import" && owner.is_some_and(|owner| vmid.as_deref() != Some(owner)) {
                continue;
            }
            let format = match kind {
                "iso" => "iso",
                "snippets" => "snippet",
                "vztmpl" => "txz",
                _ => of_backup.flatten().or_else(|| file.rsplit('.').next()).unwrap_or("raw"),
            };
            let mut entry =
                json!({"volid": volid, "content": kind, "format": format, "size": size, "ctime": ctime});
            if of_backup.is_some() {
                let path = folder.join(&file);
                // Of several lines of notes the list has the first.
                if let Ok(notes) = std::fs::read_to_string(backup::beside(&path, "notes")) {
                    entry["notes"] = notes.lines().next().unwrap_or_default().into();
                }
                if backup::beside(&path, "protected").exists() {
                    entry["protected"] = 1.into();
                }
            }
            if let Some(vmid) = vmid.and_then(|vmid| vmid.parse::<u32>().ok()) {
                entry["vmid"] = vmid.into();
                entry["subtype"] = "qemu".into();
            }
            list.push(entry);
        }
    }
    if wanted.is_none_or(|wanted| wanted == "images" || wanted == "rootdir") && storage.takes("images") {
        let folder = call.cluster.storages.content_folder(call.node(), name, "images")?;
        for (vmid, _, _) in files(&folder) {
            if owner.is_some_and(|owner| owner != vmid) {
                continue;
            }
            for (file, used, ctime) in files(&folder.join(&vmid)) {
                let Some(volid) = image_volid(call, name, &vmid, &file) else { continue };
                let path = folder.join(&vmid).join(&file);
                let size = call.cluster.disks.size(&path).await.unwrap_or(used);
                let volume = Volume::parse(&volid)?;
                let parent = volume.base.as_ref().map(|base| format!("../{base}"));
                list.push(json!({"volid": volid, "content": "images", "format": volume.format(),
                    "size": size, "used": used, "ctime": ctime, "vmid": vmid.parse::<u32>().unwrap_or(0), "parent": parent}));
            }
        }
    }
    Ok(Value::Array(list).into())
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

/// `POST content`: allocates a disk for a VM.
async fn allocate(call: &Call) -> ApiResult<Answer> {
    let name = call.params.text("storage");
    call.cluster.storages.check_images(name)?;
    let file = call.params.text("filename");
    let vmid = call.params.vmid();
    let kibibytes = match crate::state::parse_size(call.params.text("size")) {
        // A bare number is in KiB here.
        Some(size) if call.params.text("size").bytes().all(|byte| byte.is_ascii_digit()) => size,
        Some(size) => size >> 10,
        None => return Err(ApiError::parameter("size", "value does not match the regex pattern")),
    };
    if !file.contains(&format!("vm-{vmid}-")) {
        return Err(ApiError::die(format!("illegal name '{file}' - should be 'vm-{vmid}-*'")));
    }
    let format = call.params.get("format").map_or_else(
        || match file.rsplit_once('.') {
            Some((_, format @ ("qcow2" | "raw" | "vmdk"))) => format.to_owned(),
            _ => "raw".to_owned(),
        },
        str::to_owned,
    );
    let file = if file.contains('.') { file.to_owned() } else { format!("{file}.{format}") };
    let volid = format!("{name}:{vmid}/{file}");
    let path = call.cluster.storages.path(call.node(), &volid)?;
    if path.exists() {
        let shown = Volume::parse(&volid)?.display_path();
        return Err(ApiError::die(format!("disk image '{shown}' already exists")));
    }
    call.cluster.disks.create(&path, &format, kibibytes << 10).await.map_err(ApiError::die)?;
    Ok(volid.into())
}

fn volume_id(call: &Call) -> String {
    let volume = call.params.text("volume");
    if volume.contains(':') { volume.to_owned() } else { format!("{}:{volume}", call.params.text("storage")) }
}

/// `GET content/{volume}`.
async fn volume(call: &Call) -> ApiResult<Answer> {
    let volid = volume_id(call);
    let volume = Volume::parse(&volid)?;
    call.require_any(&path_of(&volume.storage), SEE)?;
    let path = call.cluster.storages.path(call.node(), &volid)?;
    let Ok(metadata) = path.metadata() else {
        return Err(ApiError::die(format!("volume_size_info on '{volid}' failed - no format")));
    };
    // The size of a file is what qemu-img sees: whole sectors.
    let (size, used) = match volume.content.as_str() {
        "images" => {
            let size = call.cluster.disks.size(&path).await.map_err(ApiError::die)?;
            (size, metadata.len())
        }
        _ => (metadata.len().next_multiple_of(512), metadata.len().next_multiple_of(4096)),
    };
    let format = if volume.content == "images" { volume.format() } else { "raw" };
    Ok(json!({"path": volume.display_path(), "size": size, "used": used, "format": format}).into())
}

/// `DELETE content/{volume}`: deleting what is not there succeeds. With `delay` null, when it is done by then.
async fn delete(call: &Call) -> ApiResult<Answer> {
    let volid = volume_id(call);
    let volume = Volume::parse(&volid)?;
    match volume.content.as_str() {
        "backup" => backup::check_access(call, &volume)?,
        "images" => call.require(&path_of(&volume.storage), &["Datastore.AllocateSpace"])?,
        _ => call.require(&path_of(&volume.storage), &["Datastore.Allocate"])?,
    }
    if volume.content == "images" && volume.file.starts_with("base-") {
        let base = format!("{}/{}", volume.vmid.unwrap_or(0), volume.file);
        let state = call.cluster.state();
        let used = state.vms.values().any(|vm| {
            vm.drives().any(|(_, drive)| {
                Volume::parse(&drive.volume).is_ok_and(|own| own.base.as_deref() == Some(base.as_str()))
            })
        });
        if used {
            return Err(ApiError::die(format!("base volume '{volid}' is still in use by linked cloned")));
        }
    }
    let path = call.cluster.storages.path(call.node(), &volid)?;
    let id = call.params.text("storage").to_owned();
    let is_backup = volume.content == "backup";
    let answer = call.spawn("imgdel", id, |log| async move {
        if is_backup && backup::beside(&path, "protected").exists() {
            return Err(format!("cannot remove protected volume '{volid}'"));
        }
        if path.exists() {
            std::fs::remove_file(&path).map_err(|error| format!("unlink failed - {error}"))?;
        }
        if is_backup {
            let _none = std::fs::remove_file(backup::beside(&path, "notes"));
        }
        log.line(format!("Removed volume '{volid}'"));
        Ok(())
    })?;
    call.wait_for(answer, call.params.number("delay")).await
}
