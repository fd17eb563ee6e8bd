//! Serves one seed over HTTP to one guest, behind an unguessable path, until the guest is connected.
//!
//! The network it listens on is not trusted: only GET and HEAD of the seed's own names under the secret path are
//! answered with content, everything else with an empty error. A connection carries one request; headers,
//! connections and times are bounded, and a request's body is never read.

mod answer;

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::network::Network;
use crate::set::SeedSet;
pub use crate::token::SeedToken;

/// How many fetches are remembered; a scanner must not fill the memory.
const REMEMBERED: usize = 1000;
/// The bytes of a request's line and headers; hyper answers more with 431.
const HEADER_BYTES: usize = 16 * 1024;
/// The number of a request's headers; hyper answers more with 431.
const HEADERS: usize = 64;

/// What one client may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections open at once, of all clients. All may come from one address: guests behind a NAT do.
    connections: usize,
    /// For a request's line and headers.
    header_time: Duration,
    /// For a whole connection: a client that does not read its answer is cut off.
    connection_time: Duration,
}

/// cloud-init waits 5 to 10 seconds for an answer and asks again up to ten times, so a guest that was turned away
/// comes back.
const LIMITS: Limits = Limits {
    connections: 64,
    header_time: Duration::from_secs(10),
    connection_time: Duration::from_secs(120),
};

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Who asked. Behind a NAT this is another's address, so nothing is decided by it.
    pub peer: SocketAddr,
    /// The name within the seed; for anything else the path, with `***` for what may be the secret or a part of it.
    pub path: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// Bytes of content sent.
    pub bytes: u64,
    /// The client's own name for itself.
    pub user_agent: Option<String>,
    /// Milliseconds since the server was started.
    pub at_ms: u64,
}

/// Is told each request, before its answer is sent. It must not block.
pub trait SeedObserver: Send + Sync {
    /// A request is being answered.
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
    /// The only networks that are answered; empty answers all.
    pub allowed_networks: Vec<Network>,
}

struct Shared {
    set: SeedSet,
    options: ServerOptions,
    observer: Arc<dyn SeedObserver>,
    started: Instant,
    fetches: Mutex<Vec<Fetch>>,
    closed: AtomicBool,
    /// Connections open now.
    open: watch::Sender<usize>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("closed", &self.closed)
            .field("open", &*self.open.borrow())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn tell(&self, fetch: Fetch) {
        self.observer.fetched(&fetch);
        let mut fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        if fetches.len() < REMEMBERED {
            fetches.push(fetch);
        }
    }
}

/// A place among the open connections, given back when dropped: also when its task is cut off.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>, most: usize) -> Option<Self> {
        let free = |open: &mut usize| {
            let free = *open < most;
            *open += usize::from(free);
            free
        };
        shared.open.send_if_modified(free).then(|| Self(shared.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// A seed that is being served. Serving ends with the cancellation token it was started with.
#[derive(Debug)]
pub struct SeedServer {
    shared: Arc<Shared>,
    address: SocketAddr,
}

/// The URL of a seed for a guest that sees the server at an address and port; it ends in `/`.
#[must_use]
pub fn url(address: IpAddr, port: u16, token: &SeedToken) -> String {
    format!("http://{}{}", SocketAddr::new(address, port), token.path())
}

impl SeedServer {
    /// Serves a seed on a listener that is bound already, until `shutdown`.
    ///
    /// # Errors
    /// When the listener's own address can't be read.
    pub fn start(
        listener: TcpListener,
        set: SeedSet,
        options: ServerOptions,
        observer: Arc<dyn SeedObserver>,
        shutdown: CancellationToken,
    ) -> std::io::Result<Self> {
        Self::start_within(listener, set, options, observer, shutdown, LIMITS)
    }

    fn start_within(
        listener: TcpListener,
        set: SeedSet,
        options: ServerOptions,
        observer: Arc<dyn SeedObserver>,
        shutdown: CancellationToken,
        limits: Limits,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            set,
            options,
            observer,
            started: Instant::now(),
            fetches: Mutex::new(Vec::new()),
            closed: AtomicBool::new(false),
            open: watch::Sender::new(0),
        });
        tokio::spawn(accept(listener, shared.clone(), shutdown, limits));
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
        url(seen_at, self.address.port(), self.token())
    }

    /// The secret path, to be masked wherever text leaves the process.
    #[must_use]
    pub fn token(&self) -> &SeedToken {
        &self.shared.options.token
    }

    /// What was asked for so far, oldest first; the first thousand.
    #[must_use]
    pub fn fetches(&self) -> Vec<Fetch> {
        self.shared.fetches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on the seed's files are answered with 410: the guest has what it needs.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
    }

    /// Waits until no connection is open. Cancel-safe.
    pub async fn wait_idle(&self) {
        let mut open = self.shared.open.subscribe();
        // It fails only when the sender is gone, and that is held here.
        let _idle = open.wait_for(|open| *open == 0).await.is_ok();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, shutdown: CancellationToken, limits: Limits) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = Place::take(&shared, limits.connections) else {
                    tracing::debug!(%peer, "too many connections to the seed server; one is dropped");
                    continue;
                };
                let shutdown = shutdown.clone();
                tokio::spawn(async move {
                    let serving = serve(stream, peer, &place.0, limits);
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        _cut_off = tokio::time::timeout(limits.connection_time, serving) => {}
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, for one: it passes, and must not spin until then.
                tracing::debug!(%error, "a connection to the seed server could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>, limits: Limits) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer::answer(request.method(), request.uri(), request.headers(), peer, shared);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%peer, %error, "a connection to the seed server broke");
    }
}

#[cfg(test)]
mod tests;
