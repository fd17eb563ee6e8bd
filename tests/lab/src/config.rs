//! How a lab is set up.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Clock;
use crate::state::StorageConfig;
use crate::vm::SshForward;

/// The release whose API a lab answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PveVersion {
    /// Proxmox VE 8.4: privilege `VM.Monitor`, the schema of 8.4.
    V8,
    /// Proxmox VE 9.2: privileges `VM.GuestAgent.*`, the schema of 9.2.
    #[default]
    V9,
}

/// The settings of a lab; `LabConfig { run_guests: false, ..LabConfig::default() }`.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// The release it answers as.
    pub version: PveVersion,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names of the cluster's nodes; the first is the one that is contacted.
    pub nodes: Vec<String>,
    /// Storages of every node.
    pub storages: Vec<StorageConfig>,
    /// Bridges of every node.
    pub bridges: Vec<String>,
    /// Virtual networks of every node (name and zone), beside its bridges; guests on them run in name only.
    pub vnets: Vec<(String, String)>,
    /// Bridges without DHCP, where guests are on real ones ([`SshForward::Bridge`]).
    pub silent_bridges: Vec<String>,
    /// Whether a started VM is a QEMU process. Without, it runs in name only, its disks are empty files, and
    /// power actions succeed at once.
    pub run_guests: bool,
    /// Whether the nodes have hardware virtualisation, as Proxmox sees it: without, a VM starts with `kvm: 0` only. What a
    /// guest really runs on is `accel`.
    pub kvm: bool,
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
    /// How long a ticket is good for, in lab time.
    pub ticket_life: Duration,
    /// How long the guest agent is pinged.
    pub agent_ping: Duration,
    /// How long a busy configuration lock is waited for.
    pub lock_timeout: Duration,
    /// After which time pveproxy gives up on a call that pvedaemon or another node works on.
    pub proxy_timeout: Duration,
    /// How the time goes.
    pub clock: Clock,
    /// How long a task of a lab without guests takes, in lab time.
    pub task_time: Duration,
    /// Bytes that `/var/tmp` of the contacted node can hold, where uploads are kept until they are copied.
    pub spool_size: Option<u64>,
    /// Whether an answer that breaks Proxmox's schema becomes an error that names what is wrong, instead of a warning
    /// in the lab's log.
    pub strict_answers: bool,
}

impl LabConfig {
    /// The path that rights on a bridge or a virtual network are given on.
    pub(crate) fn sdn_path(&self, bridge: &str) -> String {
        let zone =
            self.vnets.iter().find(|(name, _)| name == bridge).map_or("localnetwork", |(_, zone)| zone);
        format!("/sdn/zones/{zone}/{bridge}")
    }
}

impl Default for LabConfig {
    fn default() -> Self {
        LabConfig {
            version: PveVersion::default(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            nodes: vec!["pve".to_owned()],
            storages: vec![StorageConfig::everything("local")],
            bridges: vec!["vmbr0".to_owned()],
            vnets: Vec::new(),
            silent_bridges: Vec::new(),
            run_guests: true,
            kvm: true,
            accel: "tcg,thread=multi".to_owned(),
            cpu: "max".to_owned(),
            clone_rate: None,
            ssh: SshForward::Auto,
            state_dir: None,
            auth_delay: Duration::from_secs(3),
            ticket_life: Duration::from_secs(2 * 60 * 60),
            agent_ping: Duration::from_secs(3),
            lock_timeout: Duration::from_secs(10),
            proxy_timeout: Duration::from_secs(30),
            clock: Clock::default(),
            task_time: Duration::ZERO,
            spool_size: None,
            strict_answers: true,
        }
    }
}
