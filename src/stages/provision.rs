//! Runs the provisioners. When all of them succeeded, the keep point is reached.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Connected, Provisioned};
use crate::engine::{Cx, Effect, StageError};
use crate::event::{Event, Events, Stage};
use crate::plan::late::LateName;
use crate::provision::{OutputObserver, run};

/// Tells output lines as events and keeps them in a file per step.
pub(super) struct Tell {
    pub(super) step: String,
    pub(super) events: Events,
    pub(super) log: String,
}

impl OutputObserver for Tell {
    fn line(&mut self, line: &str, stderr: bool) {
        self.log.push_str(line);
        self.log.push('\n');
        self.events.emit(Event::Output { step: self.step.clone(), line: line.to_owned(), stderr });
    }
}

/// Runs all provisioners, one after the other.
///
/// # Errors
/// When one of them fails, with its last lines.
pub async fn provision(cx: &mut Cx, connected: Connected) -> Result<Provisioned, StageError> {
    let plan = cx.plan.clone();
    let env = environment(cx);
    let of = plan.provision.len();
    let result = cx
        .cancellable_effect(Effect::Provision, async {
            for (index, step) in plan.provision.iter().enumerate() {
                let number = index + 1;
                cx.events.emit(Event::ProvisionerStarted { number, of, name: step.name.clone() });
                let began = Instant::now();
                let mut tell =
                    Tell { step: step.name.clone(), events: cx.events.clone(), log: String::new() };
                let running = run(connected.guest.as_ref(), step, &env, &mut tell);
                let outcome = cx.alive(connected.machine.as_ref(), running).await;
                let file = format!("provision/{number:02}-{}.log", slug(&step.name));
                if let Err(error) = cx.evidence.write_text(&file, &tell.log) {
                    cx.warn(crate::engine::error::chain(&error), "");
                }
                let outcome = outcome.map_err(|error| {
                    let hint = error.hint();
                    let failed = StageError::caused(
                        format!("provisioner {number} of {of} (`{}`) failed", step.name),
                        error,
                    );
                    let failed = if hint.is_empty() { failed } else { failed.hint(hint) };
                    failed.hint(format!("its whole output is in {file} of the evidence"))
                })?;
                let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                cx.events.emit(Event::ProvisionerFinished {
                    name: step.name.clone(),
                    exit: outcome.exit,
                    took_ms,
                });
            }
            Ok(())
        })
        .await;
    match result {
        Ok(()) => Ok(Provisioned(connected)),
        Err(error) => {
            connected.watch.picture(cx, &format!("{} failed", Stage::Provision));
            Err(error)
        }
    }
}

/// The variables that every provisioner gets: forge's names, and Packer's for scripts that come from there.
pub(super) fn environment(cx: &Cx) -> BTreeMap<String, String> {
    let plan = &cx.plan;
    let late = |name| cx.bindings.get(name).unwrap_or_default().to_owned();
    let (address, port) = (late(LateName::SeedAddress), late(LateName::SeedPort));
    let http = if address.is_empty() { String::new() } else { format!("{address}:{port}") };
    [
        ("FORGE_CHAIN_ID", plan.chain_id.to_string()),
        ("FORGE_PROFILE", plan.profile.clone()),
        ("FORGE_TARGET", plan.target.clone()),
        ("FORGE_TEMPLATE", plan.artefact_name().to_owned()),
        ("FORGE_VM_ID", late(LateName::VmId)),
        ("FORGE_VM_NODE", late(LateName::VmNode)),
        ("FORGE_USER", plan.access.user.clone()),
        ("PACKER_BUILD_NAME", plan.profile.clone()),
        ("PACKER_BUILDER_TYPE", plan.builder_type().to_owned()),
        ("PACKER_HTTP_ADDR", http),
        ("PACKER_HTTP_IP", address),
        ("PACKER_HTTP_PORT", port),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

pub(super) fn slug(name: &str) -> String {
    let text: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(40)
        .collect();
    text.trim_matches('-').to_owned()
}
