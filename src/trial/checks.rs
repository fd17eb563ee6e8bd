//! The checks: built-in ones, and those of a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::provision::{ShellSource, ShellStep};
use crate::remote::{BUILD_KEY_COMMENT, Become};

const FUNCTIONS: &str = include_str!("linux/checks.sh");

/// A check says with this status that there is nothing to check (`EX_TEMPFAIL` of sysexits, as automake's tests skip
/// with 77: out of the way of shells and of the programs that are checked).
pub(crate) const SKIPPED: i32 = 75;

/// How long one check may take: cloud-init waits for the network.
const LIMIT: Duration = Duration::from_secs(600);

/// The built-in checks by name: the function that does it, and whether it runs as root.
const BUILT_IN: [(&str, &str, bool); 15] = [
    ("cloud-init is done", "cloud_init", true),
    ("host name", "host_name", false),
    ("user", "user", false),
    (AGENT, "agent", true),
    ("failed units", "failed_units", true),
    ("new machine-id", "machine_id", true),
    ("new host keys", "host_keys", true),
    ("no key of a build", "build_key", true),
    ("disk grown", "disk", true),
    (INVENTORY, "inventory", true),
    ("second boot", REBOOT, true),
    ("cloud-init is done again", "cloud_init", true),
    ("failed units again", "failed_units", true),
    ("guest agent again", "agent", true),
    ("the same machine again", "same_again", true),
];

/// The check of the guest agent.
pub(crate) const AGENT: &str = "guest agent";

/// The check that writes down what is in the clone.
pub(crate) const INVENTORY: &str = "inventory";

/// Where it writes it to, in the clone.
pub(crate) const INVENTORY_FILE: &str = "/var/tmp/forge-inventory";

/// Stands for the reboot, which is no function.
const REBOOT: &str = "reboot";

/// A file of checks can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChecksError {
    /// It can't be read.
    #[error("{} can't be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is no list of checks; the message has line and column.
    #[error("{} is no list of checks", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A check has no commands, or both forms of them.
    #[error("{}: the check `{name}` needs either `shell` or `script`", path.display())]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// The check.
        name: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    check: Vec<Check>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Check {
    name: String,
    shell: Option<Vec<String>>,
    script: Option<PathBuf>,
    #[serde(default, rename = "become")]
    become_root: bool,
    #[serde(default)]
    valid_exit_codes: Option<Vec<i32>>,
}

/// The built-in checks; without a second boot when that is not wanted.
#[must_use]
pub fn built_in(second_boot: bool) -> Vec<ShellStep> {
    let functions =
        FUNCTIONS.replace("@KEY_COMMENT@", BUILD_KEY_COMMENT).replace("@INVENTORY@", INVENTORY_FILE);
    BUILT_IN
        .iter()
        .take_while(|(_, function, _)| second_boot || *function != REBOOT)
        .map(|(name, function, root)| {
            let mut step = if *function == REBOOT {
                let lines = [functions.as_str(), "remember", "reboot || systemctl reboot", "sleep 30"];
                let mut step = ShellStep::inline(*name, lines);
                step.expect_disconnect = true;
                step
            } else {
                let mut step = ShellStep::inline(*name, [functions.as_str(), *function]);
                step.valid_exit_codes = vec![0, SKIPPED];
                step
            };
            step.become_root = if *root { Become::Auto } else { Become::No };
            step.timeout = Some(LIMIT);
            step
        })
        .collect()
}

/// The check of the guest agent, once the guest is done with its start; without root.
pub(super) fn agent() -> Vec<ShellStep> {
    let wanted = |check: &ShellStep| [AGENT, BUILT_IN[0].0].contains(&check.name.as_str());
    let checks = built_in(false).into_iter().filter(wanted);
    checks.map(|check| ShellStep { become_root: Become::No, ..check }).collect()
}

/// The checks of a file: `[[check]]` with `name`, `shell` or `script`, `become`, `valid-exit-codes`. Scripts are
/// relative to the file.
///
/// # Errors
/// When it can't be read or makes no sense.
pub fn from_file(path: &Path) -> Result<Vec<ShellStep>, ChecksError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|source| ChecksError::Unreadable { path: path.to_owned(), source })
    };
    let file: File = toml::from_str(&read(path)?)
        .map_err(|source| ChecksError::Malformed { path: path.to_owned(), source: Box::new(source) })?;
    file.check
        .into_iter()
        .map(|check| {
            let source = match (check.shell, check.script) {
                (Some(lines), None) => ShellSource::Inline(lines),
                (None, Some(script)) => {
                    let script = path.parent().unwrap_or(Path::new(".")).join(script);
                    ShellSource::Script { content: read(&script)?, path: script }
                }
                _ => return Err(ChecksError::Ambiguous { path: path.to_owned(), name: check.name }),
            };
            let mut step = ShellStep::new(check.name, source);
            step.become_root = check.become_root.into();
            step.timeout = Some(LIMIT);
            step.valid_exit_codes = check.valid_exit_codes.unwrap_or_else(|| vec![0]);
            step.valid_exit_codes.push(SKIPPED);
            Ok(step)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checks.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_of_checks_is_read_and_its_scripts_are_beside_it() {
        let (folder, path) = file(
            "[[check]]\nname = \"nginx\"\nshell = [\"nginx -t\"]\nbecome = true\n\n[[check]]\nname = \"own\"\nscript = \"own.sh\"\nvalid-exit-codes = [3]\n",
        );
        std::fs::write(folder.path().join("own.sh"), "#!/bin/bash\nexit 3\n").unwrap();
        let checks = from_file(&path).unwrap();
        assert_eq!(checks.len(), 2);
        assert_eq!((checks[0].name.as_str(), checks[0].become_root), ("nginx", Become::Auto));
        assert_eq!(checks[1].valid_exit_codes, [3, SKIPPED]);
        assert_eq!(checks[1].interpreter(), ["/bin/bash"]);
    }

    #[test]
    fn what_is_no_list_of_checks_is_told_with_its_line() {
        let (_folder, path) = file("[[check]]\nname = \"x\"\nshel = [\"true\"]\n");
        let error = from_file(&path).unwrap_err();
        let words = crate::engine::error::chain(&error);
        assert!(words.contains("line 3") && words.contains("shel"), "{words}");
        let (_folder, path) = file("[[check]]\nname = \"x\"\n");
        assert!(matches!(from_file(&path), Err(ChecksError::Ambiguous { .. })));
        assert!(matches!(from_file(Path::new("/nonexistent")), Err(ChecksError::Unreadable { .. })));
    }

    #[test]
    fn every_built_in_check_is_a_function_that_a_shell_reads() {
        for (_, function, _) in BUILT_IN.iter().filter(|(_, function, _)| *function != REBOOT) {
            assert!(FUNCTIONS.contains(&format!("\n{function}() {{")), "{function}");
        }
        let status = std::process::Command::new("sh")
            .args(["-n", "-c", FUNCTIONS])
            .status()
            .expect("a shell is there");
        assert!(status.success());
        assert!(built_in(false).iter().all(|step| !step.expect_disconnect));
    }
}
