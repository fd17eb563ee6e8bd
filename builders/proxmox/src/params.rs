//! From a spec to Proxmox's parameters. Pure: what the VM has now goes in, what has to be sent comes out.
//!
//! Only what differs is sent, so that repeating is harmless and needs no privilege for what stays the same. The first
//! change is always [`identity`]: a clone inherits its source's tags, `onboot` and `protection`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_machine::{
    Attachments, BuildState, CloudInitSettings, DiskSpec, MachineSpec, NetworkSpec, Ownership, SourceSpec,
    VmRef,
};

use crate::api::encode::{Params, escape};
use crate::vmconfig::{Drive, Nic, PropertyString, VmConfig, format_size};

/// The MAC address that follows from the VMID.
const REPEATABLE: &str = "repeatable";
/// The tag of a build VM.
pub const TAG_BUILD: &str = "forge-build";
/// The tag of a VM that was kept after a late failure.
pub const TAG_KEPT: &str = "forge-kept";
/// The tag that tells which of several templates of a name is meant.
pub const TAG_LATEST: &str = forge_machine::TAG_LATEST;
/// How a seed in the SMBIOS serial begins; only such a serial is ours to take away.
const SEED_SERIAL: &str = "ds=nocloud";
/// Keys that forge sets itself, or that would take the VM away from it.
pub const RESERVED_KEYS: &[&str] = &[
    "agent",
    "cores",
    "cpu",
    "delete",
    "description",
    "digest",
    "lock",
    "memory",
    "name",
    "node",
    "revert",
    "skiplock",
    "smbios1",
    "sockets",
    "tags",
    "template",
    "vmid",
];

/// Keys that are set when the devices they name are there.
const AFTER_DISKS: &[&str] = &["boot"];
/// Keys of the finished template: a build VM neither starts with its node nor resists its removal, and its cloud-init
/// drive carries the build's own user.
const OF_THE_TEMPLATE: &[&str] = &[
    "cicustom",
    "cipassword",
    "citype",
    "ciupgrade",
    "ciuser",
    "ipconfig",
    "nameserver",
    "onboot",
    "protection",
    "searchdomain",
    "sshkeys",
];
/// What the build's own user may have overwritten on a cloud-init drive.
const OVERWRITTEN: &[&str] = &["ciuser", "cipassword", "sshkeys", "ipconfig0"];

/// Whether a slot holds state of the firmware or TPM: a volume of a fixed size, made when it is not there.
#[must_use]
pub fn is_state_slot(slot: &str) -> bool {
    matches!(slot, "efidisk0" | "tpmstate0")
}

/// The parameters of the clone call. The nonce is in its name and its description.
#[must_use]
pub fn clone(spec: &MachineSpec, at: &VmRef, mark: &Ownership) -> Option<(VmRef, Params)> {
    let SourceSpec::Clone { vm, full, storage, .. } = &spec.source else { return None };
    let mut params = Params::new()
        .with("newid", &at.id)
        .with("name", mark.nonce.vm_name())
        .with("description", mark.to_description())
        .with("full", u8::from(*full));
    // Proxmox refuses a storage for linked clones.
    if let (true, Some(storage)) = (*full, storage) {
        params.set("storage", storage);
    }
    if let Some(pool) = &spec.pool {
        params.set("pool", pool);
    }
    if at.node != vm.node {
        params.set("target", &at.node);
    }
    Some((vm.clone(), params))
}

/// The tags a marked VM carries.
#[must_use]
pub fn state_tag(state: BuildState) -> &'static str {
    match state {
        BuildState::Building => TAG_BUILD,
        BuildState::Kept | BuildState::Left => TAG_KEPT,
    }
}

/// The first change of every clone: whose it is, and that it neither starts at boot nor resists removal.
#[must_use]
pub fn identity(mark: &Ownership) -> Params {
    Params::new()
        .with("name", mark.nonce.vm_name())
        .with("tags", state_tag(mark.state))
        .with("description", mark.to_description())
        .with("onboot", 0)
        .with("protection", 0)
}

/// A new mark, and the tag that says it.
#[must_use]
pub fn mark(mark: &Ownership) -> Params {
    Params::new().with("tags", state_tag(mark.state)).with("description", mark.to_description())
}

/// What the conversion to a template finds: the final notes, under the build's name and tag.
#[must_use]
pub fn notes(notes: &str) -> Params {
    Params::new().with("description", notes)
}

/// The tags of a template without one of them, if nothing else changed since they were read; `None` when it bears no
/// such tag.
#[must_use]
pub fn untag(present: &VmConfig, tag: &str) -> Option<Params> {
    let (gone, stay): (Vec<&str>, Vec<&str>) =
        present.tags().partition(|each| each.eq_ignore_ascii_case(tag));
    if gone.is_empty() {
        return None;
    }
    let mut params = Params::new();
    match stay.is_empty() {
        true => params.set("delete", "tags"),
        false => params.set("tags", stay.join(";")),
    }
    if let Some(digest) = present.get("digest") {
        params.set("digest", digest);
    }
    Some(params)
}

/// The tags of a template with one more, if nothing else changed since they were read; `None` when it bears it.
#[must_use]
pub fn tag(present: &VmConfig, tag: &str) -> Option<Params> {
    if present.tags().any(|each| each.eq_ignore_ascii_case(tag)) {
        return None;
    }
    let tags: Vec<&str> = present.tags().chain([tag]).collect();
    let mut params = Params::new().with("tags", tags.join(";"));
    if let Some(digest) = present.get("digest") {
        params.set("digest", digest);
    }
    Some(params)
}

/// The final identity.
#[must_use]
pub fn finish(name: &str, tags: &[String], notes: &str) -> Params {
    let params = Params::new().with("name", name).with("description", notes);
    if tags.is_empty() { params.with("delete", "tags") } else { params.with("tags", tags.join(";")) }
}

/// Hardware that differs from the spec.
#[must_use]
pub fn hardware(spec: &MachineSpec, present: &VmConfig, default_bridge: Option<&str>) -> Params {
    let mut wanted: Vec<(String, String)> = Vec::new();
    let mut want =
        |key: &str, value: Option<String>| wanted.extend(value.map(|value| (key.to_owned(), value)));
    want("cores", spec.cores.map(|n| n.to_string()));
    want("sockets", spec.sockets.map(|n| n.to_string()));
    want("cpu", spec.cpu.clone());
    want("memory", spec.memory_mib.filter(|mib| *mib != present.memory_mib()).map(|mib| mib.to_string()));
    want("agent", spec.agent.filter(|on| *on != present.agent_enabled()).map(|on| agent(on, present)));
    for (number, network) in (0_u32..).zip(&spec.networks) {
        let key = format!("net{number}");
        let nic = network_adapter(network, present.get(&key), default_bridge);
        want(&key, Some(nic));
    }
    for disk in &spec.disks {
        want(&disk.slot, present.drive(&disk.slot).and_then(|drive| changed_options(disk, drive)));
    }
    let named = spec.extra.contains_key("serial0");
    want(
        "serial0",
        (spec.terminal && !named && present.get("serial0").is_none()).then(|| "socket".to_owned()),
    );
    for (key, value) in &spec.extra {
        let key = key.as_str();
        if ![RESERVED_KEYS, AFTER_DISKS].iter().any(|keys| keys.contains(&key)) && !is_of_the_template(key) {
            want(key, Some(value.clone()));
        }
    }
    let mut params = Params::new();
    for (key, value) in wanted {
        if present.get(&key) != Some(value.as_str()) {
            params.set(key, value);
        }
    }
    params
}

/// What names disks, once they are there.
#[must_use]
pub fn after_disks(spec: &MachineSpec, present: &VmConfig) -> Params {
    only(|key| AFTER_DISKS.contains(&key), spec, present)
}

/// Whether a key is set when the VM is finished. Addresses are numbered.
pub(crate) fn is_of_the_template(key: &str) -> bool {
    OF_THE_TEMPLATE.contains(&key)
        || (key.starts_with("ipconfig") && key[8..].bytes().all(|byte| byte.is_ascii_digit()))
}

fn only(wanted: impl Fn(&str) -> bool, spec: &MachineSpec, present: &VmConfig) -> Params {
    let mut params = Params::new();
    for (key, value) in spec.extra.iter().filter(|(key, _)| wanted(key)) {
        // Keys are escaped inside the value, and once more by the form (observed on PVE 9.2).
        let value = if key == "sshkeys" { escape(value) } else { value.clone() };
        if present.get(key) != Some(value.as_str()) {
            params.set(key, value);
        }
    }
    params
}

/// A disk's options by Proxmox's names.
pub(crate) fn options(disk: &DiskSpec) -> BTreeMap<String, String> {
    let mut options = disk.options.clone();
    if let Some(discard) = disk.discard {
        options.insert("discard".into(), if discard { "on" } else { "ignore" }.into());
    }
    options
}

/// A drive that is there with the options that the profile names; `None` when it has them already.
fn changed_options(disk: &DiskSpec, drive: Drive) -> Option<String> {
    let mut properties = drive.properties;
    let mut changed = false;
    for (key, value) in options(disk) {
        // A volume has the format it was made with.
        let same = properties.get(&key) == Some(value.as_str())
            || (properties.get(&key).is_none() && key == "discard" && value == "ignore");
        if key != "format" && !same {
            properties.set(&key, &value);
            changed = true;
        }
    }
    changed.then(|| properties.to_string())
}

fn agent(on: bool, present: &VmConfig) -> String {
    let mut properties = PropertyString::parse(present.get("agent").unwrap_or_default());
    properties.remove_first();
    properties.remove("enabled");
    let rest = if properties.is_empty() { String::new() } else { format!(",{properties}") };
    format!("enabled={}{rest}", u8::from(on))
}

/// A network adapter: the MAC address and every option stay that the profile does not name.
pub(crate) fn network_adapter(
    wanted: &NetworkSpec,
    present: Option<&str>,
    default_bridge: Option<&str>,
) -> String {
    let mut nic = present.map_or_else(|| Nic::parse(&wanted.model), Nic::parse);
    nic.model.clone_from(&wanted.model);
    let keeps_bridge = nic.bridge().is_some() && wanted.bridge.is_none();
    if let Some(bridge) = wanted.bridge.as_deref().or(default_bridge.filter(|_| !keeps_bridge)) {
        nic.options.set("bridge", bridge);
    }
    if let Some(vlan) = wanted.vlan {
        nic.options.set("tag", &vlan.to_string());
    }
    if let Some(mac) = &wanted.mac {
        nic.mac = Some(mac.clone());
    }
    for (key, value) in &wanted.options {
        nic.options.set(key, value);
    }
    nic.to_string()
}

/// A spec with every MAC address that follows from the VMID: `repeatable` is 00:18:59 and then the VMID and the adapter's
/// number in 24 bits, as Packer makes it, so that a VMID always has the same lease.
#[must_use]
pub fn with_addresses(spec: &MachineSpec, at: &VmRef) -> MachineSpec {
    let mut spec = spec.clone();
    let vmid: u32 = at.id.parse().unwrap_or(0);
    for (number, network) in (0_u32..).zip(&mut spec.networks) {
        if network.mac.as_deref() == Some(REPEATABLE) {
            let [_, high, middle, low] = ((vmid << 5) | number).to_be_bytes();
            network.mac = Some(format!("00:18:59:{high:02X}:{middle:02X}:{low:02X}"));
        }
    }
    spec
}

/// What has to be done to one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskChange {
    /// It is made anew: slot and value (`local-lvm:20`).
    Add {
        /// The slot.
        slot: String,
        /// The value of the slot's key.
        value: String,
    },
    /// It is moved to another storage.
    Move {
        /// The slot.
        slot: String,
        /// Where it goes.
        storage: String,
    },
    /// It is grown: slot and new size.
    Grow {
        /// The slot.
        slot: String,
        /// The new size (`20G`).
        size: String,
    },
}

/// Disks that have to be moved, grown or added.
///
/// # Errors
/// A sentence when a disk would have to shrink, or can't be added because no storage is known.
pub fn disks(
    spec: &MachineSpec,
    present: &VmConfig,
    default_storage: Option<&str>,
) -> Result<Vec<DiskChange>, String> {
    let mut changes = Vec::new();
    for disk in &spec.disks {
        let slot = disk.slot.clone();
        if is_state_slot(&slot) {
            if present.get(&slot).is_none() {
                changes.push(DiskChange::Add {
                    value: new_disk(spec, disk, present, default_storage, "1")?,
                    slot,
                });
            }
            continue;
        }
        let Some(drive) = present.drive(&slot) else {
            if let Some(size) = disk.size {
                let value = new_disk(spec, disk, present, default_storage, &gib(size))?;
                changes.push(DiskChange::Add { slot, value });
            }
            continue;
        };
        if let Some(storage) = disk.storage.as_ref().filter(|storage| *storage != drive.storage()) {
            changes.push(DiskChange::Move { slot: slot.clone(), storage: storage.clone() });
        }
        match (disk.size, drive.size()) {
            (None, _) => {}
            (Some(size), Some(now)) if now == size => {}
            (Some(size), Some(now)) if now > size => {
                return Err(format!(
                    "disk {slot} has {} and can't shrink to {}",
                    format_size(now),
                    format_size(size)
                ));
            }
            (Some(size), _) => changes.push(DiskChange::Grow { slot, size: format_size(size) }),
        }
    }
    Ok(changes)
}

/// The value of a disk that is made: `local-lvm:20,cache=none`.
pub(crate) fn new_disk(
    spec: &MachineSpec,
    disk: &DiskSpec,
    present: &VmConfig,
    default_storage: Option<&str>,
    size: &str,
) -> Result<String, String> {
    let chosen = match &spec.source {
        SourceSpec::Clone { storage, .. } => storage.as_deref(),
        _ => None,
    };
    let inherited =
        present.drives().find(|(_, drive)| !drive.is_cdrom()).map(|(_, drive)| drive.storage().to_owned());
    let storage = disk.storage.as_deref().or(chosen).or(default_storage).map(str::to_owned).or(inherited);
    let storage = storage.ok_or_else(|| format!("no storage is named for the new disk {}", disk.slot))?;
    let options: String = options(disk).iter().map(|(key, value)| format!(",{key}={value}")).collect();
    Ok(format!("{storage}:{size}{options}"))
}

/// A new disk's size is a bare number of GiB, fractions allowed.
pub(crate) fn gib(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    let whole = bytes / GIB;
    let thousandths = (bytes % GIB).saturating_mul(1000).div_ceil(GIB);
    match thousandths {
        0 => whole.to_string(),
        1000 => (whole + 1).to_string(),
        _ => format!("{whole}.{thousandths:03}"),
    }
}

/// The cloud-init drive that has to be added, as slot and value.
#[must_use]
pub fn cloud_init_drive(spec: &MachineSpec, present: &VmConfig) -> Option<(String, String)> {
    let drive = spec.cloud_init.as_ref()?;
    // Proxmox takes one such drive only; a source may have had it in another slot.
    let exists = present.drives().any(|(_, drive)| drive.is_cloud_init());
    (!exists).then(|| (drive.slot.clone(), format!("{}:cloudinit", drive.storage)))
}

/// The seed on the VM itself: SMBIOS serial and cloud-init settings.
#[must_use]
pub fn attachments(attachments: &Attachments, present: &VmConfig) -> Params {
    let mut params = Params::new();
    if let Some(serial) = &attachments.smbios_serial {
        let smbios = smbios_with_serial(present.get("smbios1").unwrap_or_default(), Some(serial));
        if present.get("smbios1") != Some(smbios.as_str()) {
            params.set("smbios1", smbios);
        }
    }
    if let Some(CloudInitSettings { user, password_hash, ssh_keys, ip_config }) = &attachments.cloud_init {
        if !user.is_empty() {
            params.set("ciuser", user);
        }
        if let Some(hash) = password_hash {
            params.set("cipassword", hash);
        }
        if !ssh_keys.is_empty() {
            // Escaped inside the value; the form escapes it once more (observed on PVE 9.2).
            let keys: Vec<&str> = ssh_keys.iter().map(|key| key.trim()).collect();
            params.set("sshkeys", escape(&keys.join("\n")));
        }
        if !ip_config.is_empty() {
            params.set("ipconfig0", ip_config);
        }
    }
    params
}

/// What takes the build's traces off again, and gives the template what is its own; empty when there is nothing to do.
///
/// `source` is the configuration of the VM that was cloned, as far as it can still be read: what the build's own user
/// overwrote on the cloud-init drive becomes again what it was there.
#[must_use]
pub fn detach(spec: &MachineSpec, present: &VmConfig, source: Option<&VmConfig>) -> Params {
    let mut params = only(is_of_the_template, spec, present);
    let smbios = present.get("smbios1").unwrap_or_default();
    if serial_of(smbios).is_some_and(|serial| serial.starts_with(SEED_SERIAL)) {
        params.set("smbios1", smbios_with_serial(smbios, None));
    }
    if spec.cloud_init.is_some() {
        let mut gone = Vec::new();
        for key in OVERWRITTEN.iter().filter(|key| !spec.extra.contains_key(**key)) {
            // Nobody can read a password back: what a build on the console set goes, and the source's is not known.
            let is_password = *key == "cipassword";
            if is_password && !spec.terminal {
                continue;
            }
            match (source.filter(|_| !is_password).and_then(|source| source.get(key)), present.get(key)) {
                (Some(was), now) if now != Some(was) => params.set(*key, was),
                // DHCP is what a drive without an address gives too.
                (None, Some(now)) if now != "ip=dhcp" => gone.push(*key),
                _ => {}
            }
        }
        if !gone.is_empty() {
            params.set("delete", gone.join(","));
        }
    }
    params
}

/// `smbios1` with another serial (or none): the UUID and all other fields stay. With a serial every field but the
/// UUID is Base64, because plain values may contain neither `;` nor `,`.
fn smbios_with_serial(present: &str, serial: Option<&str>) -> String {
    let old = PropertyString::parse(present);
    let was_encoded = old.get("base64") == Some("1");
    let mut new = PropertyString::default();
    if let Some(uuid) = old.get("uuid") {
        new.set("uuid", uuid);
    }
    let others: Vec<(&str, &str)> =
        old.pairs().filter(|(key, _)| !matches!(*key, "uuid" | "base64" | "serial")).collect();
    let encoded = serial.is_some() || (was_encoded && !others.is_empty());
    if encoded {
        new.set("base64", "1");
    }
    if let Some(serial) = serial {
        new.set("serial", &STANDARD.encode(serial));
    }
    for (key, value) in others {
        if encoded && !was_encoded {
            new.set(key, &STANDARD.encode(value));
        } else {
            new.set(key, value);
        }
    }
    new.to_string()
}

fn serial_of(smbios: &str) -> Option<String> {
    let properties = PropertyString::parse(smbios);
    let serial = properties.get("serial")?;
    if properties.get("base64") != Some("1") {
        return Some(serial.to_owned());
    }
    String::from_utf8(STANDARD.decode(serial).ok()?).ok()
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
