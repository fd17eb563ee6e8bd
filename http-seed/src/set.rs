//! The files of one seed: rendered once, never changed once they are served.

use std::collections::BTreeMap;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use thiserror::Error;

/// A name under which no file of a seed can be served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{name}` can't be the name of a seed's file: letters, digits, `.`, `_`, `-`, `+`, `~`, `@` and single `/` \
     between them"
)]
pub struct NameError {
    /// The name.
    pub name: String,
}

/// One file: its bytes, and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedFile {
    bytes: Bytes,
    content_type: &'static str,
}

impl SeedFile {
    /// The content; cloning it copies nothing.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The content when it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    /// The value of the HTTP header `Content-Type`.
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        self.content_type
    }
}

/// Named files, by the path under which the guest asks for them (`user-data`, `ks.cfg`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeedSet {
    files: BTreeMap<String, SeedFile>,
}

impl SeedSet {
    /// Adds or replaces a file whose name is known to be good.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, content: impl Into<Bytes>) -> Self {
        self.put(name.into(), content.into());
        self
    }

    /// Adds or replaces a file whose name comes from a user.
    ///
    /// # Errors
    /// When no client could ask for the name: absolute, with `..` or an empty part, or with characters that a URL
    /// would have to escape.
    pub fn add(&mut self, name: &str, content: impl Into<Bytes>) -> Result<(), NameError> {
        let good = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '~' | '@');
            !matches!(part, "" | "." | "..") && part.chars().all(plain)
        };
        if !name.split('/').all(good) {
            return Err(NameError { name: name.to_owned() });
        }
        self.put(name.to_owned(), content.into());
        Ok(())
    }

    fn put(&mut self, name: String, bytes: Bytes) {
        let content_type = match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("xml") => "application/xml",
            Some("json") => "application/json",
            _ if std::str::from_utf8(&bytes).is_ok() => "text/plain; charset=utf-8",
            _ => "application/octet-stream",
        };
        self.files.insert(name, SeedFile { bytes, content_type });
    }

    /// A file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&SeedFile> {
        self.files.get(name)
    }

    /// All files, by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &SeedFile)> {
        self.files.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// The files that are text, by name.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter_map(|(name, file)| Some((name, file.text()?)))
    }
}

/// A secret in every form in which the filters of templates write it, for whoever masks it: as it is or a word of the shell's
/// or PowerShell's, and each of these within JSON, YAML, XML and a URL; without the quotes around it.
#[must_use]
pub fn forms(secret: &str) -> Vec<String> {
    if secret.is_empty() {
        return Vec::new();
    }
    let unquoted = |text: String| match text.chars().next() {
        Some(quote @ ('"' | '\'')) if text.len() > 2 && text.ends_with(quote) => {
            text.get(1..text.len() - 1).unwrap_or_default().to_owned()
        }
        _ => text,
    };
    let words = ["sh", "ps"].into_iter().filter_map(|filter| crate::template::escaped(filter, secret));
    let mut forms: Vec<String> = words.map(unquoted).collect();
    forms.push(secret.to_owned());
    for word in forms.clone() {
        let written = [
            Some(unquoted(Value::from(word.as_str()).to_string())),
            Some(unquoted(crate::yaml::inline(&Value::from(word.as_str())))),
            crate::template::escaped("xml", &word),
            Some(utf8_percent_encode(&word, NON_ALPHANUMERIC).to_string()),
        ];
        forms.extend(written.into_iter().flatten());
    }
    forms.sort();
    forms.dedup();
    forms
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_that_no_client_could_ask_for_is_refused() {
        let mut set = SeedSet::default();
        for name in ["user-data", "answers/ks.cfg", "a_B.9", "lib_1.2-3+deb12u1~a.deb", "getty@.service"] {
            assert_eq!(set.add(name, ""), Ok(()), "{name}");
        }
        for name in
            ["", "/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a b", "a%2e", "é", "a?b", "a\0b"]
        {
            assert_eq!(set.add(name, ""), Err(NameError { name: name.into() }), "{name}");
        }
    }

    #[test]
    fn the_content_type_follows_the_name_and_the_bytes() {
        let set = SeedSet::default()
            .with("user-data", "x")
            .with("Autounattend.xml", "<a/>")
            .with("blob", vec![0xff, 0xfe]);
        let types: Vec<&str> = set.files().map(|(_, file)| file.content_type()).collect();
        assert_eq!(types, ["application/xml", "application/octet-stream", "text/plain; charset=utf-8"]);
        assert_eq!(set.texts().count(), 2);
    }

    #[test]
    fn a_secret_is_known_in_every_form_a_filter_writes() {
        for secret in ["it's <\"é & co>\\", "Tr0ub&4dor<x>", "on", "plain", "two\nlines", "\u{2019}quoted'"]
        {
            let languages =
                ["yaml", "json", "sh", "xml", "ps", "sh | json", "sh | xml", "sh | yaml", "ps | xml"];
            for filters in languages {
                let text = format!("before {{{{ s | {filters} }}}} after");
                let Ok(text) = crate::template::render("t", &text, &json!({ "s": secret })) else {
                    assert!(filters.starts_with("ps") && secret.contains('\n'), "{filters}: {secret}");
                    continue;
                };
                let mut known = forms(secret);
                known.sort_by_key(|form| std::cmp::Reverse(form.len()));
                let masked = known.iter().fold(text.clone(), |text, form| text.replace(form.as_str(), "***"));
                let quotes = |c: char| matches!(c, '"' | '\'' | '\\');
                let bare: String = masked.chars().filter(|c| !quotes(*c)).collect();
                assert!(
                    ["before *** after", "before &apos;***&apos; after"].contains(&bare.as_str()),
                    "{filters}: {text}: {masked}"
                );
            }
        }
        assert!(forms("").is_empty());
    }
}
