//! The boot steps of a plan, from those of a profile.

use std::time::Duration;

use forge_machine::Capabilities;

use super::late::LateName;
use super::{BootStep, Outcome, Sight, Wanted};
use crate::config::Finding;
use crate::config::profile::{self, BootStep as ConfigStep, Profile};
use crate::config::template::{PlanName, Template};

/// The steps for a firmware and a way to deliver the seed. Of each sort one of a step's words must fit.
pub(crate) fn taken(steps: &[ConfigStep], firmware: &str, delivery: &str) -> Vec<ConfigStep> {
    let holds = |conditions: &[String]| {
        let (firmwares, deliveries): (Vec<&str>, Vec<&str>) =
            conditions.iter().map(String::as_str).partition(|word| matches!(*word, "bios" | "uefi"));
        (firmwares.is_empty() || firmwares.contains(&firmware))
            && (deliveries.is_empty() || deliveries.contains(&delivery))
    };
    steps
        .iter()
        .filter_map(|step| match step {
            ConfigStep::When { conditions, step } => holds(conditions).then(|| (**step).clone()),
            ConfigStep::Expect { outcomes, within } => {
                let mut outcomes = outcomes.clone();
                for outcome in &mut outcomes {
                    outcome.steps = taken(&outcome.steps, firmware, delivery);
                }
                Some(ConfigStep::Expect { outcomes, within: *within })
            }
            step => Some(step.clone()),
        })
        .collect()
}

/// The plan's steps, with what planning knows filled in.
pub(super) fn steps(steps: &[ConfigStep], known: &impl Fn(PlanName) -> String) -> Vec<BootStep> {
    steps.iter().map(|step| one(step, known)).collect()
}

/// What of the steps can't come true with this backend.
pub(super) fn findings(profile: &Profile, capabilities: &Capabilities) -> Vec<Finding> {
    if capabilities.serial {
        return Vec::new();
    }
    let message =
        format!("{} keeps no record of the serial port, so this would never be seen", capabilities.name);
    let waits = profile.boot_settings(".wait-for.serial");
    let help = "wait for what is on the screen: wait-for = \"login:\"";
    waits.map(|setting| super::make::located(profile, setting, message.as_str()).help(help)).collect()
}

fn one(step: &ConfigStep, known: &impl Fn(PlanName) -> String) -> BootStep {
    match step {
        ConfigStep::When { step, .. } => one(step, known),
        ConfigStep::WaitFor { sight, within, or_after, still_for } => BootStep::WaitFor {
            sight: seen(sight, known),
            within_ms: ms(*within),
            or_after: *or_after,
            still_ms: still_for.map(ms),
        },
        ConfigStep::Expect { outcomes, within } => BootStep::Expect {
            outcomes: outcomes
                .iter()
                .map(|outcome| Outcome {
                    sight: seen(&outcome.sight, known),
                    steps: self::steps(&outcome.steps, known),
                    again: outcome.again,
                    fail: outcome.fail.clone(),
                })
                .collect(),
            within_ms: ms(*within),
        },
        ConfigStep::Until { sight, press, every, within } => BootStep::Until {
            sight: seen(sight, known),
            press: press.to_late(known),
            every_ms: ms(*every),
            within_ms: ms(*within),
        },
        ConfigStep::WaitStill { quiet, within } => {
            BootStep::WaitStill { quiet_ms: ms(*quiet), within_ms: ms(*within) }
        }
        ConfigStep::Wait(time) => BootStep::Wait { ms: ms(*time) },
        ConfigStep::Keys(keys) => BootStep::Keys { keys: keys.to_late(known) },
        ConfigStep::Type { text, echo, enter, layout } => {
            BootStep::Type { text: text.to_late(known), echo: *echo, enter: *enter, layout: layout.clone() }
        }
    }
}

fn seen(sight: &profile::Sight, known: &impl Fn(PlanName) -> String) -> Sight {
    let wanted = match &sight.wanted {
        profile::Wanted::Text(text) => Wanted::Text(text.to_late(known)),
        profile::Wanted::Regex(expression) => Wanted::Regex(expression.clone()),
        profile::Wanted::Needle(needle) => Wanted::Needle(needle.clone()),
        profile::Wanted::Serial(expression) => Wanted::Serial(expression.clone()),
    };
    Sight { wanted, lines: sight.lines, columns: sight.columns }
}

/// Whether a step types the late value, in an outcome's steps too.
pub(crate) fn types(steps: &[ConfigStep], wanted: LateName) -> bool {
    let names = |text: &Template| text.to_late(|_| String::new()).names().any(|name| name == wanted);
    steps.iter().any(|step| match step {
        ConfigStep::Keys(text) | ConfigStep::Type { text, .. } => names(text),
        ConfigStep::Until { press, .. } => names(press),
        ConfigStep::Expect { outcomes, .. } => outcomes.iter().any(|outcome| types(&outcome.steps, wanted)),
        ConfigStep::When { step, .. } => types(std::slice::from_ref(&**step), wanted),
        ConfigStep::WaitFor { .. } | ConfigStep::WaitStill { .. } | ConfigStep::Wait(_) => false,
    })
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
