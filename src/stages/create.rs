//! Makes the build VM: claims an id by creating at it, waits, configures.

use std::time::{Duration, Instant};

use forge_machine::{Attachments, MachineSpec, PortError, Standing, TaskHandle, VmRef};

use super::{Created, Seeded};
use crate::engine::journal::{UndoAction, UndoKind};
use crate::engine::{Cx, Effect, StageError};
use crate::event::Stage;
use crate::plan::late::LateName;

/// How long ids may be taken by others, one after another, before the range is called contested.
const CLAIM_PATIENCE: Duration = Duration::from_secs(600);

/// How long a build waits for others to start.
const ADMISSION_LIMIT: Duration = Duration::from_secs(1800);

/// Creates and configures the build VM.
///
/// # Errors
/// When no id can be claimed, or the target refuses the creation or a setting.
pub async fn create(cx: &mut Cx, seeded: &Seeded) -> Result<Created, StageError> {
    let spec = super::media::prepare(cx).await?;
    admitted(cx, None).await?;
    let vm = claim(cx, seeded, &spec).await?;
    cx.bindings.bind(LateName::VmId, &vm.id);
    cx.bindings.bind(LateName::VmNode, &vm.node);

    cx.doing(Stage::Create, "configuring it");
    let machine = cx.hypervisor.machine(&vm);
    let attachments: Attachments = seeded.attachments(cx)?;
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
                    Err(error) if error.is_outcome_unknown() => adopt(cx, &vm, error).await.map(Some),
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

/// The answer to the creation was lost: looks whether the VM is there all the same, and goes on with it.
async fn adopt(cx: &Cx, vm: &VmRef, error: PortError) -> Result<TaskHandle, StageError> {
    let mut last = String::from("nothing there");
    for _ in 0..40 {
        match cx.hypervisor.standing(vm, &cx.mark.nonce).await {
            Ok(Standing::Ours { .. }) => {
                cx.warn("the answer to the creation was lost, but the VM is there", "");
                return Ok(TaskHandle::finished(vm.node.clone()));
            }
            Ok(Standing::Busy { lock }) => last = format!("locked ({lock})"),
            Ok(other) => last = format!("{other:?}"),
            Err(error) => last = crate::engine::error::chain(&error),
        }
        if cx.is_interrupted() || last.starts_with("Gone") || last.starts_with("Foreign") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Err(StageError::port(format!("{vm} could not be created"), error).seen(format!("at that id: {last}")))
}
