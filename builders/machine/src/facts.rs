//! What was found out about the target before planning. Reading facts changes nothing on the target.

use serde::{Deserialize, Serialize};

use crate::ids::VmRef;
use crate::source::{Medium, SourceSelector};

/// What planning needs to know of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactsQuery {
    /// What the build starts from.
    pub source: SourceSelector,
    /// The media for its CD-ROM drives.
    pub isos: Vec<Medium>,
    /// Storages that the profile or the site file names.
    pub storages: Vec<String>,
    /// Bridges that the profile or the site file names.
    pub bridges: Vec<String>,
    /// The node asked for; `None` lets the backend choose.
    pub node: Option<String>,
    /// The id that the VM has to have; `None` takes one of the target's range.
    pub vmid: Option<u32>,
    /// The memory the VM needs, in MiB; `None` is the source's.
    pub memory_mib: Option<u32>,
    /// Builds that are planned and have not begun: node and memory in MiB.
    pub placed: Vec<(String, u32)>,
    /// The resource pool the VM goes into.
    pub pool: Option<String>,
    /// The tags that the template will bear, or may come to bear before it is published.
    pub tags: Vec<String>,
    /// Whether the boot steps need the screen and keyboard.
    pub needs_console: bool,
    /// Whether the guest is reached by its agent, which runs commands then.
    pub needs_agent: bool,
}

/// A storage of the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StorageFacts {
    /// Its name.
    pub name: String,
    /// Its content types (`images`, `iso`, …).
    pub content: Vec<String>,
    /// Free bytes.
    pub available: u64,
    /// Whether it is usable now.
    pub active: bool,
}

/// A disk of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SourceDisk {
    /// The slot (`scsi0`).
    pub slot: String,
    /// The storage that holds it; empty for a file of this machine.
    pub storage: String,
    /// The size in bytes, 0 when unknown.
    pub size: u64,
}

/// What a build would start from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SourceFacts {
    /// The VM; for an image file its path is the id, for a new VM it is empty.
    pub vm: VmRef,
    /// Its name.
    pub name: String,
    /// Whether it is a template.
    pub template: bool,
    /// Whether it runs at the moment.
    pub running: bool,
    /// Its disks.
    pub disks: Vec<SourceDisk>,
    /// The slot and storage of its cloud-init drive.
    pub cloud_init: Option<(String, String)>,
    /// Whether the guest agent's device is switched on.
    pub agent: bool,
    /// The slots of its network adapters with their models and bridges.
    pub networks: Vec<(String, String)>,
    /// Memory in MiB, 0 when unknown.
    pub memory_mib: u32,
    /// CPU cores, 0 when unknown.
    pub cores: u32,
}

/// What was found out about the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// The product and its version (`Proxmox VE 9.2.11`, `QEMU 10.0.2`).
    pub product: String,
    /// Why the backend works the way it does here (the accelerator's verdict, say), for the plan.
    pub notes: Vec<String>,
    /// The nodes that are online.
    pub nodes: Vec<String>,
    /// The node that the backend chose, when it had a choice; a note says why.
    pub placed: Option<String>,
    /// What the build starts from; `None` when it does not exist (a finding says so).
    pub source: Option<SourceFacts>,
    /// The storages that the credentials may see on the node.
    pub storages: Vec<StorageFacts>,
    /// The bridges of the node; `None` when the credentials may not list them.
    pub bridges: Option<Vec<String>>,
    /// The address by which the seed server should look for its own (host of the API URL), `host:port`.
    pub endpoint: Option<String>,
    /// Why the VM can't be given a disc with the seed, where the backend could; `None` when it can.
    pub no_seed_disc: Option<String>,
}

/// A template of the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TemplateFacts {
    /// Where it is.
    pub vm: VmRef,
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its notes, without forge's mark.
    pub notes: String,
    /// Whether somebody protected it from being removed.
    #[serde(default)]
    pub protected: bool,
}

/// Something that keeps a build from being right, found before the first effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// The dotted name of the setting it is about (`source.clone`, `vm.disks[0].size`); empty when none is.
    pub setting: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// Whether the build can't go on.
    pub fatal: bool,
}

impl Finding {
    /// A finding that stops the build.
    pub fn fatal(setting: impl Into<String>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { setting: setting.into(), message: message.into(), help: help.into(), fatal: true }
    }

    /// A finding that is only told.
    pub fn warning(setting: impl Into<String>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { setting: setting.into(), message: message.into(), help: help.into(), fatal: false }
    }
}
