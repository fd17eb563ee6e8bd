//! Keeps secrets out of everything that leaves the process: one redactor before all sinks and the error printer.

use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::Value;

/// What stands in a secret's place.
pub const MASK: &str = "***";

/// The length of a piece of a random secret that is masked on its own: long enough to mean nothing else. A line of a longer
/// secret, and what base64 makes of a part of one, is masked from that length on too.
const PIECE: usize = 8;

/// Replaces known secrets, in the forms they travel in, by `***`.
///
/// Cloning shares the list, so a secret that becomes known late is masked everywhere from then on.
#[derive(Clone, Default)]
pub struct Redactor {
    known: Arc<RwLock<Known>>,
}

#[derive(Default)]
struct Known {
    /// Every form of every secret, longest first.
    needles: Vec<String>,
    /// What finds them all in one go; made when it is needed.
    search: Option<Arc<AhoCorasick>>,
    /// The secrets that the guest was given, without the pieces of those that are shown.
    whole: Vec<String>,
    /// Those of them that are worth something when the build is over.
    lasting: Vec<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

fn push_new(list: &mut Vec<String>, secret: &str) {
    if !list.iter().any(|known| known == secret) {
        list.push(secret.to_owned());
    }
}

impl Redactor {
    /// Adds a secret that is for the guest and that somebody goes on using: it is masked as by [`Redactor::hide`], and
    /// looked for in the guest, and on its disk, before a template is made of it.
    pub fn add(&self, secret: &str) {
        push_new(&mut self.write().lasting, secret);
        self.add_passing(secret);
    }

    /// Adds a secret that is for the guest and is worth nothing any more once the build is over: it is masked, and looked for
    /// in the guest's files.
    pub fn add_passing(&self, secret: &str) {
        push_new(&mut self.write().whole, secret);
        self.hide(secret);
    }

    /// Masks a secret from now on, and each of its lines: raw, in base64, and in the forms in which seeds write it (JSON, YAML,
    /// XML, URLs, the shell's and PowerShell's words). Texts shorter than four characters are left out: masking them would make
    /// every output unreadable.
    ///
    /// A secret that is no business of the guest's (a target's token, a bastion's password) is only hidden: looking for
    /// it in the guest would bring it there.
    pub fn hide(&self, secret: &str) {
        if secret.chars().count() < 4 {
            return;
        }
        let mut forms = forms(secret);
        // Output comes line by line.
        let lines = secret.lines().map(str::trim).filter(|line| *line != secret && line.len() >= PIECE);
        for line in lines.filter(|line| !line.starts_with("-----")) {
            forms.extend(self::forms(line));
        }
        let mut known = self.write();
        known.needles.extend(forms);
        known.needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        known.needles.dedup();
        known.search = None;
    }

    /// Adds a random secret that is shown on screens, and passes with the build: also its pieces are masked, since a screen
    /// breaks lines where it likes.
    pub fn add_shown(&self, secret: &str) {
        self.add_passing(secret);
        if !secret.is_ascii() {
            return;
        }
        for start in 0..secret.len().saturating_sub(PIECE) {
            self.hide(secret.get(start..start + PIECE).unwrap_or_default());
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What finds all secrets in one go; `None` when there are none.
    fn search(&self) -> Option<Arc<AhoCorasick>> {
        {
            let known = self.read();
            if known.needles.is_empty() || known.search.is_some() {
                return known.search.clone();
            }
        }
        let mut known = self.write();
        let made = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&known.needles);
        known.search = made.ok().map(Arc::new);
        known.search.clone()
    }

    /// Masks the secrets in a text.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        if let Some(search) = self.search() {
            let mut masked = String::with_capacity(text.len());
            search.replace_all_with(text, &mut masked, |_, _, masked| {
                masked.push_str(MASK);
                true
            });
            return masked;
        }
        // One after the other, should there ever be more of them than can be searched for in one go.
        let known = self.read();
        known.needles.iter().fold(text.to_owned(), |text, needle| text.replace(needle.as_str(), MASK))
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

    /// The secrets that the guest was given, for a search of its files for leaks.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        self.read().whole.clone()
    }

    /// Those of them that are worth something when the build is over, for a search of its disk.
    #[must_use]
    pub fn lasting(&self) -> Vec<String> {
        self.read().lasting.clone()
    }

    /// The secrets themselves, for a search of the evidence for leaks.
    #[must_use]
    pub fn needles(&self) -> Vec<String> {
        self.read().needles.clone()
    }
}

/// The forms in which a secret is masked.
fn forms(secret: &str) -> Vec<String> {
    let utf16: Vec<u8> = secret.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut forms = forge_http_seed::set::forms(secret);
    forms.extend([
        STANDARD.encode(secret),
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        // What PowerShell takes for a command.
        STANDARD.encode(&utf16),
        STANDARD_NO_PAD.encode(&utf16),
    ]);
    // `user:password` is one text in base64.
    forms.extend(inside_base64(secret.as_bytes()).into_iter().filter(|form| form.len() >= PIECE));
    forms
}

/// What a text is inside of a longer one in base64, wherever it begins there, in both alphabets.
#[must_use]
pub fn inside_base64(text: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for before in 0..3_usize {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(text);
        // What its neighbours have a part in is left out, at either end.
        let inner = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        let encoded = [STANDARD.encode(&bytes), URL_SAFE.encode(&bytes)];
        forms.extend(encoded.iter().filter_map(|text| text.get(inner.clone()).map(str::to_owned)));
    }
    forms.sort();
    forms.dedup();
    forms
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
        let login = STANDARD.encode(format!("user:{secret} and more"));
        let utf16: Vec<u8> = secret.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let utf16 = STANDARD.encode(utf16);
        for text in [secret.to_owned(), base64, url, json, shell, xml, power_shell, shell_in_xml, utf16] {
            let masked = redactor.text(&format!("before {text} after"));
            assert!(masked.contains(MASK) && !masked.contains("s3cr"), "{masked}");
            assert!(masked.starts_with("before ") && masked.ends_with(" after"), "{masked}");
        }
        let masked = redactor.text(&login);
        assert!(masked.contains(MASK) && masked.len() < login.len(), "{masked} of {login}");
    }

    #[test]
    fn each_line_of_a_secret_of_several_is_masked_and_what_frames_it_is_not() {
        let redactor = Redactor::default();
        redactor.add("-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\n  75s9f0+/\nAQAB\n-----END KEY-----\n");
        let shown =
            redactor.text("-----BEGIN KEY-----\n| MIIEpAIBAAKCAQEA\n| 75s9f0+/\nAQAB is the end\n-----END");
        assert_eq!(shown, "-----BEGIN KEY-----\n| ***\n| ***\nAQAB is the end\n-----END");
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
        redactor.add_passing("the-password-of-one-build");
        assert_eq!(redactor.secrets(), ["the-password-in-the-guest", "the-password-of-one-build"]);
        assert_eq!(redactor.lasting(), ["the-password-in-the-guest"]);
    }

    #[test]
    fn a_short_text_is_never_taken_for_a_secret() {
        let redactor = Redactor::default();
        redactor.add("abc");
        redactor.add("");
        assert_eq!(redactor.text("abcabc"), "abcabc");
    }
}
