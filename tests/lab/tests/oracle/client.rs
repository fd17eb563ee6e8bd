//! A raw HTTP/1.1 client over TLS: it shows status line, headers and body as they came, and can send what a good
//! client would not.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use forge_lab::Lab;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Talks to one lab with one token.
#[derive(Clone)]
pub struct Client {
    pub address: std::net::SocketAddr,
    pub tls: Arc<ClientConfig>,
    pub token: Option<String>,
    /// Ticket and the token against forgery that goes with it.
    pub cookie: Option<(String, String)>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub reason: String,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// `STATUS REASON`, as the transcripts write it.
    pub fn line(&self) -> String {
        format!("{} {}", self.status, self.reason)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    pub fn data(&self) -> Value {
        self.json()["data"].clone()
    }
}

impl Client {
    /// A client that trusts the lab's authority.
    pub fn new(lab: &Lab, id: &str, secret: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(lab.ca_pem().as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let token = Some(format!("PVEAPIToken={id}={secret}"));
        Ok(Client { address: lab.address(), tls: Arc::new(tls), token, cookie: None })
    }

    pub async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::IpAddress(self.address.ip().into());
        Ok(TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?)
    }

    /// The head of a request with the token.
    pub fn head(&self, method: &str, path: &str, more: &str) -> String {
        let token =
            self.token.as_ref().map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
        let cookie = self.cookie.as_ref().map(|(ticket, csrf)| {
            format!("Cookie: PVEAuthCookie={ticket}\r\nCSRFPreventionToken: {csrf}\r\n")
        });
        let cookie = cookie.unwrap_or_default();
        format!("{method} /api2/json{path} HTTP/1.1\r\nHost: {}\r\n{token}{cookie}{more}\r\n", self.address)
    }

    /// Sends bytes on a connection of their own and reads one answer.
    pub async fn send(&self, bytes: &[u8]) -> anyhow::Result<Reply> {
        let mut stream = self.connect().await?;
        stream.write_all(bytes).await?;
        let (head, rest) = read_head(&mut stream).await?;
        let length = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = rest;
        while body.len() < length {
            let mut buffer = vec![0; 16 << 10];
            match stream.read(&mut buffer).await? {
                0 => break,
                read => body.extend(&buffer[..read]),
            }
        }
        let first = head.lines().next().unwrap_or_default();
        let mut words = first.splitn(3, ' ').skip(1);
        let status = words.next().and_then(|text| text.parse().ok()).context("no status")?;
        let reason = words.next().unwrap_or_default().to_owned();
        Ok(Reply { status, reason, head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// A call whose `form` goes into the body as it is (POST, PUT) or is empty.
    pub async fn call(&self, method: &str, path: &str, form: &str) -> anyhow::Result<Reply> {
        let kind =
            if form.starts_with('{') { "application/json" } else { "application/x-www-form-urlencoded" };
        let more = match method {
            "POST" | "PUT" => format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", form.len()),
            _ => String::new(),
        };
        self.send(format!("{}{form}", self.head(method, path, &more)).as_bytes()).await
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.call("GET", path, "").await
    }

    /// Waits for a task's end: its exit status and its log.
    pub async fn task(&self, reply: &Reply) -> anyhow::Result<(String, Vec<String>)> {
        self.task_of(reply.data().as_str().with_context(|| format!("no task: {reply:?}"))?).await
    }

    /// As [`Client::task`], by the task's identifier.
    pub async fn task_of(&self, upid: &str) -> anyhow::Result<(String, Vec<String>)> {
        // A disk that becomes another VM's has `>` in its task's name.
        let upid = upid.replace('>', "%3E");
        let node = upid.split(':').nth(1).unwrap_or_default();
        for _ in 0..3000 {
            let status = self.get(&format!("/nodes/{node}/tasks/{upid}/status")).await?.data();
            if status["status"] == "stopped" {
                let log = self.get(&format!("/nodes/{node}/tasks/{upid}/log?limit=0")).await?.data();
                let lines = log
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|line| line["t"].as_str().unwrap_or_default().to_owned());
                return Ok((status["exitstatus"].as_str().unwrap_or_default().to_owned(), lines.collect()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("{upid} does not end")
    }

    /// A call that starts a task, and its exit status.
    pub async fn done(&self, method: &str, path: &str, form: &str) -> anyhow::Result<String> {
        let reply = self.call(method, path, form).await?;
        if reply.status != 200 {
            return Ok(reply.line());
        }
        Ok(self.task(&reply).await?.0)
    }
}

/// Reads up to the empty line; what came after it is returned too.
pub async fn read_head(stream: &mut TlsStream<TcpStream>) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        let mut buffer = vec![0; 16 << 10];
        match stream.read(&mut buffer).await? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no answer")),
            read => bytes.extend(&buffer[..read]),
        }
    }
}

/// A header's value.
pub fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}
