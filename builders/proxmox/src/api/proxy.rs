//! Proxies on the way to the API: those that the environment names, the one that the site file names, or none.
//!
//! HTTP proxies only, by `CONNECT`: TLS goes through from end to end, so a proxy sees neither token nor traffic.

use std::fmt;
use std::io;

use http::HeaderValue;
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::SetupError;
use crate::config::ProxyChoice;

/// How long the head of a proxy's answer may be.
const LONGEST_HEAD: usize = 8 << 10;
/// The port of a proxy whose address names none.
const DEFAULT_PORT: u16 = 80;

/// Which proxy leads where.
pub struct Proxies {
    matcher: Option<Matcher>,
    /// Whether there has to be one.
    named: Option<String>,
}

/// The way through a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Tunnel {
    host: String,
    port: u16,
    auth: Option<HeaderValue>,
}

impl Proxies {
    /// Reads the choice, and the environment where it says so (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, in lower case too).
    #[must_use]
    pub fn new(choice: &ProxyChoice) -> Self {
        match choice {
            ProxyChoice::None => Self { matcher: None, named: None },
            ProxyChoice::Environment => Self { matcher: Some(Matcher::from_env()), named: None },
            ProxyChoice::Url(url) => {
                let matcher = Matcher::builder().all(url.as_str()).build();
                Self { matcher: Some(matcher), named: Some(url.clone()) }
            }
        }
    }

    /// The proxy on the way to an origin.
    ///
    /// # Errors
    /// When it is no HTTP proxy.
    pub fn to(&self, origin: &str) -> Result<Option<Tunnel>, SetupError> {
        let fault = |why: &str| SetupError::Proxy { why: why.to_owned() };
        let found = match (&self.matcher, origin.parse::<http::Uri>()) {
            (Some(matcher), Ok(uri)) => matcher.intercept(&uri),
            _ => None,
        };
        let Some(found) = found else {
            return match &self.named {
                Some(_) => Err(fault("its address is no URL; write http://HOST:PORT")),
                None => Ok(None),
            };
        };
        let uri = found.uri();
        if uri.scheme_str() != Some("http") {
            return Err(fault(
                "only proxies at http:// addresses are supported; through them goes TLS all the same",
            ));
        }
        let host = uri.host().ok_or_else(|| fault("its address names no host"))?.to_owned();
        let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
        Ok(Some(Tunnel { host, port, auth: found.basic_auth().cloned() }))
    }
}

impl Tunnel {
    /// For the HTTP library.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    /// The login at the proxy.
    #[must_use]
    pub fn auth(&self) -> Option<&HeaderValue> {
        self.auth.as_ref()
    }

    /// Asks the proxy at the other end of a connection for the way to `authority`.
    ///
    /// # Errors
    /// When the proxy refuses, with its words, or does not speak HTTP.
    pub async fn open(&self, mut stream: TcpStream, authority: &str) -> io::Result<TcpStream> {
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
        if let Some(auth) = &self.auth {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(auth.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await?;
        let mut head = Vec::new();
        // Byte by byte: what comes after the head is the server's.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= LONGEST_HEAD {
                return Err(io::Error::other("the proxy's answer is no HTTP"));
            }
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let line = head.lines().next().unwrap_or_default().to_owned();
        if line.starts_with("HTTP/1.") && line.split(' ').nth(1).is_some_and(|status| status.starts_with('2'))
        {
            return Ok(stream);
        }
        Err(io::Error::other(format!("the proxy {self} refused: {line}")))
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_that_is_named_is_taken_and_its_login_never_shown() {
        let named = |url: &str| Proxies::new(&ProxyChoice::Url(url.to_owned())).to("https://pve1:8006");
        let tunnel = named("http://me:s3cret@proxy.example:3128").expect("sound").expect("a proxy");
        assert_eq!(tunnel.url(), "http://proxy.example:3128");
        assert!(tunnel.auth().is_some_and(HeaderValue::is_sensitive));
        assert!(!format!("{tunnel:?} {tunnel}").contains("s3cret"));
        for url in ["", "socks5://proxy:1080", "https://proxy:3128"] {
            assert!(named(url).is_err(), "{url}");
        }
        assert_eq!(Proxies::new(&ProxyChoice::None).to("https://pve1:8006").ok(), Some(None));
    }
}
