//! A profile after loading. Every key of its file is documented in `os-profiles/README.md`; [`super::read`] reads it.
//!
//! Defaults are filled in, variables and script files too. What is `None` stays as the source has it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use forge_http_seed::answers::{Answers, Kind};
use forge_machine::{CloneSelector, DiskSpec, FileFormat, IsoDrives, KernelSpec, Medium, NetworkSpec};
use serde::Serialize;

use super::beside::{BesideFile, OwnMedium};
use super::place::Place;
use super::secrets::Secrets;
use super::template::Template;
use crate::provision::{AnsibleWork, Condition, Direction, WindowsRestart, WindowsUpdate};
use crate::remote::{Become, PowerShell, SshPlan, Via, WinRmPlan};

/// A profile after loading: variables filled in, files read, everything typed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Profile {
    /// Its name: lower-case letters, digits, `-` and `.`, at most 40; also the name of its folder of evidence.
    pub name: String,
    /// The operating system, for tags and notes.
    pub os: Os,
    /// The template's (or image's) name, a DNS name; `tpl-` and the profile's name when none is given.
    pub template_name: Template,
    /// What stands in its notes, above what forge writes there.
    pub description: Template,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether the template is tried before it is published as `latest`, on a target with templates.
    pub test: bool,
    /// The formats of the image files, on a target that makes files.
    pub formats: Vec<FileFormat>,
    /// Whether those files are compressed.
    pub compress: bool,
    /// What it starts from.
    pub source: Source,
    /// The build VM.
    pub vm: Vm,
    /// The seed.
    pub seed: Seed,
    /// The steps on the boot screen.
    pub boot: Vec<BootStep>,
    /// Who the build logs in as.
    pub access: Access,
    /// The provisioners that are not switched off.
    pub provision: Vec<Provisioner>,
    /// Seal operations by name, switched on or off.
    pub seal: BTreeMap<String, bool>,
    /// How long things may take.
    pub deadlines: DeadlineConfig,
    /// The files it was read from with their SHA-256, itself first.
    pub files: Vec<(PathBuf, String)>,
    /// Values that must be masked everywhere.
    #[serde(skip)]
    pub secrets: Secrets,
    #[serde(skip)]
    pub(super) places: BTreeMap<String, Place>,
}

/// `[os]`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Os {
    /// `linux`, the only one that this version seals, or `windows`.
    pub family: String,
    /// `debian`, `rocky`, …
    pub distribution: String,
    /// Its version.
    pub version: String,
    /// How far the profile was tried; `None` says nothing.
    pub tested: Option<Tested>,
}

/// How far a profile of forge's own was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tested {
    /// A real guest was built by it.
    Real,
    /// Its publisher's parser or schema accepted its answer files; nothing was installed.
    Reader,
    /// It was written after the documentation alone.
    Read,
}

impl Tested {
    /// The words of `os.tested`.
    pub const NAMES: [&str; 3] = ["real", "reader", "read"];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Reader => "reader",
            Self::Read => "read",
        }
    }

    /// What a build by the profile should know; `None` when it was done before.
    #[must_use]
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Self::Real => None,
            Self::Reader => Some(
                "its publisher's parser or schema accepts its answer files; nobody has installed by it yet",
            ),
            Self::Read => Some("it was written after the documentation alone and was never tried"),
        }
    }
}

/// A kernel that an install starts with instead of a boot loader.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kernel {
    /// Its files.
    pub files: KernelSpec,
    /// Its command line.
    pub cmdline: Template,
}

/// `[source]`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Source {
    /// A VM or template of the target.
    pub clone: Option<CloneSelector>,
    /// Copies the disks; `false` makes overlays that pin the base.
    pub full: bool,
    /// A disk image.
    pub image: Option<Medium>,
    /// Whether the build works on a copy of the image instead of an overlay.
    pub copy: bool,
    /// Media for the CD-ROM drives, the one to install from first.
    pub isos: Vec<Medium>,
    /// The slots of those drives, by the medium's place in `isos`, where they are named.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub iso_slots: BTreeMap<usize, String>,
    /// What becomes of those drives.
    pub iso_drives: IsoDrives,
    /// What the installer does when it is done; `None` where it is not said.
    pub after_install: Option<AfterInstall>,
    /// The kernel to start with.
    pub kernel: Option<Kernel>,
    /// Further URLs of media, by their first.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mirrors: BTreeMap<String, Vec<String>>,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            clone: None,
            full: true,
            image: None,
            copy: false,
            isos: Vec::new(),
            iso_slots: BTreeMap::new(),
            iso_drives: IsoDrives::Drop,
            after_install: None,
            kernel: None,
            mirrors: BTreeMap::new(),
        }
    }
}

/// `[vm]`. What is `None` stays as the source has it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Vm {
    /// CPU cores per socket, 1-8192.
    pub cores: Option<u32>,
    /// CPU sockets, 1-64.
    pub sockets: Option<u32>,
    /// CPU type, by Proxmox's and QEMU's names (`host`, `x86-64-v2-AES`).
    pub cpu: Option<String>,
    /// Memory in MiB, from 16.
    pub memory_mib: Option<u32>,
    /// Disks to change.
    pub disks: Vec<DiskSpec>,
    /// Network adapters; empty keeps the source's.
    pub networks: Vec<NetworkSpec>,
    /// Whether the guest agent's device is there.
    pub agent: Option<bool>,
    /// The node asked for.
    pub node: Option<String>,
    /// The id of build VM and template on Proxmox; `None` takes one of the target's range.
    pub vmid: Option<u32>,
    /// The cloud-init drive of the finished template.
    pub cloud_init: CloudInit,
    /// `[vm.proxmox]`: keys of Proxmox's VM configuration, passed through; truth values as 1 and 0.
    pub proxmox: BTreeMap<String, String>,
    /// `[vm.qemu]`: settings of the QEMU backend, passed through; truth values as 1 and 0.
    pub qemu: BTreeMap<String, String>,
    /// The storage of the disks on Proxmox; `None` takes the target's.
    pub storage: Option<String>,
    /// The resource pool; `None` takes the target's.
    pub pool: Option<String>,
    /// The disks of the firmware's variables and of the TPM on Proxmox, added when the source has none.
    pub state_disks: Vec<DiskSpec>,
    /// The settings that stand for keys of `[vm.proxmox]`: `vm.proxmox.scsihw` is `vm.scsihw`.
    #[serde(skip)]
    pub origins: BTreeMap<String, String>,
}

/// Whether the finished template has a cloud-init drive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloudInit {
    /// As the source has it.
    #[default]
    Inherit,
    /// One is added when the source has none.
    Add {
        /// The slot (`ide2`).
        slot: String,
        /// The storage; `None` takes the target's.
        storage: Option<String>,
    },
}

/// `[seed]`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Seed {
    /// The kind.
    pub kind: Kind,
    /// What answer files are made of; `None` for NoCloud.
    pub answers: Option<Answers>,
    /// Proxmox's `ipconfig0` for a static address by its cloud-init drive; `None` for DHCP.
    pub ip_config: Option<String>,
    /// Whether user-data or network configuration hold more than a static address.
    pub more_than_a_user: bool,
    /// The rungs that may be used, best first; empty lets forge choose.
    pub delivery: Vec<String>,
    /// The host name that the guest has during the build.
    pub hostname: Option<String>,
    /// Further user-data by cloud-init's names.
    pub user_data: Option<serde_json::Value>,
    /// The network configuration by cloud-init's names.
    pub network_config: Option<serde_json::Value>,
    /// Files beside the seed's own.
    pub files: Vec<BesideFile>,
    /// A disc of the profile's own.
    pub disc: Option<OwnMedium>,
    /// A floppy of the profile's own.
    pub floppy: Option<OwnMedium>,
}

/// A step of `[boot]`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootStep {
    /// Waits for something on the screen.
    WaitFor {
        /// What.
        sight: Sight,
        /// How long.
        within: Duration,
        /// Whether to go on with a warning when it does not come.
        or_after: bool,
        /// For how long the screen must not change then.
        still_for: Option<Duration>,
    },
    /// Waits for one of several things, each with its own steps.
    Expect {
        /// What may come, the first that is seen decides.
        outcomes: Vec<Outcome>,
        /// How long.
        within: Duration,
    },
    /// Presses keys again and again until something is on the screen.
    Until {
        /// What.
        sight: Sight,
        /// The keys, in the boot-command language.
        press: Template,
        /// How often.
        every: Duration,
        /// How long.
        within: Duration,
    },
    /// Waits until the screen stands still.
    WaitStill {
        /// For how long it must not change.
        quiet: Duration,
        /// How long to wait for that.
        within: Duration,
    },
    /// A step for some builds alone.
    When {
        /// Ways to deliver the seed, of which one must fit, and `bios` or `uefi`.
        conditions: Vec<String>,
        /// The step.
        step: Box<BootStep>,
    },
    /// Waits for a time.
    Wait(Duration),
    /// Presses keys, in the boot-command language.
    Keys(Template),
    /// Types a text and reads it back.
    Type {
        /// The text.
        text: Template,
        /// What is expected to appear of it.
        echo: EchoWish,
        /// Whether Enter is pressed once it stands there.
        enter: bool,
        /// The keyboard layout that the guest has by then.
        layout: String,
    },
}

/// What is looked for on the screen.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sight {
    /// What it is.
    pub wanted: Wanted,
    /// The lines in which it may stand, from 1, both ends included; `None` for all.
    pub lines: Option<(usize, usize)>,
    /// The columns in which it may stand, likewise.
    pub columns: Option<(usize, usize)>,
}

/// A text, a regular expression or a needle.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// A text.
    Text(Template),
    /// A regular expression, searched line by line.
    Regex(String),
    /// A piece of a picture.
    Needle(NeedleWish),
    /// A regular expression, searched line by line in what the guest writes to its serial port.
    Serial(String),
}

/// One of the things that an `expect` step is ready for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// What is seen.
    pub sight: Sight,
    /// What is done then.
    pub steps: Vec<BootStep>,
    /// Whether the `expect` is taken up again after that.
    pub again: bool,
    /// Why the build ends when this is seen.
    pub fail: Option<String>,
}

pub use crate::plan::{AfterInstall, EchoWish, NeedleWish};

/// `[access]`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Access {
    /// The user; `forge` when none is named.
    pub user: String,
    /// Whether the seed makes the user, and sealing removes it; `true` for all but `root`.
    pub create: bool,
    /// The ways to the guest, the best first; SSH alone when none are named.
    pub via: Vec<Via>,
    /// Other credentials than the build's key, and the way to the guest.
    pub ssh: SshPlan,
    /// How WinRM is spoken.
    pub winrm: WinRmPlan,
}

/// A `[[provision]]`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Provisioner {
    /// Its name; without one the beginning of its first command, its script's path, or its kind.
    pub name: String,
    /// What kind it is.
    pub kind: ProvisionerKind,
    /// The script's text.
    pub script: String,
    /// The script's file, when it came from one.
    pub file: Option<PathBuf>,
    /// Variables of the environment set for it.
    pub env: BTreeMap<String, String>,
    /// Whether and how it becomes root.
    pub r#become: Become,
    /// Exit codes that count as success, 0-255; 0 alone when none are named.
    pub valid_exit_codes: Vec<i32>,
    /// How long it may take; `None` is no limit.
    pub timeout: Option<Duration>,
    /// Whether the connection is expected to break (a reboot).
    pub expect_disconnect: bool,
    /// How long to wait before it.
    pub pause_before: Option<Duration>,
    /// How often it is tried again after a failure.
    pub max_retries: u32,
    /// For how long a script that can't be begun is tried again.
    pub start_retry: Option<Duration>,
    /// That its script is for PowerShell, and how that runs it.
    pub power_shell: Option<PowerShell>,
    /// Whether it runs only when another provisioner failed.
    pub on_error: bool,
    /// The program that runs the script; `None` takes its `#!` line.
    pub interpreter: Option<String>,
    /// The folder of the guest in which it runs.
    pub work_dir: Option<String>,
    /// The targets or profiles (or `target.profile`) it is for; empty for all.
    pub only: Vec<String>,
    /// Those it is not for.
    pub except: Vec<String>,
}

/// What kind a provisioner is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProvisionerKind {
    /// A script in the guest.
    Shell,
    /// A script on this machine, in the folder of the profile.
    ShellLocal {
        /// The profile's folder.
        dir: PathBuf,
    },
    /// A program of this machine that gets the build as JSON.
    Exec {
        /// The program with its arguments.
        words: Vec<String>,
        /// The profile's folder.
        dir: PathBuf,
    },
    /// Ansible, from this machine.
    Ansible {
        /// What is run; it becomes root by the provisioner's own `become`.
        work: AnsibleWork,
        /// The profile's folder.
        dir: PathBuf,
    },
    /// Ansible, in the guest.
    AnsibleLocal {
        /// What is run; it becomes root by the provisioner's own `become`.
        work: AnsibleWork,
    },
    /// Files to or from the guest.
    File {
        /// Which way.
        direction: Direction,
        /// The path on this machine.
        local: PathBuf,
        /// The path in the guest.
        remote: String,
        /// A text instead of a file.
        content: Option<String>,
        /// The permission bits.
        mode: Option<u32>,
    },
    /// Starts the guest anew.
    Reboot,
    /// Starts a Windows anew.
    WindowsRestart(WindowsRestart),
    /// Installs the updates of a Windows.
    WindowsUpdate(WindowsUpdate),
    /// Waits for something in the guest.
    WaitFor(Condition),
    /// Waits for a person.
    Breakpoint(String),
}

impl Provisioner {
    /// Whether it is for a build of that profile on that target.
    #[must_use]
    pub fn is_for(&self, target: &str, profile: &str) -> bool {
        let both = format!("{target}.{profile}");
        let named =
            |names: &[String]| names.iter().any(|name| [target, profile, &both].contains(&name.as_str()));
        (self.only.is_empty() || named(&self.only)) && !named(&self.except)
    }
}

/// `[deadlines]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeadlineConfig {
    /// How long the screen may stand still while booting; 10 minutes.
    pub boot: Duration,
    /// How long the guest may take to answer; 30 minutes.
    pub connect: Duration,
    /// How long it may take to shut down; 5 minutes.
    pub shutdown: Duration,
    /// How long the whole build may take; `None` is no limit.
    pub build: Option<Duration>,
}

impl Default for DeadlineConfig {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(600),
            connect: Duration::from_secs(1800),
            shutdown: Duration::from_secs(300),
            build: None,
        }
    }
}

impl Profile {
    /// What the profile calls a setting that backends call by Proxmox's name.
    #[must_use]
    pub fn setting<'a>(&'a self, setting: &'a str) -> &'a str {
        self.vm.origins.get(setting).map_or(setting, String::as_str)
    }

    /// The settings below `[boot]` whose names end so, in no order.
    pub fn boot_settings<'a>(&'a self, ending: &'a str) -> impl Iterator<Item = &'a str> {
        let names = self.places.keys().map(String::as_str);
        names.filter(move |name| name.starts_with("boot.") && name.ends_with(ending))
    }

    /// Where a setting stands, or the nearest table around it.
    #[must_use]
    pub fn place(&self, setting: &str) -> Option<&Place> {
        let mut name = self.setting(setting);
        loop {
            if let Some(place) = self.places.get(name) {
                return Some(place);
            }
            name = name.rsplit_once(['.', '['])?.0;
        }
    }
}
