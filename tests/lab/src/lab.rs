//! Starting, filling and stopping a lab from Rust.

mod import;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use import::ImportVm;

use crate::api::Consoles;
use crate::auth::Auth;
use crate::clock::LabClock;
use crate::cluster::{Cluster, RequestRecord};
use crate::config::LabConfig;
use crate::faults::Faults;
use crate::shell::{Shell, ShellConfig};
use crate::state::{Drive, Power, State, Storages, Vm, print_size};
use crate::tasks::Tasks;
use crate::tls::Identity;
use crate::vm::{Disks, GuestNetwork};

/// A running lab. Dropping it kills its guests and removes its temporary folder; [`Lab::stop`] also waits for them.
#[derive(Debug)]
pub struct Lab {
    cluster: Arc<Cluster>,
    address: SocketAddr,
    stop: CancellationToken,
    server: Option<JoinHandle<()>>,
    _folder: Option<tempfile::TempDir>,
}

/// A VM as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmView {
    /// Its number.
    pub vmid: u32,
    /// Its name.
    pub name: String,
    /// Node.
    pub node: String,
    /// Whether it is a template.
    pub template: bool,
    /// Tags as kept, joined by `;`.
    pub tags: String,
    /// Whether it runs.
    pub running: bool,
    /// The configuration's `lock`.
    pub lock: Option<String>,
    /// Its notes.
    pub description: String,
    /// The whole configuration, pending changes applied.
    pub config: BTreeMap<String, String>,
}

impl Lab {
    /// Starts a lab.
    ///
    /// # Errors
    /// The port, a guest network, the folder or the certificates can't be had.
    pub async fn start(config: LabConfig) -> anyhow::Result<Lab> {
        if config.nodes.is_empty() {
            bail!("a lab needs a node");
        }
        let (folder, root) = match &config.state_dir {
            Some(root) => (None, root.clone()),
            None => {
                let folder = tempfile::Builder::new().prefix("forge-lab-").tempdir()?;
                let root = folder.path().to_path_buf();
                (Some(folder), root)
            }
        };
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("can't listen on {}", config.listen))?;
        let address = listener.local_addr()?;
        let storages = Storages::new(root.join("storage"), config.storages.clone());
        for node in &config.nodes {
            for storage in storages.all() {
                let folder = storages.folder(node, &storage.name).map_err(|error| anyhow!(error.message))?;
                std::fs::create_dir_all(&folder)?;
            }
        }
        let run_dir = root.join("run");
        std::fs::create_dir_all(&run_dir)?;
        let mut network = GuestNetwork::claim(config.ssh)?;
        network.make_bridges(&config.bridges, &config.silent_bridges, &root.join("network"))?;
        let clock = Arc::new(LabClock::new(config.clock));
        let cluster = Arc::new(Cluster {
            state: Mutex::new(State::default()),
            tasks: Tasks::new(Arc::clone(&clock), (!config.run_guests).then_some(config.task_time)),
            faults: Faults::default(),
            auth: Mutex::new(Auth::new(config.version).with_ticket_life(config.ticket_life)),
            requests: Mutex::default(),
            identity: Identity::generate(&config.nodes)?,
            storages,
            disks: if config.run_guests { Disks::Real } else { Disks::Stub },
            network,
            run_dir,
            consoles: Consoles::default(),
            clock,
            offline: Mutex::default(),
            free_memory: Mutex::default(),
            options: Mutex::default(),
            config,
        });
        let stop = CancellationToken::new();
        let server = tokio::spawn(crate::http::serve(Arc::clone(&cluster), listener, stop.clone()));
        Ok(Lab { cluster, address, stop, server: Some(server), _folder: folder })
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SHA-256 of its certificate, upper-case hex with colons.
    pub fn fingerprint(&self) -> &str {
        &self.cluster.identity.fingerprint
    }

    /// The certificate of its authority.
    pub fn ca_pem(&self) -> &str {
        &self.cluster.identity.ca_pem
    }

    /// Adds an API token with privilege separation that may do only what is listed, and returns its secret:
    /// `add_token("forge@pve!build", &[("/", LEAST_PRIVILEGES_PVE9)])`.
    pub fn add_token(&self, id: &str, access: &[(&str, &[&str])]) -> String {
        let secret = crate::ids::uuid();
        self.add_token_with_secret(id, &secret, access);
        secret
    }

    /// As [`Lab::add_token`], with a secret of the caller's choice.
    pub fn add_token_with_secret(&self, id: &str, secret: &str, access: &[(&str, &[&str])]) {
        self.cluster.auth().add_token(id, secret, access, true);
    }

    /// Adds an API token that may do everything, and returns its secret.
    pub fn add_full_token(&self, id: &str) -> String {
        let all = self.cluster.auth().known_privileges();
        self.add_token(id, &[("/", all)])
    }

    /// Sets the password of a user, and makes the user if it is not there: `set_password("root@pam", "secret")`.
    pub fn set_password(&self, user: &str, password: &str) {
        self.cluster.auth().set_password(user, password);
    }

    /// Makes a pool without members.
    pub fn add_pool(&self, id: &str) {
        self.cluster.auth().pools.insert(id.to_owned(), crate::auth::Pool::default());
    }

    /// Replaces what a user may do, and makes the user if it is not there.
    pub fn set_user_access(&self, user: &str, access: &[(&str, &[&str])]) {
        self.cluster.auth().set_user_access(user, access);
    }

    /// Moves the time of a lab whose clock is explicit.
    pub fn advance(&self, time: Duration) {
        self.cluster.clock.advance(time);
    }

    /// Sets the nodes' clocks wrong by that many seconds.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.cluster.clock.set_skew(seconds);
    }

    /// Takes a node down or brings it back: while it is down, calls to it end with 595.
    pub fn set_online(&self, node: &str, online: bool) {
        let mut offline = self.cluster.offline.lock().unwrap_or_else(PoisonError::into_inner);
        if online {
            offline.remove(node);
        } else {
            offline.insert(node.to_owned());
        }
    }

    /// Sets how much memory of a node is free, in bytes.
    pub fn set_free_memory(&self, node: &str, bytes: u64) {
        let mut free = self.cluster.free_memory.lock().unwrap_or_else(PoisonError::into_inner);
        free.insert(node.to_owned(), bytes);
    }

    /// Replaces what a token may do.
    pub fn set_token_access(&self, id: &str, access: &[(&str, &[&str])]) {
        self.cluster.auth().set_token_access(id, access);
    }

    /// Takes a token away.
    pub fn remove_token(&self, id: &str) {
        self.cluster.auth().remove_token(id);
    }

    /// Offers a shell over SSH on the first node, with Proxmox's programs, until what comes back is dropped.
    ///
    /// # Errors
    /// There is no port, or no host key can be made.
    pub async fn serve_shell(&self, config: ShellConfig) -> anyhow::Result<Shell> {
        Shell::serve(Arc::clone(&self.cluster), config).await
    }

    /// Users, tokens with their secrets, roles, the access list and pools: to prove that nothing was changed.
    pub fn access_state(&self) -> String {
        let auth = self.cluster.auth();
        format!(
            "{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}",
            auth.users, auth.groups, auth.roles, auth.acl, auth.pools
        )
    }

    /// The scripted faults.
    pub fn faults(&self) -> &Faults {
        &self.cluster.faults
    }

    /// All calls so far, in the order they came.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.cluster.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All VMs by number.
    pub fn vms(&self) -> Vec<VmView> {
        self.cluster.state().vms.values().map(view).collect()
    }

    /// One VM.
    pub fn vm(&self, vmid: u32) -> Option<VmView> {
        self.cluster.state().vms.get(&vmid).map(view)
    }

    /// The QEMU processes that run.
    pub fn qemu_pids(&self) -> Vec<u32> {
        let state = self.cluster.state();
        let running = state.vms.values().filter_map(|vm| match &vm.power {
            Power::On(process) if !process.has_ended() => Some(process.pid),
            _ => None,
        });
        running.collect()
    }

    /// Tasks that have not ended: their types and what they work on.
    pub fn running_tasks(&self) -> Vec<(String, String)> {
        let tasks = self.cluster.tasks.all();
        let running = tasks.iter().filter(|task| task.exit_status().is_none());
        running.map(|task| (task.kind.clone(), task.id.clone())).collect()
    }

    /// Gives the first adapter of a VM on a real bridge another address, from the guest's next question for one on
    /// ([`SshForward::Bridge`](crate::SshForward::Bridge)).
    ///
    /// # Errors
    /// The lab has no real bridges, or the VM no adapter.
    pub fn move_address(&self, vmid: u32) -> anyhow::Result<std::net::Ipv4Addr> {
        self.cluster.move_address(vmid)
    }

    /// The address by which guests reach what runs beside the lab: the host of QEMU's user network, or that of the first
    /// bridge.
    pub fn host_address(&self) -> std::net::Ipv4Addr {
        self.cluster.network.host_address()
    }

    /// Where a VM's port 22 is reached; on a real bridge once the guest has an address.
    pub fn ssh_address(&self, vmid: u32) -> Option<SocketAddr> {
        let (slot, mac) = {
            let state = self.cluster.state();
            let vm = state.vms.get(&vmid)?;
            (vm.slot, vm.first_mac())
        };
        match self.cluster.network.bridges() {
            Some(bridges) => Some((bridges.address_of(&mac?)?, 22).into()),
            None => Some(self.cluster.network.ssh_address(slot)),
        }
    }

    /// A VM's serial console so far.
    pub fn serial_log(&self, vmid: u32) -> String {
        let path = self.cluster.run_dir.join(vmid.to_string()).join("serial.log");
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Volume files on all nodes and storages, relative to the storage folder; to prove that nothing is left.
    pub fn image_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for node in &self.cluster.config.nodes {
            for storage in self.cluster.storages.all() {
                let Ok(folder) = self.cluster.storages.content_folder(node, &storage.name, "images") else {
                    continue;
                };
                for vm in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                    let entries = std::fs::read_dir(vm.path()).into_iter().flatten().flatten();
                    files.extend(entries.map(|entry| entry.path()));
                }
            }
        }
        files.sort();
        files
    }

    /// Reads a backup that a storage of a node holds, from its first to its last byte.
    ///
    /// # Errors
    /// It is not there, or is not whole.
    pub fn archive(&self, node: &str, volid: &str) -> anyhow::Result<crate::vma::Archive> {
        let path = self.cluster.storages.path(node, volid).map_err(|error| anyhow!(error.message))?;
        let mut stream =
            crate::api::open_archive(&path).with_context(|| format!("{volid} can't be opened"))?;
        crate::vma::read(stream.as_mut()).with_context(|| format!("{volid} can't be read"))
    }

    /// The backups that a storage of a node holds.
    pub fn backups(&self, node: &str, storage: &str) -> Vec<String> {
        let folder = self.cluster.storages.content_folder(node, storage, "backup").unwrap_or_default();
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let backups = names.filter(|name| crate::api::backup::format(name).is_some());
        let mut volids: Vec<String> = backups.map(|name| format!("{storage}:backup/{name}")).collect();
        volids.sort();
        volids
    }

    /// Whether a backup is protected, and its notes.
    pub fn backup_marks(&self, node: &str, volid: &str) -> (bool, String) {
        let path = self.cluster.storages.path(node, volid).unwrap_or_default();
        let beside = |what| crate::api::backup::beside(&path, what);
        (beside("protected").exists(), std::fs::read_to_string(beside("notes")).unwrap_or_default())
    }

    /// Takes a volume's file away, as somebody on the node may.
    ///
    /// # Errors
    /// It is not there.
    pub fn remove_volume(&self, node: &str, volid: &str) -> anyhow::Result<()> {
        let path = self.cluster.storages.path(node, volid).map_err(|error| anyhow!(error.message))?;
        std::fs::remove_file(&path).with_context(|| format!("{volid} can't be removed"))
    }

    /// Puts a copy of an install medium on a storage of every node, as `STORAGE:iso/NAME`.
    ///
    /// # Errors
    /// There is no such storage, or the file can't be copied.
    pub fn import_iso(&self, storage: &str, name: &str, from: &Path) -> anyhow::Result<()> {
        for node in &self.cluster.config.nodes {
            let folder = self
                .cluster
                .storages
                .content_folder(node, storage, "iso")
                .map_err(|error| anyhow!(error.message))?;
            std::fs::create_dir_all(&folder)?;
            std::fs::copy(from, folder.join(name))
                .with_context(|| format!("{} can't be copied", from.display()))?;
        }
        Ok(())
    }

    /// Puts a VM into the lab.
    ///
    /// # Errors
    /// The number is taken, no storage takes images, or the disk can't be made.
    pub async fn import_vm(&self, import: ImportVm) -> anyhow::Result<()> {
        let cluster = &self.cluster;
        let node = import.node.clone().unwrap_or_else(|| cluster.config.nodes[0].clone());
        let storage = match &import.storage {
            Some(storage) => storage.clone(),
            None => cluster
                .storages
                .all()
                .iter()
                .find(|storage| storage.content.iter().any(|content| content == "images"))
                .map(|storage| storage.name.clone())
                .context("no storage takes images")?,
        };
        let vmid = import.vmid;
        if cluster.state().vms.contains_key(&vmid) {
            bail!("VM {vmid} exists already");
        }
        let stem = if import.template { "base" } else { "vm" };
        let mut drive = Drive {
            volume: format!("{storage}:{vmid}/{stem}-{vmid}-disk-0.qcow2"),
            options: BTreeMap::new(),
        };
        let path = cluster.storages.path(&node, &drive.volume).map_err(|error| anyhow!(error.message))?;
        let made = match &import.disk {
            Some(disk) => {
                let disk = std::path::absolute(disk)?;
                let format = if cluster.disks == Disks::Real {
                    Disks::Real.format(&disk).await.map_err(|error| anyhow!(error))?
                } else {
                    "qcow2".to_owned()
                };
                cluster.disks.overlay(&path, &disk, &format).await
            }
            None => cluster.disks.create(&path, "qcow2", 1 << 30).await,
        };
        made.map_err(|error| anyhow!(error)).with_context(|| format!("can't make the disk of VM {vmid}"))?;
        let size = cluster.disks.size(&path).await.map_err(|error| anyhow!(error))?;
        drive.options.insert("size".to_owned(), print_size(size));

        let mut config = import::configuration(&import, &drive);
        if import.cloudinit_drive {
            let volume = format!("{storage}:{vmid}/vm-{vmid}-cloudinit.qcow2");
            crate::api::write_cloudinit(cluster, &node, vmid, &import.name, &config, &volume)
                .await
                .map_err(|error| anyhow!(error))?;
            config.insert("ide2".to_owned(), format!("{volume},media=cdrom"));
        }
        config.extend(import.extra);
        cluster.state().insert(&cluster.network, vmid, &node, config);
        Ok(())
    }

    /// Stops the server, the tasks and the guests, and waits for them.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.cluster.tasks.stop_all();
        for vm in self.running() {
            if let Power::On(process) = &vm.power {
                process.kill();
                process.ended().await;
            }
        }
        if let Some(server) = self.server.take() {
            // It ends by the cancellation above; a panic in it has been reported already.
            let _ = server.await;
        }
    }

    /// Its inside, for tests of this crate.
    #[cfg(test)]
    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    fn running(&self) -> Vec<Vm> {
        self.cluster.state().vms.values().filter(|vm| vm.is_running()).cloned().collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        crate::coverage::record(&self.requests());
        self.stop.cancel();
        self.cluster.tasks.stop_all();
        for vm in self.running() {
            if let Power::On(process) = &vm.power {
                process.kill();
            }
        }
    }
}

fn view(vm: &Vm) -> VmView {
    VmView {
        vmid: vm.vmid,
        name: vm.name(),
        node: vm.node.clone(),
        template: vm.is_template(),
        tags: vm.get("tags").unwrap_or_default().to_owned(),
        running: vm.is_running(),
        lock: vm.get("lock").map(str::to_owned),
        description: vm.get("description").unwrap_or_default().to_owned(),
        config: vm.with_pending(),
    }
}
