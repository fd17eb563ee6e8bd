//! Where the profile sets what Proxmox calls by names of its own, for messages about a field that it refused.

use std::collections::BTreeMap;

use crate::config::profile::Profile;

/// Settings that have one key each.
const KEYS: [(&str, &str); 14] = [
    ("agent", "vm.agent"),
    ("ciuser", "vm.cloud-init"),
    ("cores", "vm.cores"),
    ("cpu", "vm.cpu"),
    ("efidisk0", "vm.efi-disk"),
    ("memory", "vm.memory"),
    ("name", "template.name"),
    ("newid", "vm.vmid"),
    ("pool", "vm.pool"),
    ("sockets", "vm.sockets"),
    ("storage", "vm.storage"),
    ("tags", "template.tags"),
    ("tpmstate0", "vm.tpm"),
    ("vmid", "vm.vmid"),
];

/// Each key of Proxmox's with the setting that became it and where that stands: `vm.memory (web.toml:12)`.
#[must_use]
pub fn places(profile: &Profile) -> BTreeMap<String, String> {
    let disks = profile.vm.disks.iter().enumerate();
    let disks = disks.map(|(index, disk)| (disk.slot.clone(), format!("vm.disks[{index}]")));
    let networks = (0..profile.vm.networks.len()).map(|n| (format!("net{n}"), format!("vm.networks[{n}]")));
    let own = profile.vm.proxmox.keys().map(|key| (key.clone(), format!("vm.proxmox.{key}")));
    let keys = KEYS.map(|(key, setting)| (key.to_owned(), setting.to_owned()));
    let all = keys.into_iter().chain(disks).chain(networks).chain(own);
    all.filter_map(|(key, setting)| {
        let place = profile.place(&setting)?;
        let named = profile.setting(&setting);
        Some((key, format!("{named} ({}:{})", place.file.display(), place.line)))
    })
    .collect()
}
