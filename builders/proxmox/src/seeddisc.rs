//! The seed on a disc: `forge-seed-<VMID>.iso` on a storage for ISOs, in a drive of the build VM.
//!
//! The name follows from the VMID, so that what is left of a build that died is overwritten by the next one, and found
//! by whoever removes the VM. The file goes before the drive and the VM: as long as one of these is there, another try
//! finds the rest. Removing a file takes `Datastore.Allocate`, which whoever may put it there need not have (observed
//! on PVE 9.2); without it the file stays, with nothing in it.

use forge_machine::facts::StorageFacts;
use forge_machine::{MachineSpec, PortError};

use crate::api::client::Client;
use crate::api::encode::{Params, path};
use crate::api::error::ApiError;
use crate::api::types::StorageEntry;
use crate::machine::ProxmoxMachine;
use crate::media::pick;
use crate::permissions::Grants;
use crate::vmconfig::VmConfig;

/// How often the disc is sent before its failure counts.
const TRIES: usize = 3;
/// What a disc that may not be removed is overwritten with: a sector of nothing.
const NOTHING: [u8; 2048] = [0; 2048];
/// Where a drive may be, by preference: where media are, too.
const SLOTS: [&str; 10] =
    ["ide3", "ide2", "ide1", "ide0", "sata5", "sata4", "sata3", "sata2", "sata1", "sata0"];

/// The name of a VM's seed disc.
#[must_use]
pub fn name(vmid: &str) -> String {
    format!("forge-seed-{vmid}.iso")
}

/// Why no disc with the seed can be put on a storage and into a drive.
pub(crate) fn why_not(grants: &Grants, preferred: Option<&str>, storages: &[StorageFacts]) -> Option<String> {
    let takes: Vec<&str> = storages
        .iter()
        .filter(|storage| storage.active && storage.content.iter().any(|content| content == "iso"))
        .map(|storage| storage.name.as_str())
        .collect();
    let storage = preferred.filter(|name| takes.contains(name)).or_else(|| takes.first().copied());
    match storage {
        Some(storage) => grants.no_seed_disc(storage),
        None => Some("no storage of the node takes ISOs".to_owned()),
    }
}

/// The drive of a VM that holds its seed disc, and the disc's volume.
fn drive(config: &VmConfig, vmid: &str) -> Option<(String, String)> {
    let end = format!(":iso/{}", name(vmid));
    let found = config.drives().find(|(_, drive)| drive.volume().ends_with(&end));
    found.map(|(slot, drive)| (slot.to_owned(), drive.volume().to_owned()))
}

/// A slot that is free now and stays so.
fn slot(spec: &MachineSpec, present: &VmConfig) -> Option<&'static str> {
    let free = |slot: &&str| {
        present.get(slot).is_none() && spec.cloud_init.as_ref().is_none_or(|drive| drive.slot != *slot)
    };
    SLOTS.into_iter().find(free)
}

/// The boot order with this drive: behind the disks, which hold no system at first, and before all else.
fn started_from(present: &VmConfig, slot: &str) -> String {
    let order = present.get("boot").and_then(|boot| boot.strip_prefix("order=")).unwrap_or_default();
    let is_disk = |device: &&str| present.drive(device).is_some_and(|drive| !drive.is_cdrom());
    let devices = order.split(';').filter(|device| !device.is_empty());
    let (disks, others): (Vec<&str>, Vec<&str>) = devices.partition(is_disk);
    let all: Vec<&str> = disks.into_iter().chain([slot]).chain(others).collect();
    format!("order={}", all.join(";"))
}

impl ProxmoxMachine {
    /// Puts the disc on a storage and into a drive. Effect.
    pub(crate) async fn insert_seed(&self, spec: &MachineSpec, disc: &[u8]) -> Result<(), PortError> {
        let action = self.action("give the seed's disc to");
        let fault = |error: ApiError| error.at(&action);
        let storage = self.seed_storage().await.map_err(fault)?;
        let storage = storage.map_err(|detail| PortError::failed(action.clone(), detail))?;
        self.send_seed(&storage, disc).await.map_err(fault)?;
        let present = self.config().await.map_err(fault)?;
        if drive(&present, &self.at.id).is_some() {
            return Ok(());
        }
        let Some(slot) = slot(spec, &present) else {
            return Err(PortError::failed(action, "no slot for a drive is free"));
        };
        let value = format!("{storage}:iso/{},media=cdrom", name(&self.at.id));
        let mut change = Params::new().with(slot, value);
        if spec.boot_disc {
            change.set("boot", started_from(&present, slot));
        }
        self.put_config(&change).await.map_err(fault)
    }

    /// Takes the disc off its storage and out of the stopped VM. Effect, idempotent.
    pub(crate) async fn remove_seed(&self, present: &VmConfig) -> Result<(), ApiError> {
        let Some((slot, volume)) = drive(present, &self.at.id) else { return Ok(()) };
        self.discard_seed(&volume).await?;
        self.put_config(&Params::new().with("delete", slot)).await
    }

    /// Takes the disc off its storage before the VM is removed: also one that never came into a drive.
    pub(crate) async fn clear_seed(&self, present: &VmConfig) -> Result<(), ApiError> {
        if let Some((_, volume)) = drive(present, &self.at.id) {
            return self.discard_seed(&volume).await;
        }
        let Ok(storage) = self.seed_storage().await? else { return Ok(()) };
        let volume = format!("{storage}:iso/{}", name(&self.at.id));
        let there = match self.client().volumes(&self.at.node, &storage, "iso").await {
            Err(ApiError::Denied { .. }) => return Ok(()),
            other => other?,
        };
        match there.iter().any(|each| each.volid == volume && each.size > NOTHING.len() as u64) {
            true => self.discard_seed(&volume).await,
            false => Ok(()),
        }
    }

    async fn seed_storage(&self) -> Result<Result<String, String>, ApiError> {
        let list = path(&["nodes", &self.at.node, "storage"]);
        let storages: Vec<StorageEntry> = self.client().get(&list, &Params::new().with("enabled", 1)).await?;
        Ok(pick(&storages, self.shared.config.iso_storage.as_deref(), "iso").map(str::to_owned))
    }

    async fn send_seed(&self, storage: &str, disc: &[u8]) -> Result<(), ApiError> {
        let mut tries = 1;
        loop {
            let sent = self.client().upload_bytes(&self.at.node, storage, &name(&self.at.id), disc).await;
            let sent = match sent {
                Ok(Some(upid)) => self.client().wait_task(&upid).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            match sent {
                // It overwrites what is there, so a lost answer is no harm.
                Err(ApiError::Unanswered { .. } | ApiError::Unreachable { .. }) if tries < TRIES => {
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    async fn discard_seed(&self, volume: &str) -> Result<(), ApiError> {
        let client: &Client = self.client();
        let (storage, _) = volume.split_once(':').unwrap_or((volume, ""));
        let content = path(&["nodes", &self.at.node, "storage", storage, "content", volume]);
        let none = Params::new();
        let call = || client.delete(&content, &none);
        let mut removed = self.run_to_end(call).await;
        // Removing what is not there is a success, so it may be asked for again.
        if let Err(ApiError::Unanswered { .. }) = removed {
            removed = self.run_to_end(call).await;
        }
        match removed {
            Err(ApiError::Denied { .. }) => self.send_seed(storage, &NOTHING).await,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use forge_machine::{CloudInitDrive, SourceSpec};

    use super::*;

    #[test]
    fn the_disc_of_a_vm_is_told_by_its_name_and_gets_a_slot_that_stays_free() {
        let config = VmConfig::from_iter([
            ("ide3", "local:iso/forge-seed-9001.iso,media=cdrom,size=366K".to_owned()),
            ("ide2", "local:iso/debian.iso,media=cdrom".to_owned()),
        ]);
        let found = drive(&config, "9001");
        assert_eq!(found, Some(("ide3".into(), "local:iso/forge-seed-9001.iso".into())));
        assert_eq!(drive(&config, "001"), None);
        let mut spec = MachineSpec::new(SourceSpec::New, "pve");
        spec.cloud_init =
            Some(CloudInitDrive { slot: "ide1".into(), storage: "local".into(), inherited: false });
        assert_eq!(slot(&spec, &config), Some("ide0"));
        assert_eq!(slot(&spec, &VmConfig::default()), Some("ide3"));
    }

    #[test]
    fn a_boot_disc_comes_behind_the_disks_and_before_all_else() {
        let from = |boot: &str| {
            let config = VmConfig::from_iter([
                ("boot", boot.to_owned()),
                ("scsi0", "local:vm-9001-disk-0".to_owned()),
                ("ide2", "local:iso/debian.iso,media=cdrom".to_owned()),
            ]);
            started_from(&config, "ide3")
        };
        assert_eq!(from("order=scsi0;ide2;net0"), "order=scsi0;ide3;ide2;net0");
        assert_eq!(from("order=ide2;scsi0"), "order=scsi0;ide3;ide2");
        assert_eq!(from("cdn"), "order=ide3");
    }
}
