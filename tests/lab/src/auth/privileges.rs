//! The privileges of PVE 8 and 9 and the roles that come with them (AccessControl.pm's facts; observed on PVE 9.2).

use std::collections::{BTreeMap, BTreeSet};

use crate::config::PveVersion;

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

/// Privileges of both releases.
const COMMON: &[&str] = &[
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
    "VM.Migrate",
    "VM.PowerMgmt",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];

/// Privileges that only PVE 9 has.
const ONLY_PVE9: &[&str] = &[
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.FileRead",
    "VM.GuestAgent.FileSystemMgmt",
    "VM.GuestAgent.FileWrite",
    "VM.GuestAgent.Unrestricted",
    "VM.Replicate",
];

/// Privileges that only PVE 8 has.
const ONLY_PVE8: &[&str] = &["VM.Monitor"];

/// Every privilege of PVE 9.
pub const ALL_PRIVILEGES_PVE9: &[&str] = &{
    let mut all = [""; COMMON.len() + ONLY_PVE9.len()];
    let mut index = 0;
    while index < all.len() {
        all[index] = if index < COMMON.len() { COMMON[index] } else { ONLY_PVE9[index - COMMON.len()] };
        index += 1;
    }
    all
};

/// Every privilege of PVE 8.
pub const ALL_PRIVILEGES_PVE8: &[&str] = &{
    let mut all = [""; COMMON.len() + ONLY_PVE8.len()];
    let mut index = 0;
    while index < all.len() {
        all[index] = if index < COMMON.len() { COMMON[index] } else { ONLY_PVE8[index - COMMON.len()] };
        index += 1;
    }
    all
};

/// Every privilege of a release.
pub fn all(version: PveVersion) -> &'static [&'static str] {
    match version {
        PveVersion::V8 => ALL_PRIVILEGES_PVE8,
        PveVersion::V9 => ALL_PRIVILEGES_PVE9,
    }
}

/// To whom a privilege is given by the roles that come with Proxmox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Audit,
    User,
    Admin,
    Root,
}

fn rank(privilege: &str) -> Rank {
    match privilege {
        "VM.Audit"
        | "VM.GuestAgent.Audit"
        | "Sys.Audit"
        | "Datastore.Audit"
        | "SDN.Audit"
        | "Pool.Audit"
        | "Mapping.Audit" => Rank::Audit,
        "VM.Config.CDROM"
        | "VM.Config.Cloudinit"
        | "VM.Console"
        | "VM.Backup"
        | "VM.PowerMgmt"
        | "VM.GuestAgent.FileRead"
        | "VM.GuestAgent.FileSystemMgmt"
        | "VM.GuestAgent.FileWrite"
        | "Datastore.AllocateSpace"
        | "SDN.Use"
        | "Mapping.Use" => Rank::User,
        "Sys.PowerMgmt" | "Sys.Modify" | "Sys.Incoming" | "Sys.AccessNetwork" | "Realm.Allocate"
        | "Permissions.Modify" => Rank::Root,
        _ => Rank::Admin,
    }
}

/// The family of a privilege in the names of roles: `PVEVMAdmin`, `PVEUserAdmin`, …
fn family(privilege: &str) -> &str {
    match privilege.split('.').next().unwrap_or_default() {
        "Realm" | "Group" => "User",
        family => family,
    }
}

/// The roles that come with a release and can't be changed.
pub fn special_roles(version: PveVersion) -> BTreeMap<String, BTreeSet<String>> {
    let mut roles: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |role: String, privilege: &str| {
        roles.entry(role).or_default().insert(privilege.to_owned());
    };
    for privilege in all(version) {
        add("Administrator".to_owned(), privilege);
        let (family, rank) = (family(privilege), rank(privilege));
        if rank == Rank::Audit {
            add("PVEAuditor".to_owned(), privilege);
        }
        if rank <= Rank::User && !matches!(family, "Sys" | "User") {
            add(format!("PVE{family}User"), privilege);
        }
        if rank <= Rank::Admin {
            add(format!("PVE{family}Admin"), privilege);
            if *privilege != "Mapping.Modify" {
                add("PVEAdmin".to_owned(), privilege);
            }
        }
    }
    for privilege in ["VM.Clone", "VM.Audit"] {
        add("PVETemplateUser".to_owned(), privilege);
    }
    roles.insert("NoAccess".to_owned(), BTreeSet::new());
    roles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_releases_differ_in_the_monitor_and_the_guest_agent() {
        assert_eq!(ALL_PRIVILEGES_PVE9.len(), 47);
        assert_eq!(ALL_PRIVILEGES_PVE8.len(), 42);
        assert!(ALL_PRIVILEGES_PVE8.contains(&"VM.Monitor") && !ALL_PRIVILEGES_PVE9.contains(&"VM.Monitor"));
        let roles = special_roles(PveVersion::V9);
        let text = |role: &str| roles[role].iter().cloned().collect::<Vec<_>>().join(",");
        assert_eq!(text("PVESDNUser"), "SDN.Audit,SDN.Use");
        assert_eq!(text("PVEPoolUser"), "Pool.Audit");
        assert_eq!(text("PVETemplateUser"), "VM.Audit,VM.Clone");
        assert_eq!(roles["Administrator"].len(), 47);
        assert!(!roles["PVEAdmin"].contains("Sys.Modify"));
    }
}
