//! Publishing a finished template: a redo, which may be done again and again until it is done.
//!
//! First the new one gets its name and its tags, `latest` among them; then the older ones of its profile lose `latest`.
//! So at any moment the newest that bears `latest` is the one to take. Two builds of one profile that publish at once
//! come to the same end: each takes the tag off all but the newest. Nothing here removes a template.

use forge_machine::{Hypervisor, PortError, TAG_LATEST, VmRef};

use crate::catalogue::superseded;

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
    let mut retired = Retired::default();
    for vm in superseded(&bearers, profile) {
        match hypervisor.machine(&vm).untag(TAG_LATEST).await {
            Ok(()) => retired.done.push(vm),
            // Somebody removed it.
            Err(PortError::NotFound { .. }) => {}
            Err(error @ PortError::Denied { .. }) => retired.denied.push((vm, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(retired)
}
