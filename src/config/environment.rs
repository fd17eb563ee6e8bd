//! A site out of environment variables: Packer's names, and the users' `.env.proxmox`. For those without a `forge.toml`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::findings::{Finding, nearest};
use super::place::Place;
use super::secrets::Secret;
use super::site::{
    ProxmoxTarget, SecretRef, SeedConfig, Site, Target, TargetKind, TlsConfig, is_fingerprint, is_token_id,
};

/// The names that are read.
const NAMES: [&str; 16] = [
    "PROXMOX_URL",
    "PROXMOX_USERNAME",
    "PROXMOX_TOKEN",
    "PROXMOX_TOKEN_ID",
    "PROXMOX_TOKEN_SECRET",
    "PROXMOX_PASSWORD",
    "PROXMOX_NODE",
    "PROXMOX_SKIP_TLS_VERIFY",
    "PROXMOX_TLS_FINGERPRINT",
    "PROXMOX_STORAGE_VM",
    "PROXMOX_STORAGE_ISO",
    "PROXMOX_CLOUDINIT_STORAGE",
    "PROXMOX_BRIDGE",
    "PROXMOX_POOL",
    "PACKER_HTTP_BIND_ADDRESS",
    "PACKER_HTTP_PORT",
];

/// The name of the target that the environment describes.
const TARGET: &str = "environment";

/// A site from these variables; `None` without `PROXMOX_URL`, or when a finding is fatal.
///
/// `PROXMOX_URL` may end in `/api2/json`. The token is `PROXMOX_TOKEN_ID` and `PROXMOX_TOKEN_SECRET`, or in Packer's way
/// `PROXMOX_USERNAME` as `user@realm!token` and `PROXMOX_TOKEN`, or as a user with `PROXMOX_PASSWORD`. `origin` says where the variables are from.
#[must_use]
pub fn from_environment(env: &BTreeMap<String, String>, origin: &str) -> (Option<Site>, Vec<Finding>) {
    let get =
        |name: &str| env.get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let wrong = |name: &str, what: &str| Finding {
        setting: name.into(),
        ..Finding::general(format!("{origin}: {what}"))
    };
    let Some(url) = get("PROXMOX_URL") else { return (None, Vec::new()) };
    let mut findings = Vec::new();
    if !url.starts_with("https://") {
        let finding = wrong("PROXMOX_URL", &format!("`{url}` is no https:// address"));
        findings.push(finding.help("Proxmox's API is at https://HOST:8006"));
    }
    let mut token_id =
        get("PROXMOX_TOKEN_ID").or_else(|| get("PROXMOX_USERNAME").filter(|user| user.contains('!')));
    let mut secret = get("PROXMOX_TOKEN_SECRET").or_else(|| get("PROXMOX_TOKEN"));
    let by_password = token_id.is_none() && secret.is_none();
    if by_password && let (Some(user), Some(password)) = (get("PROXMOX_USERNAME"), get("PROXMOX_PASSWORD")) {
        (token_id, secret) = (Some(user), Some(password));
    }
    if token_id.is_none() || secret.is_none() {
        let what = match (get("PROXMOX_PASSWORD"), &token_id) {
            (Some(_), _) => "a password is given, and PROXMOX_USERNAME (user@realm) is not",
            (None, None) => "PROXMOX_URL is set, and the token's id is not",
            (None, Some(_)) => "PROXMOX_URL is set, and the token's secret is not",
        };
        let help = "set PROXMOX_TOKEN_ID (user@realm!token) and PROXMOX_TOKEN_SECRET, or in Packer's way PROXMOX_USERNAME \
                    (user@realm!token) and PROXMOX_TOKEN, or a user and PROXMOX_PASSWORD";
        findings.push(wrong("", what).help(help));
    }
    if let Some(id) = token_id.as_ref().filter(|id| !(is_token_id(id) || by_password && id.contains('@'))) {
        let finding = wrong("PROXMOX_TOKEN_ID", &format!("`{id}` is no token id"));
        findings.push(finding.help("it has the form user@realm!token, as Proxmox shows it"));
    }
    let skip = get("PROXMOX_SKIP_TLS_VERIFY").unwrap_or_default().to_lowercase();
    let skip = match skip.as_str() {
        "true" | "1" | "yes" | "on" => true,
        "" | "false" | "0" | "no" | "off" => false,
        other => {
            let finding = wrong("PROXMOX_SKIP_TLS_VERIFY", &format!("`{other}` is neither true nor false"));
            findings.push(finding);
            false
        }
    };
    let fingerprint = get("PROXMOX_TLS_FINGERPRINT");
    if let Some(text) = fingerprint.as_ref().filter(|text| !is_fingerprint(text)) {
        let finding = wrong("PROXMOX_TLS_FINGERPRINT", &format!("`{text}` is no SHA-256 fingerprint"));
        findings.push(finding.help("it has 32 pairs of hexadecimal digits; `pvenode cert info` shows it"));
    }
    // A certificate that is pinned is verified, whatever is said to programs that can't pin one.
    if skip && fingerprint.is_none() {
        let what = "PROXMOX_SKIP_TLS_VERIFY: any certificate is accepted, and whoever is on the way can read the token";
        let finding = wrong("", what).help("write a forge.toml with `tls = { fingerprint = \"…\" }` instead");
        findings.push(finding.warning());
    }
    let seed = seed(
        get("PACKER_HTTP_BIND_ADDRESS").as_deref(),
        get("PACKER_HTTP_PORT").as_deref(),
        &wrong,
        &mut findings,
    );
    if findings.iter().any(|finding| finding.fatal) {
        return (None, findings);
    }
    let target = ProxmoxTarget {
        urls: vec![url],
        proxy: None,
        token_id: token_id.unwrap_or_default(),
        token_secret: SecretRef::Given(Secret::new(secret.unwrap_or_default())),
        tls: match fingerprint {
            Some(fingerprint) => TlsConfig::Fingerprint(vec![fingerprint]),
            None if skip => TlsConfig::Insecure,
            None => TlsConfig::System,
        },
        nodes: get("PROXMOX_NODE").into_iter().collect(),
        disk_storage: get("PROXMOX_STORAGE_VM"),
        role: None,
        iso_storage: get("PROXMOX_STORAGE_ISO"),
        cloud_init_storage: get("PROXMOX_CLOUDINIT_STORAGE"),
        archive_storage: None,
        bridge: get("PROXMOX_BRIDGE"),
        vmids: None,
        pool: get("PROXMOX_POOL"),
    };
    let target = Target { name: TARGET.into(), kind: TargetKind::Proxmox(Box::new(target)), seed };
    let site = Site {
        targets: BTreeMap::from([(TARGET.to_owned(), target)]),
        default_target: Some(TARGET.into()),
        origin: origin.into(),
    };
    (Some(site), findings)
}

fn seed(
    address: Option<&str>,
    port: Option<&str>,
    wrong: &impl Fn(&str, &str) -> Finding,
    findings: &mut Vec<Finding>,
) -> SeedConfig {
    let mut seed = SeedConfig::default();
    match address.map(|address| (address, address.parse::<IpAddr>())) {
        None => {}
        Some((_, Ok(any))) if any.is_unspecified() => seed.bind = any.to_string(),
        // In Packer this is also the address that guests are given.
        Some((_, Ok(address))) => {
            seed.bind = address.to_string();
            seed.address = Some(address.to_string());
        }
        Some((text, Err(_))) => {
            findings.push(wrong("PACKER_HTTP_BIND_ADDRESS", &format!("`{text}` is no IP address")));
        }
    }
    match port.map(|port| (port, port.parse::<u16>())) {
        None => {}
        Some((_, Ok(port))) => seed.ports = (port, port),
        Some((text, Err(_))) => findings.push(wrong("PACKER_HTTP_PORT", &format!("`{text}` is no port"))),
    }
    seed
}

/// Reads a file of variables in the users' form: `NAME=value`, `export` allowed, values quoted or not, `#` comments.
/// A name that is nearly one of forge's is told, as a warning.
#[must_use]
pub fn read_env_file(file: &Path, text: &str) -> (BTreeMap<String, String>, Vec<Finding>) {
    let mut env = BTreeMap::new();
    let mut findings = Vec::new();
    let file = Arc::new(file.to_owned());
    for (index, line) in text.lines().enumerate() {
        let place = Place { file: file.clone(), line: index + 1, column: 1 };
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let assignment = line.strip_prefix("export").filter(|rest| rest.starts_with(char::is_whitespace));
        let assignment = assignment.unwrap_or(line).trim_start();
        let Some((name, value)) = assignment.split_once('=').filter(|(name, _)| is_name(name)) else {
            // The line is not shown: it may hold a secret.
            let finding = Finding::at(&place, "", "this is no NAME=value");
            findings.push(finding.help("one a line, `export` allowed, no spaces around `=`"));
            continue;
        };
        let like_ours = name.starts_with("PROXMOX_") || name.starts_with("PACKER_");
        if like_ours
            && !NAMES.contains(&name)
            && let Some(near) = nearest_name(name)
        {
            let finding = Finding::at(&place, "", format!("`{name}` is not read"));
            findings.push(finding.help(format!("did you mean `{near}`?")).warning());
        }
        match unquoted(value.trim()) {
            Some(value) => {
                env.insert(name.to_owned(), value);
            }
            None => {
                let finding =
                    Finding::at(&place, "", format!("the quotes around the value of `{name}` do not end"));
                findings.push(finding);
            }
        }
    }
    (env, findings)
}

fn nearest_name(name: &str) -> Option<&'static str> {
    let prefix = ["PROXMOX_", "PACKER_"].into_iter().find(|prefix| name.starts_with(prefix))?;
    let fold = |name: &str| name.strip_prefix(prefix).map(|rest| rest.replace('_', "-").to_lowercase());
    let known: Vec<(String, &'static str)> =
        NAMES.iter().filter_map(|name| Some((fold(name)?, *name))).collect();
    let near = nearest(&fold(name)?, known.iter().map(|(rest, _)| rest.as_str()))?;
    known.iter().find(|(rest, _)| rest == near).map(|(_, name)| *name)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// As a shell reads it, without expansions: in double quotes a backslash keeps `"`, `\`, `$` and a backquote.
fn unquoted(value: &str) -> Option<String> {
    if let Some(inner) = value.strip_prefix('\'') {
        return inner.split_once('\'').map(|(text, _)| text.to_owned());
    }
    let Some(inner) = value.strip_prefix('"') else {
        let end = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
        return value.get(..end).map(|text| text.trim_end().to_owned());
    };
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return Some(text),
            '\\' => match characters.next()? {
                kept @ ('"' | '\\' | '$' | '`') => text.push(kept),
                other => text.extend(['\\', other]),
            },
            other => text.push(other),
        }
    }
    None
}
