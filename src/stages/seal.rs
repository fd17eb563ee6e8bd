//! Removes from the guest what a template must not carry.

use super::{Provisioned, Sealed};
use crate::engine::{Cx, Effect, StageError};
use crate::event::{Event, Stage};
use crate::seal;

/// Runs the seal operations and lets the guest go.
///
/// # Errors
/// When an operation fails, or the connection is lost before the last of them has come back.
pub async fn seal(cx: &mut Cx, provisioned: Provisioned) -> Result<Sealed, StageError> {
    let Provisioned(connected) = provisioned;
    let plan = cx.plan.clone();
    cx.doing(Stage::Seal, format!("{} operations", plan.seal.len()));
    let sealed = cx
        .cancellable_effect(Effect::Seal, async {
            if plan.seal.is_empty() {
                return Ok(Vec::new());
            }
            seal::run(connected.guest.as_ref(), &plan.seal, &plan.access.user, plan.access.create)
                .await
                .map_err(|error| StageError::caused("the guest could not be sealed", error))
        })
        .await;
    let results = match sealed {
        Ok(results) => results,
        Err(error) => {
            connected.watch.picture(cx, "seal failed");
            return Err(error);
        }
    };
    for result in results {
        cx.events.emit(Event::Sealed {
            operation: result.operation.to_owned(),
            result: result.outcome.to_string(),
        });
    }
    connected.watch.picture(cx, "sealed");
    connected.guest.close().await;
    Ok(Sealed { machine: connected.machine })
}
