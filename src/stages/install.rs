//! What is special where an installer writes the disks: it is done when it restarts the VM or switches it off, and it must
//! not start a second time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forge_http_seed::answers::Kind;
use forge_machine::{Command, ExecOutcome, Guest, Machine, Power};

use super::connect::start_again;
use super::{Running, Seeded, Watch};
use crate::engine::{Cx, Effect, StageError};
use crate::event::Stage;
use crate::plan::AfterInstall;
use crate::remote::{PowerShell, RemoteScript, ScriptOutput, run_script};

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

/// Prints what shows that this is an installer's live system: what only its first files have, or a root in memory.
const LIVE: &str = "for sign in /run/install /run/initramfs/live /run/live/medium /run/archiso /cdrom/casper /.instsys.config; do \
                    [ ! -e $sign ] || echo \"it has $sign\"; done\n\
                    while read -r _ place type _; do [ \"$place\" != / ] || root=$type; done </proc/mounts\n\
                    case $root in rootfs|tmpfs|ramfs|squashfs|iso9660) echo \"its root is $root\" ;; esac";
const LIVE_LIMIT: Duration = Duration::from_secs(60);

/// What shows that an installer's live system answers, and not what it installs, or that this is not ready yet; `None` when it
/// is.
///
/// # Errors
/// When it is known that it will not be ready.
pub(super) async fn not_installed(cx: &Cx, guest: &dyn Guest) -> Result<Option<String>, StageError> {
    if cx.plan.access.windows {
        return set_up(cx, guest).await;
    }
    let command = Command { timeout: Some(LIVE_LIMIT), ..Command::new(LIVE) };
    let mut said = Vec::new();
    let asked = async { Ok::<_, StageError>(guest.exec(&command, &mut said).await) };
    let outcome = cx.cancellable(asked).await?;
    // An installer that ends cuts it.
    if matches!(outcome, Ok(ExecOutcome::Disconnected)) {
        return Ok(Some("its connection was lost at once".into()));
    }
    let said = String::from_utf8_lossy(&said).trim().replace('\n', ", ");
    Ok(Some(said).filter(|said| outcome.is_ok() && !said.is_empty()))
}

/// Prints how far the script is by which the answer files set a Windows up, and the last lines of its log.
const SET_UP: &str = "$state = 'C:\\Windows\\Temp\\forge-setup.txt'\n\
    if (Test-Path -LiteralPath $state) { Get-Content -LiteralPath $state -TotalCount 1 } else { 'running' }\n\
    Get-Content -LiteralPath 'C:\\Windows\\Temp\\forge.log' -Tail 8 -ErrorAction SilentlyContinue\n";

/// Why a Windows that lets the build in is not ready yet; `None` when it is.
///
/// # Errors
/// When the script that sets it up has failed.
async fn set_up(cx: &Cx, guest: &dyn Guest) -> Result<Option<String>, StageError> {
    #[derive(Default)]
    struct Lines(Vec<String>);
    impl ScriptOutput for Lines {
        fn line(&mut self, line: &str, stderr: bool) {
            if !stderr {
                self.0.push(line.trim_start_matches('\u{feff}').trim_end().to_owned());
            }
        }
    }
    // Another's answers tell nothing of the kind.
    if cx.plan.seed.answers.as_ref().is_none_or(|answers| answers.kind != Kind::Autounattend) {
        return Ok(None);
    }
    let script =
        RemoteScript { timeout: Some(LIVE_LIMIT), ..RemoteScript::powershell(SET_UP, PowerShell::default()) };
    let mut said = Lines::default();
    let asked = async { Ok::<_, StageError>(run_script(guest, &script, &mut said).await) };
    // It may restart Windows.
    if cx.cancellable(asked).await?.is_err() {
        return Ok(Some("its connection was lost at once".into()));
    }
    let mut lines = said.0.into_iter();
    let state = lines.next().unwrap_or_default();
    if let Some(why) = state.strip_prefix("failed: ") {
        let error = StageError::new(format!("Windows is installed, and setting it up failed: {why}"))
            .hint("the script is forge.ps1 of the seed, in the evidence; its log in the guest is C:\\Windows\\Temp\\forge.log");
        return Err(lines.filter(|line| !line.is_empty()).fold(error, StageError::seen));
    }
    Ok((state == "running").then(|| "it is still being set up".to_owned()))
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
