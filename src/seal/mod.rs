//! Seal: takes out of the guest what a template must not carry.
//!
//! Operations are named data ([`OPERATIONS`]). Those of a build run as one script as root, over one channel, because
//! after the last of them nobody can log in any more: the script tells how each operation ended, and its sentinel
//! that it came to its end. An operation after which no login is possible is not carried out once another has failed.

mod catalogue;
mod leaks;
mod windows;

use std::fmt;
use std::time::Duration;

use forge_machine::{ExecOutcome, Guest, GuestError};
use thiserror::Error;

use crate::remote::{BUILD_KEY_COMMENT, Become, RemoteScript, ScriptEnd, ScriptOutput, quote, run_script};
pub use catalogue::{OPERATIONS, Operation, WINDOWS_OPERATIONS, enabled, operation, operations, switched};
pub use leaks::Leaks;
pub use windows::{FINISH_LIMIT, run as run_windows, switched_off};

/// How long all operations together may take.
const LIMIT: Duration = Duration::from_secs(600);
/// How much longer where whole disks are read, and perhaps written.
const DISKS: Duration = Duration::from_secs(3000);

/// The operation that looks for what may not stay.
pub const LEAK_GATE: &str = "leak-gate";
/// The operation that looks for it outside of files.
const FREE_SPACE: &str = "free-space";

/// What stands before the first operation of a script.
const FIRST: &str = "# The operations.\n";

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealOutcome {
    /// It did its work; may say something about it.
    Done(String),
    /// There was nothing to do, and why.
    Skipped(String),
    /// It failed, in its own words.
    Failed(String),
    /// It was left out because another one had failed.
    Left(String),
}

impl fmt::Display for SealOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match self {
            Self::Done(text) => ("done", text),
            Self::Skipped(text) => ("skipped", text),
            Self::Failed(text) => ("failed", text),
            Self::Left(text) => ("left out", text),
        };
        f.write_str(word)?;
        if text.is_empty() { Ok(()) } else { write!(f, ": {text}") }
    }
}

/// One operation's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealResult {
    /// Its name.
    pub operation: String,
    /// How it ended.
    pub outcome: SealOutcome,
}

impl SealResult {
    /// What a guest tells of an operation: its name, how it ended, and words.
    fn told(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let (operation, how) = (words.next()?, words.next()?);
        let text = words.next().unwrap_or_default().trim().to_owned();
        let outcome = match how {
            "done" => SealOutcome::Done(text),
            "skipped" => SealOutcome::Skipped(text),
            "left" => SealOutcome::Left(text),
            _ => SealOutcome::Failed(text),
        };
        Some(Self { operation: operation.to_owned(), outcome })
    }
}

/// The guest could not be sealed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SealError {
    /// There is no such operation.
    #[error("there is no seal operation `{name}` (there are: {known})")]
    Unknown {
        /// The name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The user's name can't be used in the guest's files.
    #[error("`{user}` can't be the name of a user")]
    BadUser {
        /// The name.
        user: String,
    },
    /// Operations failed; the others were carried out, but for those that end the access to the guest.
    #[error("{}", failures(results))]
    Failed {
        /// All results.
        results: Vec<SealResult>,
    },
    /// The script was cut off: nobody knows what was done.
    #[error("sealing was cut off ({how}) {}", until(results))]
    CutOff {
        /// How.
        how: String,
        /// What had come back until then.
        results: Vec<SealResult>,
    },
    /// Windows did not switch itself off, so its last operations did not all go well.
    #[error("Windows did not switch itself off within {} s, as it does when its last seal operations went well; last seen: {seen}", limit.as_secs())]
    StillRuns {
        /// How long it was waited for.
        limit: Duration,
        /// The VM's state.
        seen: String,
    },
    /// Sealing needs root.
    #[error("sealing needs root, and the guest offers no way ({tried})")]
    NoRoot {
        /// What was tried.
        tried: String,
    },
    /// The script could not be handed over.
    #[error("the seal script could not be handed to the guest")]
    Guest {
        /// The cause.
        #[source]
        source: GuestError,
    },
}

/// What the search for the build's secrets came upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The operation that found it.
    pub operation: &'static str,
    /// The files that hold it, as far as they were told.
    pub files: Vec<String>,
}

impl SealError {
    /// What of the build is still in the guest, where that is why sealing failed.
    #[must_use]
    pub fn found(&self) -> Option<Found> {
        let Self::Failed { results } = self else { return None };
        [LEAK_GATE, FREE_SPACE].into_iter().find_map(|operation| {
            let text = results.iter().find_map(|result| match &result.outcome {
                SealOutcome::Failed(text) if result.operation == operation => Some(text),
                _ => None,
            })?;
            let holds = |part: &str| part.split_once(" holds ").map(|(file, _)| file.to_owned());
            let files = text.split("; ").filter_map(holds).filter(|file| !file.starts_with("/dev/"));
            Some(Found { operation, files: files.collect() })
        })
    }
}

fn failures(results: &[SealResult]) -> String {
    let failed = results.iter().filter_map(|result| match &result.outcome {
        SealOutcome::Failed(text) => Some(format!("{}: {text}", result.operation)),
        _ => None,
    });
    format!("seal operations failed ({})", failed.collect::<Vec<_>>().join("; "))
}

#[derive(Default)]
struct Results {
    results: Vec<SealResult>,
}

impl ScriptOutput for Results {
    fn line(&mut self, line: &str, _stderr: bool) {
        tracing::debug!(line, "seal");
    }

    fn mark(&mut self, text: &str) {
        self.results.extend(text.strip_prefix("op ").and_then(SealResult::told));
    }
}

/// The script that carries out these operations. `created` says that the build made the user, so that it is removed;
/// `leaks` is what the last of them looks for.
///
/// # Errors
/// When an operation does not exist or the user's name is none.
pub fn script(
    operations: &[String],
    user: &str,
    created: bool,
    leaks: &Leaks,
) -> Result<RemoteScript, SealError> {
    if let Some(name) = operations.iter().find(|name| operation(name).is_none()) {
        let known: Vec<_> = OPERATIONS.iter().map(|operation| operation.name).collect();
        return Err(SealError::Unknown { name: name.clone(), known: known.join(", ") });
    }
    // It goes into patterns as well, so it is no place for anything special.
    if user.is_empty() || !user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
        return Err(SealError::BadUser { user: user.to_owned() });
    }
    let mut script = RemoteScript::sh("");
    let mut text = format!("mark() {{ printf '%s %s\\n' {} \"$*\"; }}\n", script.sentinel.nonce());
    text.push_str(
        &include_str!("linux/prelude.sh")
            .replace("@USER@", &quote::sh(user))
            .replace("@CREATED@", if created { "yes" } else { "no" })
            .replace("@KEY_COMMENT@", BUILD_KEY_COMMENT),
    );
    text.push_str(&leaks.prelude(operations));
    text.push_str(FIRST);
    // The catalogue's order holds, whatever order they are asked for in.
    let on = |name: &str| operations.iter().any(|each| each == name);
    let mut ahead = operation(LEAK_GATE).filter(|gate| on(gate.name) && leaks.has_lasting());
    for operation in OPERATIONS.iter().filter(|operation| on(operation.name)) {
        let Operation { name, text: function, last, .. } = operation;
        if let Some(gate) = ahead.take_if(|_| *last) {
            text.push_str(&format!("{}leak_ahead\n", gate.text));
        }
        let run = if *last { "run_last_op" } else { "run_op" };
        text.push_str(&format!("#: op {name} done\n{function}{run} {name} {}\n", name.replace('-', "_")));
    }
    // Clones are made of what is on the disk.
    text.push_str("sync\nif [ -n \"$failed\" ]; then exit 1; fi\n");
    script.content = text.into_bytes();
    // It holds what is looked for.
    script.in_memory = true;
    // Without -e: a failing operation must not keep the others from being tried.
    script.interpreter = vec!["/bin/sh".into()];
    script.become_root = Become::Auto;
    script.timeout = Some(LIMIT + if leaks.has_lasting() { DISKS } else { Duration::ZERO });
    script.dir = Some("/".into());
    Ok(script)
}

/// The script that tells what these operations would change, and changes nothing: they are carried out on an overlay over
/// the guest's disks.
///
/// # Errors
/// As [`script`].
pub fn dry_script(
    operations: &[String],
    user: &str,
    created: bool,
    leaks: &Leaks,
) -> Result<RemoteScript, SealError> {
    let mut script = script(operations, user, created, leaks)?;
    let text = String::from_utf8_lossy(&script.content).into_owned();
    // After the prelude, whose functions it replaces, and before the first operation.
    let at = text.find(FIRST).unwrap_or(text.len());
    let (prelude, rest) = text.split_at(at);
    script.content = format!("{prelude}{}{rest}", include_str!("linux/dry-run.sh")).into_bytes();
    Ok(script)
}

/// Tells what the operations would change. May be dropped.
///
/// # Errors
/// When the guest can't do that, or is lost before the end was told.
pub async fn try_out(
    guest: &dyn Guest,
    operations: &[String],
    user: &str,
    created: bool,
    leaks: &Leaks,
) -> Result<Vec<SealResult>, SealError> {
    run_script_of(guest, &dry_script(operations, user, created, leaks)?).await
}

/// Carries out the operations. May be dropped; nobody knows then how far it came.
///
/// # Errors
/// When an operation fails, or the guest is lost before the end was told.
pub async fn run(
    guest: &dyn Guest,
    operations: &[String],
    user: &str,
    created: bool,
    leaks: &Leaks,
) -> Result<Vec<SealResult>, SealError> {
    run_script_of(guest, &script(operations, user, created, leaks)?).await
}

async fn run_script_of(guest: &dyn Guest, script: &RemoteScript) -> Result<Vec<SealResult>, SealError> {
    let mut output = Results::default();
    ended(guest, script, &mut output, |output| output.results.clone()).await
}

/// Runs a script and gives what it told of its operations, if it came to its end and none of them failed.
async fn ended<O: ScriptOutput>(
    guest: &dyn Guest,
    script: &RemoteScript,
    output: &mut O,
    told: impl Fn(&O) -> Vec<SealResult>,
) -> Result<Vec<SealResult>, SealError> {
    let run = run_script(guest, script, output).await.map_err(|source| SealError::Guest { source })?;
    let results = told(output);
    let how = match run.end {
        ScriptEnd::Exited(0) => return Ok(results),
        ScriptEnd::Exited(_)
            if results.iter().any(|result| matches!(result.outcome, SealOutcome::Failed(_))) =>
        {
            return Err(SealError::Failed { results });
        }
        ScriptEnd::NoRoot(tried) => return Err(SealError::NoRoot { tried }),
        ScriptEnd::Exited(status) => {
            let said = run.tail.last().map(|line| format!(": {line}")).unwrap_or_default();
            format!("the script exited with status {status}{said}")
        }
        ScriptEnd::Truncated(ExecOutcome::Disconnected) => "the connection was lost".to_owned(),
        ScriptEnd::Truncated(_) => "the guest ended it".to_owned(),
        ScriptEnd::TimedOut(limit) => format!("not done within {} s", limit.as_secs()),
    };
    Err(SealError::CutOff { how, results })
}

/// How far sealing came, in words.
fn until(results: &[SealResult]) -> String {
    match results.last() {
        Some(result) => format!("after {}", result.operation),
        None => "before its first operation had ended".to_owned(),
    }
}

#[cfg(test)]
mod tests;
