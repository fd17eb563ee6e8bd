//! Finding out about a target: nodes, the source, storages, bridges, privileges. Reads only.
//!
//! `cluster/resources` is up to 10 s old and leaves out the names of new VMs (observed on PVE 9.2), so it only tells
//! where to look: a VM counts once its own configuration says what was asked for.

use forge_machine::{Facts, FactsQuery, Finding, Location, SourceFacts, SourceSelector, StorageFacts, VmRef};

use crate::api::client::Client;
use crate::api::encode::{Params, path};
use crate::api::error::ApiError;
use crate::api::types::{
    CpuEntry, NetworkEntry, NodeEntry, PermissionMap, ResourceEntry, StorageEntry, Version,
};
use crate::capacity::Room;
use crate::config::ProxmoxConfig;
use crate::ids;
use crate::media;
use crate::permissions::Grants;
use crate::placement;
use crate::pool;
use crate::sdn::{Zones, zones};
use crate::source::find_source;
use crate::tags::{self, TagPolicy};
use crate::vmconfig::VmConfig;

/// What one look at the target brought.
#[derive(Debug)]
pub struct Found {
    /// For planning.
    pub facts: Facts,
    /// What is wrong already.
    pub findings: Vec<Finding>,
    /// What the token may do, for checking specs later.
    pub grants: Grants,
    /// The CPU types that the node offers; empty when it does not say.
    pub cpus: Vec<String>,
    /// What nodes and storages have room for, likewise.
    pub room: Room,
}

/// Looks at the target. May be dropped.
///
/// # Errors
/// When the target can't be reached, trusted or logged into.
pub async fn discover(
    client: &Client,
    config: &ProxmoxConfig,
    query: &FactsQuery,
) -> Result<Found, ApiError> {
    // Alone, so that a refused token costs one delay of 3 s and shows one error.
    let version: Version = client.get("/version", &Params::new()).await?;
    let none = Params::new();
    let of_vms = Params::new().with("type", "vm");
    let (all_nodes, resources, permissions, options) = tokio::try_join!(
        client.get::<Vec<NodeEntry>>("/nodes", &none),
        client.get::<Vec<ResourceEntry>>("/cluster/resources", &of_vms),
        client.get::<PermissionMap>("/access/permissions", &none),
        tags::options(client),
    )?;
    let mut findings = Vec::new();
    let nodes = usable_nodes(&all_nodes, config, query, &mut findings);
    if let Some(vmid) = query.vmid {
        findings.extend(ids::taken(client, vmid, &resources).await?);
    }
    let mut source = match &query.source {
        SourceSelector::Clone(selector) => find_source(client, selector, &resources, &mut findings).await?,
        SourceSelector::Image(image) => Some(nothing(&image.to_string(), &image.file_name())),
        SourceSelector::New => Some(nothing("", "a new VM")),
    };
    let placed = match query.node {
        None => placement::place(client, &nodes, &all_nodes, source.as_ref(), query).await?,
        Some(_) => None,
    };
    let node = query
        .node
        .clone()
        .filter(|node| all_nodes.iter().any(|entry| entry.node == *node))
        .or_else(|| placed.as_ref().map(|(node, _)| node.clone()))
        .or_else(|| source.as_ref().map(|source| source.vm.node.clone()).filter(|node| !node.is_empty()))
        .or_else(|| nodes.first().cloned());
    // What is made anew is made there.
    if let (Some(source), Some(node)) = (&mut source, &node)
        && source.vm.node.is_empty()
    {
        source.vm.node.clone_from(node);
    }
    let (entries, bridges, cpus) = match &node {
        Some(node) => tokio::try_join!(entries(client, node), bridges(client, node), cpus(client, node))?,
        None => (Vec::new(), None, Vec::new()),
    };
    let storages = storage_facts(&entries);
    let mut grants = Grants {
        token_id: client.login_id().to_owned(),
        role: client.role().to_owned(),
        major: version.major(),
        map: permissions,
        pool: query.pool.clone(),
        zones: Zones::new(),
    };
    if placed.is_some() {
        findings.extend(grants.for_placement(&nodes));
    }
    if let Some(pool) = &query.pool {
        findings.extend(pool::missing(client, pool, &grants).await?);
    }
    let wanted = Wanted::new(config, query, source.as_ref());
    // Where nothing lacks, nobody has to be told a path.
    if grants.major >= 8 && wanted.bridges.iter().any(|bridge| !grants.may_use_bridge(bridge)) {
        grants.zones = zones(client).await;
    }
    let place = node.as_deref().unwrap_or("the target");
    for storage in query.storages.iter().filter(|name| !storages.iter().any(|known| known.name == **name)) {
        let may_see = grants.on(&format!("/storage/{storage}"), "Datastore.AllocateSpace")
            || grants.on(&format!("/storage/{storage}"), "Datastore.Audit");
        let is_for_disks = wanted.storages.contains(storage);
        // A storage the token may not see is told as a missing privilege.
        if may_see || !is_for_disks {
            let known: Vec<&str> = storages.iter().map(|storage| storage.name.as_str()).collect();
            let message = format!("there is no storage `{storage}` on {place}");
            let help = did_you_mean(storage, &known, "storages");
            findings.push(Finding { setting: "storage".into(), message, help, fatal: is_for_disks });
        }
    }
    if let Some(known) = &bridges {
        for bridge in query.bridges.iter().filter(|bridge| !known.contains(bridge)) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let message = format!("there is no bridge `{bridge}` on {place}");
            findings.push(Finding::fatal("bridge", message, did_you_mean(bridge, &known, "bridges")));
        }
    }
    if let Some(node) = &node {
        findings.extend(media_findings(client, node, query, &storages).await?);
    }
    let cloned = matches!(query.source, SourceSelector::Clone(_));
    let source_id = source.as_ref().filter(|_| cloned).map(|source| source.vm.id.as_str());
    findings.extend(grants.for_build(source_id, &wanted.storages, &wanted.bridges, query.needs_console));
    if !cloned {
        findings.extend(grants.for_new_vm());
    }
    if query.needs_agent {
        findings.extend(grants.for_agent());
    }
    let borne = resources.iter().flat_map(ResourceEntry::tags).map(str::to_lowercase).collect();
    let policy = TagPolicy::read(&options, grants.on("/", "Sys.Audit"));
    let inherited = resources
        .iter()
        .filter(|entry| source_id.is_some_and(|id| entry.vmid.to_string() == id))
        .flat_map(ResourceEntry::tags)
        .map(str::to_lowercase)
        .collect();
    findings.extend(policy.findings(&query.tags, &inherited, &borne, &grants));
    let way = node.as_deref().and_then(|node| media::way_in_words(&grants, node, query));
    let facts = Facts {
        product: format!("Proxmox VE {}", version.version),
        notes: placed.iter().map(|(_, why)| why.clone()).chain(way).collect(),
        nodes,
        placed: placed.map(|(node, _)| node),
        source,
        bridges,
        no_seed_disc: crate::seeddisc::why_not(&grants, config.iso_storage.as_deref(), &storages),
        storages,
        endpoint: Some(client.endpoint()),
    };
    let allowed = |entry: &NodeEntry| facts.nodes.contains(&entry.node);
    let room = Room { nodes: all_nodes.into_iter().filter(allowed).collect(), storages: entries };
    Ok(Found { facts, findings, grants, cpus, room })
}

/// The CPU types of a node; none when it can't tell.
async fn cpus(client: &Client, node: &str) -> Result<Vec<String>, ApiError> {
    let path = path(&["nodes", node, "capabilities", "qemu", "cpu"]);
    match client.get::<Vec<CpuEntry>>(&path, &Params::new()).await {
        Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
        Err(error) => {
            tracing::debug!(%error, "the node does not tell its CPU types");
            Ok(Vec::new())
        }
    }
}

/// What a VM that is no clone starts from: no disks yet, no adapters, and Proxmox's defaults (pve-docs, qm.conf).
fn nothing(id: &str, name: &str) -> SourceFacts {
    SourceFacts {
        vm: VmRef::new(id, ""),
        name: name.to_owned(),
        template: false,
        running: false,
        disks: Vec::new(),
        cloud_init: None,
        agent: true,
        networks: Vec::new(),
        memory_mib: 512,
        cores: 1,
    }
}

/// What is wrong with the media of a build: each is to be on the storage that it names, on this machine, or has to find
/// a storage that takes it.
async fn media_findings(
    client: &Client,
    node: &str,
    query: &FactsQuery,
    storages: &[StorageFacts],
) -> Result<Vec<Finding>, ApiError> {
    let image = match &query.source {
        SourceSelector::Image(image) => Some(("source.image".to_owned(), image, "import")),
        SourceSelector::Clone(_) | SourceSelector::New => None,
    };
    let isos = query.isos.iter().enumerate().map(|(number, iso)| match number {
        0 => ("source.iso".to_owned(), iso, "iso"),
        more => (format!("source.additional-isos[{}]", more - 1), iso, "iso"),
    });
    let mut findings = Vec::new();
    for (setting, medium, content) in image.into_iter().chain(isos) {
        let takes = |content: &str| {
            let takes =
                storages.iter().filter(|each| each.active && each.content.iter().any(|c| c == content));
            takes.map(|each| each.name.as_str()).collect::<Vec<_>>()
        };
        match &medium.location {
            Location::Volume(volume) => {
                let storage = volume.split(':').next().unwrap_or_default();
                let known: Vec<&str> = storages.iter().map(|each| each.name.as_str()).collect();
                if !known.contains(&storage) {
                    let message = format!("there is no storage `{storage}` on {node}");
                    findings.push(Finding::fatal(
                        setting,
                        message,
                        did_you_mean(storage, &known, "storages"),
                    ));
                    continue;
                }
                let there: Vec<String> = match client.volumes(node, storage, "").await {
                    Ok(there) => there.into_iter().map(|each| each.volid).collect(),
                    Err(ApiError::Denied { .. }) => continue,
                    Err(error) => return Err(error),
                };
                if !there.contains(volume) {
                    let alike: Vec<&str> = there
                        .iter()
                        .map(String::as_str)
                        .filter(|each| each.contains(&format!(":{content}/")))
                        .collect();
                    let message = format!("`{volume}` is not on the storage");
                    findings.push(Finding::fatal(setting, message, did_you_mean(volume, &alike, "there")));
                }
            }
            // Root has a file imported by its path: see `media`.
            Location::File(_) | Location::Url(_)
                if takes(content).is_empty()
                    && !(content == "import"
                        && client.login_id() == media::ROOT
                        && !takes("iso").is_empty()) =>
            {
                let help = if content == "import" {
                    "since Proxmox VE 8.4, as root on a node: pvesm set STORAGE --content …, with this type added; \
                     before that, name a disk that is there (image = \"local-lvm:vm-9000-disk-0\"), or log in with \
                     `user = \"root@pam\"`, who may have any file imported"
                } else {
                    "as root on a node: pvesm set STORAGE --content …, with this type added"
                };
                let message = format!(
                    "no active storage on {node} has the content type `{content}`, to put {medium} there"
                );
                findings.push(Finding::fatal(setting, message, help));
            }
            Location::File(path) if !path.is_file() => {
                let help = "a volume of the target is written `local:iso/name.iso`";
                findings.push(Finding::fatal(setting, format!("there is no file {}", path.display()), help));
            }
            Location::File(_) | Location::Url(_) => {}
        }
    }
    Ok(findings)
}

/// What a clone build puts where.
struct Wanted {
    storages: Vec<String>,
    bridges: Vec<String>,
}

impl Wanted {
    fn new(config: &ProxmoxConfig, query: &FactsQuery, source: Option<&SourceFacts>) -> Self {
        let for_media = config.iso_storage.as_ref().filter(|iso| config.disk_storage.as_ref() != Some(*iso));
        let mut storages: Vec<String> =
            query.storages.iter().filter(|name| Some(*name) != for_media).cloned().collect();
        let mut bridges = query.bridges.clone();
        if let Some(source) = source {
            if storages.is_empty() {
                storages.extend(
                    source.disks.iter().map(|disk| disk.storage.clone()).filter(|name| !name.is_empty()),
                );
            }
            // The clone is connected as its source is, before anything else can be set.
            bridges.extend(source.networks.iter().filter_map(|(_, nic)| bridge_of(nic)));
        }
        for list in [&mut storages, &mut bridges] {
            list.sort();
            list.dedup();
        }
        Self { storages, bridges }
    }
}

/// The bridge in `virtio,bridge=vmbr0`.
#[must_use]
pub fn bridge_of(nic: &str) -> Option<String> {
    nic.split(',').find_map(|part| part.strip_prefix("bridge=")).map(str::to_owned)
}

fn usable_nodes(
    all: &[NodeEntry],
    config: &ProxmoxConfig,
    query: &FactsQuery,
    findings: &mut Vec<Finding>,
) -> Vec<String> {
    let names: Vec<&str> = all.iter().map(|entry| entry.node.as_str()).collect();
    let asked = config.nodes.iter().map(|node| ("target.nodes", node));
    let asked = asked.chain(query.node.iter().map(|node| ("node", node)));
    for (setting, node) in asked {
        if !names.contains(&node.as_str()) {
            let help = did_you_mean(node, &names, "nodes");
            findings.push(Finding::fatal(setting, format!("there is no node `{node}`"), help));
        }
    }
    let is_allowed = |name: &String| config.nodes.is_empty() || config.nodes.contains(name);
    // `unknown` is what a node is until its status daemon has spoken; only `offline` is certain.
    let online = all.iter().filter(|entry| entry.status != "offline").map(|entry| entry.node.clone());
    let mut nodes: Vec<String> = online.filter(is_allowed).collect();
    nodes.sort();
    if nodes.is_empty() && !all.is_empty() && findings.is_empty() {
        let offline = names.join(", ");
        findings.push(Finding::fatal(
            "target.nodes",
            "no node is online",
            format!("the nodes are: {offline}"),
        ));
    }
    nodes
}

/// Reads a VM's configuration.
///
/// # Errors
/// See [`ApiError`].
pub async fn vm_config(client: &Client, at: &VmRef) -> Result<VmConfig, ApiError> {
    client.get(&path(&["nodes", &at.node, "qemu", &at.id, "config"]), &Params::new()).await
}

pub(crate) async fn storages(client: &Client, node: &str) -> Result<Vec<StorageFacts>, ApiError> {
    Ok(storage_facts(&entries(client, node).await?))
}

async fn entries(client: &Client, node: &str) -> Result<Vec<StorageEntry>, ApiError> {
    client.get(&path(&["nodes", node, "storage"]), &Params::new()).await
}

fn storage_facts(entries: &[StorageEntry]) -> Vec<StorageFacts> {
    let mut found: Vec<StorageFacts> = entries
        .iter()
        .map(|entry| StorageFacts {
            content: entry
                .content
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect(),
            available: entry.avail,
            active: entry.active && entry.enabled,
            name: entry.storage.clone(),
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The bridges of a node; `None` when the token may not list them: the answer is empty then, not an error.
pub(crate) async fn bridges(client: &Client, node: &str) -> Result<Option<Vec<String>>, ApiError> {
    let query = Params::new().with("type", "any_bridge");
    let answer: Result<Vec<NetworkEntry>, ApiError> =
        client.get(&path(&["nodes", node, "network"]), &query).await;
    match answer {
        Ok(entries) if entries.is_empty() => Ok(None),
        Ok(entries) => {
            let mut names: Vec<String> = entries.into_iter().map(|entry| entry.iface).collect();
            names.sort();
            Ok(Some(names))
        }
        Err(ApiError::Denied { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A proposal, or the list of what exists.
#[must_use]
pub fn suggest(given: &str, known: &[&str], what: &str) -> String {
    let near = known.iter().map(|name| (strsim::jaro_winkler(given, name), *name));
    let best = near.filter(|(near, _)| *near > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or_else(|| did_you_mean(given, known, what), |(_, name)| format!("did you mean `{name}`?"))
}

/// The name that was probably meant, and all that there are.
#[must_use]
pub fn did_you_mean(given: &str, known: &[&str], what: &str) -> String {
    let mut listed: Vec<&str> = known.to_vec();
    listed.sort_unstable();
    listed.dedup();
    let near =
        listed.iter().map(|name| (strsim::jaro_winkler(given, name), *name)).filter(|(near, _)| *near > 0.8);
    let best = near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name);
    let there_are = if listed.is_empty() {
        format!("the token sees no {what} at all")
    } else {
        format!("there are these {what}: {}", listed.join(", "))
    };
    match best {
        Some(name) => format!("did you mean `{name}`? {there_are}"),
        None => there_are,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_name_the_nearest_and_list_the_rest() {
        assert_eq!(
            did_you_mean("local-lmv", &["local", "local-lvm", "ceph"], "storages"),
            "did you mean `local-lvm`? there are these storages: ceph, local, local-lvm"
        );
        assert_eq!(did_you_mean("x", &["local"], "storages"), "there are these storages: local");
        assert_eq!(did_you_mean("x", &[], "storages"), "the token sees no storages at all");
    }
}
