//! Stopping, cutting the power, removing: the ways down.
//!
//! A shutdown task holds the VM's file lock while it waits for the guest (observed on PVE 9.2), so every other change
//! meanwhile fails after 10 s. Here the task is stopped before the power is cut, and awaited before anyone goes on.

use std::time::Duration;

use forge_machine::{PortError, Power, StopLadder, StopRung};

use crate::api::encode::Params;
use crate::api::error::ApiError;
use crate::api::task::{Pace, Upid};
use crate::hypervisor::Whereabouts;
use crate::machine::{ProxmoxMachine, expect_upid, power_of, upid_of};

/// What a shutdown task needs beyond its own limit, for the ping of the agent and the clean-up.
const GRACE: Duration = Duration::from_secs(15);
/// How long a VM without power may take to count as stopped.
pub(crate) const OFF_LIMIT: Duration = Duration::from_secs(60);
/// How often the power is cut when a lock is in the way; each try waits 10 s for the lock itself.
const OFF_TRIES: u32 = 4;

/// How waiting for a shutdown ended.
enum Ended {
    Stopped,
    Refused(String),
    TimedOut(String),
}

impl ProxmoxMachine {
    pub(crate) async fn stop_gently(&self, ladder: &StopLadder) -> Result<StopRung, PortError> {
        let action = self.action("shut down");
        let status = self.status().await.map_err(|error| error.at(&action))?;
        if power_of(&status) == Power::Stopped {
            return Ok(StopRung::AlreadyStopped);
        }
        // One call does both rungs: Proxmox asks the agent when it answers a ping, and presses the button otherwise.
        let limit = ladder.agent + ladder.acpi;
        let mut last_seen = status.qmpstatus.unwrap_or(status.status);
        if !limit.is_zero() {
            let seconds = limit.as_secs().max(1);
            let body = Params::new().with("timeout", seconds);
            let mut lost = String::new();
            let task = match self.submit(&["status", "shutdown"], &body).await {
                Ok(task) => Upid::parse(&task.id),
                // The request may have arrived: what counts is whether the VM stops.
                Err(error @ ApiError::Unanswered { .. }) => {
                    lost = format!("; {error}");
                    None
                }
                Err(error) => return Err(error.at(&action)),
            };
            match self
                .watch_shutdown(task.as_ref(), limit + GRACE)
                .await
                .map_err(|error| error.at(&action))?
            {
                Ended::Stopped => {
                    self.release(task.as_ref()).await;
                    return Ok(StopRung::Shutdown);
                }
                Ended::Refused(detail) => last_seen = detail,
                Ended::TimedOut(seen) => {
                    last_seen = seen + &lost;
                    if let Some(task) = &task {
                        self.client().stop_task(task).await.map_err(|error| error.at(&action))?;
                    }
                }
            }
        }
        if !ladder.power_off {
            return Err(PortError::TimedOut { what: action, limit, last_seen });
        }
        self.cut_power().await.map_err(|error| error.at(&self.action("cut the power of")))?;
        Ok(StopRung::PowerOff)
    }

    /// Watches VM and task together: a guest may be down long before the task says so, and a task may give up early.
    async fn watch_shutdown(&self, task: Option<&Upid>, limit: Duration) -> Result<Ended, ApiError> {
        let pace = Pace::start();
        let mut seen = String::from("running");
        while pace.elapsed() < limit {
            match self.status().await {
                Ok(status) if power_of(&status) == Power::Stopped => return Ok(Ended::Stopped),
                Ok(status) => seen = status.qmpstatus.unwrap_or(status.status),
                Err(error @ ApiError::Unreachable { .. }) => tracing::debug!(%error, "asking on"),
                Err(error) => return Err(error),
            }
            if let Some(task) = task
                && let Ok(status) = self.client().task_status(task).await
                && status.is_over()
                && !status.exitstatus.as_deref().is_some_and(crate::api::task::is_success)
            {
                // It may have stopped between the two questions.
                if power_of(&self.status().await?) == Power::Stopped {
                    return Ok(Ended::Stopped);
                }
                let exit = status.exitstatus.unwrap_or_default();
                return Ok(Ended::Refused(format!("still {seen}; {exit}")));
            }
            pace.rest().await;
        }
        Ok(Ended::TimedOut(format!("still {seen}")))
    }

    /// Waits until the shutdown task has let go of the file lock. Its verdict no longer counts.
    async fn release(&self, task: Option<&Upid>) {
        let Some(task) = task else { return };
        if tokio::time::timeout(GRACE, self.client().await_task(task)).await.is_err() {
            tracing::debug!(upid = task.text, "the shutdown task goes on although the VM is stopped");
        }
    }

    pub(crate) async fn cut_power(&self) -> Result<(), ApiError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = match self.client().post(&self.path(&["status", "stop"]), &Params::new()).await {
                Ok(reply) => match upid_of(&reply.data) {
                    Some(upid) => self.client().wait_task(&upid).await,
                    None => Ok(()),
                },
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) | Err(ApiError::Unanswered { .. }) => break,
                Err(ApiError::VmMissing { .. }) => return Ok(()),
                Err(error) if error.is_locked() && tries < OFF_TRIES => {
                    tracing::debug!(%error, "the power can't be cut yet");
                    Pace::start().rest().await;
                }
                Err(error) => return Err(error),
            }
        }
        let pace = Pace::start();
        loop {
            match self.status().await {
                Ok(status) if power_of(&status) == Power::Stopped => return Ok(()),
                Ok(status) if pace.elapsed() > OFF_LIMIT => {
                    return Err(ApiError::Refused {
                        request: self.action("stop"),
                        detail: format!(
                            "it is still {} {OFF_LIMIT:?} after its power was cut",
                            status.status
                        ),
                    });
                }
                Err(ApiError::VmMissing { .. }) => return Ok(()),
                Err(error) if pace.elapsed() > OFF_LIMIT => return Err(error),
                Ok(_) | Err(ApiError::Unreachable { .. }) => pace.rest().await,
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) async fn remove(&self) -> Result<(), PortError> {
        let action = self.action("remove");
        let machine = match self.shared.whereabouts(&self.at).await.map_err(|error| error.at(&action))? {
            Whereabouts::Free => return Ok(()),
            Whereabouts::Hidden => {
                return Err(PortError::failed(action, "the token may not see what stands there"));
            }
            Whereabouts::At { node, config } => {
                if config.is_template() {
                    return Err(PortError::failed(
                        action,
                        "it is a template; forge never removes one it has made",
                    ));
                }
                let mut machine = self.clone();
                machine.at.node = node;
                // A VM that stays because its seed can't be removed would be worse.
                if let Err(error) = machine.clear_seed(&config).await {
                    tracing::warn!(%error, "the seed's disc stays on its storage");
                }
                if config.flag("protection", false) {
                    let off = Params::new().with("protection", 0);
                    machine.put_config(&off).await.map_err(|error| error.at(&action))?;
                }
                machine
            }
        };
        machine.delete_patiently(&action).await
    }

    /// Removes whatever stands here. Waits locks out; cuts the power of what runs.
    async fn delete_patiently(&self, action: &str) -> Result<(), PortError> {
        let pace = Pace::start();
        let mut cut = false;
        loop {
            match self.delete_once().await {
                Ok(()) | Err(ApiError::VmMissing { .. }) => return Ok(()),
                Err(ApiError::Refused { detail, .. }) if detail.contains("is running") && !cut => {
                    cut = true;
                    self.cut_power().await.map_err(|error| error.at(action))?;
                }
                Err(error) if error.is_locked() && pace.elapsed() < OFF_LIMIT => pace.rest().await,
                Err(error) => {
                    // A lost answer, or a privilege that went with the VM: what counts is whether it is gone.
                    return match self.shared.whereabouts(&self.at).await {
                        Ok(Whereabouts::Free) => Ok(()),
                        _ => Err(error.at(action)),
                    };
                }
            }
        }
    }

    /// Removes whatever stands here, if it is off and not locked.
    pub(crate) async fn delete_once(&self) -> Result<(), ApiError> {
        // Without `destroy-unreferenced-disks`: it would free every volume that bears the VMID, of every enabled storage
        // (qemu-server, `destroy_vm`), on a shared one also the disks of another cluster's VM. The VM's own go anyway, also
        // those that were taken off it and are listed as unused.
        let query = Params::new().with("purge", 1);
        let path = self.path(&[]);
        let reply = self.client().delete(&path, &query).await?;
        let upid = expect_upid(&format!("DELETE {path}"), reply.data)?;
        self.client().wait_task(&upid).await
    }
}
