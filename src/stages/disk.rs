//! A VM whose disks fail: its hypervisor pauses it, so that no data is lost, and nothing in it ends any more.

use std::time::Duration;

use forge_machine::{Machine, MachineState};

use crate::engine::StageError;

/// How often the VM is asked while something else goes on in its guest.
const EVERY: Duration = Duration::from_secs(5);

/// Why a VM is paused that its disks have stopped (QEMU docs, `-drive werror`; `qmpstatus` of Proxmox's `status/current`).
pub(super) fn failed(state: &MachineState) -> Option<StageError> {
    state.detail.contains("io-error").then(|| {
        StageError::new("the VM was paused: one of its disks can't be read or written (io-error)")
            .of_target()
            .hint("the storage of its disks is most likely full")
    })
}

/// Waits for what goes on in the guest for as long as the VM's disks work. May be dropped, and drops the future when they
/// fail.
///
/// # Errors
/// When the VM is paused because a disk failed.
pub(super) async fn while_they_work<T>(
    machine: &dyn Machine,
    future: impl Future<Output = T>,
) -> Result<T, StageError> {
    let fail = async {
        loop {
            tokio::time::sleep(EVERY).await;
            match machine.state().await {
                Ok(state) => {
                    if let Some(error) = failed(&state) {
                        return error;
                    }
                }
                // An answer that does not come says nothing about the disks.
                Err(error) => tracing::debug!(%error, "the VM's state is not known"),
            }
        }
    };
    tokio::select! {
        value = future => Ok(value),
        error = fail => Err(error),
    }
}
