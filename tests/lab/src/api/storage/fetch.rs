//! A small HTTP client for `download-url` and `query-url-metadata`: HTTP and HTTPS, redirections, no proxies.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How many redirections are followed.
const REDIRECTIONS: usize = 5;

/// What a server said first.
pub struct Head {
    /// `404 Not Found`.
    pub line: String,
    /// Whether it was 200.
    pub good: bool,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// `Content-Type`.
    pub kind: Option<String>,
    /// File name of `Content-Disposition`.
    pub name: Option<String>,
}

/// Asks for a URL and follows redirections.
///
/// # Errors
/// The server can't be reached or speaks no HTTP.
pub async fn ask(method: Method, url: &str, verify: bool) -> Result<(Head, Incoming), String> {
    let mut url = url.to_owned();
    for _ in 0..=REDIRECTIONS {
        let response = once(method.clone(), &url, verify).await?;
        let header = |name: header::HeaderName| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        if response.status().is_redirection()
            && let Some(target) = header(header::LOCATION)
        {
            url = if target.starts_with('/') {
                let base: Uri = url.parse().map_err(|error| format!("{error}"))?;
                format!(
                    "{}://{}{target}",
                    base.scheme_str().unwrap_or("http"),
                    base.authority().map_or("", |a| a.as_str())
                )
            } else {
                target
            };
            continue;
        }
        let reason = response.extensions().get::<hyper::ext::ReasonPhrase>();
        let reason = match reason {
            Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
            None => response.status().canonical_reason().unwrap_or_default().to_owned(),
        };
        let head = Head {
            line: format!("{} {reason}", response.status().as_u16()),
            good: response.status().as_u16() == 200,
            length: header(header::CONTENT_LENGTH).and_then(|text| text.parse().ok()),
            kind: header(header::CONTENT_TYPE),
            name: header(header::CONTENT_DISPOSITION).and_then(|text| {
                let name = text.split("filename=").nth(1)?;
                Some(name.trim_matches(|c| c == '"' || c == ';').to_owned())
            }),
        };
        return Ok((head, response.into_body()));
    }
    Err("too many redirections".to_owned())
}

/// Writes a body into a file and returns its length.
///
/// # Errors
/// The connection breaks, or the file can't be written.
pub async fn save(mut body: Incoming, to: &Path) -> Result<u64, String> {
    let mut file = tokio::fs::File::create(to).await.map_err(|error| error.to_string())?;
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let Ok(bytes) = frame.into_data() else { continue };
        file.write_all(&bytes).await.map_err(|error| error.to_string())?;
        length += bytes.len() as u64;
    }
    file.flush().await.map_err(|error| error.to_string())?;
    Ok(length)
}

async fn once(method: Method, url: &str, verify: bool) -> Result<Response<Incoming>, String> {
    let uri: Uri = url.parse().map_err(|error| format!("unable to parse URL '{url}': {error}"))?;
    let host = uri.host().ok_or_else(|| format!("no host in URL '{url}'"))?.to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let plain_host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream = TcpStream::connect((plain_host.as_str(), port))
        .await
        .map_err(|error| format!("Can't connect to {host}:{port} ({error})"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, uri.authority().map_or(host.as_str(), |authority| authority.as_str()))
        .header(header::USER_AGENT, "forge-lab")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    if secure {
        let name = ServerName::try_from(plain_host).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(tls(verify)?));
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        send(stream, request).await
    } else {
        send(stream, request).await
    }
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    // It ends with the body, or with the task that reads it.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|error| error.to_string())
}

fn tls(verify: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if !verify {
        let anyone = Arc::new(Anyone(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `verify-certificates=0`: any certificate is good.
#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
