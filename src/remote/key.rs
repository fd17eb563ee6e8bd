//! The ed25519 key that is made for one build and removed from the guest when sealing.

use std::fmt;
use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The comment of every build key: by it the seal stage finds the key's lines in `authorized_keys` files.
pub const BUILD_KEY_COMMENT: &str = "forge-build";

/// A key could not be made or read.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct KeyError {
    what: &'static str,
    #[source]
    source: russh::keys::ssh_key::Error,
}

/// An SSH key pair.
#[derive(Clone)]
pub struct BuildKey {
    private: Arc<PrivateKey>,
    public: String,
    pem: String,
}

impl BuildKey {
    /// Makes a new ed25519 key from the system's random numbers.
    ///
    /// # Errors
    /// When the key can't be encoded, which does not happen to an ed25519 key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)
            .map_err(|source| KeyError { what: "the build's key could not be made", source })?;
        key.set_comment(BUILD_KEY_COMMENT);
        Self::wrap(key)
    }

    /// Reads a private key in OpenSSH's PEM form, without a passphrase.
    ///
    /// # Errors
    /// When the text is no such key.
    pub fn from_openssh(text: &str) -> Result<Self, KeyError> {
        let key = PrivateKey::from_openssh(text)
            .map_err(|source| KeyError { what: "the text is not a private key in OpenSSH form", source })?;
        Self::wrap(key)
    }

    fn wrap(key: PrivateKey) -> Result<Self, KeyError> {
        let failed = |source| KeyError { what: "the key could not be written in OpenSSH form", source };
        let public = key.public_key().to_openssh().map_err(failed)?;
        let pem = key.to_openssh(LineEnding::LF).map_err(failed)?.to_string();
        Ok(Self { private: Arc::new(key), public, pem })
    }

    /// The public key as one line of `authorized_keys`: `ssh-ed25519 AAAA… forge-build`.
    #[must_use]
    pub fn public_openssh(&self) -> &str {
        &self.public
    }

    /// The private key in OpenSSH's PEM form. A secret.
    #[must_use]
    pub fn private_openssh(&self) -> &str {
        &self.pem
    }

    /// The password by which the build logs in to the serial console, when it makes the user itself: it follows from the
    /// private key, so that whoever goes on with a build knows it too. A secret; letters and digits.
    #[must_use]
    pub fn console_password(&self) -> String {
        let digest = Sha256::new().chain_update("forge console\0").chain_update(&self.pem).finalize();
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The password of the user whom an unattended Windows makes, which follows from the private key likewise. A secret;
    /// it has a letter of each class that Windows' rule for passwords asks for.
    #[must_use]
    pub fn windows_password(&self) -> String {
        format!("A-{}z", self.console_password())
    }

    pub(super) fn private(&self) -> Arc<PrivateKey> {
        self.private.clone()
    }
}

impl fmt::Debug for BuildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildKey").field("public", &self.public).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written_and_read_and_never_shows_its_private_part() {
        let key = BuildKey::generate().unwrap();
        assert!(key.public_openssh().starts_with("ssh-ed25519 AAAA"));
        assert!(key.public_openssh().ends_with(" forge-build"));
        let again = BuildKey::from_openssh(key.private_openssh()).unwrap();
        assert_eq!(again.public_openssh(), key.public_openssh());
        assert_eq!(again.console_password(), key.console_password());
        assert_eq!(key.console_password().len(), 32);
        let secret = key.private_openssh().lines().nth(2).unwrap();
        assert!(!format!("{key:?}").contains(secret));
        assert_ne!(BuildKey::generate().unwrap().public_openssh(), key.public_openssh());
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        assert!(BuildKey::from_openssh("ssh-ed25519 AAAA").is_err());
    }
}
