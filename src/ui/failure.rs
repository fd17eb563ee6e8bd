//! The one printer of failures: heading, causes, what was seen last, what to do.

use std::fmt::Write as _;

use super::paint::paint;
use crate::event::Failure;
use crate::event::phrase::Tone;

/// A failure as text for stderr, ending in a line end.
#[must_use]
pub fn render(failure: &Failure) -> String {
    let mut out = String::new();
    let stage = failure.stage.map(|stage| format!(" in stage {stage}")).unwrap_or_default();
    let _infallible = writeln!(out, "{}{stage}: {}", paint(Tone::Bad, "error"), failure.heading);
    for cause in &failure.causes {
        let _infallible = writeln!(out, "  because: {}", indented(cause));
    }
    for seen in &failure.last_seen {
        let _infallible = writeln!(out, "  last seen: {}", indented(seen));
    }
    for hint in &failure.hints {
        let _infallible = writeln!(out, "  {} {}", paint(Tone::Good, "help:"), indented(hint));
    }
    out
}

/// An error that is no build's failure, with its causes and hints.
#[must_use]
pub fn render_error(error: &dyn std::error::Error, hints: &[String]) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    render(&Failure {
        stage: None,
        heading: error.to_string(),
        causes,
        last_seen: Vec::new(),
        hints: hints.to_vec(),
        interrupted: false,
        of_target: false,
    })
}

fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}
