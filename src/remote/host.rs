//! A machine that is there already and is logged in to once: no waiting, no second try, and its host key is looked at
//! before anything else is said to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forge_machine::{ExecOutcome, OutputSink, Stream};
use thiserror::Error;
use tokio::time::timeout;

use super::credentials::{Method, Progress};
use super::exec::{self, Input};
use super::route::{Route, Wire, resolve};
use super::session::{Credentials, KEEPALIVE, LoginError, Session};

/// How long a connection to one of its addresses may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// What kept us from a machine, or a command from its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// Nobody answers.
    #[error("{host} can't be reached by SSH: {detail}")]
    Unreachable {
        /// The machine, with its port.
        host: String,
        /// What was seen at each address.
        detail: String,
    },
    /// It shows another host key than the known one.
    #[error("{host} shows another host key than the known one: expected {expected}, saw {seen}")]
    HostKeyChanged {
        /// The machine, with its port.
        host: String,
        /// The known fingerprint.
        expected: String,
        /// The one that was shown.
        seen: String,
    },
    /// It does not let the user in.
    #[error("{host} refuses the login of `{user}`: {detail}")]
    Refused {
        /// The machine, with its port.
        host: String,
        /// The user.
        user: String,
        /// How each credential fared.
        detail: String,
    },
    /// The connection does not work.
    #[error("the SSH connection to {host} failed: {detail}")]
    Broken {
        /// The machine, with its port.
        host: String,
        /// What happened.
        detail: String,
    },
}

/// A host key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// `SHA256:…`.
    pub fingerprint: String,
    /// The key as OpenSSH writes it: `ssh-ed25519 AAAA…`.
    pub public_key: String,
}

/// How a command ended, and what it has printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Its exit status.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

#[derive(Default)]
struct Both {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl OutputSink for Both {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => self.stdout.extend_from_slice(bytes),
            Stream::Stderr => self.stderr.extend_from_slice(bytes),
        }
    }
}

/// A machine on which the user is logged in.
#[derive(Debug)]
pub struct Host {
    name: String,
    session: Session,
}

fn named(host: &str, port: u16) -> String {
    if port == 22 { host.to_owned() } else { format!("{host}:{port}") }
}

/// A connection to the first of a machine's addresses that answers.
async fn connect(host: &str, port: u16) -> Result<(Box<dyn Wire>, SocketAddr), HostError> {
    let unreachable = |detail: String| HostError::Unreachable { host: named(host, port), detail };
    let addresses = resolve(host).await.map_err(|error| unreachable(error.to_string()))?;
    let route = Route::default();
    let mut seen = Vec::new();
    for address in addresses {
        let address = SocketAddr::new(address, port);
        match timeout(CONNECT_LIMIT, route.connect(address)).await {
            Ok(Ok(wire)) => return Ok((wire, address)),
            Ok(Err(error)) => seen.push(format!("{address}: {error}")),
            Err(_) => seen.push(format!("{address}: no answer within {} s", CONNECT_LIMIT.as_secs())),
        }
    }
    Err(unreachable(if seen.is_empty() { "it has no address".to_owned() } else { seen.join("; ") }))
}

impl Host {
    /// The host key that a machine shows. Nothing is said to it but hello and goodbye. May be dropped.
    ///
    /// # Errors
    /// When it can't be reached, or is no SSH server.
    pub async fn key_of(host: &str, port: u16) -> Result<HostKey, HostError> {
        let (wire, _) = connect(host, port).await?;
        let (fingerprint, public_key) = Session::shown(wire)
            .await
            .map_err(|error| HostError::Broken { host: named(host, port), detail: error.to_string() })?;
        Ok(HostKey { fingerprint, public_key })
    }

    /// Logs in to a machine that shows this very host key, by the first of the methods that it takes. May be dropped.
    ///
    /// # Errors
    /// When it can't be reached, shows another key, or takes none of the methods.
    pub async fn login(
        host: &str,
        port: u16,
        user: &str,
        methods: Vec<Method>,
        fingerprint: &str,
    ) -> Result<Self, HostError> {
        let credentials = Credentials {
            user: user.to_owned(),
            methods: Arc::new(methods),
            old_algorithms: false,
            keep_alive: KEEPALIVE,
        };
        let name = named(host, port);
        let mut progress = Progress::default();
        loop {
            let (wire, address) = connect(host, port).await?;
            let login = Session::login(wire, address, &credentials, Some(fingerprint), &mut progress);
            let error = match login.await {
                Ok(session) => return Ok(Self { name, session }),
                Err(LoginError::More(_)) => continue,
                Err(error) => error,
            };
            return Err(match error {
                LoginError::HostKeyChanged { expected, seen } => {
                    HostError::HostKeyChanged { host: name, expected, seen }
                }
                LoginError::Refused(detail) => {
                    HostError::Refused { host: name, user: user.to_owned(), detail }
                }
                LoginError::Failed(detail) | LoginError::More(detail) => {
                    HostError::Broken { host: name, detail }
                }
            });
        }
    }

    /// Runs a command line with the user's own shell, to its end. To be awaited when the command changes something:
    /// dropping it asks the machine to end the command.
    ///
    /// # Errors
    /// When the connection breaks, so that nobody knows how the command ended, or when it does not end within two minutes.
    pub async fn run(&self, line: &str) -> Result<Ran, HostError> {
        let broken = |detail: String| HostError::Broken { host: self.name.clone(), detail };
        let channel = self.session.channel().await.map_err(|error| broken(error.to_string()))?;
        let mut output = Both::default();
        let outcome = timeout(COMMAND_LIMIT, exec::run(channel, line, Input::Bytes(&[]), &mut output))
            .await
            .map_err(|_| broken(format!("`{line}` did not end within {} s", COMMAND_LIMIT.as_secs())))?
            .map_err(|error| broken(error.to_string()))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        match outcome {
            ExecOutcome::Exited(code) => {
                Ok(Ran { code, stdout: text(output.stdout), stderr: text(output.stderr) })
            }
            ExecOutcome::Signalled => Err(broken(format!("a signal ended `{line}`"))),
            ExecOutcome::Disconnected => {
                Err(broken(format!("the connection was lost while `{line}` ran; it may have run")))
            }
        }
    }

    /// Says goodbye.
    pub async fn close(&self) {
        self.session.close().await;
    }
}
