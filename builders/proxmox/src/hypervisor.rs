//! The target itself: the [`Hypervisor`] of the port on Proxmox VE.
//!
//! Whose a VM is, is read from the VM: its name `forge-<nonce>` or the mark in its notes. A clone shows neither while it
//! is being made (`lock: clone`), and a VMID may be taken by anything of any node, containers included, so a missing
//! configuration alone does not mean that the id is free; only `nextid?vmid=` knows that, of the whole cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use forge_machine::{
    ArchivePlace, BuildState, Capabilities, Checkup, Diagnosis, Facts, FactsQuery, Fetch, Finding,
    Hypervisor, Machine, MachineSpec, Nonce, Orphan, Ownership, PortError, Standing, TaskHandle,
    TemplateFacts, VmRef,
};
use serde_json::Value;

use crate::api::client::{Client, decode};
use crate::api::encode::{Params, path};
use crate::api::error::ApiError;
use crate::api::limits::Limits;
use crate::api::task::{Pace, Upid, is_success};
use crate::api::tls::TrustError;
use crate::api::types::{NodeEntry, ResourceEntry};
use crate::archive;
use crate::capacity::{self, Room};
use crate::check;
use crate::config::ProxmoxConfig;
use crate::diagnose;
use crate::discard;
use crate::discovery::{self, vm_config};
use crate::ids;
use crate::machine::{LOCK_PATIENCE, ProxmoxMachine, power_of, task_handle};
use crate::marks::{is_ours, orphan_mark};
use crate::media;
use crate::newvm;
use crate::params::{self, TAG_BUILD, TAG_KEPT};
use crate::permissions::Grants;
use crate::placement;
use crate::sweep::Sweep;
use crate::tags;
use crate::vmconfig::VmConfig;

/// What a target and its VMs share.
#[derive(Debug)]
pub struct Shared {
    pub(crate) client: Client,
    pub(crate) config: ProxmoxConfig,
    learnt: Mutex<Option<Learnt>>,
    turns: media::Turns,
    /// What tasks warned of that were waited for, by UPID, until it is told.
    warnings: Mutex<BTreeMap<String, Vec<String>>>,
}

/// What was learnt together with the facts, for checking specs later.
#[derive(Debug)]
struct Learnt {
    /// What the token may do.
    grants: Grants,
    /// The CPU types that the node offers; empty when it does not say.
    cpus: Vec<String>,
    /// What nodes and storages have room for.
    room: Room,
}

/// What stands at a VMID.
pub(crate) enum Whereabouts {
    /// Nothing, on no node.
    Free,
    /// A VM, on this node.
    At { node: String, config: VmConfig },
    /// Something that the token may not see, or a container.
    Hidden,
}

impl Shared {
    /// Finds what stands at an id: on the expected node first, then anywhere.
    pub(crate) async fn whereabouts(&self, at: &VmRef) -> Result<Whereabouts, ApiError> {
        let mut hidden = match vm_config(&self.client, at).await {
            Ok(config) => return Ok(Whereabouts::At { node: at.node.clone(), config }),
            Err(ApiError::VmMissing { .. } | ApiError::Missing { .. }) => None,
            // A privilege that came with the VM (its pool, its own entry) goes with it.
            Err(error @ ApiError::Denied { .. }) => Some(error),
            Err(error) => return Err(error),
        };
        if ids::is_free(&self.client, &at.id).await? {
            return Ok(Whereabouts::Free);
        }
        // It may have appeared meanwhile, or stand on another node.
        let nodes: Vec<NodeEntry> = self.client.get("/nodes", &Params::new()).await?;
        let others = nodes.into_iter().filter(|entry| entry.status != "offline").map(|entry| entry.node);
        for node in std::iter::once(at.node.clone()).chain(others.filter(|node| *node != at.node)) {
            match vm_config(&self.client, &VmRef::new(at.id.as_str(), node.as_str())).await {
                Ok(config) => return Ok(Whereabouts::At { node, config }),
                Err(ApiError::VmMissing { .. } | ApiError::Missing { .. }) => {}
                Err(error @ ApiError::Denied { .. }) => hidden = Some(error),
                Err(error) => return Err(error),
            }
        }
        hidden.map_or(Ok(Whereabouts::Hidden), Err)
    }
}

/// A certificate that nobody vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Who shows it: `https://host:port`.
    pub address: String,
    /// What is wrong with it.
    pub reason: String,
    /// Its SHA-256 fingerprint, as Proxmox shows it.
    pub fingerprint: String,
}

/// A Proxmox VE target.
#[derive(Clone, Debug)]
pub struct ProxmoxHypervisor {
    shared: Arc<Shared>,
}

impl ProxmoxHypervisor {
    /// Prepares a connection. Nothing is sent yet; certificates of this machine are read.
    ///
    /// # Errors
    /// When URL, token or TLS choice can't be used.
    pub fn connect(config: ProxmoxConfig) -> Result<Self, PortError> {
        Self::connect_within(config, Limits::default())
    }

    /// The same, waiting for answers for as long as these limits say.
    ///
    /// # Errors
    /// As [`ProxmoxHypervisor::connect`].
    pub fn connect_within(config: ProxmoxConfig, limits: Limits) -> Result<Self, PortError> {
        let client = Client::within(&config, limits).map_err(|source| {
            PortError::broken(format!("target `{}` can't be used", config.target), source)
        })?;
        Ok(Self::over(client, config, media::Turns::default()))
    }

    /// The same target, taking turns with all processes of this machine that name the same folder: of those that want the
    /// same medium on a storage, one brings it.
    #[must_use]
    pub fn taking_turns_in(self, folder: std::path::PathBuf) -> Self {
        let Shared { client, config, .. } = self.shared.as_ref();
        Self::over(client.clone(), config.clone(), media::Turns::shared(folder))
    }

    /// The same target, giving up tasks that say nothing new for this long instead of for [`crate::api::task::STALL`].
    #[must_use]
    pub fn stalling_after(self, stall: std::time::Duration) -> Self {
        let Shared { client, config, .. } = self.shared.as_ref();
        Self::over(client.clone().stalling_after(stall), config.clone(), media::Turns::default())
    }

    /// The same target, by tickets that are renewed after this time.
    #[must_use]
    pub fn renewing_tickets_after(self, time: std::time::Duration) -> Self {
        let Shared { client, config, .. } = self.shared.as_ref();
        Self::over(client.clone().renewing_tickets_after(time), config.clone(), media::Turns::default())
    }

    fn over(client: Client, config: ProxmoxConfig, turns: media::Turns) -> Self {
        Self {
            shared: Arc::new(Shared {
                client,
                config,
                learnt: Mutex::new(None),
                turns,
                warnings: Mutex::default(),
            }),
        }
    }

    /// The certificates that its endpoints show and nobody vouches for; none when one endpoint is trusted, or none answers.
    /// Neither login nor secret is sent. May be dropped.
    pub async fn strangers(&self) -> Vec<Stranger> {
        let mut strangers = Vec::new();
        for (endpoint, refused) in self.shared.client.handshakes().await {
            let Some(TrustError::NotVouchedFor { reason, seen }) = refused else { return Vec::new() };
            let (address, fingerprint) = (endpoint.origin.clone(), seen.to_string());
            strangers.push(Stranger { address, reason, fingerprint });
        }
        strangers
    }

    /// The API client, for what is beyond the port.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    async fn ids_in_use(&self) -> Result<BTreeSet<u64>, ApiError> {
        let query = Params::new().with("type", "vm");
        let entries: Vec<ResourceEntry> = self.shared.client.get("/cluster/resources", &query).await?;
        Ok(entries.into_iter().map(|entry| entry.vmid).collect())
    }

    async fn free_id(
        &self,
        range: Option<(u32, u32)>,
        refused: &[VmRef],
    ) -> Result<Option<String>, ApiError> {
        let (range, known) = match range {
            Some(range) => (range, self.ids_in_use().await?),
            None => {
                let next: Value = self.shared.client.get("/cluster/nextid", &Params::new()).await?;
                let next = next.as_str().map_or_else(|| next.to_string(), str::to_owned);
                ((next.parse().unwrap_or(100), ids::LAST), BTreeSet::new())
            }
        };
        let refused = refused.iter().filter_map(|vm| vm.id.parse().ok()).collect();
        let mut choice = ids::Choice::new(range, known, refused);
        while let Some(id) = choice.next() {
            // The list is old and shows only what the token may see; the cluster itself has the last word.
            let id = id.to_string();
            if ids::is_free(&self.shared.client, &id).await? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Hypervisor for ProxmoxHypervisor {
    fn target(&self) -> &str {
        &self.shared.config.target
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "Proxmox VE",
            clones: true,
            images: true,
            isos: true,
            new_disks: true,
            kernel_boot: false,
            cloud_init_drive: true,
            smbios_serial: true,
            seed_disc: true,
            boot_disc: true,
            // There is no key for one in the schemas of 7.4, 8.4 and 9.2.
            floppy: false,
            serial: false,
            templates: true,
            files: false,
            host_address: None,
        }
    }

    async fn facts(&self, query: &FactsQuery) -> Result<(Facts, Vec<Finding>), PortError> {
        let found = discovery::discover(&self.shared.client, &self.shared.config, query).await;
        let found = found.map_err(|error| error.at(&format!("look at target `{}`", self.target())))?;
        *self.shared.learnt.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Learnt { grants: found.grants, cpus: found.cpus, room: found.room });
        Ok((found.facts, found.findings))
    }

    async fn diagnose(&self, checkup: &Checkup) -> Vec<Diagnosis> {
        diagnose::diagnose(&self.shared.client, &self.shared.config, checkup).await
    }

    fn check(&self, spec: &MachineSpec, facts: &Facts) -> Vec<Finding> {
        let mut findings = check::check(&self.shared.config, spec, facts);
        let learnt = self.shared.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(learnt) = learnt.as_ref() {
            findings.extend(learnt.grants.for_spec(spec));
            let media = self.shared.config.iso_storage.as_deref();
            findings.extend(learnt.grants.for_media(media, spec));
            findings.extend(check::cpu(spec, &learnt.cpus));
            let storage = self.shared.config.disk_storage.as_deref();
            findings.extend(capacity::findings(&learnt.room, spec, facts.source.as_ref(), storage));
        }
        findings
    }

    async fn prepare_media(&self, spec: &MachineSpec, fetch: &dyn Fetch) -> Result<MachineSpec, PortError> {
        let shared = &self.shared;
        let preferred = shared.config.iso_storage.as_deref();
        media::prepare(&shared.client, &shared.turns, preferred, spec, fetch).await
    }

    async fn propose_id(&self, spec: &MachineSpec, refused: &[VmRef]) -> Result<VmRef, PortError> {
        let found = self.free_id(spec.ids, refused).await.map_err(|error| error.at("find a free VMID"))?;
        match found {
            Some(id) => Ok(VmRef::new(id, spec.node.as_str())),
            None => {
                let why = match spec.ids {
                    Some((only, last)) if only == last => format!("{only} is taken"),
                    Some((first, last)) => format!("all from {first} to {last} are taken"),
                    None => "all are taken".to_owned(),
                };
                Err(PortError::failed("find a free VMID", why))
            }
        }
    }

    async fn submit_create(
        &self,
        spec: &MachineSpec,
        at: &VmRef,
        mark: &Ownership,
    ) -> Result<TaskHandle, PortError> {
        let spec = &params::with_addresses(spec, at);
        let (action, path, body, node) = match params::clone(spec, at, mark) {
            Some((source, body)) => {
                let path = path(&["nodes", &source.node, "qemu", &source.id, "clone"]);
                (format!("clone {source} to VM {}", at.id), path, body, source.node)
            }
            None => {
                let action = format!("create VM {} on {}", at.id, at.node);
                let (storage, bridge) =
                    (self.shared.config.disk_storage.as_deref(), self.shared.config.bridge.as_deref());
                let body = newvm::create(spec, at, mark, storage, bridge);
                let body = body.map_err(|detail| PortError::failed(action.clone(), detail))?;
                (action, path(&["nodes", &at.node, "qemu"]), body.unwrap_or_default(), at.node.clone())
            }
        };
        let pace = Pace::start();
        loop {
            match self.shared.client.post(&path, &body).await {
                Ok(reply) => return Ok(task_handle(&reply.data, &node)),
                Err(ApiError::IdTaken { .. }) => return Err(PortError::IdTaken { id: at.id.clone() }),
                // The lock is the source's, or that of a VM which takes the id: nothing was done.
                Err(error) if error.is_locked() && pace.elapsed() < LOCK_PATIENCE => {
                    tracing::debug!(%error, "waiting for the lock");
                    pace.rest().await;
                }
                Err(error) => return Err(error.at(&action)),
            }
        }
    }

    async fn wait(&self, task: &TaskHandle) -> Result<(), PortError> {
        if task.is_finished() {
            return Ok(());
        }
        let upid = parse_task(task)?;
        let client = &self.shared.client;
        let action = upid.describe();
        let exit = client.await_task(&upid).await.map_err(|error| error.at(&action))?;
        // Somebody was faster with the same wish.
        let moot = upid.kind == "qmstart" && exit.ends_with("already running");
        if is_success(&exit) || moot {
            if exit.starts_with("WARNINGS") {
                let mut warnings: Vec<String> = client.task_warnings(&upid).await;
                if warnings.is_empty() {
                    warnings.push(exit);
                }
                let mut told = self.shared.warnings.lock().unwrap_or_else(PoisonError::into_inner);
                told.insert(task.id.clone(), warnings);
            }
            return Ok(());
        }
        Err(client.task_failure(&upid, &exit).await.at(&action))
    }

    fn warnings(&self, task: &TaskHandle) -> Vec<String> {
        let mut told = self.shared.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        told.remove(&task.id).unwrap_or_default()
    }

    async fn stop_task(&self, task: &TaskHandle) -> Result<(), PortError> {
        if task.is_finished() {
            return Ok(());
        }
        let upid = parse_task(task)?;
        self.shared
            .client
            .stop_task(&upid)
            .await
            .map_err(|error| error.at(&format!("stop {}", upid.describe())))
    }

    async fn admission(&self, spec: &MachineSpec, at: Option<&VmRef>) -> Result<Option<String>, PortError> {
        placement::admission(&self.shared.client, &spec.node, spec.memory_mib, at)
            .await
            .map_err(|error| error.at(&format!("see how much memory {} has", spec.node)))
    }

    fn machine(&self, at: &VmRef) -> Arc<dyn Machine> {
        Arc::new(ProxmoxMachine::new(Arc::clone(&self.shared), at.clone()))
    }

    async fn standing(&self, at: &VmRef, nonce: &Nonce) -> Result<Standing, PortError> {
        let fault = |error: ApiError| error.at(&format!("find out what stands at {at}"));
        let (node, config) = match self.shared.whereabouts(at).await.map_err(fault)? {
            Whereabouts::Free => return Ok(Standing::Gone),
            Whereabouts::Hidden => {
                return Ok(Standing::Foreign { name: "(not visible to the token)".to_owned() });
            }
            Whereabouts::At { node, config } => (node, config),
        };
        let Some(state) = is_ours(&config, nonce) else {
            return Ok(match config.lock() {
                Some(lock @ ("clone" | "create")) => Standing::Busy { lock: lock.to_owned() },
                _ => Standing::Foreign { name: config.name().to_owned() },
            });
        };
        if config.is_template() {
            return Ok(Standing::Committed);
        }
        if let Some(lock @ ("clone" | "create")) = config.lock() {
            return Ok(Standing::Busy { lock: lock.to_owned() });
        }
        let machine = ProxmoxMachine::new(Arc::clone(&self.shared), VmRef::new(at.id.as_str(), node));
        match machine.status().await {
            Ok(status) => Ok(Standing::Ours { power: power_of(&status), kept: state == BuildState::Kept }),
            Err(ApiError::VmMissing { .. }) => Ok(Standing::Gone),
            Err(error) => Err(fault(error)),
        }
    }

    async fn orphans(&self) -> Result<Vec<Orphan>, PortError> {
        let fault = |error: ApiError| error.at("look for VMs that builds left behind");
        let query = Params::new().with("type", "vm");
        let entries: Value = self.shared.client.get("/cluster/resources", &query).await.map_err(fault)?;
        let entries: Vec<ResourceEntry> = decode("GET /cluster/resources", entries).map_err(fault)?;
        let (mut found, mut sweep) = (Vec::new(), Sweep::new(&self.shared.client));
        for entry in entries {
            // The list may be 10 s old: a VM without a name is a new one.
            let suspicious = entry.name.as_deref().is_none_or(|name| name.starts_with("forge-"))
                || entry.tags().any(|tag| tag == TAG_BUILD || tag == TAG_KEPT);
            if !suspicious || entry.kind == "lxc" || entry.template {
                continue;
            }
            let vm = VmRef::new(entry.vmid.to_string(), entry.node);
            let config = sweep.config(&vm).await.map_err(fault)?;
            found.extend(config.as_ref().and_then(orphan_mark).map(|mark| Orphan { vm, mark }));
        }
        Ok(found)
    }

    async fn templates(&self, tag: Option<&str>) -> Result<Vec<TemplateFacts>, PortError> {
        let fault = |error: ApiError| error.at("list the templates");
        let query = Params::new().with("type", "vm");
        let entries: Value = self.shared.client.get("/cluster/resources", &query).await.map_err(fault)?;
        let entries: Vec<ResourceEntry> = decode("GET /cluster/resources", entries).map_err(fault)?;
        let (mut found, mut sweep) = (Vec::new(), Sweep::new(&self.shared.client));
        for entry in entries {
            // The list may be 10 s old, and show a build VM that is a template by now; the configuration is not.
            let new = entry.name.as_deref().is_none_or(|name| name.starts_with("forge-"));
            let bears = |mut tags: Box<dyn Iterator<Item = &str> + '_>| {
                tag.is_none_or(|tag| tags.any(|each| each.eq_ignore_ascii_case(tag)))
            };
            let listed = entry.template && bears(Box::new(entry.tags()));
            if entry.kind == "lxc" || !(listed || new || entry.tags().any(|tag| tag == TAG_BUILD)) {
                continue;
            }
            let vm = VmRef::new(entry.vmid.to_string(), entry.node.as_str());
            let config = sweep.config(&vm).await.map_err(fault)?;
            if let Some(config) = config.filter(|it| it.is_template() && bears(Box::new(it.tags()))) {
                found.push(TemplateFacts {
                    name: config.name().to_owned(),
                    tags: config.tags().map(str::to_owned).collect(),
                    notes: Ownership::without_mark(config.description()),
                    protected: config.flag("protection", false),
                    vm,
                });
            }
        }
        Ok(found)
    }

    async fn linked_clones(&self, template: &VmRef) -> Result<Vec<(VmRef, String)>, PortError> {
        let found = discard::linked_clones(&self.shared.client, template).await;
        found.map_err(|error| error.at(&format!("look for linked clones of {template}")))
    }

    async fn check_archive(
        &self,
        place: &ArchivePlace,
        templates: &[VmRef],
    ) -> Result<Vec<Finding>, PortError> {
        let found = archive::findings(&self.shared.client, place, templates).await;
        found.map_err(|error| error.at(&format!("see whether templates can be archived on {place}")))
    }

    async fn check_tags(&self, wanted: &[&str]) -> Result<Vec<Finding>, PortError> {
        let kept = tags::kept_from(&self.shared.client, wanted).await;
        let kept = kept.map_err(|error| error.at("ask for the cluster's policy of tags"))?;
        Ok(kept.into_iter().map(|(why, help)| Finding::fatal("target.token", why, help)).collect())
    }
}

fn parse_task(task: &TaskHandle) -> Result<Upid, PortError> {
    Upid::parse(&task.id)
        .ok_or_else(|| PortError::Broken { what: format!("`{}` is no Proxmox task", task.id), source: None })
}
