//! One VM on a Proxmox VE target: the [`Machine`] of the port.
//!
//! Invariants:
//! * every change is one that may be repeated, or is not repeated here;
//! * a lock is waited out for a while: a call that met one was certainly not carried out;
//! * nothing here decides whose VM it is; see `hypervisor` for that.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use forge_machine::interfaces::{AgentInterface, report};
use forge_machine::{
    AddressReport, AgentChannel, ArchivePlace, Artefact, Attachments, Display, DisplayStream, Finish,
    IsoDrives, KeyChord, Machine, MachineSpec, MachineState, Ownership, PortError, Power, SourceSpec,
    StopLadder, StopRung, TaskHandle, VmRef,
};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::api::client::{Client, Reply, decode};
use crate::api::encode::{Params, path};
use crate::api::error::ApiError;
use crate::api::task::{Pace, Upid};
use crate::api::types::{AgentResult, StatusCurrent};
use crate::discovery::vm_config;
use crate::hypervisor::Shared;
use crate::newvm;
use crate::params::{self, DiskChange};
use crate::vmconfig::VmConfig;

/// How long a locked VM is tried again.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(45);
/// How often a configuration may be changed by others while a change of it is sent.
const CHANGED_TRIES: u32 = 5;
/// How long a VM that switched itself off may still count as running (qmeventd cleans up behind it).
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// A VM on a Proxmox VE target.
#[derive(Clone, Debug)]
pub struct ProxmoxMachine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) at: VmRef,
    macs: Arc<OnceCell<Vec<String>>>,
}

impl ProxmoxMachine {
    /// A handle on the VM at an id. Asks nobody.
    #[must_use]
    pub fn new(shared: Arc<Shared>, at: VmRef) -> Self {
        Self { shared, at, macs: Arc::new(OnceCell::new()) }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The path of one of the VM's methods.
    pub(crate) fn path(&self, method: &[&str]) -> String {
        let mut segments = vec!["nodes", &self.at.node, "qemu", &self.at.id];
        segments.extend(method);
        path(&segments)
    }

    /// `configure VM 9000 on pve`, for errors.
    pub(crate) fn action(&self, verb: &str) -> String {
        format!("{verb} {}", self.at)
    }

    pub(crate) async fn config(&self) -> Result<VmConfig, ApiError> {
        vm_config(self.client(), &self.at).await
    }

    pub(crate) async fn status(&self) -> Result<StatusCurrent, ApiError> {
        self.client().get(&self.path(&["status", "current"]), &Params::new()).await
    }

    /// Sends a configuration change that may be repeated. Waits locks out, and asks twice when an answer is lost.
    ///
    /// Each carries the digest of what it changes. So one that the server held back and carries out late, after another
    /// has taken its place, is refused, and overwrites nothing newer.
    pub(crate) async fn put_config(&self, params: &Params) -> Result<(), ApiError> {
        if params.is_empty() {
            return Ok(());
        }
        let path = self.path(&["config"]);
        let pace = Pace::start();
        let (mut lost, mut changed) = (false, 0);
        // What was computed from a configuration comes with that one's digest, and may not be sent for another.
        let is_bound = params.get("digest").is_some();
        loop {
            let mut change = params.clone();
            if !is_bound && let Some(digest) = self.config().await?.get("digest") {
                change.set("digest", digest);
            }
            match self.client().put(&path, &change).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_locked() && pace.elapsed() < LOCK_PATIENCE => {
                    tracing::debug!(%error, "waiting for the lock");
                    pace.rest().await;
                }
                Err(ApiError::Unanswered { .. }) if !lost => lost = true,
                // Somebody else changed it in between, or the one whose answer was lost has come through.
                Err(error) if !is_bound && is_stale(&error) && changed < CHANGED_TRIES => changed += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Changes what was just read; when somebody else changed it in between it is read again, so that their change stays.
    async fn change_as_read(
        &self,
        action: &str,
        change: impl Fn(&VmConfig) -> Result<Option<Params>, PortError> + Send + Sync,
    ) -> Result<(), PortError> {
        let fault = |error: ApiError| error.at(action);
        for tries_left in (0..CHANGED_TRIES).rev() {
            let present = self.config().await.map_err(fault)?;
            let Some(change) = change(&present)? else { return Ok(()) };
            match self.put_config(&change).await {
                Err(error) if is_stale(&error) && tries_left > 0 => {}
                other => return other.map_err(fault),
            }
        }
        Ok(())
    }

    /// Runs a call that may have a task behind it, to the task's end. Waits locks out.
    pub(crate) async fn run_to_end<F>(&self, call: impl Fn() -> F) -> Result<(), ApiError>
    where
        F: Future<Output = Result<Reply, ApiError>>,
    {
        let pace = Pace::start();
        loop {
            let outcome = match call().await {
                Ok(reply) => match upid_of(&reply.data) {
                    Some(upid) => self.client().wait_task(&upid).await,
                    None => Ok(()),
                },
                Err(error) => Err(error),
            };
            match outcome {
                Err(error) if error.is_locked() && pace.elapsed() < LOCK_PATIENCE => {
                    tracing::debug!(%error, "waiting for the lock");
                    pace.rest().await;
                }
                other => return other,
            }
        }
    }

    /// Changes what has to be allocated: as a background task, because pveproxy waits 30 s only.
    async fn allocate(&self, slot: &str, value: &str) -> Result<(), ApiError> {
        let path = self.path(&["config"]);
        let params = Params::new().with(slot, value);
        self.run_to_end(|| self.client().post(&path, &params)).await
    }

    async fn apply(&self, spec: &MachineSpec, mark: &Ownership, seed: &Attachments) -> Result<(), PortError> {
        let spec = &params::with_addresses(spec, &self.at);
        let action = self.action("configure");
        let fault = |error: ApiError| error.at(&action);
        self.put_config(&params::identity(mark)).await.map_err(fault)?;
        let present = self.config().await.map_err(fault)?;
        let site = &self.shared.config;
        self.put_config(&params::hardware(spec, &present, site.bridge.as_deref())).await.map_err(fault)?;
        let changes = params::disks(spec, &present, site.disk_storage.as_deref());
        for change in changes.map_err(|detail| PortError::failed(action.clone(), detail))? {
            match change {
                DiskChange::Add { slot, value } => self.allocate(&slot, &value).await.map_err(fault)?,
                DiskChange::Move { slot, storage } => {
                    let path = self.path(&["move_disk"]);
                    let body = Params::new().with("disk", slot).with("storage", storage).with("delete", 1);
                    self.run_to_end(|| self.client().post(&path, &body)).await.map_err(fault)?;
                }
                DiskChange::Grow { slot, size } => {
                    let path = self.path(&["resize"]);
                    let body = Params::new().with("disk", slot).with("size", size);
                    self.run_to_end(|| self.client().put(&path, &body)).await.map_err(fault)?;
                }
            }
        }
        self.put_config(&params::after_disks(spec, &present)).await.map_err(fault)?;
        if !spec.isos.is_empty() {
            let source = self.source_of(spec).await.map_err(fault)?;
            if let Some(detail) = newvm::occupied(spec, source.as_ref()) {
                return Err(PortError::failed(action, detail));
            }
            self.put_config(&newvm::isos(spec, &present, source.as_ref())).await.map_err(fault)?;
        }
        // A drive that only the template needs is added when the guest has shut down: an empty one would be a second
        // seed beside the build's own.
        if seed.cloud_init.is_some()
            && let Some((slot, value)) = params::cloud_init_drive(spec, &present)
        {
            self.allocate(&slot, &value).await.map_err(fault)?;
        }
        if let Some(disc) = &seed.seed_disc {
            self.insert_seed(spec, disc).await?;
        }
        self.put_config(&params::attachments(seed, &present)).await.map_err(fault)
    }

    /// The configuration of the VM that was cloned, where it matters.
    async fn source_of(&self, spec: &MachineSpec) -> Result<Option<VmConfig>, ApiError> {
        match &spec.source {
            SourceSpec::Clone { vm, .. } if spec.cloud_init.is_some() || !spec.isos.is_empty() => {
                vm_config(self.client(), vm).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    async fn macs(&self) -> Result<&[String], ApiError> {
        let read = || async {
            let config = self.config().await?;
            Ok(config.networks().into_iter().filter_map(|(_, nic)| nic.mac).collect())
        };
        self.macs.get_or_try_init(read).await.map(Vec::as_slice)
    }

    /// Submits work and names its task.
    pub(crate) async fn submit(&self, method: &[&str], body: &Params) -> Result<TaskHandle, ApiError> {
        let reply = self.client().post(&self.path(method), body).await?;
        Ok(task_handle(&reply.data, &self.at.node))
    }
}

/// Whether a change was refused because the configuration is another than the one it was made for (pve-common Tools.pm,
/// `assert_if_modified`).
fn is_stale(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused { detail, .. } if detail.contains("checksum mismatch"))
}

/// The UPID in an answer; PVE 7 answers null where later releases start a task.
pub(crate) fn upid_of(data: &Value) -> Option<Upid> {
    data.as_str().and_then(Upid::parse)
}

/// The handle of the task in an answer.
pub(crate) fn task_handle(data: &Value, node: &str) -> TaskHandle {
    match upid_of(data) {
        Some(upid) => TaskHandle { id: upid.text, node: upid.node },
        None => TaskHandle::finished(node),
    }
}

/// Reads a status.
pub(crate) fn power_of(status: &StatusCurrent) -> Power {
    match (status.status.as_str(), status.qmpstatus.as_deref()) {
        ("running", None | Some("running")) => Power::Running,
        ("running", _) => Power::Paused,
        _ => Power::Stopped,
    }
}

#[async_trait]
impl Machine for ProxmoxMachine {
    fn reference(&self) -> &VmRef {
        &self.at
    }

    async fn configure(
        &self,
        spec: &MachineSpec,
        mark: &Ownership,
        attachments: &Attachments,
    ) -> Result<(), PortError> {
        self.apply(spec, mark, attachments).await
    }

    async fn submit_start(&self) -> Result<TaskHandle, PortError> {
        let action = self.action("start");
        let status = self.status().await.map_err(|error| error.at(&action))?;
        if power_of(&status) == Power::Running {
            return Ok(TaskHandle::finished(&self.at.node));
        }
        let method: &[&str] = match power_of(&status) {
            Power::Paused => &["status", "resume"],
            _ => &["status", "start"],
        };
        self.submit(method, &Params::new()).await.map_err(|error| error.at(&action))
    }

    async fn state(&self) -> Result<MachineState, PortError> {
        let status = self.status().await.map_err(|error| error.at(&self.action("read the state of")))?;
        let mut detail = status.qmpstatus.clone().unwrap_or_else(|| status.status.clone());
        if let Some(lock) = status.lock.as_deref().filter(|lock| !lock.is_empty()) {
            detail.push_str(&format!(", locked ({lock})"));
        }
        Ok(MachineState { power: power_of(&status), detail, template: status.template })
    }

    fn agent(&self) -> Option<Arc<dyn AgentChannel>> {
        Some(Arc::new(self.clone()))
    }

    async fn display(&self) -> Result<Display, PortError> {
        let action = self.action("open the screen of");
        let status = self.status().await.map_err(|error| error.at(&action))?;
        if power_of(&status) == Power::Stopped {
            return Err(PortError::failed(action, "it does not run"));
        }
        let opened =
            self.client().open_vnc(&self.at.node, &self.at.id).await.map_err(|error| error.at(&action))?;
        Ok(Display { stream: Box::new(opened.stream), password: Some(opened.password) })
    }

    async fn serial(&self, _from: u64) -> Result<Vec<u8>, PortError> {
        // Proxmox hands the port out as a terminal, and keeps nothing of it: `Capabilities::serial` says so.
        Ok(Vec::new())
    }

    async fn terminal(&self) -> Result<Box<dyn DisplayStream>, PortError> {
        let action = self.action("open the serial port of");
        let status = self.status().await.map_err(|error| error.at(&action))?;
        if power_of(&status) == Power::Stopped {
            return Err(PortError::failed(action, "it does not run"));
        }
        let opened = self.client().open_terminal(&self.at.node, &self.at.id).await;
        Ok(Box::new(opened.map_err(|error| error.at(&action))?))
    }

    async fn press(&self, chords: &[KeyChord]) -> Result<(), PortError> {
        let path = self.path(&["sendkey"]);
        for chord in chords {
            let body = Params::new().with("key", chord);
            let pace = Pace::start();
            loop {
                match self.client().put(&path, &body).await {
                    Ok(_) => break,
                    Err(error) if error.is_locked() && pace.elapsed() < LOCK_PATIENCE => pace.rest().await,
                    Err(error) => return Err(error.at(&format!("press `{chord}` on {}", self.at))),
                }
            }
        }
        Ok(())
    }

    async fn addresses(&self) -> Result<AddressReport, PortError> {
        let action = self.action("ask the agent of");
        let answer: Result<AgentResult<Vec<AgentInterface>>, ApiError> =
            self.client().get(&self.path(&["agent", "network-get-interfaces"]), &Params::new()).await;
        let interfaces = match answer {
            Ok(answer) => answer.result,
            // All that is wrong with the agent itself is a 500: not configured, VM stopped, not running, its own errors.
            Err(ApiError::Refused { detail, .. }) => {
                return Ok(AddressReport { detail, ..AddressReport::default() });
            }
            Err(ApiError::Locked { lock, .. }) => {
                let detail = format!("the VM is locked ({lock})");
                return Ok(AddressReport { detail, ..AddressReport::default() });
            }
            Err(error) => return Err(error.at(&action)),
        };
        let macs = self.macs().await.map_err(|error| error.at(&action))?;
        Ok(report(&interfaces, macs))
    }

    async fn stop(&self, ladder: &StopLadder) -> Result<StopRung, PortError> {
        self.stop_gently(ladder).await
    }

    async fn eject(&self, spec: &MachineSpec) -> Result<(), PortError> {
        if spec.isos.is_empty() || spec.iso_drives == IsoDrives::Keep {
            return Ok(());
        }
        let action = self.action("take the media out of");
        let fault = |error: ApiError| error.at(&action);
        let power = power_of(&self.status().await.map_err(fault)?);
        let present = self.config().await.map_err(fault)?;
        let source = self.source_of(spec).await.ok().flatten();
        let change = match power {
            Power::Stopped => newvm::gone(spec, &present, source.as_ref()),
            Power::Running | Power::Paused => newvm::emptied(spec, &present, source.as_ref()),
        };
        self.put_config(&change).await.map_err(fault)
    }

    async fn detach(&self, spec: &MachineSpec) -> Result<(), PortError> {
        let action = self.action("take the build's traces off");
        let fault = |error: ApiError| error.at(&action);
        let present = self.config().await.map_err(fault)?;
        // It may be gone by now: then what the build set is taken off.
        let source = self.source_of(spec).await.ok().flatten();
        self.remove_seed(&present).await.map_err(fault)?;
        self.put_config(&newvm::gone(spec, &present, source.as_ref())).await.map_err(fault)?;
        self.put_config(&params::detach(spec, &present, source.as_ref())).await.map_err(fault)?;
        if let Some((slot, value)) = params::cloud_init_drive(spec, &present) {
            self.allocate(&slot, &value).await.map_err(fault)?;
        }
        Ok(())
    }

    async fn describe(&self, mark: &Ownership) -> Result<(), PortError> {
        self.put_config(&params::mark(mark)).await.map_err(|error| error.at(&self.action("mark")))
    }

    async fn submit_finalize(&self, finish: &Finish) -> Result<TaskHandle, PortError> {
        let Finish::Template { notes, .. } = finish else {
            return Err(PortError::Unsupported { backend: "Proxmox VE", what: "make files".to_owned() });
        };
        let action = self.action("make a template of");
        let fault = |error: ApiError| error.at(&action);
        if self.config().await.map_err(fault)?.is_template() {
            return Ok(TaskHandle::finished(&self.at.node));
        }
        self.put_config(&params::notes(notes)).await.map_err(fault)?;
        let pace = Pace::start();
        loop {
            match self.submit(&["template"], &Params::new()).await {
                Err(ApiError::Refused { detail, .. }) if detail.contains("a template to a template") => {
                    return Ok(TaskHandle::finished(&self.at.node));
                }
                // A guest that has just switched itself off counts as running for a moment.
                Err(ApiError::Refused { detail, .. })
                    if detail.contains("if VM is running") && pace.elapsed() < SETTLE_LIMIT =>
                {
                    pace.rest().await;
                }
                Err(error) if error.is_locked() && pace.elapsed() < LOCK_PATIENCE => pace.rest().await,
                other => return other.map_err(fault),
            }
        }
    }

    async fn publish(&self, finish: &Finish) -> Result<(), PortError> {
        let Finish::Template { name, tags, notes } = finish else { return Ok(()) };
        let action = self.action("publish");
        let fault = |error: ApiError| error.at(&action);
        if !self.config().await.map_err(fault)?.is_template() {
            return Err(PortError::failed(action, "it is not a template"));
        }
        self.put_config(&params::finish(name, tags, notes)).await.map_err(fault)
    }

    async fn untag(&self, tag: &str) -> Result<(), PortError> {
        let action = self.action(&format!("take the tag `{tag}` off"));
        self.change_as_read(&action, |present| Ok(params::untag(present, tag))).await
    }

    async fn tag(&self, tag: &str) -> Result<(), PortError> {
        let action = self.action(&format!("give the tag `{tag}` to"));
        let change = |present: &VmConfig| match present.is_template() {
            true => Ok(params::tag(present, tag)),
            false => Err(PortError::failed(action.clone(), "it is not a template")),
        };
        self.change_as_read(&action, change).await
    }

    async fn discard(&self, chain_id: &str) -> Result<(), PortError> {
        self.discard_template(chain_id).await
    }

    async fn submit_archive(&self, chain_id: &str, place: &ArchivePlace) -> Result<TaskHandle, PortError> {
        self.submit_vzdump(chain_id, place).await
    }

    async fn archived(
        &self,
        chain_id: &str,
        place: &ArchivePlace,
        task: &TaskHandle,
    ) -> Result<String, PortError> {
        self.archived_at(chain_id, place, task).await
    }

    async fn artefact(&self, finish: &Finish) -> Result<Artefact, PortError> {
        let action = self.action("read the template made of");
        if !matches!(finish, Finish::Template { .. }) {
            return Err(PortError::Unsupported { backend: "Proxmox VE", what: "make files".to_owned() });
        }
        let config = self.config().await.map_err(|error| error.at(&action))?;
        if !config.is_template() {
            return Err(PortError::failed(action, "it is not a template"));
        }
        Ok(Artefact::Template { vm: self.at.clone(), name: config.name().to_owned() })
    }

    async fn power_off(&self) -> Result<(), PortError> {
        self.cut_power().await.map_err(|error| error.at(&self.action("cut the power of")))
    }

    async fn destroy(&self) -> Result<(), PortError> {
        self.remove().await
    }
}

/// Reads the data of an answer as a UPID.
///
/// # Errors
/// [`ApiError::Malformed`] when there is none.
pub(crate) fn expect_upid(request: &str, data: Value) -> Result<Upid, ApiError> {
    let text: String = decode(request, data)?;
    Upid::parse(&text).ok_or_else(|| ApiError::Malformed {
        request: request.to_owned(),
        source: format!("`{text}` is no task").into(),
    })
}
