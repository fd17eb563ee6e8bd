//! Users, API tokens and privileges.
//!
//! Rules (proxmox.md §1, §3.9): an entry on a deeper path replaces what is inherited; a token with privilege
//! separation has the intersection of its own entries and its user's; `root@pam` may do everything, its tokens
//! too, except where Proxmox compares with exactly `root@pam`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};
use crate::schema::Params;

/// Privileges that a build by clone needs on PVE 9 (observed by leaving out one at a time).
pub const LEAST_PRIVILEGES_PVE9: &[&str] = &[
    "VM.Allocate",
    "VM.Clone",
    "VM.Audit",
    "VM.Console",
    "VM.PowerMgmt",
    "VM.GuestAgent.Audit",
    "VM.Config.CDROM",
    "VM.Config.Cloudinit",
    "VM.Config.CPU",
    "VM.Config.Memory",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Network",
    "VM.Config.Options",
    "Datastore.AllocateSpace",
    "Datastore.Audit",
    "SDN.Use",
];

/// Every privilege of PVE 9.
pub const ALL_PRIVILEGES_PVE9: &[&str] = &[
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Group.Allocate",
    "Mapping.Audit",
    "Mapping.Modify",
    "Mapping.Use",
    "Permissions.Modify",
    "Pool.Allocate",
    "Pool.Audit",
    "Realm.Allocate",
    "Realm.AllocateUser",
    "SDN.Allocate",
    "SDN.Audit",
    "SDN.Use",
    "Sys.AccessNetwork",
    "Sys.Audit",
    "Sys.Console",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
    "Sys.Syslog",
    "User.Modify",
    "VM.Allocate",
    "VM.Audit",
    "VM.Backup",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.FileRead",
    "VM.GuestAgent.FileSystemMgmt",
    "VM.GuestAgent.FileWrite",
    "VM.GuestAgent.Unrestricted",
    "VM.Migrate",
    "VM.PowerMgmt",
    "VM.Replicate",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];

/// Paths that `GET /access/permissions` lists besides those of the access list.
const LISTED_PATHS: &[&str] =
    &["/", "/access", "/access/groups", "/mapping", "/nodes", "/pool", "/sdn", "/storage", "/vms"];

type AccessList = BTreeMap<String, BTreeSet<String>>;

#[derive(Debug, Clone)]
struct Token {
    secret: String,
    separated: bool,
    access: AccessList,
}

/// The user database.
#[derive(Debug, Default)]
pub struct Auth {
    tokens: BTreeMap<String, Token>,
    users: BTreeMap<String, AccessList>,
}

/// Who makes a call: a user `a@pve` or a token `a@pve!name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub String);

impl Caller {
    /// The user without the token's name.
    pub fn user(&self) -> &str {
        self.0.split('!').next().unwrap_or_default()
    }

    /// The token's name.
    pub fn token(&self) -> Option<&str> {
        self.0.split_once('!').map(|(_, token)| token)
    }

    /// Whether Proxmox's comparisons with exactly `root@pam` hold.
    pub fn is_root(&self) -> bool {
        self.0 == "root@pam"
    }
}

impl Auth {
    /// Adds a token whose user may do everything, so that the token's own list is what counts.
    pub fn add_token(&mut self, id: &str, secret: &str, access: &[(&str, &[&str])], separated: bool) {
        let user = id.split('!').next().unwrap_or_default().to_owned();
        self.users.entry(user).or_insert_with(|| access_list(&[("/", ALL_PRIVILEGES_PVE9)]));
        let token = Token { secret: secret.to_owned(), separated, access: access_list(access) };
        self.tokens.insert(id.to_owned(), token);
    }

    /// Replaces what a token may do.
    pub fn set_token_access(&mut self, id: &str, access: &[(&str, &[&str])]) {
        if let Some(token) = self.tokens.get_mut(id) {
            token.access = access_list(access);
        }
    }

    /// Takes a token away.
    pub fn remove_token(&mut self, id: &str) {
        self.tokens.remove(id);
    }

    /// Finds the caller of an `Authorization` header.
    ///
    /// # Errors
    /// The 401 of a missing header, or of a token that is unknown or has another secret.
    pub fn authenticate(&self, header: Option<&str>) -> ApiResult<Caller> {
        let Some(value) = header.and_then(|text| text.strip_prefix("PVEAPIToken")) else {
            return Err(ApiError::unauthorized("No ticket"));
        };
        let value = value.strip_prefix(['=', ' ']).unwrap_or(value);
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        let Some((id, secret)) = value.rsplit_once('=') else {
            return Err(ApiError::unauthorized("Authentication failed!"));
        };
        match self.tokens.get(id) {
            Some(token) if token.secret == secret => Ok(Caller(id.to_owned())),
            _ => Err(ApiError::unauthorized("Authentication failed!")),
        }
    }

    /// What a caller may do at a path.
    pub fn privileges(&self, caller: &Caller, path: &str) -> BTreeSet<String> {
        if caller.user() == "root@pam" && self.tokens.get(&caller.0).is_none_or(|token| !token.separated) {
            return ALL_PRIVILEGES_PVE9.iter().map(|name| (*name).to_owned()).collect();
        }
        let of_user = self.users.get(caller.user()).map(|list| effective(list, path)).unwrap_or_default();
        match self.tokens.get(&caller.0) {
            Some(token) if token.separated => {
                effective(&token.access, path).intersection(&of_user).cloned().collect()
            }
            _ => of_user,
        }
    }

    /// Whether a caller has one privilege at a path.
    pub fn has(&self, caller: &Caller, path: &str, privilege: &str) -> bool {
        self.privileges(caller, path).contains(privilege)
    }

    /// Demands all of the privileges.
    ///
    /// # Errors
    /// The 403 that names the first missing one.
    pub fn require(&self, caller: &Caller, path: &str, privileges: &[&str]) -> ApiResult<()> {
        let held = self.privileges(caller, path);
        match privileges.iter().find(|name| !held.contains(**name)) {
            Some(missing) => Err(ApiError::forbidden(&format!("{path}, {missing}"))),
            None => Ok(()),
        }
    }

    /// Demands one of the privileges.
    ///
    /// # Errors
    /// The 403 that names them all.
    pub fn require_any(&self, caller: &Caller, path: &str, privileges: &[&str]) -> ApiResult<()> {
        let held = self.privileges(caller, path);
        if privileges.iter().any(|name| held.contains(*name)) {
            return Ok(());
        }
        Err(ApiError::forbidden(&format!("{path}, {}", privileges.join("|"))))
    }

    /// The answer of `GET /access/permissions`: path → privilege → 1.
    pub fn permissions(&self, caller: &Caller, only: Option<&str>) -> Value {
        let mut paths: BTreeSet<String> = LISTED_PATHS.iter().map(|path| (*path).to_owned()).collect();
        if let Some(token) = self.tokens.get(&caller.0) {
            paths.extend(token.access.keys().cloned());
        }
        if let Some(only) = only {
            paths = BTreeSet::from([only.to_owned()]);
        }
        let mut answer = Map::new();
        for path in paths {
            let held = self.privileges(caller, &path);
            if !held.is_empty() || only.is_some() {
                let privileges: Map<String, Value> = held.into_iter().map(|name| (name, 1.into())).collect();
                answer.insert(path, Value::Object(privileges));
            }
        }
        Value::Object(answer)
    }

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
        match permissions.and_then(|permissions| permissions.get("check")) {
            Some(check) => self
                .check(caller, check, params)
                .and_then(|passed| if passed { Ok(()) } else { Err(ApiError::forbidden_unnamed()) }),
            None => Ok(()),
        }
    }

    /// A single check names what is missing; within `or` failing is only noted, and the whole fails unnamed.
    fn check(&self, caller: &Caller, check: &Value, params: &Params) -> ApiResult<bool> {
        let Some(parts) = check.as_array() else { return Ok(true) };
        match parts.first().and_then(Value::as_str).unwrap_or_default() {
            "and" => {
                for part in &parts[1..] {
                    if !self.check(caller, part, params)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            "or" => Ok(parts[1..].iter().any(|part| matches!(self.check(caller, part, params), Ok(true)))),
            "perm" => {
                let template = parts.get(1).and_then(Value::as_str).unwrap_or_default();
                let privileges: Vec<&str> = parts
                    .get(2)
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                let option = |name: &str| {
                    parts.iter().position(|part| part == name).and_then(|index| parts.get(index + 1))
                };
                if let Some(Value::String(needed)) = option("require_param")
                    && params.get(needed).is_none()
                {
                    return Ok(false);
                }
                let path = fill(template, params);
                if option("any").is_some() {
                    self.require_any(caller, &path, &privileges)?;
                } else {
                    self.require(caller, &path, &privileges)?;
                }
                Ok(true)
            }
            // User administration comes with the rest of /access; only those who administer pass until then.
            _ => Ok(self.has(caller, "/access", "User.Modify")),
        }
    }
}

fn access_list(access: &[(&str, &[&str])]) -> AccessList {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    access.iter().map(|(path, privileges)| ((*path).to_owned(), owned(privileges))).collect()
}

/// The entry of the deepest path that holds for `path`.
fn effective(list: &AccessList, path: &str) -> BTreeSet<String> {
    let mut current = path.trim_end_matches('/');
    loop {
        let key = if current.is_empty() { "/" } else { current };
        if let Some(privileges) = list.get(key) {
            return privileges.clone();
        }
        match current.rfind('/') {
            Some(index) => current = &current[..index],
            None => return BTreeSet::new(),
        }
    }
}

fn fill(template: &str, params: &Params) -> String {
    let mut path = String::new();
    for (index, segment) in template.split('/').enumerate() {
        if index > 0 {
            path.push('/');
        }
        match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => path.push_str(params.text(name)),
            None => path.push_str(segment),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deeper_entry_replaces_what_is_inherited_and_root_is_needed_for_nothing_else() {
        let mut auth = Auth::default();
        let secret = "0-1";
        auth.add_token("a@pve!b1", secret, &[("/", &["VM.Audit"]), ("/vms/9000", &["VM.Clone"])], true);
        let caller = auth.authenticate(Some(&format!("PVEAPIToken=a@pve!b1={secret}"))).expect("known");
        assert!(auth.has(&caller, "/vms/100", "VM.Audit"));
        assert!(!auth.has(&caller, "/vms/9000", "VM.Audit"));
        let error = auth.require(&caller, "/vms/9000", &["VM.Audit"]).expect_err("refused");
        assert_eq!(error.message, "Permission check failed (/vms/9000, VM.Audit)");
        assert_eq!(auth.authenticate(None).expect_err("none").message, "No ticket");
        assert_eq!(
            auth.authenticate(Some("PVEAPIToken=a@pve!b1=x")).expect_err("bad").message,
            "Authentication failed!"
        );
    }
}
