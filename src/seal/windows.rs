//! Sealing a Windows: operations in PowerShell, the last of which is Microsoft's own `sysprep`. Never tried with a real one.
//!
//! They run as one script by the system's own account. `sysprep` is told to end instead of to switch the machine off, so
//! that the script can read what it left: only the image's state `IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE` proves that it
//! went through ("Windows Setup State Information").
//!
//! What would cut forge's own connection off (the user, WinRM's listener) is done by a task that outlives the connection. It
//! switches Windows off when, and only when, that went well, so that [`switched_off`] is the proof of it.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_machine::{Guest, Machine, Power};
use tokio::time::sleep;

use super::catalogue::WINDOWS_OPERATIONS;
use super::{SealError, SealResult};
use crate::remote::{BUILD_KEY_COMMENT, Become, PowerShell, RemoteScript, ScriptOutput, powershell};

/// How long all operations may take; `sysprep` alone needs minutes.
const LIMIT: Duration = Duration::from_secs(3600);
/// What clones are asked, where the profile's own answers say nothing: nothing but what Windows insists on.
const UNATTEND: &str = include_str!("windows/unattend.xml");
/// The last of it: begins [`FINISH`].
const LAST: &str = include_str!("windows/last.ps1");
/// The program of the task that outlives the connection, and its end, between which [`AFTER`] stands.
const FINISH: &str = include_str!("windows/finish.ps1");
const FINISH_END: &str = include_str!("windows/finish-end.ps1");
/// The operations that would cut the connection off.
const AFTER: [&str; 2] = ["remote-access", "build-user"];
/// What stands for them among the others.
const PUT_OFF: &str = "'by Windows itself, when the connection had ended'\n";
/// How long the last operations may take, without the shutdown itself: the limits of their own waits.
pub const FINISH_LIMIT: Duration = Duration::from_secs(240);
/// The pause between two looks at the VM.
const LOOK: Duration = Duration::from_secs(1);

/// Collects results; other lines are for the log.
#[derive(Default)]
pub(super) struct Results(pub Vec<SealResult>);

impl ScriptOutput for Results {
    fn line(&mut self, line: &str, _stderr: bool) {
        match line.trim().strip_prefix("forge-seal ").and_then(SealResult::told) {
            Some(result) => self.0.push(result),
            None => tracing::debug!(line, "seal"),
        }
    }
}

fn script(operations: &[String], user: &str, created: bool, unattend: Option<&str>) -> RemoteScript {
    let filled = |text: &str| {
        let created = if created { "yes" } else { "no" };
        text.replace("@USER@", &powershell::quoted(user)).replace("@CREATED@", created)
    };
    let mut text = filled(include_str!("windows/prelude.ps1"));
    let mut finish = filled(FINISH);
    for operation in WINDOWS_OPERATIONS.iter().filter(|one| operations.iter().any(|name| name == one.name)) {
        let body = operation
            .text
            .replace("@KEY_COMMENT@", BUILD_KEY_COMMENT)
            .replace("@UNATTEND@", &STANDARD.encode(unattend.unwrap_or(UNATTEND)));
        let body = if AFTER.contains(&operation.name) {
            finish.push_str(&body);
            PUT_OFF.to_owned()
        } else {
            body
        };
        let last = if operation.last { "$true" } else { "$false" };
        text.push_str(&format!("Invoke-ForgeOperation '{}' {last} {{\n{body}}}\n", operation.name));
    }
    finish.push_str(FINISH_END);
    text.push_str(&LAST.replace("@FINISH@", &STANDARD.encode(finish)));
    let mut script = RemoteScript::powershell(text, PowerShell::default());
    script.become_root = Become::Auto;
    script.timeout = Some(LIMIT);
    script
}

/// Carries out the operations and lets Windows switch itself off when the last of them are done, which [`switched_off`] waits
/// for. May be dropped; nobody knows then how far it came.
///
/// # Errors
/// When an operation fails or did not tell how it ended, or the guest is lost before the end was told.
pub async fn run(
    guest: &dyn Guest,
    operations: &[String],
    user: &str,
    created: bool,
    unattend: Option<&str>,
) -> Result<Vec<SealResult>, SealError> {
    if let Some(name) = operations.iter().find(|name| WINDOWS_OPERATIONS.iter().all(|one| one.name != **name))
    {
        let known: Vec<_> = WINDOWS_OPERATIONS.iter().map(|operation| operation.name).collect();
        return Err(SealError::Unknown { name: name.clone(), known: known.join(", ") });
    }
    let mut output = Results::default();
    let script = script(operations, user, created, unattend);
    let results = super::ended(guest, &script, &mut output, |output| output.0.clone()).await?;
    // An end without a word about each of them is none.
    if let Some(silent) = operations.iter().find(|name| results.iter().all(|one| one.operation != **name)) {
        let how = format!("nothing was told of {silent}");
        return Err(SealError::CutOff { how, results });
    }
    Ok(results)
}

/// Waits until Windows has switched itself off, as it does only when its last operations went well: they may take
/// [`FINISH_LIMIT`], and the shutdown its own time. May be dropped.
///
/// # Errors
/// When it still runs.
pub async fn switched_off(
    machine: &dyn Machine,
    limit: Duration,
    seen: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), SealError> {
    let began = Instant::now();
    let mut told = String::new();
    loop {
        let words = match machine.state().await {
            Ok(state) if state.power == Power::Stopped => return Ok(()),
            Ok(state) => state.detail,
            // An answer that does not come says nothing about the guest.
            Err(error) => error.to_string(),
        };
        if began.elapsed() >= limit {
            return Err(SealError::StillRuns { limit, seen: words });
        }
        if words != told {
            seen(&words);
            told = words;
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_script_tells_is_read_and_other_lines_are_not() {
        let mut results = Results::default();
        for line in [
            "forge-seal sysprep done IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE, GeneralizationState 7\r",
            "forge-sealed nothing done",
            "forge-seal build-user failed Access is denied.",
            "forge-seal x left another operation failed",
        ] {
            results.line(line, false);
        }
        let told: Vec<String> =
            results.0.iter().map(|one| format!("{} {}", one.operation, one.outcome)).collect();
        assert_eq!(
            told,
            [
                "sysprep done: IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE, GeneralizationState 7",
                "build-user failed: Access is denied.",
                "x left out: another operation failed",
            ]
        );
    }

    #[test]
    fn the_operations_stand_in_their_order_and_no_placeholder_is_left() {
        let all: Vec<String> = WINDOWS_OPERATIONS.iter().rev().map(|one| one.name.to_owned()).collect();
        let text = String::from_utf8(script(&all, "o'neil", true, None).content).unwrap();
        assert!(text.starts_with("$user = 'o''neil'\n$created = 'yes'\n"), "{text}");
        let places: Vec<_> = WINDOWS_OPERATIONS
            .iter()
            .map(|one| text.find(&format!("Invoke-ForgeOperation '{}' ", one.name)).unwrap())
            .collect();
        assert!(places.is_sorted());
        let coded = text.split("FromBase64String('").last().unwrap().split('\'').next().unwrap();
        let finish = String::from_utf8(STANDARD.decode(coded).unwrap()).unwrap();
        // What ends the way in is nowhere but in what comes after the connection.
        for late in ["Remove-LocalUser", "Remove-NetFirewallRule", "shutdown.exe /s"] {
            assert!(finish.contains(late) && !text.contains(late), "{late}");
        }
        assert!(finish.find("Remove-NetFirewallRule") < finish.find("Remove-LocalUser"));
        for left in ["@USER@", "@CREATED@", "@UNATTEND@", "@KEY_COMMENT@", "@FINISH@"] {
            assert!(!text.contains(left) && !finish.contains(left), "{left}");
        }
        // Half of the longest command line that Windows takes, as UTF-16 in base64.
        assert!(finish.len() * 8 / 3 < 16_000, "{}", finish.len());
        let without = ["temporary-files".to_owned(), "remote-access".to_owned()];
        let text = String::from_utf8(script(&without, "x", true, None).content).unwrap();
        let coded = text.split("FromBase64String('").last().unwrap().split('\'').next().unwrap();
        let finish = String::from_utf8(STANDARD.decode(coded).unwrap()).unwrap();
        assert!(
            finish.contains("WSMan:") && !finish.contains("Remove-LocalUser") && !text.contains("sysprep")
        );
    }
}
