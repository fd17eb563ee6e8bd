//! Whether a VM fits its node at all, and its disks their storages: by the lists of nodes and storages. Pure.
//!
//! Proxmox starts no VM with more CPUs than its node has (qemu-server, `QemuServer.pm`: "MAX 4 vcpus allowed per VM on this
//! node"), and QEMU none with more memory. What is only short at the moment is for [`crate::placement`].

use std::collections::BTreeMap;

use forge_machine::{Finding, MachineSpec, SourceFacts, SourceSpec};

use crate::api::types::{NodeEntry, StorageEntry};
use crate::params::is_state_slot;

const GIB: u64 = 1 << 30;
/// Storages that reserve all of a disk when it is made (pve-storage, `LVMPlugin.pm`). All others may give out their space as
/// it is written, and most do.
const RESERVING: [&str; 1] = ["lvm"];

/// What the target's lists say.
#[derive(Debug, Default)]
pub struct Room {
    /// The nodes that a build may go to. One whose figures the login may not see has none.
    pub nodes: Vec<NodeEntry>,
    /// The storages of the build's node.
    pub storages: Vec<StorageEntry>,
}

/// What does not fit. `storage` is where new disks go that name none.
#[must_use]
pub fn findings(
    room: &Room,
    spec: &MachineSpec,
    source: Option<&SourceFacts>,
    storage: Option<&str>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(memory(room, spec, source));
    found.extend(processors(room, spec, source));
    found.extend(disks(room, spec, source, storage));
    found
}

/// `23.4 GiB`.
fn words(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / GIB;
    match (bytes, tenths % 10) {
        (..GIB, _) => format!("{} MiB", bytes >> 20),
        (_, 0) => format!("{} GiB", tenths / 10),
        (_, tenth) => format!("{}.{tenth} GiB", tenths / 10),
    }
}

/// Both, in MiB where they would read the same.
fn compared(wanted: u64, there: u64) -> (String, String) {
    let both = (words(wanted), words(there));
    let exact = |bytes: u64| format!("{} MiB", bytes >> 20);
    if both.0 == both.1 { (exact(wanted), exact(there)) } else { both }
}

/// What a node lacks that another may have.
struct Lack<'a> {
    node: &'a NodeEntry,
    others: Vec<&'a NodeEntry>,
}

/// The build's node, when it has less than is wanted; 0 is what nobody is told.
fn lack<'a>(room: &'a Room, node: &str, wanted: u64, has: fn(&NodeEntry) -> u64) -> Option<Lack<'a>> {
    let fits = |entry: &&NodeEntry| has(entry) >= wanted;
    let node = room.nodes.iter().find(|entry| entry.node == node)?;
    let lacks = has(node) > 0 && !fits(&node);
    lacks.then(|| Lack { node, others: room.nodes.iter().filter(fits).collect() })
}

impl Lack<'_> {
    fn help(&self, room: &Room, has: fn(&NodeEntry) -> u64, figure: impl Fn(u64) -> String) -> String {
        let most = room.nodes.iter().max_by_key(|entry| has(entry));
        match (self.others.first(), most) {
            (Some(other), _) => {
                let name = &other.node;
                format!("{name} has {}: name it, node = \"{name}\", or ask for less", figure(has(other)))
            }
            (None, Some(most)) if room.nodes.len() > 1 => {
                format!(
                    "ask for less; the most that one of the target's nodes has is {} ({})",
                    figure(has(most)),
                    most.node
                )
            }
            (None, _) => "ask for less".to_owned(),
        }
    }
}

fn memory(room: &Room, spec: &MachineSpec, source: Option<&SourceFacts>) -> Option<Finding> {
    let mib = spec.memory_mib.or_else(|| source.map(|source| source.memory_mib))?;
    let wanted = u64::from(mib) << 20;
    let has = |entry: &NodeEntry| entry.maxmem;
    let lack = lack(room, &spec.node, wanted, has)?;
    let whose = if spec.memory_mib.is_none() { " (the source has it)" } else { "" };
    let (wanted, there) = compared(wanted, lack.node.maxmem);
    let node = &lack.node.node;
    let message = format!("{wanted} of memory{whose} are more than node {node} has at all, which is {there}");
    Some(Finding::fatal("vm.memory", message, lack.help(room, has, words)))
}

fn processors(room: &Room, spec: &MachineSpec, source: Option<&SourceFacts>) -> Option<Finding> {
    let cores = spec.cores.or_else(|| source.map(|source| source.cores).filter(|cores| *cores > 0))?;
    // How many sockets a source has is not known: one at least.
    let sockets = spec.sockets.unwrap_or(1);
    let wanted = u64::from(cores).saturating_mul(u64::from(sockets));
    let has = |entry: &NodeEntry| entry.maxcpu;
    let lack = lack(room, &spec.node, wanted, has)?;
    let figure = |cpus: u64| format!("{cpus} CPUs");
    let count = if sockets > 1 { format!("{sockets} × {cores} = {wanted}") } else { wanted.to_string() };
    let setting = if spec.cores.is_none() && spec.sockets.is_some() { "vm.sockets" } else { "vm.cores" };
    let message = format!(
        "{count} CPUs are more than node {} has, which is {}, and Proxmox VE starts no such VM",
        lack.node.node, lack.node.maxcpu
    );
    Some(Finding::fatal(setting, message, lack.help(room, has, figure)))
}

/// The disks that come to be, by storage: setting, slot and the bytes that come on top of what is there.
fn new_disks<'a>(
    spec: &'a MachineSpec,
    source: Option<&'a SourceFacts>,
    storage: Option<&'a str>,
) -> BTreeMap<&'a str, Vec<(String, &'a str, u64)>> {
    let mut by_storage: BTreeMap<&str, Vec<(String, &str, u64)>> = BTreeMap::new();
    let present = source.map(|source| source.disks.as_slice()).unwrap_or_default();
    let (full, cloned_to) = match &spec.source {
        SourceSpec::Clone { full, storage, .. } => (*full, storage.as_deref()),
        SourceSpec::Image { .. } | SourceSpec::New => (true, None),
    };
    let asked = spec.disks.iter().enumerate().filter(|(_, disk)| !is_state_slot(&disk.slot));
    for (number, disk) in asked {
        let known = present.iter().find(|known| known.slot == disk.slot);
        let of_source = known.map_or(0, |known| known.size);
        let size = disk.size.unwrap_or(0).max(of_source);
        let on_top = if full { size } else { size.saturating_sub(of_source) };
        let named = disk.storage.as_deref().or(cloned_to);
        let place = named.or_else(|| known.map(|known| known.storage.as_str())).or(storage);
        if let Some(place) = place {
            let setting = match disk.size {
                Some(_) => format!("vm.disks[{number}].size"),
                None => format!("vm.disks[{number}]"),
            };
            by_storage.entry(place).or_default().push((setting, &disk.slot, on_top));
        }
    }
    for known in present.iter().filter(|known| full && !spec.disks.iter().any(|disk| disk.slot == known.slot))
    {
        let place = cloned_to.unwrap_or(&known.storage);
        by_storage.entry(place).or_default().push(("source.clone".to_owned(), &known.slot, known.size));
    }
    by_storage
}

fn disks(
    room: &Room,
    spec: &MachineSpec,
    source: Option<&SourceFacts>,
    storage: Option<&str>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, mut disks) in new_disks(spec, source, storage) {
        let Some(storage) = room.storages.iter().find(|known| known.storage == name) else { continue };
        let wanted = disks.iter().fold(0_u64, |sum, (.., size)| sum.saturating_add(*size));
        // One that does not say how large it is has no figures at all.
        if wanted <= storage.avail || storage.total == 0 || !storage.active {
            continue;
        }
        disks.sort_by_key(|(.., size)| std::cmp::Reverse(*size));
        let setting = disks.first().map(|(setting, ..)| setting.clone()).unwrap_or_default();
        let mut slots: Vec<&str> = disks.iter().map(|(_, slot, _)| *slot).collect();
        slots.sort_unstable();
        let (subject, (wanted, free)) = (slots.join(", "), compared(wanted, storage.avail));
        let (kind, needs) = (&storage.kind, if slots.len() > 1 { "need" } else { "needs" });
        found.push(if RESERVING.contains(&kind.as_str()) {
            let message = format!("{subject} {needs} {wanted}, and storage `{name}` ({kind}) has {free} free");
            let help = "ask for less, or name another storage: one of this type reserves all of a disk at once";
            Finding::fatal(setting, message, help)
        } else {
            let message =
                format!("{subject} may grow to {wanted}, and storage `{name}` ({kind}) has {free} free");
            let help = "a storage that gives out its space as it is written takes the disk, and is full one day: the guest's \
                        writes fail then";
            Finding::warning(setting, message, help)
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use forge_machine::facts::SourceDisk;
    use forge_machine::{DiskSpec, VmRef};

    use super::*;

    fn room(kind: &str) -> Room {
        let node = |name: &str, maxcpu, gib: u64| NodeEntry {
            node: name.into(),
            status: "online".into(),
            maxcpu,
            maxmem: gib * GIB,
        };
        let storage = format!(
            r#"{{"storage":"fast","type":"{kind}","active":1,"total":{},"avail":{}}}"#,
            100 * GIB,
            50 * GIB
        );
        Room {
            nodes: vec![node("pve1", 4, 16), node("pve2", 8, 64), node("pve3", 0, 0)],
            storages: vec![serde_json::from_str(&storage).expect("valid")],
        }
    }

    fn source(full: bool) -> (SourceSpec, SourceFacts) {
        let vm = VmRef::new("9000", "pve1");
        let spec = SourceSpec::Clone { vm: vm.clone(), name: "boot-vm".into(), full, storage: None };
        let disk =
            |slot: &str, gib: u64| SourceDisk { slot: slot.into(), storage: "fast".into(), size: gib * GIB };
        let facts = SourceFacts {
            vm,
            name: "boot-vm".into(),
            template: true,
            running: false,
            disks: vec![disk("scsi0", 20), disk("scsi1", 10)],
            cloud_init: None,
            agent: true,
            networks: Vec::new(),
            memory_mib: 2048,
            cores: 2,
        };
        (spec, facts)
    }

    fn told(kind: &str, full: bool, change: impl FnOnce(&mut MachineSpec)) -> Vec<(String, String, bool)> {
        let (from, facts) = source(full);
        let mut spec = MachineSpec::new(from, "pve1");
        change(&mut spec);
        let found = findings(&room(kind), &spec, Some(&facts), Some("fast"));
        found
            .into_iter()
            .map(|each| (each.setting, format!("{}; {}", each.message, each.help), each.fatal))
            .collect()
    }

    #[test]
    fn more_than_the_node_has_is_refused_and_a_node_that_has_it_is_named() {
        assert_eq!(told("lvmthin", true, |_| {}), []);
        let one = |change: fn(&mut MachineSpec)| {
            let mut found = told("lvmthin", true, change);
            assert_eq!(found.len(), 1, "{found:?}");
            found.remove(0)
        };
        let (setting, words, fatal) = one(|spec| spec.memory_mib = Some(16 * 1024 + 1));
        assert_eq!((setting.as_str(), fatal), ("vm.memory", true));
        assert_eq!(
            words,
            "16385 MiB of memory are more than node pve1 has at all, which is 16384 MiB; pve2 has 64 GiB: name it, node = \
             \"pve2\", or ask for less"
        );
        let (_, words, _) = one(|spec| spec.memory_mib = Some(1 << 20));
        assert!(
            words.ends_with("; ask for less; the most that one of the target's nodes has is 64 GiB (pve2)"),
            "{words}"
        );
        let (setting, words, fatal) = one(|spec| spec.sockets = Some(3));
        assert_eq!((setting.as_str(), fatal), ("vm.sockets", true));
        assert_eq!(
            words,
            "3 × 2 = 6 CPUs are more than node pve1 has, which is 4, and Proxmox VE starts no such VM; pve2 has 8 CPUs: \
             name it, node = \"pve2\", or ask for less"
        );
        assert_eq!(told("lvmthin", true, |spec| spec.cores = Some(4)), []);
    }

    #[test]
    fn what_a_node_may_not_tell_refuses_nothing() {
        let found = told("lvmthin", true, |spec| {
            spec.node = "pve3".into();
            spec.memory_mib = Some(1 << 20);
            spec.cores = Some(512);
        });
        assert_eq!(found, []);
    }

    #[test]
    fn disks_count_together_and_a_thin_storage_is_only_warned_of() {
        let grown = |spec: &mut MachineSpec| {
            let disk = |slot: &str, gib: u64| DiskSpec {
                slot: slot.into(),
                size: Some(gib * GIB),
                ..DiskSpec::default()
            };
            spec.disks = vec![disk("scsi0", 25), disk("scsi2", 16)];
        };
        let (setting, words, fatal) = told("lvm", true, grown).remove(0);
        assert_eq!((setting.as_str(), fatal), ("vm.disks[0].size", true));
        assert!(
            words.starts_with("scsi0, scsi1, scsi2 need 51 GiB, and storage `fast` (lvm) has 50 GiB free"),
            "{words}"
        );
        for kind in ["dir", "lvmthin", "zfspool", "rbd", "btrfs", "nfs"] {
            let found = told(kind, true, grown);
            assert!(found.len() == 1 && !found[0].2, "{kind}: {found:?}");
            assert!(found[0].1.contains("may grow to 51 GiB"), "{kind}: {found:?}");
        }
        assert_eq!(told("lvmthin", false, grown), [], "a linked clone takes what comes on top alone");
    }
}
