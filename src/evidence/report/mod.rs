//! A folder of evidence as one HTML page that needs nothing else: no network, no script, no file beside it.

mod trend;

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use serde::Serialize;
use thiserror::Error;

use super::verify::{Verdict, verify};
use crate::event::phrase::{artefact, time};
use crate::event::view::StageStatus;
use crate::event::{BuildView, CheckResult, Ending, Envelope, Event, Failure, Verdict as CheckVerdict};
use trend::Past;

/// The page. Everything that goes into it is escaped: the name ends in `.html`.
const PAGE: &str = include_str!("page.html");

/// How much of a log is shown; the whole one is beside the page.
const LOG_LIMIT: usize = 200_000;

/// No report can be made of a folder.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The folder has no events.
    #[error("{folder} is no folder of evidence: events.jsonl can't be read")]
    NoEvents {
        /// The folder.
        folder: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The events say nothing of a build.
    #[error("{folder}: events.jsonl tells of no build")]
    Empty {
        /// The folder.
        folder: String,
    },
    /// The page could not be filled in: a fault of forge.
    #[error("the page can't be filled in")]
    Page(#[source] tera::Error),
}

#[derive(Debug, Serialize)]
struct Page {
    chain_id: String,
    profile: String,
    target: String,
    product: String,
    verdict: &'static str,
    headline: String,
    took: String,
    started: Option<String>,
    forge: Option<String>,
    plan: Option<String>,
    stages: Vec<Row>,
    marks: Vec<Mark>,
    checks: Vec<CheckResult>,
    failure: Option<Failure>,
    warnings: Vec<String>,
    screens: Vec<Picture>,
    provisioners: Vec<Log>,
    logs: Vec<Log>,
    check: Verdict,
    past: Vec<Past>,
}

/// A stage in the table and on the time line.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    status: &'static str,
    took: String,
    result: String,
    /// Where its bar begins and how wide it is, in percent of the build.
    from: f64,
    width: f64,
}

/// A moment on the time line.
#[derive(Debug, Serialize)]
struct Mark {
    at: f64,
    time: String,
    words: String,
}

#[derive(Debug, Serialize)]
struct Picture {
    label: String,
    at: String,
    text: Option<String>,
    png: String,
}

#[derive(Debug, Serialize)]
struct Log {
    name: String,
    text: String,
    cut: bool,
}

/// The page of a folder.
///
/// # Errors
/// When the folder is no evidence.
pub fn report(folder: &Path) -> Result<String, ReportError> {
    let text = std::fs::read_to_string(folder.join("events.jsonl"))
        .map_err(|source| ReportError::NoEvents { folder: folder.display().to_string(), source })?;
    // A last line that a dying process cut off is left out.
    let events: Vec<Envelope> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let Some(first) = events.first() else {
        return Err(ReportError::Empty { folder: folder.display().to_string() });
    };
    let mut view = BuildView::new(first.build.clone());
    events.iter().for_each(|event| view.apply(event));
    let page = page(folder, &events, &view);
    let mut context = tera::Context::new();
    context.insert("page", &page);
    let mut engine = tera::Tera::default();
    engine
        .add_raw_template("page.html", PAGE)
        .and_then(|()| engine.render("page.html", &context))
        .map_err(ReportError::Page)
}

fn page(folder: &Path, events: &[Envelope], view: &BuildView) -> Page {
    let proof = std::fs::read_to_string(folder.join("proof.json"))
        .ok()
        .and_then(|text| serde_json::from_str::<super::proof::Proof>(&text).ok());
    let end = events.iter().map(|event| event.t_ms).max().unwrap_or(0).max(view.took_ms).max(1);
    let (verdict, headline) = headline(view);
    Page {
        chain_id: view.build.to_string(),
        profile: view.profile.clone(),
        target: view.target.clone(),
        product: view.product.clone(),
        verdict,
        headline,
        took: time(if view.took_ms == 0 { end } else { view.took_ms }),
        started: proof.as_ref().map(|proof| format!("{} UTC", minute(&proof.started))),
        forge: proof.as_ref().map(|proof| proof.forge.clone()),
        plan: proof.as_ref().map(|proof| proof.plan.clone()),
        stages: rows(events, view, end),
        marks: marks(events, end),
        checks: match &view.ending {
            Some(Ending::Tested { checks, .. }) => checks.clone(),
            _ => Vec::new(),
        },
        failure: view.ending.as_ref().and_then(Ending::failure).cloned(),
        warnings: view.warnings.clone(),
        screens: pictures(folder, events),
        provisioners: logs(folder, "provision"),
        logs: ["plan.txt", "build.log"].iter().filter_map(|name| log(folder, name)).collect(),
        check: verify(folder),
        past: trend::past(folder, view.build.as_str()),
    }
}

fn headline(view: &BuildView) -> (&'static str, String) {
    match &view.ending {
        Some(Ending::Done { artefact: made }) => ("done", artefact(made)),
        Some(Ending::DoneWithFailure { artefact: made, .. }) => {
            let made = made.as_ref().map_or_else(|| view.makes.clone(), artefact);
            ("done, then failed", format!("{made}, and something after it failed"))
        }
        Some(Ending::Kept { vm, .. }) => ("kept", format!("{vm} is kept: `forge finish {}` goes on", vm.id)),
        Some(Ending::Left { vm, .. }) => ("failed", format!("{vm} is left as it was")),
        Some(ending @ Ending::Tested { checks, .. }) => {
            let failed = checks.iter().filter(|check| check.verdict == CheckVerdict::Failed).count();
            let verdict = if ending.exit_code() == 0 { "done" } else { "failed" };
            (verdict, format!("tried: {} checks, {failed} of them failed", checks.len()))
        }
        Some(Ending::Failed { failure, left_behind }) if left_behind.is_empty() => {
            let verdict = if failure.interrupted { "interrupted" } else { "failed" };
            (verdict, "nothing was left on the target".into())
        }
        Some(Ending::Failed { left_behind, .. }) => {
            ("failed", format!("left behind: {}", left_behind.join("; ")))
        }
        None => ("unfinished", "it did not come to an end".into()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a place on a page")]
fn percent(ms: u64, of: u64) -> f64 {
    (ms as f64 * 1000.0 / of as f64).round() / 10.0
}

fn rows(events: &[Envelope], view: &BuildView, end: u64) -> Vec<Row> {
    let row = |(stage, status): &(crate::event::Stage, StageStatus)| {
        let began = events.iter().rev().find_map(|event| match event.event {
            Event::StageStarted { stage: each } if each == *stage => Some(event.t_ms),
            _ => None,
        });
        let from = began.unwrap_or(0);
        let (status, took, result) = match status {
            StageStatus::Pending => ("not reached", 0, String::new()),
            StageStatus::Running { .. } => ("cut off", end.saturating_sub(from), String::new()),
            StageStatus::Done { took_ms, result } => ("done", *took_ms, result.clone()),
            StageStatus::Failed { took_ms } => ("failed", *took_ms, String::new()),
        };
        Row {
            name: stage.name().into(),
            status,
            took: if began.is_some() { time(took) } else { String::new() },
            result,
            from: percent(from, end),
            width: percent(took, end).max(0.3),
        }
    };
    view.stages.iter().map(row).collect()
}

/// What else happened, for the time line: fetches of the seed, pictures, provisioners.
fn marks(events: &[Envelope], end: u64) -> Vec<Mark> {
    let words = |event: &Event| match event {
        Event::Fetched { path, .. } => Some(format!("seed: {path} fetched")),
        Event::Screen { label, .. } => Some(format!("picture: {label}")),
        Event::ProvisionerFinished { name, .. } => Some(format!("provisioner: {name} done")),
        Event::Warning { message, .. } => Some(format!("warning: {message}")),
        _ => None,
    };
    let mark = |event: &Envelope| {
        let words = words(&event.event)?;
        Some(Mark { at: percent(event.t_ms, end), time: time(event.t_ms), words })
    };
    events.iter().filter_map(mark).collect()
}

fn pictures(folder: &Path, events: &[Envelope]) -> Vec<Picture> {
    let picture = |event: &Envelope| {
        let Event::Screen { label, file, text } = &event.event else { return None };
        // Only what the build itself left there.
        let name = Path::new(file).file_name()?;
        let png = std::fs::read(folder.join("screens").join(name)).ok()?;
        Some(Picture {
            label: label.clone(),
            at: time(event.t_ms),
            text: text.clone().filter(|text| !text.trim().is_empty()),
            png: base64::engine::general_purpose::STANDARD.encode(png),
        })
    };
    events.iter().filter_map(picture).collect()
}

fn logs(folder: &Path, below: &str) -> Vec<Log> {
    let Ok(entries) = std::fs::read_dir(folder.join(below)) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().filter_map(|name| log(folder, &format!("{below}/{name}"))).collect()
}

fn log(folder: &Path, name: &str) -> Option<Log> {
    let bytes = std::fs::read(folder.join(name)).ok()?;
    let cut = bytes.len() > LOG_LIMIT;
    // The end of a log is what tells how it ended.
    let from = bytes.len().saturating_sub(LOG_LIMIT);
    let text = String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned();
    Some(Log { name: name.into(), text, cut })
}

/// A moment to the minute.
fn minute(moment: &str) -> String {
    moment.chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// A time as a column of the trend.
fn seconds(ms: u64) -> String {
    format!("{:.1}", Duration::from_millis(ms).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = r#"{"v":1,"build":"CHAIN-20261121T040506Z-web","seq":0,"t-ms":0,"event":"build-started","profile":"web","target":"pve","product":"Proxmox VE 9.2","makes":"template tpl-web","evidence":"x","plan":"00"}
{"v":1,"build":"CHAIN-20261121T040506Z-web","seq":1,"t-ms":0,"event":"stage-started","stage":"create"}
{"v":1,"build":"CHAIN-20261121T040506Z-web","seq":2,"t-ms":500,"event":"stage-finished","stage":"create","took-ms":500,"result":"VM 9001 on pve"}
{"v":1,"build":"CHAIN-20261121T040506Z-web","seq":3,"t-ms":600,"event":"warning","message":"<script>alert(1)</script>","help":""}
{"v":1,"build":"CHAIN-20261121T040506Z-web","seq":4,"t-ms":700,"event":"something-new","more":1}
{"v":1,"build":"CHAIN-20261121T0405"#;

    #[test]
    fn a_report_of_a_build_that_was_killed_tells_how_far_it_came_and_escapes_what_it_shows() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("events.jsonl"), EVENTS).unwrap();
        std::fs::write(folder.path().join("build.log"), "a <b> & c\n").unwrap();
        let page = report(folder.path()).unwrap();
        for words in [
            "CHAIN-20261121T040506Z-web",
            "unfinished",
            "VM 9001 on pve",
            "&lt;script&gt;",
            "a &lt;b&gt; &amp; c",
        ] {
            assert!(page.contains(words), "`{words}` is not in:\n{page}");
        }
        for words in ["<script", "http://", "https://", "src=\"/"] {
            assert!(!page.contains(words), "`{words}` is in the page");
        }
    }

    #[test]
    fn what_is_no_evidence_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(report(folder.path()), Err(ReportError::NoEvents { .. })));
        std::fs::write(folder.path().join("events.jsonl"), "not json\n").unwrap();
        assert!(matches!(report(folder.path()), Err(ReportError::Empty { .. })));
    }
}
