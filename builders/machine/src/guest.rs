//! The operating system inside the build VM, however it is reached.
//!
//! A [`Guest`] is an identity that reconnects, not a socket: after a reboot or an address change the same value
//! still means the same machine (checked by its host key or boot id).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use crate::error::Cause;

/// One of a command's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes a command's output as it comes.
pub trait OutputSink: Send {
    /// Takes some bytes; lines may be split anywhere.
    fn write(&mut self, stream: Stream, bytes: &[u8]);
}

/// Throws output away.
impl OutputSink for () {
    fn write(&mut self, _stream: Stream, _bytes: &[u8]) {}
}

/// Collects both streams together.
impl OutputSink for Vec<u8> {
    fn write(&mut self, _stream: Stream, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A command line for the guest's shell.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// The line, as `/bin/sh -c` would take it.
    pub line: String,
    /// What is written to its standard input.
    pub stdin: Vec<u8>,
    /// A file that is written there instead, from where it is read next to its end: only for guests that take one
    /// ([`Guest::takes_files`]).
    pub file: Option<Arc<std::fs::File>>,
    /// Variables set for it.
    pub env: BTreeMap<String, String>,
    /// How long it may take; `None` is no limit.
    pub timeout: Option<Duration>,
    /// Whether the line is for the server's own shell as it is, and not for `/bin/sh`: for Windows (`cmd.exe`).
    pub native: bool,
}

impl Command {
    /// A command line with no input, no variables and no limit.
    pub fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), ..Self::default() }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecOutcome {
    /// It exited by itself.
    Exited(i32),
    /// A signal ended it.
    Signalled,
    /// The connection was lost before an exit status came: nobody knows how it ended.
    Disconnected,
}

/// An error of a connection to the guest.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The guest can't be reached (any more).
    #[error("{guest} can't be reached: {detail}")]
    Unreachable {
        /// The guest, as `user@address`.
        guest: String,
        /// What was tried, and how it failed.
        detail: String,
    },
    /// The guest answers and refuses the build's credentials.
    #[error("{guest} refuses the login: {detail}")]
    Refused {
        /// The guest, as `user@address`.
        guest: String,
        /// The methods that were tried and are offered.
        detail: String,
    },
    /// Another machine answers at the guest's address.
    #[error("{guest} shows another host key than before: expected {expected}, saw {seen}")]
    HostKeyChanged {
        /// The guest, as `user@address`.
        guest: String,
        /// Fingerprint recorded at the first connection.
        expected: String,
        /// Fingerprint shown now.
        seen: String,
    },
    /// A command or transfer took longer than its limit.
    #[error("`{what}` took longer than {limit:?}")]
    TimedOut {
        /// The command or transfer.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// A file could not be written or read.
    #[error("transfer of {path} failed")]
    Transfer {
        /// The path in the guest.
        path: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The protocol failed.
    #[error("{what}")]
    Broken {
        /// What was being done.
        what: String,
        /// The cause.
        #[source]
        source: Cause,
    },
}

/// The guest's operating system, reached by SSH, by WinRM, by the agent, or by the serial console.
#[async_trait]
pub trait Guest: std::fmt::Debug + Send + Sync {
    /// `user@address`, for messages.
    fn describe(&self) -> String;

    /// The host key's SHA-256 fingerprint recorded at the first connection (`SHA256:…`), where there is one.
    fn host_key(&self) -> Option<String>;

    /// The host key itself as OpenSSH writes it (`ssh-ed25519 AAAA…`), for programs that keep a list of known hosts.
    fn host_public_key(&self) -> Option<String>;

    /// Whether a command's input may be a file of any length, which goes over without being held in memory.
    fn takes_files(&self) -> bool {
        false
    }

    /// Runs a command, handing its output over as it comes.
    ///
    /// A lost connection is [`ExecOutcome::Disconnected`], never an exit status.
    /// Cancel-safe: dropping closes the channel; the remote command may go on.
    ///
    /// # Errors
    /// When no channel can be opened, even after one reconnection; or when the time limit is over.
    async fn exec(&self, command: &Command, output: &mut dyn OutputSink) -> Result<ExecOutcome, GuestError>;

    /// Writes a file (whole or not at all: temporary name, then rename) with the given permission bits.
    ///
    /// Cancel-safe: dropping may leave the temporary file.
    ///
    /// # Errors
    /// When the guest can't be reached or the file can't be written.
    async fn put(&self, path: &str, content: &[u8], mode: u32) -> Result<(), GuestError>;

    /// Reads a file of at most `limit` bytes.
    ///
    /// # Errors
    /// When the guest can't be reached, or the file can't be read or is larger.
    async fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, GuestError>;

    /// Closes the present connection and makes a new one, waiting up to `limit` for the same guest to answer.
    ///
    /// # Errors
    /// When it does not come back in time, or another host key shows up.
    async fn reconnect(&self, limit: Duration) -> Result<(), GuestError>;

    /// Closes the connection.
    async fn close(&self);
}
