//! What is to be done, from what is wanted and what there is. Pure.

use thiserror::Error;

use super::{Change, Standing};
use crate::permissions::{ROLE, least_privileges};

/// What the lists of users and tokens say about those that forge makes.
const COMMENT: &str = "forge: builds VM templates";

/// Who is to build, with which rights, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `name@realm`.
    pub user: String,
    /// The token's own name.
    pub token: String,
    /// The role.
    pub role: String,
    /// Privileges besides those that every build needs.
    pub more: Vec<String>,
    /// The pool for build VMs.
    pub pool: Option<String>,
    /// Where the role is given.
    pub paths: Vec<String>,
    /// Whether a token that is there is made anew.
    pub rotate: bool,
    /// Whether what others made may change: a role of another name than forge's own, rights that stand higher up.
    pub force: bool,
}

impl Wanted {
    /// `user@realm!token`.
    #[must_use]
    pub fn token_id(&self) -> String {
        format!("{}!{}", self.user, self.token)
    }

    /// What the role must hold on a release, in a fixed order.
    #[must_use]
    pub fn privileges(&self, major: u32) -> Vec<String> {
        let mut all: Vec<String> = least_privileges(major).into_iter().map(str::to_owned).collect();
        for name in &self.more {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        all
    }
}

/// Where the role is given, when nobody says otherwise: the build VMs (all of them, or those of a pool and the VMs that are
/// cloned), the storages, the bridge (by its path), and the nodes, whose memory decides where a build goes.
#[must_use]
pub fn paths(
    major: u32,
    pool: Option<&str>,
    boot_vms: &[u32],
    storages: &[String],
    of_bridge: Option<&str>,
) -> Vec<String> {
    let mut paths = Vec::new();
    match pool {
        Some(pool) => {
            paths.push(format!("/pool/{pool}"));
            paths.extend(boot_vms.iter().map(|vmid| format!("/vms/{vmid}")));
        }
        None => paths.push("/vms".to_owned()),
    }
    for storage in storages {
        let path = format!("/storage/{storage}");
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    // PVE 7 checks no rights on bridges.
    paths.extend(of_bridge.filter(|_| major >= 8).map(str::to_owned));
    paths.push("/nodes".to_owned());
    paths
}

/// One thing, what was found of it, and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The thing, as `role ForgeBuild`.
    pub thing: String,
    /// What was found: nothing, that something lacks, or that it is as it should be.
    pub found: String,
    /// What is done, in this order; empty when it is as it should be.
    pub changes: Vec<Change>,
}

/// What forge will not do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// The role came with Proxmox VE and lacks something.
    #[error("the role {role} came with Proxmox VE, can't be changed, and lacks {}", lacks.join(", "))]
    SpecialRole {
        /// Its name.
        role: String,
        /// What it lacks.
        lacks: Vec<String>,
    },
    /// The role is there under a name that is not forge's own, and lacks something: whoever bears it would get that too.
    #[error("the role {role} is there and lacks {}", lacks.join(", "))]
    OtherRole {
        /// Its name.
        role: String,
        /// What it lacks.
        lacks: Vec<String>,
    },
    /// An entry of the access list would be hidden by one further down, which replaces it there.
    #[error("{who} has the role {role} on {above}, and an entry on {path} would take it away there")]
    WouldHide {
        /// User or token.
        who: String,
        /// Its role.
        role: String,
        /// Where it has that.
        above: String,
        /// Where an entry is wanted.
        path: String,
    },
    /// The user is switched off.
    #[error("the user {user} is disabled")]
    Disabled {
        /// `name@realm`.
        user: String,
    },
    /// A role that starts with `PVE` can't be made.
    #[error("a role's name can't start with PVE, as {role} does")]
    ReservedRole {
        /// Its name.
        role: String,
    },
}

impl Conflict {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::SpecialRole { .. } | Self::ReservedRole { .. } => {
                "name another with --role; what is not there is made".to_owned()
            }
            Self::OtherRole { .. } => {
                "--force adds that to it for all who bear it; --role names another, which is made".to_owned()
            }
            Self::WouldHide { .. } => {
                "--user or --token names another, which is made; --force gives the role all the same"
                    .to_owned()
            }
            Self::Disabled { user } => {
                format!("`pveum user modify {user} --enable 1` switches it on; or name another with --user")
            }
        }
    }
}

/// What there is to do, in the order in which it has to be done.
///
/// # Errors
/// What can't be had this way; nothing is to be changed then.
pub fn steps(wanted: &Wanted, standing: &Standing) -> Result<Vec<Step>, Conflict> {
    let mut steps = Vec::new();
    if let Some(pool) = &wanted.pool {
        let is_there = standing.pools.contains(pool);
        steps.push(there_or(format!("pool {pool}"), is_there, || Change::AddPool { pool: pool.clone() }));
    }
    steps.push(role(wanted, standing)?);
    let user = &wanted.user;
    if standing.users.get(user) == Some(&false) {
        return Err(Conflict::Disabled { user: user.clone() });
    }
    let is_there = standing.users.contains_key(user);
    steps.push(there_or(format!("user {user}"), is_there, || Change::AddUser {
        user: user.clone(),
        comment: COMMENT.to_owned(),
    }));
    let (token, makes_token) = token(wanted, standing);
    let separated = makes_token || standing.tokens.get(&wanted.token) == Some(&true);
    steps.push(token);
    for path in &wanted.paths {
        let lacks =
            |who: &str| !standing.entries.contains(&(path.clone(), who.to_owned(), wanted.role.clone()));
        let id = wanted.token_id();
        let users: Vec<String> = lacks(user).then(|| user.clone()).into_iter().collect();
        // A token that was made anew has lost its entries; one without rights of its own has its user's.
        let tokens: Vec<String> =
            (makes_token || separated && lacks(&id)).then_some(id).into_iter().collect();
        for who in users.iter().chain(tokens.iter().filter(|_| !makes_token)) {
            if let Some((above, _, role)) = hidden(wanted, standing, who, path).filter(|_| !wanted.force) {
                let (who, role) = (who.clone(), role.clone());
                return Err(Conflict::WouldHide { who, role, above: above.clone(), path: path.clone() });
            }
        }
        let (found, changes) = match (users.is_empty(), tokens.is_empty()) {
            (true, true) => ("as it should be", Vec::new()),
            (all, some) => {
                let found = if all || some { "not for both" } else { "not there" };
                let change = Change::Grant { path: path.clone(), role: wanted.role.clone(), users, tokens };
                (found, vec![change])
            }
        };
        steps.push(Step { thing: format!("rights on {path}"), found: found.to_owned(), changes });
    }
    Ok(steps)
}

/// An entry with another role further up, which one on this path would replace there ("the more specific path wins":
/// pveum(1), "Access Control").
fn hidden<'a>(
    wanted: &Wanted,
    standing: &'a Standing,
    who: &str,
    path: &str,
) -> Option<&'a (String, String, String)> {
    let is_above =
        |above: &str| above == "/" || path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
    standing
        .entries
        .iter()
        .find(|(above, other, role)| other == who && *role != wanted.role && is_above(above))
}

fn there_or(thing: String, is_there: bool, make: impl FnOnce() -> Change) -> Step {
    match is_there {
        true => Step { thing, found: "is there".to_owned(), changes: Vec::new() },
        false => Step { thing, found: "not there".to_owned(), changes: vec![make()] },
    }
}

fn role(wanted: &Wanted, standing: &Standing) -> Result<Step, Conflict> {
    let (role, needed) = (&wanted.role, wanted.privileges(standing.major));
    let thing = format!("role {role}");
    let Some(held) = standing.roles.get(role) else {
        if role.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("pve")) {
            return Err(Conflict::ReservedRole { role: role.clone() });
        }
        let change = Change::AddRole { role: role.clone(), privileges: needed };
        return Ok(Step { thing, found: "not there".to_owned(), changes: vec![change] });
    };
    let lacks: Vec<String> = needed.iter().filter(|name| !held.privileges.contains(*name)).cloned().collect();
    let beyond: Vec<&str> =
        held.privileges.iter().filter(|name| !needed.contains(name)).map(String::as_str).collect();
    let beyond = match beyond.as_slice() {
        [] => String::new(),
        some => format!("; it also has {}", some.join(", ")),
    };
    if lacks.is_empty() {
        let found = format!("has all {} privileges{beyond}", needed.len());
        return Ok(Step { thing, found, changes: Vec::new() });
    }
    if held.special {
        return Err(Conflict::SpecialRole { role: role.clone(), lacks });
    }
    if role != ROLE && !wanted.force {
        return Err(Conflict::OtherRole { role: role.clone(), lacks });
    }
    let found = format!("lacks {}{beyond}", lacks.join(", "));
    let change = Change::ExtendRole { role: role.clone(), privileges: lacks };
    Ok(Step { thing, found, changes: vec![change] })
}

/// The step, and whether it makes a token.
fn token(wanted: &Wanted, standing: &Standing) -> (Step, bool) {
    let (user, token) = (wanted.user.clone(), wanted.token.clone());
    let add = Change::AddToken { user: user.clone(), token: token.clone(), comment: COMMENT.to_owned() };
    let thing = format!("token {}", wanted.token_id());
    let (found, changes) = match (standing.tokens.get(&token), wanted.rotate) {
        (None, _) => ("not there", vec![add]),
        (Some(_), true) => {
            ("is there, and is to be made anew", vec![Change::RemoveToken { user, token }, add])
        }
        (Some(true), false) => ("is there", Vec::new()),
        (Some(false), false) => ("is there, with all rights of its user", Vec::new()),
    };
    let makes = !changes.is_empty();
    (Step { thing, found: found.to_owned(), changes }, makes)
}
