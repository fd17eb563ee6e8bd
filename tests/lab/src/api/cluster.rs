//! `/version` and `/cluster`.

use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::config::PveVersion;
use crate::error::{ApiError, ApiResult};
use crate::state::{Vm, typed};

/// `GET /version`.
pub fn version(call: &Call) -> ApiResult<Answer> {
    Ok(match call.cluster.config.version {
        PveVersion::V9 => json!({"version": "9.2.11", "release": "9.2", "repoid": "14a22df3"}),
        PveVersion::V8 => json!({"version": "8.4.14", "release": "8.4", "repoid": "b502d23c55afcba1"}),
    }
    .into())
}

/// `GET /cluster`.
pub fn index() -> ApiResult<Answer> {
    let names = ["nextid", "options", "resources", "status", "tasks"];
    Ok(names.iter().map(|name| json!({"name": name})).collect::<Value>().into())
}

/// `GET /cluster/nextid`: reserves nothing.
pub fn next_id(call: &Call) -> ApiResult<Answer> {
    let (lower, upper) = next_id_range(call);
    let state = call.cluster.state();
    match call.params.number::<u32>("vmid") {
        Some(vmid) if state.vms.contains_key(&vmid) => {
            Err(ApiError::parameter("vmid", format!("VM {vmid} already exists")))
        }
        Some(vmid) => Ok(vmid.to_string().into()),
        None => match (lower..upper).find(|vmid| !state.vms.contains_key(vmid)) {
            Some(vmid) => Ok(vmid.to_string().into()),
            None => {
                Err(ApiError::die(format!("unable to get any free VMID in range [{lower}, {}]", upper - 1)))
            }
        },
    }
}

/// The range of free numbers in the cluster's options; the upper end is not in it.
fn next_id_range(call: &Call) -> (u32, u32) {
    let options = call.cluster.options.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let text = options.get("next-id").and_then(Value::as_str).unwrap_or_default();
    let bound = |name: &str| {
        text.split(',').filter_map(|part| part.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
    };
    (bound("lower").unwrap_or(100), bound("upper").unwrap_or(1_000_000))
}

/// `GET /cluster/options`: without Sys.Audit only what the pages need.
pub fn options(call: &Call) -> ApiResult<Answer> {
    Ok(Value::Object(super::tags::shown_options(call)).into())
}

/// `PUT /cluster/options`: kept; only `next-id` and what is said of tags have an effect.
pub fn set_options(call: &Call) -> ApiResult<Answer> {
    let mut options = call.cluster.options.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for key in crate::schema::split_list(call.params.get("delete").unwrap_or_default()) {
        options.remove(key);
    }
    for (key, _) in call.params.0.iter().filter(|(key, _)| *key != "delete") {
        options.insert(key.clone(), call.params.text(key).into());
    }
    Ok(Value::Null.into())
}

/// `GET /cluster/sdn/vnets`: those that the caller may audit or change, whatever he may use.
pub fn vnets(call: &Call) -> ApiResult<Answer> {
    let config = &call.cluster.config;
    let visible =
        |(name, _): &&(String, String)| call.may(&config.sdn_path(name), &["SDN.Audit", "SDN.Allocate"]);
    let entry = |(name, zone): &(String, String)| json!({"vnet": name, "zone": zone, "type": "vnet"});
    Ok(config.vnets.iter().filter(visible).map(entry).collect::<Value>().into())
}

/// `GET /cluster/resources`: only what the caller may audit. Unlike a real server's, it is never stale.
pub fn resources(call: &Call) -> ApiResult<Answer> {
    let wanted = call.params.get("type");
    let asks = |kind: &str| wanted.is_none_or(|wanted| wanted == kind);
    let mut list = Vec::new();
    if asks("vm") {
        let pools = call.cluster.auth().pools.clone();
        for vm in call.cluster.state().vms.values() {
            if call.may(&format!("/vms/{}", vm.vmid), &["VM.Audit"]) {
                let pool =
                    pools.iter().find(|(_, pool)| pool.vms.contains(&vm.vmid)).map(|(name, _)| name.as_str());
                list.push(vm_resource(vm, pool));
            }
        }
    }
    if wanted.is_none() {
        let pools: Vec<String> = call.cluster.auth().pools.keys().cloned().collect();
        for id in pools {
            if call.may(&format!("/pool/{id}"), &["Pool.Audit"]) {
                list.push(json!({"type": "pool", "id": format!("/pool/{id}"), "pool": id}));
            }
        }
    }
    if asks("node") {
        for node in &call.cluster.config.nodes {
            let mut entry = super::nodes::figures(call, node);
            entry.insert("type".to_owned(), "node".into());
            if !call.may(&format!("/nodes/{node}"), &["Sys.Audit"]) {
                entry.retain(|key, _| matches!(key.as_str(), "type" | "id" | "node" | "status"));
            }
            list.push(Value::Object(entry));
        }
    }
    if asks("storage") {
        for node in &call.cluster.config.nodes {
            for storage in call.cluster.storages.on(node) {
                let path = format!("/storage/{}", storage.name);
                if call.may(&path, &["Datastore.Audit", "Datastore.AllocateSpace"]) {
                    let (total, used) = call.cluster.storages.usage(node, storage)?;
                    list.push(json!({
                        "type": "storage", "id": format!("storage/{node}/{}", storage.name), "node": node,
                        "storage": storage.name, "status": "available", "plugintype": storage.kind(),
                        "content": storage.content_text(), "shared": u8::from(storage.shared),
                        "maxdisk": total, "disk": used,
                    }));
                }
            }
        }
    }
    Ok(Value::Array(list).into())
}

/// A VM among the cluster's resources.
pub fn vm_resource(vm: &Vm, pool: Option<&str>) -> Value {
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
    if let Some(pool) = pool {
        entry.insert("pool".to_owned(), pool.into());
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
        entry.insert("online".to_owned(), u8::from(call.cluster.is_online(node)).into());
        entry.insert("local".to_owned(), u8::from(index == 0).into());
        entry.insert("level".to_owned(), "".into());
        list.push(Value::Object(entry));
    }
    Ok(Value::Array(list).into())
}
