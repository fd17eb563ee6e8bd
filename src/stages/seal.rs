//! Removes from the guest what a template must not carry.

use super::{Provisioned, Sealed};
use crate::engine::{Cx, Effect, StageError};
use crate::event::{Event, Stage};
use crate::seal;

/// What to do about something that the leak gate found.
const LEAKED: &str =
    "let a provisioner remove it; what is meant to be in the template: `leak-gate = false` in `[seal]`";

/// Runs the seal operations and lets the guest go.
///
/// # Errors
/// When an operation fails, or the connection is lost before the last of them has come back.
pub async fn seal(cx: &mut Cx, provisioned: Provisioned) -> Result<Sealed, StageError> {
    let Provisioned(connected) = provisioned;
    let plan = cx.plan.clone();
    let since = jiff::Timestamp::now().duration_since(cx.mark.started).unsigned_abs();
    let leaks = seal::Leaks::of_build(&connected.key, &cx.evidence.redactor().secrets(), since);
    cx.doing(Stage::Seal, format!("{} operations", plan.seal.len()));
    let sealed = cx
        .cancellable_effect(Effect::Seal, async {
            if plan.seal.is_empty() {
                return Ok(Vec::new());
            }
            let (guest, access) = (connected.guest.as_ref(), &plan.access);
            let done = if plan.seal_dry_run {
                seal::try_out(guest, &plan.seal, &access.user, access.create, &leaks).await
            } else {
                seal::run(guest, &plan.seal, &access.user, access.create, &leaks).await
            };
            done.map_err(|error| {
                let leaked = error.to_string().contains("leak-gate:");
                let failed = StageError::caused("the guest could not be sealed", error);
                if leaked { failed.hint(LEAKED) } else { failed }
            })
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
    if plan.seal_dry_run {
        let advice =
            "it carries the build's user and all that makes it this machine; leave `dry-run` out of `[seal]`";
        cx.warn("the guest was not sealed: this was a dry run", advice);
    }
    connected.watch.picture(cx, "sealed");
    connected.guest.close().await;
    Ok(Sealed { machine: connected.machine })
}
