//! The local target: QEMU processes on overlays in work directories.
//!
//! What stands at an id is read from its work directory alone, so that another forge process (`forge gc`) judges
//! as this one does. Only running processes and finalize work are held in memory; they end with this process.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use forge_machine::facts::SourceDisk;
use forge_machine::{
    Artefact, BuildState, Capabilities, Checkup, Diagnosis, Facts, FactsQuery, Fetch, Finding, HostAddress,
    Hypervisor, Location, Machine, MachineSpec, Medium, Nonce, Orphan, Ownership, PortError, Power,
    SourceFacts, SourceSelector, Standing, TaskHandle, TemplateFacts, VmRef,
};
use tokio::process::Command;
use tokio::sync::{OnceCell, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::accel::{self, Accelerator, Verdict};
use crate::args::HOST_ADDRESS;
use crate::bridge;
use crate::check::{self, Host};
use crate::create;
use crate::image::{ImageTool, Unsound};
use crate::known;
use crate::machine::{QemuMachine, Running};
use crate::media;
use crate::port::HeldPort;
use crate::process::find_program;
use crate::room::Room;
use crate::sandbox;
use crate::workdir::WorkDir;

/// The node of every local VM.
pub(crate) const NODE: &str = "localhost";
const NAME: &str = "QEMU";

/// Which accelerator a site asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceleratorChoice {
    /// The best one that works, found by trying.
    #[default]
    Auto,
    /// This one, even if a test guest did not run under it.
    Fixed(Accelerator),
}

/// A local target as the site file describes it.
#[derive(Clone, Debug)]
pub struct QemuTarget {
    /// Its name in the site file.
    pub name: String,
    /// QEMU: a path, or a name looked up in `PATH`.
    pub binary: PathBuf,
    /// `qemu-img`: a path, or a name looked up in `PATH`.
    pub image_tool: PathBuf,
    /// Where the VMs' work directories are made. Must be the same for `forge build` and `forge gc`.
    pub work_root: PathBuf,
    /// Where the accelerator's verdict is remembered; `None` remembers nothing.
    pub cache: Option<PathBuf>,
    /// The accelerator.
    pub accelerator: AcceleratorChoice,
    /// The ports of 127.0.0.1 that may lead to the guests' SSH, both ends included; `None` takes any free one.
    pub ssh_ports: Option<(u16, u16)>,
    /// The bridge of this machine that guests are on; `None` is QEMU's user network.
    pub bridge: Option<String>,
}

impl QemuTarget {
    /// A target with the usual programs, that finds the accelerator itself.
    pub fn new(name: impl Into<String>, work_root: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            binary: "qemu-system-x86_64".into(),
            image_tool: "qemu-img".into(),
            work_root: work_root.into(),
            cache: None,
            accelerator: AcceleratorChoice::Auto,
            ssh_ports: None,
            bridge: None,
        }
    }
}

/// The QEMU of this machine as a [`Hypervisor`]. Clones share its processes; the last one to be dropped ends them.
#[derive(Clone, Debug)]
pub struct QemuHypervisor {
    shared: Arc<Shared>,
}

impl QemuHypervisor {
    /// Takes a target. Opens and starts nothing yet.
    #[must_use]
    pub fn new(mut target: QemuTarget) -> Self {
        if let Ok(absolute) = std::path::absolute(&target.work_root) {
            target.work_root = absolute;
        }
        let shared = Shared {
            tool: ImageTool::new(&target.image_tool),
            target,
            verdict: OnceCell::new(),
            sandbox: OnceCell::new(),
            host: OnceLock::new(),
            ports: Mutex::default(),
            starting: tokio::sync::Mutex::new(()),
            running: Mutex::default(),
            ends: Mutex::default(),
            jobs: Mutex::default(),
            made: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Where guests reach this machine: a bridge has an address of its own.
    fn host_address(&self) -> Option<HostAddress> {
        match &self.shared.target.bridge {
            Some(name) => bridge::address(name).map(|address| HostAddress { seen: address, bind: address }),
            None => Some(HostAddress { seen: HOST_ADDRESS.into(), bind: Ipv4Addr::LOCALHOST.into() }),
        }
    }

    /// The work directory of a VM: logs of QEMU (`qemu.log`) and of the serial port (`serial.log`) lie in it as long
    /// as the VM exists.
    #[must_use]
    pub fn work_directory(&self, at: &VmRef) -> PathBuf {
        self.shared.target.work_root.join(&at.id)
    }
}

/// Work that goes on by itself: copying an image, writing the files of the result.
#[derive(Debug)]
pub(crate) struct Job {
    /// Its name as a lock (`finalize`).
    pub(crate) lock: &'static str,
    /// What it does, for messages (`finalizing`).
    pub(crate) what: &'static str,
    pub(crate) abort: AbortHandle,
    /// What it came to: the words of its error. The channel closes without a value when it was stopped.
    pub(crate) done: watch::Receiver<Option<Result<(), String>>>,
}

impl Job {
    fn is_over(&self) -> bool {
        self.done.borrow().is_some() || self.done.has_changed().is_err()
    }
}

/// What a hypervisor and its machines share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) target: QemuTarget,
    pub(crate) tool: ImageTool,
    verdict: OnceCell<Verdict>,
    sandbox: OnceCell<Result<(), String>>,
    host: OnceLock<Host>,
    /// The forwarded ports, each from its VM's first start until the VM is gone.
    ports: Mutex<HashMap<VmRef, HeldPort>>,
    /// Held while a process is being started, so that two starts of one VM don't both find it stopped.
    pub(crate) starting: tokio::sync::Mutex<()>,
    running: Mutex<HashMap<VmRef, Arc<Running>>>,
    /// How processes ended that did not end well.
    ends: Mutex<HashMap<VmRef, String>>,
    jobs: Mutex<HashMap<VmRef, Job>>,
    made: Mutex<HashMap<VmRef, Artefact>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn directory(&self, at: &VmRef) -> Result<WorkDir, PortError> {
        WorkDir::new(&self.target.work_root, at)
    }

    /// The VM's process, if this forge process started it and it still runs.
    pub(crate) fn running(&self, at: &VmRef) -> Option<Arc<Running>> {
        let mut running = lock(&self.running);
        running.retain(|at, each| {
            let Some(status) = each.process.exited() else { return true };
            if !status.success() {
                lock(&self.ends).insert(at.clone(), each.process.exit_error(status).to_string());
            }
            false
        });
        running.get(at).cloned()
    }

    /// How the VM's last process ended, when it did not end as it should.
    pub(crate) fn bad_end(&self, at: &VmRef) -> Option<String> {
        lock(&self.ends).get(at).cloned()
    }

    pub(crate) fn set_running(&self, at: &VmRef, process: Running) {
        lock(&self.ends).remove(at);
        lock(&self.running).insert(at.clone(), Arc::new(process));
    }

    pub(crate) fn set_job(&self, at: &VmRef, job: Job) {
        lock(&self.jobs).insert(at.clone(), job);
    }

    /// The work that is going on on a VM.
    pub(crate) fn busy(&self, at: &VmRef) -> Option<&'static str> {
        lock(&self.jobs).get(at).filter(|job| !job.is_over()).map(|job| job.lock)
    }

    /// Stops work on a VM and waits until it has stopped.
    pub(crate) async fn stop_job(&self, at: &VmRef) {
        let Some(mut done) = lock(&self.jobs).get(at).map(|job| {
            job.abort.abort();
            job.done.clone()
        }) else {
            return;
        };
        let _ = done.wait_for(Option::is_some).await;
    }

    pub(crate) fn made(&self, at: &VmRef) -> Option<Artefact> {
        lock(&self.made).get(at).cloned()
    }

    pub(crate) fn set_made(&self, at: &VmRef, artefact: Artefact) {
        lock(&self.made).insert(at.clone(), artefact);
    }

    /// The port that leads to the VM's SSH, held from now on.
    pub(crate) fn hold_port(&self, at: &VmRef) -> Result<u16, PortError> {
        let mut ports = lock(&self.ports);
        if let Some(port) = ports.get(at) {
            return Ok(port.number());
        }
        let port = HeldPort::take(self.target.ssh_ports)?;
        let number = port.number();
        ports.insert(at.clone(), port);
        Ok(number)
    }

    pub(crate) fn let_port_go(&self, at: &VmRef) {
        lock(&self.ports).remove(at);
    }

    /// What this machine has besides QEMU; looked for once.
    pub(crate) fn host(&self) -> &Host {
        self.host.get_or_init(Host::look)
    }

    /// Whether QEMU takes its sandbox; else its words.
    pub(crate) async fn sandbox(&self) -> &Result<(), String> {
        self.sandbox.get_or_init(|| sandbox::probe(&self.target.binary)).await
    }

    pub(crate) async fn verdict(&self) -> &Verdict {
        let find = async || match self.target.accelerator {
            AcceleratorChoice::Auto => accel::probe(&self.target.binary, self.target.cache.as_deref()).await,
            AcceleratorChoice::Fixed(accelerator) => accel::asked_for(&self.target.binary, accelerator).await,
        };
        self.verdict.get_or_init(find).await
    }

    fn power(&self, at: &VmRef, dir: &WorkDir) -> Power {
        let runs = self.running(at).is_some() || dir.running().is_some();
        if runs { Power::Running } else { Power::Stopped }
    }
}

#[async_trait]
impl Hypervisor for QemuHypervisor {
    fn target(&self) -> &str {
        &self.shared.target.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: NAME,
            clones: false,
            images: true,
            isos: true,
            new_disks: true,
            kernel_boot: true,
            cloud_init_drive: false,
            smbios_serial: true,
            seed_disc: true,
            boot_disc: false,
            floppy: true,
            serial: true,
            templates: false,
            files: true,
            host_address: self.host_address(),
        }
    }

    async fn facts(&self, query: &FactsQuery) -> Result<(Facts, Vec<Finding>), PortError> {
        let target = &self.shared.target;
        let mut findings = Vec::new();
        for (program, package) in [(&target.binary, "qemu-system-x86"), (&target.image_tool, "qemu-utils")] {
            if find_program(program).is_none() {
                findings.push(Finding::fatal(
                    format!("targets.{}", target.name),
                    format!("`{}` is not installed", program.display()),
                    format!("install it (Debian: package {package})"),
                ));
            }
        }
        let network = target.bridge.as_deref().map(|name| bridge::look(&target.name, name)).transpose();
        let network = network.unwrap_or_else(|finding| {
            findings.push(finding);
            None
        });
        let mut facts = Facts {
            product: NAME.to_owned(),
            notes: network.into_iter().collect(),
            nodes: vec![NODE.to_owned()],
            placed: None,
            source: None,
            storages: Vec::new(),
            bridges: None,
            endpoint: None,
            no_seed_disc: None,
        };
        if !findings.is_empty() {
            return Ok((facts, findings));
        }
        facts.product = version(&target.binary).await;
        let verdict = self.shared.verdict().await;
        facts.notes.push(format!("accelerator {}: {}", verdict.accelerator, verdict.reason));
        findings.extend(verdict.doubt.as_ref().map(|doubt| {
            let setting = format!("targets.{}.accel", target.name);
            Finding::warning(setting, doubt, "guests will hardly run; `accel = \"auto\"` takes what works")
        }));
        facts.notes.push(match self.shared.sandbox().await {
            Ok(()) if target.bridge.is_some() => {
                "sandbox: off, QEMU's helper for the bridge can't work in it".to_owned()
            }
            Ok(()) => "sandbox: on (seccomp)".to_owned(),
            Err(words) => format!("sandbox: off, this QEMU does not take it: {words}"),
        });
        match &query.source {
            SourceSelector::Clone(selector) => findings.push(Finding::fatal(
                "source.clone",
                format!("a local QEMU can't clone {selector}"),
                "name a disk image with `source.image`, or build on a Proxmox VE target",
            )),
            SourceSelector::Image(Medium { location: Location::File(path), .. }) => {
                match self.source_facts(path).await {
                    Ok(source) => facts.source = Some(source),
                    Err(finding) => findings.push(finding),
                }
            }
            // It is downloaded when the VM is made: until then nobody knows more of it.
            SourceSelector::Image(medium @ Medium { location: Location::Url(_), .. }) => {
                facts.source = Some(image_facts(medium.to_string(), medium.file_name(), 0));
            }
            SourceSelector::Image(medium) => findings.push(Finding::fatal(
                "source.image",
                format!("{medium} is a volume, and a local QEMU has no storages"),
                "name a file or a URL",
            )),
            SourceSelector::New => facts.source = Some(blank()),
        }
        for (number, iso) in query.isos.iter().enumerate() {
            let message = match &iso.location {
                Location::Url(_) => continue,
                Location::Volume(_) => Some(format!("{iso} is a volume, and a local QEMU has no storages")),
                Location::File(path) => media::unfit(path),
            };
            let setting = match number {
                0 => "source.iso".to_owned(),
                more => format!("source.additional-isos[{}]", more - 1),
            };
            findings.extend(
                message.map(|why| Finding::fatal(setting, why, "name the file of an install medium")),
            );
        }
        Ok((facts, findings))
    }

    fn check(&self, spec: &MachineSpec, facts: &Facts) -> Vec<Finding> {
        let mut findings = check::findings(spec, facts, self.shared.host());
        findings.extend(known::findings(spec, &self.shared.target.binary));
        findings.extend(Room::look().findings(spec));
        let emulates =
            self.shared.verdict.get().is_some_and(|verdict| verdict.accelerator == Accelerator::Tcg);
        findings.extend(check::emulated(spec, emulates));
        findings
    }

    async fn prepare_media(&self, spec: &MachineSpec, fetch: &dyn Fetch) -> Result<MachineSpec, PortError> {
        let mut spec = spec.clone();
        for medium in spec.media_mut() {
            *medium = Medium::file(fetch.fetch(medium, None).await?);
        }
        media::check(&spec).await?;
        Ok(spec)
    }

    async fn propose_id(&self, _spec: &MachineSpec, refused: &[VmRef]) -> Result<VmRef, PortError> {
        for _ in 0..100 {
            let at = VmRef::new(format!("vm-{:08x}", rand::random::<u32>()), NODE);
            if !refused.contains(&at) && !self.shared.directory(&at)?.exists() {
                return Ok(at);
            }
        }
        Err(PortError::failed("choosing an id", "a hundred random names in a row were taken"))
    }

    async fn submit_create(
        &self,
        spec: &MachineSpec,
        at: &VmRef,
        mark: &Ownership,
    ) -> Result<TaskHandle, PortError> {
        create::submit(&self.shared, spec, at, mark).await
    }

    async fn wait(&self, task: &TaskHandle) -> Result<(), PortError> {
        if task.is_finished() {
            return Ok(());
        }
        let at = VmRef::new(&task.id, &task.node);
        let job = lock(&self.shared.jobs).get(&at).map(|job| (job.what, job.done.clone()));
        let Some((what, mut done)) = job else {
            return Err(PortError::NotFound { what: format!("work on {at}") });
        };
        let what = format!("{what} VM {}", task.id);
        let outcome = done.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        match outcome {
            Some(Ok(())) => Ok(()),
            Some(Err(words)) => Err(PortError::failed(what, words)),
            None => Err(PortError::failed(what, "it was stopped")),
        }
    }

    fn warnings(&self, _task: &TaskHandle) -> Vec<String> {
        // Work here fails or succeeds.
        Vec::new()
    }

    async fn stop_task(&self, task: &TaskHandle) -> Result<(), PortError> {
        if !task.is_finished() {
            self.shared.stop_job(&VmRef::new(&task.id, &task.node)).await;
        }
        Ok(())
    }

    async fn admission(&self, _spec: &MachineSpec, _at: Option<&VmRef>) -> Result<Option<String>, PortError> {
        // Builds of this machine do not wait for each other.
        Ok(None)
    }

    async fn templates(&self, _tag: Option<&str>) -> Result<Vec<TemplateFacts>, PortError> {
        // What is made here is files.
        Ok(Vec::new())
    }

    async fn diagnose(&self, _checkup: &Checkup) -> Vec<Diagnosis> {
        crate::diagnose::diagnose(&self.shared).await
    }

    async fn linked_clones(&self, _template: &VmRef) -> Result<Vec<(VmRef, String)>, PortError> {
        Ok(Vec::new())
    }

    async fn check_tags(&self, _tags: &[&str]) -> Result<Vec<Finding>, PortError> {
        Ok(Vec::new())
    }

    fn machine(&self, at: &VmRef) -> Arc<dyn Machine> {
        Arc::new(QemuMachine::new(Arc::clone(&self.shared), at.clone()))
    }

    async fn standing(&self, at: &VmRef, nonce: &Nonce) -> Result<Standing, PortError> {
        // An id that can't be a directory's name can't have been made by us.
        let Ok(dir) = self.shared.directory(at) else { return Ok(Standing::Gone) };
        if let Some(work) = self.shared.busy(at) {
            return Ok(Standing::Busy { lock: work.to_owned() });
        }
        if !dir.exists() {
            let committed = self.shared.made(at).is_some();
            return Ok(if committed { Standing::Committed } else { Standing::Gone });
        }
        Ok(match dir.mark()? {
            Some(mark) if mark.nonce == *nonce => {
                Standing::Ours { power: self.shared.power(at, &dir), kept: mark.state == BuildState::Kept }
            }
            Some(mark) => Standing::Foreign { name: mark.nonce.vm_name() },
            // Made and cut off before the mark: nothing of anybody's is in it, and the random id is the journal's.
            None if dir.is_blank() => Standing::Ours { power: Power::Stopped, kept: false },
            None => Standing::Foreign { name: at.id.clone() },
        })
    }

    async fn orphans(&self) -> Result<Vec<Orphan>, PortError> {
        let root = &self.shared.target.work_root;
        let entries = match std::fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(PortError::broken(format!("{} can't be read", root.display()), error)),
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let vm = VmRef::new(entry.file_name().to_string_lossy(), NODE);
            let Ok(dir) = self.shared.directory(&vm) else { continue };
            match dir.mark() {
                Ok(Some(mark)) => found.push(Orphan { vm, mark }),
                Ok(None) => {}
                Err(error) => tracing::warn!(%vm, %error, "a work directory's mark can't be read"),
            }
        }
        Ok(found)
    }
}

impl QemuHypervisor {
    async fn source_facts(&self, path: &Path) -> Result<SourceFacts, Finding> {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let info = self.shared.tool.sound(&absolute).await.map_err(|error| match error {
            Unsound::Unreadable(error) => Finding::fatal(
                "source.image",
                format!("{} is no disk image that can be read", path.display()),
                format!("see: {error}"),
            ),
            unsound => Finding::fatal(
                "source.image",
                format!("{} can't be built from: {unsound}", path.display()),
                "fetch or copy it again, and give its `checksum`",
            ),
        })?;
        let name = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(image_facts(absolute.display().to_string(), name, info.virtual_size))
    }
}

/// A VM of one disk.
fn image_facts(place: String, name: String, size: u64) -> SourceFacts {
    SourceFacts {
        vm: VmRef::new(place, NODE),
        name,
        template: false,
        running: false,
        disks: vec![SourceDisk { slot: "virtio0".to_owned(), storage: String::new(), size }],
        cloud_init: None,
        agent: true,
        networks: vec![("net0".to_owned(), "virtio,user".to_owned())],
        memory_mib: 0,
        cores: 0,
    }
}

/// A VM of which there is nothing yet.
fn blank() -> SourceFacts {
    SourceFacts {
        vm: VmRef::new("", NODE),
        name: "a new VM".to_owned(),
        template: false,
        running: false,
        disks: Vec::new(),
        cloud_init: None,
        agent: true,
        networks: vec![("net0".to_owned(), "virtio,user".to_owned())],
        memory_mib: 0,
        cores: 0,
    }
}

/// `QEMU 10.0.2`, or just `QEMU` when it does not say.
pub(crate) async fn version(binary: &Path) -> String {
    let mut command = Command::new(binary);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(10), command.output()).await;
    let text = match &output {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout),
        _ => return NAME.to_owned(),
    };
    // "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-1)"
    match text.split_whitespace().skip_while(|word| *word != "version").nth(1) {
        Some(number) => format!("{NAME} {number}"),
        None => NAME.to_owned(),
    }
}

#[cfg(test)]
#[path = "hypervisor_tests.rs"]
pub(crate) mod tests;
