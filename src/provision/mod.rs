//! Provisioners: what is run in the guest between the first login and sealing.
//!
//! A step is data ([`Step`]); [`perform`] carries it out. A script has succeeded only when its sentinel came back with
//! an exit status that the step allows. A lost connection is a failure unless the step expects one; then the guest
//! must be back, as the same guest, before the step ends.

mod ansible;
mod ansible_local;
#[cfg(test)]
mod ansible_tests;
pub mod file;
mod local;
mod perform;
mod reboot;
mod step;
mod waiting;
mod windows;
mod windows_files;

use std::collections::BTreeMap;
use std::time::Duration;

use forge_machine::{ExecOutcome, Guest, GuestError};
use thiserror::Error;

use crate::remote::{Begun, RemoteScript, ScriptEnd, ScriptOutput, quote, run_script};
pub(crate) use local::host_and_port;
pub use local::is_interactive;
pub use perform::{Around, perform};
pub use step::{
    Action, AnsibleWork, Condition, Direction, FileStep, LocalStep, LocalWork, ShellSource, ShellStep, Step,
    WindowsRestart, WindowsUpdate,
};
pub(crate) use windows::RESTART_COMMAND;

/// How long a guest may take to come back after an expected disconnect, for a step without a limit of its own.
const BACK_LIMIT: Duration = Duration::from_secs(600);

/// Scripts that are shorter than this, with their variables, are kept off the guest's disk: there may be secrets in them,
/// and what was on a disk stays in its free space.
const IN_MEMORY: usize = 1 << 20;

/// The pause between two tries to begin a script.
const START_PAUSE: Duration = Duration::from_millis(500);

/// Takes a step's output, line by line.
pub trait OutputObserver: Send {
    /// Takes a line, free of control characters.
    fn line(&mut self, line: &str, stderr: bool);

    /// Takes how many bytes of a file are over, of how many; `up` when it goes to the guest. Told often.
    fn moved(&mut self, _name: &str, _done: u64, _total: u64, _up: bool) {}
}

/// How a step ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepOutcome {
    /// The script's exit status; 0 when the guest went down on it, as the step expected.
    pub exit: i32,
    /// Whether the guest went away and came back.
    pub disconnected: bool,
    /// Whether it was started anew (its boot id changed).
    pub rebooted: bool,
}

/// Why a step failed. The message has the script's last lines.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The script ended with a status that the step does not allow.
    #[error("the script exited with status {exit}{meaning}, allowed: {allowed}{tail}")]
    Failed {
        /// The status.
        exit: i32,
        /// What shells mean by it; may be empty.
        meaning: &'static str,
        /// The statuses that the step allows.
        allowed: String,
        /// The last lines, ready to be shown.
        tail: String,
    },
    /// The connection was lost before the script's end was told.
    #[error("the connection to the guest was lost before the script had ended{tail}")]
    ConnectionLost {
        /// The last lines.
        tail: String,
    },
    /// The guest ended the script without its end being told.
    #[error("the script was cut off: the guest ended it ({how}) before it could tell its end{tail}")]
    Truncated {
        /// How the guest ended it.
        how: String,
        /// The last lines.
        tail: String,
    },
    /// The script could not even be stored and begun.
    #[error("the script could not be started in the guest ({how}){tail}")]
    NotStarted {
        /// How the guest refused it.
        how: String,
        /// The last lines.
        tail: String,
    },
    /// The script took too long.
    #[error("the script was not done within {limit:?}{tail}")]
    TimedOut {
        /// The limit.
        limit: Duration,
        /// The last lines.
        tail: String,
    },
    /// The user can't become root.
    #[error("the step wants to be root, and the guest offers no way ({tried})")]
    NoRoot {
        /// What was tried, with the answers.
        tried: String,
    },
    /// A variable's name is none.
    #[error("`{name}` can't be the name of a variable")]
    BadVariable {
        /// The name.
        name: String,
    },
    /// The guest went away, as expected, and did not come back.
    #[error("the guest went away, as the step expected, and did not come back")]
    NotBack {
        /// What was seen.
        #[source]
        source: GuestError,
    },
    /// The guest was told to start anew and did not.
    #[error("the guest did not start anew{tail}")]
    NotRebooted {
        /// What it said; may be empty.
        tail: String,
    },
    /// What was waited for did not come.
    #[error("{what} did not come within {limit:?}; last seen: {seen}")]
    NeverCame {
        /// What was waited for.
        what: String,
        /// The limit.
        limit: Duration,
        /// What was seen last.
        seen: String,
    },
    /// A file could not be carried.
    #[error("{what}: {why}")]
    Transfer {
        /// Which way, and which file.
        what: String,
        /// Why not.
        why: String,
    },
    /// Something of this machine failed.
    #[error("{what}")]
    Local {
        /// What was tried.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A program of this machine failed.
    #[error("the program on this machine {how}, allowed: {allowed}{tail}")]
    LocalFailed {
        /// How it ended.
        how: String,
        /// The statuses that the step allows.
        allowed: String,
        /// The last lines.
        tail: String,
    },
    /// The guest can't be reached.
    #[error("the script could not be handed to the guest")]
    Guest {
        /// The cause.
        #[source]
        source: GuestError,
    },
}

impl ProvisionError {
    /// What to do about it; empty when there is nothing to say.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Failed { exit: 126 | 127, .. } => "a command is missing in the guest, or may not be run",
            Self::Failed { .. } => "if this status is fine, add it to `valid-exit-codes`",
            Self::ConnectionLost { .. } => {
                "if the step restarts the guest or its network, say `expect-disconnect = true`"
            }
            Self::Truncated { .. } => {
                "something in the script kills its own session, or the guest is out of memory"
            }
            Self::NotStarted { .. } => "is the guest's temporary folder full or read-only?",
            Self::TimedOut { .. } => "raise the step's `timeout`",
            Self::NoRoot { .. } => "let the seed give the user sudo without a password, or log in as root",
            Self::BadVariable { .. } => "use letters, digits and `_`, and no digit first",
            Self::NotBack { .. } => "look at the last picture of the screen in the evidence",
            Self::NotRebooted { .. } => "can the user reboot it? is `become` needed?",
            Self::NeverCame { .. } => "raise the step's `timeout`, or look why it does not come",
            Self::Local { .. } => "paths are relative to the profile's folder",
            Self::Transfer { why, .. } if why.contains("Permission denied") => {
                "paths that are not the user's need `become = true`"
            }
            Self::Transfer { why, .. } if why.contains("No space left") => {
                "the file lies in a temporary folder first: is there room for it, and for a folder's content twice?"
            }
            Self::Transfer { .. } => "",
            Self::LocalFailed { .. } | Self::Guest { .. } => "",
        }
    }

    /// Whether a guest that is gone may be why: whoever can ask the VM's target does so first.
    #[must_use]
    pub fn may_be_of_a_lost_guest(&self) -> bool {
        !matches!(
            self,
            Self::Failed { .. } | Self::NoRoot { .. } | Self::BadVariable { .. } | Self::Local { .. }
        )
    }
}

/// Hands a step's output on.
struct Forward<'a>(&'a mut dyn OutputObserver);

impl ScriptOutput for Forward<'_> {
    fn line(&mut self, line: &str, stderr: bool) {
        self.0.line(line, stderr);
    }
}

/// Runs a script to its end; one that could not be begun is tried again for as long as its `start_retry` says.
/// `env` and the rest as for [`run`].
///
/// # Errors
/// As [`run`].
pub async fn run_patiently(
    guest: &dyn Guest,
    step: &ShellStep,
    env: &BTreeMap<String, String>,
    observer: &mut dyn OutputObserver,
) -> Result<StepOutcome, ProvisionError> {
    let began = std::time::Instant::now();
    loop {
        let result = run(guest, step, env, observer).await;
        let not_begun = matches!(
            &result,
            Err(ProvisionError::Guest { source: GuestError::Unreachable { .. } | GuestError::Broken { .. } }
                | ProvisionError::NotStarted { .. })
        );
        let left = step.start_retry.and_then(|limit| limit.checked_sub(began.elapsed()));
        match (not_begun, left) {
            (true, Some(left)) if !left.is_zero() => {
                observer.line("(the script could not be begun; connecting again)", true);
                // What keeps the connection away is told by the next try.
                if let Err(error) = guest.reconnect(left).await {
                    tracing::debug!(%error, "not back yet");
                }
                tokio::time::sleep(START_PAUSE).await;
            }
            _ => return result,
        }
    }
}

/// Runs a script to its end. `env` are the build's own variables; the step's come on top. May be dropped: the guest is
/// then asked to end the script.
///
/// # Errors
/// When the script does not end well, or nobody knows how it ended.
pub async fn run(
    guest: &dyn Guest,
    step: &ShellStep,
    env: &BTreeMap<String, String>,
    observer: &mut dyn OutputObserver,
) -> Result<StepOutcome, ProvisionError> {
    let script = script(step, env)?;
    // Which boot this is must be known before the script can end it.
    let result = run_script(guest, &script, &mut Forward(observer))
        .await
        .map_err(|source| ProvisionError::Guest { source })?;
    let tail = shown(&result.tail);
    let lost = matches!(result.end, ScriptEnd::Truncated(ExecOutcome::Disconnected));
    match result.end {
        ScriptEnd::Exited(exit) if step.valid_exit_codes.contains(&exit) => {
            if !step.expect_disconnect {
                return Ok(StepOutcome { exit, disconnected: false, rebooted: false });
            }
            back(guest, step, result.begun.as_ref(), exit, lost).await
        }
        ScriptEnd::Exited(exit) => {
            let allowed: Vec<String> = step.valid_exit_codes.iter().map(ToString::to_string).collect();
            Err(ProvisionError::Failed { exit, meaning: meaning(exit), allowed: allowed.join(", "), tail })
        }
        // Whatever ended the session: when the guest goes down, commands are killed before connections are cut.
        ScriptEnd::Truncated(_) if step.expect_disconnect && result.begun.is_some() => {
            back(guest, step, result.begun.as_ref(), 0, true).await
        }
        ScriptEnd::Truncated(ExecOutcome::Disconnected) => Err(ProvisionError::ConnectionLost { tail }),
        ScriptEnd::Truncated(outcome) => {
            let how = match outcome {
                ExecOutcome::Exited(status) => format!("status {status}"),
                _ => "killed by a signal".to_owned(),
            };
            Err(match result.begun {
                Some(_) => ProvisionError::Truncated { how, tail },
                None => ProvisionError::NotStarted { how, tail },
            })
        }
        ScriptEnd::NoRoot(tried) => Err(ProvisionError::NoRoot { tried }),
        ScriptEnd::TimedOut(limit) => Err(ProvisionError::TimedOut { limit, tail }),
    }
}

async fn back(
    guest: &dyn Guest,
    step: &ShellStep,
    begun: Option<&Begun>,
    exit: i32,
    lost: bool,
) -> Result<StepOutcome, ProvisionError> {
    let limit = step.timeout.unwrap_or(BACK_LIMIT);
    if step.power_shell.is_some() {
        let old = begun.and_then(|begun| begun.boot_id.as_deref());
        let rebooted = windows::back(guest, old, lost, limit, windows::GOES_DOWN).await;
        let rebooted = rebooted.map_err(|source| ProvisionError::NotBack { source })?;
        return Ok(StepOutcome { exit, disconnected: lost || rebooted, rebooted });
    }
    let ride = reboot::ride_out(guest, begun, lost, limit).await;
    let ride = ride.map_err(|source| ProvisionError::NotBack { source })?;
    Ok(StepOutcome { exit, disconnected: ride.disconnected, rebooted: ride.rebooted })
}

fn script(step: &ShellStep, env: &BTreeMap<String, String>) -> Result<RemoteScript, ProvisionError> {
    let mut all = env.clone();
    all.extend(step.env.clone());
    if let Some(name) = all.keys().find(|name| !quote::is_variable_name(name)) {
        return Err(ProvisionError::BadVariable { name: name.clone() });
    }
    let mut script = RemoteScript::sh(step.source.text());
    script.interpreter = step.interpreter();
    let length: usize = all.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
    script.in_memory = script.content.len() + length < IN_MEMORY;
    script.env = all;
    script.dir.clone_from(&step.work_dir);
    script.become_root = step.become_root;
    script.timeout = step.timeout;
    script.power_shell.clone_from(&step.power_shell);
    Ok(script)
}

fn meaning(exit: i32) -> &'static str {
    match exit {
        126 => " (a command may not be run)",
        127 => " (command not found)",
        124 => " (no such folder to run in, or a time limit)",
        137 => " (killed; out of memory?)",
        143 => " (ended by a signal)",
        _ => "",
    }
}

fn shown(tail: &[String]) -> String {
    let last: Vec<String> =
        tail.iter().skip(tail.len().saturating_sub(8)).map(|line| format!("\n    | {line}")).collect();
    if last.is_empty() {
        "; it had printed nothing".to_owned()
    } else {
        format!("; its last lines:{}", last.concat())
    }
}

#[cfg(test)]
mod step_tests;
#[cfg(test)]
mod tests;
