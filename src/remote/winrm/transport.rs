//! One HTTP connection to a guest's WinRM service: who asks is proved by Basic or NTLM, and over plain HTTP everything
//! that is said after NTLM's login is sealed.
//!
//! NTLM proves a connection, not a question: each [`Transport`] has one connection of its own, asks one question at a
//! time, and connects and logs in anew when the server has closed it. A pool of connections, as reqwest has it, would send the
//! second half of a login over another one now and then (seen with the stand-in). Facts from [MS-WSMV] 2.2.9.1 (sealed messages) and [MS-NTHT].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::backends::TlsChoice;
use crate::backends::tls::{TlsError, client_config};
use crate::engine::error::chain;

use super::ntlm::{self, Chance, Identity, Sealing};
use super::soap::{self, Answer, Ask, LONG_POLL_SECONDS};

const SOAP: &str = "application/soap+xml;charset=UTF-8";
const SEALED: &str = "multipart/encrypted;protocol=\"application/HTTP-SPNEGO-session-encrypted\";boundary=\"Encrypted Boundary\"";
const PROTOCOL: &str = "application/HTTP-SPNEGO-session-encrypted";
const BOUNDARY: &str = "--Encrypted Boundary";
const OCTETS: &[u8] = b"Content-Type: application/octet-stream\r\n";
/// How long an answer may take: the server's own long poll, and a busy guest's slowness.
const ANSWER_LIMIT: Duration = Duration::from_secs(LONG_POLL_SECONDS as u64 + 40);
/// More than an answer has: an envelope is half a MiB, and what is sealed hardly more.
const MOST: usize = 16 << 20;
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// How the guest is told who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WinRmAuth {
    /// `NTLMv2`; what is said is sealed where the connection is not.
    #[default]
    Ntlm,
    /// The password itself.
    Basic,
}

/// How to log in to WinRM, with the secret read.
#[derive(Clone)]
pub struct WinRmLogin {
    /// The user: `name`, `DOMAIN\name` or `name@domain`.
    pub user: String,
    /// The password.
    pub password: crate::remote::Password,
    /// By what.
    pub auth: WinRmAuth,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Which certificates are believed, where it is.
    pub certificate: TlsChoice,
    /// The guest's name, where its certificate has to be made for one; else it has to be made for its address.
    pub name: Option<String>,
}

impl std::fmt::Debug for WinRmLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WinRmLogin")
            .field("user", &self.user)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The guest does not take the login.
    #[error("{0}")]
    Refused(String),
    /// The server said no, in its words.
    #[error("{what}: {fault}")]
    Fault { what: &'static str, fault: soap::Fault },
    /// No connection, or a lost one.
    #[error("{what}: {detail}")]
    Lost { what: &'static str, detail: String },
    /// What came makes no sense.
    #[error("{what}: {detail}")]
    Broken { what: &'static str, detail: String },
}

/// A connection.
pub(super) struct Transport {
    address: SocketAddr,
    url: String,
    tls: Option<Arc<rustls::ClientConfig>>,
    login: Arc<WinRmLogin>,
    /// The connection and its login; taken out for a question and put back by a whole answer, so that a question that
    /// was given up leaves nothing half done behind.
    open: Mutex<Option<Open>>,
}

/// A connection on which the user is logged in.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    sealing: Option<Sealing>,
}

/// An answer.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The innermost cause, which says most.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

impl Transport {
    /// Nothing is sent.
    pub fn new(address: SocketAddr, login: &Arc<WinRmLogin>) -> Result<Self, AskError> {
        let setup = |error: TlsError| AskError::Broken { what: "setting up TLS", detail: chain(&error) };
        let tls = match login.tls {
            true => Some(Arc::new(client_config(&login.certificate).map_err(setup)?)),
            false => None,
        };
        let scheme = if login.tls { "https" } else { "http" };
        let url = format!("{scheme}://{address}/wsman");
        Ok(Self { address, url, tls, login: login.clone(), open: Mutex::new(None) })
    }

    /// Asks something and reads the answer; a fault is an error. May be dropped.
    pub async fn ask(&self, ask: &Ask<'_>, shell: Option<&str>) -> Result<Answer, AskError> {
        let what = ask.name();
        let envelope = ask.envelope(&self.url, shell);
        let mut place = self.open.lock().await;
        let mut open = match place.take().filter(|open| !open.sender.is_closed()) {
            Some(open) => open,
            None => self.log_in(what).await?,
        };
        let mut reply = self.post(what, &envelope, &mut open).await?;
        // The server forgot the login: nothing was carried out.
        if reply.status == StatusCode::UNAUTHORIZED && self.login.auth == WinRmAuth::Ntlm {
            open = self.log_in(what).await?;
            reply = self.post(what, &envelope, &mut open).await?;
        }
        if reply.status == StatusCode::UNAUTHORIZED {
            return Err(self.refused(&reply));
        }
        let text = opened(what, &reply, open.sealing.as_mut())?;
        *place = Some(open);
        drop(place);
        let status = reply.status;
        if text.is_empty() && !status.is_success() {
            return Err(AskError::Broken { what, detail: format!("the server answers {status}") });
        }
        let answer = soap::read(&text).map_err(|detail| AskError::Broken {
            what,
            detail: format!("the answer ({status}) makes no sense: {detail}"),
        })?;
        match answer.fault {
            Some(fault) => Err(AskError::Fault { what, fault }),
            None if status.is_success() => Ok(answer),
            None => Err(AskError::Broken { what, detail: format!("the server answers {status}") }),
        }
    }

    fn refused(&self, reply: &Reply) -> AskError {
        let offered: Vec<_> = reply
            .headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok()?.split([' ', ',']).next())
            .collect();
        let offered = if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") };
        let by = match self.login.auth {
            WinRmAuth::Ntlm => "NTLM",
            WinRmAuth::Basic => "Basic",
        };
        AskError::Refused(format!("{by} refused for {}; offered: {offered}", self.login.user))
    }

    async fn connect(&self, what: &'static str) -> Result<SendRequest<Full<Bytes>>, AskError> {
        let lost = |error: &dyn std::error::Error| AskError::Lost { what, detail: innermost(error) };
        let connecting = async {
            let tcp = TcpStream::connect(self.address).await.map_err(|error| lost(&error))?;
            tcp.set_nodelay(true).map_err(|error| lost(&error))?;
            let Some(tls) = &self.tls else {
                let (sender, connection) =
                    handshake(TokioIo::new(tcp)).await.map_err(|error| lost(&error))?;
                // Ends when the sender is dropped.
                tokio::spawn(connection);
                return Ok(sender);
            };
            let named = self.login.name.clone().and_then(|name| ServerName::try_from(name).ok());
            let name = named.unwrap_or_else(|| ServerName::from(self.address.ip()));
            let stream = TlsConnector::from(tls.clone()).connect(name, tcp).await;
            let stream = TokioIo::new(stream.map_err(|error| lost(&error))?);
            let (sender, connection) = handshake(stream).await.map_err(|error| lost(&error))?;
            tokio::spawn(connection);
            Ok(sender)
        };
        let late = |_| AskError::Lost {
            what,
            detail: format!("no connection within {} s", CONNECT_LIMIT.as_secs()),
        };
        timeout(CONNECT_LIMIT, connecting).await.map_err(late)?
    }

    /// Connects, and proves who asks where that is done before the first question.
    async fn log_in(&self, what: &'static str) -> Result<Open, AskError> {
        let mut sender = self.connect(what).await?;
        if self.login.auth == WinRmAuth::Basic {
            return Ok(Open { sender, sealing: None });
        }
        let first = ntlm::negotiate();
        let mut scheme = "Negotiate";
        let mut reply = self.say(what, &mut sender, Some(token(scheme, &first)), SOAP, Vec::new()).await?;
        let mut challenge = challenge(&reply, scheme);
        if challenge.is_none() && offers(&reply, "NTLM") {
            scheme = "NTLM";
            // Where the server closes after a refusal, a new connection it is.
            if sender.is_closed() || sender.ready().await.is_err() {
                sender = self.connect(what).await?;
            }
            reply = self.say(what, &mut sender, Some(token(scheme, &first)), SOAP, Vec::new()).await?;
            challenge = self::challenge(&reply, scheme);
        }
        let Some(challenge) = challenge else {
            return Err(match reply.status {
                StatusCode::UNAUTHORIZED => self.refused(&reply),
                status => AskError::Broken { what, detail: format!("the server answers {status} to NTLM") },
            });
        };
        let identity = Identity::new(&self.login.user, self.login.password.expose());
        let (message, sealing) = ntlm::authenticate(&identity, &challenge, &Chance::draw())
            .map_err(|error| AskError::Refused(error.to_string()))?;
        let reply = self.say(what, &mut sender, Some(token(scheme, &message)), SOAP, Vec::new()).await?;
        if reply.status == StatusCode::UNAUTHORIZED {
            return Err(self.refused(&reply));
        }
        // Whatever else it says to an empty question, the login is done.
        Ok(Open { sender, sealing: (!self.login.tls).then_some(sealing) })
    }

    async fn post(&self, what: &'static str, envelope: &str, open: &mut Open) -> Result<Reply, AskError> {
        let proof = (self.login.auth == WinRmAuth::Basic).then(|| {
            token("Basic", format!("{}:{}", self.login.user, self.login.password.expose()).as_bytes())
        });
        let (kind, body) = match &mut open.sealing {
            Some(sealing) => (SEALED, wrapped(envelope, sealing)),
            None => (SOAP, envelope.as_bytes().to_vec()),
        };
        self.say(what, &mut open.sender, proof, kind, body).await
    }

    /// Sends one request and reads its whole answer.
    async fn say(
        &self,
        what: &'static str,
        sender: &mut SendRequest<Full<Bytes>>,
        proof: Option<String>,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<Reply, AskError> {
        let lost = |error: &dyn std::error::Error| AskError::Lost { what, detail: innermost(error) };
        let mut request = Request::post("/wsman")
            .header(HOST, self.address.to_string())
            .header(USER_AGENT, concat!("forge/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, kind)
            // Said for an empty question of a login too: HTTP.sys, which stands before WinRM, answers 411 without it.
            .header(CONTENT_LENGTH, body.len());
        if let Some(proof) = proof {
            request = request.header(AUTHORIZATION, proof);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| AskError::Broken { what, detail: error.to_string() })?;
        let exchange = async {
            sender.ready().await.map_err(|error| lost(&error))?;
            let response = sender.send_request(request).await.map_err(|error| lost(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MOST).collect().await;
            let body = body.map_err(|error| lost(error.as_ref()))?.to_bytes();
            Ok(Reply { status: head.status, headers: head.headers, body })
        };
        let late =
            |_| AskError::Lost { what, detail: format!("no answer within {} s", ANSWER_LIMIT.as_secs()) };
        timeout(ANSWER_LIMIT, exchange).await.map_err(late)?
    }
}

fn token(scheme: &str, message: &[u8]) -> String {
    format!("{scheme} {}", STANDARD.encode(message))
}

fn offers(reply: &Reply, scheme: &str) -> bool {
    reply.headers.get_all(WWW_AUTHENTICATE).iter().any(|value| {
        value.to_str().is_ok_and(|text| text.split([' ', ',']).any(|word| word.eq_ignore_ascii_case(scheme)))
    })
}

/// The server's NTLM message.
fn challenge(reply: &Reply, scheme: &str) -> Option<Vec<u8>> {
    reply.headers.get_all(WWW_AUTHENTICATE).iter().find_map(|value| {
        let (name, token) = value.to_str().ok()?.split_once(' ')?;
        name.eq_ignore_ascii_case(scheme).then(|| STANDARD.decode(token.trim()).ok()).flatten()
    })
}

/// An envelope, sealed.
fn wrapped(envelope: &str, sealing: &mut Sealing) -> Vec<u8> {
    let (signature, sealed) = sealing.seal(envelope.as_bytes());
    let mut body = format!(
        "{BOUNDARY}\r\n\tContent-Type: {PROTOCOL}\r\n\tOriginalContent: type={SOAP};Length={}\r\n{BOUNDARY}\r\n\t",
        envelope.len()
    )
    .into_bytes();
    body.extend_from_slice(OCTETS);
    body.extend_from_slice(&16_u32.to_le_bytes());
    body.extend_from_slice(&signature);
    body.extend_from_slice(&sealed);
    body.extend_from_slice(format!("{BOUNDARY}--\r\n").as_bytes());
    body
}

/// The text of an answer, unsealed where it is sealed. One that must be sealed and is not is refused.
fn opened(what: &'static str, reply: &Reply, sealing: Option<&mut Sealing>) -> Result<String, AskError> {
    let kind = reply.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let sealed = kind.is_some_and(|kind| kind.starts_with("multipart/encrypted"));
    let broken = |detail: &str| AskError::Broken { what, detail: detail.to_owned() };
    let plain = match sealing {
        Some(sealing) if sealed => {
            unwrapped(&reply.body, sealing).ok_or_else(|| broken("a sealed answer can't be opened"))?
        }
        Some(_) if !reply.body.is_empty() => {
            return Err(broken("the answer to a sealed question is not sealed"));
        }
        _ => reply.body.to_vec(),
    };
    String::from_utf8(plain).map_err(|_not_text| broken("the answer is no text"))
}

/// Opens a sealed answer: after the line about octets come the length of the signature, the signature, and the sealed
/// bytes up to the last boundary.
fn unwrapped(bytes: &[u8], sealing: &mut Sealing) -> Option<Vec<u8>> {
    let at = bytes.windows(OCTETS.len()).position(|window| window == OCTETS)? + OCTETS.len();
    let end = format!("{BOUNDARY}--");
    // Exchange's servers write `-- Encrypted Boundary`; nobody else does.
    let to = bytes.windows(end.len()).rposition(|window| window == end.as_bytes())?;
    let content = bytes.get(at..to)?;
    let length = u32::from_le_bytes(content.get(..4)?.try_into().ok()?);
    let rest = content.get(4..)?;
    let (signature, sealed) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    sealing.open(signature, sealed).ok()
}
