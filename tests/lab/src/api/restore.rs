//! `POST /nodes/{node}/qemu` with `archive`: a VM as a backup has it; a template is one again.
//!
//! Who may, the order of checks and what becomes of each line are those of qemu-server's `API2/Qemu.pm` (`create_vm`) and
//! `QemuServer.pm` (`restore_vma_archive`, `restore_update_config_line`); not observed. Nothing but `storage` and `pool` may
//! be given with it, and it takes the place of no VM that is there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::drives::{self, DriveInput};
use super::storage::backup;
use super::{Answer, Call, qemu, rules, template, vzdump};
use crate::auth::Caller;
use crate::cluster::Cluster;
use crate::error::{ApiError, ApiResult};
use crate::state::{Config, Drive, Volume, is_drive_key};
use crate::tasks::TaskLog;
use crate::vma;

/// Where a backup had a disk.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    device: String,
    storage: String,
    format: String,
}

/// A configuration as a backup has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept {
    config: Config,
    disks: BTreeMap<String, Origin>,
    is_template: bool,
}

impl Kept {
    fn read(text: &str) -> Kept {
        let mut kept = Kept::default();
        let mut remarks: Vec<String> = Vec::new();
        for line in text.lines() {
            if let Some(map) = line.strip_prefix("#qmdump#map:") {
                if let [key, device, storage, format, ..] = map.split(':').collect::<Vec<_>>().as_slice() {
                    let origin = Origin {
                        device: (*device).to_owned(),
                        storage: (*storage).to_owned(),
                        format: (*format).to_owned(),
                    };
                    kept.disks.insert((*key).to_owned(), origin);
                }
            } else if let Some(remark) = line.strip_prefix('#') {
                remarks.push(percent_decode_str(remark).decode_utf8_lossy().into_owned());
            } else if let Some((key, value)) = line.split_once(": ") {
                match key {
                    "template" => kept.is_template = value == "1",
                    "lock" | "parent" => {}
                    unused if unused.starts_with("unused") => {}
                    // What a backup leaves out stays as a remark.
                    drive
                        if is_drive_key(drive)
                            && Drive::parse(value)
                                .options
                                .get("backup")
                                .is_some_and(|backup| backup == "0") =>
                    {
                        remarks.push(line.to_owned());
                    }
                    _ => drop(kept.config.insert(key.to_owned(), value.to_owned())),
                }
            }
        }
        if !remarks.is_empty() {
            kept.config.insert("description".to_owned(), remarks.join("\n"));
        }
        // It is another machine from now on.
        if kept.config.contains_key("vmgenid") {
            kept.config.insert("vmgenid".to_owned(), crate::ids::uuid());
        }
        kept
    }
}

/// What is restored for whom.
struct Job {
    cluster: Arc<Cluster>,
    caller: Caller,
    node: String,
    vmid: u32,
    /// The storage of all disks; else each goes where it was.
    storage: Option<String>,
    volid: String,
}

/// Checks what is asked for, and starts the task. Who may make the VM was checked.
pub(super) fn restore(call: &Call, volid: &str, pool: Option<String>) -> ApiResult<Answer> {
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let set = rules::config_values(&call.params);
    if let Some(key) = set.keys().find(|key| is_drive_key(key)) {
        return Err(ApiError::parameter(key, "option conflicts with option 'archive'"));
    }
    let more = ["force", "unique", "start", "live-restore"].into_iter().find(|flag| call.params.flag(flag));
    if let Some(key) = set.keys().map(String::as_str).next().or(more) {
        return Err(ApiError::die(format!("the lab restores a backup as it is, without '{key}'")));
    }
    let volume = Volume::parse(volid)?;
    backup::check_access(call, &volume)?;
    let storage = call.params.get("storage").map(str::to_owned);
    if let Some(storage) = &storage {
        call.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    }
    if !cluster.storages.path(&node, volid)?.is_file() {
        return Err(ApiError::die(format!("volume '{volid}' does not exist")));
    }
    let lock = qemu::reserve(call, "unable to restore VM")?;
    let job = Job {
        cluster: Arc::clone(&cluster),
        caller: call.caller.clone(),
        node,
        vmid,
        storage,
        volid: volid.to_owned(),
    };
    let undo = {
        let (cluster, node) = (Arc::clone(&cluster), job.node.clone());
        async move { drives::forget_vm(&cluster, &node, vmid) }
    };
    call.spawn_with_undo(
        "qmrestore",
        vmid,
        |log| async move {
            let restored = job.run(&log).await;
            restored.map_err(|text| format!("unable to restore VM {vmid} - {text}"))?;
            drop(lock);
            cluster.auth().add_to_pool(pool.as_deref(), vmid);
            Ok(())
        },
        undo,
    )
}

impl Job {
    async fn run(&self, log: &TaskLog) -> Result<(), String> {
        let Job { cluster, node, vmid, .. } = self;
        let path = cluster.storages.path(node, &self.volid)?;
        let shown = Volume::parse(&self.volid)?.display_path();
        log.line(format!("restore vma archive: vma extract -v -r /var/tmp/vzdumptmp.fifo {shown}"));
        let folder = tempfile::Builder::new()
            .prefix("qmrestore-")
            .tempdir_in(&cluster.run_dir)
            .map_err(|error| error.to_string())?;
        let into = folder.path().to_owned();
        let unpacked =
            tokio::task::spawn_blocking(move || vma::extract(vzdump::open(&path)?.as_mut(), &into));
        let unpacked = unpacked.await.map_err(|error| error.to_string())?;
        let (text, devices) = unpacked.map_err(|error| format!("vma extract failed: {error}"))?;
        let kept = Kept::read(&text);
        let mut config = kept.config;
        let mut made = Vec::new();
        for (key, value) in config.clone().iter().filter(|(key, _)| is_drive_key(key)) {
            let drive = Drive::parse(value);
            if let Some(origin) = kept.disks.get(key) {
                let device = devices.iter().find(|device| device.name == origin.device);
                let device = device.ok_or_else(|| format!("no device '{}' in archive", origin.device))?;
                let drive = self.disk(drive, origin, &device.file, &mut made, log).await?;
                config.insert(key.clone(), drive);
            } else if drive.is_cloudinit() {
                let storage = self.storage.as_deref().or(drive.storage()).unwrap_or_default().to_owned();
                self.check(&storage)?;
                let name = rules::name_of(&config, *vmid);
                let input = DriveInput { cluster, node, vmid: *vmid, name: &name };
                let set = Config::from([(key.clone(), format!("{storage}:cloudinit"))]);
                config.remove(key);
                let allocated = drives::allocate(&input, &set, &config, Some(log)).await?;
                config.extend(allocated);
            }
        }
        if kept.is_template {
            log.line("Convert to template.");
            for key in kept.disks.keys() {
                let Some(value) = config.get(key) else { continue };
                let mut drive = Drive::parse(value);
                template::make_base(cluster, node, &mut drive)?;
                config.insert(key.clone(), drive.print());
            }
            config.insert("template".to_owned(), "1".to_owned());
        }
        cluster.state().vm_mut(node, *vmid)?.config = config;
        Ok(())
    }

    /// Demands the storage of a disk.
    fn check(&self, storage: &str) -> Result<(), String> {
        self.cluster.storages.get_on(&self.node, storage)?;
        self.cluster.storages.check_images(storage)?;
        let auth = self.cluster.auth();
        auth.require(&self.caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        Ok(())
    }

    /// A disk of the VM with the contents of one of the backup.
    async fn disk(
        &self,
        mut drive: Drive,
        origin: &Origin,
        contents: &Path,
        made: &mut Vec<String>,
        log: &TaskLog,
    ) -> Result<String, String> {
        let Job { cluster, node, vmid, .. } = self;
        let storage = self.storage.as_deref().unwrap_or(&origin.storage);
        self.check(storage)?;
        let volid = cluster.storages.new_disk(node, storage, *vmid, &origin.format, made)?;
        made.push(volid.clone());
        let to = cluster.storages.path(node, &volid)?;
        cluster.disks.convert(contents, &to, &origin.format, None, &|_percent| {}).await?;
        log.line(format!("new volume ID is '{volid}'"));
        drive.volume = volid;
        Ok(drive.print())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_part_of_a_backup_is_left_out_or_becomes_a_remark() {
        let kept = Kept::read(
            "#made%3A by forge\nlock: backup\nname: web\nscsi0: local:9000/base-9000-disk-0.qcow2,size=1G\n\
             scsi1: local:9000/x.qcow2,backup=0\ntemplate: 1\nunused0: local:9000/y.qcow2\n\
             #qmdump#map:scsi0:drive-scsi0:local:qcow2:\n",
        );
        assert!(kept.is_template);
        assert_eq!(kept.disks.keys().collect::<Vec<_>>(), ["scsi0"]);
        assert_eq!(kept.disks["scsi0"].format, "qcow2");
        assert_eq!(kept.config.keys().collect::<Vec<_>>(), ["description", "name", "scsi0"]);
        assert_eq!(kept.config["description"], "made: by forge\nscsi1: local:9000/x.qcow2,backup=0");
    }
}
