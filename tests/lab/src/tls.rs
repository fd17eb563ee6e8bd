//! The cluster's certificate authority and the node's certificate, made at each start.

use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

/// What the lab shows of itself over TLS.
#[derive(Debug)]
pub struct Identity {
    /// The authority's certificate; vncproxy returns it as `cert`.
    pub ca_pem: String,
    /// SHA-256 of the node's certificate, upper-case hex with colons.
    pub fingerprint: String,
    /// For the listener.
    pub server: Arc<ServerConfig>,
}

impl Identity {
    /// Makes both certificates; the node's names are `127.0.0.1`, `::1`, `localhost` and the nodes.
    ///
    /// # Errors
    /// The certificates can't be made.
    pub fn generate(nodes: &[String]) -> anyhow::Result<Self> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "Proxmox Virtual Environment");
        authority.distinguished_name.push(DnType::OrganizationalUnitName, crate::ids::uuid());
        authority.distinguished_name.push(DnType::OrganizationName, "PVE Cluster Manager CA");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let mut names = vec!["127.0.0.1".to_owned(), "::1".to_owned(), "localhost".to_owned()];
        names.extend(nodes.iter().cloned());
        let mut leaf = CertificateParams::new(names)?;
        leaf.distinguished_name.push(DnType::OrganizationalUnitName, "PVE Cluster Node");
        leaf.distinguished_name.push(DnType::OrganizationName, "Proxmox Virtual Environment");
        leaf.distinguished_name.push(DnType::CommonName, nodes.first().map_or("pve", String::as_str));
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &authority)?;

        let digest = Sha256::digest(certificate.der());
        let fingerprint: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("no TLS versions")?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .context("the lab's certificate is not usable")?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Identity { ca_pem: authority.pem(), fingerprint: fingerprint.join(":"), server: Arc::new(server) })
    }
}
