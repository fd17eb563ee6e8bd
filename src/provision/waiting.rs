//! Waits until something is so in the guest: a port, a file, a command.

use std::time::{Duration, Instant};

use forge_machine::{Command, ExecOutcome, Guest};
use tokio::time::sleep;

use super::{Condition, OutputObserver, ProvisionError};
use crate::remote::quote::sh;

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(300);
/// How long one look may take; a command may need as long as it wants within the step's limit.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// The command that succeeds when the condition holds. Ports are read from the kernel's tables (state `0A` is
/// LISTEN), so the guest needs no further program.
fn line(condition: &Condition) -> String {
    match condition {
        Condition::Port(port) => format!(
            "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q '^ *[0-9]*: [0-9A-F]*:{port:04X} [0-9A-F]*:0000 0A '"
        ),
        Condition::File(path) => format!("test -e {}", sh(path)),
        Condition::Command(line) => line.clone(),
    }
}

/// Waits until the condition holds; a guest that goes away meanwhile is connected to again.
///
/// # Errors
/// When it does not hold within the limit, with what was seen last.
pub(super) async fn until(
    guest: &dyn Guest,
    condition: &Condition,
    limit: Duration,
    observer: &mut dyn OutputObserver,
) -> Result<(), ProvisionError> {
    let began = Instant::now();
    let mut told = String::new();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let look = match condition {
            Condition::Command(_) => left,
            _ => left.min(LOOK_LIMIT),
        };
        let command =
            Command { timeout: Some(look.max(Duration::from_secs(1))), ..Command::new(line(condition)) };
        let mut output = Vec::new();
        let seen = match guest.exec(&command, &mut output).await {
            Ok(ExecOutcome::Exited(0)) => return Ok(()),
            Ok(ExecOutcome::Exited(status)) => {
                let text = String::from_utf8_lossy(&output);
                let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
                match (condition, last) {
                    (Condition::Port(port), _) => format!("nothing listens on port {port}"),
                    (Condition::File(path), _) => format!("{path} does not exist"),
                    (_, "") => format!("status {status}"),
                    (_, last) => format!("status {status}: {}", last.chars().take(200).collect::<String>()),
                }
            }
            Ok(ExecOutcome::Signalled) => "the command was killed by a signal".to_owned(),
            Ok(ExecOutcome::Disconnected) => "the connection was lost".to_owned(),
            Err(error) => crate::engine::error::chain(&error),
        };
        if seen != told {
            observer.line(&seen, false);
            told.clone_from(&seen);
        }
        if began.elapsed() >= limit {
            return Err(ProvisionError::NeverCame { what: condition.to_string(), limit, seen });
        }
        sleep(LOOK.min(limit.saturating_sub(began.elapsed()))).await;
    }
}
