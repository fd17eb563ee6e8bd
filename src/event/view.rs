//! What there is to see of a build: a pure fold of its events.

use std::path::PathBuf;

use forge_machine::ChainId;

use crate::media::size;

use super::phrase::time;
use super::{Ending, Envelope, Event, Region, Stage};

/// How a stage stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageStatus {
    /// It has not begun.
    Pending,
    /// It runs since this many milliseconds after the build began.
    Running {
        /// When it began.
        since_ms: u64,
    },
    /// It ended well.
    Done {
        /// How long it took, in milliseconds.
        took_ms: u64,
        /// What came out, in words.
        result: String,
    },
    /// It failed.
    Failed {
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
}

/// A wait that is going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What is waited for.
    pub what: String,
    /// What is seen now.
    pub seen: String,
    /// How long it may take, in milliseconds; 0 for no limit.
    pub limit_ms: u64,
    /// When it was first seen, in milliseconds after the build began.
    pub since_ms: u64,
}

/// A download or an upload that is going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The file's name.
    pub name: String,
    /// The bytes that are here.
    pub done: u64,
    /// How many there are.
    pub total: Option<u64>,
    /// The bytes that were here when it was first seen, and when that was, in milliseconds after the build began.
    pub since: (u64, u64),
    /// When it was last seen, likewise.
    pub now_ms: u64,
    /// Whether it goes from this machine to the guest.
    pub up: bool,
}

impl Transfer {
    /// A download after it has moved.
    #[must_use]
    pub fn moved(before: Option<&Self>, name: &str, done: u64, total: Option<u64>, t_ms: u64) -> Self {
        let same = before.filter(|before| before.name == name && before.done <= done);
        let since = same.map_or((done, t_ms), |before| before.since);
        Self { name: name.to_owned(), done, total, since, now_ms: t_ms, up: false }
    }

    /// What it is, how far it is, how fast and how long it will take, in words.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut words = if self.up { "uploading " } else { "downloading " }.to_owned();
        words.push_str(&match self.total {
            Some(total) => {
                let percent = (u128::from(self.done) * 100).checked_div(u128::from(total)).unwrap_or(100);
                format!("{}: {percent} % of {}", self.name, size(total))
            }
            None => format!("{}: {}", self.name, size(self.done)),
        });
        let (done, took) =
            (self.done - self.since.0.min(self.done), self.now_ms.saturating_sub(self.since.1));
        // A rate over less than a second says nothing.
        if let Some(rate) = (done * 1000).checked_div(took).filter(|rate| *rate > 0 && took >= 1000) {
            words.push_str(&format!(", {}/s", size(rate)));
            if let Some(left) =
                self.total.map(|total| total.saturating_sub(self.done)).filter(|left| *left > 0)
            {
                words.push_str(&format!(", {} left", time(left / rate * 1000)));
            }
        }
        words
    }
}

/// The state of one build as its events tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildView {
    /// The build.
    pub build: ChainId,
    /// The profile's name.
    pub profile: String,
    /// The target's name.
    pub target: String,
    /// The target's product and version.
    pub product: String,
    /// What is made, in words.
    pub makes: String,
    /// The folder of evidence.
    pub evidence: PathBuf,
    /// Each stage with its status, in their order.
    pub stages: Vec<(Stage, StageStatus)>,
    /// What the running stage does now.
    pub doing: String,
    /// The download that is going on.
    pub transfer: Option<Transfer>,
    /// The wait that is going on.
    pub wait: Option<Wait>,
    /// The provisioner that runs: its number, how many there are, its name.
    pub provisioner: Option<(usize, usize, String)>,
    /// The last line of guest output.
    pub output: String,
    /// How many seed files the guest fetched.
    pub fetches: usize,
    /// The warnings so far.
    pub warnings: Vec<String>,
    /// How far it came.
    pub region: Region,
    /// Whether it was asked to stop.
    pub interrupted: bool,
    /// What is being undone.
    pub undoing: Option<String>,
    /// How it ended.
    pub ending: Option<Ending>,
    /// How long it took in all, in milliseconds.
    pub took_ms: u64,
}

impl BuildView {
    /// A build of which nothing is known yet.
    #[must_use]
    pub fn new(build: ChainId) -> Self {
        Self {
            build,
            profile: String::new(),
            target: String::new(),
            product: String::new(),
            makes: String::new(),
            evidence: PathBuf::new(),
            stages: Stage::ALL.into_iter().map(|stage| (stage, StageStatus::Pending)).collect(),
            doing: String::new(),
            transfer: None,
            wait: None,
            provisioner: None,
            output: String::new(),
            fetches: 0,
            warnings: Vec::new(),
            region: Region::Building,
            interrupted: false,
            undoing: None,
            ending: None,
            took_ms: 0,
        }
    }

    /// The stage that runs.
    #[must_use]
    pub fn running(&self) -> Option<Stage> {
        self.stages
            .iter()
            .find(|(_, status)| matches!(status, StageStatus::Running { .. }))
            .map(|(stage, _)| *stage)
    }

    /// The status of a stage.
    #[must_use]
    pub fn status(&self, stage: Stage) -> &StageStatus {
        self.stages
            .iter()
            .find(|(each, _)| *each == stage)
            .map_or(&StageStatus::Pending, |(_, status)| status)
    }

    fn set(&mut self, stage: Stage, status: StageStatus) {
        if let Some(entry) = self.stages.iter_mut().find(|(each, _)| *each == stage) {
            entry.1 = status;
        }
        self.doing.clear();
        self.transfer = None;
        self.wait = None;
        self.provisioner = None;
    }

    /// Takes the next event in.
    pub fn apply(&mut self, envelope: &Envelope) {
        let t_ms = envelope.t_ms;
        match &envelope.event {
            Event::BuildStarted { profile, target, product, makes, evidence, .. } => {
                self.profile.clone_from(profile);
                self.target.clone_from(target);
                self.product.clone_from(product);
                self.makes.clone_from(makes);
                self.evidence.clone_from(evidence);
            }
            Event::StageStarted { stage } => self.set(*stage, StageStatus::Running { since_ms: t_ms }),
            Event::Doing { what, .. } => {
                self.doing.clone_from(what);
                self.transfer = None;
                self.wait = None;
            }
            Event::Transferring { name, done, total, up, .. } => {
                let moved = Transfer::moved(self.transfer.as_ref(), name, *done, *total, t_ms);
                self.transfer = Some(Transfer { up: *up, ..moved });
                self.wait = None;
            }
            Event::Waiting { what, seen, limit_ms, .. } => {
                let since_ms =
                    self.wait.as_ref().filter(|wait| wait.what == *what).map_or(t_ms, |wait| wait.since_ms);
                self.wait =
                    Some(Wait { what: what.clone(), seen: seen.clone(), limit_ms: *limit_ms, since_ms });
            }
            Event::Fetched { status, .. } if *status < 400 => self.fetches += 1,
            Event::ProvisionerStarted { number, of, name, on_error } => {
                let after = if *on_error { " (after the failure)" } else { "" };
                self.provisioner = Some((*number, *of, format!("{name}{after}")));
                self.output.clear();
                self.transfer = None;
            }
            Event::Output { line, .. } => {
                self.output.clone_from(line);
                self.transfer = None;
            }
            Event::ProvisionerFinished { .. } => {
                self.output.clear();
                self.transfer = None;
            }
            Event::Warning { message, .. } => self.warnings.push(message.clone()),
            Event::StageFinished { stage, took_ms, result } => {
                self.set(*stage, StageStatus::Done { took_ms: *took_ms, result: result.clone() });
            }
            Event::StageFailed { failure, took_ms } => {
                if let Some(stage) = failure.stage {
                    self.set(stage, StageStatus::Failed { took_ms: *took_ms });
                }
            }
            Event::Entered { region } => self.region = *region,
            Event::Interrupted {} => self.interrupted = true,
            Event::Undoing { what } => self.undoing = Some(what.clone()),
            Event::Undone { .. } => self.undoing = None,
            Event::BuildFinished { ending, took_ms, evidence } => {
                self.ending = Some(ending.clone());
                self.took_ms = *took_ms;
                self.evidence.clone_from(evidence);
            }
            Event::Bound { .. }
            | Event::Fetched { .. }
            | Event::Screen { .. }
            | Event::Sealed { .. }
            | Event::Unknown => {}
        }
    }
}
