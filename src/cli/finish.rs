//! `forge finish`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use forge_machine::{Artefact, BuildState, Finish, Ownership};
use jiff::Timestamp;

use super::gate::{Gate, NOT_PUBLISHED};
use super::options::Global;
use super::signals::cancel_on_signals;
use super::{REFUSED, prepare};
use crate::config::findings::suggest;
use crate::config::{load_given, load_profile};
use crate::engine::error::chain;
use crate::engine::journal::DeadJournal;
use crate::engine::on_error::OnError;
use crate::engine::run::Resumption;
use crate::engine::{Build, NoFaults, run};
use crate::event::{Bus, Ending, Event, MASK, Redactor};
use crate::evidence::{EvidenceSink, Folder};
use crate::plan::Plan;
use crate::provision::{Action, ShellStep, Step};
use crate::remote::{Become, PowerShell};
use crate::seal;
use crate::ui::{self, Style};

/// Options of `forge finish`.
#[derive(Clone, Debug, Args)]
pub struct FinishArgs {
    /// The id of the kept VM, as the failed build printed it
    #[arg(value_name = "VMID")]
    vm: String,
    /// The target on which it was kept, where several kept builds have the same id
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Replaces image files that are there, as for the build
    #[arg(long)]
    force: bool,
    /// Publishes without a trial, whatever the profile says
    #[arg(long)]
    no_test: bool,
    /// Runs this in the guest as root before it is sealed; may be repeated
    #[arg(long = "run", value_name = "COMMAND")]
    runs: Vec<String>,
    /// Shows how to log in to the guest, and waits for Enter before it is sealed (after `--run`)
    #[arg(long)]
    breakpoint: bool,
    /// Switches a seal operation on or off, whatever the profile says; may be repeated
    #[arg(long = "seal", value_name = "NAME=BOOL", value_parser = switch)]
    seal: Vec<(String, bool)>,
    /// A value for a variable of the profile, as for the build; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE")]
    vars: Vec<String>,
    /// A TOML file of values for variables, as for the build; may be repeated, later ones win
    #[arg(long = "var-file", value_name = "FILE")]
    var_files: Vec<PathBuf>,
}

/// Reads `NAME=true` or `NAME=false`.
fn switch(text: &str) -> Result<(String, bool), String> {
    let read = text.split_once('=').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    read.ok_or_else(|| "write NAME=true or NAME=false, as in `[seal]` of the profile".to_owned())
}

impl FinishArgs {
    /// What is done in the guest before it is sealed.
    fn before_seal(&self, windows: bool) -> Vec<Step> {
        let run = |line: &String| {
            let mut step = ShellStep::inline(format!("finish: {line}"), [line.as_str()]);
            step.become_root = Become::Auto;
            step.power_shell = windows.then(PowerShell::default);
            Step::new(step.name.clone(), Action::Shell(step))
        };
        let stop = || Step::new("finish: breakpoint", Action::Breakpoint { note: String::new() });
        self.runs.iter().map(run).chain(self.breakpoint.then(stop)).collect()
    }

    /// Switches the seal's operations as it is told; tells those that are left out against the plan.
    fn switch_seal(&self, plan: &mut Plan, sealed: bool) -> Result<Vec<String>, String> {
        let windows = plan.access.windows;
        let switches: BTreeMap<String, bool> = self.seal.iter().cloned().collect();
        let seal = seal::switched(&plan.seal, &switches, windows).map_err(|name| {
            let known: Vec<_> = seal::operations(windows).iter().map(|operation| operation.name).collect();
            format!("there is no seal operation `{name}`\n    help: {}", suggest(&name, &known))
        })?;
        let added = seal.iter().any(|name| !plan.seal.contains(name));
        if sealed && (added || self.breakpoint || !self.runs.is_empty()) {
            let message =
                "is sealed already, so nobody can log in to it any more, and nothing can be done in it";
            let help = "what is sealed can only be searched less: --seal leak-gate=false";
            return Err(format!("the guest of VM {} {message}\n    help: {help}", self.vm));
        }
        let without = plan.seal.iter().filter(|name| !seal.contains(name)).cloned().collect();
        plan.seal = seal;
        Ok(without)
    }
}

/// Goes on with a kept build; gives the exit code.
pub async fn finish(global: &Global, args: &FinishArgs) -> u8 {
    let redactor = Redactor::default();
    match prepare_finish(global, args, &redactor).await {
        Ok((build, resumption, bus)) => {
            let (plan, hypervisor, cancel) =
                (build.plan.clone(), build.hypervisor.clone(), build.cancel.clone());
            // The trial's evidence goes where the build's went.
            let output = global.evidence_layout.root_of(build.evidence.path());
            let ending = run::resume(build, resumption).await;
            let code = match &ending {
                Ending::Done { artefact: Artefact::Template { vm, .. } } if plan.gate => {
                    let (site, _) = prepare::site(global);
                    match site.target(Some(&plan.target)) {
                        Ok(target) => {
                            let gate = Gate { global, target, output: &output, bus: &bus, cancel: &cancel };
                            gate.try_and_publish(&hypervisor, vm).await
                        }
                        Err(finding) => {
                            prepare::tell(&[finding], &redactor);
                            NOT_PUBLISHED
                        }
                    }
                }
                _ => ending.exit_code(),
            };
            bus.close();
            code
        }
        Err(message) => {
            ui::say(&redactor.text(&format!("error: {message}")));
            REFUSED
        }
    }
}

async fn prepare_finish(
    global: &Global,
    args: &FinishArgs,
    redactor: &Redactor,
) -> Result<(Build, Resumption, Bus), String> {
    let dead = find(global, args)?;
    let (story, journal) = dead.into_parts();
    let Some(kept) = story.kept.clone() else { return Err(format!("VM {} was not kept", args.vm)) };
    let path = story.evidence.join("plan.json");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("the plan {} can't be read: {error}", path.display()))?;
    let mut plan: Plan =
        serde_json::from_str(&text).map_err(|error| format!("{} is no plan: {error}", path.display()))?;
    let recorded = Arc::new(plan.clone());
    let without = args.switch_seal(&mut plan, kept.sealed)?;
    let before_seal = args.before_seal(plan.access.windows);
    if let Finish::Files { replace, .. } = &mut plan.finish {
        *replace |= args.force;
    }
    if args.no_test {
        plan.set_gate(false);
    }
    // A sealed guest's disks are searched too.
    if !kept.sealed || text.contains(MASK) {
        secrets(args, &mut plan, redactor)?;
    }
    let (site, findings) = prepare::site(global);
    if prepare::tell(&findings, redactor) {
        return Err("the site file can't be used".into());
    }
    let target = site.targets.get(&story.target).ok_or_else(|| {
        format!(
            "{} has no target `{}`\n    help: name the site file with --config",
            site.origin, story.target
        )
    })?;
    let hypervisor = prepare::open(target, global, redactor).await.map_err(|finding| finding.to_string())?;
    let connector =
        prepare::connector(&plan.access, redactor).await.map_err(|finding| finding.to_string())?;
    let plan = Arc::new(plan);
    let evidence = Folder::reopen(story.evidence.clone(), redactor.clone()).map_err(|error| chain(&error))?;
    let sink = EvidenceSink::reopen(recorded, evidence.clone()).map_err(|error| chain(&error))?;
    let cancel = cancel_on_signals(global.journals().path().to_owned());
    let bus =
        Bus::start(vec![Style::choose(global.json, global.quiet).sink(), Box::new(sink)], redactor.clone());
    let moment = prepare::moment(&story.evidence);
    let build = Build {
        mark: Ownership {
            nonce: story.nonce,
            chain_id: story.chain_id,
            owner: moment.owner,
            started: story.started,
            heartbeat: Timestamp::now(),
            state: BuildState::Kept,
            memory_mib: None,
        },
        events: bus.events(plan.chain_id.clone()),
        plan,
        hypervisor,
        connector,
        journals: global.journals(),
        evidence,
        media: global.media(),
        cancel,
        on_error: OnError::default(),
        faults: Arc::new(NoFaults),
    };
    for name in without {
        let message = format!("it is sealed without `{name}`, as --seal says");
        build.events.emit(Event::Warning { message, help: String::new() });
    }
    Ok((build, Resumption { journal, kept, undos: story.undos, before_seal }, bus))
}

/// Learns the secrets of the build's profile again: the plan of its evidence has stars in their place, and a guest that
/// is not sealed yet is still to be searched for them. What the template is given of them at its end is put back.
fn secrets(args: &FinishArgs, plan: &mut Plan, redactor: &Redactor) -> Result<(), String> {
    let Some((file, _)) = plan.profile_files.first() else { return Ok(()) };
    let (given, mut findings) = load_given(&args.vars, &args.var_files, prepare::environment());
    let (profile, wrong) = load_profile(file, &given);
    findings.extend(wrong);
    prepare::tell(&findings, redactor);
    let profile = profile.ok_or_else(|| {
        format!(
            "the profile {} can't be read again, so its secrets can be neither hidden nor looked for in the guest\n    \
             help: run it in the folder of the build, and give the variables as for the build (--var, --var-file, environment)",
            file.display()
        )
    })?;
    profile.secrets.iter().for_each(|secret| redactor.add(secret));
    for (key, value) in plan.machine.extra.iter_mut().filter(|(_, value)| value.contains(MASK)) {
        value.clone_from(profile.vm.proxmox.get(key).ok_or_else(|| {
            format!(
                "the profile {} does not say `{key}` any more, which is a secret of the build",
                file.display()
            )
        })?);
    }
    Ok(())
}

fn find(global: &Global, args: &FinishArgs) -> Result<DeadJournal, String> {
    let journals = global.journals();
    let vm = &args.vm;
    let of_target = |target: &str| args.target.as_deref().is_none_or(|wanted| wanted == target);
    let (mut found, mut kept, mut left, mut unread) = (Vec::new(), Vec::new(), false, Vec::new());
    for dead in journals.dead().map_err(|error| chain(&error))? {
        let dead = match dead {
            Ok(dead) => dead,
            Err(error) => {
                unread.push(format!("\n    {}", chain(&error)));
                continue;
            }
        };
        let story = &dead.story;
        left |= story.left.as_ref().is_some_and(|left| left.id == *vm) && of_target(&story.target);
        let Some(build) = &story.kept else { continue };
        kept.push(format!("{} of {} ({})", build.vm.id, story.target, story.profile));
        if build.vm.id == *vm && of_target(&story.target) {
            found.push(dead);
        }
    }
    if found.len() > 1 {
        return Err(format!(
            "several kept builds have the VM {vm}: {}\n    help: name its target with --target",
            kept.join(", ")
        ));
    }
    if let Some(found) = found.pop() {
        return Ok(found);
    }
    if left {
        return Err(format!(
            "VM {vm} was left by --on-error before its provisioners had succeeded, so there is nothing to finish\n    help: `forge gc --left` removes it"
        ));
    }
    let there =
        if kept.is_empty() { "none is kept".to_owned() } else { format!("kept: {}", kept.join(", ")) };
    Err(format!(
        "no kept build has the VM {vm} ({there}){}\n    help: the journal is on the machine that built it, in {} or the folder given with --state-dir",
        unread.concat(),
        journals.path().display()
    ))
}
