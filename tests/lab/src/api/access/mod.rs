//! `/access`: logging in, and what a caller may do. Users, tokens, roles and the access list have files of their own.

mod acl;
mod groups;
mod roles;
mod users;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::auth::{Caller, ROOT};
use crate::error::{ApiError, ApiResult, ErrorBody};

/// Answers a call below `/access`.
pub fn dispatch(method: &str, below: &str, call: &Call) -> Option<ApiResult<Answer>> {
    Some(match (method, below) {
        ("GET", "") => index(),
        ("GET", "/domains") => domains(),
        ("GET", "/ticket") => Ok(Value::Null.into()),
        ("POST", "/ticket") => ticket(call),
        ("PUT", "/password") => password(call),
        ("GET", "/permissions") => permissions(call),
        ("GET", "/users") => users::list(call),
        ("POST", "/users") => users::create(call),
        ("GET", "/users/{userid}") => users::read(call),
        ("PUT", "/users/{userid}") => users::update(call),
        ("DELETE", "/users/{userid}") => users::remove(call),
        ("GET", "/users/{userid}/token") => users::tokens(call),
        ("GET", "/users/{userid}/token/{tokenid}") => users::read_token(call),
        ("POST", "/users/{userid}/token/{tokenid}") => users::create_token(call),
        ("PUT", "/users/{userid}/token/{tokenid}") => users::update_token(call),
        ("DELETE", "/users/{userid}/token/{tokenid}") => users::remove_token(call),
        ("GET", "/groups") => groups::list(call),
        ("POST", "/groups") => groups::create(call),
        ("GET", "/groups/{groupid}") => groups::read(call),
        ("PUT", "/groups/{groupid}") => groups::update(call),
        ("DELETE", "/groups/{groupid}") => groups::remove(call),
        ("GET", "/roles") => roles::list(call),
        ("POST", "/roles") => roles::create(call),
        ("GET", "/roles/{roleid}") => roles::read(call),
        ("PUT", "/roles/{roleid}") => roles::update(call),
        ("DELETE", "/roles/{roleid}") => roles::remove(call),
        ("GET", "/acl") => acl::list(call),
        ("PUT", "/acl") => acl::update(call),
        _ => return None,
    })
}

fn index() -> ApiResult<Answer> {
    let names = ["users", "groups", "roles", "acl", "domains", "ticket", "password"];
    Ok(names.iter().map(|name| json!({"subdir": name})).collect::<Value>().into())
}

/// The two realms that every server has.
fn domains() -> ApiResult<Answer> {
    Ok(json!([
        {"realm": "pam", "type": "pam", "comment": "Linux PAM standard authentication"},
        {"realm": "pve", "type": "pve", "comment": "Proxmox VE authentication server"},
    ])
    .into())
}

/// `POST ticket`: a ticket for a password, or for a ticket that is still good; with `path` and `privs` only a check.
fn ticket(call: &Call) -> ApiResult<Answer> {
    let failed = || ApiError { body: ErrorBody::Json, ..ApiError::unauthorized("authentication failure") };
    let mut user = call.params.text("username").to_owned();
    if let Some(realm) = call.params.get("realm") {
        user = format!("{user}@{realm}");
    }
    if !user.contains('@') {
        user.push_str("@pam");
    }
    let now = call.cluster.clock.now();
    let auth = call.cluster.auth();
    // Second factors are not kept by the lab, so a code for one can't be right.
    let has_second = call.params.get("otp").is_some() || call.params.get("tfa-challenge").is_some();
    if has_second || !auth.opens(&user, call.params.text("password"), now) {
        return Err(failed());
    }
    let caller = Caller(user.clone());
    let mut answer = Map::new();
    answer.insert("username".to_owned(), user.clone().into());
    if let (Some(path), Some(privileges)) = (call.params.get("path"), call.params.get("privs")) {
        let wanted: Vec<&str> = crate::schema::split_list(privileges).collect();
        auth.require(&caller, path, &wanted).map_err(|_| failed())?;
    } else {
        answer.insert("ticket".to_owned(), auth.ticket(&user, now).into());
        answer.insert("CSRFPreventionToken".to_owned(), auth.csrf_token(&user, now).into());
    }
    answer.insert("cap".to_owned(), capabilities(&auth, &caller));
    if call.cluster.config.nodes.len() > 1 && auth.has(&caller, "/", "Sys.Audit") {
        answer.insert("clustername".to_owned(), "lab".into());
    }
    Ok(Value::Object(answer).into())
}

/// What the page of a real server needs to know of a caller's privileges.
fn capabilities(auth: &crate::auth::Auth, caller: &Caller) -> Value {
    let families: [(&str, &[&str]); 7] = [
        ("access", &["User.", "Group.", "Permissions.Modify"]),
        ("dc", &["Sys.Audit", "Sys.Modify", "SDN."]),
        ("mapping", &["Mapping.", "Permissions.Modify"]),
        ("nodes", &["Sys.", "Permissions.Modify"]),
        ("sdn", &["SDN.", "Permissions.Modify"]),
        ("storage", &["Datastore.", "Permissions.Modify"]),
        ("vms", &["VM.", "Permissions.Modify"]),
    ];
    let fixed = ["/", "/nodes", "/access/groups", "/vms", "/storage", "/sdn", "/mapping"];
    let mut paths: BTreeSet<String> = fixed.iter().map(|path| (*path).to_owned()).collect();
    paths.extend(auth.acl.keys().map(|(path, ..)| path.clone()));
    let mut answer = Map::new();
    for (family, _) in families {
        answer.insert(family.to_owned(), json!({}));
    }
    for path in &paths {
        let top = path.split('/').nth(1).filter(|top| !top.is_empty()).unwrap_or("dc");
        let tops: &[&str] = if top == "pool" { &["vms", "storage"] } else { &[top] };
        for privilege in auth.privileges(caller, path).keys() {
            for (family, prefixes) in families.iter().filter(|(family, _)| tops.contains(family)) {
                if prefixes.iter().any(|prefix| privilege.starts_with(prefix)) {
                    answer[*family][privilege.as_str()] = 1.into();
                }
            }
        }
    }
    Value::Object(answer)
}

/// `PUT password`: one's own, or with the privileges that the route demands another's.
fn password(call: &Call) -> ApiResult<Answer> {
    let user = call.params.text("userid");
    let mut auth = call.cluster.auth();
    let realm = user.rsplit_once('@').map_or("", |(_, realm)| realm);
    if call.caller.0 != ROOT && (user == ROOT || realm == "pam") {
        return Err(ApiError::forbidden_unnamed());
    }
    auth.user(user)?;
    if call.caller.0 != ROOT {
        let now = call.cluster.clock.now();
        let confirmed = call.params.get("confirmation-password");
        if !confirmed.is_some_and(|confirmed| auth.opens(&call.caller.0, confirmed, now)) {
            let mut error = ApiError::unauthorized("authentication failure");
            error.body = ErrorBody::Json;
            return Err(error);
        }
    }
    auth.set_password(user, call.params.text("password"));
    Ok(Value::Null.into())
}

/// `GET permissions`.
fn permissions(call: &Call) -> ApiResult<Answer> {
    let caller = match call.params.get("userid") {
        Some(other) if other != call.caller.0 => {
            let own = call.caller.token().is_none() && Caller(other.to_owned()).user() == call.caller.0;
            if !own {
                call.require("/access", &["Sys.Audit"])?;
            }
            Caller(other.to_owned())
        }
        _ => call.caller.clone(),
    };
    Ok(call.cluster.auth().permissions(&caller, call.params.get("path")).into())
}
