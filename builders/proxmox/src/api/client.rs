//! One HTTP client for one target: HTTP/1.1 over TLS with a token, and the rules of pveproxy.
//!
//! Rules it keeps (pve-http-server `AnyEvent.pm`, observed on PVE 9.2): no body on GET and DELETE, a Content-Length on
//! everything else, no chunked bodies, idle connections given up before the server's 5 s, redirects not followed. A GET
//! that finds its connection closed is repeated once, and so is what a refused ticket was shown with. Where a target has several endpoints, what one of them surely did
//! not carry out is asked of the next; nothing else is ever repeated here.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};
use hyper::ext::ReasonPhrase;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::api::auth::{Login, TokenError};
use crate::api::encode::Params;
use crate::api::endpoint::{Endpoint, Endpoints};
use crate::api::envelope::{Envelope, Refusal};
use crate::api::error::{ApiError, Intent, trust_error};
use crate::api::limits::Limits;
use crate::api::proxy::{Proxies, Tunnel};
use crate::api::task::STALL;
use crate::api::tls::{self, TlsError, TrustError};
use crate::config::ProxmoxConfig;
use crate::permissions::ROLE;
use crate::secret::Secret;

/// pveproxy drops idle connections after 5 s.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// A setting that no connection can be made with.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The URL is not one.
    #[error("`{url}` is no URL of a Proxmox VE API: {why}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The proxy can't be used.
    #[error("the proxy can't be used: {why}")]
    Proxy {
        /// What is wrong with it. Its address is not told: a login may stand in it.
        why: String,
    },
    /// The token can't be right.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The TLS choice can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP client can't be made.
    #[error("the HTTP client can't be set up")]
    Http(#[source] reqwest::Error),
}

/// An answer whose envelope was opened.
#[derive(Debug)]
pub struct Reply {
    /// The method's answer.
    pub data: Value,
    /// The total of a list that is returned in parts.
    pub total: Option<u64>,
    /// The very server that answered (or the proxy before it), for calls that must reach the same one.
    pub peer: Option<SocketAddr>,
    /// The number of the endpoint that answered.
    pub(crate) endpoint: usize,
}

/// A client for one target. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    endpoints: Arc<Endpoints>,
    target: String,
    login: Arc<Login>,
    role: Arc<str>,
    tls: Arc<rustls::ClientConfig>,
    limits: Limits,
    stall: Duration,
    /// By how much the server's clock was before ours at its last answer.
    ahead: Arc<Mutex<Option<SignedDuration>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("peer", &self.peer())
            .field("login", &self.login.id())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client. Nothing is sent.
    ///
    /// # Errors
    /// When URL, token or TLS choice can't be used.
    pub fn new(config: &ProxmoxConfig) -> Result<Self, SetupError> {
        Self::within(config, Limits::default())
    }

    /// Makes a client that waits for as long as these limits say. Nothing is sent.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn within(config: &ProxmoxConfig, limits: Limits) -> Result<Self, SetupError> {
        let endpoints = Endpoints::new(config, &Proxies::new(&config.proxy))?;
        let login = Arc::new(Login::new(&config.token_id, &config.token_secret)?);
        let tls = tls::client_config(&config.tls)?;
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .hickory_dns(true)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(POOL_IDLE)
            .connect_timeout(limits.connect)
            .timeout(limits.exchange)
            .tcp_nodelay(true)
            .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = proxy(&endpoints) {
            http = http.proxy(proxy);
        }
        let http = http.build().map_err(SetupError::Http)?;
        let (endpoints, target) = (Arc::new(endpoints), format!("target `{}`", config.target));
        let role = config.role.as_deref().unwrap_or(ROLE).into();
        let (tls, ahead) = (Arc::new(tls), Arc::default());
        Ok(Self { http, endpoints, target, login, role, tls, limits, stall: STALL, ahead })
    }

    /// The target by name and address, for messages.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.endpoints.current().1.peer
    }

    /// `host:port` of the API that is used now; an IPv6 address has its brackets.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.endpoints.current().1.authority()
    }

    /// The endpoint of a number.
    pub(crate) fn endpoint_of(&self, number: usize) -> Option<&Endpoint> {
        self.endpoints.all().get(number)
    }

    /// The role of who logs in, for the commands that grant it something.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }

    /// Who logs in: `user@realm!token`, or `user@realm` with a password.
    #[must_use]
    pub fn login_id(&self) -> &str {
        self.login.id()
    }

    /// The same with tickets that are renewed after this time; Proxmox's are good for 2 h, so the default is 1 h.
    #[must_use]
    pub fn renewing_tickets_after(mut self, time: Duration) -> Self {
        self.login = Arc::new(self.login.renewing_after(time));
        self
    }

    /// The same, giving up tasks that say nothing new for this long.
    #[must_use]
    pub fn stalling_after(self, stall: Duration) -> Self {
        Self { stall, ..self }
    }

    /// By how much the clock of the server was before this machine's when it answered last, to the second; `None` before
    /// its first answer, and when it does not tell the time.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<SignedDuration> {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_clock(&self, headers: &HeaderMap) {
        let told = headers.get(header::DATE).and_then(|value| value.to_str().ok());
        let told = told.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        if let Some(told) = told {
            let ahead = told.timestamp().duration_since(Timestamp::now());
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
    }

    /// How long it waits.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How long a task may say nothing new.
    pub(crate) fn stall(&self) -> Duration {
        self.stall
    }

    /// The headers of a request, with a ticket that is fresh.
    pub(crate) async fn sign(&self, write: bool) -> Result<HeaderMap, ApiError> {
        self.sign_at(self.endpoints.current(), write).await
    }

    async fn sign_at(&self, at: (usize, &Endpoint), write: bool) -> Result<HeaderMap, ApiError> {
        let log_in = |user: String, password: Secret| async move {
            let body = Params::new().with("username", user).with("password", password.expose()).encode();
            let builder = self
                .http
                .request(Method::POST, format!("{}/api2/json/access/ticket", at.1.origin))
                .header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
                .header(header::CONTENT_LENGTH, body.len())
                .body(body);
            // Logging in changes nothing: a lost answer is no unknown outcome.
            let reply = self.send(at, builder, "POST /access/ticket", Intent::Read).await;
            decode("POST /access/ticket", reply.map_err(|failed| failed.error)?.data)
        };
        self.login.headers(write, &at.1.peer, log_in).await
    }

    /// Shakes hands with one endpoint after the other, up to the first that is trusted, and tells of which the certificate is
    /// refused and why. Neither login nor secret is sent. May be dropped.
    pub(crate) async fn handshakes(&self) -> Vec<(&Endpoint, Option<TrustError>)> {
        let mut all = Vec::new();
        for endpoint in self.endpoints.all() {
            match self.http.get(format!("{}/", endpoint.origin)).send().await {
                Ok(_) => return vec![(endpoint, None)],
                Err(error) => {
                    all.extend(trust_error(&error).map(|refused| (endpoint, Some(refused.clone()))));
                }
            }
        }
        all
    }

    /// The TLS configuration, for the websocket.
    #[must_use]
    pub fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// Reads. Repeated once when the connection turns out to be closed. May be dropped.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &Params) -> Result<T, ApiError> {
        let reply = self.get_reply(path, query).await?;
        decode(&format!("GET {path}"), reply.data)
    }

    /// Reads, handing the total of a partial list over too. May be dropped.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get_reply(&self, path: &str, query: &Params) -> Result<Reply, ApiError> {
        self.exchange(Method::GET, path, query).await.map_err(|failed| failed.error)
    }

    /// Creates or acts. Effect: never drop it in flight.
    ///
    /// # Errors
    /// See [`ApiError`]; [`ApiError::Unanswered`] when nobody knows whether it was carried out.
    pub async fn post(&self, path: &str, body: &Params) -> Result<Reply, ApiError> {
        self.exchange(Method::POST, path, body).await.map_err(|failed| failed.error)
    }

    /// Changes. Effect: never drop it in flight.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn put(&self, path: &str, body: &Params) -> Result<Reply, ApiError> {
        self.exchange(Method::PUT, path, body).await.map_err(|failed| failed.error)
    }

    /// Removes. Parameters go into the query. Effect: never drop it in flight.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn delete(&self, path: &str, query: &Params) -> Result<Reply, ApiError> {
        self.exchange(Method::DELETE, path, query).await.map_err(|failed| failed.error)
    }

    /// One exchange with the endpoint that is used now, or with the next ones while they can't be reached.
    async fn exchange(&self, method: Method, path: &str, params: &Params) -> Result<Reply, Failed> {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let at = self.endpoints.current();
            let once = async || self.exchange_at(at, method.clone(), path, params).await;
            let mut outcome = once().await;
            if method == Method::GET && outcome.as_ref().is_err_and(|failed| failed.closed) {
                tracing::debug!(path, "the connection was closed; asking once more");
                outcome = once().await;
            }
            // A ticket may end before its time, when a clock is set or this machine sleeps. Nothing was carried out.
            if let Err(Failed { error: ApiError::Unauthorized { .. }, .. }) = &outcome
                && self.login.forget_ticket().await
            {
                tracing::debug!(path, "the ticket was refused; logging in again");
                outcome = once().await;
            }
            let failed = match outcome {
                Ok(reply) => return Ok(reply),
                Err(failed) => failed,
            };
            let ApiError::Unreachable { detail, .. } = &failed.error else { return Err(failed) };
            if !failed.elsewhere || self.endpoints.count() == 1 {
                return Err(failed);
            }
            seen.push(format!("{}: {detail}", at.1.origin));
            self.endpoints.leave(at.0);
            if seen.len() >= self.endpoints.count() {
                let (peer, detail) =
                    (self.target.clone(), format!("no endpoint answers: {}", seen.join("; ")));
                let error = ApiError::Unreachable { peer, detail, source: None };
                return Err(Failed { error, ..failed });
            }
        }
    }

    async fn exchange_at(
        &self,
        at: (usize, &Endpoint),
        method: Method,
        path: &str,
        params: &Params,
    ) -> Result<Reply, Failed> {
        let request = format!("{method} {path}");
        let in_query = method == Method::GET || method == Method::DELETE;
        let intent = if method == Method::GET { Intent::Read } else { Intent::Write };
        let mut url = format!("{}/api2/json{path}", at.1.origin);
        if in_query && !params.is_empty() {
            url.push('?');
            url.push_str(&params.encode());
        }
        let signed = self.sign_at(at, intent == Intent::Write).await;
        let headers = signed.map_err(|error| Failed { error, closed: false, elsewhere: true })?;
        let mut builder = self.http.request(method, url).headers(headers);
        if !in_query {
            let body = params.encode();
            // Said even of an empty body, which the HTTP library would pass over.
            builder = builder
                .header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
                .header(header::CONTENT_LENGTH, body.len())
                .body(body);
        }
        self.send(at, builder, &request, intent).await
    }

    /// A request to a path of the API, with the login.
    pub(crate) async fn request_to(
        &self,
        method: Method,
        path: &str,
    ) -> Result<reqwest::RequestBuilder, ApiError> {
        let url = format!("{}/api2/json{path}", self.endpoints.current().1.origin);
        let headers = self.sign(method != Method::GET).await?;
        Ok(self.http.request(method, url).headers(headers))
    }

    /// Sends a request that was built elsewhere.
    pub(crate) async fn answer_to(
        &self,
        builder: reqwest::RequestBuilder,
        request: &str,
        intent: Intent,
    ) -> Result<Reply, ApiError> {
        self.send(self.endpoints.current(), builder, request, intent).await.map_err(|failed| failed.error)
    }

    async fn send(
        &self,
        at: (usize, &Endpoint),
        builder: reqwest::RequestBuilder,
        request: &str,
        intent: Intent,
    ) -> Result<Reply, Failed> {
        let transport = |error: reqwest::Error| {
            let closed = !error.is_connect() && !error.is_timeout() && !error.is_builder();
            let error = ApiError::from_transport(&at.1.peer, request, intent, &self.limits, error);
            Failed { error, closed, elsewhere: true }
        };
        let response = builder.send().await.map_err(transport)?;
        let status = response.status();
        self.note_clock(response.headers());
        let peer = response.remote_addr();
        let reason = response.extensions().get::<ReasonPhrase>().map(|phrase| phrase.as_bytes().to_vec());
        let body = response.bytes().await;
        tracing::trace!(request, status = status.as_u16(), "answered");
        if !status.is_success() {
            // A refusal stands even when its body was cut off.
            let body = body.unwrap_or_default();
            let refusal = Refusal::read(reason.as_deref(), &body);
            let error = ApiError::from_refusal(&at.1.peer, request, intent, status.as_u16(), &refusal)
                .explained(&self.role, self.login.id());
            // Of a node that can't be reached behind it another endpoint knows no more.
            let elsewhere = !request.contains(" /nodes/") || matches!(status.as_u16(), 502 | 504);
            return Err(Failed { error, closed: false, elsewhere });
        }
        let body = body.map_err(transport)?;
        let envelope: Envelope = serde_json::from_slice(&body).map_err(|source| Failed {
            error: ApiError::Malformed { request: request.to_owned(), source: Box::new(source) },
            closed: false,
            elsewhere: false,
        })?;
        Ok(Reply { data: envelope.data, total: envelope.total, peer, endpoint: at.0 })
    }
}

/// A failed exchange.
struct Failed {
    error: ApiError,
    /// Whether it was the connection that ended it.
    closed: bool,
    /// Whether another endpoint may know better, if this one can't be reached.
    elsewhere: bool,
}

/// The proxies to the endpoints, for the HTTP library.
pub(crate) fn proxy(endpoints: &Endpoints) -> Option<reqwest::Proxy> {
    let tunnels: Vec<(String, u16, Tunnel)> = endpoints
        .all()
        .iter()
        .filter_map(|each| Some((each.host.clone(), each.port, each.tunnel.clone()?)))
        .collect();
    let auth = tunnels.iter().find_map(|(.., tunnel)| tunnel.auth().cloned());
    if tunnels.is_empty() {
        return None;
    }
    let proxy = reqwest::Proxy::custom(move |url| {
        let port = url.port_or_known_default()?;
        let found = tunnels.iter().find(|(host, at, _)| url.host_str() == Some(host) && *at == port);
        found.map(|(.., tunnel)| tunnel.url())
    });
    Some(match auth {
        Some(auth) => proxy.custom_http_auth(auth),
        None => proxy,
    })
}

/// Reads the data of an answer.
///
/// # Errors
/// [`ApiError::Malformed`] when it has another shape.
pub fn decode<T: DeserializeOwned>(request: &str, data: Value) -> Result<T, ApiError> {
    serde_json::from_value(data)
        .map_err(|source| ApiError::Malformed { request: request.to_owned(), source: Box::new(source) })
}
