//! What is special where an installer writes the disks: it is done when it restarts the VM or switches it off, and it must
//! not start a second time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forge_machine::{Machine, Power};

use super::connect::start_again;
use super::{Running, Seeded, Watch};
use crate::engine::{Cx, Effect, StageError};
use crate::event::Stage;
use crate::plan::AfterInstall;

/// How often VM and screen are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the installer switches the VM off when it is done: waits for that, takes the media out, and starts what was
/// installed. Elsewhere there is nothing to do.
///
/// # Errors
/// When the installer is not done in time, starts again, or its screen is known for a dead end.
pub async fn installed(cx: &mut Cx, running: Running, seeded: &Seeded) -> Result<Running, StageError> {
    if cx.plan.after_install != Some(AfterInstall::Poweroff) {
        return Ok(running);
    }
    let machine = running.machine.clone();
    let waited = cx.cancellable(cx.alive(machine.as_ref(), done(cx, &running, seeded))).await;
    if let Err(error) = waited {
        running.watch.picture(cx, "install failed");
        return Err(running.watch.last_lines().into_iter().fold(error, StageError::seen));
    }
    drop(running);
    cx.doing(Stage::Connect, "the installer is done; starting what it installed");
    eject(cx, &machine).await?;
    let watch = start_again(cx, &machine).await?;
    Ok(Running { machine, watch })
}

/// Takes the media out of the drives of the VM, which is not to start from them again.
///
/// # Errors
/// When the target refuses.
pub async fn eject(cx: &Cx, machine: &Arc<dyn Machine>) -> Result<(), StageError> {
    let spec = cx.plan.machine.clone();
    cx.effect(Effect::Configure, async {
        match machine.eject(&spec).await {
            // Idempotent, so a lost answer is asked for again.
            Err(error) if error.is_outcome_unknown() => machine.eject(&spec).await,
            other => other,
        }
        .map_err(|error| StageError::port("the install media could not be taken out", error))
    })
    .await
}

/// Waits until the VM is off.
async fn done(cx: &Cx, running: &Running, seeded: &Seeded) -> Result<(), StageError> {
    let began = Instant::now();
    let limit = cx.plan.deadlines.connect;
    let mut again = Again::default();
    let mut told = String::new();
    loop {
        let (detail, off) = match running.machine.state().await {
            Ok(state) => (state.detail, state.power == Power::Stopped),
            Err(error) => (crate::engine::error::chain(&error), false),
        };
        if off {
            return Ok(());
        }
        if let Some(error) = running.stuck(cx.plan.deadlines.boot.min(limit), began) {
            return Err(error);
        }
        if let Some(error) = again.look(cx, &running.watch, seeded) {
            return Err(error);
        }
        let fetched = seeded.fetched_in_words();
        let seen = if fetched.is_empty() { detail } else { format!("{detail}; {fetched}") };
        if began.elapsed() >= limit {
            return Err(StageError::new(format!(
                "the installer did not switch the VM off within {} s",
                limit.as_secs()
            ))
            .seen(seen)
            .hint("raise `deadlines.connect`; an installer that restarts the VM is `source.after-install = \"reboot\"`"));
        }
        if seen != told {
            cx.waiting(Stage::Connect, "the installer to switch the VM off", seen.clone(), limit);
            told = seen;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Notices that the installer begins anew: the VM started from the medium instead of from its disk.
#[derive(Debug, Default)]
pub struct Again {
    /// Whether the first screen has gone since.
    left: bool,
}

impl Again {
    /// Looks at what the guest has fetched and shows.
    pub fn look(&mut self, cx: &Cx, watch: &Watch, seeded: &Seeded) -> Option<StageError> {
        let told = |seen: String| {
            StageError::new("the installer has started a second time").seen(seen).hint(
                "the VM started from the medium again instead of from its disk: was a boot loader for this firmware \
                 (`vm.bios`) installed, and is the disk the first of `vm.proxmox.boot`, if that is set?",
            )
        };
        if let Some((file, after)) = seeded.read_again(&cx.plan.seed) {
            return Some(told(format!("{file} was fetched again {after} s after the first time")));
        }
        let (first, now) = (watch.first_screen()?, watch.lines()?);
        if !self.left {
            self.left = !is_shown(first, &now);
            return None;
        }
        is_shown(first, &now).then(|| told("its first screen is shown again".into()))
    }
}

/// How much of a screen must be there again, of ten lines.
const ALIKE: usize = 9;

/// Whether a screen is shown, whatever numbers (seconds that are counted down) may have changed on it.
fn is_shown(screen: &[String], now: &[String]) -> bool {
    let words = |line: &String| -> String { line.chars().filter(|c| c.is_alphabetic()).collect() };
    let telling: Vec<String> = screen.iter().map(words).filter(|line| line.len() > 3).collect();
    let now: Vec<String> = now.iter().map(words).collect();
    let there = telling.iter().filter(|line| now.contains(line)).count();
    telling.len() > 1 && there * 10 >= telling.len() * ALIKE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_menu_is_known_again_by_its_entries_and_not_by_its_frame() {
        let menu = |entry: &str, seconds: u32| {
            lines(&format!(
                "GNU GRUB  version 2.06\n+--------+\n|*{entry} |\n| Power off |\n+--------+\nUse the keys to select\n\
                 The highlighted entry will be executed in {seconds}s."
            ))
        };
        let first = menu("Install Rocky Linux", 60);
        assert!(is_shown(&first, &menu("Install Rocky Linux", 57)));
        assert!(!is_shown(&first, &menu("Debian GNU/Linux", 5)), "the menu of what was installed");
        assert!(!is_shown(&first, &lines("Booting from Hard Disk...")));
        assert!(!is_shown(&lines("boot:"), &lines("boot:")), "too little to tell");
        assert!(!is_shown(&[], &[]));
    }
}
