//! `proof.json` and `README.md`: a build for machines and for people. Pure.

use std::fmt::Write as _;

use forge_machine::Artefact;
use serde::{Deserialize, Serialize};

use crate::event::view::StageStatus;
use crate::event::{BuildView, CheckResult, Ending, Verdict};
use crate::plan::Plan;
use crate::plan::origin::Origin;

/// The form of `proof.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Proof {
    /// The version of this form: 1.
    pub version: u32,
    /// The build.
    pub chain_id: String,
    /// The profile's name.
    pub profile: String,
    /// The profile's files, the profile itself first.
    pub profile_files: Vec<ProfileFile>,
    /// The target's name.
    pub target: String,
    /// The target's product and version.
    pub product: String,
    /// forge's version.
    pub forge: String,
    /// When the build was planned.
    pub started: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// SHA-256 of the plan.
    pub plan: String,
    /// Where the build comes from: the commit of the profile's repository, the run of the CI.
    #[serde(default, skip_serializing_if = "Origin::is_unknown")]
    pub origin: Origin,
    /// What was made.
    pub artefact: Option<Artefact>,
    /// Each stage, in its order.
    pub stages: Vec<StageProof>,
    /// The warnings.
    pub warnings: Vec<String>,
}

/// A file of the profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProfileFile {
    /// Its path, as it was named.
    pub path: String,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// A stage that ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StageProof {
    /// Its name.
    pub name: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What came out, in words.
    pub result: String,
}

/// The proof of a build that succeeded.
#[must_use]
pub fn proof(plan: &Plan, view: &BuildView) -> Proof {
    let artefact = match &view.ending {
        Some(Ending::Done { artefact }) => Some(artefact.clone()),
        Some(Ending::DoneWithFailure { artefact, .. }) => artefact.clone(),
        _ => None,
    };
    let stage = |(stage, status): &(crate::event::Stage, StageStatus)| match status {
        StageStatus::Done { took_ms, result } => {
            Some(StageProof { name: stage.name().into(), took_ms: *took_ms, result: result.clone() })
        }
        _ => None,
    };
    let file = |(path, sha256): &(std::path::PathBuf, String)| ProfileFile {
        path: path.display().to_string(),
        sha256: sha256.clone(),
    };
    Proof {
        version: 1,
        chain_id: plan.chain_id.to_string(),
        profile: plan.profile.clone(),
        profile_files: plan.profile_files.iter().map(file).collect(),
        target: plan.target.clone(),
        product: plan.product.clone(),
        forge: env!("CARGO_PKG_VERSION").into(),
        started: plan.planned.to_string(),
        took_ms: view.took_ms,
        plan: plan.digest(),
        origin: plan.origin.clone(),
        artefact,
        stages: view.stages.iter().filter_map(stage).collect(),
        warnings: view.warnings.clone(),
    }
}

/// The page for people.
#[must_use]
pub fn readme(plan: &Plan, view: &BuildView) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        let _infallible = writeln!(out, "{text}");
    };
    line(format!("# {}", plan.chain_id));
    line(String::new());
    let (verdict, failure) = match &view.ending {
        Some(Ending::Done { artefact }) => {
            (format!("Succeeded: {}.", crate::event::phrase::artefact(artefact)), None)
        }
        Some(Ending::DoneWithFailure { failure, .. }) => {
            ("The artefact exists, and something after it failed.".into(), Some(failure))
        }
        Some(Ending::Kept { vm, failure, .. }) => {
            (format!("Failed late; {vm} is kept. `forge finish {}` goes on with it.", vm.id), Some(failure))
        }
        Some(Ending::Left { vm, failure }) => (format!("Failed; {vm} is left as it was."), Some(failure)),
        Some(Ending::Tested { checks, .. }) => {
            let failed = checks.iter().filter(|check| check.verdict == Verdict::Failed).count();
            (format!("Tried: {} checks, {failed} of them failed.", checks.len()), None)
        }
        Some(Ending::Failed { failure, left_behind }) if left_behind.is_empty() => {
            ("Failed; nothing was left on the target.".into(), Some(failure))
        }
        Some(Ending::Failed { failure, left_behind }) => {
            (format!("Failed; left behind: {}.", left_behind.join("; ")), Some(failure))
        }
        None => ("It did not come to an end.".into(), None),
    };
    line(verdict);
    line(String::new());
    line(format!(
        "| | |\n|---|---|\n| profile | {} |\n| target | {} ({}) |",
        plan.profile, plan.target, plan.product
    ));
    line(format!(
        "| planned | {} |\n| took | {} |",
        plan.planned.strftime("%Y-%m-%d %H:%M:%S UTC"),
        crate::event::phrase::time(view.took_ms)
    ));
    line(format!("| forge | {} |\n| plan | sha256:{} |", env!("CARGO_PKG_VERSION"), plan.digest()));
    for (path, sha) in &plan.profile_files {
        line(format!("| {} | sha256:{sha} |", path.display()));
    }
    if let Some(repository) = &plan.origin.repository {
        let state = if repository.dirty { ", and what differs from it" } else { "" };
        line(format!("| commit | {}{state} |", repository.commit));
    }
    if let Some(run) = &plan.origin.ci {
        line(format!("| run | {} {}: {} |", run.service, run.number, run.url));
    }
    line(String::new());
    line("## Stages\n\n| stage | time | result |\n|---|---|---|".into());
    for (stage, status) in &view.stages {
        match status {
            StageStatus::Done { took_ms, result } => {
                line(format!("| {stage} | {} | {result} |", crate::event::phrase::time(*took_ms)));
            }
            StageStatus::Failed { took_ms } => {
                line(format!("| {stage} | {} | **failed** |", crate::event::phrase::time(*took_ms)));
            }
            StageStatus::Running { .. } | StageStatus::Pending => {
                line(format!("| {stage} | | not reached |"));
            }
        }
    }
    if let Some(Ending::Tested { checks, .. }) = &view.ending {
        line("\n## Checks\n\n| check | verdict | time | what it said |\n|---|---|---|---|".into());
        for CheckResult { name, verdict, took_ms, detail } in checks {
            let time = crate::event::phrase::time(*took_ms);
            line(format!("| {name} | {} | {time} | {} |", verdict.word(), detail.replace('|', "\\|")));
        }
    }
    if let Some(failure) = failure {
        line(format!("\n## Failure\n\n{}\n", failure.heading));
        for cause in &failure.causes {
            line(format!("* because: {cause}"));
        }
        for seen in &failure.last_seen {
            line(format!("* last seen: {seen}"));
        }
        for hint in &failure.hints {
            line(format!("* help: {hint}"));
        }
    }
    if !view.warnings.is_empty() {
        line("\n## Warnings\n".into());
        for warning in &view.warnings {
            line(format!("* {warning}"));
        }
    }
    line("\n## Files\n".into());
    line("`plan.txt` and `plan.json`: what was going to be done. `events.jsonl` and `build.log`: what happened.".into());
    line("`screens/`: pictures. `recording/`: what the screen showed, frame by frame. `seed/`: what was served. `provision/`: the provisioners' output.".into());
    line("`sha256sum --check SHA256SUMS` checks them all.".into());
    out
}
