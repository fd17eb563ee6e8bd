//! Which certificate an API shows, before anything is sent to it.

use thiserror::Error;

use super::Cause;
use crate::api::client::SetupError;
use crate::api::endpoint::Endpoints;
use crate::api::proxy::Proxies;
use crate::api::tls::{Fingerprint, client_config};
use crate::config::{ProxmoxConfig, TlsChoice};

/// How long it may take to be shown one.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(15);

/// No certificate was shown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The address or proxy can't be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Nobody answers there, or not with TLS.
    #[error("{origin} can't be reached")]
    Unreachable {
        /// `https://host:port`.
        origin: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The connection tells no certificate.
    #[error("{origin} shows no certificate")]
    None {
        /// `https://host:port`.
        origin: String,
    },
}

/// The SHA-256 fingerprint of the certificate that is shown at a target's first address. Any certificate is accepted for
/// that, so nothing but a request for the page's head is sent. May be dropped.
///
/// # Errors
/// When no certificate is shown there.
pub async fn certificate(config: &ProxmoxConfig) -> Result<Fingerprint, CertificateError> {
    let endpoints = Endpoints::new(config, &Proxies::new(&config.proxy))?;
    let endpoint = endpoints.current().1;
    let origin = endpoint.origin.clone();
    let unreachable = |source: Cause| CertificateError::Unreachable { origin: origin.clone(), source };
    let tls = client_config(&TlsChoice::Insecure).map_err(SetupError::Tls)?;
    let mut http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .tls_info(true)
        .hickory_dns(true)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(LIMIT);
    if let Some(proxy) = crate::api::client::proxy(&endpoints) {
        http = http.proxy(proxy);
    }
    let http = http.build().map_err(SetupError::Http)?;
    // A call that needs no login.
    let request = http.get(format!("{origin}/api2/json/access/domains"));
    let response = request.send().await.map_err(|error| unreachable(Box::new(error.without_url())))?;
    let info = response.extensions().get::<reqwest::tls::TlsInfo>();
    let shown = info.and_then(reqwest::tls::TlsInfo::peer_certificate);
    let shown = shown.ok_or_else(|| CertificateError::None { origin: origin.clone() })?;
    Ok(Fingerprint::of(&rustls::pki_types::CertificateDer::from(shown)))
}
