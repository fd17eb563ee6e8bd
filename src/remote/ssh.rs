//! The guest over SSH: one identity, recognised by its host key, over as many connections as it takes.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use forge_machine::{Command, ExecOutcome, Guest, GuestError, OutputSink};
use russh_sftp::client::SftpSession;

use super::access::Patience;
use super::exec::{self, Input, StartError};
use super::powershell;
use super::session::Session;
use super::transfer;
use super::wait::{Search, WaitError, find};

/// How long the one reconnection may take that is tried when no channel can be opened.
const RECONNECT_LIMIT: Duration = Duration::from_secs(60);

/// A guest that is reached by SSH.
pub struct SshGuest {
    /// How it is found again.
    search: Search,
    host_key: String,
    /// The present connection; while there is none, where the last one went.
    live: Mutex<Arc<Session>>,
    closed: AtomicBool,
    /// Whether it is known that the server has no SFTP.
    no_sftp: AtomicBool,
    /// Held while reconnecting, so that two commands don't do it at once.
    reconnecting: tokio::sync::Mutex<()>,
}

impl fmt::Debug for SshGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshGuest").field("guest", &self.describe()).field("host_key", &self.host_key).finish()
    }
}

impl SshGuest {
    pub(super) fn new(search: Search, session: Session) -> Self {
        // It was found: nobody else is to be expected any more.
        let search = Search { patience: Patience::None, ..search };
        Self {
            search,
            host_key: session.host_key.clone(),
            live: Mutex::new(Arc::new(session)),
            closed: AtomicBool::new(false),
            no_sftp: AtomicBool::new(false),
            reconnecting: tokio::sync::Mutex::new(()),
        }
    }

    fn live(&self) -> Arc<Session> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens a channel; when that fails, once more after one reconnection.
    async fn channel(&self) -> Result<russh::Channel<russh::client::Msg>, GuestError> {
        if !self.closed.load(Ordering::Relaxed) {
            let session = self.live();
            match session.channel().await {
                Ok(channel) => return Ok(channel),
                Err(error) => tracing::debug!(%error, "no channel could be opened: reconnecting"),
            }
            self.renew(&session, RECONNECT_LIMIT).await?;
        } else {
            self.reconnect(RECONNECT_LIMIT).await?;
        }
        self.live().channel().await.map_err(|source| GuestError::Broken {
            what: format!("{} opens no channel even after a reconnection", self.describe()),
            source: source.into(),
        })
    }

    /// Replaces the given connection, unless somebody else has done so meanwhile.
    async fn renew(&self, old: &Arc<Session>, limit: Duration) -> Result<(), GuestError> {
        let _turn = self.reconnecting.lock().await;
        let present = self.live();
        if !Arc::ptr_eq(&present, old) && !present.is_closed() {
            return Ok(());
        }
        present.close().await;
        self.closed.store(true, Ordering::Relaxed);
        let search = Search { host_key: Some(self.host_key.clone()), limit, ..self.search.clone() };
        let session = find(&search, &|_| {}).await.map_err(|error| self.lost(error))?;
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(session);
        self.closed.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn lost(&self, error: WaitError) -> GuestError {
        match error {
            WaitError::HostKeyChanged { guest, expected, seen }
            | WaitError::SeedIgnored { guest, given: expected, seen, .. } => {
                GuestError::HostKeyChanged { guest, expected, seen }
            }
            WaitError::Refused { last_seen, .. } => {
                GuestError::Refused { guest: self.describe(), detail: last_seen }
            }
            WaitError::TimedOut { limit, last_seen } => GuestError::Unreachable {
                guest: self.describe(),
                detail: format!("not back within {} s; last seen: {last_seen}", limit.as_secs_f32()),
            },
        }
    }

    /// SFTP on a channel of its own; `None` when the server has none.
    pub(super) async fn sftp(&self) -> Result<Option<SftpSession>, GuestError> {
        if self.no_sftp.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let sftp = transfer::sftp(self.channel().await?).await;
        // A connection that is gone says nothing about the server.
        if sftp.is_none() && !self.live().is_closed() {
            self.no_sftp.store(true, Ordering::Relaxed);
        }
        Ok(sftp)
    }

    /// Runs a command without looking at its time limit.
    pub(super) async fn run(
        &self,
        command: &Command,
        output: &mut dyn OutputSink,
    ) -> Result<ExecOutcome, GuestError> {
        let input = Input::of(command).map_err(|error| GuestError::Broken {
            what: "the file that a command is to read can't be read".into(),
            source: error.into(),
        })?;
        let channel = self.channel().await?;
        exec::run(channel, &exec::line(command), input, output).await.or_else(|error| match error {
            // The line was handed over, so it may have run: nobody knows how it ended.
            StartError::Connection(_) => Ok(ExecOutcome::Disconnected),
            StartError::Refused => Err(GuestError::Broken {
                what: format!("{} runs no commands", self.describe()),
                source: error.into(),
            }),
        })
    }
}

#[async_trait]
impl Guest for SshGuest {
    fn describe(&self) -> String {
        let address = self.live().address;
        let user = &self.search.credentials.user;
        if address.port() == 22 { format!("{user}@{}", address.ip()) } else { format!("{user}@{address}") }
    }

    fn host_key(&self) -> Option<String> {
        Some(self.host_key.clone())
    }

    fn host_public_key(&self) -> Option<String> {
        Some(self.live().public_key.clone()).filter(|key| !key.is_empty())
    }

    fn takes_files(&self) -> bool {
        true
    }

    async fn exec(&self, command: &Command, output: &mut dyn OutputSink) -> Result<ExecOutcome, GuestError> {
        super::exec::in_time(command, self.run(command, output)).await
    }

    async fn put(&self, path: &str, content: &[u8], mode: u32) -> Result<(), GuestError> {
        if self.search.windows {
            return powershell::put(self, path, content).await;
        }
        transfer::put(self, path, content, mode).await
    }

    async fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, GuestError> {
        if self.search.windows {
            return powershell::get(self, path, limit).await;
        }
        transfer::get(self, path, limit).await
    }

    async fn reconnect(&self, limit: Duration) -> Result<(), GuestError> {
        let session = self.live();
        self.renew(&session, limit).await
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.live().close().await;
    }
}
