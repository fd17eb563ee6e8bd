//! Templates that go: which VMs still need one, and how it is removed. The only code that removes a template.
//!
//! A linked clone names its base in its volume where the storage links it (`local:9000/base-9000-disk-0.qcow2/9001/…` of
//! folders, `ceph:base-9000-disk-0/vm-9001-disk-0` of Ceph and ZFS). LVM-thin's copies stand alone, and so they are not
//! found, and not in the way either (pve-storage, `parse_volname` of each plugin; the first form observed on PVE 9.2).

use std::collections::{BTreeMap, BTreeSet};

use forge_machine::{PortError, TAG_LATEST, VmRef};
use serde::Deserialize;

use crate::api::client::Client;
use crate::api::encode::{Params, path};
use crate::api::error::ApiError;
use crate::api::task::Pace;
use crate::api::types::ResourceEntry;
use crate::discovery::vm_config;
use crate::hypervisor::Whereabouts;
use crate::machine::ProxmoxMachine;
use crate::power::OFF_LIMIT;
use crate::vmconfig::VmConfig;

/// A disk image of `GET /nodes/{node}/storage/{storage}/content`.
#[derive(Debug, Deserialize)]
struct Image {
    volid: String,
}

/// The VMID of the linked clone that holds a volume, if it lies on a disk of this template.
fn clone_of(volid: &str, template: &str) -> Option<u64> {
    let (_, name) = volid.split_once(':')?;
    let (above, own) = name.rsplit_once('/')?;
    let base = format!("base-{template}-");
    if !above.split('/').any(|part| part.starts_with(&base)) {
        return None;
    }
    // vm-9001-disk-0, or base-9001-disk-0 when the clone became a template itself.
    own.split('-').nth(1)?.parse().ok()
}

/// The VMs whose disks lie on a template's, by VMID.
pub(crate) async fn linked_clones(client: &Client, at: &VmRef) -> Result<Vec<(VmRef, String)>, ApiError> {
    let config = match vm_config(client, at).await {
        Ok(config) => config,
        Err(ApiError::VmMissing { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let disks = config.drives().filter(|(_, drive)| !drive.is_cdrom() && !drive.is_cloud_init());
    let storages: BTreeSet<String> = disks.map(|(_, drive)| drive.storage().to_owned()).collect();
    let mut found = BTreeSet::new();
    for storage in storages.iter().filter(|name| !name.is_empty()) {
        let list = path(&["nodes", &at.node, "storage", storage, "content"]);
        let query = Params::new().with("content", "images");
        match client.get::<Vec<Image>>(&list, &query).await {
            Ok(images) => found.extend(images.iter().filter_map(|image| clone_of(&image.volid, &at.id))),
            // Who may not look learns it when the target refuses.
            Err(ApiError::Denied { .. }) => tracing::debug!(storage, "what lies there is not told"),
            Err(error) => return Err(error),
        }
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let query = Params::new().with("type", "vm");
    let entries: Vec<ResourceEntry> = client.get("/cluster/resources", &query).await?;
    let mut known: BTreeMap<u64, ResourceEntry> =
        entries.into_iter().map(|entry| (entry.vmid, entry)).collect();
    Ok(found
        .into_iter()
        .map(|vmid| {
            let entry = known.remove(&vmid).unwrap_or_default();
            let node = if entry.node.is_empty() { at.node.clone() } else { entry.node };
            (VmRef::new(vmid.to_string(), node), entry.name.unwrap_or_default())
        })
        .collect())
}

/// Why a VM is not to be removed as the template of a build; `None` when it is that template.
pub(crate) fn not_the_one(config: &VmConfig, chain_id: &str) -> Option<String> {
    let line = format!("* chain id: {chain_id}");
    if !config.is_template() {
        return Some("it is not a template".into());
    }
    if chain_id.is_empty() || !config.description().lines().any(|each| each.trim_end() == line) {
        return Some(format!("it is `{}` now, which {chain_id} did not make", config.name()));
    }
    if config.tags().any(|tag| tag.eq_ignore_ascii_case(TAG_LATEST)) {
        return Some(format!("it bears the tag `{TAG_LATEST}`"));
    }
    if config.flag("protection", false) {
        return Some("somebody protected it from being removed".into());
    }
    None
}

impl ProxmoxMachine {
    /// Removes the template of a build, and makes sure that it is gone.
    pub(crate) async fn discard_template(&self, chain_id: &str) -> Result<(), PortError> {
        let action = self.action("remove the template");
        let mut machine = self.clone();
        let clones = linked_clones(self.client(), &machine.at).await.map_err(|error| error.at(&action))?;
        if let Some((vm, name)) = clones.first() {
            return Err(PortError::failed(action, format!("{vm} ({name}) is a linked clone of it")));
        }
        let pace = Pace::start();
        // Looked at before each try: whoever holds the lock may remove it, and its id be taken by another VM.
        loop {
            match self.shared.whereabouts(&machine.at).await.map_err(|error| error.at(&action))? {
                Whereabouts::Free => return Ok(()),
                Whereabouts::Hidden => {
                    return Err(PortError::failed(action, "the token may not see what stands there"));
                }
                Whereabouts::At { node, config } => {
                    if let Some(why) = not_the_one(&config, chain_id) {
                        return Err(PortError::failed(action, why));
                    }
                    machine.at.node = node;
                }
            }
            match machine.delete_once().await {
                Ok(()) | Err(ApiError::VmMissing { .. }) => break,
                // A lock passes, and where no answer came the removal may be under way.
                Err(error)
                    if (error.is_locked() || matches!(error, ApiError::Unanswered { .. }))
                        && pace.elapsed() < OFF_LIMIT =>
                {
                    pace.rest().await;
                }
                Err(error) => {
                    // A privilege may have gone with the VM: what counts is whether that is gone.
                    return match self.shared.whereabouts(&machine.at).await {
                        Ok(Whereabouts::Free) => Ok(()),
                        _ => Err(error.at(&action)),
                    };
                }
            }
        }
        match self.shared.whereabouts(&machine.at).await.map_err(|error| error.at(&action))? {
            Whereabouts::Free => Ok(()),
            Whereabouts::At { config, .. } if not_the_one(&config, chain_id).is_some() => Ok(()),
            _ => Err(PortError::failed(action, "its removal was reported, and it is still there")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_lies_on_a_base_names_the_linked_clone() {
        for (volid, found) in [
            ("local:9000/base-9000-disk-0.qcow2/9001/vm-9001-disk-0.qcow2", Some(9001)),
            ("ceph:base-9000-disk-0/vm-9002-disk-1", Some(9002)),
            ("ceph:base-9000-disk-0/base-9003-disk-0", Some(9003)),
            ("local:9000/base-9000-disk-0.qcow2", None),
            ("ceph:base-9000-disk-0", None),
            ("local:9001/vm-9001-disk-0.qcow2", None),
            ("local:90001/base-90001-disk-0.qcow2/9001/vm-9001-disk-0.qcow2", None),
            ("lvm:vm-9001-disk-0", None),
            ("nonsense", None),
        ] {
            assert_eq!(clone_of(volid, "9000"), found, "{volid}");
        }
    }

    #[test]
    fn only_the_template_of_that_build_is_the_one() {
        let notes = "Template built by forge.\n\n* chain id: CHAIN-1\n* profile: x\n";
        let config = |more: &[(&str, &str)]| {
            let own = [("name", "tpl-x"), ("template", "1"), ("description", notes), ("tags", "forge;x")];
            VmConfig::from_iter(own.iter().chain(more).copied())
        };
        assert_eq!(not_the_one(&config(&[]), "CHAIN-1"), None);
        for (more, chain_id, words) in [
            (("template", "0"), "CHAIN-1", "not a template"),
            (("tags", "forge;Latest"), "CHAIN-1", "bears the tag"),
            (("protection", "1"), "CHAIN-1", "protected"),
            (("description", "* chain id: CHAIN-10"), "CHAIN-1", "did not make"),
            (("name", "tpl-x"), "", "did not make"),
        ] {
            let why = not_the_one(&config(&[more]), chain_id).unwrap_or_default();
            assert!(why.contains(words), "{more:?}: {why}");
        }
    }
}
