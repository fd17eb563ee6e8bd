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

    /// The same files with `***` in place of each secret, in every form in which a template's filters write it; for
    /// evidence. A file that is no text is replaced as a whole when it holds one.
    #[must_use]
    pub fn masked(&self, secrets: &[&str]) -> Self {
        let mut forms: Vec<String> = secrets.iter().flat_map(|secret| forms(secret)).collect();
        // The longest first: one secret may be a part of another.
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        let mut masked = self.clone();
        for file in masked.files.values_mut() {
            let content = match file.text() {
                Some(text) => {
                    forms.iter().fold(text.to_owned(), |text, form| text.replace(form.as_str(), "***")).into()
                }
                None if forms.iter().any(|form| holds(&file.bytes, form.as_bytes())) => {
                    Bytes::from_static(b"***")
                }
                None => continue,
            };
            file.bytes = content;
        }
        masked
    }
}

/// A secret as it is, and as JSON or YAML, the shell, XML and a URL write it.
fn forms(secret: &str) -> Vec<String> {
    if secret.is_empty() {
        return Vec::new();
    }
    let written = [
        Some(Value::from(secret).to_string()),
        Some(crate::yaml::inline(&Value::from(secret))),
        crate::template::escaped("sh", secret),
        crate::template::escaped("xml", secret),
        Some(utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string()),
    ];
    let unquoted = |text: String| match text.chars().next() {
        Some(quote @ ('"' | '\'')) if text.len() > 2 && text.ends_with(quote) => {
            text.get(1..text.len() - 1).unwrap_or_default().to_owned()
        }
        _ => text,
    };
    let mut forms: Vec<String> = written.into_iter().flatten().map(unquoted).collect();
    forms.push(secret.to_owned());
    forms.sort();
    forms.dedup();
    forms
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
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
    fn a_secret_is_masked_in_every_form_a_filter_writes() {
        let secret = "it's <\"é\n&co>";
        let text = "{{ s | yaml }} {{ s | json }} {{ s | sh }} {{ s | xml }}";
        let rendered = crate::template::render("t", text, &json!({ "s": secret })).expect("renders");
        let set = SeedSet::default().with("t", rendered).with("blob", [&[0xff], secret.as_bytes()].concat());
        let masked = set.masked(&[secret, "", "it's"]);
        assert_eq!(masked.get("t").and_then(SeedFile::text), Some(r#""***" "***" '***' ***"#));
        assert_eq!(masked.get("blob").map(|file| &file.bytes()[..]), Some(&b"***"[..]));
    }
}
