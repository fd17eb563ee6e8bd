//! Progress that stays put: finished stages scroll up, and one line per build says what is going on.
//!
//! The line is a function of [`BuildView`] and the clock, so its words are tested without a terminal.

use std::collections::BTreeMap;
use std::time::Duration;

use forge_machine::ChainId;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::paint::paint;
use super::{failure, screen};
use crate::event::phrase::{phrase, time};
use crate::event::{BuildView, Envelope, Event, Region, ScreenShot, Sink};

/// Draws on stderr.
#[derive(Debug)]
pub struct Terminal {
    lines: MultiProgress,
    builds: BTreeMap<ChainId, ProgressBar>,
    several: bool,
    screen: Option<Showing>,
}

/// The screen of a guest, below the lines of the builds.
#[derive(Debug)]
struct Showing {
    build: ChainId,
    bar: ProgressBar,
}

impl Terminal {
    /// Draws on stderr, at most ten times a second.
    #[must_use]
    pub fn new() -> Self {
        let lines = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        Self { lines, builds: BTreeMap::new(), several: false, screen: None }
    }

    fn bar(&mut self, build: &ChainId) -> ProgressBar {
        self.several |= !self.builds.is_empty() && !self.builds.contains_key(build);
        let lines = &self.lines;
        self.builds
            .entry(build.clone())
            .or_insert_with(|| {
                let bar = lines.add(ProgressBar::new_spinner());
                // The template is a constant of ours; a broken one would only lose the colours.
                if let Ok(style) =
                    ProgressStyle::with_template("{spinner:.cyan} {prefix:10} {elapsed:>11}  {wide_msg}")
                {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(Duration::from_millis(100));
                bar
            })
            .clone()
    }
}

impl Terminal {
    /// The lines under the builds' own that show a screen, as drawn by indicatif, so that neither overwrites the other. Of
    /// several builds the first one's is shown until it ends; `None` for the others.
    fn screen_bar(&mut self, build: &ChainId) -> Option<ProgressBar> {
        let lines = &self.lines;
        let showing = self.screen.get_or_insert_with(|| {
            let bar = lines.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            Showing { build: build.clone(), bar }
        });
        (showing.build == *build).then(|| showing.bar.clone())
    }

    fn hide_screen(&mut self) {
        if let Some(Showing { bar, .. }) = self.screen.take() {
            bar.finish_and_clear();
            self.lines.remove(&bar);
        }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Sink for Terminal {
    fn take(&mut self, envelope: &Envelope, view: &BuildView) {
        let bar = self.bar(&envelope.build);
        let scrolls = match &envelope.event {
            // What is going on is on the line that stays put.
            Event::Doing { .. } | Event::Waiting { .. } | Event::Fetched { status: ..400, .. } => None,
            Event::ProvisionerStarted { .. } | Event::Undoing { .. } => None,
            // Tidying up after a success is no news.
            Event::Undone { ok: true, .. } if view.region == Region::Committed => None,
            _ => phrase(envelope),
        };
        if let Some((tone, mark, words)) = scrolls {
            let name = if self.several { format!("{} ", view.profile) } else { String::new() };
            // A closed terminal is no reason to stop a build.
            let _terminal_is_gone = self.lines.println(paint(tone, &format!("{mark} {name}{words}")));
        }
        if let Event::BuildFinished { ending, .. } = &envelope.event {
            bar.finish_and_clear();
            self.lines.remove(&bar);
            if self.screen.as_ref().is_some_and(|showing| showing.build == envelope.build) {
                self.hide_screen();
            }
            if let Some(failed) = ending.failure() {
                let _terminal_is_gone = self.lines.println(failure::render(failed).trim_end());
            }
        } else {
            if matches!(envelope.event, Event::StageStarted { .. }) {
                bar.reset_elapsed();
            }
            let (prefix, words) = line(view);
            bar.set_prefix(if self.several { format!("{} {prefix}", view.profile) } else { prefix });
            bar.set_message(words);
        }
    }

    fn screen(&mut self, build: &ChainId, shot: &ScreenShot) {
        // Told after the end of its build, by a frame that was on its way: its line is gone.
        if self.builds.get(build).is_none_or(ProgressBar::is_finished) {
            return;
        }
        let Some(bar) = self.screen_bar(build) else { return };
        let term = console::Term::stderr();
        let (height, width) = term.size();
        let reserved = self.builds.len() + 2;
        let size = (usize::from(width).saturating_sub(1), usize::from(height).saturating_sub(reserved));
        let lines = screen::lines(&shot.shot, shot.picture.as_ref(), size, screen::Ink::of(&term));
        bar.set_message(lines.join("\n"));
    }

    fn finish(&mut self) {
        self.hide_screen();
        for bar in self.builds.values() {
            bar.finish_and_clear();
        }
        // Leaves the cursor on a line of its own.
        let _terminal_is_gone = self.lines.clear();
    }
}

/// What is going on: the stage, and its words.
#[must_use]
pub fn line(view: &BuildView) -> (String, String) {
    if let Some(undoing) = &view.undoing {
        return ("clean-up".into(), undoing.clone());
    }
    let Some(stage) = view.running() else { return (String::new(), view.profile.clone()) };
    if let Some(transfer) = &view.transfer {
        return (stage.name().into(), transfer.in_words());
    }
    let mut words = match (&view.wait, &view.provisioner) {
        (Some(wait), _) => {
            // A narrow terminal cuts the end off: what is seen comes first.
            let limit = if wait.limit_ms == 0 {
                String::new()
            } else {
                format!(" (at most {})", time(wait.limit_ms))
            };
            let seen = if wait.seen.is_empty() { String::new() } else { format!(": {}", wait.seen) };
            format!("waiting for {}{seen}{limit}", wait.what)
        }
        (None, Some((number, of, name))) => format!("{number} of {of}: {name}"),
        (None, None) => view.doing.clone(),
    };
    if !view.output.is_empty() && view.provisioner.is_some() {
        words = format!("{words} | {}", view.output);
    }
    (stage.name().into(), words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stage;
    use crate::event::view::{StageStatus, Wait};

    #[test]
    fn what_is_seen_comes_before_the_limit_which_a_narrow_terminal_may_cut_off() {
        let mut view = BuildView::new(ChainId::new("CHAIN-20261121T040506Z-web"));
        assert_eq!(line(&view), (String::new(), String::new()));
        if let Some(entry) = view.stages.iter_mut().find(|(stage, _)| *stage == Stage::Connect) {
            entry.1 = StageStatus::Running { since_ms: 0 };
        }
        view.wait =
            Some(Wait { what: "SSH".into(), seen: "no address".into(), limit_ms: 1_800_000, since_ms: 0 });
        let words = "waiting for SSH: no address (at most 30 min 00 s)";
        assert_eq!(line(&view), ("connect".to_owned(), words.to_owned()));
    }
}
