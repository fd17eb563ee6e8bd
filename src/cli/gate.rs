//! The gate of `forge build` and `forge finish`: a template is tried before it is published as `latest`.
//!
//! The build leaves a template without that tag, with `untested` in its place. Its trial is that of `forge test`; then it
//! is tagged by what that found, and gets `latest` only if it is right. Whatever dies on the way leaves a whole template that nobody takes for the latest.

use std::path::Path;
use std::sync::Arc;

use forge_machine::{Artefact, CloneSelector, Hypervisor, SourceSelector, TAG_LATEST, VmRef};
use tokio_util::sync::CancellationToken;

use super::build::{one, worst};
use super::list::chosen;
use super::options::Global;
use super::prepare::{self, Prepared};
use super::promote::{Rivals, moved};
use super::test::{Trial, UNTRIED, mark, plan, results, verdict};
use crate::catalogue::{Entry, Wanted};
use crate::config::site::Target;
use crate::engine::error::chain;
use crate::engine::on_error::OnError;
use crate::engine::publish::Move;
use crate::event::{Bus, Ending};
use crate::trial;
use crate::ui;

/// The exit code of a build whose template is there and is not published: a later step failed.
pub(super) const NOT_PUBLISHED: u8 = 5;

/// What to say of a template that is there and not published, and what to do.
pub(super) fn unpublished(vm: &VmRef, words: &str) -> String {
    format!(
        "error: {words}\n    help: template {vm} is there, without the tag `{TAG_LATEST}`; `forge test {id} --mark` tries it, \
         `forge promote {id}` makes it the latest",
        id = vm.id
    )
}

/// What all gates of a run have in common.
pub(super) struct Gate<'a> {
    /// The options of every command.
    pub(super) global: &'a Global,
    /// Where the templates are.
    pub(super) target: &'a Target,
    /// The folder under which evidence is kept.
    pub(super) output: &'a Path,
    /// Where events go.
    pub(super) bus: &'a Bus,
    /// Interrupts the trials.
    pub(super) cancel: &'a CancellationToken,
}

impl Gate<'_> {
    /// Builds; if that made a template that is to be tried, tries and publishes it. Gives the exit code.
    ///
    /// # Errors
    /// The exit code, when the build could not even begin.
    pub(super) async fn pass(&self, prepared: Prepared, on_error: OnError) -> Result<Passed, u8> {
        let gated = prepared.plan.gate;
        let hypervisor = prepared.hypervisor.clone();
        let ending = one(prepared, self.global, self.output, self.bus, self.cancel, on_error).await?;
        let vm = match &ending {
            Ending::Done { artefact: Artefact::Template { vm, .. } } if gated => vm.clone(),
            _ => return Ok(Passed { code: ending.exit_code(), ending }),
        };
        let code = self.try_and_publish(&hypervisor, &vm).await;
        Ok(Passed { code, ending })
    }

    /// Tries a template that is there, tags it by what that found, and publishes it if it is right. Gives the exit code.
    pub(super) async fn try_and_publish(&self, hypervisor: &Arc<dyn Hypervisor>, vm: &VmRef) -> u8 {
        let redactor = self.bus.redactor();
        let unpublished = |words: &str| {
            ui::say(&redactor.text(&self::unpublished(vm, words)));
            NOT_PUBLISHED
        };
        let untried = |words: &str| {
            unpublished(words);
            UNTRIED
        };
        let Ok(vmid) = vm.id.parse() else { return unpublished("it has no VMID") };
        let what = Trial {
            template: SourceSelector::Clone(CloneSelector::Vmid(vmid)),
            checks: trial::built_in(true),
            baselines: Path::new("baselines"),
            accept: false,
            output: self.output,
        };
        let prepared = match plan(self.target, hypervisor, what).await {
            Ok(prepared) => prepared,
            Err(findings) => {
                prepare::tell(&findings, redactor);
                return untried("the template can't be tried");
            }
        };
        let name = prepared.plan.artefact_name().to_owned();
        let ending = one(prepared, self.global, self.output, self.bus, self.cancel, OnError::default()).await;
        let ending = match ending {
            Ok(ending) => ending,
            Err(_) => return untried("the template could not be tried"),
        };
        if let Ending::Tested { checks, .. } = &ending
            && !self.global.json
        {
            ui::say(redactor.text(&results(checks)).trim_end());
        }
        // That the trial left something behind, or was interrupted, is told by its exit code, and no fault of the template;
        // that it found the template wrong is what 5 says here, and that it could not find out is what 6 says.
        let of_trial = match ending.exit_code() {
            1 => 0,
            code => code,
        };
        let code = match verdict(&ending) {
            None => untried(
                "the template could not be tried: that says nothing of it, and it is not tagged for it",
            ),
            Some(right) => match mark(hypervisor.machine(vm).as_ref(), right).await {
                Err(error) => unpublished(&format!("the template is not tagged: {}", chain(&error))),
                Ok(()) if right => self.publish(hypervisor.as_ref(), vm).await,
                Ok(()) => unpublished(&format!("{name} failed its test, and is not published")),
            },
        };
        worst([code, of_trial].into_iter())
    }

    /// Moves `latest` to the template, unless a newer one has it by now.
    async fn publish(&self, hypervisor: &dyn Hypervisor, vm: &VmRef) -> u8 {
        let redactor = self.bus.redactor();
        let all = match chosen(hypervisor, &Wanted::default(), redactor).await {
            Ok(all) => all,
            Err(_) => return NOT_PUBLISHED,
        };
        let Some(to) = all.iter().find(|entry| entry.vmid == vm.id && !entry.chain_id.is_empty()) else {
            ui::say(
                &redactor
                    .text(&format!("template {vm} is right, and is not in the list of templates any more")),
            );
            return NOT_PUBLISHED;
        };
        let Some(step) = step(&all, to) else {
            ui::say(
                &redactor.text(&format!("template {vm} is right, and a newer one is the latest already")),
            );
            return 0;
        };
        match moved(self.global, hypervisor, to, step, Rivals::Settle, redactor).await {
            Ok(()) => {
                ui::say(
                    &redactor.text(&format!("{} (VM {}) is the latest of {}", to.name, to.vmid, to.profile)),
                );
                0
            }
            Err(_) => NOT_PUBLISHED,
        }
    }
}

/// What came of a build and its trial.
pub(super) struct Passed {
    /// How the build ended.
    pub(super) ending: Ending,
    /// The exit code of both.
    pub(super) code: u8,
}

/// How `latest` gets to a template from the older ones of its profile; `None` when a newer one has it. The templates
/// are sorted newest first.
fn step(all: &[Entry], to: &Entry) -> Option<Move> {
    let vmid = &to.vmid;
    let mut line = all.iter().filter(|entry| entry.profile == to.profile);
    let newer = line.by_ref().take_while(|entry| entry.vmid != *vmid).any(|entry| entry.bears(TAG_LATEST));
    let older = line.filter(|entry| entry.bears(TAG_LATEST)).map(Entry::vm).collect();
    (!newer).then(|| Move { to: to.vm(), made_by: to.chain_id.clone(), from: older })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_moves_from_older_templates_and_never_from_a_newer_one() {
        let entry = |vmid: &str, profile: &str, tags: &[&str]| Entry {
            vmid: vmid.into(),
            profile: profile.into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..Entry::default()
        };
        let all = [
            entry("5", "db", &["latest"]),
            entry("4", "web", &[]),
            entry("3", "web", &["latest"]),
            entry("2", "web", &[]),
        ];
        let from = |vmid: &str| {
            let to = all.iter().find(|entry| entry.vmid == vmid).expect("it is listed");
            step(&all, to).map(|step| step.from.into_iter().map(|vm| vm.id).collect::<Vec<String>>())
        };
        assert_eq!(from("4"), Some(vec!["3".to_owned()]));
        assert_eq!(from("2"), None);
    }
}
