//! The parts of `[vm]` that are Proxmox's: they become keys of its VM configuration, and the plan's schema judges them.

use std::collections::BTreeMap;

use forge_machine::{Bios, DiskSpec};

use crate::config::findings::Finding;
use crate::config::place::{Node, Table};
use crate::config::profile::Vm;
use crate::config::reader::Reader;

/// Settings that stand for one key of Proxmox each: forge's name and Proxmox's.
const PLAIN: [(&str, &str); 14] = [
    ("args", "args"),
    ("balloon", "balloon"),
    ("bios", "bios"),
    ("boot-order", "boot"),
    ("hotplug", "hotplug"),
    ("kvm", "kvm"),
    ("localtime", "localtime"),
    ("machine", "machine"),
    ("numa", "numa"),
    ("onboot", "onboot"),
    ("ostype", "ostype"),
    ("rng", "rng0"),
    ("scsihw", "scsihw"),
    ("vga", "vga"),
];
/// Options of a disk by Proxmox's names; further ones go into `options`.
const DISK_OPTIONS: [&str; 8] =
    ["aio", "backup", "cache", "format", "iothread", "replicate", "serial", "ssd"];
/// Options of a network adapter: forge's name and Proxmox's.
const NETWORK_OPTIONS: [(&str, &str); 6] = [
    ("firewall", "firewall"),
    ("link-down", "link_down"),
    ("mtu", "mtu"),
    ("queues", "queues"),
    ("rate", "rate"),
    ("trunks", "trunks"),
];

/// The settings of the finished template's cloud-init drive, by Proxmox's names.
const CLOUD_INIT: [&str; 6] = ["cicustom", "citype", "ciupgrade", "ciuser", "nameserver", "searchdomain"];

/// All keys of `vm.cloud-init` that are the finished template's.
pub(super) const CLOUD_INIT_KEYS: [&str; 9] = [
    "cicustom",
    "cipassword",
    "citype",
    "ciupgrade",
    "ciuser",
    "ipconfig",
    "nameserver",
    "searchdomain",
    "sshkeys",
];

/// Reads them into `vm.proxmox` and `vm.state_disks`. What stands in `[vm.proxmox]` too is named twice.
pub(super) fn read(reader: &mut Reader<'_>, vm: &mut Vm, findings: &mut Vec<Finding>) {
    for (name, key) in PLAIN {
        let said = if name == "args" { arguments(reader, findings) } else { value(reader, name, findings) };
        if let Some(value) = said {
            let value = match name {
                // Proxmox counts in MiB, and 0 takes the device away.
                "balloon" if value.parse::<u32>().is_err() => balloon(reader, findings),
                "boot-order" if !value.contains('=') => Some(format!("order={value}")),
                "bios" if Bios::from_name(&value).is_none() => {
                    let finding = reader.finding("bios", format!("`{value}` is no firmware"));
                    findings.push(finding.help("there are: seabios (BIOS), ovmf (UEFI)"));
                    None
                }
                // Its own name for the older chipset.
                "machine" if value == "i440fx" => Some("pc".into()),
                "rng" if value == "0" => {
                    // Nothing to say to Proxmox; to a target that has the device by itself, all the same.
                    vm.origins.insert("vm.proxmox.rng0".into(), reader.name("rng"));
                    None
                }
                "rng" if value == "1" => Some("source=/dev/urandom".into()),
                _ => Some(value),
            };
            set(reader, vm, name, key, value, findings);
        }
    }
    for (name, base, most) in [("serials", "serial", 4), ("pci-devices", "hostpci", 16)] {
        for (index, value) in items(reader, name, findings).into_iter().enumerate() {
            if index == most {
                findings.push(reader.finding(name, format!("a VM has {most} of these at most")));
                break;
            }
            set(reader, vm, name, &format!("{base}{index}"), Some(value), findings);
        }
    }
    let efi = [("type", "efitype", Some("4m")), ("pre-enrolled-keys", "pre-enrolled-keys", None)];
    vm.state_disks.extend(state_disk(reader, "efi-disk", "efidisk0", &efi, findings));
    vm.state_disks.extend(state_disk(
        reader,
        "tpm",
        "tpmstate0",
        &[("version", "version", Some("v2.0"))],
        findings,
    ));
}

/// Further arguments of QEMU as Proxmox takes them, a line in the words of a shell (`split_args` of pve-common's Tools). In a
/// list each element is one argument, whatever is in it.
fn arguments(reader: &mut Reader<'_>, findings: &mut Vec<Finding>) -> Option<String> {
    if !matches!(reader.any("args").map(|spot| &spot.node), Some(Node::List(_))) {
        let line = value(reader, "args", findings)?;
        if shlex::split(&line).is_none() {
            let finding = reader.finding("args", "a quote in it is not closed");
            findings.push(finding.help("or name each argument by itself: args = [\"-device\", \"…\"]"));
        }
        return Some(line);
    }
    let words = reader.texts("args", findings)?;
    let special = |c: char| c.is_whitespace() || "'\"\\".contains(c);
    let quoted = words.iter().map(|word| match word.is_empty() || word.contains(special) {
        true => shlex::try_quote(word).map(Into::into),
        false => Ok(word.clone()),
    });
    match quoted.collect::<Result<Vec<String>, _>>() {
        Ok(words) => Some(words.join(" ")),
        Err(error) => {
            findings.push(reader.finding("args", format!("no such argument can be given: {error}")));
            None
        }
    }
}

/// Reads the user fields of the template's cloud-init drive.
pub(super) fn cloud_init(reader: &mut Reader<'_>, vm: &mut Vm, findings: &mut Vec<Finding>) {
    let Some(Node::Table(_)) = reader.any("cloud-init").map(|spot| &spot.node) else { return };
    let Some(mut drive) = reader.table("cloud-init", findings) else { return };
    for key in CLOUD_INIT {
        // Name servers and domains are lists with spaces.
        let value = value(&mut drive, key, findings).map(|value| match key {
            "nameserver" | "searchdomain" => value.replace(';', " "),
            _ => value,
        });
        set(&drive, vm, key, key, value, findings);
    }
    let keys = match drive.any("sshkeys").map(|spot| &spot.node) {
        Some(Node::Text(text)) => Some(vec![text.clone()]),
        Some(_) => drive.texts("sshkeys", findings),
        None => None,
    };
    let keys = keys.map(|keys| keys.iter().map(|key| key.trim().to_owned()).collect::<Vec<_>>());
    set(&drive, vm, "sshkeys", "sshkeys", keys.map(|keys| keys.join("\n")), findings);
    let addresses = match drive.any("ipconfig").map(|spot| &spot.node) {
        Some(Node::List(_)) => items(&mut drive, "ipconfig", findings),
        _ => value(&mut drive, "ipconfig", findings).into_iter().collect(),
    };
    for (index, address) in addresses.into_iter().enumerate() {
        set(&drive, vm, "ipconfig", &format!("ipconfig{index}"), Some(address), findings);
    }
}

pub(super) fn set(
    reader: &Reader<'_>,
    vm: &mut Vm,
    name: &str,
    key: &str,
    value: Option<String>,
    findings: &mut Vec<Finding>,
) {
    let Some(value) = value else { return };
    if vm.proxmox.insert(key.to_owned(), value).is_some() {
        let finding = reader.finding(name, format!("this and `vm.proxmox.{key}` set the same"));
        findings.push(finding.help("keep one of them"));
    }
    vm.origins.insert(format!("vm.proxmox.{key}"), reader.name(name));
}

/// The options of a disk by Proxmox's names.
pub(super) fn disk_options(reader: &mut Reader<'_>, findings: &mut Vec<Finding>) -> BTreeMap<String, String> {
    let mut options = pass_through(reader.table("options", findings), findings);
    for name in DISK_OPTIONS {
        options.extend(value(reader, name, findings).map(|value| (name.to_owned(), value)));
    }
    options
}

/// The options of a network adapter by Proxmox's names.
pub(super) fn network_options(
    reader: &mut Reader<'_>,
    findings: &mut Vec<Finding>,
) -> BTreeMap<String, String> {
    let mut options = pass_through(reader.table("options", findings), findings);
    for (name, key) in NETWORK_OPTIONS {
        options.extend(value(reader, name, findings).map(|value| (key.to_owned(), value)));
    }
    options
}

/// A MAC address, in Proxmox's upper case.
pub(super) fn mac(reader: &mut Reader<'_>, findings: &mut Vec<Finding>) -> Option<String> {
    let text = reader.text("mac", findings)?;
    // Packer's word: on Proxmox it follows from the VMID.
    if text == "repeatable" {
        return Some(text);
    }
    let parts: Vec<&str> = text.split(':').collect();
    let sound =
        parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok());
    // An odd first octet is a group of stations.
    let single = parts.first().and_then(|part| u8::from_str_radix(part, 16).ok()).is_some_and(|b| b & 1 == 0);
    if !sound || !single {
        let finding = reader.finding("mac", format!("`{text}` is no MAC address of a network adapter"));
        findings.push(finding.help(
            "write it like \"BC:24:11:00:00:01\" (the first octet is even), or \"repeatable\": by the VMID",
        ));
        return None;
    }
    Some(text.to_uppercase())
}

/// The disk of the firmware's variables or of the TPM: `true`, or a table.
fn state_disk(
    reader: &mut Reader<'_>,
    name: &'static str,
    slot: &str,
    known: &[(&'static str, &'static str, Option<&str>)],
    findings: &mut Vec<Finding>,
) -> Option<DiskSpec> {
    let mut disk = DiskSpec { slot: slot.to_owned(), ..DiskSpec::default() };
    let defaults =
        known.iter().filter_map(|(_, key, default)| Some(((*key).to_owned(), (*default)?.to_owned())));
    match reader.any(name).map(|spot| &spot.node) {
        None | Some(Node::Bool(false)) => return None,
        Some(Node::Bool(true)) => disk.options.extend(defaults),
        Some(_) => {
            let mut table = reader.table(name, findings)?;
            disk.storage = table.text("storage", findings);
            disk.options.extend(defaults);
            disk.options.extend(value(&mut table, "format", findings).map(|value| ("format".into(), value)));
            for (name, key, _) in known {
                disk.options
                    .extend(value(&mut table, name, findings).map(|value| ((*key).to_owned(), value)));
            }
            table.done(findings);
        }
    }
    Some(disk)
}

/// `"512MiB"`, or `false`.
fn balloon(reader: &mut Reader<'_>, findings: &mut Vec<Finding>) -> Option<String> {
    reader.size("balloon", 1 << 20, findings).map(|bytes| (bytes >> 20).to_string())
}

/// A key's value as Proxmox's own text.
fn value(reader: &mut Reader<'_>, name: &'static str, findings: &mut Vec<Finding>) -> Option<String> {
    let spot = reader.any(name)?;
    let text = text_of(&spot.node);
    if text.is_none() {
        let message =
            format!("expected a string, integer, truth value, array or table, found {}", spot.node.kind());
        findings.push(reader.finding(name, message));
    }
    text
}

fn items(reader: &mut Reader<'_>, name: &'static str, findings: &mut Vec<Finding>) -> Vec<String> {
    match reader.any(name).map(|spot| &spot.node) {
        None => Vec::new(),
        Some(Node::List(items)) => {
            let texts: Vec<String> = items.iter().filter_map(|item| text_of(&item.node)).collect();
            if texts.len() < items.len() {
                findings.push(reader.finding(name, "expected strings or tables in it"));
            }
            texts
        }
        Some(node) => {
            findings.push(reader.finding(name, format!("expected an array, found {}", node.kind())));
            Vec::new()
        }
    }
}

/// A value as Proxmox writes it: truth values as 1 and 0, a list separated by `;`, a table as a property string.
pub(super) fn text_of(node: &Node) -> Option<String> {
    match node {
        Node::List(items) => {
            let texts: Option<Vec<String>> = items.iter().map(|item| scalar(&item.node)).collect();
            texts.filter(|texts| !texts.is_empty()).map(|texts| texts.join(";"))
        }
        Node::Table(table) => property_string(table),
        node => scalar(node),
    }
}

fn scalar(node: &Node) -> Option<String> {
    match node {
        Node::Text(text) => Some(text.clone()),
        Node::Integer(number) => Some(number.to_string()),
        Node::Float(number) => Some(number.to_string()),
        Node::Bool(flag) => Some(u8::from(*flag).to_string()),
        _ => None,
    }
}

/// `{ type = "virtio", memory = 64 }` is `type=virtio,memory=64`; `_` and `-` are as Proxmox has them.
fn property_string(table: &Table) -> Option<String> {
    let mut parts = Vec::new();
    for (key, _, spot) in &table.entries {
        let text = text_of(&spot.node).filter(|text| !text.contains([',', '\n']))?;
        parts.push(format!("{key}={text}"));
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

/// Keys of one backend as its own text.
pub(super) fn pass_through(
    reader: Option<Reader<'_>>,
    findings: &mut Vec<Finding>,
) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    let Some(reader) = reader else { return keys };
    for (key, _, spot) in reader.entries() {
        match text_of(&spot.node) {
            Some(value) => {
                keys.insert(key.to_owned(), value);
            }
            None => {
                let message = format!(
                    "expected a string, number, truth value, array or table of these, found {}",
                    spot.node.kind()
                );
                findings.push(Finding::at(&spot.place, reader.name(key), message));
            }
        }
    }
    keys
}
