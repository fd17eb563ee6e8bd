//! What can't be done with a Windows yet, and what can't be done with anything else.

use forge_http_seed::answers::Kind;

use super::Plan;
use super::make::located;
use crate::config::Finding;
use crate::config::profile::Profile;
use crate::provision::{Action, LocalStep, LocalWork, Step};

/// What a step does that its guest can't, and what to write instead.
fn wrong(step: &Step, windows: bool) -> Option<(&'static str, &'static str)> {
    match &step.action {
        Action::Shell(shell) if windows && shell.power_shell.is_none() => {
            Some(("Windows has no /bin/sh", "write `powershell = [...]`, or name a script that ends in .ps1"))
        }
        Action::Shell(shell) if !windows && shell.power_shell.is_some() => {
            Some(("PowerShell is run in Windows only", "say `family = \"windows\"` in `[os]`"))
        }
        Action::WindowsRestart(_) | Action::WindowsUpdate(_) if !windows => {
            Some(("this is for Windows", "say `family = \"windows\"` in `[os]`, or write `reboot = true`"))
        }
        Action::AnsibleLocal { .. } if windows => {
            Some(("Ansible does not run on Windows", "write `shell-local` with an inventory of your own"))
        }
        Action::Local(LocalStep { what: LocalWork::Ansible(_), .. }) if windows => Some((
            "forge writes no inventory for Windows yet",
            "write `shell-local` with an inventory of your own",
        )),
        Action::WaitFor { .. } if windows => {
            Some(("this looks with the means of Linux", "write `powershell` with `max-retries`"))
        }
        _ => None,
    }
}

/// Whether an answer file makes the user, with a password.
pub(super) fn makes_user(plan: &Plan) -> bool {
    plan.seed.answers.as_ref().is_some_and(|answers| answers.kind == Kind::Autounattend)
}

/// What is wrong with a plan's steps for its family of guests.
pub(super) fn findings(profile: &Profile, plan: &Plan) -> Vec<Finding> {
    let windows = plan.access.windows;
    let mut findings: Vec<Finding> = plan
        .provision
        .iter()
        .filter_map(|step| {
            let (message, help) = wrong(step, windows)?;
            Some(located(profile, "provision", format!("`{}`: {message}", step.name)).help(help))
        })
        .collect();
    if windows && plan.access.create && makes_user(plan) && plan.access.ssh.credentials.password.is_some() {
        let message = "the answer file makes this user with a password of its own, so there would be two";
        let help = "leave it out (`password` in `[seed.vars]` names that password), or say `create = false`";
        findings.push(located(profile, "access.password", message).help(help));
    }
    if windows && plan.seal_dry_run {
        let message = "a dry run of sealing is for Linux: sysprep has none";
        findings.push(located(profile, "seal.dry-run", message).help("leave it out"));
    }
    findings
}
