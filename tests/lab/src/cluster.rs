//! Everything the handlers share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use crate::api::Consoles;
use crate::auth::Auth;
use crate::clock::LabClock;
use crate::config::LabConfig;
use crate::error::{ApiError, ApiResult};
use crate::faults::Faults;
use crate::schema::Schema;
use crate::state::{Power, State, Storages, Vm};
use crate::tasks::Tasks;
use crate::tls::Identity;
use crate::vm::{Disks, GuestNetwork, RunningVm};

/// One call as the lab's log has it.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// When it came, since the lab's start.
    pub at: Duration,
    /// Method.
    pub method: String,
    /// Path below `/api2/json`, percent-decoded.
    pub path: String,
    /// Query string as it came.
    pub query: String,
    /// Status of the answer; `None` while there is none, and when the connection was cut.
    pub status: Option<u16>,
    /// The text of an error, with the parameters it names.
    pub error: Option<String>,
    /// How long it took, in lab time; `None` while it is worked on.
    pub took: Option<Duration>,
    /// User or token, when the call was authenticated.
    pub caller: Option<String>,
    /// The route in the schema's form, once it is known: `/nodes/{node}/qemu`.
    pub route: Option<String>,
    /// `User-Agent` of the client.
    pub agent: String,
}

/// A running lab's inside.
#[derive(Debug)]
pub struct Cluster {
    /// How it was set up.
    pub config: LabConfig,
    /// The VMs.
    pub state: Mutex<State>,
    /// Background work.
    pub tasks: Tasks,
    /// Scripted faults.
    pub faults: Faults,
    /// Users and tokens.
    pub auth: Mutex<Auth>,
    /// Log of calls.
    pub requests: Mutex<Vec<RequestRecord>>,
    /// Certificates.
    pub identity: Identity,
    /// Storages.
    pub storages: Storages,
    /// How images are made.
    pub disks: Disks,
    /// Guests' addresses.
    pub network: GuestNetwork,
    /// Folder with one folder of sockets per VM.
    pub run_dir: PathBuf,
    /// VNC proxies that wait for their client.
    pub consoles: Consoles,
    /// The lab's time.
    pub clock: Arc<LabClock>,
    /// Nodes that are down.
    pub offline: Mutex<BTreeSet<String>>,
    /// Free memory of nodes, in bytes, where it is not that of a machine that does little.
    pub free_memory: Mutex<BTreeMap<String, u64>>,
    /// What `PUT /cluster/options` has set.
    pub options: Mutex<serde_json::Map<String, serde_json::Value>>,
}

impl Cluster {
    /// The VMs. Never held across an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Users and tokens. Never held across an await.
    pub fn auth(&self) -> MutexGuard<'_, Auth> {
        self.auth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The API's schema in the release that the lab answers as.
    pub fn schema(&self) -> &'static Schema {
        crate::schema::schema_of(self.config.version)
    }

    /// Whether a node is up.
    pub fn is_online(&self, node: &str) -> bool {
        !self.offline.lock().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// The memory that a node has, and how much of it is free, in bytes.
    pub fn memory(&self, node: &str) -> (u64, u64) {
        let total = 16 << 30;
        let set = self.free_memory.lock().unwrap_or_else(PoisonError::into_inner).get(node).copied();
        (total, set.unwrap_or(14 << 30).min(total))
    }

    /// A copy of a VM.
    ///
    /// # Errors
    /// The 500 of a missing configuration file.
    pub fn vm(&self, node: &str, vmid: u32) -> ApiResult<Vm> {
        self.state().vm(node, vmid).cloned()
    }

    /// The process of a VM that runs, `None` for one that runs in name only.
    ///
    /// # Errors
    /// As [`Cluster::vm`].
    pub fn process(&self, node: &str, vmid: u32) -> ApiResult<Option<Arc<RunningVm>>> {
        Ok(match &self.state().vm(node, vmid)?.power {
            Power::On(process) => Some(Arc::clone(process)),
            Power::Off | Power::Flag { .. } => None,
        })
    }

    /// Takes the lock file of a VM's configuration, waiting as long as Proxmox does.
    ///
    /// # Errors
    /// 500 `can't lock file '…' - got timeout`.
    pub async fn lock_config(&self, vmid: u32) -> ApiResult<OwnedMutexGuard<()>> {
        let lock = self.state().locks(vmid).config;
        self.clock
            .timeout(self.config.lock_timeout, lock.lock_owned())
            .await
            .ok_or_else(|| lock_timeout(vmid))
    }

    /// Takes the lock file of a new VM, which nobody can hold yet.
    pub fn try_lock_config(&self, vmid: u32) -> Option<OwnedMutexGuard<()>> {
        self.state().locks(vmid).config.try_lock_owned().ok()
    }

    /// Shares a VM's disks with other clones.
    ///
    /// # Errors
    /// As [`Cluster::lock_config`].
    pub async fn share_volumes(&self, vmid: u32) -> ApiResult<OwnedRwLockReadGuard<()>> {
        let lock = self.state().locks(vmid).volumes;
        self.clock
            .timeout(self.config.lock_timeout, lock.read_owned())
            .await
            .ok_or_else(|| lock_timeout(vmid))
    }

    /// Takes a VM's disks for oneself.
    ///
    /// # Errors
    /// As [`Cluster::lock_config`].
    pub async fn own_volumes(&self, vmid: u32) -> ApiResult<OwnedRwLockWriteGuard<()>> {
        let lock = self.state().locks(vmid).volumes;
        self.clock
            .timeout(self.config.lock_timeout, lock.write_owned())
            .await
            .ok_or_else(|| lock_timeout(vmid))
    }

    /// Gives a VM's first adapter another address on its real bridge.
    ///
    /// # Errors
    /// The lab has no real bridges, or the VM no adapter.
    pub fn move_address(&self, vmid: u32) -> anyhow::Result<Ipv4Addr> {
        let mac = self.state().vms.get(&vmid).and_then(Vm::first_mac).context("the VM has no adapter")?;
        self.network.bridges().context("the lab has no real bridges")?.move_address(&mac)
    }

    /// Notes that a VM's process has ended: pending changes become real.
    pub fn mark_stopped(&self, vmid: u32, pid: u32) {
        let mut state = self.state();
        let Some(vm) = state.vms.get_mut(&vmid) else { return };
        let same = match &vm.power {
            Power::On(process) => process.pid == pid,
            Power::Flag { pid: shown, .. } => *shown == pid,
            Power::Off => false,
        };
        if same {
            vm.power = Power::Off;
            vm.apply_pending();
        }
    }
}

fn lock_timeout(vmid: u32) -> ApiError {
    ApiError::die(format!("can't lock file '/var/lock/qemu-server/lock-{vmid}.conf' - got timeout"))
}
