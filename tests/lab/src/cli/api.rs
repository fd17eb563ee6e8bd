//! A client of Proxmox's API for the demo, as small as a person's script: it trusts the lab's authority, sends a token,
//! and waits for tasks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Lab;

/// How often a task is asked about.
const POLL: Duration = Duration::from_millis(200);

/// A client of one lab with one token.
pub struct Api {
    address: std::net::SocketAddr,
    tls: TlsConnector,
    token: String,
}

impl Api {
    /// A client; `token` is `USER@REALM!NAME=SECRET`.
    ///
    /// # Errors
    /// The lab's certificate can't be read.
    pub fn new(lab: &Lab, token: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(
            CertificateDer::from_pem_slice(lab.ca_pem().as_bytes()).map_err(|error| anyhow!("{error:?}"))?,
        )?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            address: lab.address(),
            tls: TlsConnector::from(Arc::new(config)),
            token: token.to_owned(),
        })
    }

    /// Calls `METHOD /api2/json/PATH` with form parameters and returns the answer's `data`.
    ///
    /// # Errors
    /// The lab can't be reached or refuses; the message holds its status line and its body.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> anyhow::Result<Value> {
        let what = format!("{method} {path}");
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::from(self.address.ip());
        let stream = self.tls.connect(name, stream).await.context("TLS to the lab")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("/api2/json/{path}"))
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, format!("PVEAPIToken={}", self.token))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form(parameters))))?;
        let response = sender.send_request(request).await.with_context(|| what.clone())?;
        let status = response.status();
        let reason =
            response.extensions().get::<hyper::ext::ReasonPhrase>().map(|reason| reason.as_bytes().to_vec());
        let body = response.into_body().collect().await?.to_bytes();
        driver.abort();
        if !status.is_success() {
            let reason = reason.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            bail!("{what}: {} {reason} {}", status.as_u16(), String::from_utf8_lossy(&body));
        }
        let mut answer: Value = serde_json::from_slice(&body).with_context(|| format!("{what}: no JSON"))?;
        Ok(answer["data"].take())
    }

    /// Calls what answers with a task, and waits for the task's success.
    ///
    /// # Errors
    /// As [`Api::call`]; or the task fails.
    pub async fn task(&self, method: Method, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<()> {
        let answer = self.call(method, path, parameters).await?;
        let upid = answer.as_str().with_context(|| format!("{path} answers with no task"))?;
        let node = upid.split(':').nth(1).context("a task's id without a node")?;
        let escaped = percent_encoding::utf8_percent_encode(upid, percent_encoding::NON_ALPHANUMERIC);
        loop {
            let state = self.call(Method::GET, &format!("nodes/{node}/tasks/{escaped}/status"), &[]).await?;
            if state["status"] == "stopped" {
                let result = state["exitstatus"].as_str().unwrap_or("unknown").to_owned();
                return if result == "OK" {
                    Ok(())
                } else {
                    Err(anyhow!("the task of {path} failed: {result}"))
                };
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The parameters as a form; Proxmox reads no chunked body and none at all on GET and DELETE.
fn form(parameters: &[(&str, &str)]) -> String {
    let escape = |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
    let pairs: Vec<String> =
        parameters.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
    pairs.join("&")
}
