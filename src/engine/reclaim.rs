//! Removes a build's VM wherever it stands, and nothing else. Used when unwinding and by `forge gc`.

use std::time::{Duration, Instant};

use forge_machine::{Hypervisor, Nonce, PortError, Power, Standing, TaskHandle, VmRef};

/// What became of a VM that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reclaimed {
    /// It was not there.
    NeverThere,
    /// It was removed.
    Removed,
    /// It is kept for `forge finish`; removing needs to be asked for.
    Kept,
    /// It is a template by now; nothing removes it.
    Committed,
    /// Somebody else's VM has the id; untouched.
    Foreign {
        /// Its name.
        name: String,
    },
}

impl std::fmt::Display for Reclaimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NeverThere => f.write_str("it does not exist"),
            Self::Removed => f.write_str("removed"),
            Self::Kept => f.write_str("kept for `forge finish`"),
            Self::Committed => f.write_str("it is a template by now and stays"),
            Self::Foreign { name } => write!(f, "the id belongs to `{name}`, which is not ours; untouched"),
        }
    }
}

/// How sure it is that the creation was submitted at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// The target answered, so what is not there now will not come.
    Answered,
    /// The request may still be on its way: a VM may appear yet.
    Unanswered {
        /// For how long from now.
        appears_within: Duration,
    },
}

/// How long the target may hold the VM locked after its work was stopped.
const UNLOCKS_WITHIN: Duration = Duration::from_secs(100);

/// Removes the VM at an id if it bears the nonce, stopping the target's work on it first.
///
/// Idempotent. The caller sets the time limit by dropping the future between two requests.
///
/// # Errors
/// When the target can't be asked or refuses, or keeps the VM locked; the VM may then still be there.
pub async fn reclaim(
    hypervisor: &dyn Hypervisor,
    vm: &VmRef,
    nonce: &Nonce,
    tasks: &[TaskHandle],
    creation: Creation,
    also_kept: bool,
) -> Result<Reclaimed, PortError> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(50);
    let mut stopped = false;
    let mut removed = false;
    loop {
        match hypervisor.standing(vm, nonce).await? {
            Standing::Gone if removed => return Ok(Reclaimed::Removed),
            Standing::Gone => match creation {
                Creation::Unanswered { appears_within } if began.elapsed() < appears_within => {}
                _ if stopped => return Ok(Reclaimed::Removed),
                _ => return Ok(Reclaimed::NeverThere),
            },
            Standing::Foreign { name } => return Ok(Reclaimed::Foreign { name }),
            Standing::Committed => return Ok(Reclaimed::Committed),
            Standing::Busy { lock } if began.elapsed() >= UNLOCKS_WITHIN => {
                return Err(PortError::Locked { what: vm.to_string(), lock });
            }
            Standing::Busy { .. } => {
                if !stopped {
                    for task in tasks {
                        hypervisor.stop_task(task).await?;
                    }
                    stopped = true;
                }
            }
            Standing::Ours { kept: true, .. } if !also_kept => return Ok(Reclaimed::Kept),
            Standing::Ours { power, .. } => {
                let machine = hypervisor.machine(vm);
                if power != Power::Stopped {
                    machine.power_off().await?;
                }
                match machine.destroy().await {
                    Ok(()) => removed = true,
                    // The target is still busy with it, or nobody knows: look again.
                    Err(PortError::Locked { .. } | PortError::OutcomeUnknown { .. }) => {}
                    Err(PortError::NotFound { .. }) => removed = true,
                    Err(error) => return Err(error),
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
