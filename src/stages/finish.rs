//! Turns the stopped VM into the artefact. The commit point lies in here.

use std::sync::Arc;
use std::time::Duration;

use forge_machine::{Artefact, Finish, Forbidden, Machine, Standing, TAG_LATEST};

use super::Stopped;
use crate::engine::publish::retire;
use crate::engine::{Cx, Effect, StageError};
use crate::event::{Region, Stage};

/// How the commit point was passed.
#[derive(Debug)]
pub struct Committed {
    /// The artefact, when it could be read back; an artefact whose answer was lost counts as made.
    pub artefact: Option<Artefact>,
    /// What failed at or after the commit point.
    pub trouble: Option<StageError>,
    /// Whether it has its name and tags; else the journal has to stay, for `forge gc` to publish it.
    pub published: bool,
}

/// Takes the build's settings off the VM, turns it into the artefact, and publishes that.
///
/// # Errors
/// Only when the VM is certainly not the artefact: it can then be kept.
pub async fn finish(cx: &mut Cx, stopped: Stopped) -> Result<Committed, StageError> {
    let machine = stopped.machine;
    let plan = cx.plan.clone();
    cx.doing(Stage::Finish, "taking the build's settings off");
    cx.effect(Effect::Detach, async {
        match machine.detach(&plan.machine).await {
            // Idempotent, so a lost answer is asked for again.
            Err(error) if error.is_outcome_unknown() => machine.detach(&plan.machine).await,
            other => other,
        }
        .map_err(|error| StageError::port("the build's settings could not be taken off the VM", error))
    })
    .await?;

    if !stopped.forbidden.is_empty() {
        let what = "looking on the disks for what the build may not leave there";
        search(cx, machine.as_ref(), what, &stopped.forbidden).await?;
    }
    cx.doing(Stage::Finish, plan.finish_in_words());
    let finish = cx.finish_with_mark();
    cx.cleanup.committing(finish.clone())?;
    let mut trouble = match commit(cx, &machine, &finish).await? {
        Commit::Certain(trouble) => trouble,
        Commit::Unknown(trouble) => {
            return Ok(Committed { artefact: None, trouble: Some(trouble), published: false });
        }
    };
    let mut published = true;
    if let Err(error) = publish(cx, &machine, &finish).await {
        published = false;
        trouble.get_or_insert(error.hint("`forge gc` publishes it"));
    }
    let artefact = match machine.artefact(&finish).await {
        Ok(artefact) => Some(artefact),
        Err(error) => {
            trouble.get_or_insert(StageError::port("the artefact could not be read back", error));
            None
        }
    };
    Ok(Committed { artefact, trouble, published })
}

/// Fails when something forbidden stands on a disk that can be seen from here.
async fn search(
    cx: &Cx,
    machine: &dyn Machine,
    what: &str,
    forbidden: &[Forbidden],
) -> Result<(), StageError> {
    cx.doing(Stage::Finish, what);
    let failed = |error| StageError::port("the disks of the VM could not be searched", error);
    let found = async { machine.search_disks(forbidden).await.map_err(failed) };
    let finds = cx.cancellable(found).await?.unwrap_or_default();
    if finds.is_empty() {
        return Ok(());
    }
    let places: Vec<String> =
        finds.iter().map(|find| format!("{} on {} at byte {}", find.kind, find.disk, find.offset)).collect();
    let error = StageError::new(format!("the image would hold {}", places.join(", ")));
    let error = error.hint(
        "no file that the seal looked at has it: it may be in free space (is `free-space = false` in `[seal]`?), \
         in a swap partition, or in a file system that was not mounted",
    );
    let vm = &machine.reference().id;
    Err(error.hint(format!("if that may be: `forge finish {vm} --seal {}=false`", crate::seal::LEAK_GATE)))
}

/// Whether the artefact is there.
enum Commit {
    /// It is; something may have failed after it was made.
    Certain(Option<StageError>),
    /// Nobody can tell, so it counts as made.
    Unknown(StageError),
}

/// Turns the VM into the artefact.
async fn commit(cx: &mut Cx, machine: &Arc<dyn Machine>, finish: &Finish) -> Result<Commit, StageError> {
    let mut begun = None;
    let made = async {
        let task = machine
            .submit_finalize(finish)
            .await
            .map_err(|error| StageError::port("the artefact could not be made", error))?;
        let task = begun.insert(task);
        cx.wait(task).await.map_err(|error| StageError::port("the artefact could not be made", error))
    };
    let submitted = match finish {
        // Files take minutes to write, and none of them has its name before all are whole.
        Finish::Files { .. } => {
            let written = cx.cancellable_effect(Effect::Finalize, made).await;
            if let (Err(_), Some(task)) = (&written, &begun)
                && let Err(error) = cx.hypervisor.stop_task(task).await
            {
                tracing::debug!(%error, "what writes the files could not be stopped");
            }
            written
        }
        Finish::Template { .. } => cx.effect(Effect::Finalize, made).await,
    };
    match submitted {
        Ok(()) => {
            cx.enter(Region::Committed);
            Ok(Commit::Certain(None))
        }
        Err(error) => judge(cx, machine, error).await,
    }
}

/// Finalizing failed: only what is certainly not committed may be kept or tried again.
async fn judge(cx: &mut Cx, machine: &Arc<dyn Machine>, error: StageError) -> Result<Commit, StageError> {
    let mut last = None;
    for _ in 0..20 {
        match cx.hypervisor.standing(machine.reference(), &cx.mark.nonce).await {
            Ok(Standing::Ours { .. }) if !error.is_outcome_unknown() => return Err(error),
            Ok(Standing::Committed) => {
                cx.enter(Region::Committed);
                // Where only the answer was lost, the artefact is whole.
                return Ok(Commit::Certain((!error.is_outcome_unknown()).then_some(error)));
            }
            other => last = Some(format!("{other:?}")),
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    match cx.hypervisor.standing(machine.reference(), &cx.mark.nonce).await {
        // Long after the lost request it is still an ordinary VM: it was not carried out.
        Ok(Standing::Ours { .. }) => Err(error),
        _ => {
            cx.enter(Region::Committed);
            Ok(Commit::Unknown(error.seen(last.unwrap_or_default())))
        }
    }
}

/// Gives the template its name and tags, then takes `latest` off the ones before it. Not even an interruption comes
/// between: it is a matter of a second, and `forge gc` would have to do it later.
async fn publish(cx: &Cx, machine: &Arc<dyn Machine>, finish: &Finish) -> Result<(), StageError> {
    let Finish::Template { tags, .. } = finish else { return Ok(()) };
    cx.doing(Stage::Finish, "publishing it");
    cx.completing(Effect::Publish, async {
        match machine.publish(finish).await {
            // Idempotent, so a lost answer is asked for again.
            Err(error) if error.is_outcome_unknown() => machine.publish(finish).await,
            other => other,
        }
        .map_err(|error| StageError::port("the template is made, but has not got its name and tags", error))
    })
    .await?;
    cx.completing(Effect::Retire, async {
        if !tags.iter().any(|tag| tag == TAG_LATEST) {
            return Ok(());
        }
        let retired = retire(cx.hypervisor.as_ref(), &cx.plan.profile).await.map_err(|error| {
            StageError::port(
                "the template is published, but an older one still bears the tag `latest` too",
                error,
            )
        })?;
        for (vm, error) in &retired.denied {
            cx.warn(
                format!("{vm} keeps the tag `{TAG_LATEST}`: {error}"),
                "the newest that bears it is the one to take",
            );
        }
        Ok(())
    })
    .await
}
