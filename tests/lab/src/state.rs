//! What a cluster remembers: VMs with their configuration and power, and the locks on them.
//!
//! Invariants: the state is behind one short lock that is never held across an await; a VM's configuration holds
//! strings as its file would; slots (the last number of a guest's address) are unique in a lab.

mod config;
mod drive;
mod storage;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Mutex, RwLock};

pub use config::{Config, config_json, digest, normalise_tags, typed};
pub use drive::{Drive, is_drive_key, parse_net, parse_size, print_net, print_size};
pub use storage::{StorageConfig, Storages, Volume};

use crate::error::{ApiError, ApiResult};
use crate::vm::{GuestNetwork, RunningVm};

/// Whether a VM runs, and how.
#[derive(Debug, Clone)]
pub enum Power {
    /// Stopped.
    Off,
    /// Running in name only: no process.
    Flag {
        /// When it was started.
        since: Instant,
        /// The process number shown.
        pid: u32,
        /// Whether it is suspended.
        paused: bool,
    },
    /// Running in a QEMU process.
    On(Arc<RunningVm>),
}

/// One VM.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Its number.
    pub vmid: u32,
    /// Node whose folder holds its configuration.
    pub node: String,
    /// The configuration that is in effect.
    pub config: Config,
    /// Changes that wait for the next start: a value, or `None` for a removal.
    pub pending: BTreeMap<String, Option<String>>,
    /// Whether it runs.
    pub power: Power,
    /// Last number of its guest's address.
    pub slot: u8,
    /// Its snapshots by name.
    pub snapshots: BTreeMap<String, Snapshot>,
}

/// A section of a VM's configuration file.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The configuration at that time, `parent` included.
    pub config: Config,
    /// Its own description.
    pub description: Option<String>,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// The volume with the memory's contents.
    pub state: Option<String>,
}

/// The locks of one VMID; they exist whether or not the VM does, as lock files do.
#[derive(Debug, Clone, Default)]
pub struct Locks {
    /// The configuration's lock file.
    pub config: Arc<Mutex<()>>,
    /// Shared by clones of the VM, exclusive for what renames or removes its disks.
    pub volumes: Arc<RwLock<()>>,
}

/// All VMs of a cluster.
#[derive(Debug, Default)]
pub struct State {
    /// The VMs by number.
    pub vms: BTreeMap<u32, Vm>,
    locks: HashMap<u32, Locks>,
}

impl State {
    /// The locks of a VMID.
    pub fn locks(&mut self, vmid: u32) -> Locks {
        self.locks.entry(vmid).or_default().clone()
    }

    /// A VM that must be on the node.
    ///
    /// # Errors
    /// The 500 of a missing configuration file.
    pub fn vm(&self, node: &str, vmid: u32) -> ApiResult<&Vm> {
        self.vms.get(&vmid).filter(|vm| vm.node == node).ok_or_else(|| ApiError::no_such_vm(node, vmid))
    }

    /// As [`State::vm`], to be changed.
    ///
    /// # Errors
    /// As [`State::vm`].
    pub fn vm_mut(&mut self, node: &str, vmid: u32) -> ApiResult<&mut Vm> {
        self.vms.get_mut(&vmid).filter(|vm| vm.node == node).ok_or_else(|| ApiError::no_such_vm(node, vmid))
    }

    /// Puts a VM in, stopped and without snapshots, in a slot of its own.
    pub fn insert(&mut self, network: &GuestNetwork, vmid: u32, node: &str, config: Config) {
        let vm = Vm {
            vmid,
            node: node.to_owned(),
            config,
            pending: BTreeMap::new(),
            power: Power::Off,
            slot: self.free_slot(network),
            snapshots: BTreeMap::new(),
        };
        self.vms.insert(vmid, vm);
    }

    /// The lowest address slot that no VM has and nothing listens at.
    fn free_slot(&self, network: &GuestNetwork) -> u8 {
        let free = |slot: &u8| self.vms.values().all(|vm| vm.slot != *slot) && network.is_free(*slot);
        (10..=250).find(free).unwrap_or(251)
    }
}

impl Vm {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        !matches!(self.power, Power::Off)
    }

    /// Whether it is a template.
    pub fn is_template(&self) -> bool {
        self.config.get("template").is_some_and(|value| value == "1")
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(String::as_str)
    }

    /// Its name as shown.
    pub fn name(&self) -> String {
        self.get("name").map_or_else(|| format!("VM{}", self.vmid), str::to_owned)
    }

    /// The hardware address of its first adapter.
    pub fn first_mac(&self) -> Option<String> {
        parse_net(self.get("net0")?).1
    }

    /// Demands that no `lock` is set.
    ///
    /// # Errors
    /// The 500 `VM is locked (…)`.
    pub fn check_lock(&self) -> ApiResult<()> {
        match self.get("lock") {
            Some(lock) => Err(ApiError::die(format!("VM is locked ({lock})"))),
            None => Ok(()),
        }
    }

    /// Demands that a digest, if one is given, is that of the configuration.
    ///
    /// # Errors
    /// The 500 `checksum mismatch …`.
    pub fn check_digest(&self, given: Option<&str>) -> ApiResult<()> {
        match given {
            Some(given) if given != digest(&self.config, &self.pending) => {
                Err(ApiError::die("checksum mismatch (file change by other user?)"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a snapshot, or another key than this one, has a volume.
    pub fn uses(&self, volume: &str, except: &str) -> bool {
        let has = |config: &Config, except: Option<&str>| {
            config.iter().any(|(key, value)| {
                Some(key.as_str()) != except
                    && (is_drive_key(key) || key.starts_with("unused"))
                    && Drive::parse(value).volume == volume
            })
        };
        has(&self.config, Some(except)) || self.snapshots.values().any(|snapshot| has(&snapshot.config, None))
    }

    /// Keeps a volume that no drive has any more: the first free `unusedN`, or `None` when one has it already or all
    /// are taken.
    pub fn add_unused(&mut self, volume: &str) -> Option<String> {
        let mut unused = self.config.iter().filter(|(key, _)| key.starts_with("unused"));
        if unused.any(|(_, value)| value == volume) {
            return None;
        }
        let name =
            (0..256).map(|number| format!("unused{number}")).find(|name| !self.config.contains_key(name))?;
        self.config.insert(name.clone(), volume.to_owned());
        Some(name)
    }

    /// The configuration with the pending changes applied.
    pub fn with_pending(&self) -> Config {
        let mut config = self.config.clone();
        for (key, value) in &self.pending {
            match value {
                Some(value) => drop(config.insert(key.clone(), value.clone())),
                None => drop(config.remove(key)),
            }
        }
        config
    }

    /// Makes pending changes real.
    pub fn apply_pending(&mut self) {
        self.config = self.with_pending();
        self.pending.clear();
    }

    /// Its drives: key and parsed value.
    pub fn drives(&self) -> impl Iterator<Item = (&str, Drive)> {
        self.config
            .iter()
            .filter(|(key, _)| is_drive_key(key))
            .map(|(key, value)| (key.as_str(), Drive::parse(value)))
    }

    /// Key and drive of its cloud-init drive.
    pub fn cloudinit_drive(&self) -> Option<(String, Drive)> {
        self.drives().find(|(_, drive)| drive.is_cloudinit()).map(|(key, drive)| (key.to_owned(), drive))
    }

    /// Whether the guest agent is switched on.
    pub fn agent_enabled(&self) -> bool {
        self.get("agent").is_some_and(|agent| {
            crate::schema::parse_property_string("agent", agent)
                .is_ok_and(|parsed| parsed.get("enabled").is_some_and(|value| value == "1"))
        })
    }
}
