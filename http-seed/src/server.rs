//! Serves one seed over HTTP to one guest, behind an unguessable path, until the guest is connected.
//!
//! The network it listens on is not trusted: only GET and HEAD of the seed's own names under the secret path are
//! answered with content, everything else with an empty error; headers, connections and times are bounded.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::set::SeedSet;
pub use crate::token::SeedToken;

/// How many connections may be open at once.
const CONNECTIONS: usize = 64;
/// How long a client may take to send its request.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// How many fetches are remembered; a scanner must not fill the memory.
const REMEMBERED: usize = 1000;

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Who asked. Behind a NAT this is another's address, so nothing is decided by it.
    pub peer: SocketAddr,
    /// The name within the seed; for anything else the path, without the secret.
    pub path: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// Bytes of content sent.
    pub bytes: u64,
    /// The client's own name for itself.
    pub user_agent: Option<String>,
}

/// Is told each request.
pub trait SeedObserver: Send + Sync {
    /// A request was answered.
    fn fetched(&self, fetch: &Fetch);
}

/// Tells nobody.
impl SeedObserver for () {
    fn fetched(&self, _fetch: &Fetch) {}
}

/// How a seed is served.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The secret path.
    pub token: SeedToken,
    /// The only networks that are answered, as address and prefix length; empty answers all.
    pub allowed_networks: Vec<(IpAddr, u8)>,
}

struct Shared {
    set: SeedSet,
    options: ServerOptions,
    observer: Arc<dyn SeedObserver>,
    fetches: Mutex<Vec<Fetch>>,
    closed: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("closed", &self.closed).finish_non_exhaustive()
    }
}

/// A seed that is being served. Serving ends with the token it was started with.
#[derive(Debug)]
pub struct SeedServer {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl SeedServer {
    /// Serves a seed on a listener that is bound already, until `stop`.
    ///
    /// # Errors
    /// When the listener's own address can't be read.
    pub fn start(
        listener: TcpListener,
        set: SeedSet,
        options: ServerOptions,
        observer: Arc<dyn SeedObserver>,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            set,
            options,
            observer,
            fetches: Mutex::new(Vec::new()),
            closed: AtomicBool::new(false),
        });
        tokio::spawn(accept(listener, shared.clone(), stop));
        Ok(Self { shared, address })
    }

    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The URL for a guest that sees this machine at an address; it ends in `/`.
    #[must_use]
    pub fn url(&self, seen_at: IpAddr) -> String {
        let address = SocketAddr::new(seen_at, self.address.port());
        format!("http://{address}/{}/", self.shared.options.token.expose())
    }

    /// The secret path, to be masked wherever text leaves the process.
    #[must_use]
    pub fn token(&self) -> &SeedToken {
        &self.shared.options.token
    }

    /// What was asked for so far.
    #[must_use]
    pub fn fetches(&self) -> Vec<Fetch> {
        self.shared.fetches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on everything is answered with 410: the guest has what it needs.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // A client that finds no place is dropped: a guest tries again.
                let Ok(place) = places.clone().try_acquire_owned() else { continue };
                let (shared, stop) = (shared.clone(), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = serve(stream, peer, shared) => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the seed server could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, peer, &shared);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(16 * 1024)
        .keep_alive(true)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%peer, %error, "a connection to the seed server broke");
    }
}

fn answer(request: &Request<Incoming>, peer: SocketAddr, shared: &Shared) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let (status, name) = judge(request.method(), path, peer.ip(), shared);
    let content = match status {
        StatusCode::OK => name.and_then(|name| shared.set.get(name)),
        _ => None,
    };
    let head = request.method() == Method::HEAD;
    let fetch = Fetch {
        peer,
        path: name
            .map_or_else(|| printable(&path.replace(shared.options.token.expose(), "***")), str::to_owned),
        status: status.as_u16(),
        bytes: content.filter(|_| !head).map_or(0, |text| text.len() as u64),
        user_agent: request
            .headers()
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .map(printable),
    };
    shared.observer.fetched(&fetch);
    {
        let mut fetches = shared.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        if fetches.len() < REMEMBERED {
            fetches.push(fetch);
        }
    }
    let length = content.map_or(0, str::len);
    let body =
        content.filter(|_| !head).map(|text| Bytes::copy_from_slice(text.as_bytes())).unwrap_or_default();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// The answer's status, and the name within the seed when the path is one.
fn judge<'a>(method: &Method, path: &'a str, peer: IpAddr, shared: &Shared) -> (StatusCode, Option<&'a str>) {
    let named = path
        .strip_prefix('/')
        .and_then(|rest| rest.split_once('/'))
        .filter(|(token, name)| shared.options.token.matches(token) && shared.set.get(name).is_some())
        .map(|(_, name)| name);
    let allowed = &shared.options.allowed_networks;
    let status = if !allowed.is_empty() && !allowed.iter().any(|network| within(peer, *network)) {
        StatusCode::NOT_FOUND
    } else if method != Method::GET && method != Method::HEAD {
        StatusCode::METHOD_NOT_ALLOWED
    } else if named.is_none() {
        StatusCode::NOT_FOUND
    } else if shared.closed.load(Ordering::Relaxed) {
        StatusCode::GONE
    } else {
        StatusCode::OK
    };
    (status, named)
}

fn within(address: IpAddr, (network, prefix): (IpAddr, u8)) -> bool {
    let common = |a: u128, b: u128, width: u8| {
        let shift = u32::from(width.saturating_sub(prefix));
        a.checked_shr(shift) == b.checked_shr(shift)
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => common(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => common(a.into(), b.into(), 128),
        _ => false,
    }
}

/// A stranger's text, made safe for a line of a log.
fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
