//! Which node a build goes to, and whether it may start there now.
//!
//! What counts: the memory that is free, less that of forge's build VMs which do not run yet, the builds that are under
//! way, and the space on the storages. The cluster's list of VMs may be 10 s old, so it only tells where to look: each VM
//! counts by its own configuration, and by what its mark says where it still has its source's memory. A token without `Sys.Audit` on a node can't see its memory; it is then left out.

use std::time::Duration;

use forge_machine::{BuildState, FactsQuery, Location, Ownership, SourceFacts, SourceSelector, VmRef};
use futures_util::future::join_all;
use jiff::Timestamp;

use crate::api::client::Client;
use crate::api::encode::{Params, path};
use crate::api::error::ApiError;
use crate::api::types::{NodeEntry, NodeStatus, ResourceEntry, StatusCurrent, StorageEntry};
use crate::discovery::vm_config;
use crate::params::TAG_BUILD;
use crate::vmconfig::VmConfig;

/// A build VM whose mark is older than this belongs to a dead build (living ones renew theirs every 10 min).
const ALIVE: Duration = Duration::from_secs(25 * 60);
const MIB: u64 = 1 << 20;

/// A build of forge's that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// Where.
    pub vm: VmRef,
    /// Its memory.
    pub memory: u64,
    /// Whether it runs, so that its node's figures know of it.
    pub runs: bool,
}

/// Finds the builds that are under way. May be dropped.
///
/// # Errors
/// When the target can't be asked.
pub async fn under_way(client: &Client, node: Option<&str>) -> Result<Vec<UnderWay>, ApiError> {
    let query = Params::new().with("type", "vm");
    let entries: Vec<ResourceEntry> = client.get("/cluster/resources", &query).await?;
    let mut found = Vec::new();
    for entry in entries {
        let new = entry.name.as_deref().is_none_or(|name| name.starts_with("forge-"));
        let suspicious = new || entry.tags().any(|tag| tag == TAG_BUILD);
        if entry.kind == "lxc" || entry.template || !suspicious || node.is_some_and(|node| node != entry.node)
        {
            continue;
        }
        let vm = VmRef::new(entry.vmid.to_string(), entry.node);
        let seen = async {
            let config = vm_config(client, &vm).await?;
            let status = path(&["nodes", &vm.node, "qemu", &vm.id, "status", "current"]);
            let status: StatusCurrent = client.get(&status, &Params::new()).await?;
            Ok((config, status))
        };
        let (config, status) = match seen.await {
            Ok(seen) => seen,
            Err(ApiError::VmMissing { .. } | ApiError::Denied { .. } | ApiError::Unreachable { .. }) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(memory) = memory_of(&config, Timestamp::now()) else { continue };
        found.push(UnderWay { vm, memory, runs: status.status == "running" });
    }
    Ok(found)
}

/// The memory of a build VM whose build is alive; `None` for any other VM.
///
/// A clone shows the mark as soon as it is made, under the build's own name; its tag and its hardware come later.
fn memory_of(config: &VmConfig, now: Timestamp) -> Option<u64> {
    let mark = Ownership::from_description(config.description())?;
    let alive = now.duration_since(mark.heartbeat).unsigned_abs() < ALIVE;
    let named = config.tags().any(|tag| tag == TAG_BUILD) || config.name() == mark.nonce.vm_name();
    let building = mark.state == BuildState::Building && named && !config.is_template();
    (alive && building).then(|| u64::from(mark.memory_mib.unwrap_or_else(|| config.memory_mib())) * MIB)
}

/// The memory that is free on a node; `None` when the token may not see it.
async fn free_memory(client: &Client, node: &str) -> Result<Option<u64>, ApiError> {
    match client.get::<NodeStatus>(&path(&["nodes", node, "status"]), &Params::new()).await {
        Ok(status) => Ok(Some(status.memory.available.unwrap_or(status.memory.free))),
        Err(ApiError::Denied { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why a VM has to wait before it starts on its node; `None` when it need not.
///
/// `at` is the VM once it exists: those with lower ids go first then. A build that would not fit on the empty node
/// either is not kept waiting: whether to start it is Proxmox's to say. May be dropped.
///
/// # Errors
/// When the target can't be asked.
pub async fn admission(
    client: &Client,
    node: &str,
    memory: Option<u32>,
    at: Option<&VmRef>,
) -> Result<Option<String>, ApiError> {
    let Some(free) = free_memory(client, node).await? else { return Ok(None) };
    let number = |vm: &VmRef| vm.id.parse::<u64>().unwrap_or(u64::MAX);
    let others = under_way(client, Some(node)).await?;
    let before: Vec<&UnderWay> = others
        .iter()
        .filter(|each| !each.runs && at.is_none_or(|at| number(&each.vm) < number(at)))
        .collect();
    let wanted = match (memory, at) {
        (Some(mib), _) => u64::from(mib) * MIB,
        (None, Some(at)) => u64::from(vm_config(client, at).await?.memory_mib()) * MIB,
        (None, None) => 0,
    };
    let reserved: u64 = before.iter().map(|each| each.memory).sum();
    if before.is_empty() || free.saturating_sub(reserved) >= wanted {
        return Ok(None);
    }
    let names: Vec<String> = before.iter().map(|each| format!("VM {}", each.vm.id)).collect();
    Ok(Some(format!(
        "{node} has {} MiB free, {} MiB of it for {} about to start, and {} MiB are needed",
        free / MIB,
        reserved / MIB,
        names.join(", "),
        wanted / MIB
    )))
}

/// What speaks for and against a node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Load {
    node: String,
    /// Whether it has as much memory at all, free or not.
    able: bool,
    /// Free memory less what is spoken for; `None` when it is not known.
    memory: Option<u64>,
    builds: usize,
    /// The least space on one of the storages.
    space: u64,
    is_source: bool,
}

/// Chooses a node: one with memory and space enough first, of those which could ever have it, then the fewest builds, then most memory by the GiB, the
/// source's own, most space.
fn best(loads: Vec<Load>, memory: u64, space: u64) -> Option<Load> {
    loads.into_iter().max_by(|a, b| {
        let key = |load: &Load| {
            let fits = load.memory.is_none_or(|free| free >= memory);
            let free = load.memory.map(|free| free >> 30);
            let fewest = std::cmp::Reverse(load.builds);
            (load.able, fits, load.space >= space, fewest, free, load.is_source, load.space >> 30)
        };
        // Of equal ones the first by name.
        key(a).cmp(&key(b)).then_with(|| b.node.cmp(&a.node))
    })
}

/// The volumes that a profile names as media.
fn named_media(query: &FactsQuery) -> Vec<&str> {
    let image = match &query.source {
        SourceSelector::Image(image) => Some(image),
        SourceSelector::Clone(_) | SourceSelector::New => None,
    };
    let volumes = query.isos.iter().chain(image).filter_map(|medium| match &medium.location {
        Location::Volume(volume) => Some(volume.as_str()),
        Location::Url(_) | Location::File(_) => None,
    });
    volumes.collect()
}

/// Whether a node lists volumes; what the token may not see does not count against it.
async fn holds(client: &Client, node: &str, volumes: &[&str]) -> Result<bool, ApiError> {
    for volume in volumes {
        let storage = volume.split(':').next().unwrap_or_default();
        match client.volumes(node, storage, "").await {
            Ok(there) if !there.iter().any(|each| each.volid == *volume) => return Ok(false),
            Ok(_) | Err(ApiError::Denied { .. }) => {}
            // The node has no such storage, or can't use it.
            Err(ApiError::Missing { .. } | ApiError::Refused { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Chooses the node of a build among several, with the reason in words. `None` when there is nothing to choose: the
/// source's disks are on storages of its own node, or no node has the storages and the media that the profile names. May be
/// dropped.
///
/// # Errors
/// When the target can't be asked.
pub async fn place(
    client: &Client,
    nodes: &[String],
    figures: &[NodeEntry],
    source: Option<&SourceFacts>,
    query: &FactsQuery,
) -> Result<Option<(String, String)>, ApiError> {
    if nodes.len() < 2 {
        return Ok(None);
    }
    let media = &named_media(query);
    let looks = nodes.iter().map(|node| async move {
        let storages = path(&["nodes", node, "storage"]);
        let storages: Vec<StorageEntry> = client.get(&storages, &Params::new()).await?;
        let holds = holds(client, node, media).await?;
        Ok::<_, ApiError>((node.clone(), storages, free_memory(client, node).await?, holds))
    });
    // A node that does not answer is no place for a build.
    let looks: Vec<_> = join_all(looks).await.into_iter().filter_map(Result::ok).collect();
    let disks = source.map(|source| source.disks.as_slice()).unwrap_or_default();
    let home = source.map(|source| source.vm.node.as_str());
    let is_shared = |storage: &str| {
        looks
            .iter()
            .any(|(_, storages, ..)| storages.iter().any(|each| each.storage == storage && each.shared))
    };
    // Proxmox clones to another node only what both of them can reach (qemu-server API2/Qemu.pm, `clone_vm`).
    let bound = disks.iter().any(|disk| !is_shared(&disk.storage));
    let others = under_way(client, None).await?;
    let mut wanted: Vec<&str> = query.storages.iter().map(String::as_str).collect();
    wanted.extend(disks.iter().map(|disk| disk.storage.as_str()).filter(|_| query.storages.is_empty()));
    let memory = query.memory_mib.or_else(|| source.map(|source| source.memory_mib)).unwrap_or(0);
    let memory = u64::from(memory) * MIB;
    let total = |node: &str| figures.iter().find(|entry| entry.node == node).map_or(0, |entry| entry.maxmem);
    let loads: Vec<Load> = looks
        .iter()
        .filter(|(node, .., holds)| *holds && (!bound || home == Some(node.as_str())))
        .filter_map(|(node, storages, free, _)| {
            let usable = |name: &&str| {
                storages.iter().find(|each| each.storage == **name && each.active && each.enabled)
            };
            let space: Option<Vec<u64>> = wanted.iter().map(|name| Some(usable(name)?.avail)).collect();
            let here: Vec<&UnderWay> = others.iter().filter(|each| each.vm.node == *node).collect();
            let coming: Vec<u64> = query
                .placed
                .iter()
                .filter(|(at, _)| at == node)
                .map(|(_, mib)| u64::from(*mib) * MIB)
                .collect();
            let spoken_for = here.iter().filter(|each| !each.runs).map(|each| each.memory).sum::<u64>()
                + coming.iter().sum::<u64>();
            Some(Load {
                node: node.clone(),
                able: total(node) == 0 || total(node) >= memory,
                memory: free.map(|free| free.saturating_sub(spoken_for)),
                builds: here.len() + coming.len(),
                space: space?.into_iter().min().unwrap_or(0),
                is_source: home == Some(node.as_str()),
            })
        })
        .collect();
    let size = disks.iter().map(|disk| disk.size).sum();
    let of = loads.len();
    let Some(load) = best(loads, memory, size) else { return Ok(None) };
    let known = match load.memory {
        Some(free) => format!("{} MiB free", free / MIB),
        None => "memory not looked at (the token lacks Sys.Audit there)".to_owned(),
    };
    let why = if bound {
        format!("node {}: the source's disks are on a storage of that node alone", load.node)
    } else {
        format!(
            "node {} of {of}: {} builds, {known}, {} GiB of space",
            load.node,
            load.builds,
            load.space >> 30
        )
    };
    Ok(Some((load.node, why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(node: &str, memory: Option<u64>, builds: usize, space: u64) -> Load {
        Load { node: node.into(), able: true, memory, builds, space, is_source: node == "n2" }
    }

    #[test]
    fn a_build_vm_counts_from_its_first_moment_with_the_memory_that_its_build_will_give_it() {
        let mark = Ownership {
            nonce: forge_machine::Nonce::from_bytes([7; 8]),
            chain_id: forge_machine::ChainId::new("CHAIN-20261121T040506Z-debian-12"),
            owner: "ops@ci".into(),
            started: Timestamp::UNIX_EPOCH,
            heartbeat: Timestamp::UNIX_EPOCH,
            state: BuildState::Building,
            memory_mib: Some(4096),
        };
        let counts = |mark: &Ownership, name: &str, tags: &str, template: &str| {
            let config = VmConfig::from_iter([
                ("name", name.to_owned()),
                ("tags", tags.to_owned()),
                ("memory", "512".to_owned()),
                ("template", template.to_owned()),
                ("description", mark.to_description()),
            ]);
            memory_of(&config, Timestamp::UNIX_EPOCH).map(|bytes| bytes / MIB)
        };
        let own = mark.nonce.vm_name();
        assert_eq!(counts(&mark, &own, "boot", "0"), Some(4096), "a clone with its source's tags and memory");
        assert_eq!(counts(&mark, &own, TAG_BUILD, "0"), Some(4096));
        let inherits = Ownership { memory_mib: None, ..mark.clone() };
        assert_eq!(counts(&inherits, &own, "", "0"), Some(512), "the source's stays");
        assert_eq!(counts(&mark, "somebodys-clone", "boot", "0"), None, "its notes came along");
        assert_eq!(counts(&mark, &own, TAG_BUILD, "1"), None, "a template");
        let kept = Ownership { state: BuildState::Kept, ..mark.clone() };
        assert_eq!(counts(&kept, &own, "forge-kept", "0"), None);
        let dead = Ownership { heartbeat: Timestamp::UNIX_EPOCH - ALIVE - ALIVE, ..mark };
        assert_eq!(counts(&dead, &own, TAG_BUILD, "0"), None, "nobody renews its mark");
    }

    #[test]
    fn a_build_goes_where_it_fits_then_where_the_fewest_builds_are() {
        let chosen = |loads: Vec<Load>| best(loads, 4, 10).map(|load| load.node).unwrap_or_default();
        assert_eq!(chosen(vec![load("n1", Some(3), 0, 99), load("n2", Some(4), 9, 99)]), "n2", "memory");
        let small = Load { able: false, ..load("n1", Some(9), 0, 99) };
        assert_eq!(chosen(vec![small, load("n2", Some(3), 9, 99)]), "n2", "it will never have as much");
        assert_eq!(chosen(vec![load("n1", Some(9), 0, 9), load("n2", Some(9), 3, 10)]), "n2", "space");
        assert_eq!(chosen(vec![load("n1", Some(9), 1, 99), load("n2", Some(8), 0, 99)]), "n2", "builds");
        assert_eq!(
            chosen(vec![load("n1", Some(8 << 30), 0, 99), load("n3", Some(9 << 30), 0, 99)]),
            "n3",
            "most memory"
        );
        assert_eq!(chosen(vec![load("n1", None, 0, 99), load("n2", None, 0, 99)]), "n2", "the source's");
        assert_eq!(chosen(vec![load("n3", None, 0, 99), load("n1", None, 0, 99)]), "n1", "the first by name");
        assert_eq!(chosen(Vec::new()), "");
    }
}
