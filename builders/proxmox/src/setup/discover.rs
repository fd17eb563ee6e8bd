//! What there is to build on: nodes, storages, bridges.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::standing::asked;
use super::{Ask, Door, DoorError};
use crate::api::types::{ResourceEntry, VnetEntry, boolean, number, yes};
use crate::sdn::{Zones, sdn_path};

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its address in the cluster.
    pub address: Option<String>,
    /// The SHA-256 fingerprint of the certificate that its API shows.
    pub fingerprint: Option<String>,
    /// Whether it is the one that was asked.
    pub local: bool,
    /// Whether it is up.
    pub online: bool,
}

/// A storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Its name.
    pub name: String,
    /// `dir`, `lvmthin`, `zfspool` and so on.
    pub kind: String,
    /// What it takes: `images`, `iso`, `import` and so on.
    pub content: BTreeSet<String>,
    /// Free bytes.
    pub free: u64,
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Whether it leads to a gateway.
    pub gateway: bool,
}

/// All of it, as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Land {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The node whose storages and bridges these are.
    pub node: String,
    /// The storages that can be used, by name.
    pub storages: Vec<Storage>,
    /// The bridges that are up, by name.
    pub bridges: Vec<Bridge>,
    /// The zones of the cluster's virtual networks.
    pub zones: Zones,
    /// The ids of the cluster's VMs and containers.
    pub taken: BTreeSet<u64>,
}

#[derive(Deserialize)]
struct NodeEntry {
    node: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    ssl_fingerprint: Option<String>,
}

#[derive(Deserialize)]
struct StatusEntry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    ip: Option<String>,
    #[serde(default, deserialize_with = "boolean")]
    local: bool,
}

#[derive(Deserialize)]
struct StorageEntry {
    storage: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    content: String,
    #[serde(default, deserialize_with = "number")]
    avail: u64,
    #[serde(default, deserialize_with = "boolean")]
    active: bool,
    #[serde(default = "yes", deserialize_with = "boolean")]
    enabled: bool,
}

#[derive(Deserialize)]
struct BridgeEntry {
    iface: String,
    #[serde(default, deserialize_with = "boolean")]
    active: bool,
    #[serde(default)]
    gateway: Option<String>,
}

/// Asks for nodes, and for the storages and bridges of one: the named one, else the one that answers. May be dropped.
///
/// # Errors
/// When a question has no answer.
pub async fn discover(door: &dyn Door, node: Option<&str>) -> Result<Land, DoorError> {
    let entries: Vec<NodeEntry> = asked(door, &Ask::new(&["nodes"])).await?;
    let status: Vec<StatusEntry> = asked(door, &Ask::new(&["cluster", "status"])).await?;
    let status: BTreeMap<String, StatusEntry> = status
        .into_iter()
        .filter(|entry| entry.kind == "node")
        .map(|entry| (entry.name.clone(), entry))
        .collect();
    let mut nodes: Vec<Node> = entries
        .into_iter()
        .map(|entry| Node {
            address: status.get(&entry.node).and_then(|status| status.ip.clone()),
            local: status.get(&entry.node).is_some_and(|status| status.local),
            online: entry.status != "offline",
            fingerprint: entry.ssl_fingerprint.filter(|text| !text.is_empty()),
            name: entry.node,
        })
        .collect();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    let local = nodes.iter().find(|node| node.local).or_else(|| nodes.iter().find(|node| node.online));
    let node = node.map(str::to_owned).or_else(|| local.map(|node| node.name.clone())).unwrap_or_default();
    let storages: Vec<StorageEntry> = asked(door, &Ask::new(&["nodes", &node, "storage"])).await?;
    let mut storages: Vec<Storage> = storages
        .into_iter()
        .filter(|entry| entry.active && entry.enabled)
        .map(|entry| Storage {
            content: entry.content.split(',').map(|kind| kind.trim().to_owned()).collect(),
            name: entry.storage,
            kind: entry.kind,
            free: entry.avail,
        })
        .collect();
    storages.sort_by(|one, other| one.name.cmp(&other.name));
    let bridges = Ask::new(&["nodes", &node, "network"]).with("type", "any_bridge");
    let bridges: Vec<BridgeEntry> = asked(door, &bridges).await?;
    let mut bridges: Vec<Bridge> = bridges
        .into_iter()
        .filter(|entry| entry.active)
        .map(|entry| Bridge {
            gateway: entry.gateway.is_some_and(|gateway| !gateway.is_empty()),
            name: entry.iface,
        })
        .collect();
    bridges.sort_by(|one, other| one.name.cmp(&other.name));
    let guests: Vec<ResourceEntry> =
        asked(door, &Ask::new(&["cluster", "resources"]).with("type", "vm")).await?;
    let taken = guests.iter().map(|guest| guest.vmid).collect();
    let zones = match asked::<Vec<VnetEntry>>(door, &Ask::new(&["cluster", "sdn", "vnets"])).await {
        Ok(vnets) => vnets.into_iter().map(|entry| (entry.vnet, entry.zone)).collect(),
        // A release or a cluster without SDN has no such call.
        Err(DoorError::Refused { .. }) => Zones::new(),
        Err(error) => return Err(error),
    };
    Ok(Land { nodes, node, storages, bridges, zones, taken })
}

impl Land {
    /// The storages that take something.
    pub fn that_take<'a>(&'a self, content: &'a str) -> impl Iterator<Item = &'a Storage> {
        self.storages.iter().filter(move |storage| storage.content.contains(content))
    }

    /// The storage for disks: Proxmox's own by name, else the first that is not `local`, so that the choice is the same
    /// tomorrow; free space would not be.
    #[must_use]
    pub fn for_disks(&self) -> Option<&Storage> {
        let usual = ["local-lvm", "local-zfs"];
        let named = usual.iter().find_map(|name| self.that_take("images").find(|each| each.name == *name));
        let other = || self.that_take("images").find(|each| each.name != "local");
        named.or_else(other).or_else(|| self.that_take("images").next())
    }

    /// The storage for install media.
    #[must_use]
    pub fn for_isos(&self) -> Option<&Storage> {
        let local = self.that_take("iso").find(|each| each.name == "local");
        local.or_else(|| self.that_take("iso").next())
    }

    /// The path that rights on a bridge or a virtual network are given on.
    #[must_use]
    pub fn sdn_path(&self, bridge: &str) -> String {
        sdn_path(&self.zones, bridge)
    }

    /// A range of ids for builds that nobody has taken any of: 9001 to 9099, else the next hundred, and so on.
    #[must_use]
    pub fn free_vmids(&self) -> Option<String> {
        let is_free = |first: &u64| self.taken.range(first + 1..first + 100).next().is_none();
        (9_000..99_900).step_by(100).find(is_free).map(|first| format!("{}-{}", first + 1, first + 99))
    }

    /// The bridge: the first that leads to a gateway, else `vmbr0`, else the first.
    #[must_use]
    pub fn bridge(&self) -> Option<&Bridge> {
        let gateway = self.bridges.iter().find(|bridge| bridge.gateway);
        let usual = || self.bridges.iter().find(|bridge| bridge.name == "vmbr0");
        gateway.or_else(usual).or_else(|| self.bridges.first())
    }
}
