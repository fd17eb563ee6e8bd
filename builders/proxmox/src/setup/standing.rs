//! What there is of users and rights before anything is changed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::{Ask, Door, DoorError};
use crate::api::types::{Version, boolean, yes};

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// What it may do.
    pub privileges: BTreeSet<String>,
    /// Whether it came with Proxmox VE and can't be changed.
    pub special: bool,
}

/// Users and rights, as far as they matter to one user's token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The release, as `9.2.11`.
    pub version: String,
    /// The major release.
    pub major: u32,
    /// The users, and whether each is enabled.
    pub users: BTreeMap<String, bool>,
    /// The roles.
    pub roles: BTreeMap<String, Role>,
    /// The entries of the access list that hold below their paths too: path, user or token, role.
    pub entries: BTreeSet<(String, String, String)>,
    /// The user's tokens, and whether each has rights of its own.
    pub tokens: BTreeMap<String, bool>,
    /// The pools.
    pub pools: BTreeSet<String>,
}

#[derive(Deserialize)]
struct UserEntry {
    userid: String,
    #[serde(default = "yes", deserialize_with = "boolean")]
    enable: bool,
}

#[derive(Deserialize)]
struct RoleEntry {
    roleid: String,
    #[serde(default)]
    privs: Option<String>,
    #[serde(default, deserialize_with = "boolean")]
    special: bool,
}

#[derive(Deserialize)]
struct AclEntry {
    path: String,
    roleid: String,
    ugid: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default = "yes", deserialize_with = "boolean")]
    propagate: bool,
}

#[derive(Deserialize)]
struct TokenEntry {
    tokenid: String,
    #[serde(default = "yes", deserialize_with = "boolean")]
    privsep: bool,
}

#[derive(Deserialize)]
struct PoolEntry {
    poolid: String,
}

/// Asks, and reads the answer.
pub(super) async fn asked<T: serde::de::DeserializeOwned>(
    door: &dyn Door,
    ask: &Ask,
) -> Result<T, DoorError> {
    let answer: Value = door.ask(ask).await?;
    serde_json::from_value(answer)
        .map_err(|error| DoorError::Unclear { what: door.asks(ask), why: error.to_string() })
}

impl Standing {
    /// Asks for all of it. May be dropped.
    ///
    /// # Errors
    /// When a question has no answer.
    pub async fn read(door: &dyn Door, user: &str) -> Result<Self, DoorError> {
        let version: Version = asked(door, &Ask::new(&["version"])).await?;
        let users: Vec<UserEntry> = asked(door, &Ask::new(&["access", "users"])).await?;
        let users: BTreeMap<_, _> = users.into_iter().map(|entry| (entry.userid, entry.enable)).collect();
        let roles: Vec<RoleEntry> = asked(door, &Ask::new(&["access", "roles"])).await?;
        let acl: Vec<AclEntry> = asked(door, &Ask::new(&["access", "acl"])).await?;
        let pools: Vec<PoolEntry> = asked(door, &Ask::new(&["pools"])).await?;
        let tokens: Vec<TokenEntry> = match users.contains_key(user) {
            true => asked(door, &Ask::new(&["access", "users", user, "token"])).await?,
            // The question fails for a user that is not there.
            false => Vec::new(),
        };
        Ok(Self {
            major: version.major(),
            version: version.version,
            users,
            roles: roles.into_iter().map(RoleEntry::named).collect(),
            entries: acl.into_iter().filter_map(AclEntry::lasting).collect(),
            tokens: tokens.into_iter().map(|entry| (entry.tokenid, entry.privsep)).collect(),
            pools: pools.into_iter().map(|entry| entry.poolid).collect(),
        })
    }
}

impl RoleEntry {
    fn named(self) -> (String, Role) {
        let privileges = self.privs.unwrap_or_default();
        let privileges = privileges.split([',', ' ', ';']).filter(|name| !name.is_empty()).map(str::to_owned);
        (self.roleid, Role { privileges: privileges.collect(), special: self.special })
    }
}

impl AclEntry {
    fn lasting(self) -> Option<(String, String, String)> {
        let counts = self.propagate && matches!(self.kind.as_str(), "user" | "token");
        counts.then_some((self.path, self.ugid, self.roleid))
    }
}
