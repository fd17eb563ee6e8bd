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

    /// Something that a clone has: a file, one that the template had already, or a program.
    enum Thing {
        New(&'static str, String),
        Old(&'static str),
        Program(&'static str, String),
    }

    fn new(name: &'static str, text: &str) -> Thing {
        Thing::New(name, text.to_owned())
    }

    fn program(name: &'static str, text: &str) -> Thing {
        Thing::Program(name, text.to_owned())
    }

    /// Programs that tell of a disk of 4 GiB, its partition and the file system on that.
    fn disk(partition: u64, file_system: u64) -> Vec<Thing> {
        let lsblk = format!(
            "case \"$*\" in *PKNAME*) echo vda;; *SIZE*vda1) echo {partition};; *SIZE*) echo {FOUR_GIB};; \
             *) echo vda; echo vda1;; esac"
        );
        let df = format!("echo Filesystem; echo /dev/vda1 {file_system} 1 1 1% /");
        vec![new("proc/mounts", "/dev/vda1 / ext4 rw 0 0\n"), program("lsblk", &lsblk), program("df", &df)]
    }

    const FOUR_GIB: u64 = 4 << 30;
    const MIB: u64 = 1 << 20;

    /// A folder that stands for a clone.
    struct Rooted(tempfile::TempDir);

    impl Rooted {
        fn new(things: &[Thing]) -> Self {
            let rooted = Self(tempfile::tempdir().unwrap());
            let folders =
                ["bin", "etc/ssh", "root/.ssh", "home/forge/.ssh", "run/systemd/system", "proc", "var/tmp"];
            for folder in folders {
                std::fs::create_dir_all(rooted.0.path().join(folder)).unwrap();
            }
            rooted.put(&new("proc/stat", "cpu 1\nbtime 1000000000\n"));
            things.iter().for_each(|thing| rooted.put(thing));
            rooted
        }

        fn put(&self, thing: &Thing) {
            use std::os::unix::fs::PermissionsExt as _;
            let at = |name: &str| self.0.path().join(name);
            match thing {
                Thing::New(name, text) => std::fs::write(at(name), text).unwrap(),
                Thing::Old(name) => {
                    std::fs::write(at(name), "0123456789abcdef\n").unwrap();
                    let before = std::time::UNIX_EPOCH + Duration::from_secs(900_000_000);
                    let file = std::fs::File::options().write(true).open(at(name)).unwrap();
                    file.set_modified(before).unwrap();
                }
                Thing::Program(name, text) => {
                    let path = at("bin").join(name);
                    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
                }
            }
        }

        /// How a function ends there, and its words.
        fn run(&self, function: &str) -> (i32, String) {
            let root = self.0.path().display().to_string();
            let mut text = FUNCTIONS.replace("@KEY_COMMENT@", BUILD_KEY_COMMENT);
            for folder in ["/etc/", "/root/", "/home/", "/run/", "/proc/", "/var/tmp/"] {
                for before in [" ", ">", "\""] {
                    text = text.replace(&format!("{before}{folder}"), &format!("{before}{root}{folder}"));
                }
            }
            let output = std::process::Command::new("sh")
                .args(["-euc", &format!("{text}\n{function}\n")])
                .env("PATH", format!("{root}/bin:{}", std::env::var("PATH").unwrap()))
                .env("FORGE_HOSTNAME", "sentinel")
                .env("FORGE_USER", "forge")
                .env("FORGE_PUBLIC_KEY", "KEY-OF-TRIAL")
                .env("FORGE_DISK_SIZE", FOUR_GIB.to_string())
                .output()
                .unwrap();
            let said = [output.stdout, output.stderr].concat();
            (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).trim().to_owned())
        }
    }

    #[test]
    fn each_built_in_check_fails_on_what_it_is_for_and_on_nothing_else() {
        let id = "0123456789abcdef0123456789abcdef\n";
        let key = |owner: &str| format!("ssh-ed25519 {owner} {BUILD_KEY_COMMENT}\n");
        let units = "case $1 in list-units) echo nginx.service x;; esac";
        for (function, things, code, words) in [
            ("machine_id", vec![new("etc/machine-id", id)], 0, "0123456789abcdef"),
            ("machine_id", vec![Thing::Old("etc/machine-id")], 1, "every clone has the same"),
            ("machine_id", vec![new("etc/machine-id", "uninitialized\n")], 1, "is no id"),
            ("machine_id", vec![], SKIPPED, "no machine-id"),
            ("host_keys", vec![new("etc/ssh/ssh_host_rsa_key", "k")], 0, "new: ssh_host_rsa_key"),
            ("host_keys", vec![Thing::Old("etc/ssh/ssh_host_rsa_key")], 1, "every clone has the same"),
            ("host_keys", vec![], SKIPPED, "no SSH host key"),
            ("host_name", vec![program("hostname", "echo sentinel")], 0, "sentinel"),
            ("host_name", vec![program("hostname", "echo debian")], 1, "was given sentinel"),
            ("user", vec![program("id", "echo forge"), program("sudo", "true")], 0, "root by sudo"),
            ("user", vec![program("id", "echo forge"), program("sudo", "false")], 1, "may not become root"),
            ("user", vec![program("id", "echo debian")], 1, "logged in as debian"),
            ("agent", vec![program("pidof", "echo 9")], 0, "runs"),
            ("agent", vec![program("pidof", "exit 1")], 1, "does not run"),
            ("cloud_init", vec![program("cloud-init", "echo status: done")], 0, "done"),
            ("cloud_init", vec![program("cloud-init", "echo status: done; exit 2")], 0, "done"),
            ("cloud_init", vec![program("cloud-init", "echo status: error; exit 1")], 1, "status 1"),
            ("failed_units", vec![program("systemctl", "true")], 0, "none"),
            ("failed_units", vec![program("systemctl", units)], 1, "failed: nginx.service"),
            ("build_key", vec![], 0, "none"),
            ("build_key", vec![new("home/forge/.ssh/authorized_keys", &key("KEY-OF-TRIAL"))], 0, "none"),
            ("build_key", vec![new("root/.ssh/authorized_keys", &key("OTHER"))], 1, "the key of a build"),
            ("disk", disk(FOUR_GIB - MIB, FOUR_GIB - 100 * MIB), 0, "/ has 3996 MiB"),
            ("disk", disk(2048 * MIB, 2048 * MIB), 1, "the disk grew to 4096 MiB"),
            ("disk", disk(FOUR_GIB - MIB, 2048 * MIB), 1, "its file system to 2048 MiB"),
            ("same_again", vec![], 1, "nothing was noted"),
        ] {
            let (ended, said) = Rooted::new(&things).run(function);
            assert!(ended == code && said.contains(words), "{function}: {ended}, not {code}: {said}");
        }
        let clone = Rooted::new(&[
            program("hostname", "echo sentinel"),
            new("etc/machine-id", id),
            new("etc/ssh/ssh_host_rsa_key", "one"),
        ]);
        assert_eq!(clone.run("remember").0, 0);
        let (ended, said) = clone.run("same_again");
        assert_eq!((ended, said.as_str()), (0, "host name, machine-id and host keys are the same"));
        clone.put(&new("etc/ssh/ssh_host_rsa_key", "another"));
        let (ended, said) = clone.run("same_again");
        assert!(ended == 1 && said.contains("changed at the second boot"), "{said}");
    }
}
