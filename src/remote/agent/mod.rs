//! The guest over the guest agent: no network, no login. The serial console has the same calls ([`super::serial`]).
//!
//! The agent starts programs and answers once, when they are over; output while they run it does not give, and its
//! input and files are small. So a command runs beside the agent, in a session of its own, with files of a private folder
//! as its streams (`guest.sh`), and each call reads what came since the last one. A call whose answer is lost is
//! repeated: starting twice starts once, and reading says from where. What a command is given lies in the guest's memory,
//! where it is not too much for that: it may be secret.
//!
//! Invariants: the end of a command is what its own shell wrote; a guest that was started anew, or does not come back,
//! is [`ExecOutcome::Disconnected`].

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use forge_machine::{
    AgentChannel, AgentError, AgentExit, Command, ExecOutcome, Guest, GuestError, OutputSink, Stream,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{quote, transfer};
use crate::engine::error::chain;

#[cfg(test)]
mod tests;

const BEGIN: &str = include_str!("begin.sh");
const GUEST: &str = include_str!("guest.sh");
/// Removes what [`BEGIN`] makes.
const TAKE_BACK: &str = "rm -rf \"/dev/shm/$1\" \"/var/tmp/$1\" \"/tmp/$1\"";
/// Asks `guest.sh`, which is gone with the memory of a guest that was started anew.
const ASK: &str = "[ -e \"$0\" ] || { echo none 0 0; exit 0; }; exec /bin/sh \"$0\" \"$@\"";
/// Longer input goes to the guest's disk: its memory may be small.
const MOST_IN_MEMORY: usize = 2 << 20;
/// How long the agent may be silent before the guest counts as lost: it is started anew within that, or never.
const SILENCE: Duration = Duration::from_secs(60);
/// The pauses between two questions whether a call is over.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(150);
/// How long one call may take, beyond which its answer counts as lost.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// The pause after a call that failed.
const REST: Duration = Duration::from_millis(250);

/// A guest that is reached by its agent.
pub struct AgentGuest {
    channel: Arc<dyn AgentChannel>,
    user: String,
    /// The name of the private folder in the guest: always the same, so that an answer that was lost, or a guest that was
    /// started anew, leaves no second one behind.
    name: String,
    /// The private folders in the guest; `None` before they are made.
    folder: Mutex<Option<Folder>>,
    /// Held while it is made.
    beginning: tokio::sync::Mutex<()>,
    commands: AtomicU64,
}

impl fmt::Debug for AgentGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentGuest").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Looking for the guest, in a task of its own. When nobody waits for it any more, because another way has come first, it is
/// told to stop: the call that is under way comes to its end, and what was made is removed after it.
struct Search {
    guest: Arc<AgentGuest>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
    found: bool,
}

impl Drop for Search {
    fn drop(&mut self) {
        if self.found {
            return;
        }
        self.stop.cancel();
        let (guest, task) = (self.guest.clone(), self.task.take());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Some(task) = task {
                    _ = task.await;
                }
                _ = guest.call(&["/bin/sh", "-c", TAKE_BACK, "sh", &guest.name]).await;
            });
        }
    }
}

/// The private folders in the guest.
#[derive(Clone, Debug)]
struct Folder {
    /// The one with `guest.sh`, in memory where there is such a place.
    memory: String,
    /// The one on the disk.
    disk: String,
}

impl Folder {
    fn script(&self) -> String {
        format!("{}/guest.sh", self.memory)
    }
}

/// What came of looking for the guest.
enum Found {
    /// It answers.
    Folder(Folder),
    /// The user is not there yet.
    NoUser,
}

impl AgentGuest {
    /// Waits until the agent answers and the user is there; `seen` is told each change of what is seen. May be dropped.
    ///
    /// # Errors
    /// When that does not come about within the limit, with what was seen last.
    pub async fn connect(
        channel: Arc<dyn AgentChannel>,
        user: &str,
        limit: Duration,
        seen: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Arc<Self>, GuestError> {
        let guest = Self {
            channel,
            user: user.to_owned(),
            name: format!("forge-agent-{:032x}", rand::random::<u128>()),
            folder: Mutex::new(None),
            beginning: tokio::sync::Mutex::new(()),
            commands: AtomicU64::new(0),
        };
        let guest = Arc::new(guest);
        let (tell, mut told) = mpsc::unbounded_channel::<String>();
        let (answer, found) = oneshot::channel();
        let stop = CancellationToken::new();
        let looking = {
            let (guest, stop) = (guest.clone(), stop.clone());
            async move {
                let seen = |words: &str| _ = tell.send(words.to_owned());
                _ = answer.send(guest.find_until(limit, &seen, &stop).await);
            }
        };
        let task = Some(tokio::spawn(looking));
        let mut search = Search { guest: guest.clone(), stop, task, found: false };
        while let Some(words) = told.recv().await {
            seen(&words);
        }
        let what = || format!("{} could not be looked for", guest.describe());
        found.await.map_err(|error| GuestError::Broken { what: what(), source: error.into() })??;
        search.found = true;
        Ok(guest)
    }

    /// Waits for the guest and makes its private folders.
    async fn find(&self, limit: Duration) -> Result<Folder, GuestError> {
        self.find_until(limit, &|_| {}, &CancellationToken::new()).await
    }

    /// The same, until it is told to stop; `seen` is told each change of what is seen.
    async fn find_until(
        &self,
        limit: Duration,
        seen: &(dyn Fn(&str) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Folder, GuestError> {
        let _turn = self.beginning.lock().await;
        if let Some(folder) = self.folder() {
            return Ok(folder);
        }
        let began = Instant::now();
        let mut told = String::new();
        loop {
            let words = match self.begin(&self.name).await {
                Ok(Found::Folder(folder)) => {
                    *self.folder.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder.clone());
                    return Ok(folder);
                }
                Ok(Found::NoUser) => {
                    format!("{} answers, the user {} is not there yet", self.channel.name(), self.user)
                }
                Err(error @ AgentError::Denied { .. }) => {
                    return Err(GuestError::Refused { guest: self.describe(), detail: self.words(&error) });
                }
                Err(error) => self.words(&error),
            };
            if words != told {
                seen(&words);
                told.clone_from(&words);
            }
            let why = if stop.is_cancelled() {
                Some("given up".to_owned())
            } else if began.elapsed() >= limit {
                Some(format!("not there within {} s", limit.as_secs()))
            } else {
                None
            };
            if let Some(why) = why {
                let detail = format!("{why}; last seen: {words}");
                return Err(GuestError::Unreachable { guest: self.describe(), detail });
            }
            _ = timeout(REST, stop.cancelled()).await;
        }
    }

    async fn begin(&self, name: &str) -> Result<Found, AgentError> {
        let answer = self.call(&["/bin/sh", "-c", BEGIN, "sh", name, &self.user]).await?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let mut words = text.split_whitespace();
        let folder = match (words.next(), words.next()) {
            (Some("none"), _) => return Ok(Found::NoUser),
            (Some(memory), Some(disk)) if answer.code == Some(0) => {
                Folder { memory: memory.to_owned(), disk: disk.to_owned() }
            }
            _ => {
                let said = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
                return Err(AgentError::Refused { call: "make a folder", source: said.into() });
            }
        };
        self.channel.write(&folder.script(), GUEST.as_bytes()).await?;
        Ok(Found::Folder(folder))
    }

    /// An error of the channel, for people.
    fn words(&self, error: &AgentError) -> String {
        format!("{} {}", self.channel.name(), chain(error))
    }

    fn folder(&self) -> Option<Folder> {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a program of the agent's to its end.
    async fn call(&self, words: &[&str]) -> Result<AgentExit, AgentError> {
        let call = async {
            let number = self.channel.start(words).await?;
            let mut pause = FIRST_PAUSE;
            loop {
                if let Some(exit) = self.channel.ended(number).await? {
                    return Ok(exit);
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        };
        let late =
            |_| AgentError::Silent { source: format!("no end after {} s", CALL_LIMIT.as_secs()).into() };
        timeout(CALL_LIMIT, call).await.map_err(late)?
    }

    /// Repeats something until it succeeds, or the agent was silent for too long.
    async fn insist<T, F>(&self, what: impl Fn() -> F) -> Result<T, GuestError>
    where
        F: Future<Output = Result<T, AgentError>>,
    {
        let began = Instant::now();
        loop {
            match what().await {
                Ok(value) => return Ok(value),
                Err(error @ AgentError::Silent { .. }) if began.elapsed() < SILENCE => {
                    tracing::debug!(error = self.words(&error), "asking again");
                    sleep(REST).await;
                }
                Err(error @ AgentError::Denied { .. }) => {
                    return Err(GuestError::Refused { guest: self.describe(), detail: self.words(&error) });
                }
                Err(error) => {
                    return Err(GuestError::Unreachable {
                        guest: self.describe(),
                        detail: self.words(&error),
                    });
                }
            }
        }
    }

    /// Runs a command without looking at its time limit.
    async fn run(&self, command: &Command, output: &mut dyn OutputSink) -> Result<ExecOutcome, GuestError> {
        if command.native {
            return Err(GuestError::Broken {
                what: format!("{} can't run this command", self.describe()),
                source: "it is for Windows, where the agent is no way to the guest yet".into(),
            });
        }
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let line = format!("{}{}", quote::exports(&command.env), command.line);
        let mut tries = 0;
        let (script, path) = loop {
            let folder = self.find(SILENCE).await?;
            let large = command.stdin.len() > MOST_IN_MEMORY;
            let path = format!("{}/{number}", if large { &folder.disk } else { &folder.memory });
            match self.insist(|| self.write(&path, &line)).await {
                Ok(()) => break (folder.script(), path),
                // The folder may have gone with the boot in which it was made.
                Err(GuestError::Unreachable { .. }) if tries == 0 => {
                    tries += 1;
                    self.lose_folder();
                }
                Err(error) => return Err(error),
            }
        };
        for (number, piece) in command.stdin.chunks(self.channel.chunk()).enumerate() {
            let file = format!("{path}.in.{number:08}");
            self.insist(|| self.channel.write(&file, piece)).await?;
        }
        let mut leaving = Leaving {
            channel: self.channel.clone(),
            script: script.clone(),
            path: path.clone(),
            ended: false,
        };
        let limit = self.channel.most();
        let (most, input) = (limit.to_string(), command.stdin.len().to_string());
        let (mut out, mut err) = (0_u64, 0_u64);
        let mut begun = false;
        let outcome = loop {
            let (from_out, from_err) = (out.to_string(), err.to_string());
            let what: [&str; 5] = if begun {
                ["pull", &path, &from_out, &from_err, &most]
            } else {
                ["start", &path, &self.user, &most, &input]
            };
            let words: Vec<&str> = ["/bin/sh", "-c", ASK, &script].into_iter().chain(what).collect();
            let answer = match self.insist(|| self.call(&words)).await {
                Ok(answer) => answer,
                // The command may have run: nobody knows how it ended.
                Err(GuestError::Unreachable { detail, .. }) => {
                    tracing::debug!(detail, "lost");
                    break ExecOutcome::Disconnected;
                }
                Err(error) => return Err(error),
            };
            let pulled = Pulled::read(&answer).ok_or_else(|| GuestError::Broken {
                what: format!("{} gave an answer that makes no sense", self.describe()),
                source: String::from_utf8_lossy(&answer.stderr).trim().to_owned().into(),
            })?;
            begun = true;
            if !pulled.out.is_empty() {
                output.write(Stream::Stdout, pulled.out);
            }
            if !pulled.err.is_empty() {
                output.write(Stream::Stderr, pulled.err);
            }
            out += pulled.out.len() as u64;
            err += pulled.err.len() as u64;
            let whole = (pulled.out.len() as u64) < limit && (pulled.err.len() as u64) < limit;
            match pulled.state {
                "running" => {}
                "failed" => {
                    return Err(GuestError::Broken {
                        what: format!(
                            "{} could not store what the command reads, and did not run it",
                            self.describe()
                        ),
                        source: match String::from_utf8_lossy(&answer.stderr).trim() {
                            "" => "its memory or its disk is full".into(),
                            said => said.into(),
                        },
                    });
                }
                "rebooted" | "none" => break ExecOutcome::Disconnected,
                "lost" if whole => break ExecOutcome::Signalled,
                status => match status.parse() {
                    Ok(status) if whole => break ExecOutcome::Exited(status),
                    _ => {}
                },
            }
        };
        leaving.ended = true;
        if outcome == ExecOutcome::Disconnected {
            self.lose_folder();
        } else {
            // Nobody waits for it to be over.
            _ = self.channel.start(&["/bin/sh", &script, "forget", &path]).await;
        }
        Ok(outcome)
    }

    /// Writes a command's line.
    async fn write(&self, path: &str, line: &str) -> Result<(), AgentError> {
        self.channel.write(&format!("{path}.line"), line.as_bytes()).await
    }

    /// The folder may be gone: it is looked for, or made anew, before the next command.
    fn lose_folder(&self) {
        *self.folder.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// One answer of `guest.sh`.
struct Pulled<'a> {
    state: &'a str,
    out: &'a [u8],
    err: &'a [u8],
}

impl<'a> Pulled<'a> {
    fn read(answer: &'a AgentExit) -> Option<Self> {
        let end = answer.stdout.iter().position(|byte| *byte == b'\n')?;
        let (head, rest) = answer.stdout.split_at(end);
        let mut words = std::str::from_utf8(head).ok()?.split(' ');
        let (state, out, err) = (words.next()?, words.next()?, words.next()?);
        let (out, err): (usize, usize) = (out.parse().ok()?, err.parse().ok()?);
        let rest = rest.get(1..)?;
        (rest.len() == out + err).then_some(())?;
        let (out, err) = rest.split_at(out);
        Some(Self { state, out, err })
    }
}

/// Asks the guest to end a command that is given up.
struct Leaving {
    channel: Arc<dyn AgentChannel>,
    script: String,
    path: String,
    ended: bool,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.ended, tokio::runtime::Handle::try_current()) {
            let (channel, script, path) = (self.channel.clone(), self.script.clone(), self.path.clone());
            runtime.spawn(async move {
                // Where it can't be asked, the guest is gone anyway.
                _ = channel.start(&["/bin/sh", &script, "stop", &path]).await;
            });
        }
    }
}

#[async_trait]
impl Guest for AgentGuest {
    fn describe(&self) -> String {
        format!("{} by {}", self.user, self.channel.name())
    }

    fn host_key(&self) -> Option<String> {
        None
    }

    fn host_public_key(&self) -> Option<String> {
        None
    }

    async fn exec(&self, command: &Command, output: &mut dyn OutputSink) -> Result<ExecOutcome, GuestError> {
        crate::remote::exec::in_time(command, self.run(command, output)).await
    }

    async fn put(&self, path: &str, content: &[u8], mode: u32) -> Result<(), GuestError> {
        transfer::put_by_command(self, path, content, mode).await
    }

    async fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, GuestError> {
        transfer::get_by_command(self, path, limit).await
    }

    async fn reconnect(&self, limit: Duration) -> Result<(), GuestError> {
        self.lose_folder();
        self.find(limit).await.map(drop)
    }

    async fn close(&self) {
        if let Some(folder) = self.folder() {
            self.lose_folder();
            let words = ["/bin/sh", &folder.script(), "end", &folder.memory];
            // A guest that does not answer any more is not waited for.
            _ = timeout(Duration::from_secs(5), self.call(&words)).await;
        }
        _ = timeout(Duration::from_secs(5), self.channel.close()).await;
    }
}
