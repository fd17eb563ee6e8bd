//! What Proxmox VE takes in a VM's configuration, per release: the compact schemas of `schema/`, made by
//! `schema/compact.py` from the API's own description.
//!
//! Nothing of it is written into the code, so that a new release needs data only. On a server that is newer than the
//! newest schema an unknown key, part or value is a warning: the server may well know it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use crate::discovery::suggest;
use crate::vmconfig::PropertyString;

static RELEASES: LazyLock<Vec<Schema>> = LazyLock::new(|| {
    [
        include_str!("../schema/pve-7.4.json"),
        include_str!("../schema/pve-8.4.json"),
        include_str!("../schema/pve-9.2.json"),
    ]
    .iter()
    .filter_map(|text| serde_json::from_str(text).ok())
    .collect()
});

/// What one release takes.
#[derive(Debug, Deserialize)]
pub struct Schema {
    release: String,
    defs: Vec<Entry>,
    keys: BTreeMap<String, Entry>,
}

/// A key, or a part of a property string.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "enum")]
    values: Vec<Value>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    #[serde(rename = "maxLength")]
    max_length: Option<usize>,
    optional: u8,
    default_key: u8,
    alias: Option<String>,
    parts: Option<BTreeMap<String, Part>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Part {
    Shared(usize),
    Own(Entry),
}

/// Something that is wrong with a key or its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// Whether the server certainly refuses it.
    pub fatal: bool,
}

/// The schema for a server, and whether the server is newer than it.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    schema: &'static Schema,
    newer: bool,
}

/// `9.2.11` as major and minor.
fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

impl Release {
    /// The schema that fits a server's version best: the newest of its major release, else the nearest one.
    #[must_use]
    pub fn of(version: &str) -> Option<Self> {
        let asked = numbers(version);
        let newest = RELEASES.last()?;
        let fits = RELEASES.iter().find(|schema| numbers(&schema.release).0 >= asked.0).unwrap_or(newest);
        Some(Self { schema: fits, newer: asked > numbers(&newest.release) })
    }

    /// The release that the schema is of (`9.2`).
    #[must_use]
    pub fn name(&self) -> &'static str {
        &self.schema.release
    }

    /// Whether a key of the configuration is known.
    #[must_use]
    pub fn knows(&self, key: &str) -> bool {
        self.schema.entry(key).is_some()
    }

    /// What is wrong with a key and its value; empty when nothing is.
    #[must_use]
    pub fn check(&self, key: &str, value: &str) -> Vec<Fault> {
        let Some(entry) = self.schema.entry(key) else {
            let known: Vec<&str> = self.schema.keys.keys().map(String::as_str).collect();
            let message = format!("Proxmox VE {} knows no key `{key}`", self.schema.release);
            return vec![self.unknown(message, suggest(key, &known, "keys"))];
        };
        let mut faults = Vec::new();
        match &entry.parts {
            Some(parts) => self.check_parts(key, parts, value, &mut faults),
            None => faults.extend(self.check_value(&format!("`{key}`"), entry, value)),
        }
        faults
    }

    /// What is wrong with single parts of a key's property string, when not all of it is known yet (a disk's options).
    #[must_use]
    pub fn check_options(&self, key: &str, options: &BTreeMap<String, String>) -> Vec<(String, Fault)> {
        let Some(parts) = self.schema.entry(key).and_then(|entry| entry.parts.as_ref()) else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        for (name, value) in options {
            let found = self.check_part(key, parts, name, value);
            faults.extend(found.into_iter().map(|fault| (name.clone(), fault)));
        }
        faults
    }

    fn check_parts(&self, key: &str, parts: &BTreeMap<String, Part>, value: &str, faults: &mut Vec<Fault>) {
        let given = PropertyString::parse(value);
        let first = parts.iter().find(|(_, part)| self.schema.part(part).default_key == 1);
        if let Some(text) = given.first() {
            match first {
                Some((name, part)) => {
                    let what = format!("`{name}` of `{key}`");
                    faults.extend(self.check_value(&what, self.schema.part(part), text));
                }
                None => faults.push(Fault {
                    message: format!("`{text}` in `{key}` has no name"),
                    help: format!("write it as name=value; the names are {}", list(parts)),
                    fatal: true,
                }),
            }
        }
        for (name, text) in given.pairs() {
            faults.extend(self.check_part(key, parts, name, text));
        }
        for (name, part) in parts {
            let entry = self.schema.part(part);
            let given_by_alias = given.pairs().any(|(other, _)| {
                parts.get(other).and_then(|part| self.schema.part(part).alias.as_deref()).is_some()
            });
            let there = given.get(name).is_some() || (entry.default_key == 1 && given.first().is_some());
            if entry.optional == 0 && entry.alias.is_none() && !there && !given_by_alias {
                faults.push(Fault {
                    message: format!("`{name}` is missing in `{key}`"),
                    help: format!("its parts are {}", list(parts)),
                    fatal: true,
                });
            }
        }
    }

    fn check_part(
        &self,
        key: &str,
        parts: &BTreeMap<String, Part>,
        name: &str,
        value: &str,
    ) -> Option<Fault> {
        let mut entry = parts.get(name).map(|part| self.schema.part(part));
        if let Some(alias) = entry.and_then(|entry| entry.alias.as_ref()) {
            entry = parts.get(alias).map(|part| self.schema.part(part));
        }
        let Some(entry) = entry else {
            let known: Vec<&str> = parts.keys().map(String::as_str).collect();
            let message = format!("Proxmox VE {} knows no `{name}` in `{key}`", self.schema.release);
            return Some(self.unknown(message, suggest(name, &known, "parts")));
        };
        self.check_value(&format!("`{name}` of `{key}`"), entry, value)
    }

    fn check_value(&self, what: &str, entry: &Entry, value: &str) -> Option<Fault> {
        let wrong = |message: String, help: &str| Some(Fault { message, help: help.to_owned(), fatal: true });
        let number: Option<f64> = value.parse().ok().filter(|number: &f64| number.is_finite());
        match entry.kind.as_str() {
            "integer" if value.parse::<i64>().is_err() => {
                return wrong(format!("{what} is an integer, not `{value}`"), "write a whole number");
            }
            "number" if number.is_none() => {
                return wrong(format!("{what} is a number, not `{value}`"), "write a number");
            }
            "boolean" if !matches!(value, "0" | "1" | "on" | "off" | "yes" | "no" | "true" | "false") => {
                return wrong(format!("{what} is a switch, not `{value}`"), "write 1 or 0");
            }
            _ => {}
        }
        if let (Some(least), Some(number)) = (entry.minimum, number)
            && number < least
        {
            return wrong(format!("{what} is {least} at least, not {value}"), "");
        }
        if let (Some(most), Some(number)) = (entry.maximum, number)
            && number > most
        {
            return wrong(format!("{what} is {most} at most, not {value}"), "");
        }
        if let Some(most) = entry.max_length.filter(|most| value.chars().count() > *most) {
            return wrong(format!("{what} has {most} characters at most"), "");
        }
        let known: Vec<String> = entry.values.iter().map(plain).collect();
        if !known.is_empty() && !known.iter().any(|each| each == value) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let message = format!("Proxmox VE {} takes no `{value}` for {what}", self.schema.release);
            return Some(self.unknown(message, suggest(value, &known, "values")));
        }
        None
    }

    /// What a newer server may know all the same.
    fn unknown(&self, message: String, help: String) -> Fault {
        Fault { message, help, fatal: !self.newer }
    }
}

impl Schema {
    /// `scsi3` is an instance of `scsi[n]`.
    fn entry(&self, key: &str) -> Option<&Entry> {
        self.keys.get(key).or_else(|| {
            let base = key.trim_end_matches(|c: char| c.is_ascii_digit());
            if base.len() == key.len() { None } else { self.keys.get(&format!("{base}[n]")) }
        })
    }

    fn part<'a>(&'a self, part: &'a Part) -> &'a Entry {
        static NOTHING: LazyLock<Entry> = LazyLock::new(Entry::default);
        match part {
            Part::Own(entry) => entry,
            Part::Shared(number) => self.defs.get(*number).unwrap_or(&NOTHING),
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn list(parts: &BTreeMap<String, Part>) -> String {
    parts.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(version: &str, key: &str, value: &str) -> Vec<(String, bool)> {
        let release = Release::of(version).expect("a schema");
        release.check(key, value).into_iter().map(|fault| (fault.message, fault.fatal)).collect()
    }

    #[test]
    fn each_server_is_judged_by_the_schema_of_its_release() {
        for (version, schema, newer) in [
            ("7.4-16", "7.4", false),
            ("7.1", "7.4", false),
            ("8.0.3", "8.4", false),
            ("8.4.14", "8.4", false),
            ("9.0.3", "9.2", false),
            ("9.2.11", "9.2", false),
            ("9.3.1", "9.2", true),
            ("10.0.1", "9.2", true),
        ] {
            let release = Release::of(version).expect("a schema");
            assert_eq!((release.name(), release.newer), (schema, newer), "{version}");
        }
    }

    #[test]
    fn what_real_configurations_hold_is_sound() {
        for (key, value) in [
            ("machine", "q35"),
            ("machine", "q35,viommu=intel"),
            ("bios", "ovmf"),
            ("scsihw", "virtio-scsi-single"),
            ("scsi3", "local-lvm:20,cache=writeback,discard=on,iothread=1,ssd=1,aio=native,backup=0"),
            ("net0", "virtio,bridge=vmbr0,tag=12,firewall=1,mtu=1,queues=4"),
            ("net1", "virtio=BC:24:11:FD:94:79,bridge=vmbr0"),
            ("vga", "virtio,memory=64"),
            ("vga", "type=qxl2"),
            ("serial0", "socket"),
            ("rng0", "source=/dev/urandom,max_bytes=1024,period=1000"),
            ("efidisk0", "local:1,efitype=4m,pre-enrolled-keys=1"),
            ("tpmstate0", "local:1,version=v2.0"),
            ("balloon", "0"),
            ("numa", "1"),
            ("memory", "2048"),
            ("ostype", "l26"),
            ("hotplug", "network,disk"),
            ("cicustom", "user=local:snippets/u.yaml"),
            ("watchdog", "i6300esb,action=reset"),
        ] {
            for version in ["7.4", "8.4", "9.2"] {
                // Memory is a property string, and a machine has parts, since 8.
                if version == "7.4" && value.contains("viommu") {
                    continue;
                }
                assert_eq!(told(version, key, value), [], "{key}={value} on {version}");
            }
        }
    }

    #[test]
    fn what_a_release_does_not_know_is_told_and_on_a_newer_server_only_a_warning() {
        let unknown = |release: &str| format!("Proxmox VE {release} knows no key `allow-ksm`");
        assert_eq!(told("8.4", "allow-ksm", "1"), [(unknown("8.4"), true)]);
        assert_eq!(told("9.2", "allow-ksm", "1"), []);
        for (key, value, message) in [
            ("scsihv", "lsi", "Proxmox VE 9.2 knows no key `scsihv`"),
            ("ostype", "l27", "Proxmox VE 9.2 takes no `l27` for `ostype`"),
            ("scsi0", "local:1,chache=none", "Proxmox VE 9.2 knows no `chache` in `scsi0`"),
            ("scsi0", "local:1,cache=never", "Proxmox VE 9.2 takes no `never` for `cache` of `scsi0`"),
        ] {
            assert_eq!(told("9.2.11", key, value), [(message.to_owned(), true)]);
            assert_eq!(told("9.3.0", key, value), [(message.to_owned(), false)]);
        }
    }

    #[test]
    fn wrong_values_are_wrong_on_every_server() {
        for (key, value, message) in [
            ("vga", "virtio,memory=1", "`memory` of `vga` is 4 at least, not 1"),
            ("net0", "virtio,tag=5000", "`tag` of `net0` is 4094 at most, not 5000"),
            ("numa", "maybe", "`numa` is a switch, not `maybe`"),
            ("balloon", "much", "`balloon` is an integer, not `much`"),
            ("efidisk0", "efitype=4m", "`file` is missing in `efidisk0`"),
            ("rng0", "max_bytes=1024", "`source` is missing in `rng0`"),
        ] {
            for version in ["9.2.11", "10.0"] {
                assert_eq!(told(version, key, value), [(message.to_owned(), true)]);
            }
        }
    }
}
