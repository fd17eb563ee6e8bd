//! Media on their way, outside of builds: a bar on a terminal, lines elsewhere, objects for programs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::lines::Steps;
use super::{Style, data, say};
use crate::event::Redactor;
use crate::event::view::Transfer;
use crate::media::Watch;

/// Shows what happens to media.
#[derive(Debug)]
pub struct Transfers {
    style: Style,
    redactor: Redactor,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bar: ProgressBar,
    doing: String,
    transfer: Option<Transfer>,
    steps: Steps,
}

impl Transfers {
    /// Shows it in a style, without secrets.
    #[must_use]
    pub fn new(style: Style, redactor: Redactor) -> Self {
        let bar = match style {
            Style::Terminal => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
                // The template is a constant of ours; a broken one would only lose the colours.
                if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {elapsed:>11}  {wide_msg}") {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(Duration::from_millis(100));
                bar
            }
            Style::Lines | Style::Json | Style::Quiet => ProgressBar::hidden(),
        };
        let state = State { bar, doing: String::new(), transfer: None, steps: Steps::default() };
        Self { style, redactor, began: Instant::now(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is over, or wrong: it stays to be read.
    pub fn tell(&self, words: &str) {
        let words = self.redactor.text(words);
        let state = self.state();
        match self.style {
            Style::Terminal => state.bar.suspend(|| say(&words)),
            Style::Lines | Style::Quiet => say(&words),
            Style::Json => {}
        }
    }

    /// An object for programs.
    pub fn object(&self, object: &serde_json::Value) {
        if self.style == Style::Json {
            data(&self.redactor.text(&format!("{object}\n")));
        }
    }

    /// Nothing comes any more.
    pub fn finish(&self) {
        self.state().bar.finish_and_clear();
    }
}

impl Watch for Transfers {
    fn doing(&self, what: &str) {
        let what = self.redactor.text(what);
        {
            let mut state = self.state();
            state.transfer = None;
            if state.doing == what {
                return;
            }
            state.doing.clone_from(&what);
            state.bar.set_message(what.clone());
        }
        match self.style {
            Style::Lines => say(&format!("  {what}")),
            Style::Json => self.object(&json!({ "event": "doing", "what": what })),
            Style::Terminal | Style::Quiet => {}
        }
    }

    fn progress(&self, name: &str, done: u64, total: Option<u64>) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut state = self.state();
        let transfer = Transfer::moved(state.transfer.as_ref(), name, done, total, now);
        let words = transfer.in_words();
        let due = state.steps.is_due("", &transfer, now);
        state.transfer = Some(transfer);
        state.bar.set_message(words.clone());
        drop(state);
        match self.style {
            Style::Lines if due => say(&format!("  {words}")),
            Style::Json => {
                self.object(&json!({ "event": "transferring", "name": name, "done": done, "total": total }));
            }
            _ => {}
        }
    }

    fn warn(&self, what: &str) {
        self.object(&json!({ "event": "warning", "message": what }));
        self.tell(&format!("warning: {what}"));
    }
}
