//! VMs that are no clones, and the drives that hold the media of a build. Pure.
//!
//! A new VM gets everything in the call that creates it, so that it is never there without the build's nonce. It starts
//! from its first disk and, while that is empty, from the first medium: an installer that restarts the VM does not come
//! up again.

use forge_machine::{IsoDrives, Location, MachineSpec, Medium, Ownership, SourceSpec, VmRef};

use crate::api::encode::Params;
use crate::media;
use crate::params::{
    RESERVED_KEYS, gib, is_of_the_template, is_state_slot, network_adapter, new_disk, state_tag,
};
use crate::vmconfig::VmConfig;

/// The SCSI controller of a VM of which the profile does not say it: what Proxmox's own dialogue proposes, and not the
/// one that the API falls back to, which many systems have no driver for.
const SCSI_CONTROLLER: &str = "virtio-scsi-single";

/// The parameters of the call that creates a VM; `None` for clones.
///
/// # Errors
/// A sentence when a disk can't be made.
pub fn create(
    spec: &MachineSpec,
    at: &VmRef,
    mark: &Ownership,
    storage: Option<&str>,
    bridge: Option<&str>,
) -> Result<Option<Params>, String> {
    let image = match &spec.source {
        SourceSpec::Clone { .. } => return Ok(None),
        SourceSpec::Image { image, .. } => Some(image),
        SourceSpec::New => None,
    };
    let mut params = Params::new()
        .with("vmid", &at.id)
        .with("name", mark.nonce.vm_name())
        .with("description", mark.to_description())
        .with("agent", format!("enabled={}", u8::from(spec.agent.unwrap_or(true))));
    match &spec.pool {
        Some(pool) => params.set("pool", pool),
        // Tags are checked on the VM itself before it is in its pool, whose privileges do not count yet (qemu-server
        // `API2/Qemu.pm`): the first change sets them.
        None => params.set("tags", state_tag(mark.state)),
    };
    let numbers = [("cores", spec.cores), ("sockets", spec.sockets), ("memory", spec.memory_mib)];
    for (key, value) in numbers {
        if let Some(value) = value {
            params.set(key, value);
        }
    }
    if let Some(cpu) = &spec.cpu {
        params.set("cpu", cpu);
    }
    for (number, network) in spec.networks.iter().enumerate() {
        params.set(format!("net{number}"), network_adapter(network, None, bridge));
    }
    let mut image = image;
    for disk in &spec.disks {
        let empty = VmConfig::default();
        let value = match image.take_if(|_| !is_state_slot(&disk.slot)) {
            Some(image) => {
                let value = new_disk(spec, disk, &empty, storage, "0")?;
                let (place, rest) = value.split_once(',').unwrap_or((&value, ""));
                let comma = if rest.is_empty() { "" } else { "," };
                format!("{place},import-from={image}{comma}{rest}")
            }
            None => {
                let size = match (is_state_slot(&disk.slot), disk.size) {
                    (true, _) => "1".to_owned(),
                    (false, Some(size)) => gib(size),
                    (false, None) => {
                        return Err(format!("the size of the new disk {} is not said", disk.slot));
                    }
                };
                new_disk(spec, disk, &empty, storage, &size)?
            }
        };
        params.set(&disk.slot, value);
    }
    let slots = slots(spec, None);
    for (slot, medium) in slots.iter().zip(&spec.isos) {
        params.set(slot, format!("{medium},media=cdrom"));
    }
    let first = spec.disks.iter().find(|disk| !is_state_slot(&disk.slot)).map(|disk| disk.slot.as_str());
    let order: Vec<&str> = first.into_iter().chain(slots.first().map(String::as_str)).collect();
    if !order.is_empty() && !spec.extra.contains_key("boot") {
        params.set("boot", format!("order={}", order.join(";")));
    }
    if !spec.extra.contains_key("scsihw") {
        params.set("scsihw", SCSI_CONTROLLER);
    }
    for (key, value) in &spec.extra {
        if !RESERVED_KEYS.contains(&key.as_str()) && !is_of_the_template(key) {
            params.set(key, value);
        }
    }
    Ok(Some(params))
}

/// The slots of the build's media, in order: those that are named, else free in the source, and neither a disk's nor the
/// cloud-init drive's.
///
/// A pure function of spec and source, so that what was attached is found again when it is taken off.
#[must_use]
pub fn slots(spec: &MachineSpec, source: Option<&VmConfig>) -> Vec<String> {
    const SLOTS: [&str; 10] =
        ["ide2", "ide3", "ide0", "ide1", "sata5", "sata4", "sata3", "sata2", "sata1", "sata0"];
    let taken = |slot: &str| {
        source.is_some_and(|source| source.get(slot).is_some())
            || spec.disks.iter().any(|disk| disk.slot == slot)
            || spec.cloud_init.as_ref().is_some_and(|drive| drive.slot == slot)
            || spec.iso_slots.values().any(|named| named == slot)
    };
    let mut free = SLOTS.iter().filter(|slot| !taken(slot));
    let slot = |number| match spec.iso_slots.get(&number) {
        Some(named) => Some(named.clone()),
        None => free.next().map(|slot| (*slot).to_owned()),
    };
    (0..spec.isos.len()).map_while(slot).collect()
}

/// Why a medium can't be where the profile wants it: the source has something there already.
#[must_use]
pub fn occupied(spec: &MachineSpec, source: Option<&VmConfig>) -> Option<String> {
    let (slot, value) = spec.iso_slots.values().find_map(|slot| Some((slot, source?.get(slot.as_str())?)))?;
    Some(format!("{slot} is named for a medium, and the source has {value} there: name another `slot`"))
}

/// Drives with the build's media, as far as they are not there.
#[must_use]
pub fn isos(spec: &MachineSpec, present: &VmConfig, source: Option<&VmConfig>) -> Params {
    let mut params = Params::new();
    for (slot, medium) in slots(spec, source).iter().zip(&spec.isos) {
        let there = present.drive(slot).is_some_and(|drive| drive.volume() == medium.to_string());
        if !there {
            params.set(slot, format!("{medium},media=cdrom"));
        }
    }
    params
}

/// What takes the media of a running VM out of its drives.
#[must_use]
pub fn emptied(spec: &MachineSpec, present: &VmConfig, source: Option<&VmConfig>) -> Params {
    let mut params = Params::new();
    for slot in ours(spec, present, source) {
        if present.drive(&slot).is_some_and(|drive| drive.volume() != "none") {
            params.set(slot, "none,media=cdrom");
        }
    }
    params
}

/// What makes the drives of the build's media what the stopped VM keeps of them.
#[must_use]
pub fn gone(spec: &MachineSpec, present: &VmConfig, source: Option<&VmConfig>) -> Params {
    match spec.iso_drives {
        IsoDrives::Keep => Params::new(),
        IsoDrives::Empty => emptied(spec, present, source),
        IsoDrives::Drop => {
            let slots = ours(spec, present, source);
            if slots.is_empty() { Params::new() } else { Params::new().with("delete", slots.join(",")) }
        }
    }
}

/// The drives that are there and hold, or held, the build's media.
fn ours(spec: &MachineSpec, present: &VmConfig, source: Option<&VmConfig>) -> Vec<String> {
    let cds = || present.drives().filter(|(_, drive)| drive.is_cdrom() && !drive.is_cloud_init());
    // Of a clone whose source is gone only the media themselves tell which drives are the build's.
    if matches!(spec.source, SourceSpec::Clone { .. }) && source.is_none() {
        let is_ours = |volume: &str| spec.isos.iter().any(|medium| is_volume_of(volume, medium));
        return cds().filter(|(_, drive)| is_ours(drive.volume())).map(|(slot, _)| slot.to_owned()).collect();
    }
    slots(spec, source).into_iter().filter(|slot| cds().any(|(cd, _)| cd == slot)).collect()
}

/// Whether a volume is what a medium became.
fn is_volume_of(volume: &str, medium: &Medium) -> bool {
    match &medium.location {
        Location::Volume(named) => named == volume,
        Location::Url(_) | Location::File(_) => {
            let name = volume.rsplit(['/', ':']).next().unwrap_or_default();
            name.starts_with("forge-") && name.ends_with(&media::ending_of(medium))
        }
    }
}

#[cfg(test)]
#[path = "newvm_tests.rs"]
mod tests;
