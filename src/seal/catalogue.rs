//! The seal operations: named, each with the text of a shell function.

use serde::Serialize;

/// One thing that sealing can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Operation {
    /// The name in profiles and output.
    pub name: &'static str,
    /// What it does, in one line for `--help` and the docs.
    pub about: &'static str,
    /// Whether another login may be impossible after it: such an operation is not carried out after a failure.
    pub last: bool,
    /// The text: for Linux a shell function `op_<name>`, for Windows the body of a function of PowerShell.
    #[serde(skip)]
    pub(super) text: &'static str,
}

/// All operations for Linux guests, in the order in which they are carried out: what ends the access to the guest
/// comes last.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "package-caches",
        about: "removes downloaded packages (apt, dnf, yum, zypper, apk, pacman); package lists stay",
        last: false,
        text: include_str!("linux/package-caches.sh"),
    },
    Operation {
        name: "temporary-files",
        about: "removes what scripts of the build that were cut off, and connections that were lost, have left",
        last: false,
        text: include_str!("linux/temporary-files.sh"),
    },
    Operation {
        name: "shell-history",
        about: "removes the history files of shells and tools in all homes",
        last: false,
        text: include_str!("linux/shell-history.sh"),
    },
    Operation {
        name: "dhcp-leases",
        about: "removes DHCP leases and what DHCP clients and NetworkManager recognise the machine by",
        last: false,
        text: include_str!("linux/dhcp-leases.sh"),
    },
    Operation {
        name: "random-seed",
        about: "removes the saved random seed, and keeps the shutdown from saving a new one",
        last: false,
        text: include_str!("linux/random-seed.sh"),
    },
    Operation {
        name: "machine-id",
        about: "empties /etc/machine-id, so that each clone gets its own",
        last: false,
        text: include_str!("linux/machine-id.sh"),
    },
    Operation {
        name: "cloud-init",
        about: "runs `cloud-init clean --logs --seed`, so that each clone is set up as on a first boot",
        last: false,
        text: include_str!("linux/cloud-init.sh"),
    },
    Operation {
        name: "logs",
        about: "removes rotated logs, journals and the installer's answers; empties the other files in /var/log",
        last: false,
        text: include_str!("linux/logs.sh"),
    },
    Operation {
        name: "ssh-host-keys",
        about: "removes the SSH host keys, so that each clone makes its own",
        last: true,
        text: include_str!("linux/ssh-host-keys.sh"),
    },
    Operation {
        name: "build-user",
        about: "removes the build's user with its home and sudo rules, and the build's key from all accounts",
        last: true,
        text: include_str!("linux/build-user.sh"),
    },
    Operation {
        name: "leak-gate",
        about: "looks for the build's keys and secrets in all files that were written since it began, and fails naming them",
        last: true,
        text: include_str!("linux/leak-gate.sh"),
    },
    Operation {
        name: "free-space",
        about: "looks for the build's secrets on the whole disks too, and overwrites the free space if they are there",
        last: true,
        text: include_str!("linux/free-space.sh"),
    },
    Operation {
        name: "fstrim",
        about: "gives free blocks back to the disk",
        last: false,
        text: include_str!("linux/fstrim.sh"),
    },
];

/// All operations for Windows guests, in their order.
pub const WINDOWS_OPERATIONS: &[Operation] = &[
    Operation {
        name: "temporary-files",
        about: "empties the temporary folders of Windows and of the build's user, and removes what cut-off scripts left",
        last: false,
        text: include_str!("windows/temporary-files.ps1"),
    },
    Operation {
        name: "event-logs",
        about: "empties the event logs",
        last: false,
        text: include_str!("windows/event-logs.ps1"),
    },
    Operation {
        name: "answer-files",
        about: "removes the installation's answers and the password of its first login",
        last: false,
        text: include_str!("windows/answer-files.ps1"),
    },
    Operation {
        name: "ssh-host-keys",
        about: "removes the SSH host keys, so that each clone makes its own",
        last: true,
        text: include_str!("windows/ssh-host-keys.ps1"),
    },
    Operation {
        name: "sysprep",
        about: "runs `sysprep /generalize /oobe`, and waits for the proof that it is through",
        last: true,
        text: include_str!("windows/sysprep.ps1"),
    },
    Operation {
        name: "remote-access",
        about: "closes WinRM as far as forge's answer file opened it",
        last: true,
        text: include_str!("windows/remote-access.ps1"),
    },
    Operation {
        name: "build-user",
        about: "removes the build's user, and the build's key from all accounts",
        last: true,
        text: include_str!("windows/build-user.ps1"),
    },
];

/// The operations for a family of guests.
#[must_use]
pub fn operations(windows: bool) -> &'static [Operation] {
    if windows { WINDOWS_OPERATIONS } else { OPERATIONS }
}

/// The operation of this name.
#[must_use]
pub fn operation(name: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name)
}

/// The names of all operations, in their order, without those that are switched off.
#[must_use]
pub fn enabled(switches: &std::collections::BTreeMap<String, bool>, windows: bool) -> Vec<String> {
    operations(windows)
        .iter()
        .filter(|operation| switches.get(operation.name).copied().unwrap_or(true))
        .map(|operation| operation.name.to_owned())
        .collect()
}

/// Operations with some of them switched on or off, in their order.
///
/// # Errors
/// The first name that is none.
pub fn switched(
    operations_on: &[String],
    switches: &std::collections::BTreeMap<String, bool>,
    windows: bool,
) -> Result<Vec<String>, String> {
    let known = |name: &&String| !operations(windows).iter().any(|operation| operation.name == **name);
    if let Some(unknown) = switches.keys().find(known) {
        return Err(unknown.clone());
    }
    let on = |name: &str| {
        let before = || operations_on.iter().any(|each| each == name);
        switches.get(name).copied().unwrap_or_else(before)
    };
    let kept = operations(windows).iter().filter(|operation| on(operation.name));
    Ok(kept.map(|operation| operation.name.to_owned()).collect())
}
