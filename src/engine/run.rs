//! Runs one build from its plan to its ending.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forge_machine::{BuildState, Hypervisor, Machine, Ownership, Standing};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::aside::{keep, leave, to_be_left, write_key};
use super::bindings::Bindings;
use super::cleanup::Cleanup;
use super::cx::Cx;
use super::effect::Faults;
use super::error::StageError;
use super::journal::{Journal, JournalDir, KeptBuild, OpenUndo, Record};
use super::on_error::{OnError, Reaction};
use crate::event::{CheckResult, Ending, Event, Events, Failure, Region, Stage};
use crate::evidence::Folder;
use crate::media::Store;
use crate::plan::{Plan, Purpose};
use crate::provision::Step;
use crate::remote::BuildKey;
use crate::stages::connect::Connector;
use crate::stages::finish::Committed;
use crate::stages::{self, Connected, Created, Provisioned, Sealed, Seeded, Stopped};

/// Everything a build needs to run.
#[derive(Debug)]
pub struct Build {
    /// What to do.
    pub plan: Arc<Plan>,
    /// The target.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// How the guest is reached.
    pub connector: Arc<dyn Connector>,
    /// Where events go.
    pub events: Events,
    /// Where journals are.
    pub journals: JournalDir,
    /// The folder of evidence.
    pub evidence: Folder,
    /// Where media are downloaded to.
    pub media: Store,
    /// The mark that the build VM bears.
    pub mark: Ownership,
    /// Interrupts the build.
    pub cancel: CancellationToken,
    /// What is done when it fails before its keep point.
    pub on_error: OnError,
    /// Where tests make it fail.
    pub faults: Arc<dyn Faults>,
}

/// How a kept build goes on.
#[derive(Debug)]
pub struct Resumption {
    /// The journal, locked.
    pub journal: Journal,
    /// Where the build was.
    pub kept: KeptBuild,
    /// What is still to be undone, newest first.
    pub undos: Vec<OpenUndo>,
    /// What is done in the guest before it is sealed; only in one that is not sealed yet.
    pub before_seal: Vec<Step>,
}

/// Runs a build. Never panics and never leaves silently: whatever happens is in the ending.
pub async fn run(build: Build) -> Ending {
    let cleanup = open_journal(&build).map(Cleanup::new);
    start(build, cleanup, None).await
}

/// Goes on with a kept build.
pub async fn resume(build: Build, resumption: Resumption) -> Ending {
    let Resumption { journal, kept, undos, before_seal } = resumption;
    start(build, Ok(Cleanup::resume(journal, undos)), Some((kept, before_seal))).await
}

fn open_journal(build: &Build) -> Result<Journal, StageError> {
    let mut journal = build.journals.create(&build.plan.chain_id)?;
    journal.write(&Record::Opened {
        version: 1,
        chain_id: build.plan.chain_id.clone(),
        profile: build.plan.profile.clone(),
        target: build.plan.target.clone(),
        nonce: build.mark.nonce.clone(),
        started: build.mark.started,
        // `forge finish` may run in another folder.
        evidence: std::path::absolute(build.evidence.path())
            .unwrap_or_else(|_| build.evidence.path().to_owned()),
    })?;
    Ok(journal)
}

async fn start(
    build: Build,
    cleanup: Result<Cleanup, StageError>,
    kept: Option<(KeptBuild, Vec<Step>)>,
) -> Ending {
    let Build {
        plan,
        hypervisor,
        connector,
        events,
        journals,
        evidence,
        media,
        mark,
        cancel,
        on_error,
        faults,
    } = build;
    let evidence_path = evidence.path().to_owned();
    events.emit(Event::BuildStarted {
        profile: plan.profile.clone(),
        target: plan.target.clone(),
        product: plan.product.clone(),
        makes: plan.makes(),
        evidence: evidence_path.clone(),
        plan: plan.digest(),
    });
    let ending = match cleanup {
        Err(error) => Ending::Failed { failure: error.to_failure(None), left_behind: Vec::new() },
        Ok(cleanup) => {
            let bindings = Bindings::new(events.clone());
            let mut cx = Cx {
                plan,
                hypervisor,
                mark,
                connector,
                events: events.clone(),
                cleanup,
                bindings,
                evidence,
                media,
                region: Region::Building,
                reaction: Reaction::new(on_error),
                cancel,
                faults,
            };
            let mut progress = Progress::new(journals, kept);
            let result = limited(&mut cx, &mut progress).await;
            conclude(cx, progress, result).await
        }
    };
    let took_ms = u64::try_from(events.began().elapsed().as_millis()).unwrap_or(u64::MAX);
    events.emit(Event::BuildFinished { ending: ending.clone(), took_ms, evidence: evidence_path });
    ending
}

/// What the conclusion needs to know of how far the stages came.
#[derive(Debug)]
pub(super) struct Progress {
    journals: JournalDir,
    kept: Option<KeptBuild>,
    before_seal: Vec<Step>,
    pub(super) machine: Option<Arc<dyn Machine>>,
    pub(super) key: Option<Arc<BuildKey>>,
}

impl Progress {
    fn new(journals: JournalDir, kept: Option<(KeptBuild, Vec<Step>)>) -> Self {
        let (kept, before_seal) = kept.unzip();
        Self { journals, kept, before_seal: before_seal.unwrap_or_default(), machine: None, key: None }
    }

    pub(super) fn key_file(&self, cx: &Cx) -> PathBuf {
        self.journals.path().join(format!("{}.key", cx.plan.chain_id))
    }
}

type StageResult<T> = Result<T, (Stage, StageError)>;

/// Runs the stages, turning a panic into a failure and the build's own deadline into an interruption.
async fn limited(cx: &mut Cx, progress: &mut Progress) -> Result<Outcome, Failure> {
    let limit = cx.plan.deadlines.build;
    let cancel = cx.cancel.clone();
    let events = cx.events.clone();
    let stages = AssertUnwindSafe(pipeline(cx, progress)).catch_unwind();
    tokio::pin!(stages);
    let mut overdue = false;
    let result = loop {
        tokio::select! {
            result = &mut stages => break result,
            () = sleep_for(limit), if !overdue => {
                overdue = true;
                events.emit(Event::Warning { message: "the build took longer than `deadlines.build`".into(), help: String::new() });
                // The stages notice it where they may be dropped, and nothing is cut off in flight.
                cancel.cancel();
            }
        }
    };
    match result {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err((stage, error))) if overdue && error.is_interruption() => {
            let limit = limit.unwrap_or_default();
            let error = StageError::new(format!("the build was not done within {} s", limit.as_secs()))
                .hint("raise `deadlines.build`");
            Err(error.to_failure(Some(stage)))
        }
        Ok(Err((stage, error))) => Err(error.to_failure(Some(stage))),
        Err(panic) => {
            let words = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default();
            Err(StageError::new(format!("forge itself is at fault: {words}"))
                .hint("please report it, with the folder of evidence")
                .to_failure(None))
        }
    }
}

async fn sleep_for(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// What the stages came to.
#[derive(Debug)]
enum Outcome {
    /// The commit point is passed.
    Committed(Committed),
    /// The template was tried.
    Tested(Vec<CheckResult>),
}

async fn pipeline(cx: &mut Cx, progress: &mut Progress) -> StageResult<Outcome> {
    match cx.plan.purpose {
        Purpose::Build => build(cx, progress).await.map(Outcome::Committed),
        Purpose::Test => test(cx, progress).await.map(Outcome::Tested),
    }
}

/// Tries a template: up to the login as a build, then the checks.
async fn test(cx: &mut Cx, progress: &mut Progress) -> StageResult<Vec<CheckResult>> {
    let (connected, _seeded) = up_to_login(cx, progress).await?;
    let clock = cx.begin(Stage::Provision);
    let result = stages::check::check(cx, &connected).await;
    cx.end(clock, result, |checks| format!("{} checks", checks.len()))
}

async fn build(cx: &mut Cx, progress: &mut Progress) -> StageResult<Committed> {
    let sealed = match progress.kept.clone() {
        None => {
            let provisioned = up_to_keep_point(cx, progress).await?;
            seal(cx, progress, provisioned).await?
        }
        Some(kept) => {
            cx.enter(Region::Keeping);
            let machine = still_kept(cx, &kept).await?;
            progress.machine = Some(machine.clone());
            if kept.sealed {
                let key = stages::connect::kept_key(&kept).ok();
                Sealed { machine, forbidden: stages::seal::forbidden(cx, key.as_deref()) }
            } else {
                let connected = reconnect(cx, machine, &kept).await?;
                let provisioned = match std::mem::take(&mut progress.before_seal) {
                    none if none.is_empty() => Provisioned(connected),
                    steps => provision(cx, connected, &steps).await?,
                };
                seal(cx, progress, provisioned).await?
            }
        }
    };
    let clock = cx.begin(Stage::Shutdown);
    let result = stages::shutdown::shutdown(cx, sealed).await;
    let stopped: Stopped = cx.end(clock, result, |_| "stopped".into())?;
    let clock = cx.begin(Stage::Finish);
    let result = stages::finish::finish(cx, stopped).await;
    let makes = cx.plan.makes();
    cx.end(clock, result, |_| makes)
}

/// Makes the VM, starts it and logs in.
async fn up_to_login(cx: &mut Cx, progress: &mut Progress) -> StageResult<(Connected, Seeded)> {
    let clock = cx.begin(Stage::Seed);
    let result = match BuildKey::generate() {
        Ok(key) => stages::seed::seed(cx, Arc::new(key)).await,
        Err(error) => Err(StageError::caused("no key could be made for the build", error)),
    };
    let delivery = cx.plan.seed.delivery;
    let seeded = cx.end(clock, result, |_| format!("delivered by {}", delivery.name()))?;
    progress.key = Some(seeded.key.clone());

    let clock = cx.begin(Stage::Create);
    let result = stages::create::create(cx, &seeded).await;
    let created: Created =
        cx.end(clock, result, |created: &Created| created.machine.reference().to_string())?;
    progress.machine = Some(created.machine.clone());

    let clock = cx.begin(Stage::Boot);
    let result = stages::boot::boot(cx, created).await;
    let steps = cx.plan.boot.len();
    let running = cx.end(clock, result, |_| match steps {
        0 => "started".into(),
        1 => "1 boot step".into(),
        more => format!("{more} boot steps"),
    })?;

    let clock = cx.begin(Stage::Connect);
    let result = match stages::install::installed(cx, running, &seeded).await {
        Ok(running) => stages::connect::connect(cx, running, &seeded).await,
        Err(error) => Err(error),
    };
    let connected: Connected = cx.end(clock, result, |connected: &Connected| connected.guest.describe())?;
    Ok((connected, seeded))
}

async fn up_to_keep_point(cx: &mut Cx, progress: &mut Progress) -> StageResult<Provisioned> {
    let (connected, seeded) = up_to_login(cx, progress).await?;
    let plan = cx.plan.clone();
    let clock = cx.begin(Stage::Provision);
    let result = stages::provision::provision(cx, connected, &plan.provision).await;
    seeded.close();
    let result = match result {
        Ok(provisioned) => keep_point(cx, progress, &seeded.key, &provisioned).await.map(|()| provisioned),
        Err(error) => Err(error),
    };
    cx.end(clock, result, |_| provisioners(plan.provision.len()))
}

fn provisioners(count: usize) -> String {
    if count == 1 { "1 provisioner".into() } else { format!("{count} provisioners") }
}

/// Does in a kept guest what is to be done before it is sealed.
async fn provision(cx: &mut Cx, connected: Connected, steps: &[Step]) -> StageResult<Provisioned> {
    let clock = cx.begin(Stage::Provision);
    let result = stages::provision::provision(cx, connected, steps).await;
    cx.end(clock, result, |_| provisioners(steps.len()))
}

/// The kept VM, if it is still the one that the build kept: its id may have gone to somebody else since.
async fn still_kept(cx: &Cx, kept: &KeptBuild) -> StageResult<Arc<dyn Machine>> {
    let vm = &kept.vm;
    let at = |error| (Stage::Connect, error);
    let standing = cx.hypervisor.standing(vm, &cx.mark.nonce).await;
    let standing = standing.map_err(|error| {
        at(StageError::port(format!("{vm} could not be looked at; nothing was done"), error))
    })?;
    let other = match standing {
        Standing::Ours { .. } | Standing::Committed => return Ok(cx.hypervisor.machine(vm)),
        Standing::Busy { lock } => {
            return Err(at(StageError::new(format!("{vm} is locked ({lock}); nothing was done"))
                .hint("wait until the target has finished with it, then try again")));
        }
        Standing::Gone => format!("{vm}, which was kept, does not exist any more"),
        Standing::Foreign { name } => {
            format!("{vm} is `{name}` now and not the VM that was kept; it was not touched")
        }
    };
    Err(at(StageError::new(other)
        .hint("there is nothing to finish; `forge gc` closes the journal of that build")))
}

/// From here on no failure removes the work: journal first, then the region, then the VM's own mark, by which a `gc` of
/// another machine knows it.
async fn keep_point(
    cx: &mut Cx,
    progress: &mut Progress,
    key: &BuildKey,
    done: &Provisioned,
) -> Result<(), StageError> {
    let path = progress.key_file(cx);
    write_key(cx, &path, key)?;
    let Provisioned(connected) = done;
    let kept = KeptBuild {
        vm: connected.machine.reference().clone(),
        sealed: false,
        key_file: Some(path),
        host_key: connected.guest.host_key(),
    };
    cx.cleanup.keeping(kept.clone())?;
    progress.kept = Some(kept);
    cx.enter(Region::Keeping);
    cx.mark.state = BuildState::Kept;
    let mark = Ownership { heartbeat: Timestamp::now(), ..cx.mark.clone() };
    if let Err(error) = connected.machine.describe(&mark).await {
        tracing::debug!(%error, "the VM could not be marked as kept");
    }
    Ok(())
}

/// Starts a kept VM again and logs in with the key that was kept.
async fn reconnect(cx: &mut Cx, machine: Arc<dyn Machine>, kept: &KeptBuild) -> StageResult<Connected> {
    let clock = cx.begin(Stage::Connect);
    let result = stages::connect::reconnect(cx, machine, kept).await;
    cx.end(clock, result, |connected: &Connected| connected.guest.describe())
}

async fn seal(cx: &mut Cx, progress: &mut Progress, provisioned: Provisioned) -> StageResult<Sealed> {
    let clock = cx.begin(Stage::Seal);
    let result = stages::seal::seal(cx, provisioned).await;
    // Noted at once: a sealed guest lets nobody in to seal it again.
    let result = match result {
        Ok(sealed) => cx.cleanup.sealed().map(|()| sealed).map_err(StageError::from),
        Err(error) => Err(error),
    };
    if let (Ok(_), Some(kept)) = (&result, &mut progress.kept) {
        kept.sealed = true;
    }
    let count = cx.plan.seal.len();
    cx.end(clock, result, |_| format!("{count} operations"))
}

async fn conclude(mut cx: Cx, progress: Progress, result: Result<Outcome, Failure>) -> Ending {
    let hypervisor = cx.hypervisor.clone();
    let events = cx.events.clone();
    match result {
        Ok(Outcome::Tested(checks)) => {
            let left_behind = cx.cleanup.unwind(&hypervisor, &events, true).await;
            if left_behind.is_empty()
                && let Err(error) = cx.cleanup.close()
            {
                tracing::warn!(%error, "the clone is removed, but the journal stays");
            }
            Ending::Tested { checks, left_behind }
        }
        Ok(Outcome::Committed(Committed { artefact, trouble, published })) => {
            let mut left = cx.cleanup.unwind(&hypervisor, &events, false).await;
            // A journal that stays lets `forge gc` do the rest.
            if left.is_empty()
                && published
                && let Err(error) = cx.cleanup.close()
            {
                left.push(super::error::chain(&error));
            }
            let trouble = trouble.or_else(|| {
                let incomplete =
                    || StageError::new("the clean-up is not complete").hint("`forge gc` tries again");
                (!left.is_empty()).then(|| left.into_iter().fold(incomplete(), StageError::seen))
            });
            match (artefact, trouble) {
                (Some(artefact), None) => Ending::Done { artefact },
                (artefact, trouble) => {
                    let error = trouble.unwrap_or_else(|| StageError::new("the artefact was not seen"));
                    Ending::DoneWithFailure { artefact, failure: error.to_failure(Some(Stage::Finish)) }
                }
            }
        }
        Err(failure) if cx.region == Region::Building => {
            if failure.interrupted {
                events.emit(Event::Interrupted {});
            }
            if let Some(machine) = to_be_left(&cx, &progress, &failure).await {
                return leave(cx, progress, machine, failure).await;
            }
            let left_behind = cx.cleanup.unwind(&hypervisor, &events, true).await;
            if left_behind.is_empty()
                && let Err(error) = cx.cleanup.close()
            {
                tracing::warn!(%error, "everything is removed, but the journal stays");
            }
            Ending::Failed { failure, left_behind }
        }
        Err(failure) => {
            if failure.interrupted {
                events.emit(Event::Interrupted {});
            }
            keep(&cx, progress, failure).await
        }
    }
}
