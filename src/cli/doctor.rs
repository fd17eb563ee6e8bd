//! `forge doctor`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use forge_machine::{Diagnosis, Health, Hypervisor};
use serde::Serialize;

use super::build::REPLAY_LIMIT;
use super::options::Global;
use super::prepare::Prepared;
use super::signals::cancel_on_signals;
use super::throwaway::try_guest;
use super::{REFUSED, prepare};
use crate::config::site::{Target, TargetKind};
use crate::config::{Finding, Profile, load_given, load_profile};
use crate::event::Redactor;
use crate::event::phrase::Tone;
use crate::media::settle;
use crate::plan::explain::source_in_words;
use crate::stages::connect::SshConnector;
use crate::ui;

/// Options of `forge doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Profiles that are to be built: what each of them lacks is looked for too
    #[arg(value_name = "PROFILE")]
    profiles: Vec<PathBuf>,
    /// The target of the site file [default: its default-target, or the only one]
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// A value for a variable of the profiles; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE")]
    vars: Vec<String>,
    /// A TOML file of values for variables; may be repeated, later ones win
    #[arg(long = "var-file", value_name = "FILE")]
    var_files: Vec<PathBuf>,
    /// Makes a throw-away VM from the boot VM of each of the profiles: does a guest get an address, fetch its seed and let
    /// forge in? It is removed in any case
    #[arg(long, requires = "profiles")]
    guest: bool,
    /// The folder under which builds would keep evidence
    #[arg(long, value_name = "DIR", default_value = "output")]
    output: PathBuf,
}

/// What was found, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report<'a> {
    target: &'a str,
    health: Health,
    checks: &'a [Diagnosis],
}

/// Looks at everything; gives the exit code: 0 when nothing fails, else 3, or the worse one of a throw-away VM.
pub async fn doctor(global: &Global, args: &DoctorArgs) -> u8 {
    let redactor = Redactor::default();
    let (site, findings) = prepare::site(global);
    if prepare::tell(&findings, &redactor) {
        return REFUSED;
    }
    let target = match site.target(args.target.as_deref()) {
        Ok(target) => target,
        Err(finding) => {
            prepare::tell(&[finding], &redactor);
            return REFUSED;
        }
    };
    let mut found = vec![Diagnosis::pass("site file", format!("{}, target {}", site.origin, target.name))];
    let mut codes = Vec::new();
    found.extend(on_target(global, args, target, &redactor, &mut codes).await);
    if let TargetKind::Qemu(qemu) = &target.kind {
        found.push(crate::doctor::folder("images", &qemu.images));
    }
    found.push(crate::doctor::folder("evidence", &args.output));
    found.push(crate::doctor::folder("journals", &global.state()));
    let worst = found.iter().map(|each| each.health).max().unwrap_or(Health::Pass);
    if global.json {
        let report = Report { target: &target.name, health: worst, checks: &found };
        let text = serde_json::to_string_pretty(&report).unwrap_or_default();
        ui::data(&redactor.text(&format!("{text}\n")));
    } else {
        ui::data(&redactor.text(&shown(&found)));
    }
    codes.push(if worst == Health::Fail { REFUSED } else { 0 });
    super::build::worst(codes.into_iter())
}

async fn on_target(
    global: &Global,
    args: &DoctorArgs,
    target: &Target,
    redactor: &Redactor,
    codes: &mut Vec<u8>,
) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    if let TargetKind::Proxmox(proxmox) = &target.kind {
        found.extend(crate::doctor::names(proxmox).await);
    }
    let (given, wrong) = load_given(&args.vars, &args.var_files, prepare::environment());
    found.extend(wrong.iter().map(|finding| told("variables", finding)));
    let mut profiles = Vec::new();
    for file in &args.profiles {
        let (profile, wrong) = load_profile(file, &given);
        found.extend(wrong.iter().map(|finding| told(&format!("profile {}", file.display()), finding)));
        profiles.extend(profile);
    }
    profiles.iter().for_each(|profile| profile.secrets.iter().for_each(|secret| redactor.add(secret)));
    match prepare::open(target, global, redactor).await {
        Ok(hypervisor) => {
            found.extend(hypervisor.diagnose(&crate::doctor::checkup(target)).await);
            // Where nothing answers, each profile would only say so again.
            let reached = !found.iter().any(|each| {
                each.health == Health::Fail
                    && ["name", "connection", "certificate", "login"].contains(&each.check.as_str())
            });
            let mut plans = Vec::new();
            if reached {
                for profile in &mut profiles {
                    let (more, plan) = on_profile(global, args, target, &hypervisor, profile, redactor).await;
                    found.extend(more);
                    plans.extend(plan);
                }
            }
            if args.guest && !plans.is_empty() {
                let journals = global.journals();
                super::gc::replay_quietly(&journals, &hypervisor, REPLAY_LIMIT).await;
                let cancel = cancel_on_signals(journals.path().to_owned());
                for prepared in plans {
                    let shown = try_guest(global, &args.output, prepared, &cancel, redactor).await;
                    found.push(shown.found);
                    codes.push(shown.code);
                    if cancel.is_cancelled() {
                        break;
                    }
                }
            }
        }
        Err(finding) => found.push(told("secret", &finding)),
    }
    found.push(crate::doctor::seed_server(&target.seed).await);
    found.extend(crate::doctor::programs(&profiles));
    found
}

/// What planning a profile finds, and the plan where nothing speaks against it.
async fn on_profile(
    global: &Global,
    args: &DoctorArgs,
    target: &Target,
    hypervisor: &Arc<dyn Hypervisor>,
    profile: &mut Profile,
    redactor: &Redactor,
) -> (Vec<Diagnosis>, Option<Prepared>) {
    let check = format!("profile {}", profile.name);
    let store = global.media();
    prepare::hide_passwords(profile, redactor);
    let mut findings = settle::sums(profile, &store, &prepare::Aloud(redactor)).await;
    let planned = prepare::plan_one(profile, target, hypervisor, &store, &args.output, Vec::new()).await;
    let prepared = match planned {
        Ok((plan, takes, moment, more)) => {
            findings.extend(more);
            let (hypervisor, connector) = (hypervisor.clone(), Arc::new(SshConnector::default()));
            plan.map(|plan| Prepared { plan, takes, hypervisor, connector, moment })
        }
        Err(more) => {
            findings.extend(more);
            None
        }
    };
    let mut found: Vec<Diagnosis> = findings.iter().map(|finding| told(&check, finding)).collect();
    if let Some(prepared) = &prepared {
        let source = source_in_words(&prepared.plan);
        found.push(Diagnosis::pass(check, format!("it can be built: {source}")));
    }
    (found, prepared)
}

fn told(check: &str, finding: &Finding) -> Diagnosis {
    let words = match &finding.file {
        Some(file) => format!("{}:{}: {}", file.display(), finding.line, finding.message),
        None => finding.message.clone(),
    };
    let help = finding.help.clone().unwrap_or_default();
    match finding.fatal {
        true => Diagnosis::fail(check, words, help),
        false => Diagnosis::warn(check, words, help),
    }
}

/// A line for each, with what to do below it.
fn shown(found: &[Diagnosis]) -> String {
    let width = found.iter().map(|each| each.check.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for each in found {
        let (word, tone) = match each.health {
            Health::Pass => ("pass", Tone::Good),
            Health::Warn => ("warn", Tone::Warn),
            Health::Fail => ("FAIL", Tone::Bad),
        };
        let word = ui::paint::paint_data(tone, word);
        let blanks = " ".repeat(width.saturating_sub(each.check.chars().count()));
        let text = each.found.replace('\n', " ");
        out.push_str(&format!("{word}  {}{blanks}  {text}\n", each.check));
        if !each.help.is_empty() {
            out.push_str(&format!("      {}  help: {}\n", " ".repeat(width), each.help.replace('\n', " ")));
        }
    }
    let count = |health| found.iter().filter(|each| each.health == health).count();
    out.push_str(&format!(
        "{} passed, {} to be warned of, {} failed\n",
        count(Health::Pass),
        count(Health::Warn),
        count(Health::Fail)
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_a_line_and_what_to_do_stands_below_it() {
        let found = [
            Diagnosis::pass("login", "forge@pve!build is known"),
            Diagnosis::fail("bridge vmbr9", "there is no bridge `vmbr9`", "did you mean `vmbr0`?"),
        ];
        assert_eq!(
            shown(&found),
            "pass  login         forge@pve!build is known\n\
             FAIL  bridge vmbr9  there is no bridge `vmbr9`\n\
             \x20                   help: did you mean `vmbr0`?\n\
             1 passed, 0 to be warned of, 1 failed\n"
        );
    }
}
