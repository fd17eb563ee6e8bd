//! The first contact with a target whose certificate nobody vouches for: whoever sits at the terminal is shown its
//! fingerprint and may accept it, for this run or for good. Elsewhere the error has the setting that accepts it.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::options::Global;
use super::prepare;
use crate::backends::{self, Stranger};
use crate::config::site::{self, TlsConfig};
use crate::config::{Finding, SiteSearch, Target, TargetKind};
use crate::ui::{self, input};

/// What was accepted in this run, by the names of targets: a target may be opened more than once.
static ACCEPTED: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());

/// The target as its user accepts it; `None` where there is nothing to ask, or nobody who could be. Before the answer no
/// secret is sent.
///
/// # Errors
/// A finding, when the certificate is not accepted.
pub async fn meet(target: &Target, secret: Option<&str>, global: &Global) -> Result<Option<Target>, Finding> {
    let unpinned = matches!(&target.kind, TargetKind::Proxmox(proxmox) if proxmox.tls == TlsConfig::System);
    let person = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !unpinned || !person || global.json || global.quiet {
        return Ok(None);
    }
    let known = ACCEPTED.lock().unwrap_or_else(PoisonError::into_inner).get(&target.name).cloned();
    if let Some(pins) = known {
        return Ok(Some(pinned(target, pins)));
    }
    let strangers = backends::strangers(target, secret).await;
    if strangers.is_empty() {
        return Ok(None);
    }
    let file = match &global.env_file {
        // The target may be that file's.
        Some(_) => None,
        None => {
            let (config, environment) = (global.config.clone(), prepare::environment());
            SiteSearch { config, environment, env_file: None }.site_file()
        }
    };
    let mut pins: Vec<String> = strangers.iter().map(|each| each.fingerprint.clone()).collect();
    pins.sort();
    pins.dedup();
    let text = file.as_deref().and_then(|file| Some((file, std::fs::read_to_string(file).ok()?)));
    let written = text.and_then(|(file, text)| Some((file, with_pins(file, &text, &target.name, &pins)?)));
    let mut question = question(target, &strangers, written.as_ref().map(|(file, _)| *file));
    loop {
        match (input::answer(&question).await.as_deref().map(str::trim), &written) {
            (Some("y"), _) => {
                ui::say(&format!("this once; for good: {} in `[targets.{}]`", setting(&pins), target.name));
                break;
            }
            (Some("w"), Some((file, text))) => {
                std::fs::write(file, text).map_err(|error| {
                    Finding::in_file(*file, format!("can't be written: {error}")).help(setting(&pins))
                })?;
                ui::say(&format!("{} has it now: {}", file.display(), setting(&pins)));
                break;
            }
            (Some("n") | None, _) => {
                let words = format!("the certificate of target `{}` is not accepted", target.name);
                return Err(Finding::general(words));
            }
            (Some(_), Some(_)) => question = "y, w or n".to_owned(),
            (Some(_), None) => question = "y or n".to_owned(),
        }
    }
    ACCEPTED.lock().unwrap_or_else(PoisonError::into_inner).insert(target.name.clone(), pins.clone());
    Ok(Some(pinned(target, pins)))
}

/// The target with these certificates and no others.
fn pinned(target: &Target, pins: Vec<String>) -> Target {
    let mut target = target.clone();
    if let TargetKind::Proxmox(proxmox) = &mut target.kind {
        proxmox.tls = TlsConfig::Fingerprint(pins);
    }
    target
}

fn question(target: &Target, strangers: &[Stranger], file: Option<&Path>) -> String {
    let mut text = format!("target `{}` shows a certificate that is not trusted:\n", target.name);
    for Stranger { address, reason, fingerprint } in strangers {
        text.push_str(&format!("  {address}: {reason}\n  SHA-256 {fingerprint}\n"));
    }
    text.push_str("Is it what `pvenode cert info` shows on the host? y: go on with it this once");
    if let Some(file) = file {
        text.push_str(&format!("; w: write it into {} and go on", file.display()));
    }
    text + "; n: stop"
}

/// The line of the site file that accepts these certificates.
fn setting(pins: &[String]) -> String {
    match pins {
        [one] => format!("tls = {{ fingerprint = \"{one}\" }}"),
        several => format!("tls = {{ fingerprint = [\"{}\"] }}", several.join("\", \"")),
    }
}

/// A site file's text with the certificates of one of its targets; `None` where it can't be written in so simply. Nothing
/// else is changed.
fn with_pins(file: &Path, text: &str, name: &str, pins: &[String]) -> Option<String> {
    let headers = [format!("[targets.{name}]"), format!("[targets.\"{name}\"]")];
    let mut new = String::new();
    for line in text.split_inclusive('\n') {
        new.push_str(line);
        let code = line.split('#').next().unwrap_or_default().trim();
        if line.ends_with('\n') && headers.iter().any(|header| header == code) {
            new.push_str(&setting(pins));
            new.push('\n');
        }
    }
    // What was written is read again: it has to say just that.
    let (before, wrong_before) = site::read(file, text);
    let (mut after, wrong) = site::read(file, &new);
    match &mut after.targets.get_mut(name)?.kind {
        TargetKind::Proxmox(proxmox) if proxmox.tls == TlsConfig::Fingerprint(pins.to_vec()) => {
            proxmox.tls = TlsConfig::System;
        }
        _ => return None,
    }
    (after == before && wrong.len() == wrong_before.len()).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "# ours\n[targets.pve] # the cluster\ntype = \"proxmox\"\nurl = \"https://pve:8006\"\n\
                        token-id = \"forge@pve!build\"\ntoken-secret = { env = \"SECRET\" }\n";

    fn pins(count: usize) -> Vec<String> {
        ["AB", "CD"].iter().take(count).map(|pair| [*pair; 32].join(":")).collect()
    }

    #[test]
    fn what_is_accepted_is_written_below_the_targets_name_and_nothing_else_changes() {
        let other = format!("{SITE}\n{}", SITE.replace("pve]", "other]"));
        for (text, count) in [(SITE, 1), (SITE, 2), (&other, 1)] {
            let new = with_pins(Path::new("forge.toml"), text, "pve", &pins(count)).expect("written");
            assert_eq!(new.replacen(&format!("{}\n", setting(&pins(count))), "", 1), text);
            assert!(new.starts_with("# ours\n[targets.pve] # the cluster\ntls = { fingerprint = "), "{new}");
        }
    }

    #[test]
    fn a_file_that_says_it_otherwise_is_left_to_its_owner() {
        let inline = "targets = { pve = { type = \"proxmox\", url = \"https://pve:8006\" } }\n";
        let insecure = SITE.replace("type =", "tls = { insecure = true }\ntype =");
        for text in [inline, &insecure, "", "no TOML"] {
            assert_eq!(with_pins(Path::new("forge.toml"), text, "pve", &pins(1)), None, "{text}");
        }
    }
}
