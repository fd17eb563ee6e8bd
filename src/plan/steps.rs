//! The provisioners of a profile as the steps of a plan.

use std::path::PathBuf;

use crate::config::profile::{self, ProvisionerKind};
use crate::provision::{
    Action, AnsibleWork, FileStep, LocalStep, LocalWork, RESTART_COMMAND, ShellSource, ShellStep, Step,
    WindowsRestart, WindowsUpdate,
};
use crate::remote::Become;

/// How long a guest may take to be back after a reboot step without a limit of its own.
const REBOOT_LIMIT: std::time::Duration = std::time::Duration::from_secs(600);
/// How long a wait-for step without a limit of its own waits.
const WAIT_LIMIT: std::time::Duration = std::time::Duration::from_secs(300);

/// A provisioner as a step of the plan.
pub(super) fn step(provisioner: &profile::Provisioner, windows: bool) -> Step {
    let local = |what, dir: &PathBuf| {
        Action::Local(LocalStep {
            what,
            env: provisioner.env.clone(),
            valid_exit_codes: provisioner.valid_exit_codes.clone(),
            timeout: provisioner.timeout,
            dir: dir.clone(),
        })
    };
    let action = match &provisioner.kind {
        ProvisionerKind::Shell => Action::Shell(shell(provisioner)),
        ProvisionerKind::ShellLocal { dir } => local(LocalWork::Shell(provisioner.script.clone()), dir),
        ProvisionerKind::Exec { words, dir } => local(LocalWork::Exec(words.clone()), dir),
        ProvisionerKind::Ansible { work, dir } => {
            let become_root = provisioner.r#become != Become::No;
            local(LocalWork::Ansible(AnsibleWork { become_root, ..work.clone() }), dir)
        }
        ProvisionerKind::AnsibleLocal { work } => Action::AnsibleLocal {
            work: AnsibleWork { become_root: provisioner.r#become != Become::No, ..work.clone() },
            // Ansible itself becomes root.
            script: ShellStep { become_root: Become::No, ..shell(provisioner) },
        },
        ProvisionerKind::File { direction, local, remote, content, mode } => Action::File(FileStep {
            direction: *direction,
            local: local.clone(),
            remote: remote.clone(),
            content: content.clone(),
            mode: *mode,
            become_root: provisioner.r#become,
            windows,
        }),
        ProvisionerKind::Reboot if windows => Action::WindowsRestart(WindowsRestart {
            command: RESTART_COMMAND.to_owned(),
            check: None,
            limit: provisioner.timeout.unwrap_or(REBOOT_LIMIT),
        }),
        // Nobody but root may reboot.
        ProvisionerKind::Reboot => Action::Reboot {
            become_root: if provisioner.r#become == Become::No { Become::Auto } else { provisioner.r#become },
            limit: provisioner.timeout.unwrap_or(REBOOT_LIMIT),
        },
        ProvisionerKind::WindowsRestart(work) => Action::WindowsRestart(WindowsRestart {
            limit: provisioner.timeout.unwrap_or(work.limit),
            ..work.clone()
        }),
        ProvisionerKind::WindowsUpdate(work) => Action::WindowsUpdate(WindowsUpdate {
            limit: provisioner.timeout.unwrap_or(work.limit),
            ..work.clone()
        }),
        ProvisionerKind::WaitFor(condition) => {
            Action::WaitFor { condition: condition.clone(), limit: provisioner.timeout.unwrap_or(WAIT_LIMIT) }
        }
        ProvisionerKind::Breakpoint(note) => Action::Breakpoint { note: note.clone() },
    };
    Step {
        pause_before: provisioner.pause_before,
        retries: provisioner.max_retries,
        on_error: provisioner.on_error,
        ..Step::new(provisioner.name.clone(), action)
    }
}

fn shell(provisioner: &profile::Provisioner) -> ShellStep {
    let source = match &provisioner.file {
        Some(path) => ShellSource::Script { path: path.clone(), content: provisioner.script.clone() },
        None => ShellSource::Inline(provisioner.script.lines().map(str::to_owned).collect()),
    };
    ShellStep {
        env: provisioner.env.clone(),
        become_root: provisioner.r#become,
        valid_exit_codes: provisioner.valid_exit_codes.clone(),
        timeout: provisioner.timeout,
        expect_disconnect: provisioner.expect_disconnect,
        interpreter: provisioner.interpreter.clone(),
        work_dir: provisioner.work_dir.clone(),
        start_retry: provisioner.start_retry,
        power_shell: provisioner.power_shell.clone(),
        ..ShellStep::new(provisioner.name.clone(), source)
    }
}
