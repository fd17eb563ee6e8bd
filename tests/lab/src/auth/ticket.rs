//! Logging in: API tokens, passwords, tickets and the token against forged requests.
//!
//! A ticket is good for two hours and renewed by giving it as the password. The lab signs with a secret of its own
//! instead of an RSA key; nothing but the lab reads it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use super::{Auth, Caller, ROOT};
use crate::error::{ApiError, ApiResult};

/// Seconds a ticket is good for.
pub const TICKET_LIFE: i64 = 2 * 60 * 60;
/// Seconds a ticket may come from the future, as clocks differ.
const SKEW: i64 = 300;

/// The cookie that carries a ticket.
const COOKIE: &str = "PVEAuthCookie";

impl Auth {
    fn sign(&self, text: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update(text);
        hash.update(self.secret);
        STANDARD_NO_PAD.encode(hash.finalize())
    }

    /// A ticket for a user.
    pub fn ticket(&self, user: &str, now: i64) -> String {
        let plain = format!("PVE:{user}:{now:08X}");
        format!("{plain}::{}", self.sign(&plain))
    }

    /// The token that a ticket's writes must carry.
    pub fn csrf_token(&self, user: &str, now: i64) -> String {
        format!("{now:08X}:{}", self.sign(&format!("CSRF:{now:08X}:{user}")))
    }

    /// The user of a ticket that is good.
    pub fn verify_ticket(&self, ticket: &str, now: i64) -> Option<String> {
        let (plain, signature) = ticket.split_once("::")?;
        let mut parts = plain.strip_prefix("PVE:")?.rsplitn(2, ':');
        let time = i64::from_str_radix(parts.next()?, 16).ok()?;
        let user = parts.next()?;
        let fresh = (-SKEW..=self.ticket_life).contains(&(now - time));
        (fresh && signature == self.sign(plain)).then(|| user.to_owned())
    }

    fn verify_csrf(&self, token: &str, user: &str, now: i64) -> bool {
        let Some((time, signature)) = token.split_once(':') else { return false };
        let Ok(time) = i64::from_str_radix(time, 16) else { return false };
        let fresh = (-SKEW..=self.ticket_life).contains(&(now - time));
        fresh && signature == self.sign(&format!("CSRF:{time:08X}:{user}"))
    }

    /// Whether a user may log in now.
    pub fn is_enabled(&self, user: &str, now: i64) -> bool {
        self.users.get(user).is_some_and(|user| user.enabled && (user.expire == 0 || user.expire >= now))
    }

    /// Whether a password, or a ticket in its place, opens a user's account.
    pub fn opens(&self, user: &str, password: &str, now: i64) -> bool {
        if !self.is_enabled(user, now) {
            return false;
        }
        if let Some(holder) = self.verify_ticket(password, now) {
            return holder == user || holder == ROOT;
        }
        self.users.get(user).and_then(|user| user.password.as_deref()) == Some(password)
    }

    /// Finds the caller by the headers: an API token, or a ticket in the cookie; `guarded` calls (writes other than
    /// uploads) with a ticket need the token against forgery too.
    ///
    /// # Errors
    /// The 401 of a missing, wrong or expired login.
    pub fn authenticate(&self, headers: &HeaderMap, guarded: bool, now: i64) -> ApiResult<Caller> {
        let failed = || ApiError::unauthorized("Authentication failed!");
        let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(value) = text(header::AUTHORIZATION).and_then(|text| text.strip_prefix("PVEAPIToken")) {
            let value = value.strip_prefix(['=', ' ']).unwrap_or(value);
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            let (id, secret) = value.rsplit_once('=').ok_or_else(failed)?;
            let caller = Caller(id.to_owned());
            let token = self.token(&caller).ok_or_else(failed)?;
            let fresh = token.expire == 0 || token.expire >= now;
            if token.secret != secret || !fresh || !self.is_enabled(caller.user(), now) {
                return Err(failed());
            }
            return Ok(caller);
        }
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let Some((_, ticket)) = pairs.find(|(name, _)| *name == COOKIE) else {
            return Err(ApiError::unauthorized("No ticket"));
        };
        let ticket = percent_encoding::percent_decode_str(ticket).decode_utf8_lossy();
        let user = self.verify_ticket(&ticket, now).ok_or_else(failed)?;
        if !self.is_enabled(&user, now) {
            return Err(failed());
        }
        let csrf = headers.get("csrfpreventiontoken").and_then(|value| value.to_str().ok());
        if guarded && !csrf.is_some_and(|token| self.verify_csrf(token, &user, now)) {
            return Err(ApiError::unauthorized("Permission denied - invalid csrf token"));
        }
        Ok(Caller(user))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, String)| {
            (name.parse().expect("a name"), HeaderValue::from_str(value).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_ticket_ends_after_two_hours_and_its_writes_need_the_csrf_token() {
        let mut auth = Auth::default();
        auth.set_password("a@pve", "secret-1");
        assert!(auth.opens("a@pve", "secret-1", 0) && !auth.opens("a@pve", "secret-2", 0));
        let ticket = auth.ticket("a@pve", 1000);
        assert!(auth.opens("a@pve", &ticket, 2000), "a ticket renews itself");
        assert!(!auth.opens(ROOT, &ticket, 2000), "and opens no other account");
        let cookie = ("cookie", format!("x=y; PVEAuthCookie={}", ticket.replace(':', "%3A")));
        let csrf = ("csrfpreventiontoken", auth.csrf_token("a@pve", 1000));
        let line = |headers: &HeaderMap, guarded, now| {
            auth.authenticate(headers, guarded, now).map_err(|error| error.message).map(|caller| caller.0)
        };
        let read = headers(std::slice::from_ref(&cookie));
        assert_eq!(line(&read, false, 1000 + TICKET_LIFE), Ok("a@pve".to_owned()));
        assert_eq!(line(&read, false, 1001 + TICKET_LIFE), Err("Authentication failed!".to_owned()));
        assert_eq!(line(&read, true, 1001), Err("Permission denied - invalid csrf token".to_owned()));
        assert_eq!(line(&headers(&[cookie, csrf]), true, 1001), Ok("a@pve".to_owned()));
        assert_eq!(line(&headers(&[]), false, 1001), Err("No ticket".to_owned()));
    }

    #[test]
    fn a_token_that_has_expired_or_whose_user_is_disabled_opens_nothing() {
        let mut auth = Auth::default();
        auth.add_token("a@pve!b1", "0-1", &[], true);
        let with = headers(&[("authorization", "PVEAPIToken=a@pve!b1=0-1".to_owned())]);
        assert!(auth.authenticate(&with, true, 10).is_ok());
        auth.users.get_mut("a@pve").expect("there").tokens.get_mut("b1").expect("there").expire = 9;
        assert!(auth.authenticate(&with, true, 10).is_err());
        auth.add_token("a@pve!b1", "0-1", &[], true);
        auth.users.get_mut("a@pve").expect("there").enabled = false;
        assert!(auth.authenticate(&with, true, 10).is_err());
    }
}
