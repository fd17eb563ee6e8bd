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
/// How many credentials one connection may be refused: OpenSSH ends it at the sixth (`MaxAuthTries`). What is left is offered
/// on the next one.
const REFUSALS: usize = 5;
/// How many keys of an agent are offered at all.
const AGENT_KEYS: usize = 30;

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

/// How far the credentials were offered, over several connections.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// How many of them are refused for good.
    done: usize,
    /// How each fared.
    tried: Vec<String>,
    /// The one at which the connection was closed before any other was refused on it.
    cut: Option<usize>,
}

impl Progress {
    fn refuse(&mut self, index: usize, how: String) {
        self.done = index + 1;
        self.cut = None;
        self.tried.push(how);
    }

    fn in_words(&self) -> String {
        let mut words: Vec<(&str, usize)> = Vec::new();
        for how in &self.tried {
            match words.last_mut() {
                Some((last, count)) if last == how => *count += 1,
                _ => words.push((how, 1)),
            }
        }
        let each = |(how, count): (&str, usize)| {
            if count > 1 { format!("{how} ({count} keys)") } else { how.to_owned() }
        };
        words.into_iter().map(each).collect::<Vec<_>>().join(", ")
    }
}

/// One credential.
enum Offer<'a> {
    Own(&'a Method),
    OfAgent(Box<AgentIdentity>, usize),
}

/// An agent that answers.
type Agent = AgentClient<Box<dyn russh::keys::agent::client::AgentStream + Send + Unpin>>;

/// Tries the methods in their order, from where the connection before came to. One that the server accepts only as a part of
/// what it asks for is not lost: the next ones are tried on top of it.
pub(super) async fn authenticate<H: Handler>(
    handle: &mut Handle<H>,
    user: &str,
    methods: &[Method],
    old_algorithms: bool,
    progress: &mut Progress,
) -> Result<(), LoginError> {
    let mut agents = Vec::new();
    let mut offers = Vec::new();
    let mut notes = Vec::new();
    for method in methods {
        let Method::Agent(socket) = method else {
            offers.push(Offer::Own(method));
            continue;
        };
        match keys_of(socket.as_deref()).await {
            Ok((agent, identities)) => {
                if identities.len() > AGENT_KEYS {
                    notes.push(format!(
                        "ssh-agent: {} of its keys were not offered",
                        identities.len() - AGENT_KEYS
                    ));
                }
                let of_agent = |identity| Offer::OfAgent(Box::new(identity), agents.len());
                offers.extend(identities.into_iter().take(AGENT_KEYS).map(of_agent));
                agents.push(agent);
            }
            Err(why) => notes.push(format!("ssh-agent: {why}")),
        }
    }
    let mut offered = MethodSet::empty();
    let (mut refusals, mut partial) = (0, false);
    for (index, offer) in offers.iter().enumerate().skip(progress.done) {
        if refusals >= REFUSALS && !partial {
            return Err(LoginError::More(progress.in_words()));
        }
        let name = match offer {
            Offer::Own(method) => method.name(),
            Offer::OfAgent(..) => "ssh-agent",
        };
        let said = match offer {
            Offer::Own(method) => offer_own(handle, user, method, old_algorithms).await,
            Offer::OfAgent(identity, agent) => match agents.get_mut(*agent) {
                Some(agent) => offer_of_agent(handle, user, identity, agent, old_algorithms).await,
                None => continue,
            },
        };
        match said {
            Ok(Said::Welcome) => return Ok(()),
            Ok(Said::No { remaining, partial: part }) if !remaining.is_empty() => {
                refusals += 1;
                partial |= part;
                offered = remaining;
                let how = format!("{name} {}", if part { "accepted" } else { "refused" });
                if partial {
                    // What counts is offered together, on one connection.
                    progress.tried.push(how);
                } else {
                    progress.refuse(index, how);
                }
            }
            // The connection was closed in the middle, which russh tells by an empty list too.
            said => {
                let why = match said {
                    Err(LoginError::Failed(why)) => why,
                    Err(other) => return Err(other),
                    Ok(_) => "the server closed the connection while logging in".into(),
                };
                if refusals > 0 && !partial {
                    return Err(LoginError::More(progress.in_words()));
                }
                if progress.cut.replace(index) == Some(index) {
                    progress.refuse(index, format!("{name} cut off"));
                    return Err(LoginError::More(progress.in_words()));
                }
                return Err(LoginError::Failed(why));
            }
        }
    }
    let mut words: Vec<String> =
        Some(progress.in_words()).filter(|words| !words.is_empty()).into_iter().collect();
    words.extend(notes);
    *progress = Progress::default();
    let offered: Vec<&str> = offered.iter().map(<&str>::from).collect();
    let more = if partial { "more is asked for; " } else { "" };
    Err(LoginError::Refused(format!("{}; {more}offered: {}", words.join(", "), offered.join(", "))))
}

async fn offer_own<H: Handler>(
    handle: &mut Handle<H>,
    user: &str,
    method: &Method,
    old_algorithms: bool,
) -> Result<Said, LoginError> {
    match method {
        Method::Key(key) => offer_key(handle, user, key, old_algorithms).await,
        Method::Certificate(key, certificate) => Ok(handle
            .authenticate_openssh_cert(user, key.clone(), certificate.as_ref().clone())
            .await
            .map_err(broken)?
            .into()),
        Method::Password(password) => offer_password(handle, user, password).await,
        // Its keys are offered one by one.
        Method::Agent(_) => Err(LoginError::Failed("an ssh-agent is no credential".into())),
    }
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

/// An agent and its keys; the error says why it could not help.
async fn keys_of(socket: Option<&Path>) -> Result<(Agent, Vec<AgentIdentity>), String> {
    let connected = match socket {
        Some(socket) => AgentClient::connect_uds(socket).await.map(AgentClient::dynamic),
        None => AgentClient::connect_env().await.map(AgentClient::dynamic),
    };
    let mut agent = connected.map_err(|error| error.to_string())?;
    let identities = agent.request_identities().await.map_err(|error| error.to_string())?;
    if identities.is_empty() { Err("it holds no keys".to_owned()) } else { Ok((agent, identities)) }
}

async fn offer_of_agent<H: Handler>(
    handle: &mut Handle<H>,
    user: &str,
    identity: &AgentIdentity,
    agent: &mut Agent,
    old_algorithms: bool,
) -> Result<Said, LoginError> {
    let said = match identity.clone() {
        AgentIdentity::PublicKey { key, .. } => {
            let hash = hash(handle, key.algorithm().is_rsa(), old_algorithms).await;
            handle.authenticate_publickey_with(user, key, hash, agent).await.map_err(broken)?
        }
        AgentIdentity::Certificate { certificate, .. } => {
            let hash = hash(handle, certificate.algorithm().is_rsa(), old_algorithms).await;
            handle.authenticate_certificate_with(user, certificate, hash, agent).await.map_err(broken)?
        }
    };
    Ok(said.into())
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
