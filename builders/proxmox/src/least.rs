//! The least role, privilege by privilege, against what a token may do. Pure.
//!
//! A plan knows which privileges one build needs ([`Grants::for_build`]); here it is all that builds of any profile may
//! need on a site. What each is for was measured on PVE 9.2 by taking one away at a time.

use forge_machine::{Checkup, Diagnosis};

use crate::permissions::{ARCHIVING, Grants, Held, MEMORY, grant_command, who};

/// What builds do with the VM: on the pool's path when the site has one, else on `/vms`.
const ON_VMS: [(&str, &str); 13] = [
    ("VM.Allocate", "create, convert and remove build VMs"),
    ("VM.Audit", "read the configuration and status of VMs"),
    ("VM.Console", "see the screen and press keys"),
    ("VM.PowerMgmt", "start and stop build VMs"),
    ("VM.Config.CDROM", "attach media and cloud-init drives"),
    ("VM.Config.CPU", "set the CPU"),
    ("VM.Config.Cloudinit", "set user and keys on a cloud-init drive"),
    ("VM.Config.Disk", "grow and change disks"),
    ("VM.Config.HWType", "hand over the seed in the SMBIOS serial, and set controllers"),
    ("VM.Config.Memory", "set the memory"),
    ("VM.Config.Network", "set the network adapters"),
    ("VM.Config.Options", "mark build VMs and name templates"),
    ("VM.Clone", "clone boot VMs and templates"),
];

impl Grants {
    /// What the token may do of all that builds on this site may need: a line for each path where nothing lacks, and one
    /// for each privilege that does.
    #[must_use]
    pub fn examine(&self, checkup: &Checkup, nodes: &[String]) -> Vec<Diagnosis> {
        let mut found = self.on_vms();
        let mut storages: Vec<&String> = checkup.disk_storages.iter().collect();
        storages.sort();
        storages.dedup();
        if storages.is_empty() {
            found.push(Diagnosis::warn(
                "privileges",
                "no storage for disks is named, so nobody can tell which one the token has to write to",
                "storage = { disks = \"…\" } in the target",
            ));
        }
        for storage in storages {
            found.extend(self.on_disk_storage(storage));
        }
        if let Some(storage) = &checkup.iso_storage {
            found.extend(self.on_media_storage(storage));
        }
        if let Some(storage) = &checkup.archive_storage {
            found.extend(self.on_archive_storage(storage));
        }
        found.extend(checkup.bridge.as_deref().and_then(|bridge| self.on_bridge(bridge)));
        found.extend(nodes.iter().map(|node| self.on_memory(node)));
        if self.major >= 8 {
            found.extend(nodes.iter().map(|node| self.on_node(node)));
        }
        found
    }

    fn on_vms(&self) -> Vec<Diagnosis> {
        let path = self.path_for_new_vm();
        let check = format!("privileges on {path}");
        let agent = (self.agent_privilege(), "learn the guest's addresses from its agent");
        let (mut found, mut held) = (Vec::new(), 0_usize);
        for (privilege, purpose) in ON_VMS.into_iter().chain([agent]) {
            let by_more = privilege == agent.0 && self.on_new_vm("VM.GuestAgent.Unrestricted") == Held::Yes;
            match self.on_new_vm(privilege) {
                _ if by_more => held += 1,
                Held::Yes => held += 1,
                // The VMs to clone are few, and the plan of a profile looks at the very one.
                Held::ForSome if privilege == "VM.Clone" => held += 1,
                Held::ForSome => found.push(Diagnosis::warn(
                    check.clone(),
                    format!("{} has {privilege} on some VMs only (needed to {purpose})", who(&self.token_id)),
                    "make sure that every VMID of the target's range is among them",
                )),
                Held::No => found.push(self.lacks(&check, privilege, &path, purpose)),
            }
        }
        if found.is_empty() {
            found.push(Diagnosis::pass(check, format!("all {held} that builds may need")));
        }
        found
    }

    fn on_disk_storage(&self, storage: &str) -> Vec<Diagnosis> {
        let path = format!("/storage/{storage}");
        let check = format!("privileges on {path}");
        let mut found = Vec::new();
        if !self.on(&path, "Datastore.AllocateSpace") {
            found.push(self.lacks(&check, "Datastore.AllocateSpace", &path, "put disks there"));
        }
        found.extend(self.audit(&check, storage));
        if found.is_empty() {
            found.push(Diagnosis::pass(check, "disks may be put there"));
        }
        found
    }

    /// Seeing a storage and what it holds: writing there shows it too.
    fn audit(&self, check: &str, storage: &str) -> Option<Diagnosis> {
        let path = format!("/storage/{storage}");
        if self.on(&path, "Datastore.Audit") {
            return None;
        }
        let lacks = self.lacks(check, "Datastore.Audit", &path, "see what it holds");
        if !self.on(&path, "Datastore.AllocateSpace") {
            return Some(lacks);
        }
        let found = format!("{}; Datastore.AllocateSpace stands in for it", lacks.found);
        Some(Diagnosis::warn(check, found, lacks.help))
    }

    fn on_media_storage(&self, storage: &str) -> Vec<Diagnosis> {
        let path = format!("/storage/{storage}");
        let check = format!("media on {path}");
        let mut found: Vec<Diagnosis> = self.audit(&check, storage).into_iter().collect();
        let privilege = "Datastore.AllocateTemplate";
        if self.on(&path, privilege) {
            if found.is_empty() {
                found.push(Diagnosis::pass(check, "media may be put there"));
            }
            return found;
        }
        let lacks = self.lacks(&check, privilege, &path, "put install media and seed discs there");
        found.push(Diagnosis::warn(
            check,
            format!("{}; clones and media that are there need none", lacks.found),
            lacks.help,
        ));
        found
    }

    /// What `forge prune --archive` takes: looked at only where the site names a storage for it.
    fn on_archive_storage(&self, storage: &str) -> Vec<Diagnosis> {
        let (vms, path) = (self.path_for_new_vm(), format!("/storage/{storage}"));
        let check = format!("archives on {path}");
        let mut found = Vec::new();
        match self.on_new_vm(ARCHIVING) {
            Held::Yes => {}
            Held::ForSome => found.push(Diagnosis::warn(
                check.clone(),
                format!("{} has {ARCHIVING} on some VMs only", who(&self.token_id)),
                "make sure that every VMID of the target's range is among them",
            )),
            Held::No => found.push(self.lacks(&check, ARCHIVING, &vms, "archive templates")),
        }
        if !self.on(&path, "Datastore.AllocateSpace") {
            found.push(self.lacks(&check, "Datastore.AllocateSpace", &path, "put archives there"));
        }
        if found.is_empty() {
            found.push(Diagnosis::pass(check, "templates may be archived there"));
        }
        // Builds need none of it.
        found.into_iter().map(Diagnosis::no_worse_than_a_warning).collect()
    }

    fn on_bridge(&self, bridge: &str) -> Option<Diagnosis> {
        // PVE 7 asks for no privilege.
        if self.major < 8 {
            return None;
        }
        let path = self.bridge_path(bridge);
        let check = format!("privileges on {path}");
        Some(match self.may_use_bridge(bridge) {
            true => Diagnosis::pass(check, "VMs may be connected to it"),
            false => self.lacks(&check, "SDN.Use", &path, "connect VMs to it"),
        })
    }

    fn on_memory(&self, node: &str) -> Diagnosis {
        let path = format!("/nodes/{node}");
        let check = format!("memory of {node}");
        if self.on(&path, MEMORY) {
            return Diagnosis::pass(check, "builds are placed by what is free, and wait for it");
        }
        let lacks =
            self.lacks(&check, MEMORY, &path, "place builds by free memory, and have them wait for it");
        Diagnosis::warn(check, format!("{}; without it memory is not looked at", lacks.found), lacks.help)
    }

    fn on_node(&self, node: &str) -> Diagnosis {
        let path = format!("/nodes/{node}");
        let check = format!("downloads of {node}");
        let privilege = "Sys.AccessNetwork";
        if self.on(&path, privilege) {
            return Diagnosis::pass(check, "the node may download media itself");
        }
        // Not even a warning: it is a way of saving time.
        let help = grant_command(&self.role, &self.token_id, privilege, &path);
        Diagnosis::pass(
            check,
            format!("media go by way of this machine (without {privilege}; to grant it: {help})"),
        )
    }

    fn lacks(&self, check: &str, privilege: &str, path: &str, purpose: &str) -> Diagnosis {
        let found = format!("{} lacks {privilege} on {path} (needed to {purpose})", who(&self.token_id));
        let command = grant_command(&self.role, &self.token_id, privilege, path);
        Diagnosis::fail(check, found, format!("as root on a node: {command}"))
    }
}

#[cfg(test)]
mod tests {
    use forge_machine::Health;

    use super::*;

    /// What `README.md` tells to grant, on the two releases that differ.
    fn least(major: u32) -> Vec<&'static str> {
        let agent = if major >= 9 { "VM.GuestAgent.Audit" } else { "VM.Monitor" };
        let all = ON_VMS.iter().map(|(privilege, _)| *privilege);
        all.chain([agent, "Datastore.AllocateSpace", "Datastore.Audit", "SDN.Use", MEMORY]).collect()
    }

    fn grants(major: u32, privileges: &[&str], path: &str, pool: Option<&str>) -> Grants {
        let held: serde_json::Map<String, serde_json::Value> =
            privileges.iter().map(|privilege| ((*privilege).to_owned(), 1.into())).collect();
        Grants {
            token_id: "forge@pve!build".into(),
            role: "Builders".into(),
            major,
            map: serde_json::from_value(serde_json::json!({ path: held })).expect("valid"),
            pool: pool.map(str::to_owned),
            zones: Default::default(),
        }
    }

    fn checkup() -> Checkup {
        Checkup {
            disk_storages: vec!["lvm".into(), "lvm".into()],
            iso_storage: Some("local".into()),
            bridge: Some("vmbr0".into()),
            ..Checkup::default()
        }
    }

    fn worst(found: &[Diagnosis]) -> Option<Health> {
        found.iter().map(|each| each.health).max()
    }

    #[test]
    fn the_least_role_fails_nowhere_and_each_privilege_that_lacks_is_named_with_its_command() {
        for major in [8, 9] {
            let all = least(major);
            let found = grants(major, &all, "/", None).examine(&checkup(), &["pve".into()]);
            assert_eq!(worst(&found), Some(Health::Warn), "{found:?}");
            let warned: Vec<&str> = found
                .iter()
                .filter(|each| each.health == Health::Warn)
                .map(|each| each.found.as_str())
                .collect();
            assert!(
                matches!(warned.as_slice(), [one] if one.contains("Datastore.AllocateTemplate")),
                "{warned:?}"
            );
            for lacking in &all {
                let rest: Vec<&str> = all.iter().copied().filter(|each| each != lacking).collect();
                let found = grants(major, &rest, "/", None).examine(&checkup(), &["pve".into()]);
                let named = found.iter().find(|each| each.found.contains(&format!("lacks {lacking} on ")));
                let named = named.unwrap_or_else(|| panic!("{lacking} on {major}: {found:?}"));
                assert!(named.help.contains("pveum acl modify /"), "{named:?}");
                assert!(named.help.contains("--roles Builders "), "{named:?}");
                // Builds go without: another right shows the storage, and memory is then not looked at.
                let is_needed = !["Datastore.Audit", MEMORY].contains(lacking);
                assert_eq!(named.health, if is_needed { Health::Fail } else { Health::Warn }, "{named:?}");
            }
        }
    }

    #[test]
    fn a_pool_counts_for_its_vms_and_the_path_is_the_pools() {
        let found = grants(9, &least(9), "/pool/ci", Some("ci")).examine(&checkup(), &[]);
        assert!(
            found.iter().any(|each| each.check == "privileges on /pool/ci" && each.health == Health::Pass)
        );
        let found = grants(9, &[], "/", Some("ci")).examine(&checkup(), &[]);
        let named = found.iter().find(|each| each.found.contains("VM.Allocate")).expect("named");
        assert!(named.help.contains("pveum acl modify /pool/ci "), "{named:?}");
    }

    #[test]
    fn what_archives_take_is_looked_at_where_the_site_names_a_storage_for_them() {
        let archiving = Checkup { archive_storage: Some("nfs".into()), ..checkup() };
        let all = [&least(9)[..], &[ARCHIVING]].concat();
        let of =
            |privileges: &[&str], checkup: &Checkup| grants(9, privileges, "/", None).examine(checkup, &[]);
        let named = |found: &[Diagnosis], privilege: &str| {
            let lacks = format!("lacks {privilege} on ");
            let named =
                found.iter().find(|each| each.check.starts_with("archives") && each.found.contains(&lacks));
            named.map(|each| (each.health, each.help.clone()))
        };
        assert!(of(&all, &archiving).iter().any(|each| each.found == "templates may be archived there"));
        let (health, help) = named(&of(&least(9), &archiving), ARCHIVING).expect("it is named");
        assert_eq!(health, Health::Warn, "builds go on without");
        assert!(help.contains("--privs VM.Backup ") && help.contains("acl modify /vms "), "{help}");
        assert_eq!(named(&of(&least(9), &checkup()), ARCHIVING), None, "nobody asked for archives");
        let without: Vec<&str> =
            all.iter().copied().filter(|each| *each != "Datastore.AllocateSpace").collect();
        let (_, help) = named(&of(&without, &archiving), "Datastore.AllocateSpace").expect("it is named");
        assert!(help.contains("acl modify /storage/nfs "), "{help}");
    }

    #[test]
    fn an_old_release_asks_for_no_network_privilege() {
        let found = grants(7, &[], "/", None).examine(&checkup(), &["pve".into()]);
        assert!(
            !found.iter().any(|each| each.found.contains("SDN.Use") || each.found.contains("Sys.AccessN"))
        );
    }
}
