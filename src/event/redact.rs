//! Keeps secrets out of everything that leaves the process: one redactor before all sinks and the error printer.

use std::sync::{Arc, RwLock};

use base64::Engine as _;
use serde_json::Value;

/// What stands in a secret's place.
pub const MASK: &str = "***";

/// The length of a piece of a random secret that is masked on its own: long enough to mean nothing else.
const PIECE: usize = 8;

/// Replaces known secrets, in the forms they travel in, by `***`.
///
/// Cloning shares the list, so a secret that becomes known late is masked everywhere from then on.
#[derive(Clone, Default)]
pub struct Redactor {
    needles: Arc<RwLock<Vec<String>>>,
    /// The secrets that the guest was given, without the pieces of those that are shown.
    whole: Arc<RwLock<Vec<String>>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// Adds a secret that is for the guest: it is masked as by [`Redactor::hide`], and looked for in the guest before a
    /// template is made of it.
    pub fn add(&self, secret: &str) {
        if let Ok(mut whole) = self.whole.write()
            && !whole.iter().any(|known| known == secret)
        {
            whole.push(secret.to_owned());
        }
        self.hide(secret);
    }

    /// Masks a secret from now on, in its raw and base64 forms and in those in which seeds write it (JSON, YAML, XML, URLs,
    /// the shell's and PowerShell's words). Texts shorter than four characters are left out: masking them would make every
    /// output unreadable.
    ///
    /// A secret that is no business of the guest's (a target's token, a bastion's password) is only hidden: looking for
    /// it in the guest would bring it there.
    pub fn hide(&self, secret: &str) {
        if secret.chars().count() < 4 {
            return;
        }
        let mut forms = forge_http_seed::set::forms(secret);
        forms.extend([
            base64::engine::general_purpose::STANDARD.encode(secret),
            base64::engine::general_purpose::STANDARD_NO_PAD.encode(secret),
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret),
        ]);
        if let Ok(mut needles) = self.needles.write() {
            needles.extend(forms);
            needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            needles.dedup();
        }
    }

    /// Adds a random secret that is shown on screens: also its pieces are masked, since a screen breaks lines where
    /// it likes.
    pub fn add_shown(&self, secret: &str) {
        self.add(secret);
        if !secret.is_ascii() {
            return;
        }
        for start in 0..secret.len().saturating_sub(PIECE) {
            self.hide(secret.get(start..start + PIECE).unwrap_or_default());
        }
    }

    /// Masks the secrets in a text.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut out = text.to_owned();
        if let Ok(needles) = self.needles.read() {
            for needle in needles.iter() {
                if out.contains(needle.as_str()) {
                    out = out.replace(needle.as_str(), MASK);
                }
            }
        }
        out
    }

    /// Masks the secrets in every string of a value.
    #[must_use]
    pub fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.value(item)).collect()),
            Value::Object(map) => {
                Value::Object(map.into_iter().map(|(key, item)| (key, self.value(item))).collect())
            }
            other => other,
        }
    }

    /// The secrets that the guest was given, for a search of it for leaks.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        self.whole.read().map(|whole| whole.clone()).unwrap_or_default()
    }

    /// The secrets themselves, for a search of the evidence for leaks.
    #[must_use]
    pub fn needles(&self) -> Vec<String> {
        self.needles.read().map(|needles| needles.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_in_each_form_it_travels_in() {
        let redactor = Redactor::default();
        let secret = "s3cr et'/\"x";
        redactor.add(secret);
        let base64 = base64::engine::general_purpose::STANDARD.encode(secret);
        let url =
            percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string();
        let json = serde_json::to_string(&serde_json::json!({ "token": secret })).expect("plain");
        let shell = format!("TOKEN='{}'", secret.replace('\'', r"'\''"));
        let xml = "<Value>s3cr et&apos;/&quot;x</Value>".to_owned();
        let power_shell = "'s3cr et''/\"x'".to_owned();
        let shell_in_xml = "s3cr et&apos;\\&apos;&apos;/&quot;x".to_owned();
        for text in [secret.to_owned(), base64, url, json, shell, xml, power_shell, shell_in_xml] {
            let masked = redactor.text(&format!("before {text} after"));
            assert!(masked.contains(MASK) && !masked.contains("s3cr"), "{masked}");
            assert!(masked.starts_with("before ") && masked.ends_with(" after"), "{masked}");
        }
    }

    #[test]
    fn a_shown_secret_is_masked_where_a_screen_breaks_it() {
        let redactor = Redactor::default();
        redactor.add_shown("0123456789abcdef0123456789abcdef");
        let masked = redactor.text("s=http://h/0123456789abcd\\\n|ef0123456789abcdef/ quiet");
        assert!(!masked.contains("456789"), "{masked}");
        assert!(masked.ends_with("/ quiet"), "{masked}");
    }

    #[test]
    fn what_is_only_hidden_is_masked_and_not_looked_for_in_the_guest() {
        let redactor = Redactor::default();
        redactor.hide("the-token-of-the-target");
        redactor.add("the-password-in-the-guest");
        let masked = redactor.text("the-token-of-the-target the-password-in-the-guest");
        assert_eq!(masked, "*** ***");
        assert_eq!(redactor.secrets(), ["the-password-in-the-guest"]);
    }

    #[test]
    fn a_short_text_is_never_taken_for_a_secret() {
        let redactor = Redactor::default();
        redactor.add("abc");
        redactor.add("");
        assert_eq!(redactor.text("abcabc"), "abcabc");
    }
}
