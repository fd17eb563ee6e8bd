//! What happens in a build, as data.
//!
//! The engine emits [`Event`]s through [`Events`]; the [`bus`] numbers and redacts them, [`view`] folds them into
//! what there is to see, and sinks (`ui`, `evidence`) render that. Nothing here prints, and no sink can hold the
//! engine up.

pub mod bus;
pub mod check;
pub mod phrase;
pub mod redact;
pub mod view;

use std::path::PathBuf;

use forge_machine::{Artefact, ChainId, VmRef};
use serde::{Deserialize, Serialize};

pub use bus::{Bus, Events, ScreenShot, Sink};
pub use check::{CheckResult, Verdict};
pub use redact::{MASK, Redactor, inside_base64};
pub use view::BuildView;

/// The version of the JSON form of [`Envelope`]; readers refuse a higher one.
pub const VERSION: u32 = 1;

/// The stages of a build, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Renders the seed and opens its server.
    Seed,
    /// Makes the build VM and configures it.
    Create,
    /// Starts it and drives its boot screen.
    Boot,
    /// Finds the guest and logs in.
    Connect,
    /// Runs the provisioners; its end is the keep point.
    Provision,
    /// Removes what a template must not carry.
    Seal,
    /// Shuts the guest down.
    Shutdown,
    /// Turns the VM into the artefact; the commit point lies in it.
    Finish,
}

impl Stage {
    /// All stages, in their order.
    pub const ALL: [Self; 8] = [
        Self::Seed,
        Self::Create,
        Self::Boot,
        Self::Connect,
        Self::Provision,
        Self::Seal,
        Self::Shutdown,
        Self::Finish,
    ];

    /// The name in output and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::Create => "create",
            Self::Boot => "boot",
            Self::Connect => "connect",
            Self::Provision => "provision",
            Self::Seal => "seal",
            Self::Shutdown => "shutdown",
            Self::Finish => "finish",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How far a build had come, which decides what a failure does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Region {
    /// Before the keep point: a failure removes everything.
    Building,
    /// From the keep point to the commit point: a failure keeps the VM, stopped and marked.
    Keeping,
    /// At and after the commit point: nothing removes the artefact.
    Committed,
}

/// Why a build did not succeed, ready for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// The stage it happened in; `None` when it was not in one.
    pub stage: Option<Stage>,
    /// What happened, in one line.
    pub heading: String,
    /// The causes, outermost first.
    pub causes: Vec<String>,
    /// What was seen last, in words.
    pub last_seen: Vec<String>,
    /// What to do.
    pub hints: Vec<String>,
    /// Whether the user interrupted it.
    pub interrupted: bool,
    /// Whether the target is at fault: it refused something or does not answer. Of the guest that tells nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_target: bool,
}

/// How a build ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum Ending {
    /// The artefact exists and everything after it went well.
    #[serde(rename_all = "kebab-case")]
    Done {
        /// What was made.
        artefact: Artefact,
    },
    /// The artefact exists, and something after it failed.
    #[serde(rename_all = "kebab-case")]
    DoneWithFailure {
        /// What was made.
        artefact: Option<Artefact>,
        /// What failed.
        failure: Failure,
    },
    /// It failed late: the VM is kept, and `forge finish` goes on with it.
    #[serde(rename_all = "kebab-case")]
    Kept {
        /// The kept VM.
        vm: VmRef,
        /// What failed.
        failure: Failure,
        /// What could not be cleaned up.
        left_behind: Vec<String>,
    },
    /// A template was tried, whatever the checks say, and its clone removed, but for what is listed.
    #[serde(rename_all = "kebab-case")]
    Tested {
        /// What came of each check.
        checks: Vec<CheckResult>,
        /// What could not be removed.
        left_behind: Vec<String>,
    },
    /// It failed, and its VM stays as it was, by `--on-error`.
    #[serde(rename_all = "kebab-case")]
    Left {
        /// The VM.
        vm: VmRef,
        /// What failed.
        failure: Failure,
    },
    /// It failed and everything it had made was removed, but for what is listed.
    #[serde(rename_all = "kebab-case")]
    Failed {
        /// What failed.
        failure: Failure,
        /// What could not be removed.
        left_behind: Vec<String>,
    },
}

impl Ending {
    /// The exit code of the process for this build: 0 done, 1 failed, 4 clean-up incomplete, 5 artefact exists but
    /// a later step failed, 130 interrupted.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Done { .. } => 0,
            Self::DoneWithFailure { .. } => 5,
            Self::Kept { left_behind, .. }
            | Self::Failed { left_behind, .. }
            | Self::Tested { left_behind, .. }
                if !left_behind.is_empty() =>
            {
                4
            }
            Self::Tested { checks, .. } => {
                u8::from(checks.iter().any(|check| check.verdict == Verdict::Failed))
            }
            Self::Kept { failure, .. } | Self::Failed { failure, .. } if failure.interrupted => 130,
            Self::Kept { .. } | Self::Left { .. } | Self::Failed { .. } => 1,
        }
    }

    /// The failure, where there is one.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Done { .. } | Self::Tested { .. } => None,
            Self::DoneWithFailure { failure, .. }
            | Self::Kept { failure, .. }
            | Self::Left { failure, .. }
            | Self::Failed { failure, .. } => Some(failure),
        }
    }
}

/// Something that happened in a build.
///
/// The JSON form is public (`--json`, `events.jsonl`); readers skip events they don't know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
#[non_exhaustive]
pub enum Event {
    /// A build began.
    #[serde(rename_all = "kebab-case")]
    BuildStarted {
        /// The profile's name.
        profile: String,
        /// The target's name in the site file.
        target: String,
        /// The target's product and version.
        product: String,
        /// What is made, in words (`template tpl-debian-12`).
        makes: String,
        /// The folder of evidence.
        evidence: PathBuf,
        /// SHA-256 of the plan.
        plan: String,
    },
    /// A stage began.
    #[serde(rename_all = "kebab-case")]
    StageStarted {
        /// The stage.
        stage: Stage,
    },
    /// A stage does something now (`cloning VM 9000 to 9001`). Told once, when it begins.
    #[serde(rename_all = "kebab-case")]
    Doing {
        /// The stage.
        stage: Stage,
        /// What it does.
        what: String,
    },
    /// A wait sees something new.
    #[serde(rename_all = "kebab-case")]
    Waiting {
        /// The stage.
        stage: Stage,
        /// What is waited for (`SSH`).
        what: String,
        /// What is seen now.
        seen: String,
        /// How long the wait may take in all, in milliseconds; 0 for no limit.
        limit_ms: u64,
    },
    /// A download or an upload moves. Told once a second at most.
    #[serde(rename_all = "kebab-case")]
    Transferring {
        /// The stage.
        stage: Stage,
        /// The file's name.
        name: String,
        /// The bytes that are here.
        done: u64,
        /// How many there are; `None` when the server does not tell.
        total: Option<u64>,
        /// Whether it goes from this machine to the guest.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        up: bool,
    },
    /// A value that the plan left open is known.
    #[serde(rename_all = "kebab-case")]
    Bound {
        /// Its name (`vm.id`).
        name: String,
        /// Its value.
        value: String,
    },
    /// The guest fetched a seed file, or somebody asked for something else.
    #[serde(rename_all = "kebab-case")]
    Fetched {
        /// The file, without the secret path.
        path: String,
        /// The HTTP status of the answer.
        status: u16,
        /// Bytes sent.
        bytes: u64,
        /// Who asked.
        peer: String,
    },
    /// A picture of the screen was taken.
    #[serde(rename_all = "kebab-case")]
    Screen {
        /// What it shows, in words.
        label: String,
        /// The picture's name in the evidence folder; empty when none could be written.
        file: String,
        /// The text on it, when it could be read.
        text: Option<String>,
    },
    /// A provisioner began.
    #[serde(rename_all = "kebab-case")]
    ProvisionerStarted {
        /// Its position, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Its name.
        name: String,
        /// Whether it is one of those that run when another has failed, which are counted by themselves.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        on_error: bool,
    },
    /// A line of the guest's output.
    #[serde(rename_all = "kebab-case")]
    Output {
        /// The provisioner's name.
        step: String,
        /// The line.
        line: String,
        /// Whether it came on standard error.
        stderr: bool,
    },
    /// A provisioner ended well.
    #[serde(rename_all = "kebab-case")]
    ProvisionerFinished {
        /// Its name.
        name: String,
        /// Its exit status.
        exit: i32,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// A seal operation was carried out.
    #[serde(rename_all = "kebab-case")]
    Sealed {
        /// Its name.
        operation: String,
        /// How it ended, in words.
        result: String,
    },
    /// Something is not right and does not stop the build.
    #[serde(rename_all = "kebab-case")]
    Warning {
        /// What is not right.
        message: String,
        /// What to do about it; may be empty.
        help: String,
    },
    /// A stage ended well.
    #[serde(rename_all = "kebab-case")]
    StageFinished {
        /// The stage.
        stage: Stage,
        /// How long it took, in milliseconds.
        took_ms: u64,
        /// What came out, in words.
        result: String,
    },
    /// The build passed into another region.
    #[serde(rename_all = "kebab-case")]
    Entered {
        /// The region.
        region: Region,
    },
    /// The build was asked to stop.
    #[serde(rename_all = "kebab-case")]
    Interrupted {},
    /// A stage failed.
    #[serde(rename_all = "kebab-case")]
    StageFailed {
        /// The failure.
        failure: Failure,
        /// How long the stage took, in milliseconds.
        took_ms: u64,
    },
    /// Something is being undone.
    #[serde(rename_all = "kebab-case")]
    Undoing {
        /// What, in words.
        what: String,
    },
    /// Something was undone, or not.
    #[serde(rename_all = "kebab-case")]
    Undone {
        /// What, in words.
        what: String,
        /// Whether it is gone.
        ok: bool,
        /// How, or why not.
        detail: String,
    },
    /// The build is over. No event of it comes after this one.
    #[serde(rename_all = "kebab-case")]
    BuildFinished {
        /// How it ended.
        ending: Ending,
        /// How long it took, in milliseconds.
        took_ms: u64,
        /// The folder of evidence.
        evidence: PathBuf,
    },
    /// An event of a newer forge.
    #[serde(other)]
    Unknown,
}

/// An event with what every reader needs to place it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Envelope {
    /// The version of this form ([`VERSION`]).
    pub v: u32,
    /// The build.
    pub build: ChainId,
    /// Its number in the build, from 0, without gaps.
    pub seq: u64,
    /// Milliseconds since the build began.
    pub t_ms: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}
