//! Removes from the guest what a template must not carry.

use forge_machine::{Forbidden, Machine};

use super::{Provisioned, Sealed, disk, gone};
use crate::engine::{Cx, Effect, StageError};
use crate::event::{Event, Stage};
use crate::remote::{BuildKey, quote};
use crate::seal;

/// What to do about a Windows whose last operations failed.
const STILL_RUNS: &str =
    "its reason is in C:\\Windows\\Temp\\forge-finish.log; if there is none, raise `deadlines.shutdown`";

/// Runs the seal operations and lets the guest go.
///
/// # Errors
/// When an operation fails, or the connection is lost before the last of them has come back.
pub async fn seal(cx: &mut Cx, provisioned: Provisioned) -> Result<Sealed, StageError> {
    let Provisioned(connected) = provisioned;
    let plan = cx.plan.clone();
    let leaks = leaks(cx, Some(&connected.key));
    let unattend = if plan.access.windows { super::seed::sysprep(cx, &connected.key) } else { None };
    cx.doing(Stage::Seal, format!("{} operations", plan.seal.len()));
    let sealed = cx
        .cancellable_effect(Effect::Seal, async {
            if plan.seal.is_empty() {
                return Ok(Vec::new());
            }
            let (guest, access) = (connected.guest.as_ref(), &plan.access);
            let work = async {
                if access.windows {
                    let unattend = unattend.as_deref();
                    let machine = connected.machine.as_ref();
                    let limit = seal::FINISH_LIMIT.saturating_add(plan.deadlines.shutdown);
                    let tell = |seen: &str| {
                        cx.waiting(Stage::Seal, "Windows to switch itself off", seen, limit);
                    };
                    match seal::run_windows(guest, &plan.seal, &access.user, access.create, unattend).await {
                        Ok(results) => {
                            guest.close().await;
                            let off = seal::switched_off(machine, limit, &tell).await;
                            off.map(|()| results)
                        }
                        failed => failed,
                    }
                } else if plan.seal_dry_run {
                    seal::try_out(guest, &plan.seal, &access.user, access.create, &leaks).await
                } else {
                    seal::run(guest, &plan.seal, &access.user, access.create, &leaks).await
                }
            };
            let machine = connected.machine.as_ref();
            match disk::while_they_work(machine, work).await? {
                Ok(results) => Ok(results),
                Err(error) => Err(failed(machine, error).await),
            }
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
    Ok(Sealed { machine: connected.machine, forbidden: forbidden(cx, Some(&connected.key)) })
}

/// What the guest, or its disks, may not hold.
fn leaks(cx: &Cx, key: Option<&BuildKey>) -> seal::Leaks {
    let since = jiff::Timestamp::now().duration_since(cx.mark.started).unsigned_abs();
    let redactor = cx.evidence.redactor();
    seal::Leaks::of_build(key, &redactor.secrets(), &redactor.lasting(), since)
}

/// What may not stand on the disks of the sealed VM, in files or not; nothing where the leak gate is off, or the guest was
/// not sealed at all.
#[must_use]
pub fn forbidden(cx: &Cx, key: Option<&BuildKey>) -> Vec<Forbidden> {
    let plan = &cx.plan;
    let gate = !plan.seal_dry_run && plan.seal.iter().any(|operation| operation == seal::LEAK_GATE);
    if gate { leaks(cx, key).on_disk() } else { Vec::new() }
}

/// Why sealing failed, in the target's words when the VM does not run any more.
async fn failed(machine: &dyn Machine, error: seal::SealError) -> StageError {
    const WHAT: &str = "the guest could not be sealed";
    let gone = match &error {
        seal::SealError::CutOff { .. } | seal::SealError::Guest { .. } => gone::words(machine).await,
        _ => None,
    };
    if let Some(words) = gone {
        return StageError::caused(format!("{WHAT}: {words}"), error).hint(gone::ADVICE);
    }
    let hints = match (&error, error.found()) {
        (seal::SealError::StillRuns { .. }, _) => vec![STILL_RUNS.to_owned()],
        (_, Some(found)) => what_to_do(&found, &machine.reference().id),
        _ => Vec::new(),
    };
    hints.into_iter().fold(StageError::caused(WHAT, error), StageError::hint)
}

/// What to do about something of the build that is still in the guest, which is kept.
fn what_to_do(found: &seal::Found, vm: &str) -> Vec<String> {
    let files: Vec<_> = found.files.iter().map(|file| quote::sh(file)).collect();
    let command = if files.is_empty() {
        "COMMAND".into()
    } else {
        quote::sh(&format!("rm {}", files.join(" "))).into_owned()
    };
    let operation = found.operation;
    vec![
        format!(
            "to remove it: `forge finish {vm} --run {command}` runs that as root, then seals and searches again \
             (`--breakpoint` shows how to log in and waits before it seals)"
        ),
        format!("if it belongs into the template: `forge finish {vm} --seal {operation}=false`"),
        "give `forge finish` the variables of the build too (--var, --var-file): they tell it what is secret"
            .into(),
        format!("for the next build: let a provisioner remove it, or say `{operation} = false` in `[seal]`"),
    ]
}
