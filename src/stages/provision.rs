//! Runs the provisioners. When all of them succeeded, the keep point is reached.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use forge_machine::{Command, ExecOutcome};

use super::{Connected, Provisioned, disk, gone};
use crate::engine::journal::{UndoAction, UndoKind};
use crate::engine::on_error::Choice;
use crate::engine::{Cx, Effect, StageError};
use crate::event::{Event, Events, Stage};
use crate::evidence::Log;
use crate::plan::late::LateName;
use crate::provision::{Around, OutputObserver, Step, is_interactive, perform};

/// How long the guest may take to write what is in its memory to its disk.
const WRITE_LIMIT: Duration = Duration::from_secs(600);

/// How often it is told how far a file is.
const MOVED_EVERY: Duration = Duration::from_secs(1);

/// Tells output lines as events and writes them to a file per step. Nothing of them is kept but the last: there may be GiBs.
pub(super) struct Tell {
    step: String,
    events: Events,
    log: Log,
    said: String,
    /// The file that is on its way, and when that was told last.
    moving: Option<(String, Instant)>,
}

impl Tell {
    /// For a step whose output goes to this file of the evidence.
    pub(super) fn open(cx: &Cx, step: &Step, file: &str) -> Self {
        let log = cx.evidence.log(file);
        Self { step: step.name.clone(), events: cx.events.clone(), log, said: String::new(), moving: None }
    }

    /// The last line that says something.
    pub(super) fn close(self, cx: &Cx) -> String {
        if let Err(error) = self.log.close() {
            cx.warn(crate::engine::error::chain(&error), "");
        }
        self.said
    }
}

impl OutputObserver for Tell {
    fn line(&mut self, line: &str, stderr: bool) {
        self.log.line(line);
        if !line.trim().is_empty() {
            line.clone_into(&mut self.said);
        }
        self.events.emit(Event::Output { step: self.step.clone(), line: line.to_owned(), stderr });
    }

    fn moved(&mut self, name: &str, done: u64, total: u64, up: bool) {
        let now = Instant::now();
        match &mut self.moving {
            Some((same, told)) if same == name => {
                if now.duration_since(*told) < MOVED_EVERY {
                    return;
                }
                *told = now;
                let (stage, name, total) = (Stage::Provision, name.to_owned(), Some(total));
                self.events.emit(Event::Transferring { stage, name, done, total, up });
            }
            // Most are over before there is anything to tell.
            other => *other = Some((name.to_owned(), now)),
        }
    }
}

/// Runs these provisioners, one after the other; when one fails, those for failures, whose own failures are only told.
///
/// # Errors
/// When one of them fails, with its last lines.
pub async fn provision(cx: &mut Cx, connected: Connected, steps: &[Step]) -> Result<Provisioned, StageError> {
    let plan = cx.plan.clone();
    let mut env = environment(cx);
    let key_file = match steps.iter().any(|step| step.action.needs_key_file()) {
        true if !plan.access.knows_build_key() => plan.access.ssh.credentials.key_file.clone(),
        true => Some(write_key(cx, &connected)?),
        false => None,
    };
    let interactive = is_interactive();
    let result = cx
        .cancellable_effect(Effect::Provision, async {
            let (late, steps): (Vec<&Step>, Vec<&Step>) = steps.iter().partition(|step| step.on_error);
            let of = steps.len();
            let guest = connected.guest.as_ref();
            'steps: for (index, step) in steps.into_iter().enumerate() {
                let around = Around { guest, env: &env, key_file: key_file.as_deref(), interactive };
                let (error, choice) = loop {
                    let place = Place { number: index + 1, of, before: 0 };
                    let Err(error) = one(cx, &connected, &around, step, place).await else {
                        continue 'steps;
                    };
                    let failed = crate::engine::error::chain(&error);
                    let asked = cx.reaction.choose(&cx.events, &plan.profile, &failed, true);
                    match cx.alive(connected.machine.as_ref(), asked).await {
                        Choice::Retry => {}
                        choice => break (error, choice),
                    }
                };
                if choice == Choice::Abort {
                    return Err(error);
                }
                env.insert("FORGE_FAILED_STEP".into(), step.name.clone());
                env.insert("FORGE_ERROR".into(), error.to_string());
                for (index, step) in late.iter().enumerate() {
                    let around = Around { guest, env: &env, key_file: key_file.as_deref(), interactive };
                    let place = Place { number: index + 1, of: late.len(), before: of };
                    if let Err(error) = one(cx, &connected, &around, step, place).await {
                        cx.warn(
                            crate::engine::error::chain(&error),
                            "it was to run on a failure, and failed too",
                        );
                    }
                }
                return Err(error);
            }
            written(cx, &connected).await
        })
        .await;
    match result {
        Ok(()) => Ok(Provisioned(connected)),
        Err(error) => {
            connected.watch.picture(cx, &format!("{} failed", Stage::Provision));
            Err(error)
        }
    }
}

/// Has the guest bring to its disk what the provisioners did: a VM that dies from here on is kept, and gone on with. (QEMU
/// hands a guest's flush on to this machine's page cache also with `cache=unsafe`, `bdrv_co_flush` of its `block/io.c`.)
async fn written(cx: &Cx, connected: &Connected) -> Result<(), StageError> {
    // No command of Windows does it for all its volumes.
    if cx.plan.access.windows {
        return Ok(());
    }
    let command = Command { timeout: Some(WRITE_LIMIT), ..Command::new("sync") };
    let mut said = Vec::new();
    let machine = connected.machine.as_ref();
    let asked = connected.guest.exec(&command, &mut said);
    let what = "the provisioners succeeded, but the guest did not write their work to its disk";
    match disk::while_they_work(machine, cx.alive(machine, asked)).await? {
        Ok(ExecOutcome::Exited(0)) => Ok(()),
        Ok(ExecOutcome::Disconnected) => {
            Err(StageError::new(format!("{what}: the connection was lost before `sync` had ended")))
        }
        Ok(other) => {
            let said = String::from_utf8_lossy(&said);
            cx.warn(
                format!("`sync` in the guest ended with {other:?}: {}", said.trim()),
                "a crash may lose work",
            );
            Ok(())
        }
        Err(error) => Err(StageError::caused(what, error)),
    }
}

/// Where a step stands among those of its kind: those of a build, or those that run when one of them has failed.
#[derive(Clone, Copy)]
struct Place {
    number: usize,
    of: usize,
    /// How many steps of the other kind stand before them in the plan.
    before: usize,
}

async fn one(
    cx: &Cx,
    connected: &Connected,
    around: &Around<'_>,
    step: &Step,
    Place { number, of, before }: Place,
) -> Result<(), StageError> {
    let (name, on_error) = (step.name.clone(), step.on_error);
    cx.events.emit(Event::ProvisionerStarted { number, of, name, on_error });
    let began = Instant::now();
    let file = format!("provision/{:02}-{}.log", before + number, slug(&step.name));
    let mut tell = Tell::open(cx, step, &file);
    let machine = connected.machine.as_ref();
    let outcome = disk::while_they_work(machine, cx.alive(machine, perform(around, step, &mut tell))).await;
    let said = !tell.close(cx).is_empty();
    let kind = if on_error { "provisioner for failures" } else { "provisioner" };
    let of_all = format!("{kind} {number} of {of} (`{}`)", step.name);
    let outcome = outcome.map_err(|error| error.seen(format!("{of_all} was at work")))?;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            let gone = if error.may_be_of_a_lost_guest() { gone::words(machine).await } else { None };
            let (why, hint) = match gone {
                Some(words) => (format!(": {words}"), gone::ADVICE),
                None => (String::new(), error.hint()),
            };
            let failed = StageError::caused(format!("{of_all} failed{why}"), error);
            let failed = if hint.is_empty() { failed } else { failed.hint(hint) };
            let output = said.then(|| format!("its whole output is in {file} of the evidence"));
            return Err(output.into_iter().fold(failed, StageError::hint));
        }
    };
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    cx.events.emit(Event::ProvisionerFinished { name: step.name.clone(), exit: outcome.exit, took_ms });
    Ok(())
}

/// Puts the build's key into a file for programs of this machine; its removal is in the journal before.
fn write_key(cx: &mut Cx, connected: &Connected) -> Result<PathBuf, StageError> {
    let name = format!("forge-{}-{:016x}.key", cx.plan.chain_id, rand::random::<u64>());
    let path = std::env::temp_dir().join(name);
    cx.cleanup.before_effect(UndoKind::Always, UndoAction::RemoveFile { path: path.clone() })?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(connected.key.private_openssh().as_bytes()))
        .map_err(|error| {
            StageError::caused(format!("the build's key can't be written to {}", path.display()), error)
        })?;
    Ok(path)
}

/// The variables that every provisioner gets: forge's names, and Packer's for scripts that come from there.
pub(super) fn environment(cx: &Cx) -> BTreeMap<String, String> {
    let plan = &cx.plan;
    let late = |name| cx.bindings.get(name).unwrap_or_default().to_owned();
    let (address, port) = (late(LateName::SeedAddress), late(LateName::SeedPort));
    let http = if address.is_empty() { String::new() } else { format!("{address}:{port}") };
    [
        ("FORGE_CHAIN_ID", plan.chain_id.to_string()),
        ("FORGE_PROFILE", plan.profile.clone()),
        ("FORGE_TARGET", plan.target.clone()),
        ("FORGE_TEMPLATE", plan.artefact_name().to_owned()),
        ("FORGE_VM_ID", late(LateName::VmId)),
        ("FORGE_VM_NODE", late(LateName::VmNode)),
        ("FORGE_USER", plan.access.user.clone()),
        ("FORGE_GUEST_ADDRESS", late(LateName::GuestAddress)),
        ("PACKER_BUILD_NAME", plan.profile.clone()),
        ("PACKER_BUILDER_TYPE", plan.builder_type().to_owned()),
        // Packer's `PACKER_RUN_UUID` names one run; here the chain id does.
        ("PACKER_RUN_UUID", plan.chain_id.to_string()),
        ("PACKER_HTTP_ADDR", http),
        ("PACKER_HTTP_IP", address),
        ("PACKER_HTTP_PORT", port),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

pub(super) fn slug(name: &str) -> String {
    let text: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(40)
        .collect();
    text.trim_matches('-').to_owned()
}
