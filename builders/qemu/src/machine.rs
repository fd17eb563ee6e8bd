//! One local VM: its process, display, keys, addresses, and its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use forge_machine::{
    AddressReport, AgentChannel, Artefact, Attachments, DiskFind, Display, DisplayStream, Finish, Forbidden,
    KeyChord, Machine, MachineSpec, MachineState, Ownership, PortError, Power, StopLadder, StopRung,
    TaskHandle, VmRef,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::agent::GuestAgent;
use crate::args::{
    AGENT_SOCKET, FLOPPY_FILE, QMP_SOCKET, SEED_FILE, SERIAL_LOG, SERIAL_SOCKET, Settings, VNC_SOCKET,
};
use crate::base;
use crate::bridge;
use crate::drives::disk_file;
use crate::finalize::{self, Wanted};
use crate::hypervisor::{Job, NODE, Shared};
use crate::media;
use crate::process::{Launch, QemuProcess};
use crate::qmp::Qmp;
use crate::sandbox::SANDBOX;
use crate::search;
use crate::socket;
use crate::tpm;
use crate::workdir::WorkDir;

/// QEMU's own log in the work directory.
const QEMU_LOG: &str = "qemu.log";
/// How long QEMU may take until its monitor answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long QEMU may take to end when it was told to.
const QUIT_LIMIT: Duration = Duration::from_secs(5);
/// How much of the serial port's record is read at once.
const SERIAL_AT_ONCE: u64 = 1 << 20;
/// How long the guest agent may take to tell its addresses.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);
/// How long a key chord is held.
const HOLD_MS: u32 = 15;
/// A guest that overlooked the power button (no one listened yet) is asked again this often.
const PRESS_AGAIN: Duration = Duration::from_secs(15);

/// A QEMU process of this forge process, ready for use.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: QemuProcess,
    /// Ends when QEMU has ended, or with this.
    _tpm: Option<QemuProcess>,
    qmp: Qmp,
    agent: Option<Arc<GuestAgent>>,
    agent_seen: Arc<AtomicBool>,
    watcher: Option<AbortHandle>,
    ssh_port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

impl Running {
    async fn start(
        dir: &WorkDir,
        binary: PathBuf,
        arguments: Vec<String>,
        settings: &Settings,
        tpm: Option<QemuProcess>,
        ssh_port: u16,
    ) -> Result<Self, PortError> {
        let failed = |error| PortError::broken("QEMU could not be started", error);
        let mut launch = Launch::new(binary, dir.file(QEMU_LOG)).arguments(arguments);
        launch.directory = Some(dir.path().to_owned());
        let process = QemuProcess::spawn(launch).await.map_err(failed)?;
        let qmp = process.connect_qmp(&dir.file(QMP_SOCKET), START_LIMIT).await.map_err(failed)?;
        let agent = settings.agent.then(|| Arc::new(GuestAgent::new(&dir.file(AGENT_SOCKET))));
        let agent_seen = Arc::new(AtomicBool::new(false));
        let watcher = agent.as_ref().map(|agent| {
            tokio::spawn(watch_agent(Arc::clone(agent), qmp.clone(), Arc::clone(&agent_seen))).abort_handle()
        });
        Ok(Self { process, _tpm: tpm, qmp, agent, agent_seen, watcher, ssh_port })
    }

    /// What the agent says of the addresses of a guest on a bridge, whose adapters are given by their MAC addresses.
    async fn told_addresses(&self, macs: &[String]) -> AddressReport {
        let unknown = |detail| AddressReport { detail, ..AddressReport::default() };
        let Some(agent) = &self.agent else { return unknown("the VM has no guest agent".to_owned()) };
        match agent.execute("guest-network-get-interfaces", Value::Null, ADDRESS_LIMIT).await {
            Ok(answer) => bridge::report(answer, macs),
            Err(error) => unknown(error.to_string()),
        }
    }

    async fn exits_within(&self, limit: Duration) -> bool {
        timeout(limit, self.process.wait()).await.is_ok()
    }

    /// Ends the process, politely if it listens.
    async fn end(&self) -> bool {
        let _ = timeout(QUIT_LIMIT, self.qmp.quit()).await;
        if self.exits_within(QUIT_LIMIT).await {
            return true;
        }
        self.process.kill();
        self.exits_within(QUIT_LIMIT).await
    }

    /// First rung: asks the agent. `Ok` when the guest has stopped, else what was seen.
    async fn shut_down_by_agent(&self, limit: Duration) -> Result<(), String> {
        let Some(agent) = &self.agent else { return Err("the VM has no guest agent".to_owned()) };
        let began = Instant::now();
        // An agent that was never heard of gets one chance; it is not worth the whole rung.
        let patience = Duration::from_secs(if self.agent_seen.load(Ordering::Relaxed) { 5 } else { 1 });
        let order = agent.execute_without_answer(
            "guest-shutdown",
            json!({ "mode": "powerdown" }),
            patience.min(limit),
            Duration::from_millis(500),
        );
        tokio::select! {
            result = order => result.map_err(|error| error.to_string())?,
            _ = self.process.wait() => return Ok(()),
        }
        if self.exits_within(limit.saturating_sub(began.elapsed())).await {
            return Ok(());
        }
        Err("the guest agent took the order, and the guest still runs".to_owned())
    }

    /// Second rung: presses the power button.
    async fn shut_down_by_button(&self, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Err(error) = self.qmp.system_powerdown().await
                && !self.qmp.is_closed()
            {
                return Err(error.to_string());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.exits_within(left.min(PRESS_AGAIN)).await {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err("the guest does not obey the power button".to_owned());
            }
        }
    }
}

/// Notes when the agent answers for the first time.
async fn watch_agent(agent: Arc<GuestAgent>, qmp: Qmp, seen: Arc<AtomicBool>) {
    while !qmp.is_closed() {
        match agent.ping(Duration::from_secs(1)).await {
            Ok(()) => {
                seen.store(true, Ordering::Relaxed);
                return;
            }
            // It can fail at once too (a socket that is just going away).
            Err(error) => tracing::trace!(%error, "guest agent"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// One VM of a [`crate::QemuHypervisor`].
#[derive(Debug)]
pub(crate) struct QemuMachine {
    shared: Arc<Shared>,
    at: VmRef,
}

impl QemuMachine {
    pub(crate) fn new(shared: Arc<Shared>, at: VmRef) -> Self {
        Self { shared, at }
    }

    /// Its work directory, which must be there.
    fn directory(&self) -> Result<WorkDir, PortError> {
        let dir = self.shared.directory(&self.at)?;
        if dir.exists() { Ok(dir) } else { Err(dir.missing()) }
    }

    fn runs(&self, dir: &WorkDir) -> bool {
        self.shared.running(&self.at).is_some() || dir.running().is_some()
    }

    fn stopped_directory(&self, what: &str) -> Result<WorkDir, PortError> {
        let dir = self.directory()?;
        if let Some(work) = self.shared.busy(&self.at) {
            return Err(PortError::Locked { what: self.at.to_string(), lock: work.to_owned() });
        }
        if self.runs(&dir) {
            return Err(PortError::failed(what, "the VM runs"));
        }
        Ok(dir)
    }

    fn running(&self) -> Result<Arc<Running>, PortError> {
        let dir = self.directory()?;
        self.shared.running(&self.at).ok_or_else(|| {
            let detail = match dir.running() {
                Some(pid) => format!("it runs under another forge process (QEMU's pid is {pid})"),
                None => "the VM does not run".to_owned(),
            };
            PortError::failed(format!("reaching {}", self.at), detail)
        })
    }
}

#[async_trait]
impl Machine for QemuMachine {
    fn reference(&self) -> &VmRef {
        &self.at
    }

    fn folder(&self) -> Option<PathBuf> {
        self.directory().ok().map(|dir| dir.path().to_owned())
    }

    async fn configure(
        &self,
        spec: &MachineSpec,
        mark: &Ownership,
        attachments: &Attachments,
    ) -> Result<(), PortError> {
        if attachments.cloud_init.is_some() {
            let what = "attach a cloud-init drive".to_owned();
            return Err(PortError::Unsupported { backend: "QEMU", what });
        }
        let dir = self.stopped_directory("configuring the VM")?;
        dir.write_mark(mark)?;
        for (name, what, bytes) in
            [(SEED_FILE, "seed's disc", &attachments.seed_disc), (FLOPPY_FILE, "floppy", &attachments.floppy)]
        {
            let Some(bytes) = bytes else { continue };
            tokio::fs::write(dir.file(name), bytes)
                .await
                .map_err(|error| PortError::broken(format!("the {what} could not be written"), error))?;
        }
        let mut settings = Settings::new(spec, &mark.nonce, attachments);
        let cmdline = attachments.kernel_cmdline.as_deref().unwrap_or_default();
        // A VM that was started before has installed: it gets its seed anew, and not its installer.
        let started = dir.settings()?.is_some_and(|before| before.kernel.is_none());
        if !started {
            settings.kernel = media::kernel(&dir, spec, cmdline).await?;
        }
        if let Some(bridge) = &self.shared.target.bridge {
            settings.put_on(bridge, &mark.nonce);
        }
        let firmware = self.shared.host().firmware(spec);
        settings.firmware = firmware.map_err(|why| PortError::failed("choosing the firmware", why))?;
        if let Some(firmware) = &settings.firmware {
            media::variables(&self.shared.tool, &dir, firmware).await?;
        }
        dir.write_settings(&settings)?;
        let failed = |error| PortError::broken("the disk could not be grown", error);
        for (index, disk) in spec.disks.iter().enumerate() {
            let Some(size) = disk.size else { continue };
            let file = dir.file(&disk_file(index));
            let info = self.shared.tool.info(&file, Some("qcow2")).await.map_err(failed)?;
            if size > info.virtual_size {
                self.shared.tool.resize(&file, "qcow2", size).await.map_err(failed)?;
            }
        }
        Ok(())
    }

    async fn submit_start(&self) -> Result<TaskHandle, PortError> {
        let _one_at_a_time = self.shared.starting.lock().await;
        let dir = self.directory()?;
        if self.runs(&dir) {
            return Ok(TaskHandle::finished(NODE));
        }
        let dir = self.stopped_directory("starting the VM")?;
        base::unchanged(&dir, "starting the VM")?;
        let settings =
            dir.settings()?.ok_or_else(|| PortError::failed("starting the VM", "it was not configured"))?;
        let accelerator = self.shared.verdict().await.accelerator;
        // On a bridge the guest has an address of its own.
        let ssh_port = if settings.bridge.is_none() { self.shared.hold_port(&self.at)? } else { 0 };
        let mut arguments = settings.arguments(accelerator, ssh_port);
        if settings.bridge.is_none() && self.shared.sandbox().await.is_ok() {
            arguments.extend(["-sandbox".to_owned(), SANDBOX.to_owned()]);
        }
        let binary = self.shared.target.binary.clone();
        let tpm = match self.shared.host().tpm.as_deref().filter(|_| settings.tpm) {
            Some(program) => Some(tpm::start(&dir, program).await?),
            None => None,
        };
        // It is for this start only; before it, because a guest may be done before anything else is written.
        if settings.kernel.is_some() {
            dir.write_settings(&Settings { kernel: None, ..settings.clone() })?;
        }
        let running = Running::start(&dir, binary, arguments, &settings, tpm, ssh_port).await?;
        self.shared.set_running(&self.at, running);
        Ok(TaskHandle::finished(NODE))
    }

    async fn state(&self) -> Result<MachineState, PortError> {
        let dir = self.directory()?;
        let state = |power, detail: &str| MachineState { power, detail: detail.to_owned(), template: false };
        let Some(running) = self.shared.running(&self.at) else {
            return Ok(match dir.running() {
                Some(_) => state(Power::Running, "running under another forge process"),
                None => state(Power::Stopped, self.shared.bad_end(&self.at).as_deref().unwrap_or("stopped")),
            });
        };
        match running.qmp.query_status().await {
            Ok(status) if status.running => Ok(state(Power::Running, &status.status)),
            Ok(status) => {
                let accelerator = self.shared.verdict().await.accelerator;
                Ok(state(Power::Paused, &accelerator.stopped_with(&status.status)))
            }
            // The monitor closes a moment before the process ends.
            Err(_) if running.qmp.is_closed() => {
                if running.exits_within(QUIT_LIMIT).await {
                    let gone = self.shared.running(&self.at).is_none();
                    let end = self.shared.bad_end(&self.at).filter(|_| gone);
                    Ok(state(Power::Stopped, end.as_deref().unwrap_or("stopped")))
                } else {
                    Ok(state(Power::Running, "running without a monitor"))
                }
            }
            Err(error) => Err(PortError::broken("QEMU does not tell the VM's state", error)),
        }
    }

    fn agent(&self) -> Option<Arc<dyn AgentChannel>> {
        let agent = self.shared.running(&self.at)?.agent.clone()?;
        Some(agent)
    }

    async fn display(&self) -> Result<Display, PortError> {
        let dir = self.directory()?;
        self.running()?;
        let stream = socket::connect(&dir.file(VNC_SOCKET))
            .await
            .map_err(|error| PortError::broken("QEMU's VNC socket can't be opened", error))?;
        Ok(Display { stream: Box::new(stream), password: None })
    }

    async fn terminal(&self) -> Result<Box<dyn DisplayStream>, PortError> {
        let dir = self.directory()?;
        self.running()?;
        let stream = socket::connect(&dir.file(SERIAL_SOCKET))
            .await
            .map_err(|error| PortError::broken("the serial port's socket can't be opened", error))?;
        Ok(Box::new(stream))
    }

    async fn serial(&self, from: u64) -> Result<Vec<u8>, PortError> {
        let path = self.directory()?.file(SERIAL_LOG);
        let read = tokio::task::spawn_blocking(move || {
            let mut file = match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                opened => opened?,
            };
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(SERIAL_AT_ONCE).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let read = read.await.map_err(io::Error::other).and_then(|result| result);
        read.map_err(|error| PortError::broken("the record of the serial port can't be read", error))
    }

    async fn press(&self, chords: &[KeyChord]) -> Result<(), PortError> {
        let running = self.running()?;
        for chord in chords {
            let keys: Vec<&str> = chord.0.iter().map(String::as_str).collect();
            running
                .qmp
                .send_key(&keys, Some(HOLD_MS))
                .await
                .map_err(|error| PortError::broken(format!("`{chord}` could not be pressed"), error))?;
            // QEMU answers before it has pressed anything, waits the hold time after each press and each release,
            // and silently drops what does not fit into its queue: so its pace is kept here.
            let entries = u32::try_from(keys.len().max(1)).unwrap_or(1).saturating_mul(2);
            sleep(Duration::from_millis(u64::from(HOLD_MS.saturating_mul(entries)))).await;
        }
        Ok(())
    }

    async fn addresses(&self) -> Result<AddressReport, PortError> {
        let dir = self.directory()?;
        let Some(running) = self.shared.running(&self.at) else {
            let detail = match dir.running() {
                Some(_) => "the VM runs under another forge process",
                None => "the VM is stopped",
            };
            return Ok(AddressReport { detail: detail.to_owned(), ..AddressReport::default() });
        };
        let agent = running.agent_seen.load(Ordering::Relaxed);
        if self.shared.target.bridge.is_some() {
            let adapters = dir.settings()?.map(|settings| settings.adapters).unwrap_or_default();
            let macs: Vec<String> = adapters.into_iter().filter_map(|adapter| adapter.mac).collect();
            return Ok(running.told_addresses(&macs).await);
        }
        let heard = if agent { "guest agent answers" } else { "guest agent not running" };
        let port = running.ssh_port;
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let detail = format!("QEMU forwards {address}:{port} to the guest's port 22; {heard}");
        Ok(AddressReport { candidates: vec![(address, port)], detail, agent, ..AddressReport::default() })
    }

    async fn stop(&self, ladder: &StopLadder) -> Result<StopRung, PortError> {
        let dir = self.directory()?;
        let mut last_seen = Vec::new();
        if let Some(running) = self.shared.running(&self.at) {
            if !ladder.agent.is_zero() {
                match running.shut_down_by_agent(ladder.agent).await {
                    Ok(()) => return Ok(StopRung::Shutdown),
                    Err(seen) => last_seen.push(seen),
                }
            }
            if !ladder.acpi.is_zero() {
                match running.shut_down_by_button(ladder.acpi).await {
                    Ok(()) => return Ok(StopRung::Shutdown),
                    Err(seen) => last_seen.push(seen),
                }
            }
        } else if dir.running().is_none() {
            return Ok(StopRung::AlreadyStopped);
        } else {
            last_seen.push("it runs under another forge process".to_owned());
        }
        if ladder.power_off {
            self.power_off().await?;
            return Ok(StopRung::PowerOff);
        }
        Err(PortError::TimedOut {
            what: format!("the shutdown of {}", self.at),
            limit: ladder.agent.saturating_add(ladder.acpi),
            last_seen: last_seen.join("; "),
        })
    }

    async fn detach(&self, _spec: &MachineSpec) -> Result<(), PortError> {
        let dir = self.stopped_directory("detaching the seed")?;
        match dir.settings()? {
            Some(settings) => dir.write_settings(&Settings {
                smbios_serial: None,
                seed_disc: false,
                floppy: false,
                kernel: None,
                ..settings
            }),
            None => Ok(()),
        }
    }

    /// For the next start: until then a disk comes before the media anyway.
    async fn eject(&self, _spec: &MachineSpec) -> Result<(), PortError> {
        let dir = self.directory()?;
        match dir.settings()? {
            Some(settings) if !settings.cdroms.is_empty() => {
                dir.write_settings(&Settings { cdroms: Vec::new(), ..settings })
            }
            _ => Ok(()),
        }
    }

    async fn describe(&self, mark: &Ownership) -> Result<(), PortError> {
        self.directory()?.write_mark(mark)
    }

    async fn search_disks(&self, texts: &[Forbidden]) -> Result<Option<Vec<DiskFind>>, PortError> {
        let dir = self.stopped_directory("searching the disks")?;
        search::search(&self.shared.tool, &dir, texts).await.map(Some)
    }

    async fn submit_finalize(&self, finish: &Finish) -> Result<TaskHandle, PortError> {
        let wanted = Wanted::new(finish)?;
        if !self.shared.directory(&self.at)?.exists() {
            // The work directory goes when the files are in place: this one was finished before.
            return finalize::read_files(&wanted).await.map(|_| TaskHandle::finished(NODE));
        }
        let dir = self.stopped_directory("writing the image")?;
        let (tell, done) = watch::channel(None);
        let (shared, at) = (Arc::clone(&self.shared), self.at.clone());
        let work = tokio::spawn(async move {
            let outcome = write_out(&shared, &at, &dir, &wanted).await;
            tell.send_replace(Some(outcome.map_err(|error| with_causes(&error))));
        });
        self.shared.set_job(
            &self.at,
            Job { lock: "finalize", what: "finalizing", abort: work.abort_handle(), done },
        );
        Ok(TaskHandle { id: self.at.id.clone(), node: self.at.node.clone() })
    }

    async fn publish(&self, _finish: &Finish) -> Result<(), PortError> {
        // The files have had their names since they were made.
        Ok(())
    }

    async fn untag(&self, _tag: &str) -> Result<(), PortError> {
        // Files have no tags.
        Ok(())
    }

    async fn tag(&self, tag: &str) -> Result<(), PortError> {
        Err(PortError::Unsupported { backend: "QEMU", what: format!("give files the tag `{tag}`") })
    }

    async fn discard(&self, _chain_id: &str) -> Result<(), PortError> {
        Err(PortError::Unsupported { backend: "QEMU", what: "remove files that it has made".to_owned() })
    }

    async fn artefact(&self, finish: &Finish) -> Result<Artefact, PortError> {
        if let Some(made) = self.shared.made(&self.at) {
            return Ok(made);
        }
        let dir = self.shared.directory(&self.at)?;
        if dir.exists() {
            return Err(PortError::NotFound { what: format!("the image of {}", self.at) });
        }
        finalize::read_files(&Wanted::new(finish)?).await
    }

    async fn power_off(&self) -> Result<(), PortError> {
        let dir = self.directory()?;
        if let Some(running) = self.shared.running(&self.at)
            && !running.end().await
        {
            return Err(PortError::failed("cutting the power", "QEMU outlives SIGKILL"));
        }
        dir.end_process(QUIT_LIMIT).await
    }

    async fn destroy(&self) -> Result<(), PortError> {
        let dir = self.shared.directory(&self.at)?;
        if !dir.exists() {
            return Ok(());
        }
        self.shared.stop_job(&self.at).await;
        self.power_off().await?;
        self.shared.let_port_go(&self.at);
        dir.remove()
    }
}

/// Writes the files, remembers them, and removes the work directory.
async fn write_out(shared: &Shared, at: &VmRef, dir: &WorkDir, wanted: &Wanted) -> Result<(), PortError> {
    let artefact = finalize::write_files(&shared.tool, dir, wanted).await?;
    shared.set_made(at, artefact);
    shared.let_port_go(at);
    // The artefact is whole: what can't be tidied up now is no failure of the build, and `forge gc` finds it.
    if let Err(error) = dir.remove() {
        tracing::warn!(%at, %error, "the work directory could not be removed");
    }
    Ok(())
}

/// An error with all of its causes, for a task that is asked later.
pub(crate) fn with_causes(error: &PortError) -> String {
    let mut words = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        words = format!("{words}: {cause}");
        next = cause.source();
    }
    words
}
