//! `forge doctor --guest`: a throw-away VM shows whether a guest gets an address, fetches its seed and lets forge in.
//!
//! It is the build of a profile up to the login, with the same stages and the same journal, and a seed without the
//! profile's own scripts. Whatever happens the VM is removed; what a dead process leaves is `forge gc`'s.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use forge_machine::Diagnosis;
use tokio_util::sync::CancellationToken;

use super::build::one;
use super::options::Global;
use super::prepare::{self, Prepared};
use super::{INCOMPLETE, INTERRUPTED, REFUSED};
use crate::engine::on_error::OnError;
use crate::event::{BuildView, Bus, Ending, Envelope, Event, Failure, Redactor, Sink, Stage, Verdict};
use crate::trial;
use crate::ui::Style;

/// What a throw-away VM has shown, and the exit code where that is another than that of the checks.
pub(super) struct Shown {
    /// The line of it.
    pub(super) found: Diagnosis,
    /// The exit code that it calls for.
    pub(super) code: u8,
}

/// What is heard of a guest on the way.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<Told>>);

#[derive(Clone, Debug, Default)]
struct Told {
    vm: String,
    guest: String,
    took_ms: u64,
    fetched: BTreeSet<String>,
}

impl Sink for Heard {
    fn take(&mut self, envelope: &Envelope, _view: &BuildView) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &envelope.event {
            Event::StageFinished { stage: Stage::Create, result, .. } => told.vm.clone_from(result),
            Event::StageFinished { stage: Stage::Connect, result, took_ms } => {
                told.guest.clone_from(result);
                told.took_ms = *took_ms;
            }
            Event::Fetched { path, status: 200, .. } => _ = told.fetched.insert(path.clone()),
            _ => {}
        }
    }
}

/// Makes the VM of a plan, waits for its guest, and removes it.
pub(super) async fn try_guest(
    global: &Global,
    output: &Path,
    prepared: Prepared,
    cancel: &CancellationToken,
    redactor: &Redactor,
) -> Shown {
    let check = format!("guest of {}", prepared.plan.profile);
    let delivery = prepared.plan.seed.delivery.name();
    let Prepared { plan, takes, hypervisor, moment, .. } = prepared;
    let plan = match trial::throwaway(plan, &moment) {
        Ok(plan) => plan,
        Err(why) => {
            return Shown { found: Diagnosis::warn(check, why, "`forge build` of it shows it"), code: 0 };
        }
    };
    let connector = match prepare::connector(&plan.access, redactor).await {
        Ok(connector) => connector,
        Err(finding) => {
            let help = finding.help.clone().unwrap_or_default();
            return Shown { found: Diagnosis::fail(check, finding.message, help), code: REFUSED };
        }
    };
    let heard = Heard::default();
    // The report is what goes to stdout, so the way of the guest is told in lines or not at all.
    let style = Style::choose(false, global.quiet || global.json);
    let bus = Bus::start(vec![style.sink(), Box::new(heard.clone())], redactor.clone());
    let prepared = Prepared { plan, takes, hypervisor, connector, moment };
    let ending = one(prepared, global, output, &bus, cancel, OnError::default()).await;
    bus.close();
    let told = heard.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match ending {
        Ok(ending) => judged(check, delivery, &told, &ending),
        Err(code) => {
            let help = "what kept it is told above";
            Shown { found: Diagnosis::fail(check, "the throw-away VM was not begun", help), code }
        }
    }
}

fn judged(check: String, delivery: &str, told: &Told, ending: &Ending) -> Shown {
    let left = match ending {
        Ending::Tested { left_behind, .. } | Ending::Failed { left_behind, .. } => left_behind.join("; "),
        _ => String::new(),
    };
    if !left.is_empty() {
        let words = format!("{} could not be removed: {left}", told.vm);
        return Shown { found: Diagnosis::fail(check, words, "`forge gc` removes it"), code: INCOMPLETE };
    }
    match ending.failure() {
        None => {
            let seed = match told.fetched.is_empty() {
                true => format!("read its seed ({delivery})"),
                false => format!(
                    "fetched its seed ({})",
                    told.fetched.iter().cloned().collect::<Vec<_>>().join(", ")
                ),
            };
            let agent = match ending {
                Ending::Tested { checks, .. } => checks.iter().find(|each| each.name == trial::AGENT),
                _ => None,
            };
            let runs = agent.is_none_or(|agent| agent.verdict != Verdict::Failed);
            let agent = match agent {
                Some(_) if runs => "; its guest agent runs",
                Some(_) => "; no guest agent runs in it",
                None => "",
            };
            let words = format!(
                "{} {seed} and let forge in as {} after {}{agent}; it is removed",
                told.vm,
                told.guest,
                crate::event::phrase::time(told.took_ms)
            );
            let found = match runs {
                true => Diagnosis::pass(check, words),
                false => Diagnosis::warn(
                    check,
                    words,
                    "install qemu-guest-agent in the boot VM: it tells the guest's addresses, and shuts the guest down",
                ),
            };
            Shown { found, code: 0 }
        }
        Some(failure) => {
            let code = if failure.interrupted { INTERRUPTED } else { REFUSED };
            Shown { found: Diagnosis::fail(check, in_words(failure), failure.hints.join("; ")), code }
        }
    }
}

fn in_words(failure: &Failure) -> String {
    let stage = failure.stage.map(|stage| format!("{stage}: ")).unwrap_or_default();
    let causes: String = failure.causes.iter().map(|cause| format!(": {cause}")).collect();
    let seen = match failure.last_seen.as_slice() {
        [] => String::new(),
        seen => format!("; last seen: {}", seen.join("; ")),
    };
    format!("{stage}{}{causes}{seen}", failure.heading)
}

#[cfg(test)]
mod tests {
    use forge_machine::Health;

    use super::*;

    #[test]
    fn a_guest_that_came_is_told_with_its_address_and_one_that_did_not_with_what_was_seen() {
        let told = Told {
            vm: "VM 9001 on pve".into(),
            guest: "forge@192.0.2.7".into(),
            took_ms: 12_300,
            fetched: ["meta-data".to_owned(), "user-data".to_owned()].into(),
        };
        let done = |left: &[&str]| Ending::Tested {
            checks: Vec::new(),
            left_behind: left.iter().map(|each| (*each).to_owned()).collect(),
        };
        let shown = judged("guest of web".into(), "smbios", &told, &done(&[]));
        assert_eq!((shown.code, shown.found.health), (0, Health::Pass));
        assert_eq!(
            shown.found.found,
            "VM 9001 on pve fetched its seed (meta-data, user-data) and let forge in as forge@192.0.2.7 after 12.3 s; it is removed"
        );
        let shown = judged("guest of web".into(), "smbios", &told, &done(&["VM 9001 on pve: locked"]));
        assert_eq!((shown.code, shown.found.health), (INCOMPLETE, Health::Fail));
        let failed = |interrupted| Ending::Failed {
            failure: Failure {
                stage: Some(Stage::Connect),
                heading: "the guest did not let the build in".into(),
                causes: vec!["no address".into()],
                last_seen: vec!["no seed file was fetched".into()],
                hints: vec!["can it reach 192.0.2.1?".into()],
                interrupted,
                of_target: false,
            },
            left_behind: Vec::new(),
        };
        let shown = judged("guest of web".into(), "smbios", &told, &failed(false));
        assert_eq!((shown.code, shown.found.help.as_str()), (REFUSED, "can it reach 192.0.2.1?"));
        assert_eq!(
            shown.found.found,
            "connect: the guest did not let the build in: no address; last seen: no seed file was fetched"
        );
        assert_eq!(judged("x".into(), "smbios", &told, &failed(true)).code, INTERRUPTED);
    }
}
