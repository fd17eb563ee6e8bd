//! From a spec to Proxmox's parameters. Pure: what the VM has now goes in, what has to be sent comes out.
//!
//! Only what differs is sent, so that repeating is harmless and needs no privilege for what stays the same. The first
//! change is always [`identity`]: a clone inherits its source's tags, `onboot` and `protection`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_machine::{
    Attachments, BuildState, CloudInitSettings, MachineSpec, NetworkSpec, Ownership, SourceSpec, VmRef,
};

use crate::api::encode::{Params, escape};
use crate::vmconfig::{Nic, PropertyString, VmConfig, format_size};

/// The tag of a build VM.
pub const TAG_BUILD: &str = "forge-build";
/// The tag of a VM that was kept after a late failure.
pub const TAG_KEPT: &str = "forge-kept";
/// How a seed in the SMBIOS serial begins; only such a serial is ours to take away.
const SEED_SERIAL: &str = "ds=nocloud";
/// Keys that forge sets itself, or that would take the VM away from it.
pub const RESERVED_KEYS: &[&str] = &[
    "agent",
    "ciuser",
    "cores",
    "cpu",
    "delete",
    "description",
    "digest",
    "ipconfig0",
    "lock",
    "memory",
    "name",
    "node",
    "onboot",
    "protection",
    "revert",
    "skiplock",
    "smbios1",
    "sockets",
    "sshkeys",
    "tags",
    "template",
    "vmid",
];

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
        BuildState::Kept => TAG_KEPT,
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
        if let (Some(discard), Some(drive)) = (disk.discard, present.drive(&disk.slot)) {
            let mut properties = drive.properties;
            let is_on = properties.get("discard") == Some("on");
            if discard != is_on {
                properties.set("discard", if discard { "on" } else { "ignore" });
                want(&disk.slot, Some(properties.to_string()));
            }
        }
    }
    for (key, value) in &spec.extra {
        if !RESERVED_KEYS.contains(&key.as_str()) {
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

fn agent(on: bool, present: &VmConfig) -> String {
    let mut properties = PropertyString::parse(present.get("agent").unwrap_or_default());
    properties.remove_first();
    properties.remove("enabled");
    let rest = if properties.is_empty() { String::new() } else { format!(",{properties}") };
    format!("enabled={}{rest}", u8::from(on))
}

/// A network adapter: the MAC address and every option stay that the profile does not name.
fn network_adapter(wanted: &NetworkSpec, present: Option<&str>, default_bridge: Option<&str>) -> String {
    let mut nic = present.map_or_else(|| Nic::parse(&wanted.model), Nic::parse);
    nic.model.clone_from(&wanted.model);
    let keeps_bridge = nic.bridge().is_some() && wanted.bridge.is_none();
    if let Some(bridge) = wanted.bridge.as_deref().or(default_bridge.filter(|_| !keeps_bridge)) {
        nic.options.set("bridge", bridge);
    }
    if let Some(vlan) = wanted.vlan {
        nic.options.set("tag", &vlan.to_string());
    }
    nic.to_string()
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
    /// It is grown: slot and new size.
    Grow {
        /// The slot.
        slot: String,
        /// The new size (`20G`).
        size: String,
    },
}

/// Disks that have to be grown or added.
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
        let Some(size) = disk.size else { continue };
        let slot = disk.slot.clone();
        match present.drive(&slot) {
            Some(drive) => match drive.size() {
                Some(now) if now == size => {}
                Some(now) if now > size => {
                    return Err(format!(
                        "disk {slot} has {} and can't shrink to {}",
                        format_size(now),
                        format_size(size)
                    ));
                }
                _ => changes.push(DiskChange::Grow { slot, size: format_size(size) }),
            },
            None => {
                let chosen = match &spec.source {
                    SourceSpec::Clone { storage, .. } => storage.as_deref(),
                    SourceSpec::Image { .. } => None,
                };
                let inherited = present
                    .drives()
                    .find(|(_, drive)| !drive.is_cdrom())
                    .map(|(_, drive)| drive.storage().to_owned());
                let storage = chosen.or(default_storage).map(str::to_owned).or(inherited);
                let Some(storage) = storage else {
                    return Err(format!("no storage is named for the new disk {slot}"));
                };
                let discard = if disk.discard == Some(true) { ",discard=on" } else { "" };
                changes.push(DiskChange::Add { slot, value: format!("{storage}:{}{discard}", gib(size)) });
            }
        }
    }
    Ok(changes)
}

/// A new disk's size is a bare number of GiB, fractions allowed.
fn gib(bytes: u64) -> String {
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
    if let Some(CloudInitSettings { user, ssh_keys, ip_config }) = &attachments.cloud_init {
        if !user.is_empty() {
            params.set("ciuser", user);
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

/// What takes the build's traces off again; empty when there are none.
#[must_use]
pub fn detach(spec: &MachineSpec, present: &VmConfig) -> Params {
    let mut params = Params::new();
    let smbios = present.get("smbios1").unwrap_or_default();
    if serial_of(smbios).is_some_and(|serial| serial.starts_with(SEED_SERIAL)) {
        params.set("smbios1", smbios_with_serial(smbios, None));
    }
    if spec.cloud_init.is_some() {
        let gone: Vec<&str> =
            ["ciuser", "sshkeys"].into_iter().filter(|key| present.get(key).is_some()).collect();
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
