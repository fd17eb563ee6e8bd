//! The HTTP layer with pveproxy's rules (proxmox.md §1).
//!
//! Invariant: a call, once read, runs to its end in its own tokio task, whether or not the client waits for it.

mod body;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Answer, Call};
use crate::auth::Caller;
use crate::cluster::{Cluster, RequestRecord};
use crate::error::{ApiError, ApiResult, ErrorBody};
use crate::faults::Fault;
use crate::schema::schema;

/// The connection is to be cut without an answer.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is cut by a scripted fault")
    }
}

impl std::error::Error for Cut {}

/// Idle connections are closed after this, as pveproxy does.
const IDLE: Duration = Duration::from_secs(5);

/// Serves until `stop` is cancelled.
pub async fn serve(cluster: Arc<Cluster>, listener: TcpListener, stop: CancellationToken) {
    let acceptor = TlsAcceptor::from(Arc::clone(&cluster.identity.server));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (cluster, acceptor, stop) = (Arc::clone(&cluster), acceptor.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(cluster, acceptor, stream) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn connection(cluster: Arc<Cluster>, acceptor: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request| answer(Arc::clone(&cluster), request));
    let result = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

/// A request that has been read.
struct Read {
    method: String,
    path: Vec<String>,
    shown: String,
    caller: Caller,
    parameters: Map<String, Value>,
    headers: http::HeaderMap,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
}

async fn answer(cluster: Arc<Cluster>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
    let index = note(&cluster, &request);
    let read = match read(&cluster, request).await {
        Ok(read) => read,
        Err(error) => {
            if error.status == 401 {
                tokio::time::sleep(cluster.config.auth_delay).await;
            }
            finish(&cluster, index, Some(error.status), None);
            return Ok(error_response(&error));
        }
    };
    let caller = read.caller.0.clone();
    let worker = tokio::spawn({
        let cluster = Arc::clone(&cluster);
        async move { handle(cluster, read).await }
    });
    let outcome = match worker.await {
        Ok(outcome) => outcome,
        Err(error) => Ok(Err(ApiError::die(format!("the handler died: {error}")))),
    };
    match outcome {
        Err(Cut) => {
            finish(&cluster, index, None, Some(caller));
            Err(Cut)
        }
        Ok(Ok(answer)) => {
            let response = success_response(answer);
            finish(&cluster, index, Some(response.status().as_u16()), Some(caller));
            Ok(response)
        }
        Ok(Err(error)) => {
            if error.status == 401 {
                tokio::time::sleep(cluster.config.auth_delay).await;
            }
            finish(&cluster, index, Some(error.status), Some(caller));
            Ok(error_response(&error))
        }
    }
}

fn note(cluster: &Cluster, request: &Request<Incoming>) -> usize {
    let decoded = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy();
    let record = RequestRecord {
        at: cluster.started.elapsed(),
        method: request.method().to_string(),
        path: decoded.strip_prefix("/api2/json").unwrap_or(&decoded).to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        status: None,
        caller: None,
    };
    let mut requests = cluster.requests.lock().unwrap_or_else(PoisonError::into_inner);
    requests.push(record);
    requests.len() - 1
}

fn finish(cluster: &Cluster, index: usize, status: Option<u16>, caller: Option<String>) {
    let mut requests = cluster.requests.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(record) = requests.get_mut(index) {
        record.status = status;
        record.caller = caller;
    }
}

/// Checks what pveproxy checks before it looks at the path, and reads the parameters.
async fn read(cluster: &Cluster, mut request: Request<Incoming>) -> ApiResult<Read> {
    let method = request.method().clone();
    if ![Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(&method) {
        return Err(ApiError::plain(501, format!("method '{method}' not available")));
    }
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        return Err(ApiError::plain(501, "chunked transfer encoding not supported"));
    }
    let length: usize =
        header_text(&request, header::CONTENT_LENGTH).and_then(|text| text.parse().ok()).unwrap_or(0);
    if length > 0 && (method == Method::GET || method == Method::DELETE) {
        return Err(ApiError::plain(501, format!("Unexpected content for method '{method}'")));
    }
    if length > body::LIMIT {
        return Err(ApiError::plain(501, "for data too large"));
    }
    let raw_path = request.uri().path().to_owned();
    let Some(below) = raw_path.strip_prefix("/api2/json").or_else(|| raw_path.strip_prefix("/api2/extjs"))
    else {
        return Err(ApiError::plain(404, format!("no such file '{raw_path}'")));
    };
    let path: Vec<String> = below
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let shown = format!("/{}", path.join("/"));
    let caller = cluster.auth().authenticate(header_text(&request, header::AUTHORIZATION).as_deref())?;
    let query = body::decode_urlencoded(request.uri().query().unwrap_or_default().as_bytes())?;
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let headers = request.headers().clone();
    let mut parameters = if length > 0 { body::read(request).await? } else { Map::new() };
    for (name, value) in query {
        match parameters.get(&name) {
            Some(other) if *other != value => {
                let text = "duplicate parameter (already defined in URI) with conflicting values";
                return Err(ApiError::parameter(&name, text));
            }
            _ => drop(parameters.insert(name, value)),
        }
    }
    Ok(Read { method: method.to_string(), path, shown, caller, parameters, headers, upgrade })
}

fn header_text(request: &Request<Incoming>, name: header::HeaderName) -> Option<String> {
    request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Faults, route, permissions, parameters, then the work.
async fn handle(cluster: Arc<Cluster>, read: Read) -> Result<ApiResult<Answer>, Cut> {
    let faults = cluster.faults.take(&read.method, &read.path);
    for fault in &faults {
        match fault {
            Fault::DropBefore => return Err(Cut),
            Fault::Refuse { status, reason } => {
                let mut error = ApiError::status(*status, reason.clone());
                if matches!(*status, 401 | 595..=599) {
                    error.body = ErrorBody::Empty;
                }
                return Ok(Err(error));
            }
            Fault::Hold(gate) => gate.pass().await,
            Fault::Delay(time) => tokio::time::sleep(*time).await,
            _ => {}
        }
    }
    let outcome = route(&cluster, read, faults.clone()).await;
    for fault in &faults {
        match fault {
            Fault::DoThenDrop => return Err(Cut),
            Fault::HoldAfter(gate) => gate.pass().await,
            _ => {}
        }
    }
    Ok(outcome)
}

async fn route(cluster: &Arc<Cluster>, read: Read, faults: Vec<Fault>) -> ApiResult<Answer> {
    let not_there =
        || ApiError::status(501, format!("Method '{} {}' not implemented", read.method, read.shown));
    let (route, method, captured) = schema().find(&read.method, &read.path).ok_or_else(not_there)?;
    let mut parameters = read.parameters.clone();
    for (name, value) in captured {
        parameters.insert(name, value.into());
    }
    if read.caller.token().is_some() && !method.allow_token {
        let text = format!("URI '{}' not available with API token, need proper ticket.\n", read.shown);
        return Err(ApiError::forbidden(&text));
    }
    let unchecked = api::loose_params(&parameters);
    cluster.auth().check_route(&read.caller, method.permissions.as_ref(), &unchecked)?;
    if let Some(node) = unchecked.get("node")
        && route.template.starts_with("/nodes/{node}")
    {
        if node == "localhost" {
            parameters.insert("node".to_owned(), cluster.config.nodes[0].clone().into());
        } else if !cluster.config.nodes.iter().any(|known| known == node) {
            return Err(ApiError::die(format!(
                "hostname lookup '{node}' failed - failed to get address info for: {node}: Temporary failure in name resolution"
            )));
        }
    }
    let params = schema().verify(method, parameters).map_err(ApiError::parameters)?;
    let call = Call {
        cluster: Arc::clone(cluster),
        caller: read.caller.clone(),
        params,
        faults,
        headers: read.headers.clone(),
        upgrade: read.upgrade,
    };
    match api::dispatch(&read.method, &route.template, call).await {
        Some(outcome) => outcome,
        None => {
            Err(ApiError::status(501, format!("Method '{} {}' not implemented", read.method, read.shown)))
        }
    }
}

fn success_response(answer: Answer) -> Response<Full<Bytes>> {
    let body = match answer {
        Answer::Data(data) => json!({"data": data}),
        Answer::Page(data, total) => json!({"data": data, "total": total}),
        Answer::Upgrade(response) => return *response,
    };
    with_headers(StatusCode::OK, body.to_string(), "application/json;charset=UTF-8")
}

fn error_response(error: &ApiError) -> Response<Full<Bytes>> {
    // A carriage return in the text spoils the status line; pveproxy then says only this.
    if error.message.contains('\r') {
        let mut response = with_headers(StatusCode::BAD_REQUEST, String::new(), "text/plain");
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (body, kind) = match error.body {
        ErrorBody::Empty => (String::new(), "text/plain"),
        ErrorBody::Text => (error.message.clone(), "text/plain"),
        ErrorBody::Json => {
            let end = if error.status == 501 { "" } else { "\n" };
            let mut document = json!({"data": null, "message": format!("{}{end}", error.message)});
            if let Some(errors) = &error.errors {
                document["errors"] = Value::Object(errors.clone());
            }
            (document.to_string(), "application/json;charset=UTF-8")
        }
    };
    let mut response = with_headers(status, body, kind);
    let reason = error.message.lines().next().unwrap_or_default();
    if let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes()) {
        response.extensions_mut().insert(reason);
    }
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn with_headers(status: StatusCode, body: String, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=0"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::SERVER, HeaderValue::from_static("pve-api-daemon/3.0"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
