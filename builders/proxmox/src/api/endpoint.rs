//! Where the API is: one or several endpoints of a cluster, one of which is used until it can't be reached.
//!
//! Every node of a cluster answers for all of it, so any endpoint does; a ticket or token is good on all of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Url;

use super::client::SetupError;
use super::proxy::{Proxies, Tunnel};
use crate::config::ProxmoxConfig;

/// Proxmox VE's port.
const DEFAULT_PORT: u16 = 8006;

/// One address of the API.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `https://host:port`.
    pub origin: String,
    /// The host; an IPv6 address has its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The target by name and address, for messages.
    pub peer: String,
    /// The proxy on the way.
    pub tunnel: Option<Tunnel>,
}

impl Endpoint {
    fn new(target: &str, text: &str, proxies: &Proxies) -> Result<Self, SetupError> {
        let url = parse_url(text)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        // The parser leaves https' own port out; whoever wrote it (a reverse proxy) means it.
        let says_443 = text.contains(&format!("{host}:443"));
        let port = url.port().unwrap_or(if says_443 { 443 } else { DEFAULT_PORT });
        let origin = format!("https://{host}:{port}");
        let tunnel = proxies.to(&origin)?;
        let by = tunnel.as_ref().map_or_else(String::new, |tunnel| format!(" by the proxy {tunnel}"));
        let peer = format!("target `{target}` ({origin}{by})");
        Ok(Self { origin, host, port, peer, tunnel })
    }

    /// `host:port`.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// All endpoints of a target.
#[derive(Debug)]
pub struct Endpoints {
    all: Vec<Endpoint>,
    current: AtomicUsize,
}

impl Endpoints {
    /// Reads those of a target. Asks nobody.
    ///
    /// # Errors
    /// When there is none, or one is no URL of an API.
    pub fn new(config: &ProxmoxConfig, proxies: &Proxies) -> Result<Self, SetupError> {
        let urls = std::iter::once(&config.url).chain(&config.more_urls);
        let all = urls.map(|url| Endpoint::new(&config.target, url, proxies));
        Ok(Self { all: all.collect::<Result<_, _>>()?, current: AtomicUsize::new(0) })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// The one that is used now, and its number.
    #[must_use]
    pub fn current(&self) -> (usize, &Endpoint) {
        let number = self.current.load(Ordering::Relaxed) % self.all.len();
        (number, &self.all[number])
    }

    /// Takes the next one from now on, unless somebody else has left this one already.
    pub fn leave(&self, number: usize) {
        let next = (number + 1) % self.all.len();
        let left = self.current.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
        tracing::debug!(left = left.is_ok(), next, "an endpoint does not answer");
    }

    /// The one of an origin.
    #[must_use]
    pub fn all(&self) -> &[Endpoint] {
        &self.all
    }
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
