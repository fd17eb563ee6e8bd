//! A state folder, and builds of one plan in it, on whatever target a test opens.

use std::sync::Arc;
use std::time::Duration;

use forge::engine::JournalDir;
use forge::engine::effect::{Effect, When};
use forge::engine::on_error::OnError;
use forge::engine::run::{Build, Resumption, resume, run};
use forge::event::{BuildView, Bus, Ending, Envelope, Event, Redactor, Sink};
use forge::evidence::Folder;
use forge::plan::Plan;
use forge::stages::connect::Connector;
use forge_machine::{BuildState, Hypervisor, Nonce, Ownership};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::fake_build::{At, Blow, Collect, FakeConnector};

/// A point of a build, and what happens there.
pub type Point = (Effect, When, Blow);

/// Opens the target anew, as another process would.
pub type Open = Box<dyn Fn() -> Arc<dyn Hypervisor> + Send + Sync>;

/// Collects all events but output.
struct Quiet(Collect);

impl Sink for Quiet {
    fn take(&mut self, envelope: &Envelope, view: &BuildView) {
        if !matches!(envelope.event, Event::Output { .. }) {
            self.0.take(envelope, view);
        }
    }
}

/// A state folder and builds in it.
pub struct Workbench {
    state: tempfile::TempDir,
    events: Collect,
    plan: Arc<Plan>,
    open: Open,
    /// How the guest is reached.
    pub connector: Arc<dyn Connector>,
    /// What is done about failures.
    pub on_error: OnError,
    /// What masks the evidence.
    pub redactor: Redactor,
    /// Whether lines of output are not kept among what builds tell.
    pub without_output: bool,
}

impl Workbench {
    pub fn new(plan: Plan, open: Open) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        Self {
            state,
            events: Collect::default(),
            plan: Arc::new(plan),
            open,
            connector: Arc::new(FakeConnector),
            on_error: OnError::default(),
            redactor: Redactor::default(),
            without_output: false,
        }
    }

    /// A bus that collects what is told.
    fn bus(&self) -> Bus {
        let collect = self.events.clone();
        let sink: Box<dyn Sink> = match self.without_output {
            true => Box::new(Quiet(collect)),
            false => Box::new(collect),
        };
        Bus::start(vec![sink], self.redactor.clone())
    }

    /// The evidence of the builds here.
    pub fn evidence(&self) -> std::path::PathBuf {
        self.state.path().join("evidence")
    }

    fn journals(&self) -> JournalDir {
        JournalDir::in_state_dir(self.state.path())
    }

    fn build(&self, bus: &Bus, point: Option<Point>) -> (Build, Arc<Notify>, CancellationToken) {
        let plan = self.plan.clone();
        let cancel = CancellationToken::new();
        let reached = Arc::new(Notify::new());
        let evidence = Folder::create(self.evidence(), self.redactor.clone()).expect("a folder");
        let build = Build {
            hypervisor: (self.open)(),
            connector: self.connector.clone(),
            events: bus.events(plan.chain_id.clone()),
            journals: self.journals(),
            evidence,
            media: forge::media::Store::new(self.state.path().join("media")),
            mark: Ownership {
                nonce: Nonce::from_bytes([9; 8]),
                chain_id: plan.chain_id.clone(),
                owner: "test@here".into(),
                started: Timestamp::UNIX_EPOCH,
                heartbeat: Timestamp::UNIX_EPOCH,
                state: BuildState::Building,
                memory_mib: plan.machine.memory_mib,
            },
            cancel: cancel.clone(),
            on_error: self.on_error.clone(),
            faults: Arc::new(At { point, cancel: cancel.clone(), reached: reached.clone() }),
            plan,
        };
        (build, reached, cancel)
    }

    /// Builds, with a fault. `None` when the process died at the point.
    pub async fn build_with(&self, point: Option<Point>) -> Option<Ending> {
        let bus = self.bus();
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
        // The process is dead when nothing of it holds the journal's lock any more.
        while !abort.is_finished() {
            tokio::task::yield_now().await;
        }
        bus.close();
        ending
    }

    /// Builds until something holds, then interrupts.
    pub async fn interrupt_when(&self, holds: impl Future<Output = ()>) -> Ending {
        let bus = self.bus();
        let (build, _reached, cancel) = self.build(&bus, None);
        let task = tokio::spawn(run(build));
        holds.await;
        cancel.cancel();
        let ending = task.await.expect("run never panics");
        bus.close();
        ending
    }

    /// `forge gc` in this state folder.
    pub async fn gc(&self) -> Vec<forge::gc::Found> {
        let hypervisor = (self.open)();
        let mut found = Vec::new();
        for dead in self.journals().dead().expect("readable") {
            found.extend(
                forge::gc::replay(dead.expect("sound"), hypervisor.as_ref(), Duration::from_millis(200))
                    .await,
            );
        }
        found
    }

    /// `forge gc --left` in this state folder.
    pub async fn gc_left(&self) -> Vec<forge::gc::Found> {
        let dead = self.journals().dead().expect("readable").remove(0).expect("sound");
        forge::gc::remove_left(dead, (self.open)().as_ref(), Duration::from_millis(200)).await
    }

    /// `forge gc --kept` in this state folder.
    pub async fn gc_kept(&self) -> Vec<forge::gc::Found> {
        let dead = self.journals().dead().expect("readable").remove(0).expect("sound");
        forge::gc::remove_kept(dead, (self.open)().as_ref(), Duration::from_millis(200)).await
    }

    /// `forge finish` of the one kept build.
    pub async fn finish(&self) -> Ending {
        let dead = self.journals().dead().expect("readable").remove(0).expect("sound");
        let (story, journal) = dead.into_parts();
        let bus = self.bus();
        let (build, _reached, _cancel) = self.build(&bus, None);
        let kept = story.kept.expect("a kept build");
        let ending =
            resume(build, Resumption { journal, kept, undos: story.undos, before_seal: Vec::new() }).await;
        bus.close();
        ending
    }

    /// What builds have told so far.
    pub fn told(&self) -> Vec<Event> {
        let collected = self.events.0.lock().expect("not poisoned");
        collected.iter().map(|envelope| envelope.event.clone()).collect()
    }

    /// Files in the folder of journals.
    pub fn journal_files(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.state.path().join("journal")) else { return Vec::new() };
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }
}
