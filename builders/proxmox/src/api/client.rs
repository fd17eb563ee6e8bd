//! One HTTP client for one target: HTTP/1.1 over TLS with a token, and the rules of pveproxy.
//!
//! Rules it keeps (pve-http-server `AnyEvent.pm`, observed on PVE 9.2): no body on GET and DELETE, a Content-Length on
//! everything else, no chunked bodies, idle connections given up before the server's 5 s, redirects not followed, no
//! proxy. A GET that finds its connection closed is repeated once; nothing else is ever repeated here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};
use hyper::ext::ReasonPhrase;
use reqwest::Url;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::api::auth::{Login, TokenError};
use crate::api::encode::Params;
use crate::api::envelope::{Envelope, Refusal};
use crate::api::error::{ApiError, Intent};
use crate::api::task::STALL;
use crate::api::tls::{self, TlsError};
use crate::config::ProxmoxConfig;
use crate::secret::Secret;

/// pveproxy drops idle connections after 5 s.
const POOL_IDLE: Duration = Duration::from_secs(4);
/// A whole exchange. pveproxy itself gives up on pvedaemon after 30 s, so its own answer arrives within this.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(40);
/// Name, TCP and TLS together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Proxmox VE's port.
const DEFAULT_PORT: u16 = 8006;

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
    /// The very server that answered, for calls that must reach the same one.
    pub peer: Option<SocketAddr>,
}

/// A client for one target. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    origin: String,
    host: String,
    port: u16,
    peer: String,
    login: Arc<Login>,
    tls: Arc<rustls::ClientConfig>,
    stall: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("peer", &self.peer)
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
        let url = parse_url(&config.url)?;
        let login = Arc::new(Login::new(&config.token_id, &config.token_secret)?);
        let tls = tls::client_config(&config.tls)?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .hickory_dns(true)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(POOL_IDLE)
            .connect_timeout(CONNECT_LIMIT)
            .timeout(EXCHANGE_LIMIT)
            .tcp_nodelay(true)
            .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(SetupError::Http)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        // The parser leaves https' own port out; whoever wrote it (a reverse proxy) means it.
        let says_443 = config.url.contains(&format!("{host}:443"));
        let port = url.port().unwrap_or(if says_443 { 443 } else { DEFAULT_PORT });
        let origin = format!("https://{host}:{port}");
        let peer = format!("target `{}` ({origin})", config.target);
        Ok(Self { http, origin, host, port, peer, login, tls: Arc::new(tls), stall: STALL })
    }

    /// The target by name and address, for messages.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The host of the API's URL; an IPv6 address has its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `host:port` of the API.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.host, self.port)
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

    /// How long a task may say nothing new.
    pub(crate) fn stall(&self) -> Duration {
        self.stall
    }

    /// The headers of a request, with a ticket that is fresh.
    pub(crate) async fn sign(&self, write: bool) -> Result<HeaderMap, ApiError> {
        let log_in = |user: String, password: Secret| async move {
            let body = Params::new().with("username", user).with("password", password.expose()).encode();
            let builder = self
                .http
                .request(Method::POST, format!("{}/api2/json/access/ticket", self.origin))
                .header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
                .header(header::CONTENT_LENGTH, body.len())
                .body(body);
            // Logging in changes nothing: a lost answer is no unknown outcome.
            let reply = self.send(builder, "POST /access/ticket", Intent::Read).await;
            decode("POST /access/ticket", reply.map_err(|failed| failed.error)?.data)
        };
        self.login.headers(write, &self.peer, log_in).await
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
        match self.exchange(Method::GET, path, query).await {
            Err(Failed { closed: true, .. }) => {
                tracing::debug!(path, "the connection was closed; asking once more");
                self.exchange(Method::GET, path, query).await.map_err(|failed| failed.error)
            }
            other => other.map_err(|failed| failed.error),
        }
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

    async fn exchange(&self, method: Method, path: &str, params: &Params) -> Result<Reply, Failed> {
        let request = format!("{method} {path}");
        let in_query = method == Method::GET || method == Method::DELETE;
        let intent = if method == Method::GET { Intent::Read } else { Intent::Write };
        let mut url = format!("{}/api2/json{path}", self.origin);
        if in_query && !params.is_empty() {
            url.push('?');
            url.push_str(&params.encode());
        }
        let signed = self.sign(intent == Intent::Write).await;
        let headers = signed.map_err(|error| Failed { error, closed: false })?;
        let mut builder = self.http.request(method, url).headers(headers);
        if !in_query {
            let body = params.encode();
            // Said even of an empty body, which the HTTP library would pass over.
            builder = builder
                .header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
                .header(header::CONTENT_LENGTH, body.len())
                .body(body);
        }
        self.send(builder, &request, intent).await
    }

    /// A request to a path of the API, with the login.
    pub(crate) async fn request_to(
        &self,
        method: Method,
        path: &str,
    ) -> Result<reqwest::RequestBuilder, ApiError> {
        let url = format!("{}/api2/json{path}", self.origin);
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
        self.send(builder, request, intent).await.map_err(|failed| failed.error)
    }

    async fn send(
        &self,
        builder: reqwest::RequestBuilder,
        request: &str,
        intent: Intent,
    ) -> Result<Reply, Failed> {
        let transport = |error: reqwest::Error| {
            let closed = !error.is_connect() && !error.is_timeout() && !error.is_builder();
            Failed { error: ApiError::from_transport(&self.peer, request, intent, error), closed }
        };
        let response = builder.send().await.map_err(transport)?;
        let status = response.status();
        let peer = response.remote_addr();
        let reason = response.extensions().get::<ReasonPhrase>().map(|phrase| phrase.as_bytes().to_vec());
        let body = response.bytes().await;
        tracing::trace!(request, status = status.as_u16(), "answered");
        if !status.is_success() {
            // A refusal stands even when its body was cut off.
            let body = body.unwrap_or_default();
            let refusal = Refusal::read(reason.as_deref(), &body);
            let error = ApiError::from_refusal(&self.peer, request, intent, status.as_u16(), &refusal)
                .explained(self.login.id());
            return Err(Failed { error, closed: false });
        }
        let body = body.map_err(transport)?;
        let envelope: Envelope = serde_json::from_slice(&body).map_err(|source| Failed {
            error: ApiError::Malformed { request: request.to_owned(), source: Box::new(source) },
            closed: false,
        })?;
        Ok(Reply { data: envelope.data, total: envelope.total, peer })
    }
}

/// A failed exchange, and whether it was the connection that ended it.
struct Failed {
    error: ApiError,
    closed: bool,
}

/// Reads the data of an answer.
///
/// # Errors
/// [`ApiError::Malformed`] when it has another shape.
pub fn decode<T: DeserializeOwned>(request: &str, data: Value) -> Result<T, ApiError> {
    serde_json::from_value(data)
        .map_err(|source| ApiError::Malformed { request: request.to_owned(), source: Box::new(source) })
}

fn parse_url(text: &str) -> Result<Url, SetupError> {
    let fault = |why: &str| SetupError::Url { url: text.to_owned(), why: why.to_owned() };
    let trimmed = text.trim();
    let with_scheme = if trimmed.contains("://") { trimmed.to_owned() } else { format!("https://{trimmed}") };
    let url = Url::parse(&with_scheme).map_err(|error| fault(&error.to_string()))?;
    if url.scheme() != "https" {
        return Err(fault("it must begin with https://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(fault("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(SetupError::Url {
            url: "https://…".to_owned(),
            why: "credentials don't belong into it".to_owned(),
        });
    }
    if !matches!(url.path().trim_end_matches('/'), "" | "/api2" | "/api2/json") {
        return Err(fault("a path other than /api2/json is not supported"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_in_all_forms_that_packer_users_write() {
        for (text, host, port) in [
            ("https://pve1.example.org:8006", "pve1.example.org", Some(8006)),
            ("https://pve1.example.org:8006/", "pve1.example.org", Some(8006)),
            ("https://10.0.0.5:8006/api2/json", "10.0.0.5", Some(8006)),
            ("https://[::1]:8007/api2/json/", "[::1]", Some(8007)),
            ("pve1", "pve1", None),
        ] {
            let url = parse_url(text).expect(text);
            assert_eq!((url.host_str(), url.port()), (Some(host), port), "{text}");
        }
        for text in ["", "http://pve1:8006", "https://", "https://pve1/other", "https://me:pw@pve1:8006"] {
            let error = parse_url(text).expect_err(text).to_string();
            assert!(!error.contains("pw"), "{error}");
        }
    }
}
