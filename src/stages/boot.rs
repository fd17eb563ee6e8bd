//! Starts the build VM and drives its boot screen.

use std::sync::Arc;
use std::time::Duration;

use forge_console::{
    Console, KeySink, PlayOptions, SendKeys, TypeOptions, boot_command, play, type_text_with,
};
use forge_machine::Machine;

use super::{Created, Running, Watch};
use crate::engine::{Cx, Effect, StageError};
use crate::event::Stage;
use crate::plan::BootStep;

/// Starts the VM and carries out the boot steps.
///
/// # Errors
/// When the VM can't be started, its screen is needed and can't be had, or a step does not come true.
pub async fn boot(cx: &mut Cx, created: Created) -> Result<Running, StageError> {
    let machine = created.machine;
    cx.doing(Stage::Boot, "starting it");
    let hypervisor = cx.hypervisor.clone();
    cx.effect(Effect::Start, async {
        let task = machine.submit_start().await.map_err(|error| {
            StageError::port(format!("{} could not be started", machine.reference()), error)
        })?;
        hypervisor
            .wait(&task)
            .await
            .map_err(|error| StageError::port(format!("{} could not be started", machine.reference()), error))
    })
    .await?;
    let steps = cx.plan.boot.clone();
    let watch = open(cx, &machine, !steps.is_empty()).await?;
    let driven = cx.cancellable_effect(Effect::DriveScreen, drive(cx, &watch, &machine, &steps)).await;
    if let Err(error) = driven {
        watch.picture(cx, "boot failed");
        if let Some(console) = watch.console() {
            console.release_all();
        }
        return Err(watch.last_lines().into_iter().fold(error, StageError::seen));
    }
    Ok(Running { machine, watch })
}

/// Opens the screen; needed for boot steps, and only missed otherwise.
async fn open(cx: &Cx, machine: &Arc<dyn Machine>, needed: bool) -> Result<Watch, StageError> {
    let opened = cx.cancellable(async { Ok::<_, StageError>(Watch::open(machine.as_ref()).await) }).await?;
    match opened {
        Ok(watch) => Ok(watch),
        Err(detail) if needed => Err(StageError::new(
            "the screen of the build VM can't be had, and boot steps need it",
        )
        .seen(detail)
        .hint("the token needs VM.Console; or let the seed be delivered without typing (`seed.delivery`)")),
        Err(detail) => {
            cx.warn(format!("no pictures of the screen: {detail}"), "");
            Ok(Watch::default())
        }
    }
}

async fn drive(
    cx: &Cx,
    watch: &Watch,
    machine: &Arc<dyn Machine>,
    steps: &[BootStep],
) -> Result<(), StageError> {
    let Some(console) = watch.console() else { return Ok(()) };
    for (index, step) in steps.iter().enumerate() {
        let number = index + 1;
        run_step(cx, console, machine, step, number)
            .await
            .map_err(|error| error.seen(format!("at boot step {number} of {}", steps.len())))?;
        watch.picture(cx, &format!("boot step {number}"));
    }
    Ok(())
}

async fn run_step(
    cx: &Cx,
    console: &Console,
    machine: &Arc<dyn Machine>,
    step: &BootStep,
    number: usize,
) -> Result<(), StageError> {
    match step {
        BootStep::WaitFor { text, within_ms, or_after } => {
            let text = cx.bindings.resolve(text)?;
            let limit = Duration::from_millis(*within_ms);
            cx.waiting(Stage::Boot, &format!("\u{201c}{text}\u{201d} on the screen"), "", limit);
            match console.wait_for(&text, limit).await {
                Ok(()) => Ok(()),
                Err(error) if *or_after => {
                    cx.warn(
                        format!(
                            "boot step {number}: \u{201c}{text}\u{201d} was not seen within {} s; going on",
                            limit.as_secs()
                        ),
                        crate::engine::error::chain(&error),
                    );
                    Ok(())
                }
                Err(error) => Err(StageError::caused(
                    format!("\u{201c}{text}\u{201d} did not come on the screen"),
                    error,
                )),
            }
        }
        BootStep::WaitStill { quiet_ms, within_ms } => {
            cx.waiting(Stage::Boot, "a screen that stands still", "", Duration::from_millis(*within_ms));
            console
                .wait_still(Duration::from_millis(*quiet_ms), Duration::from_millis(*within_ms))
                .await
                .map_err(|error| StageError::caused("the screen did not come to rest", error))
        }
        BootStep::Wait { ms } => {
            cx.doing(
                Stage::Boot,
                format!("waiting {} s, as the profile says", Duration::from_millis(*ms).as_secs_f32()),
            );
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            Ok(())
        }
        BootStep::Keys { keys } => {
            let text = cx.bindings.resolve(keys)?;
            cx.doing(Stage::Boot, format!("pressing {text}"));
            let actions = boot_command::parse(&text).map_err(|mistakes| {
                let first = StageError::new(format!("the keys of boot step {number} make no sense"));
                mistakes.iter().fold(first, |error, mistake| error.seen(mistake.to_string()))
            })?;
            play(console, keys_of(console, machine).as_ref(), &actions, &PlayOptions::default())
                .await
                .map_err(|error| {
                    StageError::caused(format!("boot step {number} could not be carried out"), error)
                })?;
            Ok(())
        }
        BootStep::Type { text } => {
            let text = cx.bindings.resolve(text)?;
            cx.doing(
                Stage::Boot,
                format!("typing {} characters and reading them back", text.chars().count()),
            );
            let keys = keys_of(console, machine);
            let report = type_text_with(console, keys.as_ref(), &text, &TypeOptions::default())
                .await
                .map_err(|error| StageError::caused("the text could not be typed", error))?;
            if report.corrections > 0 {
                cx.warn(
                    format!("boot step {number} was typed wrong and corrected {} times", report.corrections),
                    "",
                );
            }
            if !report.verified {
                cx.warn(format!("boot step {number} was typed blind: the screen can't be read"), "");
            }
            Ok(())
        }
    }
}

/// Keys go over the display; when its connection is lost, by the target's own key call.
fn keys_of(console: &Console, machine: &Arc<dyn Machine>) -> Box<dyn KeySink> {
    match console.failure() {
        None => Box::new(console.clone()),
        Some(error) => {
            tracing::debug!(%error, "falling back to the target's key call");
            Box::new(SendKeys::new(machine.clone()))
        }
    }
}
