//! Reading a request: what pveproxy checks before it looks at the path, the login, and the parameters.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Map;

use super::{IDLE, body, upload};
use crate::auth::Caller;
use crate::clock::LabClock;
use crate::cluster::Cluster;
use crate::error::{ApiError, ErrorBody};
use crate::faults::Fault;
use crate::schema::{Captured, Method as ApiMethod, Route};

/// Most header lines of a request.
const HEADER_LINES: usize = 64;
/// Most bytes of all header lines.
const HEADER_BYTES: usize = 8 << 10;

/// Why a request is not worked on.
pub(super) enum Stop {
    /// It is answered with an error.
    Error(ApiError),
    /// The connection is cut.
    Cut,
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Stop::Error(error)
    }
}

/// A request that has been read.
pub(super) struct Read {
    pub method: String,
    pub shown: String,
    pub caller: Caller,
    pub parameters: Map<String, serde_json::Value>,
    pub headers: http::HeaderMap,
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
    pub upload: Option<upload::Spooled>,
    pub faults: Vec<Fault>,
    pub found: Option<(&'static Route, &'static ApiMethod, Captured)>,
}

/// What a request's path leads to; `None` for a path outside the API.
pub(super) fn path_of(uri: &http::Uri) -> Option<(Vec<String>, String)> {
    let raw = uri.path();
    let below = raw.strip_prefix("/api2/json").or_else(|| raw.strip_prefix("/api2/extjs"))?;
    let path: Vec<String> = below
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let shown = format!("/{}", path.join("/"));
    Some((path, shown))
}

/// Reads a request. Faults that stop it fire before its body is read.
pub(super) async fn read(
    cluster: &Cluster,
    mut request: Request<Incoming>,
    known: &mut Option<(String, Caller)>,
) -> Result<Read, Stop> {
    let method = request.method().clone();
    let length = check_head(&request)?;
    let Some((path, shown)) = path_of(request.uri()) else {
        return Err(ApiError::plain(404, format!("no such file '{}'", request.uri().path())).into());
    };
    let found = cluster.schema().find(method.as_str(), &path);
    let template = found.as_ref().map(|(route, ..)| route.template.as_str());
    let caller = log_in(cluster, &method, &shown, template, request.headers())?;
    *known = Some((template.unwrap_or_default().to_owned(), caller.clone()));

    let faults = cluster.faults.take(method.as_str(), &path);
    let mut rate = None;
    for fault in &faults {
        match fault {
            Fault::DropBefore => return Err(Stop::Cut),
            Fault::Refuse { status, reason } => {
                let mut error = ApiError::status(*status, reason.clone());
                if matches!(*status, 401 | 595..=599) {
                    error.body = ErrorBody::Empty;
                }
                return Err(error.into());
            }
            Fault::SlowUpload { bytes_per_second } => rate = Some(*bytes_per_second),
            Fault::ClockSkew { seconds } => cluster.clock.set_skew(*seconds),
            Fault::MoveAddress => {
                let vmid = path.iter().skip_while(|part| *part != "qemu").nth(1);
                let moved = vmid.and_then(|vmid| vmid.parse().ok()).map(|vmid| cluster.move_address(vmid));
                if let Some(Err(error)) = moved {
                    return Err(ApiError::die(format!("move-address: {error:#}")).into());
                }
            }
            _ => {}
        }
    }

    let query = body::decode_urlencoded(request.uri().query().unwrap_or_default().as_bytes())?;
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let headers = request.headers().clone();
    let is_upload = template.is_some_and(|template| template.ends_with("/upload"));
    let (mut parameters, upload) = if length > 0 {
        let kind = header_text(&headers, header::CONTENT_TYPE).unwrap_or_default();
        let mut incoming = Body::new(cluster, request.into_body(), rate);
        match kind.split_once("boundary=") {
            Some((first, boundary)) if is_upload && first.starts_with("multipart/form-data") => {
                let (parameters, spooled) = upload::read(cluster, &mut incoming, boundary.trim()).await?;
                (parameters, Some(spooled))
            }
            _ => (body::parse(&kind, &incoming.whole().await?)?, None),
        }
    } else {
        (Map::new(), None)
    };
    for (name, value) in query {
        match parameters.get(&name) {
            Some(other) if *other != value => {
                let text = "duplicate parameter (already defined in URI) with conflicting values";
                return Err(ApiError::parameter(&name, text).into());
            }
            _ => drop(parameters.insert(name, value)),
        }
    }
    let method = method.to_string();
    Ok(Read { method, shown, caller, parameters, headers, upgrade, upload, faults, found })
}

/// The length of the body of a request that pveproxy takes.
fn check_head(request: &Request<Incoming>) -> Result<usize, Stop> {
    let method = request.method();
    if ![Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(method) {
        return Err(ApiError::plain(501, format!("method '{method}' not available")).into());
    }
    let headers = request.headers();
    if headers.len() >= HEADER_LINES {
        return Err(ApiError::plain(501, format!("too many http header lines (> {HEADER_LINES})")).into());
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes >= HEADER_BYTES {
        return Err(ApiError::plain(501, "http header too large").into());
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(ApiError::plain(501, "chunked transfer encoding not supported").into());
    }
    let length = header_text(headers, header::CONTENT_LENGTH).and_then(|text| text.parse().ok()).unwrap_or(0);
    if length > 0 && (method == Method::GET || method == Method::DELETE) {
        return Err(ApiError::plain(501, format!("Unexpected content for method '{method}'")).into());
    }
    let is_form = header_text(headers, header::CONTENT_TYPE)
        .is_some_and(|kind| kind.starts_with("multipart/form-data"));
    if length > body::LIMIT && !is_form {
        return Err(ApiError::plain(501, "for data too large").into());
    }
    Ok(length)
}

/// The caller; nobody for the calls that need no login.
fn log_in(
    cluster: &Cluster,
    method: &Method,
    shown: &str,
    template: Option<&str>,
    headers: &http::HeaderMap,
) -> Result<Caller, Stop> {
    let open =
        matches!((method.as_str(), shown), ("GET" | "POST", "/access/ticket") | ("GET", "/access/domains"));
    if open && !headers.contains_key(header::AUTHORIZATION) {
        return Ok(Caller(String::new()));
    }
    let guarded = *method != Method::GET && !template.is_some_and(|template| template.ends_with("/upload"));
    Ok(cluster.auth().authenticate(headers, guarded, cluster.clock.now())?)
}

pub(super) fn header_text(headers: &http::HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// A body as it comes in; a client that stalls for 5 s is cut off, as on a real server.
pub(super) struct Body {
    incoming: Incoming,
    clock: std::sync::Arc<LabClock>,
    rate: Option<u64>,
}

impl Body {
    fn new(cluster: &Cluster, incoming: Incoming, rate: Option<u64>) -> Self {
        Body { incoming, clock: std::sync::Arc::clone(&cluster.clock), rate }
    }

    /// The next bytes, `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Stop> {
        loop {
            let frame = match tokio::time::timeout(IDLE, self.incoming.frame()).await {
                Err(_) | Ok(Some(Err(_))) => return Err(Stop::Cut),
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(bytes) = frame.into_data() else { continue };
            if let Some(rate) = self.rate {
                let seconds = bytes.len() as f64 / rate.max(1) as f64;
                self.clock.sleep(Duration::from_secs_f64(seconds)).await;
            }
            return Ok(Some(bytes));
        }
    }

    async fn whole(&mut self) -> Result<Vec<u8>, Stop> {
        let mut whole = Vec::new();
        while let Some(bytes) = self.next().await? {
            whole.extend_from_slice(&bytes);
            if whole.len() > body::LIMIT {
                return Err(ApiError::plain(501, "for data too large").into());
            }
        }
        Ok(whole)
    }
}
