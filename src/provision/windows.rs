//! Restarts and updates of a Windows: never tried with a real one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forge_machine::{Guest, GuestError};
use tokio::time::sleep;

use super::{
    Forward, OutputObserver, ProvisionError, ShellSource, ShellStep, StepOutcome, WindowsRestart,
    WindowsUpdate, shown,
};
use crate::remote::{Become, PowerShell, RemoteScript, ScriptEnd, powershell, run_script};

const UPDATE: &str = include_str!("windows/update.ps1");
/// What the update script exits with when Windows has to be restarted, and when it did something.
const RESTART: i32 = 101;
const AGAIN: i32 = 102;
/// How often updates are looked for: each round may make room for more, and one that never ends is none.
const ROUNDS: usize = 30;
/// How long a guest that still answers, with the boot that it had, is taken for one that is about to go down after a script
/// that may do so. One that was told to is waited for as long as it may take: updates hold a shutdown up for minutes.
pub(super) const GOES_DOWN: Duration = Duration::from_secs(60);
/// The pause between two looks, and how long one reconnection may take.
const LOOK: Duration = Duration::from_secs(1);
const CHECK_LIMIT: Duration = Duration::from_secs(60);
/// How long a restart between two rounds of updates may take: Windows finishes their installation in it.
const UPDATE_RESTART: Duration = Duration::from_secs(3600);
/// The restart that is asked for when none is named; a moment later, so that the script can tell its end.
pub const RESTART_COMMAND: &str = "shutdown.exe /r /f /t 5 /c forge";

/// Waits until a guest that went away, or is about to, is back; whether it was started anew. One that answers with the boot
/// that it had is waited for until `patience` is over.
///
/// # Errors
/// When it is not back in time.
pub(super) async fn back(
    guest: &dyn Guest,
    old: Option<&str>,
    lost: bool,
    limit: Duration,
    patience: Duration,
) -> Result<bool, GuestError> {
    let began = Instant::now();
    let mut down = lost;
    loop {
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(GuestError::TimedOut { what: "waiting for Windows to be back".into(), limit });
        }
        if down {
            guest.reconnect(left).await?;
        }
        let id = powershell::boot_id(guest).await;
        match sight(id.as_deref(), old, began.elapsed(), patience.min(limit)) {
            Sight::Another => return Ok(true),
            Sight::Stays => return Ok(false),
            Sight::Up => down = false,
            Sight::Down => down = true,
        }
        sleep(LOOK).await;
    }
}

/// What a look at a guest says.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    /// It was started anew.
    Another,
    /// It does not answer.
    Down,
    /// It answers with the boot that it had, and may yet go down.
    Up,
    /// It does so for too long.
    Stays,
}

/// Judges the boot that a guest tells, `None` when it does not answer; `waited` is how long it has been looked at.
fn sight(id: Option<&str>, old: Option<&str>, waited: Duration, patience: Duration) -> Sight {
    match id {
        Some(id) if old.is_some_and(|old| old != id) => Sight::Another,
        Some(_) if waited + LOOK >= patience => Sight::Stays,
        Some(_) => Sight::Up,
        None => Sight::Down,
    }
}

/// Starts Windows anew. The boot is the witness: a service that alone went away and came back is no restart.
///
/// # Errors
/// When it can't be told to, does not do it, or is not back in time.
pub(super) async fn restart(
    guest: &dyn Guest,
    work: &WindowsRestart,
    observer: &mut dyn OutputObserver,
) -> Result<StepOutcome, ProvisionError> {
    let began = Instant::now();
    let mut script = RemoteScript::powershell(work.command.as_str(), PowerShell::default());
    script.timeout = Some(work.limit);
    let run = run_script(guest, &script, &mut Forward(observer)).await;
    let run = run.map_err(|source| ProvisionError::Guest { source })?;
    let tail = shown(&run.tail);
    let lost = match run.end {
        ScriptEnd::Exited(0) => false,
        ScriptEnd::Exited(exit) => {
            return Err(ProvisionError::Failed { exit, meaning: "", allowed: "0".into(), tail });
        }
        ScriptEnd::TimedOut(limit) => return Err(ProvisionError::TimedOut { limit, tail }),
        // The restart cut it off, if it had begun at all.
        _ if run.begun.is_some() => true,
        _ => return Err(ProvisionError::NotStarted { how: "its begin was not told".into(), tail }),
    };
    // Without knowing which boot it was nobody could say that another one came.
    let Some(old) = run.begun.and_then(|begun| begun.boot_id) else {
        return Err(ProvisionError::NotRebooted {
            tail: "; Windows does not tell when it was started".into(),
        });
    };
    let left = || work.limit.saturating_sub(began.elapsed());
    let rebooted = back(guest, Some(&old), lost, left(), left()).await;
    if !rebooted.map_err(|source| ProvisionError::NotBack { source })? {
        return Err(ProvisionError::NotRebooted { tail });
    }
    observer.line("(Windows is back)", false);
    if let Some(check) = &work.check {
        until(guest, check, work.limit, began, observer).await?;
    }
    Ok(StepOutcome { exit: 0, disconnected: true, rebooted: true })
}

/// Waits until a command succeeds.
async fn until(
    guest: &dyn Guest,
    check: &str,
    limit: Duration,
    began: Instant,
    observer: &mut dyn OutputObserver,
) -> Result<(), ProvisionError> {
    loop {
        let mut script = RemoteScript::powershell(check, PowerShell::default());
        script.timeout = Some(CHECK_LIMIT);
        let seen = match run_script(guest, &script, &mut Forward(observer)).await {
            Ok(run) if run.end == ScriptEnd::Exited(0) => return Ok(()),
            Ok(run) => format!("{:?}{}", run.end, shown(&run.tail)),
            Err(error) => crate::engine::error::chain(&error),
        };
        if began.elapsed() >= limit {
            return Err(ProvisionError::NeverCame { what: format!("`{check}` to succeed"), limit, seen });
        }
        sleep(LOOK).await;
    }
}

/// Hands on what a round says, and takes down which updates it has installed.
struct Round<'a> {
    observer: &'a mut dyn OutputObserver,
    installed: Vec<String>,
}

impl OutputObserver for Round<'_> {
    fn line(&mut self, line: &str, stderr: bool) {
        let named = line.strip_prefix("Installed: ").and_then(|rest| rest.strip_suffix(')'));
        if let Some((_, name)) = named.and_then(|rest| rest.rsplit_once(" (")) {
            self.installed.push(name.to_owned());
        }
        self.observer.line(line, stderr);
    }
}

/// The script of one round, which leaves out what is known to be installed.
fn script(work: &WindowsUpdate, known: &[String]) -> String {
    let known: Vec<String> = known.iter().map(|name| powershell::quoted(name)).collect();
    let filters: Vec<String> = work.filters.iter().map(|filter| powershell::quoted(filter)).collect();
    UPDATE
        .replace("@CRITERIA@", &powershell::quoted(&work.search_criteria))
        .replace("@LIMIT@", &work.update_limit.to_string())
        .replace("@FILTERS@", &filters.join(", "))
        .replace("@KNOWN@", &known.join(", "))
}

/// Installs updates, and starts Windows anew between, until there is nothing left to be done.
///
/// # Errors
/// When a round fails, Windows does not come back, or there is no end to it.
pub(super) async fn update(
    guest: &dyn Guest,
    work: &WindowsUpdate,
    observer: &mut dyn OutputObserver,
) -> Result<StepOutcome, ProvisionError> {
    let began = Instant::now();
    let left = || work.limit.saturating_sub(began.elapsed());
    let mut rebooted = false;
    let mut known = Vec::new();
    for _ in 0..ROUNDS {
        let step = ShellStep {
            // Windows Update refuses who comes over the network.
            become_root: Become::Auto,
            valid_exit_codes: vec![0, RESTART, AGAIN],
            timeout: Some(left().max(LOOK)),
            power_shell: Some(PowerShell::default()),
            ..ShellStep::new("windows-update", ShellSource::Inline(vec![script(work, &known)]))
        };
        let mut round = Round { observer: &mut *observer, installed: Vec::new() };
        let outcome = super::run(guest, &step, &BTreeMap::new(), &mut round).await?;
        known.append(&mut round.installed);
        match outcome.exit {
            RESTART => {
                observer.line("(Windows is started anew)", false);
                let limit = left().min(UPDATE_RESTART).max(LOOK);
                let work = WindowsRestart { command: RESTART_COMMAND.into(), check: None, limit };
                restart(guest, &work, observer).await?;
                rebooted = true;
            }
            AGAIN => {}
            _ => return Ok(StepOutcome { exit: 0, disconnected: rebooted, rebooted }),
        }
    }
    Err(ProvisionError::NeverCame {
        what: "the last update".into(),
        limit: work.limit,
        seen: format!("after {ROUNDS} rounds there is still something to install"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_installs_something_before_it_goes_down_is_waited_for_as_long_as_it_may_take() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let patience = minutes(15);
        assert_eq!(sight(Some("1"), Some("1"), minutes(12), patience), Sight::Up);
        assert_eq!(sight(None, Some("1"), minutes(13), patience), Sight::Down);
        assert_eq!(sight(Some("2"), Some("1"), minutes(14), patience), Sight::Another);
        assert_eq!(sight(Some("1"), Some("1"), minutes(15), patience), Sight::Stays);
        // One that merely may go down is not.
        assert_eq!(sight(Some("1"), Some("1"), minutes(2), GOES_DOWN), Sight::Stays);
        // Who does not know the old boot can't see another.
        assert_eq!(sight(Some("2"), None, minutes(0), patience), Sight::Up);
    }

    #[test]
    fn criteria_and_filters_stand_in_the_script_as_texts() {
        let work = WindowsUpdate {
            search_criteria: "IsInstalled=0 and Type='Software'".into(),
            filters: vec!["exclude:$_.Title -like '*Preview*'".into(), "include:$true".into()],
            update_limit: 7,
            limit: Duration::from_secs(1),
        };
        let text = script(&work, &[]);
        assert!(
            text.starts_with("$criteria = 'IsInstalled=0 and Type=''Software'''\n$limit = 7\n"),
            "{text}"
        );
        assert!(text.contains("@('exclude:$_.Title -like ''*Preview*''', 'include:$true')"), "{text}");
        assert!(!text.contains('@') || !text.contains("@FILTERS@"));
    }
}
