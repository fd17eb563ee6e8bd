//! `POST vzdump` and `GET vzdump/extractconfig`: backups of VMs that do not run, as real VMA files of their configuration
//! and disks.
//!
//! Who may what, the order of checks, names, log and errors are those of pve-manager's `API2/VZDump.pm` and `VZDump.pm` and
//! of qemu-server's `VZDump/QemuServer.pm`; not observed on a real server. A VM that runs is refused, and nothing is pruned.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::storage::backup;
use super::{Answer, Call};
use crate::auth::Caller;
use crate::cluster::Cluster;
use crate::error::{ApiError, ApiResult};
use crate::state::{Vm, Volume};
use crate::tasks::TaskLog;
use crate::vma;

/// What Proxmox's `encode_text` escapes in remarks.
const REMARK: &AsciiSet = &CONTROLS.add(b':');

/// How the stream is packed.
#[derive(Debug, Clone, Copy)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Packing {
    fn ending(self) -> &'static str {
        match self {
            Packing::None => "vma",
            Packing::Gzip => "vma.gz",
            Packing::Zstd => "vma.zst",
        }
    }
}

/// A job that was asked for.
struct Job {
    cluster: Arc<Cluster>,
    caller: Caller,
    node: String,
    vmids: Vec<u32>,
    /// The storage, or none when a folder is named.
    storage: Option<String>,
    folder: String,
    packing: Packing,
    notes: Option<String>,
    protected: bool,
    unfinished: Arc<Unfinished>,
}

/// What is undone when a job fails or is stopped.
#[derive(Debug, Default)]
struct Unfinished {
    locked: Mutex<Option<u32>>,
    file: Mutex<Option<PathBuf>>,
}

impl Unfinished {
    fn undo(&self, cluster: &Cluster, node: &str) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(file) = file {
            let _gone_already = std::fs::remove_file(file);
        }
        let locked = self.locked.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(vmid) = locked
            && let Ok(vm) = cluster.state().vm_mut(node, vmid)
        {
            vm.config.remove("lock");
        }
    }
}

/// Checks who asks and what for, and starts the job.
pub fn vzdump(call: &Call) -> ApiResult<Answer> {
    let (cluster, node) = (Arc::clone(&call.cluster), call.node().to_owned());
    let given = |name: &str| call.params.get(name);
    if !call.caller.is_root() {
        if let Some(name) =
            ["tmpdir", "dumpdir", "script", "job-id"].iter().find(|name| given(name).is_some())
        {
            return Err(ApiError::parameter(name, "Only root may set this option."));
        }
        if ["bwlimit", "ionice", "performance"].iter().any(|name| given(name).is_some()) {
            call.require("/", &["Sys.Modify"])?;
        }
    }
    if given("storage").is_some() && given("dumpdir").is_some() {
        return Err(ApiError::parameter("storage", "option conflicts with option 'dumpdir'"));
    }
    let Some(vmids) = given("vmid") else {
        return Err(ApiError::parameter("vmid", "the lab backs up the VMs that are named"));
    };
    // Those of other nodes are left out without a word, and a job that has none left does nothing.
    let vmids: Vec<u32> = crate::schema::split_list(vmids).filter_map(|vmid| vmid.parse().ok()).collect();
    let elsewhere = |vmid: &u32| cluster.state().vms.get(vmid).is_some_and(|vm| vm.node != node);
    let vmids: Vec<u32> = vmids.into_iter().filter(|vmid| !elsewhere(vmid)).collect();
    if vmids.is_empty() {
        return Ok("OK".to_owned().into());
    }
    let storage = match given("dumpdir") {
        Some(_) => None,
        None => Some(given("storage").unwrap_or("local").to_owned()),
    };
    if let Some(storage) = &storage {
        call.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        if given("prune-backups").is_some() {
            call.require(&format!("/storage/{storage}"), &["Datastore.Allocate"])?;
        }
    }
    let packing = match given("compress").unwrap_or("0") {
        "0" => Packing::None,
        "gzip" => Packing::Gzip,
        "zstd" => Packing::Zstd,
        _ => return Err(ApiError::die("the lab has no lzop")),
    };
    let unfinished = Arc::new(Unfinished::default());
    let job = Job {
        cluster: Arc::clone(&cluster),
        caller: call.caller.clone(),
        node: node.clone(),
        vmids: vmids.clone(),
        storage,
        folder: given("dumpdir").unwrap_or_default().to_owned(),
        packing,
        notes: given("notes-template").map(str::to_owned),
        protected: call.params.flag("protected"),
        unfinished: Arc::clone(&unfinished),
    };
    let id = match vmids.as_slice() {
        [one] => one.to_string(),
        _ => String::new(),
    };
    let undo = async move { unfinished.undo(&cluster, &node) };
    call.spawn_with_undo("vzdump", id, |log| async move { job.run(&log).await }, undo)
}

impl Job {
    async fn run(&self, log: &TaskLog) -> Result<(), String> {
        let folder = self.place()?;
        let line = self.vmids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        log.line(format!("INFO: starting new backup job: vzdump {line} --node {}", self.node));
        for vmid in &self.vmids {
            self.cluster.auth().require(&self.caller, &format!("/vms/{vmid}"), &["VM.Backup"])?;
        }
        let mut failed = false;
        for vmid in &self.vmids {
            log.line(format!("INFO: Starting Backup of VM {vmid} (qemu)"));
            if let Err(error) = self.one(*vmid, &folder, log).await {
                self.unfinished.undo(&self.cluster, &self.node);
                log.line(format!("ERROR: Backup of VM {vmid} failed - {error}"));
                failed = true;
            } else {
                log.line(format!("INFO: Finished Backup of VM {vmid}"));
            }
        }
        if failed {
            log.line("INFO: Backup job finished with errors");
            return Err("job errors".to_owned());
        }
        log.line("INFO: Backup job finished successfully");
        Ok(())
    }

    /// The folder that takes the archives.
    fn place(&self) -> Result<PathBuf, String> {
        let storages = &self.cluster.storages;
        let Some(name) = &self.storage else {
            let folder = storages.behind(&self.node, &self.folder);
            return match folder.is_dir() {
                true => Ok(folder),
                false => Err(format!("dumpdir '{}' does not exist", self.folder)),
            };
        };
        let wrong = |error: String| format!("could not get storage information for '{name}': {error}");
        let storage = storages.get_on(&self.node, name).map_err(|error| wrong(error.message))?;
        if !storage.takes("backup") {
            return Err(wrong(format!("can't use storage '{name}' for backups - wrong content type")));
        }
        storages.content_folder(&self.node, name, "backup").map_err(String::from)
    }

    async fn one(&self, vmid: u32, folder: &Path, log: &TaskLog) -> Result<(), String> {
        let cluster = &self.cluster;
        let vm = {
            let _lock = cluster.lock_config(vmid).await?;
            let vm = cluster.vm(&self.node, vmid).map_err(|_gone| format!("unable to find VM '{vmid}'"))?;
            vm.check_lock()?;
            if vm.is_running() {
                return Err("the lab backs up only VMs that do not run".to_owned());
            }
            cluster.state().vm_mut(&self.node, vmid)?.config.insert("lock".to_owned(), "backup".to_owned());
            *self.unfinished.locked.lock().unwrap_or_else(PoisonError::into_inner) = Some(vmid);
            vm
        };
        let _volumes = cluster.share_volumes(vmid).await?;
        log.line("INFO: status = stopped");
        log.line("INFO: backup mode: stop");
        log.line(format!("INFO: VM Name: {}", vm.name()));
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let (path, second) = self.free_name(vmid, folder);
        let shown = match &self.storage {
            Some(storage) => {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                Volume::parse(&format!("{storage}:backup/{file}"))?.display_path()
            }
            None => {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                format!("{}/{file}", self.folder.trim_end_matches('/'))
            }
        };
        log.line(format!("INFO: creating vzdump archive '{shown}'"));
        if vm.is_template() {
            log.line("INFO: starting template backup");
        }
        let raw = tempfile::Builder::new()
            .prefix("vzdump-")
            .tempdir_in(&cluster.run_dir)
            .map_err(|error| error.to_string())?;
        let (devices, config) = self.contents(&vm, raw.path(), log).await?;
        let part =
            path.with_file_name(format!("{}.dat", path.file_name().unwrap_or_default().to_string_lossy()));
        *self.unfinished.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(part.clone());
        let (_, used) = self.room()?;
        self.pack(config, devices, second, &part, log).await?;
        let size = part.metadata().map_err(|error| error.to_string())?.len();
        let (total, _) = self.room()?;
        if used + size > total {
            log.line("INFO: zstd: error 70 : Write error : cannot write block : No space left on device");
            return Err("vma_queue_write: write error - Broken pipe".to_owned());
        }
        std::fs::rename(&part, &path).map_err(|error| error.to_string())?;
        log.line(format!("INFO: archive file size: {size}B"));
        self.unfinished.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(notes) = &self.notes {
            log.line("INFO: adding notes to backup");
            let notes = notes
                .replace("{{guestname}}", &vm.name())
                .replace("{{node}}", &self.node)
                .replace("{{vmid}}", &vmid.to_string())
                .replace("\\n", "\n");
            backup::write_beside(&path, "notes", &notes).map_err(|error| error.to_string())?;
        }
        if self.protected {
            log.line("INFO: marking backup as protected");
            backup::write_beside(&path, "protected", "").map_err(|error| error.to_string())?;
        }
        self.unfinished.undo(cluster, &self.node);
        Ok(())
    }

    /// Bytes that the storage can hold, and those in use.
    fn room(&self) -> Result<(u64, u64), String> {
        let Some(name) = &self.storage else { return Ok((u64::MAX, 0)) };
        let storage = self.cluster.storages.get(name)?;
        match storage.size {
            Some(_) => Ok(self.cluster.storages.usage(&self.node, storage)?),
            None => Ok((u64::MAX, 0)),
        }
    }

    /// A name that no archive has, and its time.
    fn free_name(&self, vmid: u32, folder: &Path) -> (PathBuf, i64) {
        let ending = self.packing.ending();
        let mut second = self.cluster.clock.now();
        loop {
            let time = jiff::Timestamp::from_second(second).unwrap_or_default();
            let path =
                folder.join(format!("vzdump-qemu-{vmid}-{}.{ending}", time.strftime("%Y_%m_%d-%H_%M_%S")));
            if !path.exists() {
                return (path, second);
            }
            second += 1;
        }
    }

    /// The disks as they are, in files of their own, and the configuration.
    async fn contents(
        &self,
        vm: &Vm,
        folder: &Path,
        log: &TaskLog,
    ) -> Result<(Vec<vma::Device>, String), String> {
        let mut devices = Vec::new();
        let mut config = config_file(vm);
        for (key, drive) in vm.drives().filter(|(_, drive)| drive.has_volume() && !drive.is_cdrom()) {
            if drive.options.get("backup").is_some_and(|backup| matches!(backup.as_str(), "0" | "no")) {
                log.line(format!("INFO: exclude disk '{key}' '{}' (backup=no)", drive.volume));
                continue;
            }
            log.line(format!("INFO: include disk '{key}' '{}'", drive.volume));
            let from = self.cluster.storages.path(&self.node, &drive.volume)?;
            let device = vma::Device { name: format!("drive-{key}"), file: folder.join(key) };
            self.cluster.disks.convert(&from, &device.file, "raw", None, &|_percent| {}).await?;
            let volume = Volume::parse(&drive.volume)?;
            config.push_str(&format!(
                "#qmdump#map:{key}:{}:{}:{}:\n",
                device.name,
                volume.storage,
                volume.format()
            ));
            devices.push(device);
        }
        Ok((devices, config))
    }

    async fn pack(
        &self,
        config: String,
        devices: Vec<vma::Device>,
        time: i64,
        part: &Path,
        log: &TaskLog,
    ) -> Result<(), String> {
        /// Ends the writing when nobody waits for it any more.
        struct EndWithMe(Arc<AtomicBool>);
        impl Drop for EndWithMe {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let mut whole = 0;
        for device in &devices {
            whole += device.file.metadata().map_err(|error| error.to_string())?.len();
        }
        let ended = EndWithMe(Arc::new(AtomicBool::new(false)));
        let (stop, log, part, packing) = (Arc::clone(&ended.0), log.clone(), part.to_owned(), self.packing);
        let work = tokio::task::spawn_blocking(move || -> io::Result<()> {
            let told = std::cell::Cell::new(0);
            let watch = |seen: u64| {
                if stop.load(Ordering::SeqCst) {
                    return Err(io::Error::other("received interrupt"));
                }
                let percent = seen * 100 / whole.max(1);
                if percent > told.get() {
                    told.set(percent);
                    log.progress(percent as f64);
                    if percent.is_multiple_of(10) {
                        log.line(format!("INFO: {percent}% ({seen} of {whole} bytes)"));
                    }
                }
                Ok(())
            };
            let file = File::create(&part)?;
            let outcome = match packing {
                Packing::None => vma::write(&mut io::BufWriter::new(file), &config, &devices, time, &watch),
                Packing::Gzip => {
                    let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::default());
                    vma::write(&mut out, &config, &devices, time, &watch).and_then(|()| out.finish()?.flush())
                }
                Packing::Zstd => {
                    let mut out = zstd::stream::write::Encoder::new(file, 3)?;
                    vma::write(&mut out, &config, &devices, time, &watch).and_then(|()| out.finish()?.flush())
                }
            };
            if outcome.is_err() {
                let _gone_already = std::fs::remove_file(&part);
            }
            outcome
        });
        let outcome = work.await.map_err(|error| error.to_string())?;
        drop(ended);
        outcome.map_err(|error| error.to_string())
    }
}

/// A VM's configuration as its file has it: what people wrote comes first, as remarks.
fn config_file(vm: &Vm) -> String {
    let mut text = String::new();
    for line in vm.get("description").unwrap_or_default().lines() {
        text.push_str(&format!("#{}\n", utf8_percent_encode(line, REMARK)));
    }
    for (key, value) in vm.config.iter().filter(|(key, _)| !matches!(key.as_str(), "description" | "lock")) {
        text.push_str(&format!("{key}: {value}\n"));
    }
    text
}

/// Opens an archive for reading, unpacked.
///
/// # Errors
/// It is not there.
pub fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    let file = io::BufReader::new(File::open(path)?);
    Ok(match path.extension().and_then(|ending| ending.to_str()) {
        Some("zst") => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        Some("gz") => Box::new(flate2::read::GzDecoder::new(file)),
        _ => Box::new(file),
    })
}

/// `GET extractconfig`: the configuration in a backup.
pub fn extract_config(call: &Call) -> ApiResult<Answer> {
    let volid = call.params.text("volume");
    let volume = Volume::parse(volid)?;
    backup::check_access(call, &volume)?;
    let path = call.cluster.storages.path(call.node(), volid)?;
    let config = open(&path).and_then(|mut stream| vma::config(stream.as_mut()));
    config.map(Answer::from).map_err(|error| ApiError::die(format!("unable to read '{volid}' - {error}")))
}
