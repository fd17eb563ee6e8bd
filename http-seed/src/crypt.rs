//! Password hashes as `/etc/shadow` holds them, made here, so that no password travels in a seed.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// A password could not be hashed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the password can't be hashed: {why}")]
pub struct CryptError {
    /// What the hash's own code says.
    pub why: String,
}

/// How a password is hashed (crypt(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// SHA-512 crypt (`$6$`), which every system that forge installs reads.
    #[default]
    Sha512,
    /// yescrypt (`$y$`): the default of Debian 11 and Ubuntu 22.04 and later, and of Fedora 35 and later; EL 9 and
    /// older do not make it.
    Yescrypt,
}

impl Scheme {
    /// The names in a profile.
    pub const NAMES: [&str; 2] = ["sha512", "yescrypt"];

    /// The scheme of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha512" => Some(Self::Sha512),
            "yescrypt" => Some(Self::Yescrypt),
            _ => None,
        }
    }

    /// Hashes a password. The same salt gives the same hash.
    ///
    /// # Errors
    /// When the password is longer than the scheme takes.
    pub fn hash(self, password: &str, salt: &[u8; 12]) -> Result<String, CryptError> {
        if password.contains('\0') {
            return Err(CryptError { why: "it holds a NUL character".into() });
        }
        match self {
            Self::Sha512 => {
                use sha_crypt::PasswordHasher as _;
                sha_crypt::ShaCrypt::SHA512
                    .hash_password_with_salt(password.as_bytes(), salt)
                    .map(|hash| hash.as_str().to_owned())
                    .map_err(|error| CryptError { why: error.to_string() })
            }
            Self::Yescrypt => {
                use yescrypt::PasswordHasher as _;
                yescrypt::Yescrypt::default()
                    .hash_password_with_salt(password.as_bytes(), salt)
                    .map(|hash| hash.as_str().to_owned())
                    .map_err(|error| CryptError { why: error.to_string() })
            }
        }
    }
}

/// A salt that depends on the build (its nonce is random) and on what is hashed, and on nothing else.
#[must_use]
pub fn salt(nonce: &str, of: &str) -> [u8; 12] {
    let digest =
        Sha256::new().chain_update("forge salt\0").chain_update(nonce).chain_update("\0").chain_update(of);
    let mut salt = [0; 12];
    for (slot, byte) in salt.iter_mut().zip(digest.finalize()) {
        *slot = byte;
    }
    salt
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_systems_own_crypt_makes_the_same_hashes() {
        let probe =
            Command::new("perl").args(["-e", "exit(crypt('a', '$y$j9T$abcdefgh$') ? 0 : 1)"]).status();
        if !probe.is_ok_and(|status| status.success()) {
            crate::skipped("there is no perl here whose crypt() knows yescrypt");
            return;
        }
        for scheme in [Scheme::Sha512, Scheme::Yescrypt] {
            for password in ["secret", "", "grün & ' \" $(x)", &"long ".repeat(30)] {
                let hash = scheme.hash(password, &salt("nonce", "user")).expect("a hash");
                let output = Command::new("perl")
                    .args(["-e", "print crypt($ARGV[0], $ARGV[1])", password, &hash])
                    .output()
                    .expect("perl runs");
                assert_eq!(String::from_utf8_lossy(&output.stdout), hash, "{password}");
            }
        }
    }

    #[test]
    fn a_salt_is_of_one_build_and_one_purpose() {
        assert_eq!(salt("a", "user"), salt("a", "user"));
        assert_ne!(salt("a", "user"), salt("b", "user"));
        assert_ne!(salt("a", "user"), salt("a", "root"));
        assert!(Scheme::Sha512.hash("a\0b", &salt("a", "b")).is_err());
        for name in Scheme::NAMES {
            assert!(Scheme::from_name(name).is_some(), "{name}");
        }
    }
}
