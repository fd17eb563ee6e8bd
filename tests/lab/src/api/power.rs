//! Start, stop, shutdown and reset.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Answer, Call, drives, not_running, rules};
use crate::auth::Caller;
use crate::cluster::Cluster;
use crate::error::ApiResult;
use crate::state::{Drive, Power, Vm};
use crate::tasks::TaskLog;
use crate::vm::{AgentFailure, DiskFile, EfiKind, Launch, RunningVm, Tpm, Uefi, arguments, has_tpm};

/// How long a shutdown waits when the caller names no time.
const SHUTDOWN: u64 = 60;

/// `POST status/start`.
pub fn start(call: &Call) -> ApiResult<Answer> {
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let caller = call.caller.clone();
    call.spawn("qmstart", vmid, |log| async move {
        let lock = match cluster.try_lock_config(vmid) {
            Some(lock) => lock,
            None => {
                log.line("trying to acquire lock...");
                let lock = cluster.lock_config(vmid).await?;
                log.line(" OK");
                lock
            }
        };
        let started = start_vm(&cluster, &node, vmid, &caller, &log).await;
        drop(lock);
        started
    })
}

/// Starts a VM whose lock the caller holds.
///
/// # Errors
/// The text of the task.
pub async fn start_vm(
    cluster: &Arc<Cluster>,
    node: &str,
    vmid: u32,
    caller: &Caller,
    log: &TaskLog,
) -> Result<(), String> {
    start_from(cluster, node, vmid, caller, log, None).await
}

/// As [`start_vm`], going on from a saved state of the memory when there is one.
///
/// # Errors
/// The text of the task.
pub async fn start_from(
    cluster: &Arc<Cluster>,
    node: &str,
    vmid: u32,
    caller: &Caller,
    log: &TaskLog,
    state: Option<&str>,
) -> Result<(), String> {
    let vm = cluster.vm(node, vmid)?;
    if vm.is_template() {
        return Err("you can't start a vm if it's a template".to_owned());
    }
    let suspended = vm.get("lock") == Some("suspended");
    if !suspended {
        vm.check_lock()?;
    }
    if vm.is_running() {
        return Err(format!("VM {vmid} already running"));
    }
    let kept = vm.get("vmstate").filter(|_| suspended).map(str::to_owned);
    let state = state.map(str::to_owned).or_else(|| kept.clone());
    tracing::debug!(vmid, caller = %caller.0, "start");
    if !cluster.config.kvm && vm.get("kvm") != Some("0") {
        // Observed: create-1.txt. The bridge of that VM was missing, too.
        let text = "KVM virtualisation configured, but not available. Either disable in VM configuration or enable in BIOS.";
        return Err(text.to_owned());
    }
    check_bridges(cluster, &vm)?;
    cluster.state().vm_mut(node, vmid)?.apply_pending();
    let vm = cluster.vm(node, vmid)?;
    if let Some((_, drive)) = vm.cloudinit_drive() {
        log.line("generating cloud-init ISO");
        let name = rules::name_of(&vm.config, vmid);
        drives::write_cloudinit(cluster, node, vmid, &name, &vm.config, &drive.volume).await?;
    }
    if !cluster.config.run_guests {
        let pid = 0x1_0000 + vmid % 0x8000;
        cluster.state().vm_mut(node, vmid)?.power = Power::Flag { since: Instant::now(), pid, paused: false };
        forget_state(cluster, node, vmid, kept.as_deref())?;
        return Ok(());
    }
    let state = match &state {
        Some(volume) => Some(existing(cluster, node, volume)?),
        None => None,
    };
    let process = Arc::new(launch(cluster, node, &vm, log, state).await?);
    let mut state = cluster.state();
    // The VM may be gone when the lock was not held for it; then the process goes with this value.
    state.vm_mut(node, vmid)?.power = Power::On(Arc::clone(&process));
    drop(state);
    forget_state(cluster, node, vmid, kept.as_deref())?;
    let (cluster, watched) = (Arc::downgrade(cluster), process);
    tokio::spawn(async move {
        watched.ended().await;
        if let Some(cluster) = cluster.upgrade() {
            cluster.mark_stopped(vmid, watched.pid);
        }
    });
    Ok(())
}

/// Removes the state from which a suspended VM has gone on.
fn forget_state(cluster: &Cluster, node: &str, vmid: u32, volume: Option<&str>) -> Result<(), String> {
    let Some(volume) = volume else { return Ok(()) };
    drives::remove_volume(cluster, node, volume);
    let mut state = cluster.state();
    let config = &mut state.vm_mut(node, vmid)?.config;
    for key in ["lock", "vmstate"] {
        config.remove(key);
    }
    Ok(())
}

fn check_bridges(cluster: &Cluster, vm: &Vm) -> Result<(), String> {
    for (key, value) in vm.config.iter().filter(|(key, _)| key.starts_with("net")) {
        let (_, _, options) = crate::state::parse_net(value);
        if let Some(bridge) = options.get("bridge")
            && !cluster.config.bridges.contains(bridge)
        {
            tracing::debug!(key, bridge, "no such bridge");
            return Err(format!("bridge '{bridge}' does not exist"));
        }
    }
    Ok(())
}

async fn launch(
    cluster: &Cluster,
    node: &str,
    vm: &Vm,
    log: &TaskLog,
    state: Option<PathBuf>,
) -> Result<RunningVm, String> {
    if let Some(key) = vm.config.keys().find(|key| key.starts_with("hostpci")) {
        return Err(format!("{key}: no PCI device of the lab can be passed through"));
    }
    let folder = drives::vm_folder(cluster, vm.vmid)?;
    let mut disks = Vec::new();
    let firmware = |key: &str| key.starts_with("efidisk") || key.starts_with("tpmstate");
    for (key, drive) in vm.drives().filter(|(key, _)| !firmware(key)) {
        let mut file = DiskFile {
            key: key.to_owned(),
            format: "raw".to_owned(),
            cdrom: drive.is_cdrom(),
            options: drive.options.clone(),
            ..DiskFile::default()
        };
        if drive.has_volume() {
            let path = existing(cluster, node, &drive.volume)?;
            file.format = cluster.disks.format(&path).await?;
            file.path = Some(path);
        }
        disks.push(file);
    }
    let uefi =
        if vm.get("bios") == Some("ovmf") { Some(uefi(cluster, node, vm, &folder, log)?) } else { None };
    let tpm = tpm(cluster, node, vm, &folder, log).await?;
    let bridges = cluster.network.bridges();
    let is_reached = vm.config.contains_key("net0") && bridges.is_none();
    let ssh = is_reached.then(|| cluster.network.ssh_address(vm.slot));
    let mut taps = std::collections::BTreeMap::new();
    for (key, value) in &vm.config {
        let (_, _, options) = crate::state::parse_net(value);
        let is_net = key.strip_prefix("net").is_some_and(|number| number.parse::<u8>().is_ok());
        if let (Some(bridges), true, Some(bridge)) = (bridges, is_net, options.get("bridge")) {
            taps.insert(key.clone(), bridges.tap(bridge, vm.slot, key)?);
        }
    }
    let name = vm.name();
    let launch = Launch {
        name: &name,
        config: &vm.config,
        disks,
        folder: &folder,
        accel: &cluster.config.accel,
        cpu: &cluster.config.cpu,
        ssh,
        taps,
        uefi,
        tpm: tpm.as_ref().map(|tpm| tpm.socket.clone()),
        state,
    };
    let goes_on = launch.state.is_some();
    let process = RunningVm::start(&folder, arguments(&launch), tpm).await?;
    if goes_on {
        resume_saved(&process).await?;
    }
    for (key, value) in &vm.config {
        let (_, _, options) = crate::state::parse_net(value);
        if key.starts_with("net") && options.get("link_down").is_some_and(|down| down == "1") {
            let link = json!({"name": format!("{key}-dev"), "up": false});
            process.qmp.execute("set_link", link).await.map_err(|error| error.to_string())?;
        }
    }
    Ok(process)
}

/// Lets a VM go on once its saved memory is read: it was saved while it was paused, and comes back so.
async fn resume_saved(process: &RunningVm) -> Result<(), String> {
    let ask = async |command: &str| {
        process.qmp.execute(command, json!({})).await.map_err(|error| format!("start failed: {error}"))
    };
    while ask("query-status").await?["status"] == "inmigrate" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ask("cont").await.map(drop)
}

/// The file of a volume that must be there.
fn existing(cluster: &Cluster, node: &str, volume: &str) -> Result<PathBuf, String> {
    let path = cluster.storages.path(node, volume)?;
    if path.exists() { Ok(path) } else { Err(format!("volume '{volume}' does not exist")) }
}

/// The firmware, with variables on the EFI disk, or on a temporary one that is as new at each start.
fn uefi(cluster: &Cluster, node: &str, vm: &Vm, folder: &Path, log: &TaskLog) -> Result<Uefi, String> {
    let q35 = vm.get("machine").is_some_and(|machine| machine.contains("q35"));
    if let Some(value) = vm.get("efidisk0") {
        let drive = Drive::parse(value);
        let path = existing(cluster, node, &drive.volume)?;
        let volume = crate::state::Volume::parse(&drive.volume)?;
        return Uefi::find(EfiKind::of(&drive.options), q35, path, volume.format());
    }
    log.warn("no efidisk configured! Using temporary efivars disk.");
    let kind = EfiKind { large: true, keys: false };
    let path = folder.join("efivars.raw");
    std::fs::copy(kind.template(), &path)
        .map_err(|error| format!("EFI vars image '{}' not found: {error}", kind.template().display()))?;
    Uefi::find(kind, q35, path, "raw")
}

async fn tpm(
    cluster: &Cluster,
    node: &str,
    vm: &Vm,
    folder: &Path,
    log: &TaskLog,
) -> Result<Option<Tpm>, String> {
    let Some(value) = vm.get("tpmstate0") else { return Ok(None) };
    if !has_tpm() {
        log.warn("this machine has no swtpm: the VM starts without a TPM");
        return Ok(None);
    }
    let drive = Drive::parse(value);
    let path = existing(cluster, node, &drive.volume)?;
    let version = drive.options.get("version").map_or("v1.2", String::as_str);
    Tpm::start(folder, &path, version).await.map(Some)
}

/// `POST status/stop`: stopping what is stopped succeeds.
pub fn stop(call: &Call) -> ApiResult<Answer> {
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    call.spawn("qmstop", vmid, |_log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        let vm = cluster.vm(&node, vmid)?;
        vm.check_lock()?;
        halt(&cluster, &vm).await;
        Ok(())
    })
}

/// Ends a VM and notes it.
pub async fn halt(cluster: &Cluster, vm: &Vm) {
    match &vm.power {
        Power::Off => {}
        Power::Flag { pid, .. } => cluster.mark_stopped(vm.vmid, *pid),
        Power::On(process) => {
            process.stop().await;
            cluster.mark_stopped(vm.vmid, process.pid);
        }
    }
}

/// `POST status/shutdown`: by the agent when it answers, else by ACPI; holds the configuration's lock meanwhile.
pub fn shutdown(call: &Call) -> ApiResult<Answer> {
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let limit = Duration::from_secs(call.params.number("timeout").unwrap_or(SHUTDOWN));
    let force = call.params.flag("forceStop");
    call.spawn("qmshutdown", vmid, |log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        let vm = cluster.vm(&node, vmid)?;
        vm.check_lock()?;
        shut_down(&cluster, &vm, limit, force, &log).await
    })
}

/// Shuts a VM down whose lock the caller holds.
///
/// # Errors
/// It did not end in time.
pub async fn shut_down(
    cluster: &Cluster,
    vm: &Vm,
    limit: Duration,
    force: bool,
    log: &TaskLog,
) -> Result<(), String> {
    let Power::On(process) = &vm.power else {
        halt(cluster, vm).await;
        return Ok(());
    };
    ask_to_shut_down(cluster, vm, process, log).await?;
    match tokio::time::timeout(limit, process.ended()).await {
        Ok(()) => cluster.mark_stopped(vm.vmid, process.pid),
        Err(_) if force => {
            log.line("VM quit/powerdown failed - terminating now with SIGTERM");
            halt(cluster, vm).await;
        }
        Err(_) => return Err("VM quit/powerdown failed - got timeout".to_owned()),
    }
    Ok(())
}

async fn ask_to_shut_down(
    cluster: &Cluster,
    vm: &Vm,
    process: &RunningVm,
    log: &TaskLog,
) -> Result<(), String> {
    if vm.agent_enabled() {
        // guest-shutdown answers nothing when it succeeds, so silence after a good ping is success.
        let asked = process.ask_agent(
            "guest-shutdown",
            Value::Null,
            cluster.config.agent_ping,
            Duration::from_secs(1),
        );
        match asked.await {
            Err(AgentFailure::NotRunning) => log.line(format!(
                "QEMU Guest Agent is not running - VM {} qga command 'guest-ping' failed - got timeout",
                vm.vmid
            )),
            Err(AgentFailure::Refused(text)) => log.line(format!("guest-shutdown failed: {text}")),
            Ok(_) | Err(AgentFailure::Timeout) => return Ok(()),
        }
    }
    match process.qmp.execute("system_powerdown", json!({})).await {
        Ok(_) => Ok(()),
        Err(_) if process.has_ended() => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// `POST status/reset`.
pub fn reset(call: &Call) -> ApiResult<Answer> {
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let vm = cluster.vm(&node, vmid)?;
    if !vm.is_running() {
        return Err(not_running(vmid));
    }
    call.spawn("qmreset", vmid, |_log| async move {
        let _lock = cluster.lock_config(vmid).await?;
        if let Some(process) = cluster.process(&node, vmid)? {
            process.qmp.execute("system_reset", json!({})).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    })
}
