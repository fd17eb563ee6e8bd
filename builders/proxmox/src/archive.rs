//! Archives of templates: backups by `vzdump`, looked into before anything counts on them.
//!
//! A backup is protected and prunes nothing, since VMIDs are taken anew: else the next VM of that id, or the site's nightly
//! job, would push it out. It bears the chain id in its notes, by which it is found again; what is in it tells its own
//! configuration (`vzdump/extractconfig`), which names the build and the disks (qemu-server `VZDump/QemuServer.pm`). That a
//! token needs `VM.Backup` and `Datastore.AllocateSpace`, and only root by password may name a folder, is pve-manager's
//! `API2/VZDump.pm`; not observed.

use std::collections::BTreeSet;

use forge_machine::{ArchivePlace, Finding, PortError, TaskHandle, VmRef};
use serde::Deserialize;

use crate::api::client::Client;
use crate::api::encode::{Params, path};
use crate::api::error::ApiError;
use crate::api::task::Upid;
use crate::api::types::{PermissionMap, number};
use crate::discard::not_the_one;
use crate::discovery::{did_you_mean, storages};
use crate::hypervisor::Whereabouts;
use crate::machine::{ProxmoxMachine, upid_of};
use crate::media::ROOT;
use crate::permissions::{ARCHIVING, grant_command, who};
use crate::vmconfig::VmConfig;

/// What it takes on the storage.
const SPACE: &str = "Datastore.AllocateSpace";
/// How many backups of one VMID are looked into at most, the newest.
const LOOKED_INTO: usize = 5;

/// A backup that a storage holds.
#[derive(Clone, Debug, Deserialize)]
struct Backup {
    volid: String,
    #[serde(default, deserialize_with = "number")]
    size: u64,
    #[serde(default, deserialize_with = "number")]
    ctime: u64,
    #[serde(default)]
    notes: Option<String>,
}

/// A task that runs or has run.
#[derive(Debug, Deserialize)]
struct Known {
    upid: String,
    #[serde(default)]
    id: String,
}

/// What speaks against archiving templates at a place, before anything is done. May be dropped.
pub(crate) async fn findings(
    client: &Client,
    place: &ArchivePlace,
    templates: &[VmRef],
) -> Result<Vec<Finding>, ApiError> {
    let login = client.login_id();
    let name = match place {
        ArchivePlace::Folder(_) if login == ROOT => return Ok(Vec::new()),
        ArchivePlace::Folder(folder) => {
            let message =
                format!("Proxmox VE lets only {ROOT}, by password, name a folder, and {} asks", who(login));
            let help = format!(
                "make it a storage, as root on a node: pvesm add dir archive --path {folder} --content backup; then --archive archive"
            );
            return Ok(vec![Finding::fatal("archive", message, help)]);
        }
        ArchivePlace::Storage(name) => name,
    };
    let mut found = Vec::new();
    let mut lacks = |privilege: &str, path: &str, purpose: &str| {
        let message = format!("{} lacks {privilege} on {path} (needed to {purpose})", who(login));
        let help = format!("as root on a node: {}", grant_command(client.role(), login, privilege, path));
        found.push(Finding::fatal("archive", message, help));
    };
    let at = format!("/storage/{name}");
    let may_write = may(client, &at, SPACE).await?;
    if !may_write {
        lacks(SPACE, &at, "put archives there");
    }
    for template in templates {
        let at = format!("/vms/{}", template.id);
        if !may(client, &at, ARCHIVING).await? {
            lacks(ARCHIVING, &at, "archive the template");
        }
    }
    let nodes: BTreeSet<&str> = templates.iter().map(|template| template.node.as_str()).collect();
    for node in nodes.into_iter().filter(|_| may_write) {
        let known = storages(client, node).await?;
        let takes = |content: &[String]| content.iter().any(|each| each == "backup");
        match known.iter().find(|storage| storage.name == *name) {
            None => {
                let fit: Vec<&str> = known
                    .iter()
                    .filter(|storage| takes(&storage.content))
                    .map(|storage| storage.name.as_str())
                    .collect();
                let message = format!("there is no storage `{name}` on {node}");
                let help = did_you_mean(name, &fit, "storages that take backups");
                found.push(Finding::fatal("archive", message, help));
            }
            Some(storage) if !storage.active => {
                let message = format!("the storage `{name}` is not active on {node}");
                let help = "look at `pvesm status` on the node; a network storage may be out of reach";
                found.push(Finding::fatal("archive", message, help));
            }
            Some(storage) if !takes(&storage.content) => {
                let content = storage.content.join(",");
                let message = format!("the storage `{name}` takes no backups (its content: {content})");
                let help = format!("as root on a node: pvesm set {name} --content {content},backup");
                found.push(Finding::fatal("archive", message, help));
            }
            Some(_) => {}
        }
    }
    Ok(found)
}

async fn may(client: &Client, at: &str, privilege: &str) -> Result<bool, ApiError> {
    let map: PermissionMap = client.get("/access/permissions", &Params::new().with("path", at)).await?;
    Ok(map.0.get(at).is_some_and(|held| held.contains_key(privilege)))
}

/// What a backup's configuration lacks to be that of a build's template with these disks; `None` when it is.
fn lacking(text: &str, chain_id: &str, disks: &[String]) -> Option<String> {
    let remark = |line: &str| percent_encoding::percent_decode_str(line).decode_utf8_lossy().into_owned();
    let wanted = format!("* chain id: {chain_id}");
    let remarks = text.lines().filter_map(|line| line.strip_prefix('#'));
    if !remarks.clone().any(|line| remark(line).trim_end() == wanted) {
        return Some(format!("its notes do not name {chain_id}"));
    }
    if !text.lines().any(|line| line.trim_end() == "template: 1") {
        return Some("it is of no template".into());
    }
    let held: BTreeSet<&str> = remarks
        .filter_map(|line| line.strip_prefix("qmdump#map:"))
        .filter_map(|line| line.split(':').next())
        .collect();
    let missing: Vec<&str> = disks.iter().map(String::as_str).filter(|disk| !held.contains(disk)).collect();
    (!missing.is_empty())
        .then(|| format!("it lacks {} (a disk with `backup=0` is left out of backups)", missing.join(", ")))
}

/// The disks that a whole backup holds.
fn disks(config: &VmConfig) -> Vec<String> {
    let own = config.drives().filter(|(_, drive)| !drive.is_cdrom() && !drive.is_cloud_init());
    own.map(|(slot, _)| slot.to_owned()).collect()
}

impl ProxmoxMachine {
    /// Where the template of a build stands now, and its configuration.
    async fn template_of(&self, chain_id: &str, action: &str) -> Result<(VmRef, VmConfig), PortError> {
        match self.shared.whereabouts(&self.at).await.map_err(|error| error.at(action))? {
            Whereabouts::Free => Err(PortError::NotFound { what: self.at.to_string() }),
            Whereabouts::Hidden => Err(PortError::failed(action, "the token may not see what stands there")),
            Whereabouts::At { node, config } => match not_the_one(&config, chain_id) {
                Some(why) => Err(PortError::failed(action, why)),
                None => Ok((VmRef::new(self.at.id.as_str(), node), config)),
            },
        }
    }

    /// Begins to archive the template of a build; a finished handle when it is archived there already.
    pub(crate) async fn submit_vzdump(
        &self,
        chain_id: &str,
        place: &ArchivePlace,
    ) -> Result<TaskHandle, PortError> {
        let action = self.action("archive the template");
        let (at, config) = self.template_of(chain_id, &action).await?;
        let body = Params::new().with("vmid", &at.id).with("compress", "zstd").with("remove", 0);
        let body = match place {
            ArchivePlace::Folder(folder) => body.with("dumpdir", folder),
            ArchivePlace::Storage(storage) => {
                if let Ok(_there) = self.proved(&at, storage, chain_id, &disks(&config)).await? {
                    return Ok(TaskHandle::finished(&at.node));
                }
                let notes = format!("{{{{guestname}}}}, archived by forge, chain id {chain_id}");
                body.with("storage", storage).with("protected", 1).with("notes-template", notes)
            }
        };
        let before = self.dumps(&at).await.map_err(|error| error.at(&action))?;
        let answer = self.client().post(&path(&["nodes", &at.node, "vzdump"]), &body).await;
        let upid = match answer {
            Ok(reply) => upid_of(&reply.data),
            // Only the answer may have been lost: the task that was not there before runs, or has run by now.
            Err(error @ ApiError::Unanswered { .. }) => {
                let now = self.dumps(&at).await.unwrap_or_default();
                match now.into_iter().find(|upid| !before.contains(upid)).as_deref().and_then(Upid::parse) {
                    Some(upid) => Some(upid),
                    None => return Err(error.at(&action)),
                }
            }
            Err(error) => return Err(error.at(&action)),
        };
        match upid {
            Some(upid) => Ok(TaskHandle { id: upid.text, node: upid.node }),
            // What is said of a VM that is on another node by now.
            None => Err(PortError::failed(action, format!("{} began no task: is the VM there?", at.node))),
        }
    }

    /// The node's tasks that back the VM up or have, the newest of them.
    async fn dumps(&self, at: &VmRef) -> Result<Vec<String>, ApiError> {
        let query = Params::new().with("source", "all").with("typefilter", "vzdump").with("vmid", &at.id);
        let known: Vec<Known> = self.client().get(&path(&["nodes", &at.node, "tasks"]), &query).await?;
        Ok(known.into_iter().filter(|task| task.id == at.id).map(|task| task.upid).collect())
    }

    /// Where the archive of a build's template is, after it was looked into.
    pub(crate) async fn archived_at(
        &self,
        chain_id: &str,
        place: &ArchivePlace,
        task: &TaskHandle,
    ) -> Result<String, PortError> {
        let action = self.action("look into the archive of the template");
        let (at, config) = self.template_of(chain_id, &action).await?;
        match place {
            ArchivePlace::Storage(storage) => {
                let proved = self.proved(&at, storage, chain_id, &disks(&config)).await?;
                proved.map_err(|why| PortError::failed(action, why))
            }
            // Nobody can look into a folder: the task's own words have to do.
            ArchivePlace::Folder(folder) => {
                let upid = Upid::parse(&task.id);
                let upid = upid.ok_or_else(|| PortError::failed(action.clone(), "there was no task"))?;
                let log = self.client().task_log(&upid).await.map_err(|error| error.at(&action))?;
                written(&log, folder).ok_or_else(|| {
                    PortError::failed(action, format!("the task does not say that it wrote one to {folder}"))
                })
            }
        }
    }

    /// The backup on a storage that holds the template of a build; else why none of those that are there is it.
    async fn proved(
        &self,
        at: &VmRef,
        storage: &str,
        chain_id: &str,
        disks: &[String],
    ) -> Result<Result<String, String>, PortError> {
        let list = path(&["nodes", &at.node, "storage", storage, "content"]);
        let query = Params::new().with("content", "backup").with("vmid", &at.id);
        let mut there: Vec<Backup> = self
            .client()
            .get(&list, &query)
            .await
            .map_err(|error| error.at(&format!("list the backups on {storage}")))?;
        let is_ours = |backup: &Backup| backup.notes.as_deref().is_some_and(|text| text.contains(chain_id));
        there.retain(|backup| backup.size > 0);
        there.sort_by_key(|backup| std::cmp::Reverse((is_ours(backup), backup.ctime)));
        let mut why = format!("{storage} lists no backup of {at}");
        for backup in there.into_iter().take(LOOKED_INTO) {
            let query = Params::new().with("volume", &backup.volid);
            let extract = path(&["nodes", &at.node, "vzdump", "extractconfig"]);
            let lacks = match self.client().get::<String>(&extract, &query).await {
                Ok(text) => lacking(&text, chain_id, disks),
                // A broken one; what keeps this from being asked at all keeps it from being asked of the others.
                Err(error @ ApiError::Refused { .. }) => Some(error.to_string()),
                Err(error) => return Err(error.at(&format!("look into {}", backup.volid))),
            };
            match lacks {
                None => return Ok(Ok(backup.volid)),
                Some(lacks) => why = format!("{} is no archive of it: {lacks}", backup.volid),
            }
        }
        Ok(Err(why))
    }
}

/// The archive that a task's log says it wrote to a folder.
fn written(log: &[String], folder: &str) -> Option<String> {
    let made = log.iter().find_map(|line| line.split_once("creating vzdump archive '"))?.1;
    let file = made.trim_end().trim_end_matches('\'').to_owned();
    let size = log.iter().find_map(|line| line.split_once("archive file size: "))?.1;
    let inside = file.starts_with(&format!("{}/", folder.trim_end_matches('/')));
    (inside && !size.trim().is_empty() && !size.trim().starts_with("0B")).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#Template built by forge.\n#\n#* chain id%3A CHAIN-1\nname: tpl-x\nscsi0: local:9000/x\n\
                        template: 1\n#qmdump#map:scsi0:drive-scsi0:local:qcow2:\n";

    #[test]
    fn a_backup_is_an_archive_only_with_the_build_the_mark_of_a_template_and_every_disk() {
        let disks = ["scsi0".to_owned()];
        assert_eq!(lacking(TEXT, "CHAIN-1", &disks), None);
        for (text, chain_id, more, words) in [
            (TEXT.to_owned(), "CHAIN-10", None, "do not name CHAIN-10"),
            (TEXT.replace("template: 1\n", ""), "CHAIN-1", None, "no template"),
            (TEXT.to_owned(), "CHAIN-1", Some("scsi1"), "lacks scsi1"),
        ] {
            let disks: Vec<String> = disks.iter().cloned().chain(more.map(str::to_owned)).collect();
            let lacks = lacking(&text, chain_id, &disks).unwrap_or_default();
            assert!(lacks.contains(words), "{lacks}");
        }
    }

    #[test]
    fn a_log_tells_what_was_written_to_the_folder() {
        let log = |name: &str, size: &str| -> Vec<String> {
            vec![
                format!("INFO: creating vzdump archive '{name}'"),
                format!("INFO: archive file size: {size}"),
            ]
        };
        let file = "/mnt/a/vzdump-qemu-9000-2026_11_22-10_00_00.vma.zst";
        assert_eq!(written(&log(file, "350MB"), "/mnt/a/").as_deref(), Some(file));
        assert_eq!(written(&log(file, "0B"), "/mnt/a"), None);
        assert_eq!(written(&log(file, "1GB"), "/mnt/b"), None);
        assert_eq!(written(&log(file, "1GB")[..1], "/mnt/a"), None);
    }
}
