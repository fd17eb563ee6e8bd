//! Runs the checks of a trial: all of them, whatever the others say.

use std::time::{Duration, Instant};

use super::Connected;
use super::provision::{Tell, environment, slug};
use crate::engine::error::chain;
use crate::engine::{Cx, Effect, StageError};
use crate::event::{CheckResult, Event, Stage, Verdict};
use crate::plan::late::LateName;
use crate::provision::{Action, Around, Step, perform};
use crate::trial::baseline::{self, Baseline};
use crate::trial::inventory::{FILE, Inventory};
use crate::trial::{INVENTORY, INVENTORY_FILE, SKIPPED};
use forge_machine::{Command, ExecOutcome};

/// Runs the checks and gives what came of each.
///
/// # Errors
/// Only an interruption: a check that fails, or the guest that is lost under it, is a result.
pub async fn check(cx: &mut Cx, connected: &Connected) -> Result<Vec<CheckResult>, StageError> {
    let plan = cx.plan.clone();
    let mut env = environment(cx);
    env.insert("FORGE_HOSTNAME".into(), plan.seed.hostname.clone().unwrap_or_default());
    let key = cx.bindings.get(LateName::AccessPublicKey).unwrap_or_default();
    env.insert("FORGE_PUBLIC_KEY".into(), key.split_whitespace().nth(1).unwrap_or_default().to_owned());
    let size = plan.machine.disks.first().and_then(|disk| disk.size);
    env.insert("FORGE_DISK_SIZE".into(), size.map_or_else(String::new, |size| size.to_string()));
    let of = plan.provision.len();
    let results = cx
        .cancellable_effect(Effect::Provision, async {
            let mut results = Vec::new();
            for (index, step) in plan.provision.iter().enumerate() {
                let number = index + 1;
                let name = step.name.clone();
                cx.events.emit(Event::ProvisionerStarted { number, of, name, on_error: false });
                let result = one(cx, connected, step, number, &env).await;
                cx.events.emit(Event::ProvisionerFinished {
                    name: step.name.clone(),
                    exit: i32::from(result.verdict == Verdict::Failed),
                    took_ms: result.took_ms,
                });
                let taken = step.name == INVENTORY && result.verdict == Verdict::Passed;
                results.push(result);
                if taken {
                    results.extend(inventory(cx, connected).await);
                }
            }
            Ok(results)
        })
        .await?;
    if results.iter().any(|result| result.verdict == Verdict::Failed) {
        connected.watch.picture(cx, &format!("{} failed", Stage::Provision));
    }
    Ok(results)
}

/// How long it may take to bring an inventory here.
const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// Brings what the check `inventory` wrote down in the clone to the evidence, and compares it with the baseline.
async fn inventory(cx: &Cx, connected: &Connected) -> Option<CheckResult> {
    let began = Instant::now();
    let mut output = Vec::new();
    let command = Command { timeout: Some(FETCH_LIMIT), ..Command::new(format!("cat {INVENTORY_FILE}")) };
    let fetched = connected.guest.exec(&command, &mut output);
    let failed = match cx.alive(connected.machine.as_ref(), fetched).await {
        Ok(ExecOutcome::Exited(0)) => None,
        Ok(outcome) => Some(format!("the inventory could not be fetched: {outcome:?}")),
        Err(error) => Some(format!("the inventory could not be fetched: {}", chain(&error))),
    };
    if let Some(detail) = failed {
        cx.warn(&detail, "");
        let plan = cx.plan.clone();
        // What can't be compared is not shown to be right.
        plan.baseline.as_ref()?.inventory.as_ref()?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        return Some(CheckResult { name: baseline::CHECK.into(), verdict: Verdict::Failed, detail, took_ms });
    }
    let found = Inventory::read(&String::from_utf8_lossy(&output));
    let json = serde_json::to_string_pretty(&found).unwrap_or_default();
    if let Err(error) = cx.evidence.write_text(FILE, &format!("{json}\n")) {
        cx.warn(chain(&error), "");
    }
    let plan = cx.plan.clone();
    let Baseline { file, inventory } = plan.baseline.as_ref()?;
    let (verdict, detail) = match inventory {
        None => {
            (Verdict::Skipped, format!("no baseline to compare with: --accept writes {}", file.display()))
        }
        Some(inventory) => match baseline::drift(inventory, &found).as_slice() {
            [] => (Verdict::Passed, format!("as in {}", file.display())),
            drift => (Verdict::Failed, baseline::in_words(drift)),
        },
    };
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Some(CheckResult { name: baseline::CHECK.into(), verdict, detail, took_ms })
}

async fn one(
    cx: &Cx,
    connected: &Connected,
    step: &Step,
    number: usize,
    env: &std::collections::BTreeMap<String, String>,
) -> CheckResult {
    let began = Instant::now();
    let file = format!("checks/{number:02}-{}.log", slug(&step.name));
    let mut tell = Tell::open(cx, step, &file);
    let around = Around { guest: connected.guest.as_ref(), env, key_file: None, interactive: false };
    let outcome = cx.alive(connected.machine.as_ref(), perform(&around, step, &mut tell)).await;
    let reboots = matches!(&step.action, Action::Shell(shell) if shell.expect_disconnect);
    let said = tell.close(cx);
    let (verdict, detail) = match outcome {
        Ok(outcome) if outcome.exit == SKIPPED => (Verdict::Skipped, said),
        Ok(outcome) if reboots && !outcome.rebooted => {
            (Verdict::Failed, "the guest did not start anew".into())
        }
        Ok(outcome) if outcome.rebooted => (Verdict::Passed, "it is back".into()),
        Ok(_) => (Verdict::Passed, said),
        // What the check said is worth more than the status it ended with.
        Err(_) if !said.is_empty() => (Verdict::Failed, said),
        Err(error) => (Verdict::Failed, chain(&error).lines().next().unwrap_or_default().to_owned()),
    };
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    CheckResult { name: step.name.clone(), verdict, detail, took_ms }
}
