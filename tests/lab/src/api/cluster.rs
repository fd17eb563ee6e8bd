//! `/version` and `/cluster`.

use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::error::{ApiError, ApiResult};
use crate::state::typed;

/// `GET /version`.
pub fn version() -> ApiResult<Answer> {
    Ok(json!({"version": "9.2.11", "release": "9.2", "repoid": "14a22df3"}).into())
}

/// `GET /cluster/nextid`: reserves nothing.
pub fn next_id(call: &Call) -> ApiResult<Answer> {
    let state = call.cluster.state();
    match call.params.number::<u32>("vmid") {
        Some(vmid) if state.vms.contains_key(&vmid) => {
            Err(ApiError::parameter("vmid", format!("VM {vmid} already exists")))
        }
        Some(vmid) => Ok(vmid.to_string().into()),
        None => Ok(state.next_id().to_string().into()),
    }
}

/// `GET /cluster/resources`: only what the caller may audit. Unlike a real server's, it is never stale.
pub fn resources(call: &Call) -> ApiResult<Answer> {
    let wanted = call.params.get("type");
    let mut list = Vec::new();
    if wanted.is_none_or(|kind| kind == "vm") {
        for vm in call.cluster.state().vms.values() {
            if call.may(&format!("/vms/{}", vm.vmid), &["VM.Audit"]) {
                list.push(vm_resource(vm));
            }
        }
    }
    if wanted.is_none_or(|kind| kind == "node") {
        for node in &call.cluster.config.nodes {
            list.push(
                json!({"type": "node", "id": format!("node/{node}"), "node": node, "status": "online"}),
            );
        }
    }
    if wanted.is_none_or(|kind| kind == "storage") {
        for node in &call.cluster.config.nodes {
            for storage in call.cluster.storages.all() {
                let path = format!("/storage/{}", storage.name);
                if call.may(&path, &["Datastore.Audit", "Datastore.AllocateSpace"]) {
                    list.push(json!({
                        "type": "storage", "id": format!("storage/{node}/{}", storage.name), "node": node,
                        "storage": storage.name, "status": "available", "plugintype": "dir",
                        "content": storage.content_text(), "shared": u8::from(storage.shared),
                    }));
                }
            }
        }
    }
    Ok(Value::Array(list).into())
}

fn vm_resource(vm: &crate::state::Vm) -> Value {
    let (mut entry, _) = super::qemu::summary(vm);
    entry.insert("type".to_owned(), "qemu".into());
    entry.insert("id".to_owned(), format!("qemu/{}", vm.vmid).into());
    entry.insert("node".to_owned(), vm.node.clone().into());
    entry.insert("template".to_owned(), u8::from(vm.is_template()).into());
    if let Some(cpus) = entry.remove("cpus") {
        entry.insert("maxcpu".to_owned(), cpus);
    }
    if let Some(lock) = vm.get("lock") {
        entry.insert("lock".to_owned(), typed("lock", lock));
    }
    Value::Object(entry)
}

/// `GET /cluster/status`.
pub fn status(call: &Call) -> ApiResult<Answer> {
    let nodes = &call.cluster.config.nodes;
    let mut list = Vec::new();
    if nodes.len() > 1 {
        list.push(json!({"type": "cluster", "id": "cluster", "name": "lab", "nodes": nodes.len(), "quorate": 1, "version": nodes.len()}));
    }
    for (index, node) in nodes.iter().enumerate() {
        let mut entry = Map::new();
        entry.insert("type".to_owned(), "node".into());
        entry.insert("id".to_owned(), format!("node/{node}").into());
        entry.insert("name".to_owned(), node.clone().into());
        entry.insert("nodeid".to_owned(), (index + 1).into());
        entry.insert("ip".to_owned(), "127.0.0.1".into());
        entry.insert("online".to_owned(), 1.into());
        entry.insert("local".to_owned(), u8::from(index == 0).into());
        entry.insert("level".to_owned(), "".into());
        list.push(Value::Object(entry));
    }
    Ok(Value::Array(list).into())
}
