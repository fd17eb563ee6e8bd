//! Runs a tool and turns its failure into an error that carries its last words.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// The folders in which administrators' tools live; a plain user's `PATH` on Debian lacks them.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How many of a failed tool's last lines go into the error.
const LAST_LINES: usize = 15;

/// A command in the C locale with the system's folders in its path and nothing to read.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{SYSTEM_PATH}:{path}")).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs a tool to its end and returns what it wrote to its standard output.
///
/// # Errors
/// The tool is missing or ends with a failure.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{program} can't be run: is it installed?"))?;
    if !output.status.success() {
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        bail!("{program} failed ({}):\n{tail}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first line a tool says about its version, for a recipe's hash: empty when the tool is missing.
pub fn version_line(program: &str) -> String {
    run(command(program).arg("--version"))
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_default()
}

/// Removes a folder that a failed or finished step left; one that is not there is fine.
pub fn remove_tree(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{} can't be removed", path.display())),
    }
}
