//! `/pools`, by name in the path and, as since PVE 8, in the query.

use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::auth::Pool;
use crate::error::{ApiError, ApiResult};
use crate::schema::split_list;

fn missing(id: &str) -> String {
    format!("pool '{id}' does not exist")
}

fn members(call: &Call, pool: &Pool, kind: Option<&str>) -> Vec<Value> {
    let state = call.cluster.state();
    let mut list = Vec::new();
    for vmid in pool.vms.iter().filter(|_| kind.is_none_or(|kind| kind == "qemu")) {
        if let Some(vm) = state.vms.get(vmid) {
            list.push(super::cluster::vm_resource(vm, None));
        }
    }
    let node = &call.cluster.config.nodes[0];
    for name in pool.storages.iter().filter(|_| kind.is_none_or(|kind| kind == "storage")) {
        list.push(json!({"id": format!("storage/{node}/{name}"), "node": node, "storage": name,
            "type": "storage", "status": "available"}));
    }
    list
}

fn entry(id: &str, pool: &Pool) -> Map<String, Value> {
    let mut entry = Map::new();
    entry.insert("poolid".to_owned(), id.into());
    if let Some(comment) = &pool.comment {
        entry.insert("comment".to_owned(), comment.clone().into());
    }
    entry
}

/// `GET /pools`: those one may audit; with `poolid` one, and its members, whoever asks (observed on PVE 9.2).
pub fn list(call: &Call) -> ApiResult<Answer> {
    let one = call.params.get("poolid");
    let pools = call.cluster.auth().pools.clone();
    if let Some(id) = one {
        let pool = pools.get(id).ok_or_else(|| ApiError::die(missing(id)))?;
        let mut entry = entry(id, pool);
        entry.insert("members".to_owned(), members(call, pool, call.params.get("type")).into());
        return Ok(json!([entry]).into());
    }
    let seen = pools.iter().filter(|(id, _)| call.may(&format!("/pool/{id}"), &["Pool.Audit"]));
    Ok(seen.map(|(id, pool)| Value::Object(entry(id, pool))).collect::<Value>().into())
}

/// `GET /pools/{poolid}`.
pub fn read(call: &Call) -> ApiResult<Answer> {
    let id = call.params.text("poolid");
    let pool = call.cluster.auth().pools.get(id).cloned().ok_or_else(|| ApiError::die(missing(id)))?;
    let mut answer = entry(id, &pool);
    answer.remove("poolid");
    answer.insert("members".to_owned(), members(call, &pool, call.params.get("type")).into());
    Ok(Value::Object(answer).into())
}

/// `POST /pools`.
pub fn create(call: &Call) -> ApiResult<Answer> {
    let id = call.params.text("poolid");
    let mut auth = call.cluster.auth();
    if auth.pools.contains_key(id) {
        return Err(ApiError::die(format!("create pool failed: pool '{id}' already exists")));
    }
    let comment = call.params.get("comment").map(str::to_owned);
    auth.pools.insert(id.to_owned(), Pool { comment, ..Pool::default() });
    Ok(Value::Null.into())
}

/// `PUT`: adds members, or takes them away with `delete`.
pub fn update(call: &Call) -> ApiResult<Answer> {
    let failed = |text: String| ApiError::die(format!("update pools failed: {text}"));
    let id = call.params.text("poolid");
    let delete = call.params.flag("delete");
    let vms: Vec<u32> =
        split_list(call.params.get("vms").unwrap_or_default()).filter_map(|vmid| vmid.parse().ok()).collect();
    let storages: Vec<&str> = split_list(call.params.get("storage").unwrap_or_default()).collect();
    for vmid in &vms {
        call.require(&format!("/vms/{vmid}"), &["VM.Allocate"])?;
    }
    for name in &storages {
        call.require(&format!("/storage/{name}"), &["Datastore.Allocate"])?;
        call.cluster.storages.get(name)?;
    }
    let mut auth = call.cluster.auth();
    if !auth.pools.contains_key(id) {
        return Err(failed(missing(id)));
    }
    for vmid in &vms {
        let other = auth.pools.iter().find(|(_, pool)| pool.vms.contains(vmid)).map(|(name, _)| name.clone());
        match other {
            Some(name) if name == id && !delete => {
                return Err(failed(format!("VM {vmid} is already a pool member")));
            }
            Some(name) if name != id && !delete => {
                if !call.params.flag("allow-move") {
                    return Err(failed(format!(
                        "VM {vmid} belongs already to pool '{name}' and 'allow-move' is not set"
                    )));
                }
                if let Some(pool) = auth.pools.get_mut(&name) {
                    pool.vms.remove(vmid);
                }
            }
            other if delete && other.as_deref() != Some(id) => {
                return Err(failed(format!("VM {vmid} is not a pool member")));
            }
            _ => {}
        }
    }
    let Some(pool) = auth.pools.get_mut(id) else { return Err(failed(missing(id))) };
    if let Some(comment) = call.params.get("comment") {
        pool.comment = Some(comment.to_owned());
    }
    for vmid in vms {
        if delete {
            pool.vms.remove(&vmid);
        } else {
            pool.vms.insert(vmid);
        }
    }
    for name in storages {
        if delete {
            pool.storages.remove(name);
        } else {
            pool.storages.insert(name.to_owned());
        }
    }
    Ok(Value::Null.into())
}

/// `DELETE`: only a pool without members.
pub fn remove(call: &Call) -> ApiResult<Answer> {
    let failed = |text: String| ApiError::die(format!("delete pool failed: {text}"));
    let id = call.params.text("poolid");
    let mut auth = call.cluster.auth();
    let pool = auth.pools.get(id).ok_or_else(|| failed(missing(id)))?;
    if !pool.vms.is_empty() {
        return Err(failed(format!("pool '{id}' is not empty (contains VMs)")));
    }
    if !pool.storages.is_empty() {
        return Err(failed(format!("pool '{id}' is not empty (contains storage)")));
    }
    auth.pools.remove(id);
    Ok(Value::Null.into())
}
