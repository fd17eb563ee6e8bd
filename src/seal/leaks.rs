//! What must not stay in the guest, and how the last operation of the seal looks for it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::remote::{BuildKey, quote};

/// Shorter texts stand in files by chance.
const SHORTEST: usize = 8;
/// The clocks of this machine and the guest differ, and the build began before the guest did.
const SLACK: Duration = Duration::from_secs(15 * 60);

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct Leaks {
    /// Each kind in words, with the texts that give it away.
    kinds: Vec<(&'static str, Vec<String>)>,
    /// How long the build has taken; files that were not written since are not looked at.
    since: Duration,
}

impl Leaks {
    /// What a build has that must not stay: its key, and its secrets in the forms that they travel in.
    #[must_use]
    pub fn of_build(key: &BuildKey, secrets: &[String], since: Duration) -> Self {
        let public = key.public_openssh().split_whitespace().nth(1).unwrap_or_default().to_owned();
        // The first lines of a private key are the same in all keys of its kind.
        let private = key.private_openssh();
        let lines: Vec<&str> = private.lines().filter(|line| !line.starts_with("-----")).collect();
        let private: Vec<String> = lines.iter().skip(2).map(|line| (*line).to_owned()).collect();
        let secrets = secrets.iter().flat_map(|secret| forms(secret)).collect();
        let kinds = vec![
            ("the build's private key", private),
            ("the build's public key", vec![public]),
            ("a secret of the build", secrets),
        ];
        let long = |text: &String| text.len() >= SHORTEST;
        let kinds = kinds.into_iter().map(|(kind, texts)| (kind, texts.into_iter().filter(long).collect()));
        Self { kinds: kinds.filter(|(_, texts): &(_, Vec<String>)| !texts.is_empty()).collect(), since }
    }

    /// The shell text before the operation's own.
    pub(super) fn prelude(&self, operations: &[String]) -> String {
        let on = |name: &str| if operations.iter().any(|each| each == name) { "yes" } else { "no" };
        let mut text = format!(
            "LEAK_MINUTES={}\nLEAK_HOST_KEYS={}\nLEAK_INSTANCE={}\nleak_kind() {{\n",
            (self.since + SLACK).as_secs().div_ceil(60),
            on("ssh-host-keys"),
            on("cloud-init"),
        );
        for (kind, texts) in &self.kinds {
            let words = patterns(texts);
            text.push_str(&format!(
                "  if LC_ALL=C grep -qF {words} \"$1\"; then echo {}; return 0; fi\n",
                quote::sh(kind)
            ));
        }
        text.push_str("  echo something\n}\n");
        text
    }

    /// The words for `grep -F`; something that stands nowhere when nothing is looked for.
    pub(super) fn patterns(&self) -> String {
        let all: Vec<String> = self.kinds.iter().flat_map(|(_, texts)| texts.clone()).collect();
        if all.is_empty() { format!("-e {:032x}", rand::random::<u128>()) } else { patterns(&all) }
    }
}

fn patterns(texts: &[String]) -> String {
    texts.iter().map(|text| format!("-e {}", quote::sh(text))).collect::<Vec<_>>().join(" ")
}

/// The forms in which a secret may stand in a file: as it is, URL-encoded, and inside of base64 wherever it begins there.
fn forms(secret: &str) -> Vec<String> {
    // A pattern is a line.
    let line = secret.lines().map(str::trim).max_by_key(|line| line.len()).unwrap_or_default();
    if line.len() < SHORTEST {
        return Vec::new();
    }
    let mut forms = vec![
        line.to_owned(),
        percent_encoding::utf8_percent_encode(line, percent_encoding::NON_ALPHANUMERIC).to_string(),
    ];
    for before in 0..3_usize {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(line.as_bytes());
        let encoded = STANDARD.encode(&bytes);
        // What its neighbours have a part in is left out, at either end.
        let first = (before * 8).div_ceil(6);
        let last = bytes.len() * 8 / 6;
        forms.extend(encoded.get(first..last).map(str::to_owned));
    }
    forms.sort();
    forms.dedup();
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_base64_wherever_it_begins() {
        let secret = "correct horse battery";
        for before in ["", "a", "ab", "abc", "abcd"] {
            for after in ["", "x", "xy", "xyz"] {
                let encoded = STANDARD.encode(format!("{before}{secret}{after}"));
                assert!(
                    forms(secret).iter().any(|form| encoded.contains(form)),
                    "{before}|{after}: {encoded}"
                );
            }
        }
        assert!(!forms(secret).iter().any(|form| STANDARD.encode("incorrect house battery").contains(form)));
    }

    #[test]
    fn short_texts_are_not_looked_for() {
        assert_eq!(forms("secret"), Vec::<String>::new());
    }
}
