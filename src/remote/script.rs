//! Runs a script in the guest, in one command, so that success can't be mistaken.
//!
//! One file goes over standard input: a wrapper (`wrapper.sh`) with the script behind it. The guest stores it in a
//! private temporary folder, runs it with standard input closed, removes the folder, and prints a mark with the exit
//! status. Only that mark ends a script; without it the outcome is [`ScriptEnd::Truncated`], whatever the connection
//! or the channel's exit status says. Neither variables nor the nonce appear on a command line.

use std::collections::BTreeMap;
use std::time::Duration;

use forge_machine::{Command, ExecOutcome, Guest, GuestError, OutputSink, Stream};
use serde::{Deserialize, Serialize};

use super::lines::{LineSplitter, Tail};
use super::powershell::{self, PowerShell};
use super::quote;
use super::sentinel::{Filter, Piece, Sentinel};
use crate::engine::error::chain;

const WRAPPER: &str = include_str!("wrapper.sh");
/// Short enough for every SSH server (dropbear takes 9000 bytes), and free of secrets.
const BOOTSTRAP: &str = "m=$(umask); umask 077; d=$(mktemp -d \"$t/forge-XXXXXXXXXX\") && cat >\"$d/run\" || { rm -rf \"$d\"; exit 125; }; \
                         umask \"$m\"; exec /bin/sh \"$d/run\" \"$d\"";
const FOLDER: &str = "t=${TMPDIR:-/tmp}; ";
const IN_MEMORY: &str = "[ -d /dev/shm ] && [ -w /dev/shm ] && t=/dev/shm; ";
/// How much longer than its limit a script is listened to: the guest ends it, with all that it started, and says so.
const ENDING: Duration = Duration::from_secs(10);
/// How many of the last lines are kept for messages.
const TAIL: usize = 20;
/// Lines that begin so in a script say which marks it will print; see [`imitate`].
pub(crate) const PROMISE: &str = "#: ";

/// How a script gets the rights of root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Become {
    /// Not at all: it runs as the user who is logged in.
    #[default]
    No,
    /// By what works: nothing when the user is root already, else sudo, doas or su.
    Auto,
    /// By sudo, without a password.
    Sudo,
    /// By doas, without a password.
    Doas,
    /// By su, where the guest lets the user.
    Su,
}

impl Become {
    fn word(self) -> &'static str {
        match self {
            Self::No => "none",
            Self::Auto => "auto",
            Self::Sudo => "sudo",
            Self::Doas => "doas",
            Self::Su => "su",
        }
    }
}

impl From<bool> for Become {
    fn from(yes: bool) -> Self {
        if yes { Self::Auto } else { Self::No }
    }
}

/// A script to be run.
#[derive(Clone, Debug)]
pub struct RemoteScript {
    /// The marks around it; its nonce may be used by the script itself, for marks of its own.
    pub sentinel: Sentinel,
    /// The program that runs it, with its arguments.
    pub interpreter: Vec<String>,
    /// The script.
    pub content: Vec<u8>,
    /// Variables set for it. Names that no shell takes are left out: callers check them before.
    pub env: BTreeMap<String, String>,
    /// The folder it runs in; `None` is the user's home.
    pub dir: Option<String>,
    /// How it gets the rights of root.
    pub become_root: Become,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Whether its file is kept off the guest's disk, where the guest has a folder in memory for everybody.
    pub in_memory: bool,
    /// That it is for PowerShell, and how that runs it; `interpreter` and `in_memory` don't matter then, and every way
    /// to become root is a scheduled task of the system's own account.
    pub power_shell: Option<PowerShell>,
}

impl RemoteScript {
    /// A script for PowerShell, which ends at its first error.
    pub fn powershell(content: impl Into<Vec<u8>>, shell: PowerShell) -> Self {
        Self { power_shell: Some(shell), ..Self::sh(content) }
    }

    /// A script for `/bin/sh -e` without anything else.
    pub fn sh(content: impl Into<Vec<u8>>) -> Self {
        Self {
            sentinel: Sentinel::generate(),
            interpreter: vec!["/bin/sh".into(), "-e".into()],
            content: content.into(),
            env: BTreeMap::new(),
            dir: None,
            become_root: Become::No,
            timeout: None,
            in_memory: false,
            power_shell: None,
        }
    }

    /// What is run, and what goes over its standard input.
    #[must_use]
    pub fn command(&self) -> Command {
        if let Some(shell) = &self.power_shell {
            return powershell::of_script(self, shell);
        }
        let words: Vec<_> = self.interpreter.iter().map(|word| quote::sh(word)).collect();
        let wrapper = WRAPPER
            .replace("@EXPORTS@", &quote::exports(&self.env))
            .replace("@DIR@", &self.dir.as_deref().map_or("~".into(), quote::sh))
            .replace("@INTERPRETER@", &words.join(" "))
            .replace("@BECOME@", self.become_root.word())
            .replace("@LIMIT@", &self.timeout.map_or(0, seconds).to_string());
        let head = |offset: usize, length: usize| {
            let nonce = self.sentinel.nonce();
            format!("nonce={nonce}\noffset={offset:<10}\nlength={length:<10}\n{wrapper}")
        };
        let before = head(0, 0).len();
        let mut stdin = head(before + 1, before + self.content.len()).into_bytes();
        stdin.extend_from_slice(&self.content);
        let line = format!("{FOLDER}{}{BOOTSTRAP}", if self.in_memory { IN_MEMORY } else { "" });
        Command { line, stdin, timeout: self.timeout.map(|limit| limit + ENDING), ..Command::default() }
    }
}

/// A limit in whole seconds, as guests count them.
pub(super) fn seconds(limit: Duration) -> u64 {
    limit.as_millis().div_ceil(1000).clamp(1, 1 << 31) as u64
}

/// What is known once a script has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The kernel's boot id; `None` where the guest has none.
    pub boot_id: Option<String>,
    /// The temporary folder, which is left behind only when the script is cut off.
    pub dir: String,
}

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptEnd {
    /// It ended by itself, with this status.
    Exited(i32),
    /// It was not run: there is no way to become root. What was tried.
    NoRoot(String),
    /// Nobody knows: no mark of its end came back.
    Truncated(ExecOutcome),
    /// It took longer than its limit.
    TimedOut(Duration),
}

/// What came of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptRun {
    /// What was told at its begin; `None` when it never began.
    pub begun: Option<Begun>,
    /// How it ended.
    pub end: ScriptEnd,
    /// Its last lines.
    pub tail: Vec<String>,
}

/// Takes a script's output as lines.
pub trait ScriptOutput: Send {
    /// Takes a line, without its end, free of control characters.
    fn line(&mut self, line: &str, stderr: bool);

    /// Takes a mark that the script printed itself: the text after the nonce.
    fn mark(&mut self, _text: &str) {}
}

struct Sink<'a> {
    filter: Filter,
    stdout: LineSplitter,
    stderr: LineSplitter,
    tail: Tail,
    begun: Option<Begun>,
    end: Option<ScriptEnd>,
    limit: Duration,
    output: &'a mut dyn ScriptOutput,
}

impl Sink<'_> {
    fn stdout(&mut self, bytes: Option<&[u8]>) {
        let (stdout, tail, output) = (&mut self.stdout, &mut self.tail, &mut self.output);
        let (begun, end, limit) = (&mut self.begun, &mut self.end, self.limit);
        let take = |piece: Piece<'_>| {
            let mut line = |line: &str| {
                tail.push(line);
                output.line(line, false);
            };
            match piece {
                Piece::Output(bytes) => stdout.push(bytes, line),
                Piece::Mark(text) => {
                    stdout.flush(&mut line);
                    match text.split_once(' ').unwrap_or((text, "")) {
                        ("begin", rest) => *begun = Some(begin(rest)),
                        ("noroot", why) => *end = Some(ScriptEnd::NoRoot(why.trim().to_owned())),
                        ("timedout", _) => *end = Some(ScriptEnd::TimedOut(limit)),
                        ("exit", status) => {
                            // What a script that was ended had for a status says nothing.
                            if let (None, Ok(status)) = (&end, status.parse()) {
                                *end = Some(ScriptEnd::Exited(status));
                            }
                        }
                        _ => output.mark(text),
                    }
                }
            }
        };
        match bytes {
            Some(bytes) => self.filter.push(bytes, take),
            None => self.filter.finish(take),
        }
    }

    fn finish(&mut self) {
        self.stdout(None);
        let (tail, output) = (&mut self.tail, &mut self.output);
        self.stdout.flush(|line| {
            tail.push(line);
            output.line(line, false);
        });
        self.stderr.flush(|line| {
            tail.push(line);
            output.line(line, true);
        });
    }
}

fn begin(rest: &str) -> Begun {
    let (boot_id, dir) = rest.split_once(' ').unwrap_or((rest, ""));
    Begun { boot_id: (boot_id != "-").then(|| boot_id.to_owned()), dir: dir.to_owned() }
}

impl OutputSink for Sink<'_> {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => self.stdout(Some(bytes)),
            Stream::Stderr => {
                let (tail, output) = (&mut self.tail, &mut self.output);
                self.stderr.push(bytes, |line| {
                    tail.push(line);
                    output.line(line, true);
                });
            }
        }
    }
}

/// Runs a script to its end. May be dropped: the guest is asked to end it.
///
/// # Errors
/// Only when it could not be handed to the guest, which did not begin it; everything else is a [`ScriptEnd`].
pub async fn run_script(
    guest: &dyn Guest,
    script: &RemoteScript,
    output: &mut dyn ScriptOutput,
) -> Result<ScriptRun, GuestError> {
    let mut sink = Sink {
        filter: Filter::new(script.sentinel.clone()),
        stdout: LineSplitter::default(),
        stderr: LineSplitter::default(),
        tail: Tail::new(TAIL),
        begun: None,
        end: None,
        limit: script.timeout.unwrap_or_default(),
        output,
    };
    let outcome = guest.exec(&script.command(), &mut sink).await;
    sink.finish();
    let end = match (sink.end, outcome) {
        // The mark is the truth: what the connection does after it does not matter.
        (Some(end), _) => end,
        (None, Ok(outcome)) => ScriptEnd::Truncated(outcome),
        (None, Err(GuestError::TimedOut { limit, .. })) => {
            ScriptEnd::TimedOut(script.timeout.unwrap_or(limit))
        }
        // It had begun, so it is none that could be begun once more: nobody knows how it ended.
        (None, Err(error)) if sink.begun.is_some() => {
            sink.tail.push(&format!("({})", chain(&error)));
            ScriptEnd::Truncated(ExecOutcome::Disconnected)
        }
        (None, Err(error)) => return Err(error),
    };
    Ok(ScriptRun { begun: sink.begun, end, tail: sink.tail.into_lines() })
}

/// What a guest would print for a command that [`run_script`] made, if the script did what it promises and ended with
/// this status: for stand-ins of guests in tests, which run nothing. `None` when it is no such command.
#[must_use]
pub fn imitate(command: &Command, exit: i32) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(&command.stdin);
    let decoded;
    let text = if command.native {
        decoded = powershell::given(command)?;
        decoded.as_str()
    } else {
        &*text
    };
    let nonce = text.lines().find_map(|line| match command.native {
        true => line.strip_prefix("$nonce = '")?.strip_suffix('\''),
        false => line.strip_prefix("nonce="),
    })?;
    let mut answer = format!("{nonce} begin - /tmp/forge-imitated\n");
    for promise in text.lines().filter_map(|line| line.strip_prefix(PROMISE)) {
        answer.push_str(&format!("{nonce} {promise}\n"));
    }
    answer.push_str(&format!("{nonce} exit {exit}\n"));
    Some(answer.into_bytes())
}

#[cfg(test)]
mod tests;
