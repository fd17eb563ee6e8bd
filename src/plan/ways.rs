//! The ways to the guest that a profile allows: what can't be done on them, found before anything is made. Pure.

use super::make::located;
use super::{Delivery, Plan};
use crate::config::Finding;
use crate::config::profile::Profile;
use crate::provision::{Action, LocalStep, LocalWork, Step};
use crate::remote::Via;

/// What can't be done on the ways to the guest that the profile allows.
pub(super) fn findings(profile: &Profile, plan: &Plan) -> Vec<Finding> {
    let via = &plan.access.via;
    let mut findings = Vec::new();
    if via.contains(&Via::Agent) && profile.vm.agent == Some(false) {
        let message = "the guest agent can't be the way to the guest when its device is switched off";
        findings.push(located(profile, "access.via", message).help("leave `vm.agent` out, or `agent` here"));
    }
    if via.contains(&Via::Serial) && plan.access.ssh.credentials.password.is_none() {
        let why = match (plan.access.create, plan.seed.delivery, &plan.seed.answers) {
            (false, ..) => Some("the user is the source's"),
            (true, Delivery::None, _) => Some("nothing carries a seed to the guest"),
            (true, _, Some(_)) => Some("an installer makes the user"),
            _ => None,
        };
        if let Some(why) = why {
            let message = format!("the serial console asks for a password, and {why}: forge knows none");
            let finding = located(profile, "access.via", message);
            findings.push(finding.help("name it: access.password = { env = \"…\" }, or leave `serial` out"));
        }
    }
    if via.contains(&Via::WinRm) {
        let named = plan.access.ssh.credentials.password.is_some();
        let made = plan.access.create && super::windows::makes_user(plan);
        if !made && !named {
            let message = "WinRM asks for a password, and no answer file makes this user: forge knows none";
            let finding = located(profile, "access.via", message);
            findings.push(finding.help("name it: access.password = { env = \"…\" }"));
        }
        let winrm = &plan.access.winrm;
        if made && winrm.use_ssl && !winrm.insecure {
            let message =
                "the certificate is one that Windows makes itself, which nobody vouches for or knows";
            findings.push(located(profile, "access.winrm.use-ssl", message).help(
                "say `insecure = true` in `[access.winrm]`, or leave `use-ssl` out: NTLM seals by itself",
            ));
        }
        if !plan.access.ssh.bastions.is_empty() || plan.access.ssh.proxy.is_some() {
            let message = "WinRM goes straight to the guest: bastions and proxies are for SSH";
            findings.push(located(profile, "access.via", message).help("leave them out, or `winrm`"));
        }
    }
    if plan.access.ssh.host_key_in_seed {
        let why = match (plan.seed.delivery, &plan.seed.answers) {
            _ if !via.contains(&Via::Ssh) => Some("nothing asks for it without SSH"),
            (_, Some(_)) => Some("an installer's answers have no place for one"),
            (Delivery::None, _) => Some("nothing carries a seed to the guest"),
            _ if plan.seed.user_data.as_ref().is_some_and(|data| data.get("ssh_keys").is_some()) => {
                Some("`seed.user-data` gives it `ssh_keys` of its own")
            }
            _ => None,
        };
        if let Some(why) = why {
            let message = format!("the seed can't give the guest a host key: {why}");
            let finding = located(profile, "access.host-key", message);
            findings
                .push(finding.help("leave it out: the first key that is shown is recorded, and must stay"));
        }
    }
    findings.extend(super::windows::findings(profile, plan));
    if plan.access.windows && via.iter().any(|via| matches!(via, Via::Agent | Via::Serial)) {
        let message = "on Windows neither the agent nor the serial console is a way to the guest yet";
        findings.push(located(profile, "access.via", message).help("there are: ssh, winrm"));
    }
    let ansible =
        |step: &&Step| matches!(&step.action, Action::Local(LocalStep { what: LocalWork::Ansible(_), .. }));
    if let (false, Some(step)) = (via.contains(&Via::Ssh), plan.provision.iter().find(ansible)) {
        let message = format!("`{}` needs SSH: Ansible logs in to the guest itself", step.name);
        findings.push(located(profile, "access.via", message).help("name `ssh` among the ways to the guest"));
    }
    let credentials = &plan.access.ssh.credentials;
    if let (true, Some(step)) =
        (!plan.access.knows_build_key() && !credentials.agent_auth, plan.provision.iter().find(ansible))
    {
        let why = match (&credentials.key_file, &credentials.key_passphrase) {
            (None, _) => Some("the guest does not know the build's key, and no key file is named"),
            (Some(_), Some(_)) => Some("it can't be told the passphrase of `access.key-file`"),
            (Some(_), None) => None,
        };
        if let Some(why) = why {
            let message = format!("`{}`: Ansible logs in to the guest itself, and {why}", step.name);
            let advice = "load the key into an ssh-agent and say `access.agent-auth = true`";
            findings.push(located(profile, "access", message).help(advice).warning());
        }
    }
    findings
}
