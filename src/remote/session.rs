//! One SSH connection: handshake, host key, login.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Preferred, cipher, kex, mac};
use tokio::time::timeout;

use super::credentials::{Method, Progress, authenticate};
use super::route::Wire;

/// How long handshake and login may take together; an emulated guest needs one to three seconds.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);
/// How often a silent connection is checked when nothing else is asked for; four checks without an answer end it, so a
/// dead guest is noticed after 75 s at most.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(15);
/// A connection whose own keep-alive can't be sent any more is ended after so many of them.
const INACTIVE: u32 = 8;
/// How long opening a channel may take.
const CHANNEL_LIMIT: Duration = Duration::from_secs(20);

/// Who logs in.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub user: String,
    /// In the order in which they are tried.
    pub methods: Arc<Vec<Method>>,
    /// Whether algorithms are allowed that only old servers need.
    pub old_algorithms: bool,
    /// How often a silent connection is checked.
    pub keep_alive: Duration,
}

/// Why a login did not come about.
#[derive(Debug)]
pub(super) enum LoginError {
    /// Another host key than the recorded one.
    HostKeyChanged { expected: String, seen: String },
    /// The server refuses all credentials: how each fared, and what it offers instead.
    Refused(String),
    /// The server refuses those that one connection may offer: how each fared. The next one offers more of them.
    More(String),
    /// The connection failed or closed.
    Failed(String),
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostKeyChanged { expected, seen } => {
                write!(f, "another host key: {seen} instead of {expected}")
            }
            Self::Refused(detail) => write!(f, "login refused ({detail})"),
            Self::More(detail) => write!(f, "login refused so far ({detail})"),
            Self::Failed(detail) => write!(f, "login failed: {detail}"),
        }
    }
}

/// A connection on which the user is logged in.
pub(super) struct Session {
    handle: Handle<HostKeyCheck>,
    pub address: SocketAddr,
    pub host_key: String,
    /// The same key as OpenSSH writes it.
    pub public_key: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("address", &self.address).field("host_key", &self.host_key).finish()
    }
}

/// A host key that was shown.
#[derive(Clone)]
struct Shown {
    fingerprint: String,
    /// As OpenSSH writes it.
    key: String,
}

/// Accepts the recorded host key, or any when none is recorded, and tells which one was shown.
struct HostKeyCheck {
    expected: Option<String>,
    shown: Arc<Mutex<Option<Shown>>>,
}

impl client::Handler for HostKeyCheck {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let key = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            PublicKeyOrCertificate::Certificate(certificate) => {
                PublicKey::new(certificate.public_key().clone(), "")
            }
        };
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let accept = self.expected.as_ref().is_none_or(|expected| *expected == fingerprint);
        if let Ok(mut shown) = self.shown.lock() {
            *shown = Some(Shown { fingerprint, key: key.to_openssh().unwrap_or_default() });
        }
        Ok(accept)
    }
}

/// What is offered to the server: the safe algorithms, and after them those of old servers when they are asked for.
fn preferred(old_algorithms: bool) -> Preferred {
    let mut preferred = Preferred::DEFAULT;
    if old_algorithms {
        preferred.kex.to_mut().extend([kex::DH_GEX_SHA1, kex::DH_G14_SHA1, kex::DH_G1_SHA1]);
        preferred.cipher.to_mut().extend([cipher::AES_256_CBC, cipher::AES_192_CBC, cipher::AES_128_CBC]);
        preferred.mac.to_mut().extend([mac::HMAC_SHA1_ETM, mac::HMAC_SHA1]);
    } else {
        preferred.key.to_mut().retain(|algorithm| *algorithm != Algorithm::Rsa { hash: None });
    }
    preferred
}

impl Session {
    /// Shakes hands and logs in on a stream whose banner is still unread, with the credentials that connections before it have
    /// not come to. May be dropped.
    pub async fn login(
        stream: impl Wire + 'static,
        address: SocketAddr,
        credentials: &Credentials,
        expected: Option<&str>,
        progress: &mut Progress,
    ) -> Result<Self, LoginError> {
        let late = |_| LoginError::Failed(format!("not done after {} s", LOGIN_LIMIT.as_secs()));
        timeout(LOGIN_LIMIT, Self::login_at_leisure(stream, address, credentials, expected, progress))
            .await
            .map_err(late)?
    }

    async fn login_at_leisure(
        stream: impl Wire + 'static,
        address: SocketAddr,
        credentials: &Credentials,
        expected: Option<&str>,
        progress: &mut Progress,
    ) -> Result<Self, LoginError> {
        let config = client::Config {
            keepalive_interval: Some(credentials.keep_alive),
            keepalive_max: 4,
            inactivity_timeout: Some(credentials.keep_alive * INACTIVE),
            nodelay: true,
            preferred: preferred(credentials.old_algorithms),
            ..client::Config::default()
        };
        let shown = Arc::new(Mutex::new(None));
        let check = HostKeyCheck { expected: expected.map(str::to_owned), shown: shown.clone() };
        let connected = client::connect_stream(Arc::new(config), stream, check).await;
        let shown = shown.lock().ok().and_then(|shown| shown.clone());
        let mut handle = match (connected, &shown, expected) {
            (_, Some(seen), Some(expected)) if seen.fingerprint != expected => {
                return Err(LoginError::HostKeyChanged {
                    expected: expected.to_owned(),
                    seen: seen.fingerprint.clone(),
                });
            }
            (Ok(handle), ..) => handle,
            (Err(error), ..) => return Err(LoginError::Failed(format!("handshake: {error}"))),
        };
        let shown = shown.ok_or_else(|| LoginError::Failed("the server showed no host key".into()))?;
        let Credentials { user, methods, old_algorithms, .. } = credentials;
        authenticate(&mut handle, user, methods, *old_algorithms, progress).await?;
        Ok(Self { handle, address, host_key: shown.fingerprint, public_key: shown.key })
    }

    /// Shakes hands and goes away: the host key's fingerprint, and the key as OpenSSH writes it. May be dropped.
    pub async fn shown(stream: impl Wire + 'static) -> Result<(String, String), LoginError> {
        let shown = Arc::new(Mutex::new(None));
        let check = HostKeyCheck { expected: None, shown: shown.clone() };
        let config = client::Config { preferred: preferred(false), ..client::Config::default() };
        let connecting = client::connect_stream(Arc::new(config), stream, check);
        let late = |_| LoginError::Failed(format!("not done after {} s", LOGIN_LIMIT.as_secs()));
        match timeout(LOGIN_LIMIT, connecting).await.map_err(late)? {
            Ok(handle) => _ = handle.disconnect(russh::Disconnect::ByApplication, "", "").await,
            Err(error) => return Err(LoginError::Failed(format!("handshake: {error}"))),
        }
        let shown: Option<Shown> = shown.lock().ok().and_then(|shown| shown.clone());
        shown
            .map(|shown| (shown.fingerprint, shown.key))
            .ok_or_else(|| LoginError::Failed("the server showed no host key".into()))
    }

    /// Opens a connection from the server onwards to another machine.
    pub async fn tunnel(self: &Arc<Self>, host: &str, port: u16) -> Result<Box<dyn Wire>, russh::Error> {
        let opening = self.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0);
        let stream = timeout(CHANNEL_LIMIT, opening).await??.into_stream();
        Ok(Box::new(stream))
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
