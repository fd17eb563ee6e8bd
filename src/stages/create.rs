//! Makes the build VM: claims an id by creating at it, waits, configures.

use std::time::{Duration, Instant};

use forge_machine::{Attachments, MachineSpec, PortError, Standing, TaskHandle, VmRef};

use super::{Created, Seeded, boot_disc};
use crate::engine::journal::{UndoAction, UndoKind};
use crate::engine::{Cx, Effect, StageError};
use crate::event::Stage;
use crate::plan::late::LateName;

/// How long ids may be taken by others, one after another, before the range is called contested.
const CLAIM_PATIENCE: Duration = Duration::from_secs(600);

/// How long a build waits for others to start.
const ADMISSION_LIMIT: Duration = Duration::from_secs(1800);

/// How long a VM whose creation was not answered for may be locked by being made.
const ADOPTION_LIMIT: Duration = Duration::from_secs(3600);

/// How long such a VM may take to appear. What waits behind a lock of Proxmox's appears, or never, within 10 s.
const APPEARS_WITHIN: Duration = Duration::from_secs(12);

/// How long a target may fail to say whether it is there.
const SILENCE_LIMIT: Duration = Duration::from_secs(90);

/// Creates and configures the build VM.
///
/// # Errors
/// When no id can be claimed, or the target refuses the creation or a setting.
pub async fn create(cx: &mut Cx, seeded: &Seeded) -> Result<Created, StageError> {
    let boot_disc = boot_disc::make(cx, seeded).await?;
    let spec = super::media::prepare(cx).await?;
    admitted(cx, None).await?;
    let vm = claim(cx, seeded, &spec).await?;
    cx.bindings.bind(LateName::VmId, &vm.id);
    cx.bindings.bind(LateName::VmNode, &vm.node);

    cx.doing(Stage::Create, "configuring it");
    let machine = cx.hypervisor.machine(&vm);
    let attached = seeded.attachments(cx)?;
    let attachments = Attachments { seed_disc: boot_disc.or(attached.seed_disc), ..attached };
    let mark = cx.mark.clone();
    cx.effect(Effect::Configure, async {
        machine
            .configure(&spec, &mark, &attachments)
            .await
            .map_err(|error| StageError::port(format!("{vm} could not be configured"), error))
    })
    .await?;
    // Others may have come in between: of those that wait the lower VMID goes first.
    cx.alive(machine.as_ref(), admitted(cx, Some(&vm))).await?;
    Ok(Created { machine })
}

/// Waits until the node has memory for the VM beside those builds that will need it first.
async fn admitted(cx: &Cx, at: Option<&VmRef>) -> Result<(), StageError> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(200);
    loop {
        let ask = async { Ok::<_, StageError>(cx.hypervisor.admission(&cx.plan.machine, at).await) };
        let seen = match cx.cancellable(ask).await? {
            Ok(None) => return Ok(()),
            Ok(Some(seen)) => seen,
            // It is a courtesy to other builds: whether the VM may start is the target's to say.
            Err(error) => {
                tracing::debug!(%error, "admission could not be asked for");
                return Ok(());
            }
        };
        if began.elapsed() > ADMISSION_LIMIT {
            cx.warn(format!("starting although {seen}"), "");
            return Ok(());
        }
        cx.waiting(Stage::Create, "memory", seen, ADMISSION_LIMIT);
        let rest = async {
            tokio::time::sleep(pause).await;
            Ok::<_, StageError>(())
        };
        cx.cancellable(rest).await?;
        pause = (pause * 2).min(Duration::from_secs(3));
    }
}

/// Claims an id by creating at it, and waits until it is created. Nothing reserves an id, so whoever creates first has
/// it; an id that was taken is left to others, for as long as the range has room.
async fn claim(cx: &mut Cx, seeded: &Seeded, spec: &MachineSpec) -> Result<VmRef, StageError> {
    let hypervisor = cx.hypervisor.clone();
    let mut refused: Vec<VmRef> = Vec::new();
    let began = Instant::now();
    while began.elapsed() < CLAIM_PATIENCE {
        let propose = async {
            hypervisor
                .propose_id(spec, &refused)
                .await
                .map_err(|error| StageError::port("no id could be chosen for the build VM", error))
        };
        let vm = cx.cancellable(propose).await?;
        let action = UndoAction::DestroyVm { vm: vm.clone(), nonce: cx.mark.nonce.clone() };
        let undo = cx.cleanup.before_effect(UndoKind::Undo, action)?;
        let mark = cx.mark.clone();
        let submitted = cx
            .effect(Effect::SubmitCreate, async {
                match hypervisor.submit_create(spec, &vm, &mark).await {
                    Ok(task) => Ok(Some(task)),
                    Err(PortError::IdTaken { .. }) => Ok(None),
                    Err(error) if error.is_outcome_unknown() => adopt(cx, &vm, error).await,
                    Err(error) => Err(StageError::port(format!("{vm} could not be created"), error)),
                }
            })
            .await?;
        if let Some(task) = submitted {
            cx.cleanup.submitted(undo, &task)?;
            cx.doing(Stage::Create, format!("{} at id {}", seeded.source_in_words(cx), vm.id));
            let wait = async {
                match cx.wait(&task).await {
                    Ok(()) => Ok(true),
                    // Some creations find out only in their task that somebody was faster.
                    Err(PortError::IdTaken { .. }) => Ok(false),
                    Err(error) => Err(StageError::port(format!("{vm} could not be created"), error)),
                }
            };
            if cx.cancellable_effect(Effect::AwaitCreate, wait).await? {
                return Ok(vm);
            }
        }
        cx.cleanup.settle(undo)?;
        // One that was refused long ago may be free again.
        refused.retain(|other| *other != vm);
        refused.push(vm);
    }
    Err(StageError::new(format!(
        "for {} s every id was taken by others when forge tried to use it",
        CLAIM_PATIENCE.as_secs()
    ))
    .hint("give this target a range of its own with `vmids` in forge.toml"))
}

/// The answer to the creation was lost: looks whether the VM is there all the same, and goes on with it. `None` when
/// somebody else has the id, so that the creation can't have happened any more.
///
/// The target works on what it accepted whether or not anybody listens, for as long as a copy takes.
async fn adopt(cx: &Cx, vm: &VmRef, error: PortError) -> Result<Option<TaskHandle>, StageError> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(100);
    let mut was_made = false;
    let seen = loop {
        let (seen, limit) = match cx.hypervisor.standing(vm, &cx.mark.nonce).await {
            Ok(Standing::Ours { .. }) => {
                cx.warn("the answer to the creation was lost, but the VM is there", "");
                return Ok(Some(TaskHandle::finished(vm.node.clone())));
            }
            Ok(Standing::Foreign { name }) => {
                tracing::debug!(%vm, name, "the answer to the creation was lost, and the id is another's");
                return Ok(None);
            }
            Ok(Standing::Busy { lock }) => {
                was_made = true;
                (format!("a VM, locked ({lock})"), ADOPTION_LIMIT)
            }
            Ok(Standing::Gone) if was_made => break "nothing any more: it was begun and failed".to_owned(),
            Ok(Standing::Gone) => ("nothing".to_owned(), APPEARS_WITHIN),
            Ok(Standing::Committed) => break "a template".to_owned(),
            Err(error) => (crate::engine::error::chain(&error), SILENCE_LIMIT),
        };
        if cx.is_interrupted() {
            return Err(StageError::interruption());
        }
        if began.elapsed() >= limit {
            break format!("{seen}, after {} s", began.elapsed().as_secs());
        }
        let words = format!("the answer to the creation was lost; at id {} there is {seen}", vm.id);
        cx.waiting(Stage::Create, "the VM", words, limit);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    };
    Err(StageError::port(format!("{vm} could not be created"), error).seen(format!("at that id: {seen}")))
}
