//! Everything a build will do, decided before it starts. Pure data.
//!
//! A plan holds no late value and no secret: places for late values are [`late::LateText`], and what is not known
//! yet is printed as `<seed.url>`. Execution reads plan and bindings, nothing else. [`make`] is pure: no clock,
//! network, file system or randomness; date, build number, chain id and the target's facts come in.

pub(crate) mod boot;
pub mod explain;
mod hardware;
pub mod late;
pub mod make;
mod naming;
pub mod origin;
pub mod places;
mod seeding;
#[cfg(test)]
mod seeding_tests;
mod steps;
mod ways;
mod windows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use self::origin::Origin;
use base64::Engine as _;
use forge_console::frame::Rect;
use forge_console::needle::{Needle, NeedleError};
use forge_http_seed::answers::{Answers, Kind};
use forge_machine::{ChainId, Finish, MachineSpec, Nonce, SourceSpec, TAG_LATEST, TAG_UNTESTED};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::config::beside::{BesideFile, OwnMedium};
use crate::provision::Step;
use crate::remote::{BuildKey, SshPlan, Via, WinRmPlan, via};
use late::LateText;

/// The version of the plan's JSON form.
pub const VERSION: u32 = 1;

/// How the seed reaches the guest: the rungs of the ladder, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// The target's own cloud-init drive; no HTTP at all.
    CloudInitDrive,
    /// The NoCloud address in the SMBIOS system serial; no typing.
    Smbios,
    /// The address of the answers on the command line of the kernel that is started; no typing.
    Kernel,
    /// The same by a disc that starts the medium's own loader with a menu of forge's.
    BootDisc,
    /// A disc that holds the seed.
    Disc,
    /// A floppy that holds the seed.
    Floppy,
    /// The NoCloud address typed on the kernel's command line by the boot steps.
    Typed,
    /// No seed: the source already has a user and key of its own.
    None,
}

impl Delivery {
    /// The name in profiles.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CloudInitDrive => "cloud-init-drive",
            Self::Smbios => "smbios",
            Self::Kernel => "kernel",
            Self::BootDisc => "boot-disc",
            Self::Disc => "disc",
            Self::Floppy => "floppy",
            Self::Typed => "typed",
            Self::None => "none",
        }
    }
}

/// The seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SeedPlan {
    /// How it reaches the guest.
    pub delivery: Delivery,
    /// Why this rung and no better one.
    pub why: String,
    /// The address the server listens on.
    pub bind: String,
    /// The ports it may use, inclusive; both 0 for any.
    pub ports: (u16, u16),
    /// The only networks that are answered; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_networks: Vec<String>,
    /// The address the guest is given; `None` finds the one that routes to the target.
    pub address: Option<String>,
    /// The network interface of this machine whose address the guest is given instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The target's `host:port`, towards which the address is found.
    pub endpoint: Option<String>,
    /// The host name that the guest gets for the build; `None` leaves the source's.
    pub hostname: Option<String>,
    /// Further user-data, merged over forge's own (cloud-init's names).
    pub user_data: Option<serde_json::Value>,
    /// The network configuration (cloud-init's version 1 or 2), when one is given.
    pub network_config: Option<serde_json::Value>,
    /// What the answer files of an installer are made of; `None` for NoCloud.
    pub answers: Option<Answers>,
    /// The address by Proxmox's cloud-init drive: its `ipconfig0`.
    pub ip_config: String,
    /// Files beside the seed's own, wherever that goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<BesideFile>,
    /// A disc of the profile's own; the seed is on it too where that goes by disc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disc: Option<OwnMedium>,
    /// A floppy of the profile's own; the seed is on it too where that goes by floppy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floppy: Option<OwnMedium>,
}

/// What a boot disc starts: files of the first of the build's media, by the loader of that medium.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BootDisc {
    /// The kernel's path there.
    pub kernel: String,
    /// Those of its initrds.
    pub initrds: Vec<String>,
}

/// A step on the boot screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum BootStep {
    /// Waits for something on the screen.
    #[serde(rename_all = "kebab-case")]
    WaitFor {
        /// What.
        sight: Sight,
        /// How long, in milliseconds.
        within_ms: u64,
        /// Whether the build goes on with a warning when it does not come.
        or_after: bool,
        /// For how long the screen must not change then, in milliseconds.
        still_ms: Option<u64>,
    },
    /// Waits for one of several things, each with its own steps.
    #[serde(rename_all = "kebab-case")]
    Expect {
        /// What may come; the first that is seen decides.
        outcomes: Vec<Outcome>,
        /// How long, in milliseconds.
        within_ms: u64,
    },
    /// Presses keys again and again until something is on the screen.
    #[serde(rename_all = "kebab-case")]
    Until {
        /// What.
        sight: Sight,
        /// The keys, in the boot-command language.
        press: LateText,
        /// How often, in milliseconds.
        every_ms: u64,
        /// How long, in milliseconds.
        within_ms: u64,
    },
    /// Waits until the screen stands still.
    #[serde(rename_all = "kebab-case")]
    WaitStill {
        /// For how long it must not change, in milliseconds.
        quiet_ms: u64,
        /// How long to wait for that, in milliseconds.
        within_ms: u64,
    },
    /// Waits for a time.
    #[serde(rename_all = "kebab-case")]
    Wait {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// Presses keys, written in the boot-command language, without reading them back.
    #[serde(rename_all = "kebab-case")]
    Keys {
        /// The keys.
        keys: LateText,
    },
    /// Types a text and reads it back.
    #[serde(rename_all = "kebab-case")]
    Type {
        /// The text.
        text: LateText,
        /// What is expected to appear of it.
        echo: EchoWish,
        /// Whether Enter is pressed once it stands there.
        enter: bool,
        /// The keyboard layout that the guest has by then.
        layout: String,
    },
}

/// What is looked for on the screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sight {
    /// What it is.
    #[serde(flatten)]
    pub wanted: Wanted,
    /// The lines in which it may stand, from 1, both ends included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<(usize, usize)>,
    /// The columns in which it may stand, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<(usize, usize)>,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// A text.
    Text(LateText),
    /// A regular expression, searched line by line.
    Regex(String),
    /// A piece of a picture.
    Needle(NeedleWish),
    /// A regular expression, searched line by line in what the guest writes to its serial port.
    Serial(String),
}

/// A piece of a picture that is looked for on the screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NeedleWish {
    /// The file's name, for people.
    pub name: String,
    /// The PNG, in base64.
    pub png: String,
    /// The parts of it that count, as left, top, width and height in pixels; none means all of it.
    pub areas: Vec<[u32; 4]>,
    /// How well it must match, in percent.
    pub percent: u8,
}

impl NeedleWish {
    /// The needle.
    ///
    /// # Errors
    /// When the PNG is none, or an area lies outside of it.
    pub fn needle(&self) -> Result<Needle, NeedleError> {
        let png = base64::engine::general_purpose::STANDARD.decode(&self.png).unwrap_or_default();
        let areas: Vec<Rect> = self
            .areas
            .iter()
            .map(|[x, y, width, height]| Rect { x: *x, y: *y, width: *width, height: *height })
            .collect();
        Needle::from_png(&png, &areas)
    }

    /// How much it may differ, from 0 to 1.
    #[must_use]
    pub fn tolerance(&self) -> f64 {
        f64::from(100_u8.saturating_sub(self.percent)) / 100.0
    }
}

/// One of the things that an `expect` step is ready for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// What is seen.
    pub sight: Sight,
    /// What is done then.
    #[serde(default)]
    pub steps: Vec<BootStep>,
    /// Whether the step is taken up again after that.
    #[serde(default)]
    pub again: bool,
    /// Why the build ends when this is seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<String>,
}

/// What a `type` step expects to appear of its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EchoWish {
    /// The text; else the build fails.
    #[default]
    Required,
    /// The text, or nothing.
    IfSeen,
    /// Nothing: it is typed blind and slowly.
    None,
}

/// What an installer does when it is done. By profile: `source.after-install`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterInstall {
    /// It restarts the VM, which then boots from its disk.
    #[default]
    Reboot,
    /// It switches the VM off; the build takes the media out and starts it.
    Poweroff,
}

impl AfterInstall {
    /// The words of a profile.
    pub const NAMES: [&str; 2] = ["reboot", "poweroff"];

    /// By its word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "reboot" => Some(Self::Reboot),
            "poweroff" => Some(Self::Poweroff),
            _ => None,
        }
    }
}

/// Who the build logs in as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AccessPlan {
    /// The user.
    pub user: String,
    /// Whether the seed makes the user, so that sealing removes it.
    pub create: bool,
    /// The ways to the guest, the best first.
    #[serde(default = "via::usual", skip_serializing_if = "via::is_usual")]
    pub via: Vec<Via>,
    /// Other credentials than the build's key, and the way to the guest.
    #[serde(default, skip_serializing_if = "SshPlan::is_default")]
    pub ssh: SshPlan,
    /// How WinRM is spoken.
    #[serde(default, skip_serializing_if = "WinRmPlan::is_default")]
    pub winrm: WinRmPlan,
    /// Whether the guest is a Windows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub windows: bool,
}

impl AccessPlan {
    /// Whether the user gets a password for the serial console: one that is made for the build, where it makes the user
    /// and no other is named.
    #[must_use]
    pub fn makes_console_password(&self) -> bool {
        self.via.contains(&Via::Serial) && self.create && self.ssh.credentials.password.is_none()
    }

    /// Whether the guest lets the build's own key in: it can't know it where the user is its own and logs in otherwise.
    #[must_use]
    pub fn knows_build_key(&self) -> bool {
        self.create || self.ssh.credentials.is_empty()
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Deadlines {
    /// How long the screen may stand still while the guest boots.
    pub boot: Duration,
    /// How long the guest may take until it answers.
    pub connect: Duration,
    /// How long it may take to shut down.
    pub shutdown: Duration,
    /// How long the whole build may take; `None` is no limit.
    pub build: Option<Duration>,
}

impl Default for Deadlines {
    /// Those of a profile that sets none.
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(600),
            connect: Duration::from_secs(1800),
            shutdown: Duration::from_secs(300),
            build: None,
        }
    }
}

/// What a VM is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// It becomes the artefact.
    #[default]
    Build,
    /// It is a clone of a template that is tried and removed; the provisioners are the checks.
    Test,
}

/// A medium that is downloaded before the build VM is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Download {
    /// Where from.
    pub url: String,
    /// Further URLs of the same file, asked in this order when that one fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// In bytes; `None` when the server did not tell.
    pub size: Option<u64>,
    /// Whether this machine's cache has it already; it is compared all the same.
    pub here: bool,
}

/// Everything a build will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// The version of this form.
    pub version: u32,
    /// What the VM is made for.
    #[serde(default)]
    pub purpose: Purpose,
    /// The build.
    pub chain_id: ChainId,
    /// The profile's name.
    pub profile: String,
    /// The profile's files with their SHA-256, the profile itself first.
    pub profile_files: Vec<(PathBuf, String)>,
    /// The target's name in the site file.
    pub target: String,
    /// The target's product and version.
    pub product: String,
    /// What was found out about the target that explains the plan.
    pub notes: Vec<String>,
    /// When the build was planned.
    pub planned: Timestamp,
    /// The build VM.
    pub machine: MachineSpec,
    /// What is downloaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downloads: Vec<Download>,
    /// Where the profile sets what the target calls by names of its own ([`places`]). No part of what is planned.
    #[serde(skip)]
    pub places: BTreeMap<String, String>,
    /// What the installer does when it is done; `None` where nothing is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_install: Option<AfterInstall>,
    /// The command line of the kernel that it starts with, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_cmdline: Option<LateText>,
    /// What a boot disc starts with that command line, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_disc: Option<BootDisc>,
    /// The seed.
    pub seed: SeedPlan,
    /// The steps on the boot screen.
    pub boot: Vec<BootStep>,
    /// Who the build logs in as.
    pub access: AccessPlan,
    /// The provisioners.
    pub provision: Vec<Step>,
    /// The seal operations that are switched on, by name, in their order.
    pub seal: Vec<String>,
    /// Whether it is only told what they would change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seal_dry_run: bool,
    /// Whether the template is tried before it gets the tag `latest`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gate: bool,
    /// What the clone of a trial is compared with; a build has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<crate::trial::baseline::Baseline>,
    /// Where the build comes from.
    #[serde(default, skip_serializing_if = "Origin::is_unknown")]
    pub origin: Origin,
    /// What the VM becomes.
    pub finish: Finish,
    /// How long things may take.
    pub deadlines: Deadlines,
}

/// Why a Windows template is never tried.
pub const UNTRIABLE: &str = "a Windows template can't be tried before it is published";

impl Plan {
    /// Puts a trial between the template and the tag `latest`, or takes it away. What makes files has neither.
    pub fn set_gate(&mut self, gate: bool) {
        let Finish::Template { tags, .. } = &mut self.finish else { return };
        self.gate = gate;
        tags.retain(|tag| tag != TAG_LATEST && tag != TAG_UNTESTED);
        tags.push(if gate { TAG_UNTESTED } else { TAG_LATEST }.into());
        tags.sort();
    }

    /// The password of the user whom the answers of an unattended Windows make, which follows from the build's key where the
    /// answers name none. A secret; `None` when they make nobody.
    #[must_use]
    pub fn windows_password(&self, key: &BuildKey) -> Option<String> {
        let answers = self.seed.answers.as_ref()?;
        let makes = self.access.create && answers.kind == Kind::Autounattend;
        makes.then(|| answers.account_password(&key.windows_password()).to_owned())
    }

    /// SHA-256 of the plan's JSON form, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(&json).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What the finish stage does, in words.
    #[must_use]
    pub fn finish_in_words(&self) -> String {
        match &self.finish {
            Finish::Template { name, .. } => format!("turning it into the template {name}"),
            Finish::Files { directory, name, .. } => format!("writing {}", directory.join(name).display()),
        }
    }

    /// What the build makes, in words.
    #[must_use]
    pub fn makes(&self) -> String {
        if self.purpose == Purpose::Test {
            return format!("a trial of {}", self.artefact_name());
        }
        match &self.finish {
            Finish::Template { name, .. } => format!("template {name}"),
            Finish::Files { directory, name, .. } => format!("image {}", directory.join(name).display()),
        }
    }

    /// Packer's name for this kind of build, for scripts that come from there.
    #[must_use]
    pub fn builder_type(&self) -> &'static str {
        match &self.machine.source {
            SourceSpec::Clone { .. } => "proxmox-clone",
            SourceSpec::Image { .. } => "qemu",
            SourceSpec::New => match &self.finish {
                Finish::Template { .. } => "proxmox-iso",
                Finish::Files { .. } => "qemu",
            },
        }
    }

    /// What the artefact is called: the template's name, or the file's name without its ending.
    #[must_use]
    pub fn artefact_name(&self) -> &str {
        match &self.finish {
            Finish::Template { name, .. } | Finish::Files { name, .. } => name,
        }
    }
}

/// What a build is told of the moment and place it runs in, so that planning itself stays pure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time.
    pub now: Timestamp,
    /// The build's number, from the CI or `001`.
    pub build_number: String,
    /// `user@host`.
    pub owner: String,
    /// The build's nonce.
    pub nonce: Nonce,
    /// The folder under which evidence is kept.
    pub evidence_root: PathBuf,
}

impl Moment {
    /// The chain id of a build of a profile at this moment: `CHAIN-<UTC time>-<profile>`.
    ///
    /// Two builds of one profile within a second are told apart by a piece of the nonce.
    #[must_use]
    pub fn chain_id(&self, profile: &str) -> ChainId {
        let stamp = self.now.strftime("%Y%m%dT%H%M%SZ");
        let short: String = self.nonce.as_str().chars().take(4).collect();
        ChainId::new(format!("CHAIN-{stamp}-{profile}-{short}"))
    }
}
