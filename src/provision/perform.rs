//! Carries a step out, whatever its kind, with its pause and its retries.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use forge_machine::Guest;

use super::{
    Action, OutputObserver, ProvisionError, ShellSource, ShellStep, Step, StepOutcome, ansible_local, file,
    local, reboot, run_patiently, shown, waiting, windows, windows_files,
};
use crate::remote::Become;

/// What restarts any Linux guest. It goes down a moment later, so that the script can tell its end.
const REBOOT: &str = "(sleep 1; systemctl reboot 2>/dev/null || reboot || shutdown -r now) >/dev/null 2>&1 &";

/// What steps work with.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The guest.
    pub guest: &'a dyn Guest,
    /// The build's own variables.
    pub env: &'a BTreeMap<String, String>,
    /// The file with the private key of the build, for programs of this machine; `None` when no step needs it.
    pub key_file: Option<&'a Path>,
    /// Whether a person is there who can press Enter.
    pub interactive: bool,
}

/// Carries a step out. May be dropped: what runs is then asked to end.
///
/// # Errors
/// When the last of its tries did not end well.
pub async fn perform(
    around: &Around<'_>,
    step: &Step,
    observer: &mut dyn OutputObserver,
) -> Result<StepOutcome, ProvisionError> {
    if let Some(pause) = step.pause_before {
        tokio::time::sleep(pause).await;
    }
    let mut tried = 0;
    loop {
        match once(around, step, observer).await {
            Ok(outcome) => return Ok(outcome),
            Err(error) if tried < step.retries => {
                tried += 1;
                let words = format!("(try {} of {} failed: {error})", tried, step.retries + 1);
                words.lines().for_each(|line| observer.line(line, true));
            }
            Err(error) => return Err(error),
        }
    }
}

async fn once(
    around: &Around<'_>,
    step: &Step,
    observer: &mut dyn OutputObserver,
) -> Result<StepOutcome, ProvisionError> {
    let done = StepOutcome { exit: 0, disconnected: false, rebooted: false };
    match &step.action {
        Action::Shell(shell) => run_patiently(around.guest, shell, around.env, observer).await,
        Action::Local(work) => local::run(around, &step.name, work, observer).await,
        Action::AnsibleLocal { work, script } => {
            ansible_local::run(around.guest, work, script, around.env, observer).await
        }
        Action::File(files) if files.windows => {
            windows_files::carry(around.guest, files, observer).await.map(|()| done)
        }
        Action::File(files) => file::carry(around.guest, files, observer).await.map(|()| done),
        Action::Reboot { become_root, limit } => {
            let script = ShellStep {
                become_root: *become_root,
                expect_disconnect: true,
                timeout: Some(*limit),
                ..ShellStep::new(step.name.clone(), ShellSource::Inline(vec![REBOOT.to_owned()]))
            };
            let began = Instant::now();
            let old = reboot::boot_id(around.guest).await;
            let mut outcome = run_patiently(around.guest, &script, around.env, observer).await?;
            if let (false, Some(old)) = (outcome.rebooted, old) {
                let left = limit.saturating_sub(began.elapsed());
                outcome.rebooted = reboot::another_boot(around.guest, &old, left).await;
            }
            // The boot id is the witness: a guest whose sshd alone went away has not been started anew.
            if outcome.rebooted { Ok(outcome) } else { Err(ProvisionError::NotRebooted { tail: shown(&[]) }) }
        }
        Action::WindowsRestart(work) => windows::restart(around.guest, work, observer).await,
        Action::WindowsUpdate(work) => windows::update(around.guest, work, observer).await,
        Action::WaitFor { condition, limit } => {
            waiting::until(around.guest, condition, *limit, observer).await.map(|()| done)
        }
        Action::Breakpoint { note } => {
            local::breakpoint(around, note, observer).await;
            Ok(done)
        }
    }
}

impl Action {
    /// Whether it needs the build's private key as a file of this machine.
    #[must_use]
    pub fn needs_key_file(&self) -> bool {
        matches!(self, Self::Local(_) | Self::Breakpoint { .. })
    }

    /// How root is become in the guest.
    #[must_use]
    pub fn become_root(&self) -> Become {
        match self {
            Self::Shell(step) => step.become_root,
            Self::File(step) => step.become_root,
            Self::Reboot { become_root, .. } => *become_root,
            Self::AnsibleLocal { .. }
            | Self::Local(_)
            | Self::WindowsRestart(_)
            | Self::WindowsUpdate(_)
            | Self::WaitFor { .. }
            | Self::Breakpoint { .. } => Become::No,
        }
    }
}
