//! A scenario file: how a lab is set up and which faults it has, so that a person can replay one with
//! `cargo lab serve --scenario FILE` and a test can run the same.
//!
//! ```toml
//! nodes = ["pve1", "pve2"]
//! task-seconds = 2                       # how long a task of a lab without guests takes
//!
//! [[storage]]
//! name = "local"
//! content = ["images", "iso"]
//! size = "2G"
//!
//! [[fault]]
//! on = "POST /nodes/*/qemu/*/clone"
//! call = 2                               # the second call only; `from = 2` is that one and all later ones
//! then = { task-fail-at = { percent = 40, text = "clone failed: no space left" } }
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::clock::Clock;
use crate::faults::Fault;
use crate::state::{StorageConfig, parse_net, parse_size, print_net};
use crate::{ImportVm, Lab, LabConfig, PveVersion, SshForward};

/// A scenario.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Scenario {
    /// 8 or 9.
    pve: Option<u8>,
    nodes: Option<Vec<String>>,
    /// How guests are connected.
    network: Option<NetworkMode>,
    /// Bridges of every node.
    bridges: Option<Vec<String>>,
    /// Those without DHCP, on a real network.
    silent_bridges: Vec<String>,
    /// Whether the nodes have hardware virtualisation.
    kvm: Option<bool>,
    /// Nodes that are down.
    offline: Vec<String>,
    /// How much faster than real time the lab's time goes.
    speed: Option<f64>,
    /// By how many seconds the nodes' clocks are wrong.
    clock_skew: i64,
    task_seconds: Option<f64>,
    /// What `/var/tmp` can hold: `200M`.
    spool_size: Option<String>,
    storage: Vec<StorageText>,
    vm: Vec<VmText>,
    user: Vec<UserText>,
    token: Vec<TokenText>,
    fault: Vec<FaultText>,
}

/// How a lab's guests are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// QEMU's user network: each guest by itself, an address of the lab's leads to its port 22
    User,
    /// Real bridges with DHCP, in a network namespace
    Bridge,
}

impl NetworkMode {
    /// Puts it into a lab's settings.
    pub fn configure(self, config: &mut LabConfig) {
        config.ssh = match self {
            NetworkMode::User => SshForward::Auto,
            NetworkMode::Bridge => SshForward::Bridge,
        };
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct StorageText {
    name: String,
    content: Vec<String>,
    #[serde(default)]
    shared: bool,
    size: Option<String>,
    nodes: Option<Vec<String>>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct VmText {
    vmid: u32,
    name: Option<String>,
    node: Option<String>,
    #[serde(default)]
    template: bool,
    #[serde(default)]
    cloud_init_drive: bool,
    /// Whether its disk is that of the guest that was asked for; else it is empty.
    #[serde(default)]
    guest: bool,
    /// Its adapters, net0 first, as Proxmox takes them.
    #[serde(default)]
    networks: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct UserText {
    id: String,
    password: Option<String>,
    #[serde(default)]
    access: Vec<AccessText>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct TokenText {
    id: String,
    secret: String,
    #[serde(default)]
    access: Vec<AccessText>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct AccessText {
    path: String,
    privileges: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FaultText {
    /// `METHOD PATH`.
    on: String,
    /// Only calls to that node; the path's first `*` stands for it.
    node: Option<String>,
    call: Option<usize>,
    from: Option<usize>,
    then: Then,
}

/// What happens, as a scenario names it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Then {
    #[serde(rename_all = "kebab-case")]
    Refuse {
        status: u16,
        reason: String,
    },
    DropBefore,
    DoThenDrop,
    /// Seconds.
    Delay(f64),
    /// Seconds.
    DelayAfter(f64),
    /// Bytes of the body that still come.
    Truncate(usize),
    TaskFail(String),
    TaskFailAfter(String),
    #[serde(rename_all = "kebab-case")]
    TaskFailAt {
        percent: f64,
        text: String,
    },
    TaskWarn(String),
    #[serde(rename_all = "kebab-case")]
    TaskTalk {
        lines: u32,
        /// Seconds.
        every: f64,
    },
    TaskHang,
    TaskDie,
    /// Bytes a second.
    SlowUpload(u64),
    /// Bytes to the client that still come.
    LoseWebsocket(u64),
    AgentGone,
    /// Seconds.
    ClockSkew(i64),
    MoveAddress,
}

impl From<Then> for Fault {
    fn from(then: Then) -> Fault {
        match then {
            Then::Refuse { status, reason } => Fault::Refuse { status, reason },
            Then::DropBefore => Fault::DropBefore,
            Then::DoThenDrop => Fault::DoThenDrop,
            Then::Delay(seconds) => Fault::Delay(Duration::from_secs_f64(seconds.max(0.0))),
            Then::DelayAfter(seconds) => Fault::DelayAfter(Duration::from_secs_f64(seconds.max(0.0))),
            Then::Truncate(bytes) => Fault::Truncate { bytes },
            Then::TaskFail(text) => Fault::TaskFail { text },
            Then::TaskFailAfter(text) => Fault::TaskFailAfter { text },
            Then::TaskFailAt { percent, text } => Fault::TaskFailAt { percent, text },
            Then::TaskWarn(text) => Fault::TaskWarn { text },
            Then::TaskTalk { lines, every } => {
                Fault::TaskTalk { lines, every: Duration::from_secs_f64(every.max(0.0)) }
            }
            Then::TaskHang => Fault::TaskHang,
            Then::TaskDie => Fault::TaskDie,
            Then::SlowUpload(bytes_per_second) => Fault::SlowUpload { bytes_per_second },
            Then::LoseWebsocket(after_bytes) => Fault::LoseWebsocket { after_bytes },
            Then::AgentGone => Fault::AgentGone,
            Then::ClockSkew(seconds) => Fault::ClockSkew { seconds },
            Then::MoveAddress => Fault::MoveAddress,
        }
    }
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// It is no TOML, or holds a key or a value that means nothing; the message names line and column.
    pub fn parse(text: &str) -> anyhow::Result<Scenario> {
        let scenario: Scenario = toml::from_str(text)?;
        for fault in &scenario.fault {
            fault.route()?;
        }
        Ok(scenario)
    }

    /// Puts what the scenario says of the lab into its settings.
    ///
    /// # Errors
    /// A value can't be.
    pub fn configure(&self, config: &mut LabConfig) -> anyhow::Result<()> {
        config.version = match self.pve {
            None => config.version,
            Some(8) => PveVersion::V8,
            Some(9) => PveVersion::V9,
            Some(other) => bail!("the lab answers as Proxmox VE 8 or 9, not {other}"),
        };
        if let Some(nodes) = &self.nodes {
            config.nodes.clone_from(nodes);
        }
        config.kvm = self.kvm.unwrap_or(config.kvm);
        if let Some(bridges) = &self.bridges {
            config.bridges.clone_from(bridges);
        }
        if let Some(unknown) = self.silent_bridges.iter().find(|name| !config.bridges.contains(name)) {
            bail!("silent-bridges: there is no bridge {unknown:?}");
        }
        config.silent_bridges.clone_from(&self.silent_bridges);
        if let Some(network) = self.network {
            network.configure(config);
        }
        if let Some(speed) = self.speed {
            config.clock = Clock::Auto(speed);
        }
        if let Some(seconds) = self.task_seconds {
            config.task_time = Duration::try_from_secs_f64(seconds).context("task-seconds")?;
        }
        if let Some(size) = &self.spool_size {
            config.spool_size = Some(bytes(size)?);
        }
        if !self.storage.is_empty() {
            let storages = self.storage.iter().map(|text| {
                Ok(StorageConfig {
                    name: text.name.clone(),
                    content: text.content.clone(),
                    shared: text.shared,
                    size: text.size.as_deref().map(bytes).transpose()?,
                    nodes: text.nodes.clone(),
                    kind: text.kind.clone(),
                })
            });
            config.storages = storages.collect::<anyhow::Result<_>>()?;
        }
        Ok(())
    }

    /// Fills a lab that was started with these settings: users, tokens, VMs, faults. `disk` is that of the VMs with
    /// `guest = true`.
    ///
    /// # Errors
    /// A VM can't be made.
    pub async fn fill(&self, lab: &Lab, disk: Option<&Path>) -> anyhow::Result<()> {
        for node in &self.offline {
            lab.set_online(node, false);
        }
        lab.set_clock_skew(self.clock_skew);
        for user in &self.user {
            with_access(&user.access, |access| lab.set_user_access(&user.id, access));
            if let Some(password) = &user.password {
                lab.set_password(&user.id, password);
            }
        }
        for token in &self.token {
            with_access(&token.access, |access| lab.add_token_with_secret(&token.id, &token.secret, access));
        }
        for vm in &self.vm {
            lab.import_vm(ImportVm {
                vmid: vm.vmid,
                name: vm.name.clone().unwrap_or_else(|| format!("vm-{}", vm.vmid)),
                node: vm.node.clone(),
                template: vm.template,
                cloudinit_drive: vm.cloud_init_drive,
                disk: disk.filter(|_| vm.guest).map(Path::to_path_buf),
                extra: vm.adapters(),
                ..ImportVm::default()
            })
            .await?;
        }
        for fault in &self.fault {
            let (method, path) = fault.route()?;
            let rule = lab.faults().on(&method, &path);
            let rule = match (fault.call, fault.from) {
                (_, Some(from)) => rule.from(from),
                (call, None) => rule.call(call.unwrap_or(1)),
            };
            rule.then(fault.then.clone().into());
        }
        Ok(())
    }
}

impl VmText {
    /// Its adapters by their keys, each with an address of its own.
    fn adapters(&self) -> BTreeMap<String, String> {
        let adapters = self.networks.iter().enumerate().map(|(number, text)| {
            let (model, mac, options) = parse_net(text);
            (format!("net{number}"), print_net(&model, &mac.unwrap_or_else(crate::ids::mac), &options))
        });
        adapters.collect()
    }
}

impl FaultText {
    fn route(&self) -> anyhow::Result<(String, String)> {
        let Some((method, path)) = self.on.split_once(' ') else {
            bail!("a fault's `on` is METHOD PATH, such as \"POST /nodes/*/qemu\", not {:?}", self.on);
        };
        if self.call.is_some() && self.from.is_some() {
            bail!("the fault on {:?} has both `call` and `from`", self.on);
        }
        let path = match &self.node {
            Some(node) if path.contains('*') => path.replacen('*', node, 1),
            Some(node) => bail!("the fault on {:?} has no `*` that could stand for the node {node}", self.on),
            None => path.to_owned(),
        };
        Ok((method.to_owned(), path))
    }
}

fn with_access(access: &[AccessText], give: impl FnOnce(&[(&str, &[&str])])) {
    let names: Vec<Vec<&str>> =
        access.iter().map(|entry| entry.privileges.iter().map(String::as_str).collect()).collect();
    let list: Vec<(&str, &[&str])> =
        access.iter().zip(&names).map(|(entry, names)| (entry.path.as_str(), names.as_slice())).collect();
    give(&list);
}

fn bytes(text: &str) -> anyhow::Result<u64> {
    parse_size(text).with_context(|| format!("{text:?} is no size: 100, 20M, 2G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_nothing_is_named() {
        let error = Scenario::parse("nodse = []").expect_err("refused").to_string();
        assert!(error.contains("nodse"), "{error}");
        let error =
            Scenario::parse("[[fault]]\non = \"/nodes\"\nthen = \"drop-before\"").expect_err("refused");
        assert!(error.to_string().contains("METHOD PATH"), "{error}");
        let error =
            Scenario::parse("[[fault]]\non = \"GET /nodes\"\nthen = \"explode\"").expect_err("refused");
        assert!(error.to_string().contains("explode"), "{error}");
        let silent = Scenario::parse("silent-bridges = [\"vmbr7\"]").expect("it is a scenario");
        let error = silent.configure(&mut LabConfig::default()).expect_err("refused").to_string();
        assert!(error.contains("vmbr7"), "{error}");
    }

    #[test]
    fn the_scenarios_that_come_with_the_lab_can_be_read() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
            let text = std::fs::read_to_string(entry.path()).expect("readable");
            let scenario =
                Scenario::parse(&text).unwrap_or_else(|error| panic!("{:?}: {error:#}", entry.path()));
            scenario.configure(&mut LabConfig::default()).expect("values that can be");
            count += 1;
        }
        assert!(count >= 3);
    }
}
