//! What becomes of the VM of a build that failed and is not removed: left to be looked at, or kept for `forge finish`.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forge_machine::{BuildState, Machine, Ownership, StopLadder};
use jiff::Timestamp;

use super::cx::Cx;
use super::error::StageError;
use super::journal::{UndoAction, UndoKind};
use super::on_error::Choice;
use super::run::Progress;
use crate::event::{Ending, Event, Failure};
use crate::plan::late::LateName;
use crate::provision::host_and_port;
use crate::remote::BuildKey;

/// The port that `ssh` takes without being told.
const SSH_PORT: u16 = 22;

/// How long the guest of a build that is kept gets to shut down before its power is cut.
const KEEP_SHUTDOWN: Duration = Duration::from_secs(60);

/// Puts the build's key where it outlives the process.
pub(super) fn write_key(cx: &mut Cx, path: &Path, key: &BuildKey) -> Result<(), StageError> {
    cx.cleanup.before_effect(UndoKind::Always, UndoAction::RemoveFile { path: path.to_owned() })?;
    let write =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).and_then(
            |mut file| {
                std::io::Write::write_all(&mut file, key.private_openssh().as_bytes())?;
                file.sync_all()
            },
        );
    write.map_err(|error| {
        StageError::caused(format!("the build's key can't be kept in {}", path.display()), error)
    })
}

/// The VM that is to be left as it is, if `--on-error` says so. An interruption always cleans up.
pub(super) async fn to_be_left(cx: &Cx, progress: &Progress, failure: &Failure) -> Option<Arc<dyn Machine>> {
    let machine = progress.machine.clone().filter(|_| !failure.interrupted)?;
    let asked = cx.reaction.choose(&cx.events, &cx.plan.profile, &failure.heading, false);
    let choice = tokio::select! {
        biased;
        () = cx.cancel.cancelled() => Choice::CleanUp,
        choice = cx.alive(machine.as_ref(), asked) => choice,
    };
    (choice != Choice::CleanUp).then_some(machine)
}

/// A failure before the keep point, of a build whose VM somebody wants to look at.
pub(super) async fn leave(
    mut cx: Cx,
    progress: Progress,
    machine: Arc<dyn Machine>,
    mut failure: Failure,
) -> Ending {
    let vm = machine.reference().clone();
    let path = progress.key_file(&cx);
    let key = progress.key.as_ref().map(|key| write_key(&mut cx, &path, key));
    if let Some(folder) = machine.folder() {
        let hint = format!("QEMU ends with forge; the disks and serial.log stay in {}", folder.display());
        failure.hints.push(hint);
    } else {
        let address = cx.bindings.get(LateName::GuestAddress);
        // A guest that forge made no user in does not know the build's key.
        if let (Some(Ok(())), Some(address), true) = (key, address, cx.plan.access.create) {
            let (host, port) = host_and_port(address);
            let port = if port == SSH_PORT { String::new() } else { format!(" -p {port}") };
            let user = &cx.plan.access.user;
            failure.hints.push(format!("to get in: ssh -i {}{port} {user}@{host}", path.display()));
        }
    }
    // First the journal: without this record the next build of this machine removes the VM, whatever its mark says.
    if let Err(error) = cx.cleanup.leaving(vm.clone()) {
        cx.warn(super::error::chain(&error), "the next build of this machine removes the VM");
        return Ending::Left { vm, failure };
    }
    failure.hints.push("`forge gc --left` removes it".into());
    let mark = Ownership { state: BuildState::Left, heartbeat: Timestamp::now(), ..cx.mark.clone() };
    if let Err(error) = machine.describe(&mark).await {
        cx.warn(
            format!("{vm} could not be marked: {}", super::error::chain(&error)),
            "`forge gc --orphans` of another machine may remove it",
        );
    }
    Ending::Left { vm, failure }
}

/// A failure between keep and commit: the VM is stopped, marked and left for `forge finish`.
pub(super) async fn keep(cx: &Cx, progress: Progress, mut failure: Failure) -> Ending {
    let Some(machine) = progress.machine else {
        return Ending::Failed { failure, left_behind: Vec::new() };
    };
    let vm = machine.reference().clone();
    cx.events.emit(Event::Undoing { what: format!("stop and keep {vm}") });
    let result = set_aside(machine.as_ref(), &cx.mark).await;
    let (ok, detail) = match &result {
        Ok(()) => (true, "kept".to_owned()),
        Err(error) => (false, super::error::chain(error)),
    };
    cx.events.emit(Event::Undone { what: format!("stop and keep {vm}"), ok, detail: detail.clone() });
    failure.hints.push(format!("the work is not lost: `forge finish {}` goes on from here", vm.id));
    let left_behind = if ok { Vec::new() } else { vec![format!("stop and keep {vm}: {detail}")] };
    Ending::Kept { vm, failure, left_behind }
}

/// Stops a VM that was past its keep point and marks it as kept. Used by `forge gc` too.
///
/// # Errors
/// When it can't be stopped or marked.
pub async fn set_aside(machine: &dyn Machine, mark: &Ownership) -> Result<(), forge_machine::PortError> {
    machine.stop(&StopLadder { agent: KEEP_SHUTDOWN, acpi: KEEP_SHUTDOWN, power_off: true }).await?;
    let mark = Ownership { state: BuildState::Kept, heartbeat: Timestamp::now(), ..mark.clone() };
    machine.describe(&mark).await
}
