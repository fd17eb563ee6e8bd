//! `[boot]`.

use std::time::Duration;

use forge_console::boot_command;

use super::Load;
use crate::config::place::Node;
use crate::config::profile::BootStep;
use crate::config::reader::Reader;
use crate::config::template::{Scope, Template};
use crate::plan::late::Part;

/// What a boot step can do.
const KINDS: [&str; 6] = ["wait-for", "wait-still", "wait", "keys", "type", "command"];
/// How long a step waits for the screen when it does not say.
const WITHIN: Duration = Duration::from_secs(300);

impl Load<'_> {
    pub(super) fn boot(&mut self, root: &mut Reader<'_>) -> Vec<BootStep> {
        let Some(mut reader) = root.table("boot", &mut self.findings) else { return Vec::new() };
        let mut steps: Vec<BootStep> =
            reader.time("boot-wait", &mut self.findings).map(BootStep::Wait).into_iter().collect();
        for step in reader.tables("steps", &mut self.findings) {
            steps.extend(self.boot_step(step));
        }
        reader.done(&mut self.findings);
        steps
    }

    fn boot_step(&mut self, mut step: Reader<'_>) -> Option<BootStep> {
        let given: Vec<&str> =
            step.entries().map(|(key, ..)| key).filter(|key| KINDS.contains(key)).collect();
        let setting = step.path().to_owned();
        let result = match given.as_slice() {
            [kind] => self.step_of(kind, &mut step),
            several => {
                let at = self.findings.len();
                // Asked for, so that only what is misspelt is told as unknown.
                for key in KINDS.into_iter().chain(["within", "or-after"]) {
                    step.any(key);
                }
                let place = step.place().clone();
                step.done(&mut self.findings);
                let (message, help) = if several.is_empty() {
                    (
                        "this boot step does nothing".to_owned(),
                        format!("give it one of: {}", KINDS.join(", ")),
                    )
                } else {
                    let message =
                        format!("a boot step does one thing, and this has {}", several.join(" and "));
                    (message, "write one step for each".to_owned())
                };
                // A misspelt key says it already.
                if self.findings.len() == at {
                    self.findings.push(crate::config::Finding::at(&place, setting, message).help(help));
                }
                return None;
            }
        };
        step.done(&mut self.findings);
        result
    }

    fn step_of(&mut self, kind: &str, step: &mut Reader<'_>) -> Option<BootStep> {
        match kind {
            "wait-for" => {
                let text = self.late(step, "wait-for");
                let or_after = step.time("or-after", &mut self.findings);
                let within = step.time("within", &mut self.findings);
                if or_after.is_some() && within.is_some() {
                    let finding = step.finding("within", "`within` and `or-after` exclude each other");
                    let help = "`within` fails when the time is over, `or-after` goes on with a warning";
                    self.findings.push(finding.help(help));
                }
                text.map(|text| BootStep::WaitFor {
                    text,
                    within: or_after.or(within).unwrap_or(WITHIN),
                    or_after: or_after.is_some(),
                })
            }
            "wait-still" => {
                let quiet = step.time("wait-still", &mut self.findings);
                let within = step.time("within", &mut self.findings).unwrap_or(WITHIN);
                quiet.map(|quiet| BootStep::WaitStill { quiet, within })
            }
            "wait" => step.time("wait", &mut self.findings).map(BootStep::Wait),
            "type" => self.late(step, "type").map(BootStep::Type),
            "keys" => self.keys(step, "keys"),
            _ => self.keys(step, "command"),
        }
    }

    fn late(&mut self, step: &mut Reader<'_>, key: &'static str) -> Option<Template> {
        let text = step.raw_text(key, &mut self.findings)?;
        if text.is_empty() {
            self.findings.push(step.finding(key, format!("`{}` is empty", step.name(key))));
            return None;
        }
        let place = step.place_of(key).clone();
        Some(self.templated(&text, Scope::Late, &step.name(key), &place))
    }

    /// Keys in the boot-command language; `command` also takes Packer's array of strings.
    fn keys(&mut self, step: &mut Reader<'_>, key: &'static str) -> Option<BootStep> {
        let template = match step.any(key).map(|spot| &spot.node) {
            Some(Node::List(_)) if key == "command" => {
                let text = step.texts(key, &mut self.findings)?.concat();
                let place = step.place_of(key).clone();
                self.templated(&text, Scope::Late, &step.name(key), &place)
            }
            _ => self.late(step, key)?,
        };
        // The values that are filled in later hold no tags; a letter stands for them.
        let sample: String = template
            .to_late(|_| "x".into())
            .parts()
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Late(_) => "x",
            })
            .collect();
        if let Err(mistakes) = boot_command::parse(&sample) {
            self.findings.extend(mistakes.iter().map(|mistake| step.finding(key, mistake.to_string())));
            return None;
        }
        Some(BootStep::Keys(template))
    }
}
