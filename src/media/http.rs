//! How forge speaks with the web: certificates of this machine's roots, proxies of the environment (`https_proxy`,
//! `no_proxy`, …), no packing on the way, and patience by progress instead of by the clock.

use std::error::Error as _;
use std::time::Duration;

use forge_machine::Location;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Client, Response, StatusCode};

use super::error::MediaError;
use super::shown;

/// How long things may take. Nothing limits how long a download lasts in all.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Name, TCP and TLS together.
    pub connect: Duration,
    /// How long nothing may come.
    pub stall: Duration,
    /// How often in a row a download is tried that gets no further.
    pub tries: u32,
    /// The pause before the second try; each further one is twice as long.
    pub pause: Duration,
    /// How long a server may take to say how large a file is.
    pub probe: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            stall: Duration::from_secs(60),
            tries: 5,
            pause: Duration::from_millis(500),
            probe: Duration::from_secs(5),
        }
    }
}

/// The client for everything. Nothing is sent.
///
/// # Errors
/// When TLS can't be set up.
pub(super) fn client(patience: &Patience) -> Result<Client, MediaError> {
    let mut roots = rustls::RootCertStore::empty();
    // A machine without roots can still read http:// and is told so by name when it asks for https://.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| MediaError::Setup(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .hickory_dns(true)
        .connect_timeout(patience.connect)
        .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| MediaError::Setup(innermost(&error)))
}

/// The words of the last cause, which says most.
fn innermost(error: &reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words = cause.to_string();
        next = cause.source();
    }
    words
}

/// A broken exchange in our words.
pub(super) fn broken(url: &str, error: &reqwest::Error) -> MediaError {
    let url = shown(url);
    let detail = innermost(error);
    if detail.contains("certificate") {
        return MediaError::Untrusted { url, detail };
    }
    let what = if error.is_connect() {
        "no connection: "
    } else if error.is_redirect() {
        "redirected too often: "
    } else if error.is_timeout() {
        "it took too long: "
    } else {
        ""
    };
    MediaError::Unreachable { url, detail: format!("{what}{detail}") }
}

/// A refusal in our words.
pub(super) fn refused(url: &str, status: StatusCode) -> MediaError {
    let advice = match status.as_u16() {
        404 | 410 => ": the publisher has removed or renamed it; look for its new address",
        401 | 403 => ": it needs a login, or is not for everybody",
        407 => ": the proxy of the environment wants a login",
        _ => "",
    };
    MediaError::Status { url: shown(url), status: status.to_string(), advice }
}

/// Refuses what is packed: its bytes are not those that the checksum is of.
pub(super) fn as_it_is(url: &str, headers: &HeaderMap) -> Result<(), MediaError> {
    let encoding = headers.get(CONTENT_ENCODING).map(|value| String::from_utf8_lossy(value.as_bytes()));
    match encoding {
        Some(encoding) if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") => {
            Err(MediaError::Encoded { url: shown(url), encoding: encoding.into_owned() })
        }
        _ => Ok(()),
    }
}

/// `bytes 100-199/200`: the first byte, and the size of the whole. `bytes */200` has no first byte.
pub(super) fn content_range(headers: &HeaderMap) -> Option<(Option<u64>, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes")?.trim();
    let (range, total) = text.split_once('/')?;
    let first = range.split_once('-').and_then(|(first, _)| first.trim().parse().ok());
    Some((first, total.trim().parse().ok()))
}

/// Asks how large a file is: HEAD, and where a server does not know that, for its first byte.
pub(super) async fn probe(client: &Client, url: &str, limit: Duration) -> Result<Option<u64>, MediaError> {
    let ask = async {
        let head = client.head(url).header(ACCEPT_ENCODING, "identity").send().await;
        let head = head.map_err(|error| broken(url, &error))?;
        let status = head.status();
        if status.is_success()
            && let Some(length) = length(&head)
        {
            return Ok(Some(length));
        }
        // Servers and signed addresses that know nothing but GET.
        let get = client.get(url).header(ACCEPT_ENCODING, "identity").header(RANGE, "bytes=0-0").send().await;
        let get = get.map_err(|error| broken(url, &error))?;
        if !get.status().is_success() {
            return Err(refused(url, get.status()));
        }
        Ok(match content_range(get.headers()) {
            Some((_, total)) => total,
            None => length(&get),
        })
    };
    match tokio::time::timeout(limit, ask).await {
        Ok(result) => result,
        Err(_elapsed) => Err(MediaError::Stalled { url: shown(url), seconds: limit.as_secs(), done: 0 }),
    }
}

/// The length that the header names; of a HEAD, whose body is empty, too.
pub(super) fn length(response: &Response) -> Option<u64> {
    response.headers().get(reqwest::header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// The URL of a medium that is downloaded.
#[must_use]
pub fn url_of(location: &Location) -> Option<&str> {
    match location {
        Location::Url(url) => Some(url),
        Location::File(_) | Location::Volume(_) => None,
    }
}
