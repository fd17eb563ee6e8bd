//! `/access/acl`.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::super::{Answer, Call};
use crate::auth::Kind;
use crate::error::{ApiError, ApiResult};
use crate::schema::split_list;

/// The paths that may have entries (AccessControl.pm's facts).
#[expect(clippy::expect_used, reason = "the pattern is a constant of this module, and a test uses it")]
static PATHS: LazyLock<Regex> = LazyLock::new(|| {
    let name = r"[A-Za-z0-9.\-_]+";
    Regex::new(&format!(
        "^(?:/|/access|/access/groups(?:/{name})?|/access/realm(?:/{name})?|/nodes(?:/{name})?|/pool(?:/{name}){{0,3}}|/sdn|\
         /sdn/(?:controllers|dns|fabrics|ipams|prefix-lists|route-maps)(?:/{name})?|/sdn/zones(?:/{name}){{0,2}}|\
         /sdn/zones/{name}/{name}/[1-9][0-9]{{0,3}}|/storage(?:/{name})?|/vms(?:/[1-9][0-9]{{2,}})?|/mapping(?:/{name}){{0,2}})$"
    ))
    .expect("a constant pattern compiles")
});

/// `GET acl`: all of it for those who audit `/access`, else the paths one may change.
pub fn list(call: &Call) -> ApiResult<Answer> {
    let all = call.may("/access", &["Sys.Audit", "Permissions.Modify"]);
    let auth = call.cluster.auth();
    let seen =
        auth.acl.iter().filter(|((path, ..), _)| all || auth.has(&call.caller, path, "Permissions.Modify"));
    let entries = seen.map(|((path, kind, id, role), propagate)| {
        json!({"path": path, "type": kind.name(), "ugid": id, "roleid": role, "propagate": u8::from(*propagate)})
    });
    Ok(entries.collect::<Value>().into())
}

fn failed(text: impl std::fmt::Display) -> ApiError {
    ApiError::die(format!("ACL update failed: {text}"))
}

/// `PUT acl`: adds entries, or takes them away with `delete`.
pub fn update(call: &Call) -> ApiResult<Answer> {
    let given = call.params.text("path");
    let given_to: Vec<(Kind, &str)> =
        [("users", Kind::User), ("groups", Kind::Group), ("tokens", Kind::Token)]
            .into_iter()
            .flat_map(|(name, kind)| {
                split_list(call.params.get(name).unwrap_or_default()).map(move |id| (kind, id))
            })
            .collect();
    if given_to.is_empty() {
        let text = "either 'users', 'groups' or 'tokens' is required.";
        let names = ["groups", "tokens", "users"].map(|name| (name.to_owned(), Value::from(text)));
        return Err(ApiError::parameters(names.into_iter().collect()));
    }
    let path = normal(given);
    if !PATHS.is_match(&path) {
        return Err(ApiError::parameter("path", format!("invalid ACL path '{given}'")));
    }
    let propagate = call.params.get("propagate").is_none_or(|flag| flag == "1");
    let roles: Vec<&str> = split_list(call.params.text("roles")).collect();
    let may_all = call.may(&path, &["Permissions.Modify"]);
    let mut auth = call.cluster.auth();
    let own = auth.privileges(&call.caller, &path);
    let delete = call.params.flag("delete");
    for role in &roles {
        let held = auth.roles.get(*role).ok_or_else(|| failed(format!("role '{role}' does not exist")))?;
        // Without Permissions.Modify one can hand on only what one has.
        if !may_all && !held.iter().all(|name| own.contains_key(name)) {
            let verb = if delete { "remove" } else { "add" };
            let text = format!(
                "Cannot {verb} role '{role}' - requires 'Permissions.Modify' or superset of privileges."
            );
            return Err(ApiError::parameter("role", text));
        }
    }
    for (kind, id) in &given_to {
        match kind {
            Kind::User if !auth.users.contains_key(*id) => {
                return Err(failed(format!("user '{id}' does not exist")));
            }
            Kind::Group if !auth.groups.contains_key(*id) => {
                return Err(failed(format!("group '{id}' does not exist")));
            }
            Kind::Token => {
                let (user, name) = id.split_once('!').unwrap_or((id, ""));
                let user_entry = auth.user(user).map_err(|error| failed(error.message))?;
                if !user_entry.tokens.contains_key(name) {
                    return Err(failed(format!("no such token '{name}' for user '{user}'")));
                }
            }
            _ => {}
        }
    }
    for role in roles {
        for (kind, id) in &given_to {
            let key = (path.clone(), *kind, (*id).to_owned(), role.to_owned());
            if delete {
                auth.acl.remove(&key);
            } else {
                auth.acl.insert(key, propagate);
            }
        }
    }
    Ok(Value::Null.into())
}

/// One slash at a time, and none at the end.
fn normal(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_paths_that_mean_something_take_entries() {
        for path in ["/", "/vms/100", "/pool/forge", "/sdn/zones/localnetwork/vmbr0/12", "/storage/local"] {
            assert!(super::PATHS.is_match(path), "{path}");
        }
        for path in ["/bad/path", "/vms/x", "/vms/100/x"] {
            assert!(!super::PATHS.is_match(path), "{path}");
        }
        assert_eq!(super::normal("//vms//100/"), "/vms/100");
    }
}
