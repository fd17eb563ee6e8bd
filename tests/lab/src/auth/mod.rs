//! Users, groups, API tokens, roles, the access list and pools: what `user.cfg` holds on a real server.
//!
//! Rules (proxmox.md §1, §3.9; pve-access-control's facts): on the way down a path, an entry of the user replaces what
//! was inherited and hides entries of its groups on the same level; `NoAccess` wins; a VM or a storage also has the
//! roles of its pool; a token with privilege separation has the intersection of its own entries and its user's;
//! `root@pam` may do everything, its tokens without separation too, except where Proxmox compares with exactly
//! `root@pam`.

mod check;
mod privileges;
mod ticket;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::config::PveVersion;
use crate::error::{ApiError, ApiResult};

pub use privileges::{ALL_PRIVILEGES_PVE8, ALL_PRIVILEGES_PVE9, LEAST_PRIVILEGES_PVE9};

/// Paths that `GET /access/permissions` lists besides those of the access list.
const LISTED_PATHS: &[&str] =
    &["/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms"];

/// The user that may do everything.
pub const ROOT: &str = "root@pam";

/// An API token.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its secret.
    pub secret: String,
    /// Whether it has only what its own entries give it, too.
    pub separated: bool,
    /// Seconds since 1970 when it ends; 0 is never.
    pub expire: i64,
    /// Comment.
    pub comment: Option<String>,
}

/// A user.
#[derive(Debug, Clone)]
pub struct User {
    /// Whether it may log in.
    pub enabled: bool,
    /// Seconds since 1970 when it ends; 0 is never.
    pub expire: i64,
    /// Password; none can't log in with one.
    pub password: Option<String>,
    /// `comment`, `email`, `firstname`, `lastname`, `keys` as given.
    pub fields: BTreeMap<String, String>,
    /// Tokens by name.
    pub tokens: BTreeMap<String, Token>,
}

impl Default for User {
    fn default() -> Self {
        User { enabled: true, expire: 0, password: None, fields: BTreeMap::new(), tokens: BTreeMap::new() }
    }
}

/// A group.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// Comment.
    pub comment: Option<String>,
    /// Its users.
    pub members: BTreeSet<String>,
}

/// A pool.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// Comment.
    pub comment: Option<String>,
    /// VMs in it.
    pub vms: BTreeSet<u32>,
    /// Storages in it.
    pub storages: BTreeSet<String>,
}

/// To whom an entry of the access list gives a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A user.
    User,
    /// A group.
    Group,
    /// A token.
    Token,
}

impl Kind {
    /// As the API names it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::User => "user",
            Kind::Group => "group",
            Kind::Token => "token",
        }
    }
}

/// An entry of the access list without its propagation.
pub type AclKey = (String, Kind, String, String);

/// Who makes a call: a user `a@pve` or a token `a@pve!name`; nobody for calls that need no login.
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
        self.0 == ROOT
    }

    /// Whether nobody has logged in.
    pub fn is_nobody(&self) -> bool {
        self.0.is_empty()
    }
}

/// The user database.
#[derive(Debug)]
pub struct Auth {
    version: PveVersion,
    secret: [u8; 32],
    /// Seconds a ticket is good for.
    ticket_life: i64,
    /// Users by `name@realm`.
    pub users: BTreeMap<String, User>,
    /// Groups.
    pub groups: BTreeMap<String, Group>,
    /// Roles and their privileges.
    pub roles: BTreeMap<String, BTreeSet<String>>,
    /// The access list: path, to whom, role; the value is whether it holds below the path too.
    pub acl: BTreeMap<AclKey, bool>,
    /// Pools.
    pub pools: BTreeMap<String, Pool>,
}

impl Default for Auth {
    fn default() -> Self {
        Auth::new(PveVersion::V9)
    }
}

impl Auth {
    /// A database with `root@pam` and the roles of a release.
    pub fn new(version: PveVersion) -> Self {
        Auth {
            version,
            secret: crate::ids::bytes(),
            ticket_life: ticket::TICKET_LIFE,
            users: BTreeMap::from([(ROOT.to_owned(), User::default())]),
            groups: BTreeMap::new(),
            roles: privileges::special_roles(version),
            acl: BTreeMap::new(),
            pools: BTreeMap::new(),
        }
    }

    /// The same with tickets that are good for another time.
    #[must_use]
    pub fn with_ticket_life(self, life: std::time::Duration) -> Self {
        Auth { ticket_life: i64::try_from(life.as_secs()).unwrap_or(i64::MAX), ..self }
    }

    /// Every privilege there is.
    pub fn known_privileges(&self) -> &'static [&'static str] {
        privileges::all(self.version)
    }

    /// Whether a role came with the release.
    pub fn is_special(&self, role: &str) -> bool {
        privileges::special_roles(self.version).contains_key(role)
    }

    /// Sets a user's password, making the user when it is not there.
    pub fn set_password(&mut self, user: &str, password: &str) {
        self.users.entry(user.to_owned()).or_default().password = Some(password.to_owned());
    }

    /// Adds a token. A user that is not there yet is made with the role Administrator on `/`, so that the token's own
    /// list is what counts.
    pub fn add_token(&mut self, id: &str, secret: &str, access: &[(&str, &[&str])], separated: bool) {
        let (user, name) = id.split_once('!').unwrap_or((id, "token"));
        if !self.users.contains_key(user) {
            self.users.insert(user.to_owned(), User::default());
            self.grant(Kind::User, user, "/", "Administrator");
        }
        let token = Token { secret: secret.to_owned(), separated, expire: 0, comment: None };
        if let Some(user) = self.users.get_mut(user) {
            user.tokens.insert(name.to_owned(), token);
        }
        self.set_access(Kind::Token, id, access);
    }

    /// Replaces what a token may do.
    pub fn set_token_access(&mut self, id: &str, access: &[(&str, &[&str])]) {
        self.set_access(Kind::Token, id, access);
    }

    /// Replaces what a user may do.
    pub fn set_user_access(&mut self, id: &str, access: &[(&str, &[&str])]) {
        self.users.entry(id.to_owned()).or_default();
        self.set_access(Kind::User, id, access);
    }

    fn set_access(&mut self, kind: Kind, id: &str, access: &[(&str, &[&str])]) {
        self.acl.retain(|(_, of, who, _), _| (*of, who.as_str()) != (kind, id));
        for (path, privileges) in access {
            let wanted: BTreeSet<String> = privileges.iter().map(|name| (*name).to_owned()).collect();
            let existing = self.roles.iter().find(|(_, held)| **held == wanted).map(|(role, _)| role.clone());
            let role = existing.unwrap_or_else(|| {
                let role = format!("Lab{}", self.roles.len());
                self.roles.insert(role.clone(), wanted);
                role
            });
            self.grant(kind, id, path, &role);
        }
    }

    /// Adds an entry to the access list that holds below its path too.
    pub fn grant(&mut self, kind: Kind, id: &str, path: &str, role: &str) {
        self.acl.insert((path.to_owned(), kind, id.to_owned(), role.to_owned()), true);
    }

    /// Takes a token away, and its entries with it.
    pub fn remove_token(&mut self, id: &str) {
        if let Some((user, name)) = id.split_once('!')
            && let Some(user) = self.users.get_mut(user)
        {
            user.tokens.remove(name);
        }
        self.acl.retain(|(_, kind, who, _), _| *kind != Kind::Token || who != id);
    }

    /// Puts a VM into a pool, when one is named and there.
    pub fn add_to_pool(&mut self, pool: Option<&str>, vmid: u32) {
        if let Some(pool) = pool.and_then(|pool| self.pools.get_mut(pool)) {
            pool.vms.insert(vmid);
        }
    }

    /// Forgets a VM that is gone: its pool and the entries on its path.
    pub fn forget_vm(&mut self, vmid: u32) {
        for pool in self.pools.values_mut() {
            pool.vms.remove(&vmid);
        }
        let path = format!("/vms/{vmid}");
        self.acl.retain(|(at, ..), _| *at != path);
    }

    /// Takes a user away, and its entries and memberships with it.
    pub fn remove_user(&mut self, id: &str) {
        self.users.remove(id);
        for group in self.groups.values_mut() {
            group.members.remove(id);
        }
        let token = format!("{id}!");
        self.acl.retain(|(_, kind, who, _), _| match kind {
            Kind::User => who != id,
            Kind::Token => !who.starts_with(&token),
            Kind::Group => true,
        });
    }

    /// A token of a caller's name.
    fn token(&self, caller: &Caller) -> Option<&Token> {
        self.users.get(caller.user())?.tokens.get(caller.token()?)
    }

    /// Roles of one user or token at a path, without pools: role → whether it holds below too.
    fn roles_at(&self, kind: Kind, id: &str, path: &str) -> BTreeMap<&str, bool> {
        let mut found: BTreeMap<&str, bool> = BTreeMap::new();
        for level in levels(path) {
            let is_last = level == path;
            let of = |kind: Kind, who: &str| -> BTreeMap<&str, bool> {
                self.acl
                    .iter()
                    .filter(|((at, of, id, _), propagate)| {
                        at == level && *of == kind && id == who && (is_last || **propagate)
                    })
                    .map(|((_, _, _, role), propagate)| (role.as_str(), *propagate))
                    .collect()
            };
            let own = of(kind, id);
            if !own.is_empty() {
                found = own;
                continue;
            }
            if kind == Kind::User {
                let groups = self.groups.iter().filter(|(_, group)| group.members.contains(id));
                let shared: BTreeMap<&str, bool> =
                    groups.flat_map(|(name, _)| of(Kind::Group, name)).collect();
                if !shared.is_empty() {
                    found = shared;
                }
            }
        }
        if let Some(propagate) = found.get("NoAccess") {
            return BTreeMap::from([("NoAccess", *propagate)]);
        }
        found
    }

    /// The pool that a path's VM or storage is in.
    fn pool_of(&self, path: &str) -> Option<&str> {
        let is_in = |pool: &Pool| match path.strip_prefix("/vms/") {
            Some(vmid) => vmid.parse().is_ok_and(|vmid| pool.vms.contains(&vmid)),
            None => path.strip_prefix("/storage/").is_some_and(|name| pool.storages.contains(name)),
        };
        self.pools.iter().find(|(_, pool)| is_in(pool)).map(|(name, _)| name.as_str())
    }

    /// Privileges of one user or token by its own entries: privilege → whether it holds below too.
    fn held(&self, kind: Kind, id: &str, path: &str) -> BTreeMap<String, bool> {
        let mut roles = self.roles_at(kind, id, path);
        if let Some(pool) = self.pool_of(path)
            && !roles.contains_key("NoAccess")
        {
            let shared = self.roles_at(kind, id, &format!("/pool/{pool}"));
            if shared.contains_key("NoAccess") {
                roles = BTreeMap::new();
            } else {
                for role in shared.keys() {
                    roles.entry(role).or_insert(false);
                }
            }
        }
        let mut held = BTreeMap::new();
        for (role, propagate) in roles {
            for privilege in self.roles.get(role).into_iter().flatten() {
                *held.entry(privilege.clone()).or_insert(false) |= propagate;
            }
        }
        held
    }

    /// What a caller may do at a path: privilege → whether it holds below too.
    pub fn privileges(&self, caller: &Caller, path: &str) -> BTreeMap<String, bool> {
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        let of_user = || {
            if caller.user() == ROOT {
                self.known_privileges().iter().map(|name| ((*name).to_owned(), true)).collect()
            } else {
                self.held(Kind::User, caller.user(), path)
            }
        };
        if caller.token().is_none() {
            return of_user();
        }
        match self.token(caller) {
            None => BTreeMap::new(),
            Some(token) if !token.separated => of_user(),
            Some(_) => {
                let of_user = of_user();
                let own = self.held(Kind::Token, &caller.0, path);
                own.into_iter()
                    .filter_map(|(name, below)| {
                        let user_below = of_user.get(&name)?;
                        Some((name, below && *user_below))
                    })
                    .collect()
            }
        }
    }

    /// Whether a caller has one privilege at a path.
    pub fn has(&self, caller: &Caller, path: &str, privilege: &str) -> bool {
        self.privileges(caller, path).contains_key(privilege)
    }

    /// Demands all of the privileges.
    ///
    /// # Errors
    /// The 403 that names the first missing one.
    pub fn require(&self, caller: &Caller, path: &str, privileges: &[&str]) -> ApiResult<()> {
        let held = self.privileges(caller, path);
        match privileges.iter().find(|name| !held.contains_key(**name)) {
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
        if privileges.iter().any(|name| held.contains_key(*name)) {
            return Ok(());
        }
        Err(ApiError::forbidden(&format!("{path}, {}", privileges.join("|"))))
    }

    /// The answer of `GET /access/permissions`: path → privilege → 1, or 0 when it does not hold below.
    pub fn permissions(&self, caller: &Caller, only: Option<&str>) -> Value {
        let mut paths: BTreeSet<String> = LISTED_PATHS.iter().map(|path| (*path).to_owned()).collect();
        paths.extend(self.acl.keys().map(|(path, ..)| path.clone()));
        for pool in self.pools.values() {
            paths.extend(pool.vms.iter().map(|vmid| format!("/vms/{vmid}")));
            paths.extend(pool.storages.iter().map(|name| format!("/storage/{name}")));
        }
        if let Some(only) = only {
            paths = BTreeSet::from([only.to_owned()]);
        }
        let mut answer = Map::new();
        for path in paths {
            let held = self.privileges(caller, &path);
            if !held.is_empty() || only.is_some() {
                let privileges: Map<String, Value> =
                    held.into_iter().map(|(name, below)| (name, u8::from(below).into())).collect();
                answer.insert(path, Value::Object(privileges));
            }
        }
        Value::Object(answer)
    }
}

/// A path and all that is above it, from `/` down.
fn levels(path: &str) -> Vec<&str> {
    let mut levels = vec!["/"];
    let mut end = 0;
    while let Some(next) = path[end + 1..].find('/') {
        end += 1 + next;
        levels.push(&path[..end]);
    }
    if path != "/" {
        levels.push(path);
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(id: &str) -> Caller {
        Caller(id.to_owned())
    }

    #[test]
    fn a_deeper_entry_replaces_what_is_inherited() {
        let mut auth = Auth::default();
        auth.add_token("a@pve!b1", "0-1", &[("/", &["VM.Audit"]), ("/vms/9000", &["VM.Clone"])], true);
        let token = caller("a@pve!b1");
        assert!(auth.has(&token, "/vms/100", "VM.Audit"));
        assert!(!auth.has(&token, "/vms/9000", "VM.Audit"));
        let error = auth.require(&token, "/vms/9000", &["VM.Audit"]).expect_err("refused");
        assert_eq!(error.message, "Permission check failed (/vms/9000, VM.Audit)");
    }

    #[test]
    fn a_separated_token_has_what_it_and_its_user_have() {
        let mut auth = Auth::default();
        auth.add_token("a@pve!b1", "0-1", &[("/", &["VM.Audit", "VM.Clone"])], true);
        auth.set_user_access("a@pve", &[("/", &["VM.Clone", "VM.Console"])]);
        let held: Vec<String> = auth.privileges(&caller("a@pve!b1"), "/vms/1").into_keys().collect();
        assert_eq!(held, ["VM.Clone"]);
        auth.add_token("a@pve!b2", "0-1", &[], false);
        let held: Vec<String> = auth.privileges(&caller("a@pve!b2"), "/vms/1").into_keys().collect();
        assert_eq!(held, ["VM.Clone", "VM.Console"]);
        auth.set_user_access("a@pve", &[]);
        assert!(
            auth.privileges(&caller("a@pve!b1"), "/").is_empty(),
            "a user without rights voids its tokens"
        );
    }

    #[test]
    fn groups_pools_propagation_and_no_access_count_as_on_a_real_server() {
        let mut auth = Auth::default();
        auth.users.insert("u@pve".to_owned(), User::default());
        auth.groups.entry("g".to_owned()).or_default().members.insert("u@pve".to_owned());
        let user = caller("u@pve");
        auth.grant(Kind::Group, "g", "/vms", "PVEVMUser");
        assert!(auth.has(&user, "/vms/100", "VM.Console"));
        auth.grant(Kind::User, "u@pve", "/vms", "PVETemplateUser");
        assert!(!auth.has(&user, "/vms/100", "VM.Console"), "the user's own entry hides its groups'");
        auth.pools.entry("p".to_owned()).or_default().vms.insert(100);
        auth.grant(Kind::User, "u@pve", "/pool/p", "PVEVMAdmin");
        assert!(auth.has(&user, "/vms/100", "VM.Allocate") && !auth.has(&user, "/vms/101", "VM.Allocate"));
        auth.acl
            .insert(("/storage".to_owned(), Kind::User, "u@pve".to_owned(), "PVEAuditor".to_owned()), false);
        assert!(auth.has(&user, "/storage", "Datastore.Audit"));
        assert!(!auth.has(&user, "/storage/local", "Datastore.Audit"));
        auth.grant(Kind::User, "u@pve", "/vms/100", "NoAccess");
        assert!(auth.privileges(&user, "/vms/100").is_empty());
    }
}
