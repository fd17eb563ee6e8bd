//! What a request is answered with: a pure function of the request and the seed, but for telling the observer.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::Full;
use percent_encoding::percent_decode_str;

use super::{Fetch, Shared};
use crate::set::SeedFile;

/// How much of a stranger's text is kept.
const KEPT: usize = 200;

pub(super) fn answer(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    peer: SocketAddr,
    shared: &Shared,
) -> Response<Full<Bytes>> {
    let path = uri.path();
    let named = named(path, shared);
    let status = judge(method, named.is_some(), peer.ip(), shared);
    let content = named.filter(|_| status == StatusCode::OK).map(|(_, file)| file);
    let sent =
        content.filter(|_| method != Method::HEAD).map(|file| file.bytes().clone()).unwrap_or_default();
    shared.tell(Fetch {
        peer,
        path: named.map_or_else(|| printable(path), |(name, _)| name.to_owned()),
        status: status.as_u16(),
        bytes: sent.len() as u64,
        user_agent: headers
            .get(header::USER_AGENT)
            .map(|value| printable(&String::from_utf8_lossy(value.as_bytes()))),
        at_ms: u64::try_from(shared.started.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
    let mut response = Response::new(Full::new(sent));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.map_or(0, |file| file.bytes().len())));
    if let Some(file) = content {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type()));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// The file of a path that is exactly the secret and one of the seed's names. Nothing is decoded, so there is one way
/// only to write a path.
fn named<'a>(path: &'a str, shared: &'a Shared) -> Option<(&'a str, &'a SeedFile)> {
    let (token, name) = path.strip_prefix('/')?.split_once('/')?;
    let right = shared.options.token.matches(token);
    shared.set.get(name).filter(|_| right).map(|file| (name, file))
}

fn judge(method: &Method, known: bool, peer: IpAddr, shared: &Shared) -> StatusCode {
    let allowed = &shared.options.allowed_networks;
    if !allowed.is_empty() && !allowed.iter().any(|network| network.contains(peer)) {
        // A stranger learns nothing, not even which methods there are.
        StatusCode::NOT_FOUND
    } else if method != Method::GET && method != Method::HEAD {
        StatusCode::METHOD_NOT_ALLOWED
    } else if !known {
        StatusCode::NOT_FOUND
    } else if shared.closed.load(Ordering::Acquire) {
        StatusCode::GONE
    } else {
        StatusCode::OK
    }
}

/// A stranger's text, made safe for a line of a log: printable ASCII, bounded, without the secret.
///
/// A guest that was told a mistyped address asks with most of the secret, so every longer run of hexadecimal digits
/// is masked, whatever its case, and however it was escaped.
fn printable(text: &str) -> String {
    let mut decoded = text.to_owned();
    // Who escapes an escape may mean the secret too.
    for _ in 0..3 {
        decoded = percent_decode_str(&decoded).decode_utf8_lossy().into_owned();
    }
    let mut out = String::new();
    let mut run = String::new();
    let end = |run: &mut String, out: &mut String| {
        out.push_str(if run.len() >= 8 { "***" } else { run });
        run.clear();
    };
    for character in decoded.chars() {
        if character.is_ascii_hexdigit() {
            run.push(character);
            continue;
        }
        end(&mut run, &mut out);
        if out.len() >= KEPT {
            break;
        }
        out.push(if matches!(character, ' '..='~') { character } else { '?' });
    }
    end(&mut run, &mut out);
    out.truncate(KEPT);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_strangers_text_is_safe_for_a_line_and_holds_no_secret() {
        let token = crate::SeedToken::generate();
        let token = token.expose();
        let escaped: String = token.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for (text, shown) in [
            ("/user-data".to_owned(), "/user-data"),
            (format!("/{token}/nosuch"), "/***/nosuch"),
            (format!("/{}/user-data", token.to_uppercase()), "/***/user-data"),
            (format!("/{}/user-data", &token[..31]), "/***/user-data"),
            (format!("/{escaped}/user-data"), "/***/user-data"),
            (format!("/{}/user-data", escaped.replace('%', "%25")), "/***/user-data"),
            ("/a%0d%0ab%1b[31m\u{202e}".to_owned(), "/a??b?[31m?"),
        ] {
            assert_eq!(printable(&text), shown);
        }
        assert_eq!(printable(&"x".repeat(9999)).len(), KEPT);
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_a_log_line_stays_one_short_line(text in any::<String>()) {
            let shown = printable(&text);
            prop_assert!(shown.len() <= KEPT && shown.chars().all(|c| matches!(c, ' '..='~')));
        }
    }
}
