//! Everything forge says: the only module that prints.
//!
//! stdout is data, stderr is talk. Sinks render events: [`terminal`] on a terminal, [`lines`] elsewhere, [`json`]
//! for programs. [`failure`] prints errors: heading, causes, what was seen last, hints, where to look.

pub mod failure;
pub mod input;
pub mod json;
pub mod lines;
pub mod paint;
pub mod screen;
pub mod table;
pub mod terminal;
pub mod transfer;

use std::io::{IsTerminal as _, Write as _};

use crate::event::Sink;

/// How much forge says, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Progress that stays put, for a person at a terminal.
    Terminal,
    /// One line per event, for logs.
    Lines,
    /// One JSON object per event on stdout.
    Json,
    /// Only warnings, failures and the result.
    Quiet,
}

impl Style {
    /// Chooses the form for this process.
    #[must_use]
    pub fn choose(json: bool, quiet: bool) -> Self {
        match (json, quiet) {
            (true, _) => Self::Json,
            (false, true) => Self::Quiet,
            (false, false) if std::io::stderr().is_terminal() => Self::Terminal,
            (false, false) => Self::Lines,
        }
    }

    /// The sink that renders it.
    #[must_use]
    pub fn sink(self) -> Box<dyn Sink> {
        match self {
            Self::Terminal => Box::new(terminal::Terminal::new()),
            Self::Lines => Box::new(lines::Lines::new(std::io::stderr(), false)),
            Self::Quiet => Box::new(lines::Lines::new(std::io::stderr(), true)),
            Self::Json => Box::new(json::JsonLines::new(std::io::stdout())),
        }
    }
}

/// Honours `NO_COLOR`, `TERM=dumb` and a stderr that is no terminal. Called once, at the start.
pub fn settle_colours() {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    let plain = no_colour || dumb;
    if plain || !std::io::stderr().is_terminal() {
        console::set_colors_enabled_stderr(false);
    }
    if plain || !std::io::stdout().is_terminal() {
        console::set_colors_enabled(false);
    }
}

/// Prints data on stdout. A reader that went away (`| head`) is no error.
pub fn data(text: &str) {
    let mut out = std::io::stdout().lock();
    let _reader_is_gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints talk on stderr, with a line end.
pub fn say(text: &str) {
    let mut out = std::io::stderr().lock();
    let _reader_is_gone = writeln!(out, "{text}");
}
