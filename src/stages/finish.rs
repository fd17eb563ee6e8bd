//! Turns the stopped VM into the artefact. The commit point lies in here.

use std::sync::Arc;
use std::time::Duration;

use forge_machine::{Artefact, Machine, Standing};

use super::Stopped;
use crate::engine::{Cx, Effect, StageError};
use crate::event::{Region, Stage};

/// How the commit point was passed.
#[derive(Debug)]
pub enum Committed {
    /// The artefact is there.
    Known(Artefact),
    /// Something failed at or after the commit point; an artefact whose answer was lost counts as made.
    Troubled(Option<Artefact>, StageError),
}

/// Takes the build's settings off the VM and turns it into the artefact.
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

    cx.doing(Stage::Finish, plan.finish_in_words());
    cx.cleanup.committing()?;
    let finish = cx.finish_with_mark();
    let hypervisor = cx.hypervisor.clone();
    let submitted = cx
        .effect(Effect::Finalize, async {
            let task = machine
                .submit_finalize(&finish)
                .await
                .map_err(|error| StageError::port("the artefact could not be made", error))?;
            hypervisor
                .wait(&task)
                .await
                .map_err(|error| StageError::port("the artefact could not be made", error))
        })
        .await;
    match submitted {
        Ok(()) => {
            cx.enter(Region::Committed);
            Ok(match machine.artefact(&finish).await {
                Ok(artefact) => Committed::Known(artefact),
                Err(error) => {
                    Committed::Troubled(None, StageError::port("the artefact could not be read back", error))
                }
            })
        }
        Err(error) => judge(cx, &machine, error).await,
    }
}

/// Finalizing failed: only what is certainly not committed may be kept or tried again.
async fn judge(cx: &mut Cx, machine: &Arc<dyn Machine>, error: StageError) -> Result<Committed, StageError> {
    let finish = cx.finish_with_mark();
    let mut last = None;
    for _ in 0..20 {
        match cx.hypervisor.standing(machine.reference(), &cx.mark.nonce).await {
            Ok(Standing::Ours { .. }) if !error.is_outcome_unknown() => return Err(error),
            Ok(Standing::Committed) => {
                cx.enter(Region::Committed);
                return Ok(match machine.artefact(&finish).await {
                    // Only the answer was lost: the artefact is whole.
                    Ok(artefact) if error.is_outcome_unknown() => Committed::Known(artefact),
                    made => Committed::Troubled(made.ok(), error),
                });
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
            Ok(Committed::Troubled(None, error.seen(last.unwrap_or_default())))
        }
    }
}
