//! What goes over the wire, and answers that the lab does not give: a server of a few lines that says what it is told.

use std::sync::{Arc, Mutex};

use forge_machine::{Hypervisor as _, PortError, VmRef};
use forge_proxmox::api::encode::Params;
use forge_proxmox::{ProxmoxConfig, ProxmoxHypervisor, TlsChoice};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Shows one certificate, whether the key fits it or not.
#[derive(Debug)]
struct Shows(Arc<rustls::sign::CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

struct Server {
    url: String,
    fingerprint: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers request after request with the given bytes; an empty answer closes the connection.
    async fn start(answers: &[&str], own_key: bool) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
        let key = if own_key { signing_key } else { KeyPair::generate().expect("made") };
        let certificate = CertificateDer::from(cert.der().to_vec());
        let fingerprint = forge_proxmox::api::tls::Fingerprint::of(&certificate).to_string();
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let signing = ring::sign::any_supported_type(&private).expect("a signing key");
        let shown = Arc::new(rustls::sign::CertifiedKey::new(vec![certificate], signing));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shows(shown)));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("bound"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, mut answers) = (
            Arc::clone(&seen),
            answers.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>().into_iter(),
        );
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                while let Some(request) = read_request(&mut tls).await {
                    log.lock().expect("whole").push(request);
                    let answer = answers.next().unwrap_or_default();
                    if answer.is_empty() || tls.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                    tls.flush().await.expect("flushed");
                    if answer.contains("Connection: close") {
                        break;
                    }
                }
            }
        });
        Self { url, fingerprint, seen }
    }

    fn client(&self) -> ProxmoxHypervisor {
        ProxmoxHypervisor::connect(ProxmoxConfig {
            target: "raw".into(),
            url: self.url.clone(),
            more_urls: Vec::new(),
            proxy: forge_proxmox::ProxyChoice::None,
            token_id: "forge@pve!build".into(),
            role: None,
            token_secret: "s3cr3t".into(),
            tls: TlsChoice::Fingerprint(self.fingerprint.clone()),
            nodes: Vec::new(),
            disk_storage: None,
            iso_storage: None,
            bridge: None,
        })
        .expect("sound settings")
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("whole").clone()
    }
}

/// Reads a request with its body; `None` at the end of the connection.
async fn read_request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().to_owned())
                })
                .map_or(0, |n| n.parse().expect("a number"));
            if body.len() >= length {
                return Some(text);
            }
        }
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => return None,
        }
    }
}

const NOTHING: &str = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"data\":null}";

#[tokio::test]
async fn requests_keep_the_rules_of_pveproxy() {
    let server = Server::start(&[NOTHING; 4], true).await;
    let pve = server.client();
    let params = Params::new().with("boot", "order=scsi0;net0").with("purge", 1);
    pve.client().get::<serde_json::Value>("/x", &params).await.expect("answered");
    pve.client().delete("/x", &params).await.expect("answered");
    pve.client().put("/x", &params).await.expect("answered");
    pve.client().post("/x", &Params::new()).await.expect("answered");
    let seen: Vec<String> = server.seen().iter().map(|text| text.to_ascii_lowercase()).collect();
    for (text, line) in seen.iter().zip([
        "get /api2/json/x?boot=order%3dscsi0%3bnet0&purge=1 http/1.1",
        "delete /api2/json/x?boot=order%3dscsi0%3bnet0&purge=1 http/1.1",
        "put /api2/json/x http/1.1",
        "post /api2/json/x http/1.1",
    ]) {
        assert!(text.starts_with(line), "{text}");
        assert!(text.contains("authorization: pveapitoken=forge@pve!build=s3cr3t\r\n"), "{text}");
        assert!(!text.contains("chunked"), "{text}");
        let has_length = text.contains("content-length:");
        assert_eq!(has_length, line.starts_with("put") || line.starts_with("post"), "{text}");
    }
    assert!(seen[2].ends_with("\r\n\r\nboot=order%3dscsi0%3bnet0&purge=1"), "{}", seen[2]);
    assert!(seen[3].contains("content-length: 0"), "{}", seen[3]);
}

#[tokio::test]
async fn the_reason_phrase_is_read_where_the_body_says_nothing() {
    // As PVE 7 and early 8 answer.
    let locked =
        "HTTP/1.1 500 VM is locked (clone)\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{\"data\":null}";
    let missing = "HTTP/1.1 500 Configuration file 'nodes/pve/qemu-server/9000.conf' does not exist\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{\"data\":null}";
    let server = Server::start(&[locked, missing], true).await;
    let machine = server.client().machine(&VmRef::new("9000", "pve"));
    let error = machine.state().await.expect_err("locked");
    assert!(matches!(&error, PortError::Locked { lock, .. } if lock == "clone"), "{error:?}");
    let error = machine.state().await.expect_err("missing");
    assert_eq!(error.to_string(), "VM 9000 on pve does not exist");
}

#[tokio::test]
async fn a_change_is_never_sent_twice_by_the_client_and_a_read_once_more() {
    let server = Server::start(&["", NOTHING, ""], true).await;
    let pve = server.client();
    pve.client().get::<serde_json::Value>("/read", &Params::new()).await.expect("asked again");
    let error = pve.client().post("/write", &Params::new()).await.expect_err("cut off");
    assert!(error.at("write").is_outcome_unknown());
    let lines: Vec<String> =
        server.seen().iter().map(|text| text.lines().next().unwrap_or_default().to_owned()).collect();
    assert_eq!(
        lines,
        ["GET /api2/json/read HTTP/1.1", "GET /api2/json/read HTTP/1.1", "POST /api2/json/write HTTP/1.1"]
    );
}

#[tokio::test]
async fn the_pinned_certificate_is_worth_nothing_without_its_key() {
    let server = Server::start(&[NOTHING], false).await;
    let error =
        server.client().client().get::<serde_json::Value>("/x", &Params::new()).await.expect_err("refused");
    assert!(matches!(error.at("look"), PortError::Unreachable { .. } | PortError::Untrusted { .. }));
    assert!(server.seen().is_empty(), "no token was sent");
}
