//! One SSH connection: handshake, host key, login.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client::{self, AuthResult, Handle};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::key::BuildKey;

/// How long handshake and login may take together; an emulated guest needs one to three seconds.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);
/// How often a silent connection is checked; four checks without an answer end it, so a dead guest is noticed
/// after 75 s at most.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Ends a connection whose own keep-alive can't be sent any more.
const INACTIVITY: Duration = Duration::from_secs(120);
/// How long opening a channel may take.
const CHANNEL_LIMIT: Duration = Duration::from_secs(20);

/// Who logs in.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub user: String,
    pub key: Arc<BuildKey>,
}

/// Why a login did not come about.
#[derive(Debug)]
pub(super) enum LoginError {
    /// Another host key than the recorded one.
    HostKeyChanged { expected: String, seen: String },
    /// The server refuses the key; what it offers instead.
    Refused(String),
    /// The connection failed or closed.
    Failed(String),
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostKeyChanged { expected, seen } => {
                write!(f, "another host key: {seen} instead of {expected}")
            }
            Self::Refused(detail) => write!(f, "key refused ({detail})"),
            Self::Failed(detail) => write!(f, "login failed: {detail}"),
        }
    }
}

/// A connection on which the user is logged in.
pub(super) struct Session {
    handle: Handle<HostKeyCheck>,
    pub address: SocketAddr,
    pub host_key: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("address", &self.address).field("host_key", &self.host_key).finish()
    }
}

/// Accepts the recorded host key, or any when none is recorded, and tells which one was shown.
struct HostKeyCheck {
    expected: Option<String>,
    shown: Arc<Mutex<Option<String>>>,
}

impl client::Handler for HostKeyCheck {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let fingerprint = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.fingerprint(HashAlg::Sha256),
            PublicKeyOrCertificate::Certificate(certificate) => {
                certificate.public_key().fingerprint(HashAlg::Sha256)
            }
        }
        .to_string();
        let accept = self.expected.as_ref().is_none_or(|expected| *expected == fingerprint);
        if let Ok(mut shown) = self.shown.lock() {
            *shown = Some(fingerprint);
        }
        Ok(accept)
    }
}

impl Session {
    /// Shakes hands and logs in on a stream whose banner is still unread. May be dropped.
    pub async fn login(
        stream: TcpStream,
        address: SocketAddr,
        credentials: &Credentials,
        expected: Option<&str>,
    ) -> Result<Self, LoginError> {
        let late = |_| LoginError::Failed(format!("not done after {} s", LOGIN_LIMIT.as_secs()));
        timeout(LOGIN_LIMIT, Self::login_at_leisure(stream, address, credentials, expected))
            .await
            .map_err(late)?
    }

    async fn login_at_leisure(
        stream: TcpStream,
        address: SocketAddr,
        credentials: &Credentials,
        expected: Option<&str>,
    ) -> Result<Self, LoginError> {
        let config = client::Config {
            keepalive_interval: Some(KEEPALIVE),
            keepalive_max: 4,
            inactivity_timeout: Some(INACTIVITY),
            nodelay: true,
            ..client::Config::default()
        };
        let shown = Arc::new(Mutex::new(None));
        let check = HostKeyCheck { expected: expected.map(str::to_owned), shown: shown.clone() };
        let connected = client::connect_stream(Arc::new(config), stream, check).await;
        let shown = shown.lock().ok().and_then(|shown| shown.clone());
        let mut handle = match (connected, shown.as_deref(), expected) {
            (_, Some(seen), Some(expected)) if seen != expected => {
                return Err(LoginError::HostKeyChanged {
                    expected: expected.to_owned(),
                    seen: seen.to_owned(),
                });
            }
            (Ok(handle), ..) => handle,
            (Err(error), ..) => return Err(LoginError::Failed(format!("handshake: {error}"))),
        };
        let host_key = shown.ok_or_else(|| LoginError::Failed("the server showed no host key".into()))?;
        let key = PrivateKeyWithHashAlg::new(credentials.key.private(), None);
        match handle.authenticate_publickey(&credentials.user, key).await {
            Ok(AuthResult::Success) => Ok(Self { handle, address, host_key }),
            // This is also what russh tells when the connection closes in the middle.
            Ok(AuthResult::Failure { remaining_methods, .. }) if remaining_methods.is_empty() => {
                Err(LoginError::Failed("the server closed the connection while logging in".into()))
            }
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                let methods: Vec<&str> = remaining_methods.iter().map(<&str>::from).collect();
                let more = if partial_success { "the key is right but more is asked for; " } else { "" };
                Err(LoginError::Refused(format!("{more}offered: {}", methods.join(", "))))
            }
            Err(error) => Err(LoginError::Failed(format!("authentication: {error}"))),
        }
    }

    /// Opens a channel for a command or a subsystem.
    pub async fn channel(&self) -> Result<russh::Channel<client::Msg>, russh::Error> {
        timeout(CHANNEL_LIMIT, self.handle.channel_open_session()).await?
    }

    /// Whether the connection is known to be gone.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Says goodbye; a server that does not listen any more is not waited for.
    pub async fn close(&self) {
        let goodbye = self.handle.disconnect(russh::Disconnect::ByApplication, "", "");
        if let Ok(Err(error)) = timeout(Duration::from_secs(1), goodbye).await {
            tracing::debug!(%error, "the connection was closed already");
        }
    }
}
