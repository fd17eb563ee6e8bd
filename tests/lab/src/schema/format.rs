//! Proxmox's named formats (`dns-name`, `pve-vmid`, …) with their error texts.
//!
//! Texts observed on PVE 9.2 where a transcript has them; the others are from pve-common JSONSchema.pm's facts.
//! A format that is not known here passes: the lab never refuses what it does not understand.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

static PROPERTY_FORMATS: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../schema/formats.json")).unwrap_or_default());

/// The keys of a property string that the schema names only by its format.
pub(super) fn property_format(name: &str) -> Option<&'static Map<String, Value>> {
    PROPERTY_FORMATS.get(name)?.as_object()
}

/// Splits Proxmox's lists: comma, semicolon, white space or NUL.
pub fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ';', ' ', '\t', '\n', '\0']).filter(|item| !item.is_empty())
}

/// Checks a value against a named format.
pub(super) fn check(path: &str, name: &str, value: &str) -> Result<(), String> {
    if let Some(item) = name.strip_suffix("-list") {
        return split_list(value).try_for_each(|entry| check(path, item, entry));
    }
    if let Some(keys) = property_format(name) {
        return super::parse_with(path, keys, value).map(drop);
    }
    match name {
        "dns-name" => test(&DNS_NAME, value, || "value does not look like a valid DNS name\n".to_owned()),
        "pve-vmid" => test(&VMID, value, || "value does not look like a valid VM ID\n".to_owned()),
        "pve-node" => test(&NODE, value, || "value does not look like a valid node name\n".to_owned()),
        "pve-storage-id" => {
            test(&STORAGE, value, || format!("storage ID '{value}' contains illegal characters\n"))
        }
        "pve-tag" => test(&TAG, value, || "invalid characters in tag\n".to_owned()),
        "pve-configid" => test(&CONFIG_ID, value, || format!("invalid configuration ID '{value}'\n")),
        "urlencoded" => test(&URL_ENCODED, value, || format!("invalid urlencoded string: {value}\n")),
        "mac-addr" => {
            test(&MAC, value, || "value does not look like a valid unicast MAC address\n".to_owned())
        }
        "disk-size" => {
            test(&SIZE, value, || format!("value does not look like a valid disk size: {value}\n"))
        }
        "pve-volume-id" => test(&VOLUME, value, || format!("unable to parse volume ID '{value}'\n")),
        "pve-volume-id-or-qm-path" | "pve-volume-id-or-absolute-path" => {
            if matches!(value, "none" | "cdrom") || value.starts_with('/') || VOLUME.is_match(value) {
                Ok(())
            } else {
                Err(format!("unable to parse volume ID '{value}'\n"))
            }
        }
        "pve-vm-cpu-conf" => cpu(value),
        _ => Ok(()),
    }
}

fn test(regex: &Regex, value: &str, error: impl FnOnce() -> String) -> Result<(), String> {
    if regex.is_match(value) { Ok(()) } else { Err(error()) }
}

macro_rules! patterns {
    ($($name:ident = $pattern:literal;)*) => {
        $(static $name: LazyLock<Regex> = LazyLock::new(|| compile($pattern));)*
    };
}

patterns! {
    DNS_NAME = r"^(?:[a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?$";
    VMID = r"^[1-9][0-9]{2,8}$";
    NODE = r"^[a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?$";
    STORAGE = r"(?i)^[a-z][a-z0-9\-_.]*[a-z0-9]$";
    TAG = r"(?i)^[a-z0-9_][a-z0-9_\-+.]*$";
    CONFIG_ID = r"(?i)^[a-z][a-z0-9_-]+$";
    URL_ENCODED = r"^[-%a-zA-Z0-9_.!~*'()]*$";
    MAC = r"(?i)^[a-f0-9][02468ace](?::[a-f0-9]{2}){5}$";
    SIZE = r"^\d+(?:\.\d+)?[KMGT]?$";
    VOLUME = r"^[^:]+:.+$";
}

#[expect(
    clippy::expect_used,
    reason = "the patterns are constants of this module, and a test compiles them all"
)]
fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern compiles")
}

/// Built-in CPU models of PVE 9.2 that an image builder may name; `custom-` ones pass.
const CPU_MODELS: &[&str] = &[
    "486",
    "Broadwell",
    "Broadwell-IBRS",
    "Broadwell-noTSX",
    "Cascadelake-Server",
    "Conroe",
    "Cooperlake",
    "EPYC",
    "EPYC-Genoa",
    "EPYC-IBPB",
    "EPYC-Milan",
    "EPYC-Rome",
    "GraniteRapids",
    "Haswell",
    "Haswell-IBRS",
    "Haswell-noTSX",
    "Icelake-Client",
    "Icelake-Server",
    "IvyBridge",
    "IvyBridge-IBRS",
    "KnightsMill",
    "Nehalem",
    "Nehalem-IBRS",
    "Opteron_G1",
    "Opteron_G2",
    "Opteron_G3",
    "Opteron_G4",
    "Opteron_G5",
    "Penryn",
    "SandyBridge",
    "SandyBridge-IBRS",
    "SapphireRapids",
    "Skylake-Client",
    "Skylake-Server",
    "Westmere",
    "Westmere-IBRS",
    "athlon",
    "core2duo",
    "coreduo",
    "host",
    "kvm32",
    "kvm64",
    "max",
    "pentium",
    "pentium2",
    "pentium3",
    "phenom",
    "qemu32",
    "qemu64",
    "x86-64-v2",
    "x86-64-v2-AES",
    "x86-64-v3",
    "x86-64-v4",
];

/// Built-in CPU models, for `capabilities`.
pub fn cpu_models() -> &'static [&'static str] {
    CPU_MODELS
}

fn cpu(value: &str) -> Result<(), String> {
    let first = value.split(',').next().unwrap_or_default();
    let model = first.strip_prefix("cputype=").unwrap_or(first);
    if model.contains('=') || model.starts_with("custom-") || CPU_MODELS.contains(&model) {
        return Ok(());
    }
    Err(format!("Built-in cputype '{model}' is not defined (missing 'custom-' prefix?)\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles_and_the_property_formats_are_there() {
        for regex in [&DNS_NAME, &VMID, &NODE, &STORAGE, &TAG, &CONFIG_ID, &URL_ENCODED, &MAC, &SIZE, &VOLUME]
        {
            assert!(!regex.as_str().is_empty());
        }
        assert!(property_format("pve-qm-smbios1").is_some());
    }
}
