//! What is allowed in boot steps and hardly meant: steps that can't come true, waits that nobody would wait, an address
//! that is nobody's.

use std::time::Duration;

use forge_console::BootAction;

use super::Load;
use crate::config::profile::{BootStep, DeadlineConfig, Outcome, Sight, Wanted};
use crate::config::reader::Reader;
use crate::config::template::Template;
use crate::plan::late::Part;

/// A wait for a time that is longer than this could as well look at the screen.
const BLIND: Duration = Duration::from_secs(60);
/// No text screen is wider: 3840 pixels in cells of six.
const WIDEST: usize = 640;

impl Load<'_> {
    /// Tells what is odd with a step that is otherwise sound.
    pub(super) fn lint_step(&mut self, reader: &Reader<'_>, kind: &str, step: &BootStep) {
        match step {
            BootStep::WaitFor { sight, within, still_for, .. } => {
                self.lint_sight(reader, kind, sight);
                if let Some(quiet) = still_for {
                    self.lint_still(reader, "still-for", *quiet, *within);
                }
            }
            BootStep::WaitStill { quiet, within } => self.lint_still(reader, kind, *quiet, *within),
            BootStep::Until { sight, every, within, .. } => {
                self.lint_sight(reader, kind, sight);
                if every >= within {
                    let message = format!("`every` is not shorter than `within` ({} s)", within.as_secs());
                    let finding = reader.finding("every", message).warning();
                    self.findings.push(finding.help("the keys are pressed only once"));
                }
            }
            BootStep::Expect { outcomes, .. } => self.lint_outcomes(reader, outcomes),
            BootStep::When { step, .. } => self.lint_step(reader, kind, step),
            BootStep::Wait(time) => self.lint_wait(reader, kind, *time),
            BootStep::Type { text, .. } => self.lint_address(reader, kind, text),
            BootStep::Keys(text) => self.lint_address(reader, kind, text),
        }
    }

    /// What is odd with keys that were parsed.
    pub(super) fn lint_keys(&mut self, reader: &Reader<'_>, key: &str, actions: &[BootAction]) {
        let mut held = Vec::new();
        for action in actions {
            match action {
                BootAction::Hold(stroke) => held.push(stroke.scancode),
                BootAction::Release(stroke) if !held.contains(&stroke.scancode) => {
                    let finding = reader.finding(key, "this lets a key go that it did not hold").warning();
                    self.findings.push(finding.help("write <leftCtrlOn>x<leftCtrlOff>, in this order"));
                }
                BootAction::Release(stroke) => held.retain(|held| *held != stroke.scancode),
                BootAction::Wait(time) => self.lint_wait(reader, key, *time),
                _ => {}
            }
        }
    }

    /// Fixed waits that alone take longer than the whole build may.
    pub(super) fn lint_time(&mut self, root: &Reader<'_>, steps: &[BootStep], deadlines: &DeadlineConfig) {
        let fixed = |step: &BootStep| match step {
            BootStep::Wait(time) => *time,
            _ => Duration::ZERO,
        };
        let waits: Duration = steps.iter().map(fixed).sum();
        if let Some(build) = deadlines.build.filter(|build| waits >= *build) {
            let message = format!(
                "the boot steps wait for {} s, and the whole build may take {} s",
                waits.as_secs(),
                build.as_secs()
            );
            let finding = root.finding("boot", message);
            self.findings.push(finding.help("wait for a text instead, or raise `deadlines.build`"));
        }
    }

    fn lint_sight(&mut self, reader: &Reader<'_>, key: &str, sight: &Sight) {
        let Wanted::Text(text) = &sight.wanted else { return };
        let text = known(text);
        let problem = if text.contains('\n') {
            "this text has several lines, and a screen is looked at line by line"
        } else if text.chars().any(char::is_control) {
            "this text has a control character, and no screen shows one"
        } else if text.chars().count() > WIDEST {
            "this text is longer than any line of a screen"
        } else {
            return;
        };
        let finding = reader.finding(key, problem);
        self.findings.push(finding.help("wait for a part of it that stands on one line"));
    }

    fn lint_still(&mut self, reader: &Reader<'_>, key: &str, quiet: Duration, within: Duration) {
        if quiet < within {
            return;
        }
        let message = format!(
            "the screen can't be still for {} s within {} s",
            quiet.as_secs_f32(),
            within.as_secs_f32()
        );
        self.findings.push(reader.finding(key, message).help("raise `within`, or wait for less"));
    }

    fn lint_wait(&mut self, reader: &Reader<'_>, key: &str, time: Duration) {
        if time <= BLIND {
            return;
        }
        let message = format!("this waits for {} s, whatever the screen shows", time.as_secs());
        let finding = reader.finding(key, message).warning();
        self.findings.push(finding.help("`wait-for` goes on as soon as a text is there"));
    }

    /// An outcome that an earlier one hides.
    fn lint_outcomes(&mut self, reader: &Reader<'_>, outcomes: &[Outcome]) {
        let text = |outcome: &Outcome| match &outcome.sight {
            Sight { wanted: Wanted::Text(text), lines: None, columns: None } => Some(known(text)),
            _ => None,
        };
        for (number, outcome) in outcomes.iter().enumerate() {
            let Wanted::Text(wanted) = &outcome.sight.wanted else { continue };
            let wanted = known(wanted);
            let earlier = outcomes.iter().take(number).filter_map(text);
            let Some(hiding) = earlier.into_iter().find(|earlier| wanted.contains(earlier.as_str())) else {
                continue;
            };
            let message = format!("{wanted:?} is never chosen: where it stands, {hiding:?} is found first");
            let finding = reader.finding("expect", message).warning();
            self.findings.push(finding.help("put the longer text first"));
        }
    }

    /// A seed's address that is written out: nobody serves there what forge serves.
    fn lint_address(&mut self, reader: &Reader<'_>, key: &str, text: &Template) {
        const WORDS: [&str; 4] = ["ds=nocloud", "inst.ks=", " ks=", "url="];
        let late = text.to_late(|_| String::new());
        let seeded = late.names().any(|name| name.as_str().starts_with("seed."));
        let typed = known(text);
        let asks = WORDS.iter().any(|word| typed.contains(word));
        if seeded || !asks || !["http://", "https://"].iter().any(|scheme| typed.contains(scheme)) {
            return;
        }
        let finding = reader.finding(key, "this types an address that forge does not serve").warning();
        self.findings.push(finding.help("`{{ seed.url }}` is where the seed of this build is"));
    }
}

/// The parts of a text that are known now.
fn known(text: &Template) -> String {
    let late = text.to_late(|_| String::new());
    let parts = late.parts().iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        Part::Late(_) => None,
    });
    parts.collect()
}
