//! What Proxmox VE takes in a VM's configuration, per release: the compact schemas of `schema/`, made by
//! `schema/compact.py` from the API's own description, and read as its own reader does (pve-common, `JSONSchema.pm`).
//!
//! Nothing of it is written into the code, so that a new release needs data only. On a server that is newer than the
//! newest schema an unknown key, part or value is a warning: the server may well know it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex_lite::Regex;
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

/// How a switch is written, in any case.
const SWITCH: [&str; 8] = ["0", "1", "on", "off", "yes", "no", "true", "false"];
/// What stands between the items of Proxmox's lists.
const SEPARATORS: &str = ",; \t\r\n\0";

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
    /// A Perl pattern: it has to match from the first to the last character.
    pattern: Option<String>,
    /// What the pattern takes, in words.
    form: Option<String>,
    /// The value is a list, and this is what each of its items is like.
    items: Option<Box<Entry>>,
    /// What stands between the items, where it is less than Proxmox's usual signs.
    separators: Option<String>,
    /// Signs of which one stands before a value of the enumeration.
    signs: String,
    /// A server of this release may take more than is known of it.
    open: u8,
    /// How many of a numbered key a VM has.
    slots: Option<u32>,
    parts: Option<BTreeMap<String, Part>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Part {
    Shared(usize),
    Own(Box<Entry>),
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

    /// Every known release, the oldest first, each as a server that is newer than all of them would be judged by it.
    #[must_use]
    pub fn all() -> Vec<Self> {
        RELEASES.iter().map(|schema| Self { schema, newer: true }).collect()
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
        let Some(entry) = self.schema.entry(key) else { return vec![self.unknown_key(key)] };
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
        let default = parts.iter().find(|(_, part)| self.schema.part(part).default_key == 1);
        let mut seen = BTreeSet::new();
        for (name, text) in given.parts().filter(|(name, text)| name.is_some() || !text.trim().is_empty()) {
            let (name, fault) = match (name, default) {
                (Some(name), _) if text.is_empty() => (name, Some(empty(key, name))),
                (Some(name), _) => (name, self.check_part(key, parts, name, text)),
                (None, Some((name, part))) => {
                    let what = format!("`{name}` of `{key}`");
                    (name.as_str(), self.check_value(&what, self.schema.part(part), text))
                }
                (None, None) => (text, Some(nameless(key, text, parts))),
            };
            // `virtio=ADDRESS` names the model and the address at once: it is that key that stands there once.
            let fault = if seen.insert(name) { fault } else { Some(twice(key, name, text, parts)) };
            faults.extend(fault);
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
        if let Some(items) = &entry.items {
            let signs = entry.separators.as_deref().unwrap_or(SEPARATORS);
            let items_of = value.split(|c| signs.contains(c)).filter(|item| !item.is_empty());
            return items_of.into_iter().find_map(|item| self.check_value(what, items, item));
        }
        let wrong = |message: String, help: &str| Some(Fault { message, help: help.to_owned(), fatal: true });
        let number: Option<f64> = value.parse().ok().filter(|number: &f64| number.is_finite());
        match entry.kind.as_str() {
            "integer" if value.parse::<i64>().is_err() => {
                return wrong(format!("{what} is an integer, not `{value}`"), "write a whole number");
            }
            "number" if number.is_none() => {
                return wrong(format!("{what} is a number, not `{value}`"), "write a number");
            }
            "boolean" if !SWITCH.contains(&value.to_ascii_lowercase().as_str()) => {
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
        let refused =
            |value: &str| format!("Proxmox VE {} takes no `{value}` for {what}", self.schema.release);
        if entry.pattern.as_deref().is_some_and(|pattern| !matches(pattern, value)) {
            let form = entry.form.as_ref().map(|form| format!("write {form}"));
            return Some(self.unknown(refused(value), form.unwrap_or_default()));
        }
        let name = value.strip_prefix(|c| entry.signs.contains(c)).unwrap_or(value);
        let known: Vec<String> = entry.values.iter().map(plain).collect();
        if !known.is_empty() && !known.iter().any(|each| each == name) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let fault = self.unknown(refused(value), suggest(name, &known, "values"));
            return Some(Fault { fatal: fault.fatal && entry.open == 0, ..fault });
        }
        None
    }

    /// There is no key of that name, or none of that number.
    fn unknown_key(&self, key: &str) -> Fault {
        let message = format!("Proxmox VE {} knows no key `{key}`", self.schema.release);
        let help = match self.schema.last_slot(key) {
            Some((base, last)) => format!("`{base}{last}` is the last of them"),
            None => {
                let known: Vec<&str> = self.schema.keys.keys().map(String::as_str).collect();
                suggest(key, &known, "keys")
            }
        };
        self.unknown(message, help)
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
            let number: u32 = key.get(base.len()..)?.parse().ok()?;
            let entry = self.keys.get(&format!("{base}[n]"))?;
            entry.slots.is_none_or(|slots| number < slots).then_some(entry)
        })
    }

    /// The last number of a key's base that is beyond them: `net40` is, and 31 is the last.
    fn last_slot(&self, key: &str) -> Option<(&str, u32)> {
        let base = key.trim_end_matches(|c: char| c.is_ascii_digit());
        let (name, entry) = self.keys.get_key_value(&format!("{base}[n]"))?;
        (base.len() < key.len()).then_some((name.strip_suffix("[n]")?, entry.slots?.saturating_sub(1)))
    }

    fn part<'a>(&'a self, part: &'a Part) -> &'a Entry {
        static NOTHING: LazyLock<Entry> = LazyLock::new(Entry::default);
        match part {
            Part::Own(entry) => entry,
            Part::Shared(number) => self.defs.get(*number).unwrap_or(&NOTHING),
        }
    }
}

/// Whether a text is of a Perl pattern's form. What can't be read of Perl's patterns judges nothing.
fn matches(pattern: &str, text: &str) -> bool {
    read(pattern).is_none_or(|regex| regex.is_match(text))
}

fn read(pattern: &str) -> Option<Regex> {
    // As Proxmox does it, without a group around it: `a|b` then is `^a` or `b$`.
    let pattern = pattern.replace("(?^:", "(?:").replace("{,", "{0,");
    Regex::new(&format!("^{pattern}$")).ok()
}

/// `bridge=`: a key needs a value.
fn empty(key: &str, name: &str) -> Fault {
    let message = format!("`{name}` of `{key}` has no value");
    Fault { message, help: "give it one, or leave it out".to_owned(), fatal: true }
}

/// A value without a key, where none is meant by default.
fn nameless(key: &str, text: &str, parts: &BTreeMap<String, Part>) -> Fault {
    let help = format!("write it as name=value; the names are {}", list(parts));
    Fault { message: format!("`{text}` in `{key}` has no name"), help, fatal: true }
}

/// A part that stands there twice, by its name or as the value that needs none.
fn twice(key: &str, name: &str, text: &str, parts: &BTreeMap<String, Part>) -> Fault {
    let message = format!("`{name}` is twice in `{key}`, the second time as `{text}`");
    let help = format!("keep one of them; its parts are {}", list(parts));
    Fault { message, help, fatal: true }
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
            ("machine", "pc-i440fx-9.2+pve1"),
            ("machine", "pc"),
            ("scsi1", "file=local-lvm:vm-100-disk-1,size=32G,wwn=0x5000c50015ea71aa,serial=a%20b"),
            ("virtio0", "volume=nfs:100/vm-100-disk-0.qcow2"),
            ("ide2", "none,media=cdrom"),
            ("ide2", "/dev/cdrom,media=cdrom"),
            ("cdrom", "local:iso/x.iso"),
            ("net2", "model=e1000,macaddr=bc:24:11:fd:94:79,trunks=2;5-9,rate=1.5,link_down=1"),
            ("net3", "vmxnet3=BC:24:11:FD:94:79, "),
            ("serial1", "/dev/ttyS0"),
            ("parallel0", "/dev/usb/lp0"),
            ("usb0", "host=0951:1666"),
            ("usb1", "spice"),
            ("usb2", "1-2.4,usb3=1"),
            ("hostpci0", "0000:01:00.0,pcie=1,x-vga=on,rombar=0"),
            ("hostpci1", "01:00;02:00.1,mdev=nvidia-35,vendor-id=0x10de"),
            ("boot", "order=scsi0;ide2;net0"),
            ("boot", "cdn"),
            ("boot", "legacy=c"),
            ("hotplug", "1"),
            ("cpu", "host,flags=+aes;-pcid,hidden=1"),
            ("cpu", "cputype=custom-mine,phys-bits=host"),
            ("ipconfig0", "ip=10.0.0.5/24,gw=10.0.0.1,ip6=auto"),
            ("ipconfig31", "ip=dhcp,ip6=fd00::5/64,gw6=fd00::1"),
            ("nameserver", "10.0.0.1 fd00::1"),
            ("startup", "1,up=30"),
            ("startup", "order=1,down=5"),
            ("affinity", "0,5,8-11"),
            ("numa0", "cpus=0-1;4,memory=1024,policy=bind,hostnodes=0"),
            ("startdate", "2026-11-22T17:30:00"),
            ("vmgenid", "1"),
            ("tablet", "No"),
            ("smbios1", "uuid=205ae1a7-d182-4612-b0db-5061f633f2d3,base64=1,serial=ZHM9bm9jbG91ZDtzPXg="),
            ("ivshmem", "size=32,name=shared-1"),
            ("spice_enhancements", "foldersharing=1,videostreaming=all"),
            ("vmstatestorage", "local-lvm"),
            ("audio0", "device=ich9-intel-hda,driver=none"),
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
            ("net0", "virtio,brige=vmbr0", "Proxmox VE 9.2 knows no `brige` in `net0`"),
            (
                "net0",
                "virtio=BC:24:11:FD:94,bridge=vmbr0",
                "Proxmox VE 9.2 takes no `BC:24:11:FD:94` for `virtio` of `net0`",
            ),
            ("net32", "virtio,bridge=vmbr0", "Proxmox VE 9.2 knows no key `net32`"),
            ("machine", "nonsense", "Proxmox VE 9.2 takes no `nonsense` for `type` of `machine`"),
            ("machine", "q35,viommu=amd", "Proxmox VE 9.2 takes no `amd` for `viommu` of `machine`"),
            ("serial0", "sockets", "Proxmox VE 9.2 takes no `sockets` for `serial0`"),
            ("hostpci0", "0000-01-00", "Proxmox VE 9.2 takes no `0000-01-00` for `host` of `hostpci0`"),
            ("hostpci0", "01:00,pci=1", "Proxmox VE 9.2 knows no `pci` in `hostpci0`"),
            ("boot", "order=scsi0;cd0", "Proxmox VE 9.2 takes no `cd0` for `order` of `boot`"),
            ("boot", "xyz", "Proxmox VE 9.2 takes no `xyz` for `legacy` of `boot`"),
            ("hotplug", "disk,ram", "Proxmox VE 9.2 takes no `ram` for `hotplug`"),
            ("ipconfig0", "ip=10.0.0.5", "Proxmox VE 9.2 takes no `10.0.0.5` for `ip` of `ipconfig0`"),
            ("scsi0", "local:1,wwn=5000", "Proxmox VE 9.2 takes no `5000` for `wwn` of `scsi0`"),
            ("scsi0", "local:1,serial=a b", "Proxmox VE 9.2 takes no `a b` for `serial` of `scsi0`"),
            ("startup", "first", "`order` of `startup` is an integer, not `first`"),
            ("vmgenid", "yes", "Proxmox VE 9.2 takes no `yes` for `vmgenid`"),
        ] {
            let fatal_on_newer = message.contains("is an integer");
            assert_eq!(told("9.2.11", key, value), [(message.to_owned(), true)]);
            assert_eq!(told("9.3.0", key, value), [(message.to_owned(), fatal_on_newer)]);
        }
    }

    #[test]
    fn a_cpu_flag_that_is_not_known_is_only_doubted() {
        let message = "Proxmox VE 9.2 takes no `+avx` for `flags` of `cpu`";
        assert_eq!(told("9.2.11", "cpu", "host,flags=+aes;+avx"), [(message.to_owned(), false)]);
    }

    #[test]
    fn what_is_wrong_comes_with_what_is_right() {
        let help = |key: &str, value: &str| {
            let release = Release::of("9.2.11").expect("a schema");
            release.check(key, value).into_iter().map(|fault| fault.help).collect::<Vec<_>>()
        };
        for (key, value, words) in [
            ("net0", "virtio,brige=vmbr0", "did you mean `bridge`?"),
            ("net40", "virtio", "`net31` is the last of them"),
            ("machine", "nonsense", "write q35, pc, or a version of one as pc-q35-9.2 or pc-i440fx-9.2+pve1"),
            ("boot", "order=cd0", "write a device as scsi0, ide2 or net0"),
            ("vga", "virtoi", "did you mean `virtio`?"),
            ("hotplug", "disks", "did you mean `disk`?"),
            ("cpu", "host,flags=+nested", "did you mean `nested-virt`?"),
            ("cpu", "host,flags=aes", "write a flag with + or - before it"),
        ] {
            assert_eq!(help(key, value), [words], "{key}={value}");
        }
    }

    #[test]
    fn every_pattern_of_every_release_can_be_read() {
        fn look(entry: &Entry, schema: &Schema, count: &mut u32) {
            if let Some(pattern) = &entry.pattern {
                assert!(read(pattern).is_some(), "{pattern} can't be read");
                *count += 1;
            }
            entry.items.iter().for_each(|items| look(items, schema, count));
            for part in entry.parts.iter().flatten() {
                look(schema.part(part.1), schema, count);
            }
        }
        for schema in RELEASES.iter() {
            let mut count = 0;
            schema.keys.values().for_each(|entry| look(entry, schema, &mut count));
            assert!(count > 30, "{}: {count}", schema.release);
        }
        assert_eq!(RELEASES.len(), 3);
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
            ("net0", "virtio,bridge=", "`bridge` of `net0` has no value"),
            ("net0", "virtio,tag=5,tag=6", "`tag` is twice in `net0`, the second time as `6`"),
            ("vga", "std,virtio", "`type` is twice in `vga`, the second time as `virtio`"),
            ("vga", "std,type=virtio", "`type` is twice in `vga`, the second time as `virtio`"),
            ("ipconfig0", "dhcp", "`dhcp` in `ipconfig0` has no name"),
        ] {
            for version in ["9.2.11", "10.0"] {
                assert_eq!(told(version, key, value), [(message.to_owned(), true)]);
            }
        }
    }
}
