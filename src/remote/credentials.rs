//! Logs in on a connection whose host key was accepted: one credential after another, until the server is content.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::MethodSet;
use russh::client::{AuthResult, Handle, Handler, KeyboardInteractiveAuthResponse as Answer};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg};

use super::session::LoginError;

/// How many rounds of questions are answered with the password; PAM asks one, an expired password two more.
const ROUNDS: usize = 4;
/// How many keys of an agent are offered: OpenSSH ends a login after six refusals (`MaxAuthTries`).
const AGENT_KEYS: usize = 5;

/// A password that Debug does not show.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(Arc<str>);

impl Password {
    /// Wraps a password.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A way to log in.
#[derive(Clone)]
pub enum Method {
    /// A private key.
    Key(Arc<PrivateKey>),
    /// A private key and an OpenSSH certificate for it.
    Certificate(Arc<PrivateKey>, Arc<Certificate>),
    /// The keys of an ssh-agent, at a socket or the one of `SSH_AUTH_SOCK`.
    Agent(Option<PathBuf>),
    /// A password, also as the answer to `keyboard-interactive`.
    Password(Password),
}

impl Method {
    fn name(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::Certificate(..) => "certificate",
            Self::Agent(_) => "ssh-agent",
            Self::Password(_) => "password",
        }
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the server said to one credential.
enum Said {
    Welcome,
    No { remaining: MethodSet, partial: bool },
}

impl From<AuthResult> for Said {
    fn from(result: AuthResult) -> Self {
        match result {
            AuthResult::Success => Self::Welcome,
            AuthResult::Failure { remaining_methods, partial_success } => {
                Self::No { remaining: remaining_methods, partial: partial_success }
            }
        }
    }
}

/// Tries the methods in their order. One that the server accepts only as a part of what it asks for is not lost: the
/// next ones are tried on top of it.
pub(super) async fn authenticate<H: Handler>(
    handle: &mut Handle<H>,
    user: &str,
    methods: &[Method],
    old_algorithms: bool,
) -> Result<(), LoginError> {
    let mut tried: Vec<String> = Vec::new();
    let mut partial = false;
    let mut offered = MethodSet::empty();
    for method in methods {
        let said = match method {
            Method::Key(key) => offer_key(handle, user, key, old_algorithms).await?,
            Method::Certificate(key, certificate) => handle
                .authenticate_openssh_cert(user, key.clone(), certificate.as_ref().clone())
                .await
                .map_err(broken)?
                .into(),
            Method::Agent(socket) => {
                match offer_agent(handle, user, socket.as_deref(), old_algorithms).await? {
                    Ok(said) => said,
                    Err(why) => {
                        tried.push(format!("ssh-agent: {why}"));
                        continue;
                    }
                }
            }
            Method::Password(password) => offer_password(handle, user, password).await?,
        };
        match said {
            Said::Welcome => return Ok(()),
            // This is also what russh tells when the connection closes in the middle.
            Said::No { remaining, .. } if remaining.is_empty() => {
                return Err(LoginError::Failed("the server closed the connection while logging in".into()));
            }
            Said::No { remaining, partial: part } => {
                tried.push(format!("{} {}", method.name(), if part { "accepted" } else { "refused" }));
                partial |= part;
                offered = remaining;
            }
        }
    }
    let offered: Vec<&str> = offered.iter().map(<&str>::from).collect();
    let more = if partial { "more is asked for; " } else { "" };
    Err(LoginError::Refused(format!("{}; {more}offered: {}", tried.join(", "), offered.join(", "))))
}

fn broken(error: impl fmt::Display) -> LoginError {
    LoginError::Failed(format!("authentication: {error}"))
}

/// The hash to sign with: RSA keys have several, and a server names the ones it takes.
async fn hash<H: Handler>(handle: &Handle<H>, is_rsa: bool, old_algorithms: bool) -> Option<HashAlg> {
    if !is_rsa {
        return None;
    }
    match handle.best_supported_rsa_hash().await {
        Ok(Some(best)) => best,
        // A server that names none is from before RFC 8308 or has RSA switched off.
        _ if old_algorithms => None,
        _ => Some(HashAlg::Sha256),
    }
}

async fn offer_key<H: Handler>(
    handle: &mut Handle<H>,
    user: &str,
    key: &Arc<PrivateKey>,
    old_algorithms: bool,
) -> Result<Said, LoginError> {
    let hash = hash(handle, key.algorithm().is_rsa(), old_algorithms).await;
    let offer = PrivateKeyWithHashAlg::new(key.clone(), hash);
    let said: Said = handle.authenticate_publickey(user, offer).await.map_err(broken)?.into();
    // A server may name hashes that it knows and does not take (OpenSSH 9.2 with `PubkeyAcceptedAlgorithms`).
    if old_algorithms && hash.is_some() && matches!(said, Said::No { partial: false, .. }) {
        let offer = PrivateKeyWithHashAlg::new(key.clone(), None);
        return Ok(handle.authenticate_publickey(user, offer).await.map_err(broken)?.into());
    }
    Ok(said)
}

/// The inner error says why the agent could not help.
async fn offer_agent<H: Handler>(
    handle: &mut Handle<H>,
    user: &str,
    socket: Option<&Path>,
    old_algorithms: bool,
) -> Result<Result<Said, String>, LoginError> {
    let connected = match socket {
        Some(socket) => AgentClient::connect_uds(socket).await,
        None => AgentClient::connect_env().await,
    };
    let mut agent = match connected {
        Ok(agent) => agent,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let identities = match agent.request_identities().await {
        Ok(identities) => identities,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut last = None;
    for identity in identities.into_iter().take(AGENT_KEYS) {
        let said: Said = match identity {
            AgentIdentity::PublicKey { key, .. } => {
                let hash = hash(handle, key.algorithm().is_rsa(), old_algorithms).await;
                handle.authenticate_publickey_with(user, key, hash, &mut agent).await.map_err(broken)?
            }
            AgentIdentity::Certificate { certificate, .. } => {
                let hash = hash(handle, certificate.algorithm().is_rsa(), old_algorithms).await;
                handle
                    .authenticate_certificate_with(user, certificate, hash, &mut agent)
                    .await
                    .map_err(broken)?
            }
        }
        .into();
        match said {
            Said::No { partial: false, .. } => last = Some(said),
            done => return Ok(Ok(done)),
        }
    }
    Ok(last.ok_or_else(|| "it holds no keys".to_owned()))
}

/// As a password, and where the server does not take that, as the answer to its questions.
async fn offer_password<H: Handler>(
    handle: &mut Handle<H>,
    user: &str,
    password: &Password,
) -> Result<Said, LoginError> {
    let said: Said = handle.authenticate_password(user, password.expose()).await.map_err(broken)?.into();
    let Said::No { remaining, partial: false } = &said else { return Ok(said) };
    if !remaining.contains(&russh::MethodKind::KeyboardInteractive) {
        return Ok(said);
    }
    let mut answer = handle.authenticate_keyboard_interactive_start(user, None).await.map_err(broken)?;
    for _ in 0..ROUNDS {
        let replies = match answer {
            Answer::Success => return Ok(Said::Welcome),
            Answer::Failure { remaining_methods, partial_success } => {
                return Ok(Said::No { remaining: remaining_methods, partial: partial_success });
            }
            // What is echoed is no password; an empty answer lets the server go on.
            Answer::InfoRequest { prompts, .. } => prompts
                .iter()
                .map(|prompt| if prompt.echo { String::new() } else { password.expose().to_owned() })
                .collect(),
        };
        answer = handle.authenticate_keyboard_interactive_respond(replies).await.map_err(broken)?;
    }
    Err(LoginError::Failed("authentication: the server does not stop asking questions".into()))
}
