//! Events as phrases, shared by everything that people read. Pure: colours are the business of `ui`.

use forge_machine::Artefact;

use super::{CheckResult, Ending, Envelope, Event, Verdict};

/// What a phrase is about, which decides its colour and whether `--quiet` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Progress.
    Plain,
    /// A side note.
    Faint,
    /// Something went well.
    Good,
    /// Something is not right.
    Warn,
    /// Something failed.
    Bad,
}

/// A time in milliseconds for people: `0.3 s`, `12.3 s`, `4 min 05 s`.
#[must_use]
pub fn time(ms: u64) -> String {
    if ms < 60_000 {
        format!("{}.{} s", ms / 1000, ms % 1000 / 100)
    } else {
        format!("{} min {:02} s", ms / 60_000, ms % 60_000 / 1000)
    }
}

/// What came of a trial, in words.
fn tested(checks: &[CheckResult], left_behind: &[String], took: &str) -> String {
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (passed, failed, skipped) = (count(Verdict::Passed), count(Verdict::Failed), count(Verdict::Skipped));
    let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
    let left = if left_behind.is_empty() {
        "the clone is removed".to_owned()
    } else {
        format!("left behind: {}; `forge gc` tries again", left_behind.join("; "))
    };
    format!("{passed} checks passed, {failed} failed{skipped} in {took}; {left}")
}

/// What was made, in words.
#[must_use]
pub fn artefact(artefact: &Artefact) -> String {
    match artefact {
        Artefact::Template { vm, name } => format!("template {name} is {vm}"),
        Artefact::Files { files } => {
            let names: Vec<String> = files
                .iter()
                .map(|(path, _, bytes)| format!("{} ({} MiB)", path.display(), bytes >> 20))
                .collect();
            format!("wrote {}", names.join(", "))
        }
    }
}

/// An event as a phrase: its tone, a mark and the words. `None` for what people need not read.
#[must_use]
pub fn phrase(envelope: &Envelope) -> Option<(Tone, &'static str, String)> {
    Some(match &envelope.event {
        Event::BuildStarted { profile, target, product, makes, .. } => {
            (Tone::Plain, "=", format!("{profile} on {target} ({product}): {makes}, {}", envelope.build))
        }
        Event::Doing { stage, what } => (Tone::Plain, " ", format!("{stage}: {what}")),
        Event::Waiting { stage, what, seen, limit_ms } => {
            let limit =
                if *limit_ms == 0 { String::new() } else { format!(" (at most {})", time(*limit_ms)) };
            let seen = if seen.is_empty() { String::new() } else { format!(": {seen}") };
            (Tone::Plain, " ", format!("{stage}: waiting for {what}{limit}{seen}"))
        }
        Event::Fetched { path, status, peer, .. } => {
            let tone = if *status < 400 { Tone::Faint } else { Tone::Warn };
            (tone, " ", format!("seed: {peer} fetched {path} ({status})"))
        }
        Event::ProvisionerStarted { number, of, name, on_error } => {
            let after = if *on_error { "after the failure, " } else { "" };
            (Tone::Plain, " ", format!("provision: {after}{number} of {of}: {name}"))
        }
        Event::Output { line, .. } => (Tone::Faint, "|", line.clone()),
        Event::ProvisionerFinished { name, took_ms, .. } => {
            (Tone::Plain, " ", format!("provision: {name} done in {}", time(*took_ms)))
        }
        Event::Sealed { operation, result } => (Tone::Faint, " ", format!("seal: {operation}: {result}")),
        Event::Warning { message, help } => {
            let help = if help.is_empty() { String::new() } else { format!("\n    help: {help}") };
            (Tone::Warn, "!", format!("{message}{help}"))
        }
        Event::StageFinished { stage, took_ms, result } => {
            (Tone::Good, "\u{2713}", format!("{:<10}{:>12}  {result}", stage.name(), time(*took_ms)))
        }
        Event::StageFailed { failure, took_ms } => {
            let stage = failure.stage.map_or("build", |stage| stage.name());
            (Tone::Bad, "\u{2717}", format!("{stage:<10}{:>12}  {}", time(*took_ms), failure.heading))
        }
        Event::Interrupted {} => {
            (Tone::Warn, "!", "interrupted: cleaning up (a second Ctrl-C stops waiting for that)".into())
        }
        Event::Undoing { what } => (Tone::Plain, " ", format!("clean-up: {what}")),
        Event::Undone { what, ok: true, detail } => (Tone::Plain, " ", format!("clean-up: {what}: {detail}")),
        Event::Undone { what, ok: false, detail } => {
            (Tone::Bad, "!", format!("clean-up: {what} failed: {detail}"))
        }
        Event::BuildFinished { ending, took_ms, evidence } => {
            let took = time(*took_ms);
            let words = match ending {
                Ending::Done { artefact: made } => format!("{} in {took}", artefact(made)),
                Ending::DoneWithFailure { artefact: Some(made), .. } => {
                    format!("{} in {took}, and something after it failed", artefact(made))
                }
                Ending::DoneWithFailure { artefact: None, .. } => {
                    format!("the artefact was probably made, but its answer was lost ({took})")
                }
                Ending::Kept { vm, .. } => {
                    format!("failed after {took}; {vm} is kept: `forge finish {}`", vm.id)
                }
                Ending::Left { vm, .. } => {
                    format!("failed after {took}; {vm} is left as it is: `forge gc --left` removes it")
                }
                Ending::Tested { checks, left_behind } => tested(checks, left_behind, &took),
                Ending::Failed { left_behind, .. } if left_behind.is_empty() => {
                    format!("failed after {took}; nothing is left on the target")
                }
                Ending::Failed { left_behind, .. } => {
                    format!(
                        "failed after {took}; left behind: {}; `forge gc` tries again",
                        left_behind.join("; ")
                    )
                }
            };
            let tone = if ending.exit_code() == 0 { Tone::Good } else { Tone::Bad };
            (tone, "=", format!("{words}\n    evidence: {}", evidence.display()))
        }
        // A line for each would be hundreds: sinks show as many as their readers can take.
        Event::Transferring { .. }
        | Event::StageStarted { .. }
        | Event::Bound { .. }
        | Event::Screen { .. }
        | Event::Entered { .. }
        | Event::Unknown => return None,
    })
}
