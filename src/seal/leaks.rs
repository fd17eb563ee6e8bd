//! What must not stay in the guest, and how the last operations of the seal look for it.

use std::time::Duration;

use forge_machine::Forbidden;

use crate::event::inside_base64;
use crate::remote::{BuildKey, quote};

/// Shorter texts stand in files by chance.
const SHORTEST: usize = 8;
/// The longest lines of a secret that has several; where one of them is, the others are.
const LINES: usize = 4;
/// The clocks of this machine and the guest differ, and the build began before the guest did. A guest that takes a hardware
/// clock in UTC for local time has the wrong hour until it asks the network, by up to a day.
const SLACK: Duration = Duration::from_secs(26 * 3600);

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct Leaks {
    kinds: Vec<Kind>,
    /// The lines of the build's private key that hold its secret: for the disks that are searched from outside alone.
    secret_lines: Vec<String>,
    /// How long the build has taken; files that were not written since are not looked at.
    since: Duration,
}

const PRIVATE_KEY: &str = "the build's private key";

/// One kind of what is looked for.
#[derive(Clone, Debug)]
struct Kind {
    /// In words.
    name: &'static str,
    /// The texts that give it away.
    texts: Vec<String>,
    /// Whether it is worth something when the build is over, so that it may not be in free space either.
    lasting: bool,
}

impl Leaks {
    /// What a build has that must not stay: its key, where it is known, and its secrets in the forms that they travel in;
    /// those of them that outlast it are in both lists.
    #[must_use]
    pub fn of_build(key: Option<&BuildKey>, secrets: &[String], lasting: &[String], since: Duration) -> Self {
        let public = key.and_then(|key| key.public_openssh().split_whitespace().nth(1)).map(str::to_owned);
        let private = key.map(BuildKey::telling_lines).unwrap_or_default();
        let of = |secrets: Vec<&String>| -> Vec<String> {
            secrets.into_iter().flat_map(|secret| forms(secret)).collect()
        };
        let (stay, pass): (Vec<&String>, Vec<&String>) =
            secrets.iter().partition(|secret| lasting.contains(secret));
        let kind = |name, texts: Vec<String>, lasting| {
            let texts = texts.into_iter().filter(|text| text.len() >= SHORTEST).collect();
            Kind { name, texts, lasting }
        };
        let stay = of(stay);
        let kinds = [
            kind(PRIVATE_KEY, private, !stay.is_empty()),
            kind("the build's public key", public.into_iter().collect(), false),
            kind("a secret of the build", stay, true),
            kind("a secret of the build", of(pass), false),
        ];
        let secret_lines = key.map(BuildKey::secret_lines).unwrap_or_default();
        Self { kinds: kinds.into_iter().filter(|kind| !kind.texts.is_empty()).collect(), secret_lines, since }
    }

    /// What may not be on a disk at all, neither in a file nor in its free space.
    #[must_use]
    pub fn on_disk(&self) -> Vec<Forbidden> {
        let text = |text: &String, kind| Forbidden { text: text.clone(), kind };
        let kinds = self.kinds.iter().filter(|kind| kind.lasting && kind.name != PRIVATE_KEY);
        let secrets = kinds.flat_map(|kind| kind.texts.iter().map(move |each| text(each, kind.name)));
        let key = self.secret_lines.iter().map(|line| text(line, PRIVATE_KEY));
        key.chain(secrets).collect()
    }

    /// Whether the guest was given a secret that outlasts the build: the build's own key never comes there.
    pub(super) fn has_lasting(&self) -> bool {
        self.kinds.iter().any(|kind| kind.lasting)
    }

    /// The shell text before the operation's own. The texts go into files of the script's own folder, which is in memory:
    /// command lines are seen by everybody, and not of any length.
    pub(super) fn prelude(&self, operations: &[String]) -> String {
        let on = |name: &str| if operations.iter().any(|each| each == name) { "yes" } else { "no" };
        let now = jiff::Timestamp::now().as_second();
        let canary = format!("forge-canary-{:032x}", rand::random::<u128>());
        let mut text = format!(
            "LEAK_DIR=${{0%/*}}\nLEAK_NOW={now}\nLEAK_MINUTES={}\nLEAK_CANARY={canary}\nLEAK_GATE={}\n\
             LEAK_HOST_KEYS={}\nLEAK_INSTANCE={}\n",
            (self.since + SLACK).as_secs().div_ceil(60),
            on("leak-gate"),
            on("ssh-host-keys"),
            on("cloud-init"),
        );
        let store = |file: &str, texts: &[String]| {
            let words: Vec<_> = texts.iter().map(|text| quote::sh(text)).collect();
            // Not as a here-document, which some shells put on the disk.
            format!("printf '%s\\n' {} >>\"$LEAK_DIR/{file}\" || exit 1\n", words.join(" "))
        };
        text.push_str(&store("leaks", std::slice::from_ref(&canary)));
        let mut kinds = String::new();
        for (number, kind) in self.kinds.iter().enumerate() {
            let file = format!("leak.{number}");
            text.push_str(&store(&file, &kind.texts));
            text.push_str(&format!("cat \"$LEAK_DIR/{file}\" >>\"$LEAK_DIR/leaks\"\n"));
            if kind.lasting {
                text.push_str(&format!("cat \"$LEAK_DIR/{file}\" >>\"$LEAK_DIR/lasting\"\n"));
            }
            kinds.push_str(&format!(
                "  if LC_ALL=C grep -qF -f \"$LEAK_DIR/{file}\"; then echo {}; return 0; fi <\"$1\"\n",
                quote::sh(kind.name)
            ));
        }
        text.push_str(&format!("leak_kind() {{\n{kinds}  echo something\n}}\n"));
        text
    }
}

/// The forms in which a secret may stand in a file: as it is, URL-encoded, as JSON and shells write it, in hexadecimal, and
/// inside of base64 wherever it begins there, also as the UTF-16 of Windows.
fn forms(secret: &str) -> Vec<String> {
    // A pattern is a line.
    let mut lines: Vec<&str> = secret.lines().map(str::trim).filter(|line| line.len() >= SHORTEST).collect();
    lines.retain(|line| !line.starts_with("-----"));
    lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
    let mut forms: Vec<String> = lines.into_iter().take(LINES).flat_map(forms_of_line).collect();
    forms.sort();
    forms.dedup();
    forms
}

fn forms_of_line(line: &str) -> Vec<String> {
    let utf16: Vec<u8> = line.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let json = serde_json::to_string(line).unwrap_or_default();
    let hex: String = line.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        line.to_owned(),
        percent_encoding::utf8_percent_encode(line, percent_encoding::NON_ALPHANUMERIC).to_string(),
        json.trim_matches('"').to_owned(),
        line.replace('\'', r"'\''"),
        hex.to_uppercase(),
        hex,
    ];
    forms.extend(inside_base64(line.as_bytes()));
    forms.extend(inside_base64(&utf16));
    forms
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

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
    fn a_secret_is_found_in_what_powershell_takes_for_a_command_and_in_other_writings() {
        let secret = "it's \"a\" secret/+";
        let found = |text: &str| forms(secret).iter().any(|form| text.contains(form));
        for before in ["", "$a='", "a", "ab"] {
            let utf16: Vec<u8> =
                format!("{before}{secret}'").encode_utf16().flat_map(u16::to_le_bytes).collect();
            assert!(found(&STANDARD.encode(utf16)), "{before}");
        }
        assert!(found(&serde_json::json!({ "token": secret }).to_string()));
        assert!(found("TOKEN='it'\\''s \"a\" secret/+'"));
        assert!(found("00697427732022612220736563726574 2f2b".replace(' ', "").as_str()));
    }

    #[test]
    fn of_a_secret_of_several_lines_its_longest_are_looked_for_and_not_what_frames_it() {
        let key =
            "-----BEGIN OPENSSH PRIVATE KEY-----\nshort\nb3BlbnNzaC1rZXktdjEA\nAAAAB3NzaC1yc2E=\n-----END";
        let forms = forms(key);
        assert!(
            forms.contains(&"b3BlbnNzaC1rZXktdjEA".to_owned())
                && forms.contains(&"AAAAB3NzaC1yc2E=".to_owned())
        );
        assert!(!forms.iter().any(|form| form.contains("BEGIN") || form == "short"));
    }

    #[test]
    fn short_texts_are_not_looked_for() {
        assert_eq!(forms("secret"), Vec::<String>::new());
    }
}
