//! A strict hypervisor in memory, for tests of the engine.
//!
//! Strict: it refuses whatever a real one would refuse (starting a template, destroying a running VM, changing a
//! locked one). It outlives its callers: every effect goes on when the caller hangs up, and several
//! [`FakeHypervisor`]s share one [`FakeWorld`] as several forge processes share one cluster.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::PortError;
use crate::facts::{Facts, FactsQuery, Finding, SourceDisk, SourceFacts, StorageFacts, TemplateFacts};
use crate::health::{Checkup, Diagnosis};
use crate::ids::{Nonce, TaskHandle, VmRef};
use crate::ownership::{BuildState, Ownership};
use crate::port::{
    Attachments, Capabilities, Fetch, HostAddress, Hypervisor, Machine, Orphan, Power, Standing,
};
use crate::source::{Checksum, Location, SourceSelector, SourceSpec};
use crate::spec::{CloneSelector, MachineSpec};

mod machine;

use machine::FakeMachine;

/// A VM of the fake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeVm {
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether it runs.
    pub power: Power,
    /// Whether it is a template.
    pub template: bool,
    /// The lock it bears while the world works on it.
    pub lock: Option<&'static str>,
    /// Whether it is protected from removal.
    pub protection: bool,
    /// Whether it starts with the host.
    pub onboot: bool,
    /// The seed that is attached.
    pub attachments: Attachments,
    /// The media in its drives.
    pub isos: Vec<String>,
}

impl FakeVm {
    /// A stopped VM of a name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            tags: Vec::new(),
            power: Power::Stopped,
            template: false,
            lock: None,
            protection: false,
            onboot: false,
            attachments: Attachments::default(),
            isos: Vec::new(),
        }
    }
}

/// An operation of the fake whose answer can be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FakeOp {
    /// Submitting a creation.
    Create,
    /// Writing a configuration.
    Configure,
    /// Starting.
    Start,
    /// Taking the build's settings off.
    Detach,
    /// Turning into a template.
    Finalize,
    /// Giving a template its name and tags.
    Publish,
    /// Taking a tag off a template.
    Untag,
    /// Giving a template a tag.
    Tag,
    /// Removing.
    Destroy,
}

#[derive(Debug, Default)]
struct State {
    vms: BTreeMap<VmRef, FakeVm>,
    tasks: BTreeMap<String, Option<Result<(), String>>>,
    next_task: u32,
    lost_answers: Vec<FakeOp>,
    refusals: BTreeMap<FakeOp, String>,
    clone_time: Duration,
    effects: Vec<String>,
}

/// What all fake hypervisors of a test share.
#[derive(Clone, Debug)]
pub struct FakeWorld {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

impl Default for FakeWorld {
    fn default() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl FakeWorld {
    /// A world with one boot VM `boot-vm` at 9000 on node `fake`, protected and started with the host, as sites
    /// have them.
    #[must_use]
    pub fn with_boot_vm() -> Self {
        let world = Self::default();
        let mut vm = FakeVm::new("boot-vm");
        vm.protection = true;
        vm.onboot = true;
        vm.tags = vec!["golden".into()];
        world.put(VmRef::new("9000", "fake"), vm);
        world
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a VM at an id.
    pub fn put(&self, at: VmRef, vm: FakeVm) {
        self.state().vms.insert(at, vm);
    }

    /// All VMs.
    #[must_use]
    pub fn vms(&self) -> BTreeMap<VmRef, FakeVm> {
        self.state().vms.clone()
    }

    /// What was changed, in order, in words.
    #[must_use]
    pub fn effects(&self) -> Vec<String> {
        self.state().effects.clone()
    }

    /// The answer to the next such operation is lost after it was carried out.
    pub fn lose_answer(&self, op: FakeOp) {
        self.state().lost_answers.push(op);
    }

    /// Every such operation is refused with these words, until [`FakeWorld::allow`].
    pub fn refuse(&self, op: FakeOp, words: &str) {
        self.state().refusals.insert(op, words.into());
    }

    /// Such operations work again.
    pub fn allow(&self, op: FakeOp) {
        self.state().refusals.remove(&op);
    }

    /// How long a clone takes.
    pub fn set_clone_time(&self, time: Duration) {
        self.state().clone_time = time;
    }

    /// Waits until something holds, looking again at each change.
    ///
    /// # Panics
    /// When it does not hold within 10 s.
    pub async fn until(&self, what: &str, holds: impl Fn(&BTreeMap<VmRef, FakeVm>) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !holds(&self.vms()) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), wait).await.is_ok(), "never seen: {what}");
    }

    /// Carries an effect out on a task of its own, so that it happens even when the caller hangs up.
    async fn effect<T: Send + 'static>(
        &self,
        op: FakeOp,
        what: String,
        act: impl FnOnce(&mut State) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        if let Some(words) = self.state().refusals.get(&op) {
            return Err(PortError::failed(what, words.clone()));
        }
        let world = self.clone();
        let described = what.clone();
        let done = tokio::spawn(async move {
            tokio::task::yield_now().await;
            let result = {
                let mut state = world.state();
                let result = act(&mut state);
                if result.is_ok() {
                    state.effects.push(described);
                }
                result
            };
            world.changed.send_replace(());
            result
        })
        .await
        .map_err(|error| PortError::broken("the fake world panicked", error))?;
        let lost = {
            let mut state = self.state();
            let position = state.lost_answers.iter().position(|each| *each == op);
            position.map(|index| state.lost_answers.remove(index)).is_some()
        };
        if lost { Err(PortError::OutcomeUnknown { what, source: None }) } else { done }
    }
}

/// A connection to a [`FakeWorld`].
#[derive(Clone, Debug)]
pub struct FakeHypervisor {
    world: FakeWorld,
}

impl FakeHypervisor {
    /// Connects to a world.
    #[must_use]
    pub fn new(world: FakeWorld) -> Self {
        Self { world }
    }
}

fn missing(at: &VmRef) -> PortError {
    PortError::NotFound { what: at.to_string() }
}

fn unlocked<'a>(state: &'a mut State, at: &VmRef) -> Result<&'a mut FakeVm, PortError> {
    let vm = state.vms.get_mut(at).ok_or_else(|| missing(at))?;
    match vm.lock {
        Some(lock) => Err(PortError::Locked { what: at.to_string(), lock: lock.into() }),
        None => Ok(vm),
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    fn target(&self) -> &str {
        "fake"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "fake",
            clones: true,
            images: false,
            isos: true,
            new_disks: true,
            kernel_boot: true,
            cloud_init_drive: false,
            smbios_serial: true,
            seed_disc: false,
            boot_disc: false,
            floppy: false,
            serial: false,
            templates: true,
            files: false,
            host_address: Some(HostAddress {
                seen: Ipv4Addr::LOCALHOST.into(),
                bind: Ipv4Addr::LOCALHOST.into(),
            }),
        }
    }

    async fn facts(&self, query: &FactsQuery) -> Result<(Facts, Vec<Finding>), PortError> {
        let vms = self.world.vms();
        let found = vms.iter().find(|(at, vm)| match &query.source {
            SourceSelector::Clone(CloneSelector::Name(name)) => vm.name == *name,
            SourceSelector::Clone(CloneSelector::Vmid(vmid)) => at.id == vmid.to_string(),
            SourceSelector::Clone(CloneSelector::Tags(tags)) => {
                vm.template && tags.iter().all(|tag| vm.tags.contains(tag))
            }
            SourceSelector::Image(_) | SourceSelector::New => false,
        });
        let blank = (query.source == SourceSelector::New).then(|| SourceFacts {
            vm: VmRef::new("", "fake"),
            name: "a new VM".into(),
            template: false,
            running: false,
            disks: Vec::new(),
            cloud_init: None,
            agent: true,
            networks: Vec::new(),
            memory_mib: 0,
            cores: 0,
        });
        let source = blank.or_else(|| {
            found.map(|(at, vm)| SourceFacts {
                vm: at.clone(),
                name: vm.name.clone(),
                template: vm.template,
                running: vm.power != Power::Stopped,
                disks: vec![SourceDisk { slot: "scsi0".into(), storage: "local".into(), size: 1 << 30 }],
                cloud_init: None,
                agent: true,
                networks: vec![("net0".into(), "virtio,bridge=vmbr0".into())],
                memory_mib: 1024,
                cores: 1,
            })
        });
        let findings = if source.is_some() {
            Vec::new()
        } else {
            vec![Finding::fatal("source.clone", "there is no such VM", "name one that exists")]
        };
        let facts = Facts {
            product: "fake 1".into(),
            notes: Vec::new(),
            nodes: vec!["fake".into()],
            placed: None,
            source,
            storages: vec![StorageFacts {
                name: "local".into(),
                content: vec!["images".into()],
                available: 1 << 40,
                active: true,
            }],
            bridges: Some(vec!["vmbr0".into()]),
            endpoint: Some("127.0.0.1:9".into()),
            no_seed_disc: None,
        };
        Ok((facts, findings))
    }

    fn check(&self, _spec: &MachineSpec, _facts: &Facts) -> Vec<Finding> {
        Vec::new()
    }

    async fn prepare_media(&self, spec: &MachineSpec, fetch: &dyn Fetch) -> Result<MachineSpec, PortError> {
        let mut spec = spec.clone();
        for medium in spec.media_mut() {
            if !matches!(medium.location, Location::Volume(_)) {
                medium.location = Location::File(fetch.fetch(medium, None).await?);
            }
            medium.checksum = Checksum::None;
        }
        Ok(spec)
    }

    async fn propose_id(&self, spec: &MachineSpec, refused: &[VmRef]) -> Result<VmRef, PortError> {
        let (low, high) = spec.ids.unwrap_or((100, 999_999));
        let vms = self.world.vms();
        (low..=high)
            .map(|id| VmRef::new(id.to_string(), spec.node.clone()))
            .filter(|at| !vms.contains_key(at))
            .min_by_key(|at| refused.iter().position(|each| each == at).map_or(0, |position| position + 1))
            .ok_or_else(|| PortError::failed("choosing an id", format!("none of {low}-{high} is free")))
    }

    async fn submit_create(
        &self,
        spec: &MachineSpec,
        at: &VmRef,
        mark: &Ownership,
    ) -> Result<TaskHandle, PortError> {
        if let Some(medium) = spec
            .media()
            .find(|medium| matches!(medium.location, Location::Url(_)) || medium.checksum != Checksum::None)
        {
            return Err(PortError::failed(
                "creating the VM",
                format!("{medium} is not on the target: its place was not prepared"),
            ));
        }
        let source = match spec.source.clone() {
            SourceSpec::Clone { vm, .. } => Some(vm),
            SourceSpec::New => None,
            SourceSpec::Image { .. } => {
                return Err(PortError::Unsupported { backend: "fake", what: "start from an image".into() });
            }
        };
        let isos: Vec<String> = spec.isos.iter().map(ToString::to_string).collect();
        let (at, mark, world) = (at.clone(), mark.clone(), self.world.clone());
        let what = format!("create {}", at.id);
        self.world
            .effect(FakeOp::Create, what, move |state| {
                if state.vms.contains_key(&at) {
                    return Err(PortError::IdTaken { id: at.id.clone() });
                }
                let source = match &source {
                    Some(source) => state.vms.get(source).ok_or_else(|| missing(source))?.clone(),
                    None => FakeVm::new(""),
                };
                state.next_task += 1;
                let task = format!("task-{}", state.next_task);
                state.tasks.insert(task.clone(), None);
                let mut placeholder = FakeVm::new("");
                placeholder.lock = Some("clone");
                placeholder.description = "clone temporary".into();
                state.vms.insert(at.clone(), placeholder);
                let time = state.clone_time;
                let handle = TaskHandle { id: task.clone(), node: at.node.clone() };
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    {
                        let mut state = world.state();
                        // Stopped in the meantime: the world has cleaned up.
                        if !matches!(state.tasks.get(&task), Some(None)) {
                            return;
                        }
                        let clone = FakeVm {
                            name: mark.nonce.vm_name(),
                            description: mark.to_description(),
                            power: Power::Stopped,
                            template: false,
                            lock: None,
                            isos,
                            ..source
                        };
                        state.vms.insert(at.clone(), clone);
                        state.tasks.insert(task.clone(), Some(Ok(())));
                    }
                    world.changed.send_replace(());
                });
                Ok(handle)
            })
            .await
    }

    async fn wait(&self, task: &TaskHandle) -> Result<(), PortError> {
        if task.is_finished() {
            return Ok(());
        }
        let mut changed = self.world.changed.subscribe();
        loop {
            match self.world.state().tasks.get(&task.id) {
                None => return Err(PortError::NotFound { what: format!("task {}", task.id) }),
                Some(Some(Ok(()))) => return Ok(()),
                Some(Some(Err(words))) => {
                    return Err(PortError::failed(format!("task {}", task.id), words.clone()));
                }
                Some(None) => {}
            }
            if changed.changed().await.is_err() {
                return Err(PortError::failed("waiting", "the fake world is gone"));
            }
        }
    }

    fn warnings(&self, _task: &TaskHandle) -> Vec<String> {
        Vec::new()
    }

    async fn stop_task(&self, task: &TaskHandle) -> Result<(), PortError> {
        {
            let mut state = self.world.state();
            if let Some(result @ None) = state.tasks.get_mut(&task.id) {
                *result = Some(Err("received interrupt".into()));
                state.vms.retain(|_, vm| vm.lock != Some("clone"));
            }
        }
        self.world.changed.send_replace(());
        Ok(())
    }

    async fn admission(&self, _spec: &MachineSpec, _at: Option<&VmRef>) -> Result<Option<String>, PortError> {
        Ok(None)
    }

    fn machine(&self, at: &VmRef) -> Arc<dyn Machine> {
        Arc::new(FakeMachine { world: self.world.clone(), at: at.clone() })
    }

    async fn standing(&self, at: &VmRef, nonce: &Nonce) -> Result<Standing, PortError> {
        let state = self.world.state();
        let Some(vm) = state.vms.get(at) else { return Ok(Standing::Gone) };
        if let Some(lock) = vm.lock {
            return Ok(Standing::Busy { lock: lock.into() });
        }
        let mark = Ownership::from_description(&vm.description).filter(|mark| mark.nonce == *nonce);
        Ok(match mark {
            Some(_) if vm.template => Standing::Committed,
            Some(mark) => Standing::Ours { power: vm.power, kept: mark.state == BuildState::Kept },
            None if vm.name == nonce.vm_name() => Standing::Ours { power: vm.power, kept: false },
            None => Standing::Foreign { name: vm.name.clone() },
        })
    }

    async fn orphans(&self) -> Result<Vec<Orphan>, PortError> {
        let marked = self.world.vms().into_iter().filter(|(_, vm)| !vm.template);
        Ok(marked
            .filter_map(|(vm, each)| {
                Ownership::from_description(&each.description).map(|mark| Orphan { vm, mark })
            })
            .collect())
    }

    async fn templates(&self, tag: Option<&str>) -> Result<Vec<TemplateFacts>, PortError> {
        let bears = |vm: &FakeVm| tag.is_none_or(|tag| vm.tags.iter().any(|each| each == tag));
        let templates = self.world.vms().into_iter().filter(|(_, vm)| vm.template && bears(vm));
        Ok(templates
            .map(|(vm, each)| TemplateFacts {
                vm,
                name: each.name.clone(),
                tags: each.tags.clone(),
                notes: Ownership::without_mark(&each.description),
                protected: false,
            })
            .collect())
    }

    async fn diagnose(&self, _checkup: &Checkup) -> Vec<Diagnosis> {
        vec![Diagnosis::pass("fake", "it is in this process")]
    }

    async fn linked_clones(&self, _template: &VmRef) -> Result<Vec<(VmRef, String)>, PortError> {
        // Its clones are copies.
        Ok(Vec::new())
    }

    async fn check_tags(&self, _tags: &[&str]) -> Result<Vec<Finding>, PortError> {
        Ok(Vec::new())
    }
}
