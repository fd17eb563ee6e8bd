//! Answers of the API, read leniently: Proxmox sends numbers as text, booleans as 0/1 or true/false, and leaves out
//! what it does not know, in an order that changes from call to call.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// `GET /version`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// `9.2.11`.
    pub version: String,
}

impl Version {
    /// The major release (7, 8, 9); 0 when it can't be read.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// An entry of `GET /nodes`.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeEntry {
    /// The node's name.
    pub node: String,
    /// `online`, `offline`, or `unknown` while the status daemon has said nothing yet.
    #[serde(default)]
    pub status: String,
    /// How many CPUs it has; 0 for a login that may not see it.
    #[serde(default, deserialize_with = "number")]
    pub maxcpu: u64,
    /// How much memory it has in bytes; 0 for a login that may not see it.
    #[serde(default, deserialize_with = "number")]
    pub maxmem: u64,
}

/// `GET /access/users/{user}/token/{token}`.
#[derive(Clone, Debug, Deserialize)]
pub struct TokenEntry {
    /// When it ends, in seconds since 1970; 0 is never.
    #[serde(default, deserialize_with = "number")]
    pub expire: u64,
}

/// A VM or container in `GET /cluster/resources?type=vm`: up to 10 s old, and without a name when it is new.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ResourceEntry {
    /// `qemu` or `lxc`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The VMID.
    #[serde(default, deserialize_with = "number")]
    pub vmid: u64,
    /// The node that holds it.
    #[serde(default)]
    pub node: String,
    /// The name, when the status daemon has read it already.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether it is a template.
    #[serde(default, deserialize_with = "boolean")]
    pub template: bool,
    /// Tags, separated by `;`.
    #[serde(default)]
    pub tags: Option<String>,
}

impl ResourceEntry {
    /// The tags.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        split_tags(self.tags.as_deref().unwrap_or_default())
    }
}

/// Splits a tag list as Proxmox returns it.
pub fn split_tags(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', ',', ' ']).filter(|tag| !tag.is_empty())
}

/// An entry of `GET /nodes/{node}/storage`.
#[derive(Clone, Debug, Deserialize)]
pub struct StorageEntry {
    /// The storage's name.
    pub storage: String,
    /// Its type (`dir`, `lvmthin`, …).
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Content types, an unordered comma list.
    #[serde(default)]
    pub content: String,
    /// Free bytes.
    #[serde(default, deserialize_with = "number")]
    pub avail: u64,
    /// All of its bytes; 0 when it does not say.
    #[serde(default, deserialize_with = "number")]
    pub total: u64,
    /// Whether it is usable at the moment.
    #[serde(default, deserialize_with = "boolean")]
    pub active: bool,
    /// Whether it is switched on.
    #[serde(default = "yes", deserialize_with = "boolean")]
    pub enabled: bool,
    /// Whether all nodes that have it reach the same volumes.
    #[serde(default, deserialize_with = "boolean")]
    pub shared: bool,
}

/// `GET /nodes/{node}/status`: live, unlike the figures in lists.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeStatus {
    /// The node's memory.
    pub memory: MemoryFigures,
}

/// Memory in bytes.
#[derive(Clone, Debug, Deserialize)]
pub struct MemoryFigures {
    /// Not used for anything.
    #[serde(default, deserialize_with = "number")]
    pub free: u64,
    /// What could be used, caches included; since PVE 9.
    #[serde(default)]
    pub available: Option<u64>,
}

/// An entry of `GET /nodes/{node}/capabilities/qemu/cpu`.
#[derive(Clone, Debug, Deserialize)]
pub struct CpuEntry {
    /// The type's name (`host`, `x86-64-v2-AES`, …).
    pub name: String,
}

/// An entry of `GET /nodes/{node}/network`.
#[derive(Clone, Debug, Deserialize)]
pub struct NetworkEntry {
    /// The interface's name.
    pub iface: String,
}

/// An entry of `GET /cluster/sdn/vnets`.
#[derive(Clone, Debug, Deserialize)]
pub struct VnetEntry {
    /// The virtual network's name.
    pub vnet: String,
    /// Its zone.
    #[serde(default)]
    pub zone: String,
}

/// `GET /nodes/{node}/qemu/{vmid}/status/current`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct StatusCurrent {
    /// `running` or `stopped`.
    #[serde(default)]
    pub status: String,
    /// QEMU's own word (`running`, `paused`, `prelaunch`, …).
    #[serde(default)]
    pub qmpstatus: Option<String>,
    /// The config lock.
    #[serde(default)]
    pub lock: Option<String>,
    /// Whether it is a template.
    #[serde(default, deserialize_with = "boolean")]
    pub template: bool,
}

/// `POST /nodes/{node}/qemu/{vmid}/vncproxy`.
#[derive(Clone, Deserialize)]
pub struct VncProxy {
    /// The port on the node, sent as text.
    #[serde(deserialize_with = "number")]
    pub port: u64,
    /// What the websocket is opened with; older servers use its beginning as VNC password.
    pub ticket: String,
    /// The VNC password, from servers that make one.
    #[serde(default)]
    pub password: Option<String>,
    /// The task that waits 10 s for one connection.
    #[serde(default)]
    pub upid: Option<String>,
}

/// `POST /nodes/{node}/qemu/{vmid}/termproxy`.
#[derive(Clone, Deserialize)]
pub struct TermProxy {
    /// The port on the node, sent as text.
    #[serde(deserialize_with = "number")]
    pub port: u64,
    /// Who the ticket was made for.
    pub user: String,
    /// What the websocket is opened with, and what is said first on it.
    pub ticket: String,
}

/// The agent's answers come wrapped once more.
#[derive(Clone, Debug, Deserialize)]
pub struct AgentResult<T> {
    /// The answer.
    pub result: T,
}

/// `GET /access/permissions`: by path, each privilege with whether it is inherited by the paths below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermissionMap(pub BTreeMap<String, BTreeMap<String, bool>>);

impl<'de> Deserialize<'de> for PermissionMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::deserialize(deserializer)?;
        let read = raw
            .into_iter()
            .map(|(path, privileges)| {
                (path, privileges.into_iter().map(|(name, value)| (name, truthy(&value))).collect())
            })
            .collect();
        Ok(Self(read))
    }
}

/// Reads a number that may be text.
pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let read = match &value {
        Value::Null => Some(0),
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| serde::de::Error::custom(format!("expected a number, got {value}")))
}

/// Sizes come as floating-point numbers from some storage plugins.
fn whole(number: f64) -> Option<u64> {
    format!("{:.0}", number.max(0.0)).parse().ok()
}

/// Reads a boolean that may be a number or text.
pub(crate) fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(truthy(&Value::deserialize(deserializer)?))
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => matches!(text.as_str(), "1" | "yes" | "true" | "on"),
        _ => false,
    }
}

pub(crate) fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_booleans_are_read_in_every_form_proxmox_sends() {
        for text in [r#"{"vmid":100}"#, r#"{"vmid":"100"}"#, r#"{"vmid":100.0}"#] {
            let entry: ResourceEntry = serde_json::from_str(text).expect(text);
            assert_eq!(entry.vmid, 100, "{text}");
        }
        for (text, expected) in [
            (r#"{"template":1}"#, true),
            (r#"{"template":true}"#, true),
            (r#"{"template":"1"}"#, true),
            (r#"{"template":0}"#, false),
            (r#"{"template":""}"#, false),
            (r"{}", false),
        ] {
            let entry: ResourceEntry = serde_json::from_str(text).expect(text);
            assert_eq!(entry.template, expected, "{text}");
        }
    }

    #[test]
    fn a_version_tells_its_major_release() {
        for (text, major) in [("9.2.11", 9), ("8.4-1", 8), ("7.4-17", 7), ("", 0)] {
            assert_eq!(Version { version: text.into() }.major(), major, "{text}");
        }
    }
}
