//! The QEMU guest agent over the Unix socket of its virtio-serial port (QEMU docs, `interop/qemu-ga-ref`).
//!
//! The protocol has no ids: an answer belongs to the last question, so one call goes on at a time, and after a
//! call that got no answer the next one starts on a new connection and finds its place again with
//! `guest-sync-delimited` (a byte 0xFF before the answer, a number that must come back).
//!
//! Nobody can tell from here whether an agent is there: the port takes bytes in any case. A new connection after
//! each silent call makes QEMU forget what no agent has read, so that an agent that comes up later finds no pile
//! of old commands.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::line::{LineReader, shorten};
use crate::qmp::read_error;
use crate::socket;

/// The longest answer that is accepted: `guest-exec-status` carries up to 16 MiB of output in base64, twice.
const LINE_LIMIT: usize = 64 * 1024 * 1024;
/// Starts the answer to `guest-sync-delimited`, and resets the agent's parser when sent before a command.
const SENTINEL: u8 = 0xff;

/// An error of a call to the guest agent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// No answer came in time, or QEMU's socket is not there: nobody knows whether the command was carried out.
    #[error("the guest agent does not answer `{command}` ({detail})")]
    NotAnswering {
        /// The command.
        command: String,
        /// How far the call came.
        detail: String,
    },
    /// The agent refused or failed the command.
    #[error("the guest agent refused `{command}`: {desc} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// The error class (`GenericError`, `CommandNotFound`, `CommandDisabled`, …).
        class: String,
        /// The agent's words.
        desc: String,
    },
    /// The guest sent something that is not the agent's protocol.
    #[error("the guest agent's answer to `{command}` makes no sense")]
    Garbled {
        /// The command.
        command: String,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
}

#[derive(Debug)]
struct Link {
    lines: LineReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

/// The guest agent behind one socket. Connects when it is needed; share it in an `Arc`.
#[derive(Debug)]
pub struct GuestAgent {
    path: PathBuf,
    /// The link is taken out for the length of a call and put back only after a whole answer: a call that fails,
    /// times out or is dropped thereby leaves no link of unknown state behind.
    link: Mutex<Option<Link>>,
}

impl GuestAgent {
    /// Names the socket; nothing is opened yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), link: Mutex::new(None) }
    }

    /// Runs a command in the agent. `arguments` is an object, or null for none. The timeout covers all of it:
    /// waiting for other calls, connecting, finding the place, the answer.
    ///
    /// Cancel-safe for later calls: a dropped call's answer is never taken for another's.
    ///
    /// # Errors
    /// [`AgentError::NotAnswering`] when nothing came in time, [`AgentError::Refused`] with the agent's own words.
    pub async fn execute(
        &self,
        command: &str,
        arguments: Value,
        timeout: Duration,
    ) -> Result<Value, AgentError> {
        let deadline = Instant::now() + timeout;
        let mut progress = "busy with another call";
        let call = async {
            let mut place = self.link.lock().await;
            let mut link = match place.take() {
                Some(link) => link,
                None => {
                    progress = "its socket could not be opened";
                    let stream =
                        socket::connect_until(&self.path, deadline).await.map_err(Failure::Socket)?;
                    let (read, write) = stream.into_split();
                    let mut link = Link { lines: LineReader::new(read, LINE_LIMIT), write };
                    progress = "not running, or its port is not open in the guest";
                    link.synchronise().await?;
                    link
                }
            };
            progress = "it went silent after the command was sent";
            link.send(command, arguments, false).await?;
            let answer = link.answer().await?;
            *place = Some(link);
            Ok(answer)
        };
        let answer = match timeout_at(deadline, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Failure::Socket(error))) => {
                let detail = format!("{progress}: {error}");
                return Err(AgentError::NotAnswering { command: command.to_owned(), detail });
            }
            Ok(Err(Failure::Garbled(source))) => {
                return Err(AgentError::Garbled { command: command.to_owned(), source });
            }
            Err(_) => {
                let detail = format!("{progress}; waited {timeout:?}");
                return Err(AgentError::NotAnswering { command: command.to_owned(), detail });
            }
        };
        match answer.get("return") {
            Some(result) => Ok(result.clone()),
            None => {
                let (class, desc) = read_error(answer.get("error").unwrap_or(&Value::Null));
                Err(AgentError::Refused { command: command.to_owned(), class, desc })
            }
        }
    }

    /// Asks whether the agent is there.
    ///
    /// # Errors
    /// As [`GuestAgent::execute`].
    pub async fn ping(&self, timeout: Duration) -> Result<(), AgentError> {
        self.execute("guest-ping", Value::Null, timeout).await.map(drop)
    }

    /// Sends a command that never answers when it succeeds (`guest-shutdown`, `guest-suspend-disk`): it waits for
    /// a refusal no longer than `grace`, and silence after the agent was found is success.
    ///
    /// # Errors
    /// As [`GuestAgent::execute`]; [`AgentError::NotAnswering`] only when the agent was not there before.
    pub async fn execute_without_answer(
        &self,
        command: &str,
        arguments: Value,
        timeout: Duration,
        grace: Duration,
    ) -> Result<(), AgentError> {
        self.ping(timeout).await?;
        match self.execute(command, arguments, grace).await {
            Ok(_) | Err(AgentError::NotAnswering { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Why a call failed before its timeout.
enum Failure {
    Socket(io::Error),
    Garbled(io::Error),
}

impl Link {
    async fn send(&mut self, command: &str, arguments: Value, reset: bool) -> Result<(), Failure> {
        let mut message = json!({ "execute": command });
        if let (Some(object), false) = (message.as_object_mut(), arguments.is_null()) {
            object.insert("arguments".to_owned(), arguments);
        }
        let mut bytes = if reset { vec![SENTINEL] } else { Vec::new() };
        bytes.extend_from_slice(message.to_string().as_bytes());
        bytes.push(b'\n');
        self.write.write_all(&bytes).await.map_err(Failure::Socket)
    }

    /// Throws away whatever older calls left in the pipe, up to the answer that bears this call's number.
    async fn synchronise(&mut self) -> Result<(), Failure> {
        // Random, because the answer to an earlier process's number may still be in the pipe; below 2^53, so that
        // every JSON reader keeps it whole.
        let number = u64::from(rand::random::<u32>());
        self.send("guest-sync-delimited", json!({ "id": number }), true).await?;
        loop {
            let line = self.line().await?;
            let Some(start) = line.iter().rposition(|byte| *byte == SENTINEL) else { continue };
            let answer = line.get(start + 1..).unwrap_or_default();
            let Ok(answer) = serde_json::from_slice::<Value>(answer) else { continue };
            if answer.get("return").and_then(Value::as_u64) == Some(number) {
                return Ok(());
            }
        }
    }

    async fn answer(&mut self) -> Result<Value, Failure> {
        let line = self.line().await?;
        serde_json::from_slice(&line).map_err(|error| {
            let text = shorten(&String::from_utf8_lossy(&line), 200);
            Failure::Garbled(io::Error::new(io::ErrorKind::InvalidData, format!("{error}: {text}")))
        })
    }

    async fn line(&mut self) -> Result<Vec<u8>, Failure> {
        match self.lines.next_line().await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(Failure::Socket(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "QEMU closed the agent's socket",
            ))),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Failure::Garbled(error)),
            Err(error) => Err(Failure::Socket(error)),
        }
    }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
pub(crate) mod tests;
