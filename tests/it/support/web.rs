//! A web server on loopback that serves files, and fails in the ways that servers and networks fail.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, IF_NONE_MATCH,
    IF_RANGE, RANGE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// How much goes out at a time.
const PIECE: usize = 64 << 10;

/// A file of the server.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its ETag, with the quotes.
    pub etag: Option<&'static str>,
    /// Whether parts of it can be asked for.
    pub ranges: bool,
    /// After how many bytes the connection breaks, for one request after the other.
    pub breaks: VecDeque<usize>,
    /// After how many bytes an answer waits for [`Web::open`].
    pub gate: Option<usize>,
    /// Whether its length is told.
    pub length: bool,
    /// What is promised beyond what comes.
    pub promises: u64,
    /// The value of Content-Encoding.
    pub encoding: Option<&'static str>,
    /// Answers this instead, for so many requests.
    pub status: (u16, usize),
    /// Whether HEAD is known.
    pub head: bool,
    /// What it becomes when its first answer has begun.
    pub next: Option<Box<Page>>,
}

impl Page {
    /// A file that is served as well as can be.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            etag: Some("\"one\""),
            ranges: true,
            breaks: VecDeque::new(),
            gate: None,
            length: true,
            promises: 0,
            encoding: None,
            status: (200, 0),
            head: true,
            next: None,
        }
    }
}

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// GET or HEAD.
    pub method: String,
    /// The path, or the whole URL when the server was taken for a proxy.
    pub uri: String,
    /// The header Range.
    pub range: Option<String>,
    /// The header If-Range.
    pub if_range: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    pages: Mutex<BTreeMap<String, Page>>,
    calls: Mutex<Vec<Call>>,
    gate: Option<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The server; it ends when it is dropped.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Web {
    /// Starts it with some files, by their names.
    pub async fn with<const N: usize>(pages: [(&str, Page); N]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let pages = pages.map(|(name, page)| (format!("/{name}"), page));
        let shared = Arc::new(Shared {
            pages: Mutex::new(pages.into()),
            gate: Some(Semaphore::new(0)),
            ..Shared::default()
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    // Connections that break are what this server is for.
                    let _broken = connection.await;
                });
            }
        });
        Self { address, shared, task }
    }

    /// `http://127.0.0.1:PORT/NAME`.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Changes a file.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Page)) {
        change(lock(&self.shared.pages).get_mut(&format!("/{name}")).expect("it is served"));
    }

    /// The requests that came, without those of probes.
    pub fn gets(&self) -> Vec<Call> {
        let calls = lock(&self.shared.calls);
        let real = |call: &&Call| call.method == "GET" && call.range.as_deref() != Some("bytes=0-0");
        calls.iter().filter(real).cloned().collect()
    }

    /// What the requests for bytes asked for: `None` for the whole.
    pub fn ranges(&self) -> Vec<Option<String>> {
        self.gets().into_iter().map(|call| call.range).collect()
    }

    /// All answers go on that wait at a gate.
    pub fn open(&self) {
        if let Some(gate) = &self.shared.gate {
            gate.add_permits(1000);
        }
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let header = |name: HeaderName| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let (range, if_range) = (header(RANGE), header(IF_RANGE));
    lock(&shared.calls).push(Call {
        method: request.method().to_string(),
        uri: request.uri().to_string(),
        range: range.clone(),
        if_range: if_range.clone(),
    });
    let (page, breaks) = {
        let mut pages = lock(&shared.pages);
        let Some(page) = pages.get_mut(request.uri().path()) else {
            return Ok(empty(StatusCode::NOT_FOUND));
        };
        if page.status.1 > 0 {
            page.status.1 -= 1;
            return Ok(empty(StatusCode::from_u16(page.status.0).expect("a status")));
        }
        if request.method() == Method::HEAD && !page.head {
            return Ok(empty(StatusCode::METHOD_NOT_ALLOWED));
        }
        let breaks = if request.method() == Method::GET { page.breaks.pop_front() } else { None };
        let served = page.clone();
        if let Some(next) = page.next.take() {
            *page = *next;
        }
        (served, breaks)
    };
    if page.etag.is_some() && header(IF_NONE_MATCH).as_deref() == page.etag {
        return Ok(empty(StatusCode::NOT_MODIFIED));
    }
    let total = page.bytes.len();
    let same = if_range.is_none() || if_range.as_deref() == page.etag;
    let asked = range.filter(|_| page.ranges && same).and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().unwrap_or(total.saturating_sub(1))))
    });
    let mut builder = Response::builder();
    if let Some(etag) = page.etag {
        builder = builder.header(ETAG, etag);
    }
    if let Some(encoding) = page.encoding {
        builder = builder.header(CONTENT_ENCODING, encoding);
    }
    if page.ranges {
        builder = builder.header(ACCEPT_RANGES, "bytes");
    }
    let bytes = match asked {
        Some((first, _)) if first >= total => {
            let response = builder
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(CONTENT_RANGE, format!("bytes */{total}"))
                .body(Empty::new().map_err(|never| match never {}).boxed());
            return Ok(response.expect("sound"));
        }
        Some((first, last)) => {
            builder = builder
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_RANGE, format!("bytes {first}-{last}/{}", total as u64 + page.promises));
            page.bytes.slice(first..=last)
        }
        None => page.bytes.clone(),
    };
    if page.length {
        builder = builder.header(CONTENT_LENGTH, bytes.len() as u64 + page.promises);
    }
    let body = if request.method() == Method::HEAD {
        Empty::new().map_err(|never| match never {}).boxed()
    } else if breaks.is_none() && page.gate.is_none() && page.length && page.promises == 0 {
        Full::new(bytes).map_err(|never| match never {}).boxed()
    } else {
        streamed(shared, bytes, breaks.or((page.promises > 0).then_some(usize::MAX)), page.gate)
    };
    Ok(builder.body(body).expect("sound"))
}

/// A body that waits and breaks off.
fn streamed(shared: Arc<Shared>, bytes: Bytes, breaks: Option<usize>, gate: Option<usize>) -> Body {
    let body = stream::unfold(0_usize, move |sent| {
        let (shared, bytes) = (Arc::clone(&shared), bytes.clone());
        async move {
            if let Some(gate) = gate.filter(|gate| sent >= *gate && sent < bytes.len())
                && let Some(semaphore) = &shared.gate
                && gate < bytes.len()
            {
                let permit = semaphore.acquire().await;
                drop(permit);
            }
            let end = bytes.len().min(breaks.unwrap_or(usize::MAX));
            if sent >= end {
                breaks?;
                // What was sent is on its way before the connection goes.
                tokio::time::sleep(Duration::from_millis(50)).await;
                return Some((Err(std::io::Error::other("broken off")), usize::MAX));
            }
            let next = end.min(sent + PIECE).min(gate.filter(|gate| *gate > sent).unwrap_or(usize::MAX));
            Some((Ok(Frame::data(bytes.slice(sent..next))), next))
        }
    });
    StreamBody::new(body).boxed()
}

fn empty(status: StatusCode) -> Response<Body> {
    let body = Empty::new().map_err(|never| match never {}).boxed();
    Response::builder().status(status).body(body).expect("sound")
}
