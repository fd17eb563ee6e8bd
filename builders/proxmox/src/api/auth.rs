//! Who asks: an API token, as the header that every request carries, or a user's ticket, renewed at half its life.
//!
//! A ticket that is refused all the same is thrown away, and the password asked once. A token needs neither a ticket nor a CSRF header. A refused one is answered after 3 s with an empty 401
//! (observed on PVE 9.2); it is never tried twice.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::Mutex;

use crate::api::encode::escape;
use crate::api::error::ApiError;
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

/// How long a ticket is used: half of the 2 h that it is good for (pve-access-control `AccessControl.pm`).
const HALF_LIFE: Duration = Duration::from_secs(3600);

/// How a client proves who it is.
#[derive(Debug)]
pub enum Login {
    /// By a token, in every request.
    Token(ApiToken),
    /// By a ticket that a password opens.
    Password(PasswordLogin),
}

/// A user with a password, and the ticket of the moment.
#[derive(Debug)]
pub struct PasswordLogin {
    user: String,
    password: Secret,
    renew_after: Duration,
    ticket: Mutex<Option<Ticket>>,
}

#[derive(Debug)]
struct Ticket {
    text: Secret,
    cookie: HeaderValue,
    /// Against forged requests: goes with everything that changes something.
    csrf: HeaderValue,
    since: Instant,
}

/// `POST /access/ticket`.
#[derive(Deserialize)]
pub struct TicketAnswer {
    ticket: String,
    #[serde(rename = "CSRFPreventionToken", default)]
    csrf: String,
    #[serde(rename = "NeedTFA", default)]
    second_factor: Value,
}

impl Login {
    /// A token when the id names one (`user@realm!token`), else a user with a password.
    ///
    /// # Errors
    /// When the id is neither, or the secret can't be sent.
    pub fn new(id: &str, secret: &Secret) -> Result<Self, TokenError> {
        let id = id.trim();
        let is_user = id.rsplit_once('@').is_some_and(|(name, realm)| !name.is_empty() && !realm.is_empty());
        if id.contains('!') || !is_user {
            return ApiToken::new(id, secret).map(Self::Token);
        }
        if secret.expose().is_empty() {
            return Err(TokenError::Secret { id: id.to_owned() });
        }
        Ok(Self::password(id, secret.clone(), HALF_LIFE))
    }

    fn password(user: &str, password: Secret, renew_after: Duration) -> Self {
        Self::Password(PasswordLogin {
            user: user.to_owned(),
            password,
            renew_after,
            ticket: Mutex::new(None),
        })
    }

    /// The same with tickets that are renewed after another time.
    #[must_use]
    pub fn renewing_after(&self, time: Duration) -> Self {
        match self {
            Self::Token(token) => Self::Token(token.clone()),
            Self::Password(login) => Self::password(&login.user, login.password.clone(), time),
        }
    }

    /// `user@realm!token`, or `user@realm`.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Token(token) => token.id(),
            Self::Password(login) => &login.user,
        }
    }

    /// Throws the ticket away, so that the next request logs in by the password; whether there was one.
    pub async fn forget_ticket(&self) -> bool {
        match self {
            Self::Token(_) => false,
            Self::Password(login) => login.ticket.lock().await.take().is_some(),
        }
    }

    /// The headers of a request; `log_in` posts a user and a password, or a ticket in its place.
    ///
    /// # Errors
    /// When the user can't log in.
    pub async fn headers<F>(
        &self,
        write: bool,
        peer: &str,
        log_in: impl Fn(String, Secret) -> F,
    ) -> Result<HeaderMap, ApiError>
    where
        F: Future<Output = Result<TicketAnswer, ApiError>>,
    {
        let mut headers = HeaderMap::new();
        let login = match self {
            Self::Token(token) => {
                headers.insert(header::AUTHORIZATION, token.header());
                return Ok(headers);
            }
            Self::Password(login) => login,
        };
        // Whoever comes while it is renewed waits for the new one.
        let mut held = login.ticket.lock().await;
        let stale = held.as_ref().is_none_or(|ticket| ticket.since.elapsed() >= login.renew_after);
        if stale {
            let old = held.take().map(|ticket| ticket.text);
            let renewed = match old {
                Some(old) => log_in(login.user.clone(), old).await.ok(),
                None => None,
            };
            let answer = match renewed {
                Some(answer) => answer,
                // A ticket that is over opens nothing any more; the password does.
                None => log_in(login.user.clone(), login.password.clone()).await?,
            };
            *held = Some(Ticket::new(answer, peer)?);
        }
        if let Some(ticket) = held.as_ref() {
            headers.insert(header::COOKIE, ticket.cookie.clone());
            if write {
                headers.insert("CSRFPreventionToken", ticket.csrf.clone());
            }
        }
        Ok(headers)
    }
}

impl Ticket {
    fn new(answer: TicketAnswer, peer: &str) -> Result<Self, ApiError> {
        let refused =
            |detail: &str| ApiError::Unauthorized { peer: peer.to_owned(), detail: detail.to_owned() };
        if answer.ticket.starts_with("PVE:!tfa!")
            || !matches!(answer.second_factor, Value::Null | Value::Bool(false))
        {
            return Err(refused("this user logs in with a second factor; make an API token for forge"));
        }
        let sensitive = |text: String| {
            let value = HeaderValue::try_from(text);
            value.map_err(|_unsendable| refused("the ticket can't be sent")).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        };
        Ok(Self {
            cookie: sensitive(format!("PVEAuthCookie={}", escape(&answer.ticket)))?,
            csrf: sensitive(answer.csrf)?,
            text: Secret::new(answer.ticket),
            since: Instant::now(),
        })
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
