//! The API token, as the header that every request carries.
//!
//! A token needs neither a ticket nor a CSRF header. A refused one is answered after 3 s with an empty 401
//! (observed on PVE 9.2); it is never tried twice.

use http::HeaderValue;
use thiserror::Error;

use crate::secret::Secret;

/// A token id or secret that can't be right.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// The id has not the form `user@realm!token`.
    #[error("token id `{id}` is not of the form `user@realm!token`")]
    Id {
        /// What was given.
        id: String,
    },
    /// The secret can't stand in a header.
    #[error("the token secret of `{id}` is empty or contains a character that can't be sent")]
    Secret {
        /// The token's id.
        id: String,
    },
}

/// An API token.
#[derive(Clone, Debug)]
pub struct ApiToken {
    id: String,
    header: HeaderValue,
}

impl ApiToken {
    /// Checks a token's form and makes its header.
    ///
    /// # Errors
    /// When the id is not `user@realm!token`, or the secret can't stand in a header.
    pub fn new(id: &str, secret: &Secret) -> Result<Self, TokenError> {
        let id = id.trim();
        let well_formed = id.split_once('!').is_some_and(|(user, token)| {
            let user_ok =
                user.rsplit_once('@').is_some_and(|(name, realm)| !name.is_empty() && !realm.is_empty());
            user_ok && token.len() >= 2 && !token.contains('=')
        });
        if !well_formed {
            return Err(TokenError::Id { id: id.to_owned() });
        }
        let secret_text = secret.expose().trim();
        let header = HeaderValue::try_from(format!("PVEAPIToken={id}={secret_text}"));
        match header {
            Ok(mut header) if !secret_text.is_empty() => {
                header.set_sensitive(true);
                Ok(Self { id: id.to_owned(), header })
            }
            _ => Err(TokenError::Secret { id: id.to_owned() }),
        }
    }

    /// `user@realm!token`, as it appears in UPIDs and access-control lists.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `user@realm`.
    #[must_use]
    pub fn user(&self) -> &str {
        self.id.split_once('!').map_or(self.id.as_str(), |(user, _)| user)
    }

    /// The value of the `Authorization` header, marked sensitive.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_becomes_the_header_proxmox_reads_and_hides_in_debug() {
        let token = ApiToken::new("forge@pve!build", &Secret::new("1-2-3\n")).expect("well formed");
        assert_eq!(token.header().as_bytes(), b"PVEAPIToken=forge@pve!build=1-2-3");
        assert_eq!(token.user(), "forge@pve");
        assert!(!format!("{token:?}").contains("1-2-3"));
    }

    #[test]
    fn malformed_tokens_are_refused_before_anything_is_sent() {
        for id in ["", "forge", "forge@pve", "forge!build", "@pve!build", "forge@pve!b"] {
            let error = ApiToken::new(id, &Secret::new("x")).expect_err(id);
            assert_eq!(error, TokenError::Id { id: id.into() });
        }
        for secret in ["", "  ", "a\nb"] {
            assert!(ApiToken::new("forge@pve!build", &Secret::new(secret)).is_err(), "{secret:?}");
        }
    }
}
