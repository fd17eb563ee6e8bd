//! Whether a host is the one that is meant: its key is shown, compared with what is known, and recorded.

use std::path::{Path, PathBuf};

use russh::keys::PublicKey;
use russh::keys::known_hosts::{known_host_keys_path, learn_known_hosts_path};

use super::talk::{Talk, ask_line};
use super::{Destination, InitError};
use crate::remote::{Host, HostKey};

/// What the known hosts say about a key.
enum Known {
    /// It is the recorded one, in this file.
    Same(PathBuf),
    /// Another one is recorded, in this line of this file.
    Other(PathBuf, usize, String),
    /// Nothing of its kind is recorded.
    Nothing,
}

/// Shows the host key of a host and settles whether it is trusted: by the fingerprint that was given, by forge's own known
/// hosts or those of OpenSSH, or by asking. What is trusted is recorded in forge's own, where that is named.
///
/// # Errors
/// When it is another key than the known one, or nobody vouches for it.
pub async fn settle(
    destination: &Destination,
    given: Option<&str>,
    own: Option<&Path>,
    talk: &Talk,
) -> Result<HostKey, InitError> {
    let (host, port) = (destination.host.as_str(), destination.port.unwrap_or(22));
    let shown = Host::key_of(host, port).await.map_err(|error| {
        InitError::refused(error.to_string())
            .help("is it up, and does its firewall let you in? `--api` needs no SSH")
    })?;
    let kind = shown.public_key.split(' ').next().unwrap_or_default();
    talk.say(&format!("host key   {} ({kind})", shown.fingerprint));
    let record = || own.iter().for_each(|file| record(file, host, port, &shown, talk));
    if let Some(given) = given {
        if given != shown.fingerprint {
            let what = format!(
                "{destination} shows another host key than --host-key says: {} instead of {given}",
                shown.fingerprint
            );
            return Err(InitError::refused(what).help("another machine may have answered; nothing was sent"));
        }
        record();
        return Ok(shown);
    }
    let openssh = std::env::var_os("HOME").map(|home| Path::new(&home).join(".ssh/known_hosts"));
    for file in [own.map(Path::to_owned), openssh].into_iter().flatten() {
        match look_up(&file, host, port, &shown) {
            Known::Same(file) => {
                talk.note(&format!("it is the one that {} has", file.display()));
                record();
                return Ok(shown);
            }
            Known::Other(file, line, recorded) => {
                let what = format!(
                    "{destination} shows another host key than the known one: {} instead of {recorded}",
                    shown.fingerprint
                );
                let hint = format!(
                    "if the host was installed anew, remove line {line} of {} and compare the new key with \
                     `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on its console",
                    file.display()
                );
                return Err(InitError::refused(what).help(hint));
            }
            Known::Nothing => {}
        }
    }
    let question = format!("is this the key of {host}? compare it on its console; yes or no:");
    match ask_line(&question).await.as_deref().map(str::trim) {
        Some("yes" | "y") => {
            record();
            Ok(shown)
        }
        Some(_) => Err(InitError::refused(format!("the host key of {host} was not accepted"))),
        None => {
            let what = format!(
                "nothing is known of {host}'s host key {}, and nobody can be asked",
                shown.fingerprint
            );
            let hint = format!(
                "compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host, and give --host-key {}",
                shown.fingerprint
            );
            Err(InitError::refused(what).help(hint))
        }
    }
}

fn look_up(file: &Path, host: &str, port: u16, shown: &HostKey) -> Known {
    let Ok(key) = PublicKey::from_openssh(&shown.public_key) else { return Known::Nothing };
    // A file that can't be read vouches for nobody.
    let recorded = known_host_keys_path(host, port, file).unwrap_or_default();
    let mut same_kind = recorded.into_iter().filter(|(_, each)| each.algorithm() == key.algorithm());
    match same_kind.next() {
        Some((_, each)) if each.key_data() == key.key_data() => Known::Same(file.to_owned()),
        Some((line, each)) => {
            Known::Other(file.to_owned(), line, each.fingerprint(russh::keys::HashAlg::Sha256).to_string())
        }
        None => Known::Nothing,
    }
}

fn record(file: &Path, host: &str, port: u16, shown: &HostKey, talk: &Talk) {
    if matches!(look_up(file, host, port, shown), Known::Same(_)) {
        return;
    }
    let Ok(key) = PublicKey::from_openssh(&shown.public_key) else { return };
    match learn_known_hosts_path(host, port, &key, file) {
        Ok(()) => talk.note(&format!("recorded in {}", file.display())),
        Err(error) => talk.warn(&format!("the host key can't be recorded in {}: {error}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::BuildKey;

    fn key() -> HostKey {
        let key = BuildKey::generate().expect("made");
        let public = PublicKey::from_openssh(key.public_openssh()).expect("a key");
        HostKey {
            fingerprint: public.fingerprint(russh::keys::HashAlg::Sha256).to_string(),
            public_key: key.public_openssh().to_owned(),
        }
    }

    #[test]
    fn a_recorded_key_is_known_again_and_another_one_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("state/known_hosts");
        let (one, other) = (key(), key());
        let talk = Talk::default();
        assert!(matches!(look_up(&file, "pve1", 22, &one), Known::Nothing));
        record(&file, "pve1", 22, &one, &talk);
        record(&file, "pve1", 22, &one, &talk);
        assert!(matches!(look_up(&file, "pve1", 22, &one), Known::Same(_)));
        assert!(matches!(look_up(&file, "pve1", 2222, &one), Known::Nothing), "another port, another host");
        match look_up(&file, "pve1", 22, &other) {
            Known::Other(_, line, recorded) => {
                let text = std::fs::read_to_string(&file).expect("written");
                assert_eq!(recorded, one.fingerprint);
                assert!(text.lines().nth(line - 1).is_some_and(|text| text.starts_with("pve1 ")), "{text}");
                assert_eq!(text.matches("pve1").count(), 1, "recorded once: {text}");
            }
            _ => panic!("it is another key"),
        }
    }
}
