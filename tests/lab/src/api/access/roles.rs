//! `/access/roles`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::{Answer, Call};
use crate::error::{ApiError, ApiResult};
use crate::schema::split_list;

/// `GET roles`.
pub fn list(call: &Call) -> ApiResult<Answer> {
    let auth = call.cluster.auth();
    let entries = auth.roles.iter().map(|(role, privileges)| {
        let names: Vec<&str> = privileges.iter().map(String::as_str).collect();
        json!({"roleid": role, "privs": names.join(","), "special": u8::from(auth.is_special(role))})
    });
    Ok(entries.collect::<Value>().into())
}

fn privileges(call: &Call) -> ApiResult<Option<BTreeSet<String>>> {
    let Some(text) = call.params.get("privs") else { return Ok(None) };
    let known = call.cluster.auth().known_privileges();
    match split_list(text).find(|name| !known.contains(name)) {
        Some(unknown) => {
            Err(ApiError::parameter("privs", format!("invalid format - invalid privilege '{unknown}'\n")))
        }
        None => Ok(Some(split_list(text).map(str::to_owned).collect())),
    }
}

/// `POST roles`.
pub fn create(call: &Call) -> ApiResult<Answer> {
    let role = call.params.text("roleid");
    if role.starts_with("PVE") {
        let text = "cannot use role ID starting with the (case-insensitive) 'PVE' namespace";
        return Err(ApiError::parameter("roleid", text));
    }
    let privileges = privileges(call)?.unwrap_or_default();
    let mut auth = call.cluster.auth();
    if auth.roles.contains_key(role) {
        return Err(ApiError::die(format!("create role failed: role '{role}' already exists")));
    }
    auth.roles.insert(role.to_owned(), privileges);
    Ok(Value::Null.into())
}

/// `GET roles/{roleid}`.
pub fn read(call: &Call) -> ApiResult<Answer> {
    let role = call.params.text("roleid");
    let auth = call.cluster.auth();
    let held = auth.roles.get(role).ok_or_else(|| ApiError::die(format!("role '{role}' does not exist")))?;
    let answer: Map<String, Value> = held.iter().map(|name| (name.clone(), 1.into())).collect();
    Ok(Value::Object(answer).into())
}

/// `PUT roles/{roleid}`: replaces the privileges, or adds to them with `append`.
pub fn update(call: &Call) -> ApiResult<Answer> {
    let role = call.params.text("roleid");
    let given = privileges(call)?;
    let mut auth = call.cluster.auth();
    if auth.is_special(role) {
        return Err(ApiError::die(format!("auto-generated role '{role}' cannot be modified")));
    }
    let missing = || ApiError::die(format!("update role failed: role '{role}' does not exist"));
    let held = auth.roles.get_mut(role).ok_or_else(missing)?;
    if !call.params.flag("append") {
        held.clear();
    }
    held.extend(given.unwrap_or_default());
    Ok(Value::Null.into())
}

/// `DELETE roles/{roleid}`: its entries in the access list go with it.
pub fn remove(call: &Call) -> ApiResult<Answer> {
    let role = call.params.text("roleid");
    let mut auth = call.cluster.auth();
    if auth.is_special(role) {
        return Err(ApiError::die(format!("auto-generated role '{role}' cannot be deleted")));
    }
    if auth.roles.remove(role).is_none() {
        return Err(ApiError::die(format!("delete role failed: role '{role}' does not exist")));
    }
    auth.acl.retain(|(_, _, _, of), _| of != role);
    Ok(Value::Null.into())
}
