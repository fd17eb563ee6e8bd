//! Publishing a finished template: a redo, which may be done again and again until it is done.
//!
//! First the new one gets its name and its tags, `latest` among them; then the older ones of its profile lose `latest`.
//! So at any moment the newest that bears `latest` is the one to take. Two builds of one profile that publish at once
//! come to the same end: each takes the tag off all but the newest. Nothing here removes a template.
//!
//! `forge promote` and `forge rollback` move the tag to a template that is there already, in the same order; the journal
//! tells whoever finds it half-done from which ones it still has to go.

use forge_machine::facts::TemplateFacts;
use forge_machine::{Hypervisor, PortError, TAG_LATEST, VmRef};
use serde::{Deserialize, Serialize};

use crate::catalogue::{Entry, superseded};

/// What became of the older ones.
#[derive(Debug, Default)]
pub struct Retired {
    /// Those that lost the tag.
    pub done: Vec<VmRef>,
    /// Those that the credentials may not change; the newest is the answer all the same.
    pub denied: Vec<(VmRef, PortError)>,
}

/// Takes `latest` off all templates of a profile but the newest. Effect, idempotent.
///
/// # Errors
/// When the target can't be asked, or fails at one of them.
pub async fn retire(hypervisor: &dyn Hypervisor, profile: &str) -> Result<Retired, PortError> {
    let bearers = hypervisor.templates(Some(TAG_LATEST)).await?;
    leave(hypervisor, &superseded(&bearers, profile)).await
}

/// The tag `latest` on its way from some templates to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Move {
    /// The template that gets it.
    pub to: VmRef,
    /// The build that made that one.
    pub made_by: String,
    /// Those that lose it.
    pub from: Vec<VmRef>,
}

/// Gives `latest` to one template, then takes it off the others. Effect, idempotent.
///
/// # Errors
/// When the target fails at one of them. Whatever fails, one template bears the tag: the one that bore it, or both.
pub async fn move_latest(hypervisor: &dyn Hypervisor, to: &Move) -> Result<Retired, PortError> {
    let machine = hypervisor.machine(&to.to);
    match machine.tag(TAG_LATEST).await {
        // Idempotent, so a lost answer is asked for again.
        Err(error) if error.is_outcome_unknown() => machine.tag(TAG_LATEST).await,
        other => other,
    }?;
    match outdone(&hypervisor.templates(Some(TAG_LATEST)).await?, to) {
        Some(from) => leave(hypervisor, &from).await,
        None => {
            let action = format!("give `{TAG_LATEST}` to template {}", to.to);
            let what = format!(
                "it is not the template of {} any more, or somebody took the tag off again",
                to.made_by
            );
            Err(PortError::failed(action, what))
        }
    }
}

/// Those that are still to lose the tag; `None` when the one that is to have it has not. Told by VMID, profile and build, not
/// by node: a template may have moved meanwhile, and an id been taken by another's.
fn outdone(bearers: &[TemplateFacts], step: &Move) -> Option<Vec<VmRef>> {
    let all: Vec<Entry> = bearers.iter().map(Entry::new).collect();
    let new = all.iter().find(|entry| entry.vmid == step.to.id && entry.chain_id == step.made_by)?;
    let is_left = |entry: &&Entry| {
        entry.profile == new.profile
            && entry.vmid != new.vmid
            && step.from.iter().any(|from| from.id == entry.vmid)
    };
    Some(all.iter().filter(is_left).map(Entry::vm).collect())
}

/// Ends a move that a process left: what has the tag already keeps it, and the others lose it. One that did not come to
/// its first step is void. Effect, idempotent. Gives what was done, in words.
///
/// # Errors
/// When the target can't be asked, or fails at one of them.
pub async fn end_move(hypervisor: &dyn Hypervisor, left: &Move) -> Result<String, PortError> {
    let bearers = hypervisor.templates(Some(TAG_LATEST)).await?;
    let Some(from) = outdone(&bearers, left) else {
        return Ok(format!("it never got the tag `{TAG_LATEST}`, and the others keep it"));
    };
    leave(hypervisor, &from).await?;
    Ok(format!("it is the only one with the tag `{TAG_LATEST}` now"))
}

async fn leave(hypervisor: &dyn Hypervisor, from: &[VmRef]) -> Result<Retired, PortError> {
    let mut retired = Retired::default();
    for vm in from {
        match hypervisor.machine(vm).untag(TAG_LATEST).await {
            Ok(()) => retired.done.push(vm.clone()),
            // Somebody removed it.
            Err(PortError::NotFound { .. }) => {}
            Err(error @ PortError::Denied { .. }) => retired.denied.push((vm.clone(), error)),
            Err(error) => return Err(error),
        }
    }
    Ok(retired)
}
