//! A VM that does not run any more: its target knows how it ended, and a connection that broke does not.

use std::time::Duration;

use forge_machine::{Machine, Power};

/// How long the target may take to tell the VM's state.
const ANSWER: Duration = Duration::from_secs(20);

/// What to do about it.
pub(super) const ADVICE: &str = "find out who ended it: a script that switches the guest off, the host (is its memory full?), or somebody else";

/// What the target says of a VM that does not run; `None` while it runs, and when nobody can tell.
pub(super) async fn words(machine: &dyn Machine) -> Option<String> {
    match tokio::time::timeout(ANSWER, machine.state()).await {
        Ok(Ok(state)) => (state.power == Power::Stopped)
            .then(|| format!("the VM does not run any more ({})", state.detail)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the VM's state is not known");
            None
        }
        Err(_) => None,
    }
}
