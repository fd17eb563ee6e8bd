//! The two traits that a backend implements: [`Hypervisor`] (the target) and [`Machine`] (one VM on it).
//!
//! ```text
//!  facts ─ check ─ prepare_media ─ propose_id ─ submit_create ─ wait ─ machine ─ configure ─ submit_start ─ wait
//!                                                   │ lost answer, dead process
//!                                                   └─ standing ── stop_task ── power_off ── destroy
//!  … guest work … ─ stop ─ detach ─ submit_finalize ─ wait ─ artefact
//! ```
//!
//! *Effects* (`submit_*`, `configure`, `detach`, `describe`, `destroy`, `power_off`) must never be dropped in flight: the engine
//! awaits them to their end, each within the backend's own HTTP limit (40 s). A lost answer is
//! [`PortError::OutcomeUnknown`]; the engine then asks [`Hypervisor::standing`]. All other methods only read or
//! wait and may be dropped.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::agent::AgentChannel;
use crate::archive::ArchivePlace;
use crate::console::{Display, DisplayStream, KeyChord};
use crate::error::PortError;
use crate::facts::{Facts, FactsQuery, Finding, TemplateFacts};
use crate::growth::Growth;
use crate::health::{Checkup, Diagnosis};
use crate::ids::{Nonce, TaskHandle, VmRef};
use crate::ownership::Ownership;
use crate::source::Medium;
use crate::spec::{Finish, MachineSpec};

/// What a backend can do, known when planning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The backend's name for messages (`Proxmox VE`, `QEMU`).
    pub name: &'static str,
    /// It clones VMs of the target.
    pub clones: bool,
    /// It starts from disk images.
    pub images: bool,
    /// It makes VMs with empty disks and puts media into their drives.
    pub isos: bool,
    /// It adds empty disks to what the source has.
    pub new_disks: bool,
    /// It starts a kernel without a boot loader.
    pub kernel_boot: bool,
    /// It has a cloud-init drive of its own.
    pub cloud_init_drive: bool,
    /// It can put a NoCloud address into the SMBIOS serial.
    pub smbios_serial: bool,
    /// It can give the guest a disc with the seed.
    pub seed_disc: bool,
    /// It can start the VM from such a disc where its disks hold no system yet.
    pub boot_disc: bool,
    /// It can give the guest a floppy.
    pub floppy: bool,
    /// It records what the guest writes to its first serial port.
    pub serial: bool,
    /// Its result is a template on the target.
    pub templates: bool,
    /// Its result is files on this machine.
    pub files: bool,
    /// Where guests reach this machine, when that is the same for all of them.
    pub host_address: Option<HostAddress>,
}

/// Where the guests of a target reach this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The address that guests call (QEMU's user network: `10.0.2.2`).
    pub seen: IpAddr,
    /// The address of this machine at which such a call arrives, and nobody else's need (QEMU's user network:
    /// `127.0.0.1`).
    pub bind: IpAddr,
}

/// Settings for the backend's own cloud-init drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudInitSettings {
    /// The user to make.
    pub user: String,
    /// The hash of its password; without one nobody logs in by a password.
    pub password_hash: Option<String>,
    /// Its authorized keys, in OpenSSH's form.
    pub ssh_keys: Vec<String>,
    /// Proxmox's `ipconfig0` (`ip=dhcp`).
    pub ip_config: String,
}

/// How the seed is attached to the VM itself; all resolved, none of it part of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachments {
    /// The text for the SMBIOS system serial (`ds=nocloud;s=http://…/`).
    pub smbios_serial: Option<String>,
    /// The bytes of a disc (ISO 9660) with the seed; taken away when the template is made.
    pub seed_disc: Option<Vec<u8>>,
    /// The bytes of a floppy (1.44 MB), which the guest can't write to; taken away likewise.
    pub floppy: Option<Vec<u8>>,
    /// Settings for the cloud-init drive.
    pub cloud_init: Option<CloudInitSettings>,
    /// The command line of the kernel that the first start takes.
    pub kernel_cmdline: Option<String>,
}

/// Brings media to this machine: given to a backend by the engine, which downloads, proves and keeps them.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// The file of this machine that holds a medium, proved by its checksum. One that has to be downloaded, and is proved
    /// on the way, is told to `growth`, for who reads it meanwhile. May be dropped: what was downloaded so far is kept
    /// and gone on with.
    ///
    /// # Errors
    /// When it can't be had, or is not what its checksum says.
    async fn fetch(&self, medium: &Medium, growth: Option<&Growth>) -> Result<PathBuf, PortError>;

    /// Tells what is being done with the media, in a few words.
    fn tell(&self, what: &str);
}

/// Whether a VM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// It runs.
    Running,
    /// It runs and its CPUs stand still (paused, or an internal error).
    Paused,
    /// It does not run.
    Stopped,
}

/// What a VM is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineState {
    /// Whether it runs.
    pub power: Power,
    /// The target's own word for it.
    pub detail: String,
    /// Whether it is a template by now.
    pub template: bool,
}

/// What is known of the guest's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressReport {
    /// Addresses where SSH may answer, best first, with the port.
    pub candidates: Vec<(IpAddr, u16)>,
    /// Where this was learnt, or why nothing is known, in words for the wait message (`agent not running`).
    pub detail: String,
    /// Whether the guest agent answered.
    pub agent: bool,
    /// The guest's interfaces by its own names, with each address that leads further than the link; empty where nobody tells.
    pub interfaces: Vec<(String, IpAddr)>,
}

/// A text that may not stand on a disk.
#[derive(Clone)]
pub struct Forbidden {
    /// The text: a secret, in one of the forms it travels in.
    pub text: String,
    /// What it is, in words.
    pub kind: &'static str,
}

impl std::fmt::Debug for Forbidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind)
    }
}

/// Something forbidden that stands on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFind {
    /// Which disk, in the target's words.
    pub disk: String,
    /// Where it begins, in bytes as the guest counts them.
    pub offset: u64,
    /// What it is, in words.
    pub kind: &'static str,
}

/// How long each way of stopping a VM may take, tried in this order; a zero skips it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StopLadder {
    /// Ask the guest agent to shut down.
    pub agent: Duration,
    /// Press the ACPI power button.
    pub acpi: Duration,
    /// Whether the power may be cut when both failed.
    pub power_off: bool,
}

/// Which way of stopping worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopRung {
    /// It did not run.
    AlreadyStopped,
    /// It shut itself down (agent or ACPI, as the backend chose).
    Shutdown,
    /// Its power was cut.
    PowerOff,
}

/// What stands at an id at this moment, as far as the build with a nonce is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is there.
    Gone,
    /// Something is there that the target is still working on, so nobody can tell whose it is.
    Busy {
        /// The target's name for the lock (`clone`).
        lock: String,
    },
    /// It is the build's VM.
    Ours {
        /// Whether it runs.
        power: Power,
        /// Whether it was kept after a late failure.
        kept: bool,
    },
    /// It is the build's, and it is a template: nothing may remove it any more.
    Committed,
    /// It is somebody else's.
    Foreign {
        /// Its name, for the message.
        name: String,
    },
}

/// A VM that bears forge's mark, found without a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Where it is.
    pub vm: VmRef,
    /// Its mark.
    pub mark: Ownership,
}

/// What a build made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Artefact {
    /// A template on the target.
    #[serde(rename_all = "kebab-case")]
    Template {
        /// Where it is.
        vm: VmRef,
        /// Its name.
        name: String,
    },
    /// Files on this machine.
    #[serde(rename_all = "kebab-case")]
    Files {
        /// Path, SHA-256 (hex) and size in bytes of each.
        files: Vec<(PathBuf, String, u64)>,
    },
}

/// A target that holds VMs. Long-lived and shared by builds.
#[async_trait]
pub trait Hypervisor: std::fmt::Debug + Send + Sync {
    /// The target's name in the site file.
    fn target(&self) -> &str;

    /// What the backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Finds out what planning needs, and what is wrong already (a missing source, storage, bridge, privilege).
    ///
    /// Read only; may be dropped.
    ///
    /// # Errors
    /// When the target can't be reached, trusted or logged into. What it lacks for this build is a finding.
    async fn facts(&self, query: &FactsQuery) -> Result<(Facts, Vec<Finding>), PortError>;

    /// Looks at the target as a whole, before any build: connection, login, clock, privileges, storages, ids. Never fails:
    /// what can't be had is among what was found. Read only; may be dropped.
    async fn diagnose(&self, checkup: &Checkup) -> Vec<Diagnosis>;

    /// Checks a spec against the facts. Pure: asks nobody.
    fn check(&self, spec: &MachineSpec, facts: &Facts) -> Vec<Finding>;

    /// Brings every medium of a spec to where the target reads it, and gives the spec with those places in it, as
    /// creating and configuring want it. What it leaves there is a cache for later builds, not this build's. May be
    /// dropped.
    ///
    /// # Errors
    /// When a medium can't be had or brought there.
    async fn prepare_media(&self, spec: &MachineSpec, fetch: &dyn Fetch) -> Result<MachineSpec, PortError>;

    /// Names an id that is free now. It reserves nothing: creating may still find it taken.
    ///
    /// `refused` are ids that were taken when they were tried, oldest first: they are proposed again only when no other
    /// is free, and the more there are the less will two builds be given the same. Read only; may be dropped.
    ///
    /// # Errors
    /// When no id is left in the range, or the target can't be asked.
    async fn propose_id(&self, spec: &MachineSpec, refused: &[VmRef]) -> Result<VmRef, PortError>;

    /// Begins to create the build VM at an id, with the nonce in the call itself. Effect.
    ///
    /// # Errors
    /// [`PortError::IdTaken`] when somebody was faster; [`PortError::OutcomeUnknown`] when the answer was lost.
    async fn submit_create(
        &self,
        spec: &MachineSpec,
        at: &VmRef,
        mark: &Ownership,
    ) -> Result<TaskHandle, PortError>;

    /// Waits for submitted work. May be dropped: the work goes on without us.
    ///
    /// # Errors
    /// The work's own failure, in the target's words with the last lines of its log.
    async fn wait(&self, task: &TaskHandle) -> Result<(), PortError>;

    /// What the target warned of in work that was waited for and succeeded, in its own words; each is told once. Asks
    /// nobody.
    fn warnings(&self, task: &TaskHandle) -> Vec<String>;

    /// Asks the target to stop submitted work. Finished or unknown work is no error. Effect.
    ///
    /// # Errors
    /// When the target can't be asked.
    async fn stop_task(&self, task: &TaskHandle) -> Result<(), PortError>;

    /// Why a build VM has to wait before it is made, or once it is there (`at`) before it is started, because others of
    /// forge's on its node will need the memory first; `None` when it need not. Read only; may be dropped.
    ///
    /// # Errors
    /// When the target can't be asked.
    async fn admission(&self, spec: &MachineSpec, at: Option<&VmRef>) -> Result<Option<String>, PortError>;

    /// A handle on the VM at an id. Asks nobody.
    fn machine(&self, at: &VmRef) -> Arc<dyn Machine>;

    /// Tells what stands at an id. Read only; may be dropped.
    ///
    /// # Errors
    /// When the target can't be asked; then nothing is known.
    async fn standing(&self, at: &VmRef, nonce: &Nonce) -> Result<Standing, PortError>;

    /// Finds every VM with forge's mark. Read only; may be dropped.
    ///
    /// # Errors
    /// When the target can't be asked.
    async fn orphans(&self) -> Result<Vec<Orphan>, PortError>;

    /// Lists the templates that the credentials may see: all, or those that bear a tag. Read only; may be dropped.
    /// Targets whose artefacts are files have none.
    ///
    /// # Errors
    /// When the target can't be asked.
    async fn templates(&self, tag: Option<&str>) -> Result<Vec<TemplateFacts>, PortError>;

    /// Finds the VMs that need a template's disks, with their names: its linked clones. Those that the credentials may not
    /// see are not found; removing the template is refused by the target all the same. Read only; may be dropped.
    ///
    /// # Errors
    /// When the target can't be asked.
    async fn linked_clones(&self, template: &VmRef) -> Result<Vec<(VmRef, String)>, PortError>;

    /// Finds out which of these tags the credentials are kept from setting, and what to do about it. Read only; may be dropped.
    ///
    /// # Errors
    /// When the target can't be asked.
    async fn check_tags(&self, tags: &[&str]) -> Result<Vec<Finding>, PortError>;

    /// Finds out what speaks against archiving templates at a place (no such place, a missing privilege), before anything
    /// is done. Read only; may be dropped.
    ///
    /// # Errors
    /// When the target can't be asked, or has no templates.
    async fn check_archive(
        &self,
        _place: &ArchivePlace,
        _templates: &[VmRef],
    ) -> Result<Vec<Finding>, PortError> {
        Err(no_archives())
    }
}

/// What a backend says that keeps no archives of templates.
fn no_archives() -> PortError {
    PortError::Unsupported { backend: "this kind of target", what: "archive templates".to_owned() }
}

/// One VM on a target.
#[async_trait]
pub trait Machine: std::fmt::Debug + Send + Sync {
    /// Where it is.
    fn reference(&self) -> &VmRef;

    /// The folder on this machine in which its disks lie, for people who want to look at one whose hypervisor ends with
    /// forge; `None` where the VM goes on by itself.
    fn folder(&self) -> Option<std::path::PathBuf> {
        None
    }

    /// Makes the created VM what the spec says: the mark, `onboot=0`, `protection=0`, hardware, disks grown,
    /// cloud-init drive, seed attachments. Effect, idempotent.
    ///
    /// # Errors
    /// The target's refusal, with its field errors.
    async fn configure(
        &self,
        spec: &MachineSpec,
        mark: &Ownership,
        attachments: &Attachments,
    ) -> Result<(), PortError>;

    /// Begins to start it. Effect; starting a running VM is no error.
    ///
    /// # Errors
    /// The target's refusal.
    async fn submit_start(&self) -> Result<TaskHandle, PortError>;

    /// Reads its state. May be dropped.
    ///
    /// # Errors
    /// [`PortError::NotFound`] when it is gone.
    async fn state(&self) -> Result<MachineState, PortError>;

    /// The guest agent, as a connection to the guest; `None` when the VM has none, or does not run where that matters.
    /// Asks nobody: whether an agent answers is found out by asking it.
    fn agent(&self) -> Option<Arc<dyn AgentChannel>>;

    /// Opens its display. May be dropped.
    ///
    /// # Errors
    /// When it does not run, or the display can't be had.
    async fn display(&self) -> Result<Display, PortError>;

    /// What the guest has written to its first serial port since the VM was made, from that byte on; at most a mebibyte
    /// at a time, and nothing where nobody records it. May be dropped.
    ///
    /// # Errors
    /// When the record can't be read.
    async fn serial(&self, from: u64) -> Result<Vec<u8>, PortError>;

    /// Opens the first serial port as a terminal: what the guest writes from now on, and what is typed to it. One at a
    /// time. May be dropped.
    ///
    /// # Errors
    /// When it does not run, has no such port, or the port can't be had.
    async fn terminal(&self) -> Result<Box<dyn DisplayStream>, PortError> {
        Err(PortError::Unsupported { backend: "this target", what: "open a serial port".to_owned() })
    }

    /// Presses key chords one after another without the display: the fallback for typing. May be dropped between
    /// two chords.
    ///
    /// # Errors
    /// When it does not run or a key is unknown to the target.
    async fn press(&self, chords: &[KeyChord]) -> Result<(), PortError>;

    /// Asks where SSH may answer. It returns when something is known or the target's own limit is over (3 s on
    /// Proxmox while the agent is down), so it may be called back to back. May be dropped.
    ///
    /// # Errors
    /// When the target can't be asked; a silent agent is not an error but a detail of the report.
    async fn addresses(&self) -> Result<AddressReport, PortError>;

    /// Stops it, the gentle ways first, and waits until it is really stopped. May be dropped: the request that
    /// is under way goes on.
    ///
    /// # Errors
    /// [`PortError::TimedOut`] when it still runs after all allowed ways.
    async fn stop(&self, ladder: &StopLadder) -> Result<StopRung, PortError>;

    /// Takes the media of the build out of the drives of a VM that is installed, so that it can't start from them again:
    /// out of the drives of a running one, with the drives of a stopped one where these are not to stay. Effect,
    /// idempotent. Nothing to do where the installer starts once only.
    ///
    /// # Errors
    /// The target's refusal.
    async fn eject(&self, spec: &MachineSpec) -> Result<(), PortError>;

    /// Takes the build's traces off the stopped VM: seed attachments, cloud-init user and keys. Effect,
    /// idempotent. The VM's identity (SMBIOS UUID) stays.
    ///
    /// # Errors
    /// The target's refusal.
    async fn detach(&self, spec: &MachineSpec) -> Result<(), PortError>;

    /// Rewrites the mark (heartbeat, or kept: then also the tag `forge-kept` where the target has tags). Effect.
    ///
    /// # Errors
    /// The target's refusal.
    async fn describe(&self, mark: &Ownership) -> Result<(), PortError>;

    /// Looks on all disks of the stopped VM, file or no file, for what the build may have left there. `None` where the disks
    /// can't be seen from here. Read only. May be dropped.
    ///
    /// # Errors
    /// When the disks can't be read.
    async fn search_disks(&self, _texts: &[Forbidden]) -> Result<Option<Vec<DiskFind>>, PortError> {
        Ok(None)
    }

    /// Writes the notes on the stopped VM and begins to turn it into the artefact. Effect; the commit point lies in it.
    /// A template keeps the name and the tags of its build until [`Machine::publish`]. Repeating it on a finished
    /// artefact is no error.
    ///
    /// # Errors
    /// [`PortError::OutcomeUnknown`] when the answer was lost: the engine then counts the artefact as made unless
    /// [`Hypervisor::standing`] shows that it was not.
    async fn submit_finalize(&self, finish: &Finish) -> Result<TaskHandle, PortError>;

    /// Gives the finished artefact its name, tags and notes: from here on it is found. Effect, idempotent. Nothing to do
    /// where the artefact is files.
    ///
    /// # Errors
    /// The target's refusal; the artefact is there all the same.
    async fn publish(&self, finish: &Finish) -> Result<(), PortError>;

    /// Takes a tag off a template, and changes nothing else of it. Effect, idempotent.
    ///
    /// # Errors
    /// The target's refusal.
    async fn untag(&self, tag: &str) -> Result<(), PortError>;

    /// Gives a template a tag, and changes nothing else of it. Effect, idempotent.
    ///
    /// # Errors
    /// The target's refusal; what is no template is refused.
    async fn tag(&self, tag: &str) -> Result<(), PortError>;

    /// Removes the template that the build with this chain id published, with its disks, and makes sure that it is gone:
    /// the only way by which a template goes. Refused are whatever else stands at the id, what bears
    /// [`crate::TAG_LATEST`], what is protected, and what linked clones need. One that is gone is no error. Effect.
    ///
    /// # Errors
    /// The refusal, or the target's own; the template is there then, unless nothing is known.
    async fn discard(&self, chain_id: &str) -> Result<(), PortError>;

    /// Begins to copy the template that the build with this chain id published to where it outlives the VM. Effect, and one
    /// that may be repeated: what is archived there already gives a finished handle. Nothing is taken from the template.
    ///
    /// # Errors
    /// When something else stands at the id, or the target refuses.
    async fn submit_archive(&self, _chain_id: &str, _place: &ArchivePlace) -> Result<TaskHandle, PortError> {
        Err(no_archives())
    }

    /// Looks into that copy once its work is over, and tells where it is: only then may the template go. Read only; may be
    /// dropped.
    ///
    /// # Errors
    /// When it is not there, or not whole.
    async fn archived(
        &self,
        _chain_id: &str,
        _place: &ArchivePlace,
        _task: &TaskHandle,
    ) -> Result<String, PortError> {
        Err(no_archives())
    }

    /// Tells what was made, after the finalize task is over. Read only.
    ///
    /// # Errors
    /// When the target can't be asked or the artefact is not there.
    async fn artefact(&self, finish: &Finish) -> Result<Artefact, PortError>;

    /// Cuts its power. A stopped VM is no error. Effect.
    ///
    /// # Errors
    /// The target's refusal.
    async fn power_off(&self) -> Result<(), PortError>;

    /// Removes it with its disks, clearing protection first. A VM that is gone is no error; a template is refused.
    /// Effect. It checks nothing else: whoever calls it has asked [`Hypervisor::standing`] just before.
    ///
    /// # Errors
    /// The target's refusal.
    async fn destroy(&self) -> Result<(), PortError>;
}
