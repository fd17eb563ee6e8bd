//! The permission checks that the schema states for each method (RPCEnvironment.pm's facts).

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Auth, Caller};
use crate::error::{ApiError, ApiResult};
use crate::schema::Params;

impl Auth {
    /// Runs the permission check of a method as the schema has it.
    ///
    /// # Errors
    /// The 403 Proxmox gives.
    pub fn check_route(
        &self,
        caller: &Caller,
        permissions: Option<&Value>,
        params: &Params,
    ) -> ApiResult<()> {
        let user = permissions.and_then(|permissions| permissions["user"].as_str());
        if caller.is_nobody() {
            return match user {
                Some("world") => Ok(()),
                _ => Err(ApiError::forbidden("user != null")),
            };
        }
        if caller.is_root() {
            return Ok(());
        }
        let Some(permissions) = permissions else { return Err(ApiError::forbidden("user != root@pam")) };
        if matches!(user, Some("all" | "world")) {
            return Ok(());
        }
        match permissions.get("check") {
            Some(check) => self.check(caller, check, params),
            // Only described in words: the handler checks.
            None if permissions.get("description").is_some() => Ok(()),
            None => Err(ApiError::forbidden_unnamed()),
        }
    }

    /// One check; only `or` swallows what its parts say, and fails unnamed.
    fn check(&self, caller: &Caller, check: &Value, params: &Params) -> ApiResult<()> {
        let Some(parts) = check.as_array() else { return Ok(()) };
        let text = |index: usize| parts.get(index).and_then(Value::as_str).unwrap_or_default();
        let option =
            |name: &str| parts.iter().position(|part| part == name).and_then(|index| parts.get(index + 1));
        match text(0) {
            "and" => parts[1..].iter().try_for_each(|part| self.check(caller, part, params)),
            "or" => {
                if parts[1..].iter().any(|part| self.check(caller, part, params).is_ok()) {
                    return Ok(());
                }
                Err(ApiError::forbidden_unnamed())
            }
            "perm" => {
                if let Some(Value::String(needed)) = option("require_param")
                    && params.get(needed).is_none()
                {
                    return Err(ApiError::forbidden_unnamed());
                }
                let path = fill(text(1), params);
                let privileges = strings(parts.get(2));
                match option("any") {
                    Some(_) => self.require_any(caller, &path, &privileges),
                    None => self.require(caller, &path, &privileges),
                }
            }
            "userid-param" => {
                let user = params.text("userid");
                if text(1) == "self" {
                    self.user(user)?;
                    return if caller.0 == user { Ok(()) } else { Err(ApiError::forbidden_unnamed()) };
                }
                let realm = user.rsplit_once('@').map_or("", |(_, realm)| realm);
                self.require(caller, &format!("/access/realm/{realm}"), &[text(1)])
            }
            "userid-group" => {
                let groups_param = option("groups_param").and_then(Value::as_str);
                self.check_groups(caller, &strings(parts.get(1)), groups_param, params)
            }
            "perm-modify" => self.check_modify(caller, &fill(text(1), params)),
            other => Err(ApiError::die(format!("the lab does not know the check '{other}'"))),
        }
    }

    /// A user that must be there.
    ///
    /// # Errors
    /// The 500 `no such user ('…')`.
    pub fn user(&self, id: &str) -> ApiResult<&super::User> {
        self.users.get(id).ok_or_else(|| ApiError::die(format!("no such user ('{id}')")))
    }

    /// Groups in which the caller has one of the privileges.
    pub fn groups_with(&self, caller: &Caller, privileges: &[&str]) -> BTreeSet<&str> {
        let may =
            |name: &&String| self.require_any(caller, &format!("/access/groups/{name}"), privileges).is_ok();
        self.groups.keys().filter(may).map(String::as_str).collect()
    }

    fn check_groups(
        &self,
        caller: &Caller,
        privileges: &[&str],
        groups_param: Option<&str>,
        params: &Params,
    ) -> ApiResult<()> {
        let existing = groups_param != Some("create");
        let user = params.text("userid");
        if existing {
            self.user(user)?;
        }
        if self.require_any(caller, "/access/groups", privileges).is_ok() {
            return Ok(());
        }
        let allowed = self.groups_with(caller, privileges);
        let names = privileges.join("|");
        if groups_param.is_some() {
            let wanted: Vec<&str> =
                crate::schema::split_list(params.get("groups").unwrap_or_default()).collect();
            if wanted.is_empty() {
                return Err(ApiError::forbidden(&format!("/access/groups, {names}")));
            }
            if let Some(group) = wanted.iter().find(|group| !allowed.contains(**group)) {
                return Err(ApiError::forbidden(&format!("/access/groups/{group}, {names}")));
            }
        }
        let is_member =
            |group: &&str| self.groups.get(*group).is_some_and(|group| group.members.contains(user));
        if existing && !allowed.iter().any(is_member) {
            return Err(ApiError::forbidden_unnamed());
        }
        Ok(())
    }

    /// Who may change the access list at a path.
    fn check_modify(&self, caller: &Caller, path: &str) -> ApiResult<()> {
        let also =
            [("/storage/", "Datastore.Allocate"), ("/vms/", "VM.Allocate"), ("/pool/", "Pool.Allocate")];
        let mut privileges = vec!["Permissions.Modify"];
        privileges.extend(also.iter().filter(|(prefix, _)| path.starts_with(prefix)).map(|(_, name)| *name));
        self.require_any(caller, path, &privileges)
    }
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn fill(template: &str, params: &Params) -> String {
    if let Some(name) = template.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return params.text(name).to_owned();
    }
    let fill = |segment: &str| match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => params.text(name).to_owned(),
        None => segment.to_owned(),
    };
    template.split('/').map(fill).collect::<Vec<_>>().join("/")
}
