//! The HTTP layer with pveproxy's rules (proxmox.md §1).
//!
//! Invariants: a call, once read, runs to its end in its own tokio task, whether or not the client waits for it; what the
//! lab answers is checked against the schema.

mod body;
mod plain;
mod read;
mod respond;
pub mod upload;

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Answer, Call};
use crate::auth::Caller;
use crate::cluster::{Cluster, RequestRecord};
use crate::error::{ApiError, ApiResult, ErrorBody};
use crate::faults::Fault;
use crate::page;
use read::{Read, Stop};
use respond::{Form, LabBody};

/// The connection is to be cut without an answer, or in its midst.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is cut by a scripted fault")
    }
}

impl std::error::Error for Cut {}

/// Idle connections, and bodies that stall, are cut off after this, as pveproxy does.
const IDLE: Duration = Duration::from_secs(5);
/// Requests that one connection may make.
const REQUESTS: usize = 100;
/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

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
    let Ok(peer) = stream.peer_addr() else { return };
    let mut first = [0];
    match tokio::time::timeout(IDLE, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first[0] == TLS_HANDSHAKE => {}
        Ok(Ok(1)) => return plain::redirect(stream).await,
        _ => return,
    }
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let count = Arc::new(AtomicUsize::new(0));
    let service = service_fn(move |request| {
        let last = count.fetch_add(1, Ordering::SeqCst) + 1 >= REQUESTS;
        answer(Arc::clone(&cluster), request, peer.ip(), last)
    });
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

async fn answer(
    cluster: Arc<Cluster>,
    request: Request<Incoming>,
    peer: IpAddr,
    last: bool,
) -> Result<Response<LabBody>, Cut> {
    if request.method() == Method::GET && page::is_page(request.uri().path()) {
        let known = read::header_text(request.headers(), header::IF_NONE_MATCH);
        let page = page::get(&cluster, request.uri().path(), peer, known.as_deref()).await;
        return Ok(respond::page(page, last));
    }
    let index = note(&cluster, &request);
    let mut form = Form {
        extjs: request.uri().path().starts_with("/api2/extjs"),
        gzip: read::header_text(request.headers(), header::ACCEPT_ENCODING)
            .is_some_and(|kinds| kinds.contains("gzip")),
        protected: false,
        last,
    };
    let mut known = None;
    let read = read::read(&cluster, request, &mut known).await;
    let mut log = Log { cluster: &cluster, index, known };
    let read = match read {
        Ok(read) => read,
        Err(Stop::Cut) => {
            log.finish(None);
            return Err(Cut);
        }
        Err(Stop::Error(error)) => return Ok(log.fail(&error, form).await),
    };
    form.protected = read.found.as_ref().is_some_and(|(_, method, _)| method.protected);
    let faults = read.faults.clone();
    let worker = tokio::spawn({
        let cluster = Arc::clone(&cluster);
        async move { handle(cluster, read).await }
    });
    // pvedaemon goes on with its work when pveproxy has given up on it.
    let outcome = match form.protected {
        true => cluster.clock.timeout(cluster.config.proxy_timeout, worker).await,
        false => Some(worker.await),
    };
    let outcome = match outcome {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Ok(Err(ApiError::die(format!("the handler died: {error}")))),
        None => {
            let mut error = ApiError::status(596, "Connection timed out");
            error.body = ErrorBody::Empty;
            Ok(Err(error))
        }
    };
    match outcome {
        Err(Cut) => {
            log.finish(None);
            Err(Cut)
        }
        Ok(Ok(answer)) => {
            let mut response = respond::success(answer, form);
            respond::date(&mut response, cluster.clock.now());
            for fault in &faults {
                if let Fault::Truncate { bytes } = fault {
                    response.body_mut().truncate(*bytes);
                }
            }
            log.finish(Some(response.status().as_u16()));
            Ok(response)
        }
        Ok(Err(error)) => Ok(log.fail(&error, form).await),
    }
}

fn note(cluster: &Cluster, request: &Request<Incoming>) -> usize {
    let decoded = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy();
    let record = RequestRecord {
        at: cluster.clock.elapsed(),
        method: request.method().to_string(),
        path: decoded.strip_prefix("/api2/json").unwrap_or(&decoded).to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        status: None,
        error: None,
        took: None,
        caller: None,
        route: None,
        agent: read::header_text(request.headers(), header::USER_AGENT).unwrap_or_default(),
    };
    let mut requests = cluster.requests.lock().unwrap_or_else(PoisonError::into_inner);
    requests.push(record);
    requests.len() - 1
}

/// The entry of a call in the lab's log.
struct Log<'a> {
    cluster: &'a Cluster,
    index: usize,
    known: Option<(String, Caller)>,
}

impl Log<'_> {
    fn finish(&mut self, status: Option<u16>) {
        self.end(status, None);
    }

    fn end(&mut self, status: Option<u16>, error: Option<&ApiError>) {
        let now = self.cluster.clock.elapsed();
        let mut requests = self.cluster.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = requests.get_mut(self.index) {
            record.status = status;
            record.took = Some(now.saturating_sub(record.at));
            record.error = error.map(ApiError::whole_text);
            if let Some((route, caller)) = self.known.take() {
                record.caller = (!caller.is_nobody()).then_some(caller.0);
                record.route = (!route.is_empty()).then_some(route);
            }
        }
    }

    /// The response of an error; a 401 comes late.
    async fn fail(&mut self, error: &ApiError, form: Form) -> Response<LabBody> {
        if error.status == 401 {
            self.cluster.clock.sleep(self.cluster.config.auth_delay).await;
        }
        self.end(Some(error.status), Some(error));
        respond::failure(error, form)
    }
}

/// Faults, route, permissions, parameters, then the work.
async fn handle(cluster: Arc<Cluster>, read: Read) -> Result<ApiResult<Answer>, Cut> {
    let faults = read.faults.clone();
    for fault in &faults {
        match fault {
            Fault::Hold(gate) => gate.pass().await,
            Fault::Delay(time) => cluster.clock.sleep(*time).await,
            _ => {}
        }
    }
    let outcome = route(&cluster, read).await;
    for fault in &faults {
        match fault {
            Fault::DoThenDrop => return Err(Cut),
            Fault::HoldAfter(gate) => gate.pass().await,
            Fault::DelayAfter(time) => cluster.clock.sleep(*time).await,
            _ => {}
        }
    }
    Ok(outcome)
}

/// Calls a method of the API without HTTP, as the programs of a node do; `None` when there is no such method.
pub(crate) async fn call(
    cluster: &Arc<Cluster>,
    caller: Caller,
    method: &str,
    path: &str,
    parameters: Map<String, Value>,
) -> Option<ApiResult<Answer>> {
    let segments: Vec<String> =
        path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
    let found = Some(cluster.schema().find(method, &segments)?);
    let read = Read {
        method: method.to_owned(),
        shown: path.to_owned(),
        caller,
        parameters,
        headers: http::HeaderMap::new(),
        upgrade: None,
        upload: None,
        faults: Vec::new(),
        found,
    };
    Some(route(cluster, read).await)
}

async fn route(cluster: &Arc<Cluster>, read: Read) -> ApiResult<Answer> {
    let not_there = ApiError::status(501, format!("Method '{} {}' not implemented", read.method, read.shown));
    let Some((route, method, captured)) = read.found else { return Err(not_there) };
    let mut parameters = read.parameters;
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
        } else if !cluster.is_online(node) {
            let mut error = ApiError::status(595, "No route to host");
            error.body = ErrorBody::Empty;
            return Err(error);
        }
    }
    let params = cluster.schema().verify(method, parameters).map_err(ApiError::parameters)?;
    let call = Call {
        cluster: Arc::clone(cluster),
        caller: read.caller,
        params,
        faults: read.faults,
        headers: read.headers,
        upgrade: read.upgrade,
        upload: read.upload,
    };
    let answer = api::dispatch(&read.method, &route.template, call).await.unwrap_or(Err(not_there))?;
    let (Answer::Data(data) | Answer::Page(data, _)) = &answer else { return Ok(answer) };
    match cluster.schema().check_answer(method, data) {
        Ok(()) => Ok(answer),
        Err(wrong) => {
            let text =
                format!("the lab's answer to {} {} breaks the schema: {wrong}", read.method, route.template);
            if cluster.config.strict_answers {
                return Err(ApiError::die(text));
            }
            tracing::warn!("{text}");
            Ok(answer)
        }
    }
}
