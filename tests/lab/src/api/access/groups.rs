//! `/access/groups`.

use serde_json::{Value, json};

use super::super::{Answer, Call};
use crate::auth::{Group, Kind};
use crate::error::{ApiError, ApiResult};

fn missing(id: &str) -> String {
    format!("group '{id}' does not exist")
}

/// `GET groups`: those one may look at.
pub fn list(call: &Call) -> ApiResult<Answer> {
    let auth = call.cluster.auth();
    let seen = auth.groups_with(&call.caller, &["User.Modify", "Sys.Audit", "Group.Allocate"]);
    let entries = auth.groups.iter().filter(|(id, _)| seen.contains(id.as_str())).map(|(id, group)| {
        let users: Vec<&str> = group.members.iter().map(String::as_str).collect();
        let mut entry = json!({"groupid": id, "users": users.join(",")});
        if let Some(comment) = &group.comment {
            entry["comment"] = comment.clone().into();
        }
        entry
    });
    Ok(entries.collect::<Value>().into())
}

/// `POST groups`.
pub fn create(call: &Call) -> ApiResult<Answer> {
    let id = call.params.text("groupid");
    let mut auth = call.cluster.auth();
    if auth.groups.contains_key(id) {
        return Err(ApiError::die(format!("create group failed: group '{id}' already exists")));
    }
    let comment = call.params.get("comment").map(str::to_owned);
    auth.groups.insert(id.to_owned(), Group { comment, ..Group::default() });
    Ok(Value::Null.into())
}

/// `GET groups/{groupid}`.
pub fn read(call: &Call) -> ApiResult<Answer> {
    let id = call.params.text("groupid");
    let auth = call.cluster.auth();
    let group = auth.groups.get(id).ok_or_else(|| ApiError::die(missing(id)))?;
    let mut answer = json!({"members": group.members});
    if let Some(comment) = &group.comment {
        answer["comment"] = comment.clone().into();
    }
    Ok(answer.into())
}

/// `PUT groups/{groupid}`.
pub fn update(call: &Call) -> ApiResult<Answer> {
    let id = call.params.text("groupid");
    let mut auth = call.cluster.auth();
    let group = auth.groups.get_mut(id);
    let group = group.ok_or_else(|| ApiError::die(format!("update group failed: {}", missing(id))))?;
    if let Some(comment) = call.params.get("comment") {
        group.comment = Some(comment.to_owned());
    }
    Ok(Value::Null.into())
}

/// `DELETE groups/{groupid}`: its entries in the access list go with it.
pub fn remove(call: &Call) -> ApiResult<Answer> {
    let id = call.params.text("groupid");
    let mut auth = call.cluster.auth();
    if auth.groups.remove(id).is_none() {
        return Err(ApiError::die(format!("delete group failed: {}", missing(id))));
    }
    auth.acl.retain(|(_, kind, who, _), _| *kind != Kind::Group || who != id);
    Ok(Value::Null.into())
}
