//! Shuts the guest down, the gentle ways first.

use forge_machine::{StopLadder, StopRung};

use super::{Sealed, Stopped};
use crate::engine::{Cx, Effect, StageError};
use crate::event::Stage;

/// Stops the VM.
///
/// # Errors
/// When it still runs after all allowed ways.
pub async fn shutdown(cx: &mut Cx, sealed: Sealed) -> Result<Stopped, StageError> {
    let limit = cx.plan.deadlines.shutdown;
    cx.doing(Stage::Shutdown, "asking the guest to shut down");
    let ladder = StopLadder { agent: limit, acpi: limit, power_off: false };
    let machine = sealed.machine.clone();
    let rung = cx
        .cancellable_effect(Effect::Stop, async {
            machine.stop(&ladder).await.map_err(|error| {
                StageError::port("the guest did not shut down", error)
                    .hint("raise `deadlines.shutdown`, or look at what holds its shutdown up")
            })
        })
        .await?;
    if rung == StopRung::PowerOff {
        cx.warn("the guest did not shut down by itself; its power was cut", "check its file systems");
    }
    Ok(Stopped { machine: sealed.machine, forbidden: sealed.forbidden })
}
