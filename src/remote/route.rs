//! The way to the guest's port: straight, through a proxy, through bastions, or through a proxy and bastions.
//!
//! A bastion is logged in to once; the connections to the guest are channels of that one login, and it is made anew
//! when it is gone.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_resolver::TokioResolver;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::credentials::{Method, Password, Progress};
use super::session::{Credentials, KEEPALIVE, LoginError, Session};

/// How long the way may take to be open: proxy and all bastions together.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// The longest answer of an HTTP proxy that is read.
const LONGEST_ANSWER: usize = 16 * 1024;

/// A connection, whatever it goes through.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyKind {
    /// SOCKS version 5 (RFC 1928, passwords by RFC 1929).
    Socks5,
    /// HTTP with the method `CONNECT`.
    Http,
}

/// A proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// What it speaks.
    pub kind: ProxyKind,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who logs in; empty for nobody.
    pub user: String,
    /// The password.
    pub password: Password,
}

/// A bastion.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Its name or address, as the machine before it knows it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// Its host key, when it is known in advance.
    pub host_key: Option<String>,
    /// By what.
    pub methods: Vec<Method>,
}

/// The way to a guest.
#[derive(Default)]
pub struct Route {
    proxy: Option<Proxy>,
    hops: Vec<Hop>,
    old_algorithms: bool,
    /// The login on each bastion with its host key; held while the way is opened.
    open: tokio::sync::Mutex<Vec<Arc<Session>>>,
    /// The host keys that the bastions showed first.
    keys: std::sync::Mutex<Vec<Option<String>>>,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("proxy", &self.proxy).field("hops", &self.hops).finish_non_exhaustive()
    }
}

fn failed(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

impl Route {
    /// A way through a proxy and bastions, as far as there are any.
    #[must_use]
    pub fn new(proxy: Option<Proxy>, hops: Vec<Hop>, old_algorithms: bool) -> Self {
        let keys = hops.iter().map(|hop| hop.host_key.clone()).collect();
        Self {
            proxy,
            hops,
            old_algorithms,
            open: tokio::sync::Mutex::default(),
            keys: std::sync::Mutex::new(keys),
        }
    }

    /// Whether nothing is on the way.
    pub(super) fn is_direct(&self) -> bool {
        self.proxy.is_none() && self.hops.is_empty()
    }

    /// Opens a connection to the guest's port. May be dropped.
    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Wire>> {
        let (host, port) = (address.ip().to_string(), address.port());
        if self.hops.is_empty() {
            return timeout(OPEN_LIMIT, self.first(&host, port)).await?;
        }
        let last = timeout(OPEN_LIMIT, self.through())
            .await
            .map_err(|_| failed("the bastion does not answer"))??;
        last.tunnel(&host, port).await.map_err(|error| {
            failed(format!("{} can't reach it: {error}", self.hops.last().map_or("", |hop| &hop.host)))
        })
    }

    /// The login on the last bastion, made anew where it is gone.
    async fn through(&self) -> io::Result<Arc<Session>> {
        let mut open = self.open.lock().await;
        let alive = open.iter().take_while(|session| !session.is_closed()).count();
        open.truncate(alive);
        for index in open.len()..self.hops.len() {
            let Some(hop) = self.hops.get(index) else { break };
            let at = format!("bastion {}:{}", hop.host, hop.port);
            let expected = self.keys.lock().ok().and_then(|keys| keys.get(index).cloned().flatten());
            let credentials = Credentials {
                user: hop.user.clone(),
                methods: Arc::new(hop.methods.clone()),
                old_algorithms: self.old_algorithms,
                keep_alive: KEEPALIVE,
            };
            // The address is for messages only, and the guest's messages do not name the bastion's.
            let nowhere = SocketAddr::from(([0, 0, 0, 0], hop.port));
            let mut progress = Progress::default();
            let session = loop {
                let wire = match open.last() {
                    None => self.first(&hop.host, hop.port).await,
                    Some(before) => {
                        before.tunnel(&hop.host, hop.port).await.map_err(|error| failed(error.to_string()))
                    }
                }
                .map_err(|error| failed(format!("{at}: {error}")))?;
                let expected = expected.as_deref();
                match Session::login(wire, nowhere, &credentials, expected, &mut progress).await {
                    Ok(session) => break session,
                    Err(LoginError::More(_)) => {}
                    Err(error) => return Err(failed(format!("{at}: {error}"))),
                }
            };
            if let Ok(mut keys) = self.keys.lock()
                && let Some(place) = keys.get_mut(index)
            {
                *place = Some(session.host_key.clone());
            }
            open.push(Arc::new(session));
        }
        open.last().cloned().ok_or_else(|| failed("there is no bastion"))
    }

    /// A connection to the first machine on the way, through the proxy where there is one.
    async fn first(&self, host: &str, port: u16) -> io::Result<Box<dyn Wire>> {
        let Some(proxy) = &self.proxy else { return Ok(Box::new(dial(host, port).await?)) };
        let at = |error: io::Error| failed(format!("proxy {}:{}: {error}", proxy.host, proxy.port));
        let mut stream = dial(&proxy.host, proxy.port).await.map_err(at)?;
        match proxy.kind {
            ProxyKind::Socks5 => socks5(&mut stream, proxy, host, port).await,
            ProxyKind::Http => http(&mut stream, proxy, host, port).await,
        }
        .map_err(at)?;
        Ok(Box::new(stream))
    }
}

/// Connects to a name or address, trying all of a name's addresses.
async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = failed(format!("{host} has no address"));
    for address in resolve(host).await? {
        match TcpStream::connect((address, port)).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The addresses of a name: a static program has no `getaddrinfo` to rely on.
pub(crate) async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    let resolver = TokioResolver::builder_tokio()
        .and_then(hickory_resolver::ResolverBuilder::build)
        .map_err(|error| failed(format!("names can't be resolved: {error}")))?;
    let found = resolver.lookup_ip(host).await.map_err(|error| failed(format!("{host}: {error}")))?;
    Ok(found.iter().collect())
}

async fn socks5(stream: &mut TcpStream, proxy: &Proxy, host: &str, port: u16) -> io::Result<()> {
    let with_password = !proxy.user.is_empty();
    stream.write_all(if with_password { &[5, 2, 0, 2] } else { &[5, 1, 0] }).await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    match answer {
        [5, 0] => {}
        [5, 2] if with_password => {
            let (user, password) = (proxy.user.as_bytes(), proxy.password.expose().as_bytes());
            let (Ok(users), Ok(passwords)) = (u8::try_from(user.len()), u8::try_from(password.len())) else {
                return Err(failed("user and password may have 255 bytes at most"));
            };
            let message = [&[1, users], user, &[passwords], password].concat();
            stream.write_all(&message).await?;
            stream.read_exact(&mut answer).await?;
            if answer[1] != 0 {
                return Err(failed("refuses user and password"));
            }
        }
        [5, _] => return Err(failed("wants another login than user and password")),
        _ => return Err(failed("is no SOCKS5 proxy")),
    }
    let mut message = vec![5, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => message.extend([&[1][..], &address.octets()].concat()),
        Ok(IpAddr::V6(address)) => message.extend([&[4][..], &address.octets()].concat()),
        Err(_) => {
            let length = u8::try_from(host.len()).map_err(|_| failed("the name is too long for SOCKS5"))?;
            message.extend([&[3, length], host.as_bytes()].concat());
        }
    }
    message.extend(port.to_be_bytes());
    stream.write_all(&message).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let words = match head[1] {
        0 => "",
        2 => "does not allow it",
        3 => "finds no way to the network",
        4 => "finds no way to the host",
        5 => "finds the port closed",
        6 => "got no answer from there",
        _ => "failed",
    };
    if !words.is_empty() {
        return Err(failed(words));
    }
    let rest = match head[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await?),
        _ => return Err(failed("gives an answer that makes no sense")),
    };
    let mut bound = vec![0; rest + 2];
    stream.read_exact(&mut bound).await.map(drop)
}

async fn http(stream: &mut TcpStream, proxy: &Proxy, host: &str, port: u16) -> io::Result<()> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if !proxy.user.is_empty() {
        let login = STANDARD.encode(format!("{}:{}", proxy.user, proxy.password.expose()));
        request.push_str(&format!("Proxy-Authorization: Basic {login}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    // Byte by byte: what follows the empty line is the guest's.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= LONGEST_ANSWER {
            return Err(failed("is no HTTP proxy"));
        }
        answer.push(stream.read_u8().await?);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let first = answer.lines().next().unwrap_or_default();
    match first.split_whitespace().nth(1) {
        Some(status) if first.starts_with("HTTP/") && status.starts_with('2') => Ok(()),
        Some("407") => Err(failed("refuses user and password (407)")),
        _ => Err(failed(format!("answers `{first}`"))),
    }
}
