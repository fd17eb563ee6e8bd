//! Agama's profile: JSON with the sections and keys of its schema.

use serde_json::Value;

use super::{Found, nearest};

/// The sections of `profile.schema.json` for Leap 16.0 and SLES 16.0.
const SECTIONS: &[&str] = &[
    "$schema",
    "files",
    "scripts",
    "bootloader",
    "dasd",
    "zfcp",
    "hostname",
    "security",
    "software",
    "questions",
    "product",
    "network",
    "user",
    "root",
    "localization",
    "storage",
    "legacyAutoyastStorage",
    "iscsi",
];
/// Sections of which every key is known.
const CLOSED: &[(&str, &[&str])] = &[
    ("/user", &["fullName", "userName", "password", "hashedPassword"]),
    ("/root", &["password", "hashedPassword", "sshPublicKey"]),
    ("/product", &["id", "registrationCode", "registrationEmail", "registrationUrl", "addons"]),
    ("/scripts", &["pre", "postPartitioning", "post", "init"]),
    ("/storage", &["boot", "drives", "volumeGroups", "mdRaids"]),
    ("/questions", &["policy", "answers"]),
    ("/network", &["connections", "state"]),
];
/// The keys of a connection.
const CONNECTION: &[&str] = &[
    "id",
    "interface",
    "customMacAddress",
    "macAddress",
    "mtu",
    "method4",
    "method6",
    "gateway4",
    "gateway6",
    "addresses",
    "nameservers",
    "dnsSearchlist",
    "ignoreAutoDns",
    "status",
    "autoconnect",
    "persistent",
    "wireless",
    "bond",
    "bridge",
    "match",
    "ieee-8021x",
    "vlan",
];

/// The line of a key: forge writes one to a line.
fn line_of(text: &str, key: &str) -> usize {
    let quoted = format!("\"{key}\":");
    text.lines().position(|line| line.trim_start().starts_with(&quoted)).map_or(1, |index| index + 1)
}

pub(super) fn lint(text: &str) -> Vec<Found> {
    let profile: Value = match serde_json::from_str(text) {
        Ok(profile) => profile,
        Err(error) => return vec![Found::new(error.line().max(1), format!("this is no JSON: {error}"), "")],
    };
    let Some(table) = profile.as_object() else {
        return vec![Found::new(1, "a profile is a JSON object", "")];
    };
    let mut found = Vec::new();
    for key in table.keys().filter(|key| !SECTIONS.contains(&key.as_str())) {
        let message = format!("Agama has no section `{key}`");
        found.push(Found::new(line_of(text, key), message, nearest(key, SECTIONS)));
    }
    let closed = |value: &Value, place: &str, keys: &[&str], found: &mut Vec<Found>| {
        for key in value.as_object().into_iter().flatten().map(|(key, _)| key) {
            if !keys.contains(&key.as_str()) {
                let message = format!("`{place}` has no `{key}`");
                found.push(Found::new(line_of(text, key), message, nearest(key, keys)));
            }
        }
    };
    for (pointer, keys) in CLOSED {
        if let Some(value) = profile.pointer(pointer) {
            closed(value, pointer.trim_start_matches('/'), keys, &mut found);
        }
    }
    for connection in profile.pointer("/network/connections").and_then(Value::as_array).into_iter().flatten()
    {
        closed(connection, "network.connections", CONNECTION, &mut found);
        if connection.get("id").is_none() {
            found.push(Found::new(line_of(text, "connections"), "a connection has no `id`", ""));
        }
    }
    for (pointer, what) in [("/product/id", "the product"), ("/storage", "what to do with the disks")] {
        if profile.pointer(pointer).is_none() && profile.get("legacyAutoyastStorage").is_none() {
            found.push(Found::new(
                1,
                format!("`{}` is not answered: Agama would ask {what}", pointer.trim_start_matches('/')),
                "",
            ));
        }
    }
    if profile.get("user").is_none() && profile.get("root").is_none() {
        found.push(Found::new(1, "neither `user` nor `root` is there: Agama would ask who may log in", ""));
    }
    if profile.pointer("/user").is_some() {
        for key in ["fullName", "userName", "password"] {
            if profile.pointer(&format!("/user/{key}")).is_none() {
                found.push(Found::new(line_of(text, "user"), format!("`user` lacks `{key}`"), ""));
            }
        }
    }
    if profile.pointer("/questions/policy").and_then(Value::as_str) != Some("auto") {
        let message = "`questions.policy` is not `auto`: a question would wait for somebody";
        found.push(Found::new(line_of(text, "questions"), message, ""));
    }
    found
}
