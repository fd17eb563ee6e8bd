//! How a lab is set up.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::state::StorageConfig;
use crate::vm::SshForward;

/// The settings of a lab; `LabConfig { run_guests: false, ..LabConfig::default() }`.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names of the cluster's nodes; the first is the one that is contacted.
    pub nodes: Vec<String>,
    /// Storages of every node.
    pub storages: Vec<StorageConfig>,
    /// Bridges of every node.
    pub bridges: Vec<String>,
    /// Whether a started VM is a QEMU process. Without, it runs in name only, its disks are empty files, and
    /// power actions succeed at once.
    pub run_guests: bool,
    /// Value of QEMU's `-accel`.
    pub accel: String,
    /// Value of QEMU's `-cpu`.
    pub cpu: String,
    /// Limits full clones to that many bytes a second.
    pub clone_rate: Option<u64>,
    /// How guests' port 22 is reached.
    pub ssh: SshForward,
    /// Where disks and sockets are; a temporary folder when `None`.
    pub state_dir: Option<PathBuf>,
    /// How late a 401 comes.
    pub auth_delay: Duration,
    /// How long the guest agent is pinged.
    pub agent_ping: Duration,
    /// How long a busy configuration lock is waited for.
    pub lock_timeout: Duration,
}

impl Default for LabConfig {
    fn default() -> Self {
        LabConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            nodes: vec!["pve".to_owned()],
            storages: vec![StorageConfig::everything("local")],
            bridges: vec!["vmbr0".to_owned()],
            run_guests: true,
            accel: "tcg,thread=multi".to_owned(),
            cpu: "max".to_owned(),
            clone_rate: None,
            ssh: SshForward::Auto,
            state_dir: None,
            auth_delay: Duration::from_secs(3),
            agent_ping: Duration::from_secs(3),
            lock_timeout: Duration::from_secs(10),
        }
    }
}
