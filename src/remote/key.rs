//! The ed25519 key that is made for one build and removed from the guest when sealing.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{Algorithm, HashAlg, PrivateKey};
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

    /// What the private key's file is known by in the guest: its lines that hold nothing of the secret itself, and are in
    /// no other key's file. To look for the secret there would bring it there.
    #[must_use]
    pub fn telling_lines(&self) -> Vec<String> {
        self.lines(false)
    }

    /// The lines of the private key's file that hold the secret.
    #[must_use]
    pub fn secret_lines(&self) -> Vec<String> {
        self.lines(true)
    }

    /// The lines of the file with or without bytes of the secret; its first lines are the same in all keys of this kind, or
    /// hold the public key.
    fn lines(&self, secret: bool) -> Vec<String> {
        let lines: Vec<&str> = self.pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let bytes = STANDARD.decode(lines.concat()).unwrap_or_default();
        let seed = self.private.key_data().ed25519().map(|pair| pair.private.to_bytes()).unwrap_or_default();
        let held = bytes.windows(seed.len()).position(|window| window == seed);
        // Where it does not stand as expected, all of it is the secret.
        let held = held.map_or(0..bytes.len(), |at| at..at + seed.len());
        let mut at = 0;
        let mut found = Vec::new();
        for (number, line) in lines.into_iter().enumerate() {
            // Four letters are three bytes.
            let begin = at * 3 / 4;
            at += line.len();
            let holds = begin < held.end && held.start < (at * 3).div_ceil(4);
            if number >= 2 && holds == secret {
                found.push(line.to_owned());
            }
        }
        found
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

    /// The host key that the guest is given in its seed, so that it is known before it first answers: its private key in
    /// OpenSSH's form (a secret), its public key, and the fingerprint (`SHA256:…`). It follows from the build's private
    /// key likewise.
    ///
    /// # Errors
    /// When the key can't be encoded, which does not happen to an ed25519 key.
    pub fn host_key(&self) -> Result<GivenHostKey, KeyError> {
        let failed = |source| KeyError { what: "the guest's host key could not be made", source };
        let seed = Sha256::new().chain_update("forge host key\0").chain_update(&self.pem).finalize();
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed.into()));
        Ok(GivenHostKey {
            private: key.to_openssh(LineEnding::LF).map_err(failed)?.to_string(),
            public: key.public_key().to_openssh().map_err(failed)?,
            fingerprint: key.public_key().fingerprint(HashAlg::Sha256).to_string(),
        })
    }

    pub(super) fn private(&self) -> Arc<PrivateKey> {
        self.private.clone()
    }
}

/// A host key that a guest is given, see [`BuildKey::host_key`].
pub struct GivenHostKey {
    /// The private key in OpenSSH's PEM form. A secret.
    pub private: String,
    /// The public key, `ssh-ed25519 AAAA…`.
    pub public: String,
    /// What the guest shows: `SHA256:…`.
    pub fingerprint: String,
}

impl fmt::Debug for GivenHostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GivenHostKey").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl fmt::Debug for BuildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildKey").field("public", &self.public).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD_NO_PAD;

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
        let (given, same) = (key.host_key().unwrap(), again.host_key().unwrap());
        assert_eq!((&given.private, &given.fingerprint), (&same.private, &same.fingerprint));
        let read = PrivateKey::from_openssh(&given.private).unwrap();
        assert_eq!(read.public_key().fingerprint(HashAlg::Sha256).to_string(), given.fingerprint);
        assert!(given.public.starts_with("ssh-ed25519 AAAA") && !format!("{given:?}").contains("PRIVATE"));
        let secret = key.private_openssh().lines().nth(2).unwrap();
        assert!(!format!("{key:?}").contains(secret));
        assert_ne!(BuildKey::generate().unwrap().public_openssh(), key.public_openssh());
    }

    #[test]
    fn a_private_key_s_file_is_known_by_lines_that_tell_nothing_of_the_secret() {
        for _ in 0..50 {
            let key = BuildKey::generate().unwrap();
            let (telling, secret) = (key.telling_lines(), key.secret_lines());
            assert!(telling.len() >= 2 && !secret.is_empty(), "{telling:?} {}", secret.len());
            let all: Vec<&str> =
                key.private_openssh().lines().filter(|line| !line.starts_with('-')).collect();
            assert_eq!(telling.len() + secret.len(), all.len() - 2);
            assert!(telling.iter().all(|line| line.len() > 8 && all.contains(&line.as_str())));
            // Read without the secret's lines, the file holds no eight bytes of it.
            let seed = key.private.key_data().ed25519().unwrap().private.to_bytes();
            for line in telling {
                let padded = line.trim_end_matches('=');
                for skip in 0..4 {
                    let rest = &padded[skip..];
                    let bytes = STANDARD_NO_PAD.decode(&rest[..rest.len() / 4 * 4]).unwrap();
                    assert!(!seed.windows(8).any(|part| bytes.windows(8).any(|window| window == part)));
                }
            }
        }
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        assert!(BuildKey::from_openssh("ssh-ed25519 AAAA").is_err());
    }
}
