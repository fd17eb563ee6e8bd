//! Which certificate is believed: the system's roots, a CA file, one pinned fingerprint, or any.
//!
//! Whatever the choice, the handshake's signature is checked, so a pinned certificate proves that the server holds
//! its key. A refusal carries the fingerprint that was seen, so that a user can compare and pin it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::config::TlsChoice;

/// A TLS setting that can't be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The fingerprint is not one.
    #[error("`{text}` is no SHA-256 fingerprint (64 hexadecimal digits, colons allowed)")]
    Fingerprint {
        /// What was given.
        text: String,
    },
    /// The CA file can't be read.
    #[error("the CA file {} can't be read", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// There is nothing in the CA file, or on the system, that could vouch for a server.
    #[error("no usable root certificate in {place}")]
    NoRoots {
        /// Where it was looked for.
        place: String,
    },
    /// rustls refuses the settings.
    #[error("TLS can't be set up")]
    Setup(#[source] rustls::Error),
    /// The verifier can't be made of the roots.
    #[error("the roots can't be used")]
    Verifier(#[source] rustls::client::VerifierBuilderError),
}

/// Why a server's certificate was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TrustError {
    /// It is not the pinned one.
    #[error("expected SHA-256 fingerprint {}, saw {seen}", any_of(expected))]
    Fingerprint {
        /// The pinned fingerprints.
        expected: Vec<Fingerprint>,
        /// The fingerprint of the certificate that was shown.
        seen: Fingerprint,
    },
    /// No root vouches for it.
    #[error("{reason}; its SHA-256 fingerprint is {seen}")]
    NotVouchedFor {
        /// What is wrong with it.
        reason: String,
        /// The fingerprint of the certificate that was shown.
        seen: Fingerprint,
    },
}

impl TrustError {
    /// The fingerprint of the certificate that was shown.
    #[must_use]
    pub fn seen(&self) -> Fingerprint {
        match self {
            Self::Fingerprint { seen, .. } | Self::NotVouchedFor { seen, .. } => *seen,
        }
    }
}

/// A certificate's SHA-256 fingerprint; shown as Proxmox shows it, in upper-case pairs with colons.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Reads 64 hexadecimal digits, in any case, with or without colons.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text
            .trim()
            .bytes()
            .filter(|byte| *byte != b':')
            .map(|byte| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect::<Option<_>>()?;
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Some(Self(bytes))
    }

    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug)]
enum Rule {
    Roots(Arc<WebPkiServerVerifier>),
    Pinned(Vec<Fingerprint>),
    Any,
}

/// The verifier behind all choices.
#[derive(Debug)]
struct Verifier {
    rule: Rule,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let seen = Fingerprint::of(end_entity);
        match &self.rule {
            Rule::Any => Ok(ServerCertVerified::assertion()),
            Rule::Pinned(expected) if expected.contains(&seen) => Ok(ServerCertVerified::assertion()),
            Rule::Pinned(expected) => {
                Err(refusal(TrustError::Fingerprint { expected: expected.clone(), seen }))
            }
            Rule::Roots(roots) => {
                roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).map_err(
                    |error| refusal(TrustError::NotVouchedFor { reason: reason(&error, server_name), seen }),
                )
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn refusal(error: TrustError) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn reason(error: &rustls::Error, name: &ServerName<'_>) -> String {
    match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::UnknownIssuer => "no trusted authority has issued it".to_owned(),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "it has expired".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("it is not made for `{}`", name.to_str())
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

/// Builds the TLS configuration that HTTP and websocket connections share.
///
/// # Errors
/// When the fingerprint is malformed, or no root certificate can be read.
pub fn client_config(choice: &TlsChoice) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let rule = match choice {
        TlsChoice::System => {
            let loaded = rustls_native_certs::load_native_certs();
            for error in &loaded.errors {
                tracing::debug!(%error, "a system root can't be read");
            }
            let place = "the system's certificate store (/etc/ssl)".to_owned();
            Rule::Roots(roots_verifier(loaded.certs, place, &provider)?)
        }
        TlsChoice::CaFile(path) => {
            let certs = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(|source| TlsError::CaFile { path: path.clone(), source })?;
            Rule::Roots(roots_verifier(certs, path.display().to_string(), &provider)?)
        }
        TlsChoice::Fingerprint(text) => Rule::Pinned(vec![pin(text)?]),
        TlsChoice::Fingerprints(texts) => {
            Rule::Pinned(texts.iter().map(|text| pin(text)).collect::<Result<_, _>>()?)
        }
        TlsChoice::Insecure => Rule::Any,
    };
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { rule, provider }))
        .with_no_client_auth();
    Ok(config)
}

fn pin(text: &str) -> Result<Fingerprint, TlsError> {
    Fingerprint::parse(text).ok_or_else(|| TlsError::Fingerprint { text: text.to_owned() })
}

fn any_of(fingerprints: &[Fingerprint]) -> String {
    let texts: Vec<String> = fingerprints.iter().map(Fingerprint::to_string).collect();
    texts.join(" or ")
}

fn roots_verifier(
    certs: Vec<CertificateDer<'static>>,
    place: String,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certs);
    if usable == 0 {
        return Err(TlsError::NoRoots { place });
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(TlsError::Verifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str =
        "DF:A2:A0:9C:71:51:B0:68:0D:C8:8F:39:53:68:63:3E:2E:77:01:9B:0B:35:D6:ED:31:87:CA:59:E2:CF:55:07";

    #[test]
    fn fingerprints_are_read_in_every_usual_form_and_shown_in_proxmoxs() {
        for text in [SHOWN.to_owned(), SHOWN.to_lowercase(), SHOWN.replace(':', ""), format!(" {SHOWN}\n")] {
            assert_eq!(Fingerprint::parse(&text).map(|f| f.to_string()).as_deref(), Some(SHOWN), "{text}");
        }
        for text in ["", "AB:CD", &SHOWN.replace('D', "G"), &format!("{SHOWN}:00")] {
            assert!(Fingerprint::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_setting_that_can_t_work_is_told_before_the_first_connection() {
        let directory = tempfile::tempdir().expect("tempdir");
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "").expect("written");
        for choice in [
            TlsChoice::Fingerprint("AB:CD".into()),
            TlsChoice::CaFile(directory.path().join("nosuch.pem")),
            TlsChoice::CaFile(empty),
        ] {
            assert!(client_config(&choice).is_err(), "{choice:?}");
        }
    }
}
