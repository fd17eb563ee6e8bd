//! QEMU's seccomp sandbox, where the binary has it.
//!
//! Whether it has is found by asking for it: a QEMU built without it refuses the option when it starts. The guest's
//! worst is then a QEMU process that starts no programs, gains no privileges and changes no scheduling. On a bridge there is
//! none: QEMU is in it before it starts its helper, and whatever of it is allowed, no program of a process in a sandbox
//! gains privileges (seccomp(2), `no_new_privs`).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// What is asked for (QEMU docs, invocation, `-sandbox`).
pub(crate) const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
/// How long QEMU may take to refuse or accept it.
const LIMIT: Duration = Duration::from_secs(20);

/// Whether this QEMU takes the sandbox; `Err` with its words.
pub(crate) async fn probe(binary: &Path) -> Result<(), String> {
    let mut command = Command::new(binary);
    // Paused, and its monitor's end of input makes it quit; without one it is killed when this is dropped.
    command
        .args(["-machine", "none", "-nodefaults", "-display", "none", "-S", "-sandbox", SANDBOX])
        .args(["-chardev", "stdio,id=monitor", "-mon", "chardev=monitor,mode=control"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        use tokio::io::AsyncWriteExt;
        let orders = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n";
        // A QEMU that has refused is gone by now; its words say it better than a broken pipe.
        let _ = stdin.write_all(orders).await;
    }
    let output = timeout(LIMIT, child.wait_with_output()).await;
    match output {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let words = crate::line::shorten(String::from_utf8_lossy(&output.stderr).trim(), 300);
            Err(if words.is_empty() { output.status.to_string() } else { words })
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_qemu_without_the_sandbox_tells_so_in_its_own_words() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("old-qemu");
        std::fs::write(&path, "#!/bin/sh\necho 'sandbox support is not enabled' >&2\nexit 1\n")
            .expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
        assert_eq!(probe(&path).await, Err("sandbox support is not enabled".to_owned()));
    }
}
