//! Rides out an expected disconnect: the guest goes down (or only its network does), and the same guest is back.

use std::time::{Duration, Instant};

use forge_machine::{Command, ExecOutcome, Guest, GuestError};
use tokio::time::sleep;

use crate::remote::{Begun, quote};

/// How long a guest that still answers may take to go down. `reboot` returns at once and the guest follows some
/// seconds later.
const GOES_DOWN: Duration = Duration::from_secs(15);
/// How long a guest with the old boot id must answer until it counts as one that did not reboot.
const STAYS_UP: Duration = Duration::from_secs(5);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(300);
/// How long one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Says which boot this is, and whether it is about to end.
const WHICH_BOOT: &str = "cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo -; \
    if [ -e /run/nologin ] || [ \"$(systemctl is-system-running 2>/dev/null)\" = stopping ]; then echo stopping; fi";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ride {
    pub disconnected: bool,
    pub rebooted: bool,
}

struct Look {
    boot_id: Option<String>,
    stopping: bool,
}

/// Waits until the guest that went away (`lost`), or is about to, is back; and removes what the cut-off script left.
///
/// # Errors
/// When it is not back in time, or another machine answers in its place.
pub(super) async fn ride_out(
    guest: &dyn Guest,
    begun: Option<&Begun>,
    lost: bool,
    limit: Duration,
) -> Result<Ride, GuestError> {
    let began = Instant::now();
    let old = begun.and_then(|begun| begun.boot_id.as_deref());
    let mut down = lost;
    let mut patience = if lost { STAYS_UP } else { GOES_DOWN };
    let mut same_since = Instant::now();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        if down {
            guest.reconnect(left).await?;
            same_since = Instant::now();
            patience = STAYS_UP;
            down = false;
            // A connection was lost for sure; from here on the question is only whether it is the last time.
        }
        match look(guest).await {
            Some(look) if look.boot_id.is_some() && look.boot_id.as_deref() != old && old.is_some() => {
                tidy(guest, begun).await;
                return Ok(Ride { disconnected: true, rebooted: true });
            }
            Some(look) => {
                if !look.stopping && same_since.elapsed() >= patience {
                    tidy(guest, begun).await;
                    return Ok(Ride { disconnected: lost || patience == STAYS_UP, rebooted: false });
                }
            }
            None => down = true,
        }
        if left.is_zero() {
            return Err(GuestError::TimedOut { what: "waiting for the guest to be back".into(), limit });
        }
        if !down {
            sleep(LOOK).await;
        }
    }
}

/// The id of the present boot; `None` when the guest does not answer, or has none.
pub(super) async fn boot_id(guest: &dyn Guest) -> Option<String> {
    look(guest).await?.boot_id
}

/// Waits until a guest that was told to start anew shows another boot id than `old`: a slow one may answer for long
/// before it goes down. False when it did not within the limit.
pub(super) async fn another_boot(guest: &dyn Guest, old: &str, limit: Duration) -> bool {
    let began = Instant::now();
    loop {
        match boot_id(guest).await {
            Some(id) if id != old => return true,
            _ if began.elapsed() >= limit => return false,
            _ => sleep(LOOK).await,
        }
    }
}

/// `None` when the guest does not answer: it is down, or its connection is.
async fn look(guest: &dyn Guest) -> Option<Look> {
    let mut output = Vec::new();
    let command = Command { timeout: Some(LOOK_LIMIT), ..Command::new(WHICH_BOOT) };
    match guest.exec(&command, &mut output).await {
        Ok(ExecOutcome::Exited(_)) => {
            let text = String::from_utf8_lossy(&output);
            let boot_id = text.lines().next().map(str::trim).filter(|id| id.len() == 36).map(str::to_owned);
            Some(Look { boot_id, stopping: text.lines().any(|line| line.trim() == "stopping") })
        }
        _ => None,
    }
}

/// Removes the temporary folder of a script that was cut off; after a reboot `/tmp` may still be on the disk.
async fn tidy(guest: &dyn Guest, begun: Option<&Begun>) {
    let Some(begun) = begun.filter(|begun| begun.dir.starts_with('/') && begun.dir.contains("/forge-"))
    else {
        return;
    };
    let command =
        Command { timeout: Some(LOOK_LIMIT), ..Command::new(format!("rm -rf {}", quote::sh(&begun.dir))) };
    if let Err(error) = guest.exec(&command, &mut ()).await {
        tracing::debug!(%error, "the script's folder is left behind");
    }
}
