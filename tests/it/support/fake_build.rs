//! A build on the strict fake, with a fault at a chosen point.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use forge::engine::effect::{Effect, Faults, When};
use forge::engine::run::{Build, Resumption, resume, run};
use forge::engine::{JournalDir, StageError};
use forge::event::{Bus, Ending, Envelope, Redactor, Sink};
use forge::evidence::Folder;
use forge::plan::{AccessPlan, Deadlines, Delivery, Plan, SeedPlan};
use forge::stages::connect::{Connector, Login};
use forge_machine::fake::{FakeHypervisor, FakeWorld};
use forge_machine::{
    BuildState, ChainId, Command, ExecOutcome, Finish, Guest, GuestError, MachineSpec, Nonce, OutputSink,
    Ownership, SourceSpec, VmRef,
};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What happens at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The stage fails.
    Fail,
    /// The user interrupts.
    Interrupt,
    /// The process dies: everything is dropped, nothing is cleaned up.
    Die,
}

/// A fault at one point.
#[derive(Debug)]
pub struct At {
    point: Option<(Effect, When, Blow)>,
    cancel: CancellationToken,
    reached: Arc<Notify>,
}

#[async_trait]
impl Faults for At {
    async fn reach(&self, effect: Effect, when: When) -> Result<(), String> {
        match self.point {
            Some((at, then, blow)) if at == effect && then == when => match blow {
                Blow::Fail => Err(format!("injected {when:?} {effect:?}")),
                Blow::Interrupt => {
                    self.cancel.cancel();
                    Ok(())
                }
                Blow::Die => {
                    self.reached.notify_one();
                    std::future::pending().await
                }
            },
            _ => Ok(()),
        }
    }
}

/// A guest that answers and does nothing.
#[derive(Debug)]
struct FakeGuest;

#[async_trait]
impl Guest for FakeGuest {
    fn describe(&self) -> String {
        "forge@127.0.0.1".into()
    }
    fn host_key(&self) -> Option<String> {
        Some("SHA256:fake".into())
    }
    async fn exec(
        &self,
        _command: &Command,
        _output: &mut dyn OutputSink,
    ) -> Result<ExecOutcome, GuestError> {
        Ok(ExecOutcome::Exited(0))
    }
    async fn put(&self, _path: &str, _content: &[u8], _mode: u32) -> Result<(), GuestError> {
        Ok(())
    }
    async fn get(&self, _path: &str, _limit: u64) -> Result<Vec<u8>, GuestError> {
        Ok(Vec::new())
    }
    async fn reconnect(&self, _limit: Duration) -> Result<(), GuestError> {
        Ok(())
    }
    async fn close(&self) {}
}

/// Logs in at once.
#[derive(Debug)]
struct FakeConnector;

#[async_trait]
impl Connector for FakeConnector {
    async fn connect(
        &self,
        login: &Login,
        seen: &(dyn for<'a> Fn(&'a str) + Send + Sync),
    ) -> Result<Arc<dyn Guest>, StageError> {
        seen("the fake guest answers");
        assert!(login.host_key.as_deref().is_none_or(|key| key == "SHA256:fake"));
        Ok(Arc::new(FakeGuest))
    }
}

/// Collects events.
#[derive(Clone, Default)]
pub struct Collect(pub Arc<Mutex<Vec<Envelope>>>);

impl Sink for Collect {
    fn take(&mut self, envelope: &Envelope, _view: &forge::event::BuildView) {
        self.0.lock().expect("not poisoned").push(envelope.clone());
    }
}

/// A plan for the fake, without provisioners and seal operations.
pub fn plan() -> Plan {
    Plan {
        version: forge::plan::VERSION,
        chain_id: ChainId::new("CHAIN-20261121T040506Z-fake"),
        profile: "fake".into(),
        profile_files: Vec::new(),
        target: "fake".into(),
        product: "fake 1".into(),
        notes: Vec::new(),
        planned: Timestamp::UNIX_EPOCH,
        machine: MachineSpec {
            source: SourceSpec::Clone {
                vm: VmRef::new("9000", "fake"),
                name: "boot-vm".into(),
                full: true,
                storage: None,
            },
            node: "fake".into(),
            ids: Some((100, 199)),
            pool: None,
            cores: None,
            sockets: None,
            cpu: None,
            memory_mib: None,
            disks: Vec::new(),
            networks: Vec::new(),
            agent: None,
            cloud_init: None,
            extra: BTreeMap::new(),
        },
        seed: SeedPlan {
            delivery: Delivery::Smbios,
            why: "a test".into(),
            bind: "127.0.0.1".into(),
            ports: (0, 0),
            address: Some("127.0.0.1".into()),
            endpoint: None,
            hostname: None,
            user_data: None,
            network_config: None,
        },
        boot: Vec::new(),
        access: AccessPlan { user: "forge".into(), create: true },
        provision: Vec::new(),
        seal: Vec::new(),
        finish: Finish::Template {
            name: "tpl-fake".into(),
            tags: vec!["fake".into()],
            notes: "made by a test".into(),
        },
        deadlines: Deadlines {
            boot: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            shutdown: Duration::from_secs(5),
            build: None,
        },
    }
}

/// A world, a state folder, and builds in them.
pub struct Site {
    pub world: FakeWorld,
    pub state: tempfile::TempDir,
    pub events: Collect,
}

impl Site {
    pub fn new() -> Self {
        Self {
            world: FakeWorld::with_boot_vm(),
            state: tempfile::tempdir().expect("a folder"),
            events: Collect::default(),
        }
    }

    pub fn journals(&self) -> JournalDir {
        JournalDir::in_state_dir(self.state.path())
    }

    fn build(
        &self,
        bus: &Bus,
        point: Option<(Effect, When, Blow)>,
    ) -> (Build, Arc<Notify>, CancellationToken) {
        let plan = Arc::new(plan());
        let cancel = CancellationToken::new();
        let reached = Arc::new(Notify::new());
        let evidence =
            Folder::create(self.state.path().join("evidence"), Redactor::default()).expect("a folder");
        let build = Build {
            hypervisor: Arc::new(FakeHypervisor::new(self.world.clone())),
            connector: Arc::new(FakeConnector),
            events: bus.events(plan.chain_id.clone()),
            journals: self.journals(),
            evidence,
            mark: Ownership {
                nonce: Nonce::from_bytes([9; 8]),
                chain_id: plan.chain_id.clone(),
                owner: "test@here".into(),
                started: Timestamp::UNIX_EPOCH,
                heartbeat: Timestamp::UNIX_EPOCH,
                state: BuildState::Building,
            },
            cancel: cancel.clone(),
            faults: Arc::new(At { point, cancel: cancel.clone(), reached: reached.clone() }),
            plan,
        };
        (build, reached, cancel)
    }

    /// Builds, with a fault. `None` when the process died at the point.
    pub async fn build_with(&self, point: Option<(Effect, When, Blow)>) -> Option<Ending> {
        let bus = Bus::start(vec![Box::new(self.events.clone())], Redactor::default());
        let (build, reached, _cancel) = self.build(&bus, point);
        let task = tokio::spawn(run(build));
        let abort = task.abort_handle();
        let ending = tokio::select! {
            ending = task => Some(ending.expect("run never panics")),
            () = reached.notified() => {
                abort.abort();
                None
            }
        };
        tokio::task::yield_now().await;
        bus.close();
        ending
    }

    /// Builds until something holds in the world, then interrupts.
    pub async fn interrupt_when(
        &self,
        what: &str,
        holds: impl Fn(&BTreeMap<VmRef, forge_machine::fake::FakeVm>) -> bool,
    ) -> Ending {
        let bus = Bus::start(vec![Box::new(self.events.clone())], Redactor::default());
        let (build, _reached, cancel) = self.build(&bus, None);
        let task = tokio::spawn(run(build));
        self.world.until(what, holds).await;
        cancel.cancel();
        let ending = task.await.expect("run never panics");
        bus.close();
        ending
    }

    /// `forge gc` in this state folder.
    pub async fn gc(&self) -> Vec<forge::gc::Found> {
        let hypervisor = FakeHypervisor::new(self.world.clone());
        let mut found = Vec::new();
        for dead in self.journals().dead().expect("readable") {
            found.extend(forge::gc::replay(dead.expect("sound"), &hypervisor).await);
        }
        found
    }

    /// `forge finish` of the one kept build.
    pub async fn finish(&self) -> Ending {
        let dead = self.journals().dead().expect("readable").remove(0).expect("sound");
        let (story, journal) = dead.into_parts();
        let bus = Bus::start(vec![Box::new(self.events.clone())], Redactor::default());
        let (build, _reached, _cancel) = self.build(&bus, None);
        let kept = story.kept.expect("a kept build");
        let ending = resume(build, Resumption { journal, kept, undos: story.undos }).await;
        bus.close();
        ending
    }

    /// Files in the folder of journals.
    pub fn journal_files(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.state.path().join("journal")) else { return Vec::new() };
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }
}
