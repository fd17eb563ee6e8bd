//! What a stage gets to work with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forge_machine::{Finish, Hypervisor, Machine, Ownership, PortError, TaskHandle};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::bindings::Bindings;
use super::cleanup::Cleanup;
use super::effect::{Effect, Faults, When};
use super::error::StageError;
use super::on_error::Reaction;
use crate::event::{Event, Events, Region, Stage};
use crate::evidence::Folder;
use crate::media::Store;
use crate::plan::Plan;
use crate::stages::connect::Connector;

/// How often the mark on a VM at work is renewed, so that `forge gc --orphans` can tell a dead build by its age.
const HEARTBEAT: Duration = Duration::from_secs(600);

/// The surroundings of a build's stages. Stages get no raw cancellation token: what may be dropped goes through
/// [`Cx::cancellable`], everything else through [`Cx::effect`].
#[derive(Debug)]
pub struct Cx {
    /// The plan; never changed.
    pub plan: Arc<Plan>,
    /// The target.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// The mark that the build VM bears.
    pub mark: Ownership,
    /// How the guest is reached.
    pub connector: Arc<dyn Connector>,
    /// Where events go.
    pub events: Events,
    /// The undos.
    pub cleanup: Cleanup,
    /// The late values.
    pub bindings: Bindings,
    /// The folder of evidence.
    pub evidence: Folder,
    /// Where media are downloaded to.
    pub media: Store,
    /// How far the build came.
    pub(crate) region: Region,
    /// What is done about a failure.
    pub reaction: Reaction,
    pub(super) cancel: CancellationToken,
    pub(super) faults: Arc<dyn Faults>,
}

impl Cx {
    /// Tells what a stage does now.
    pub fn doing(&self, stage: Stage, what: impl Into<String>) {
        self.events.emit(Event::Doing { stage, what: what.into() });
    }

    /// Tells of something that is not right and doesn't stop the build.
    pub fn warn(&self, message: impl Into<String>, help: impl Into<String>) {
        self.events.emit(Event::Warning { message: message.into(), help: help.into() });
    }

    /// Waits for submitted work, and tells what the target warned of in it. May be dropped: the work goes on.
    ///
    /// # Errors
    /// The work's own failure.
    pub async fn wait(&self, task: &TaskHandle) -> Result<(), PortError> {
        self.hypervisor.wait(task).await?;
        for warning in self.hypervisor.warnings(task) {
            self.warn(format!("{} warns: {warning}", self.hypervisor.capabilities().name), "");
        }
        Ok(())
    }

    /// Tells what a wait sees now.
    pub fn waiting(&self, stage: Stage, what: &str, seen: impl Into<String>, limit: Duration) {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.events.emit(Event::Waiting { stage, what: what.to_owned(), seen: seen.into(), limit_ms });
    }

    /// Runs what may be dropped at any await: reads, waits, remote commands, typing.
    ///
    /// # Errors
    /// The future's own error, or an interruption.
    pub async fn cancellable<T, E: Into<StageError>>(
        &self,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, StageError> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(StageError::interruption()),
            result = future => result.map_err(Into::into),
        }
    }

    /// Runs what must not be dropped in flight. Refused when the build is already interrupted.
    ///
    /// # Errors
    /// The future's own error, or an interruption before it was begun.
    pub async fn effect<T>(
        &self,
        effect: Effect,
        future: impl Future<Output = Result<T, StageError>>,
    ) -> Result<T, StageError> {
        self.reach(effect, When::Before).await?;
        let value = future.await?;
        self.reach(effect, When::After).await?;
        Ok(value)
    }

    /// Runs an effect that may be dropped, because its undo takes back whatever half of it was done.
    ///
    /// # Errors
    /// The future's own error, or an interruption.
    pub async fn cancellable_effect<T>(
        &self,
        effect: Effect,
        future: impl Future<Output = Result<T, StageError>>,
    ) -> Result<T, StageError> {
        self.reach(effect, When::Before).await?;
        let value = self.cancellable(future).await?;
        self.reach(effect, When::After).await?;
        Ok(value)
    }

    /// Runs what has to follow the commit point: no interruption keeps it from being tried.
    ///
    /// # Errors
    /// The future's own error.
    pub async fn completing<T>(
        &self,
        effect: Effect,
        future: impl Future<Output = Result<T, StageError>>,
    ) -> Result<T, StageError> {
        self.faults.reach(effect, When::Before).await.map_err(StageError::new)?;
        let value = future.await?;
        self.faults.reach(effect, When::After).await.map_err(StageError::new)?;
        Ok(value)
    }

    /// A point where tests may fail or interrupt the build.
    async fn reach(&self, effect: Effect, when: When) -> Result<(), StageError> {
        self.faults.reach(effect, when).await.map_err(StageError::new)?;
        // After an effect its result must still be taken in: an interruption is noticed at the next step.
        if when == When::Before && self.cancel.is_cancelled() {
            Err(StageError::interruption())
        } else {
            Ok(())
        }
    }

    /// Runs something long while the mark on the VM is renewed now and then. May be dropped.
    pub async fn alive<T>(&self, machine: &dyn Machine, future: impl Future<Output = T>) -> T {
        tokio::pin!(future);
        loop {
            tokio::select! {
                biased;
                value = &mut future => return value,
                () = tokio::time::sleep(HEARTBEAT) => {
                    let mark = Ownership { heartbeat: Timestamp::now(), ..self.mark.clone() };
                    if let Err(error) = machine.describe(&mark).await {
                        tracing::debug!(%error, "the mark could not be renewed");
                    }
                }
            }
        }
    }

    /// The build passes into another region.
    pub(crate) fn enter(&mut self, region: Region) {
        if self.region < region {
            self.region = region;
            self.events.emit(Event::Entered { region });
        }
    }

    /// The plan's finish, with the build's mark at the end of the notes, so that a template whose answer was lost
    /// can still be told from a foreign one.
    #[must_use]
    pub fn finish_with_mark(&self) -> Finish {
        match &self.plan.finish {
            Finish::Template { name, tags, notes } => Finish::Template {
                name: name.clone(),
                tags: tags.clone(),
                notes: format!("{notes}\n\n{}", self.mark.to_comment()),
            },
            files @ Finish::Files { .. } => files.clone(),
        }
    }

    /// Begins a stage.
    pub(super) fn begin(&self, stage: Stage) -> (Stage, Instant) {
        self.events.emit(Event::StageStarted { stage });
        (stage, Instant::now())
    }

    /// Ends a stage, well or not.
    pub(super) fn end<T>(
        &self,
        (stage, began): (Stage, Instant),
        result: Result<T, StageError>,
        words: impl FnOnce(&T) -> String,
    ) -> Result<T, (Stage, StageError)> {
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok(value) => {
                self.events.emit(Event::StageFinished { stage, took_ms, result: words(&value) });
                Ok(value)
            }
            Err(error) => {
                let error = error.placed(&self.plan.places);
                self.events.emit(Event::StageFailed { failure: error.to_failure(Some(stage)), took_ms });
                Err((stage, error))
            }
        }
    }

    /// Whether the build was asked to stop.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
