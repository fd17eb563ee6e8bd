//! `forge finish`.

use std::sync::Arc;

use clap::Args;
use forge_machine::{BuildState, Ownership};
use jiff::Timestamp;

use super::options::Global;
use super::signals::cancel_on_signals;
use super::{REFUSED, prepare};
use crate::engine::error::chain;
use crate::engine::journal::DeadJournal;
use crate::engine::on_error::OnError;
use crate::engine::run::Resumption;
use crate::engine::{Build, NoFaults, run};
use crate::event::{Bus, Redactor};
use crate::evidence::{EvidenceSink, Folder};
use crate::plan::Plan;
use crate::ui::{self, Style};

/// Options of `forge finish`.
#[derive(Clone, Debug, Args)]
pub struct FinishArgs {
    /// The id of the kept VM, as the failed build printed it
    #[arg(value_name = "VMID")]
    vm: String,
}

/// Goes on with a kept build; gives the exit code.
pub async fn finish(global: &Global, args: &FinishArgs) -> u8 {
    let redactor = Redactor::default();
    match prepare_finish(global, args, &redactor).await {
        Ok((build, resumption, bus)) => {
            let ending = run::resume(build, resumption).await;
            bus.close();
            ending.exit_code()
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
    let dead = find(global, &args.vm)?;
    let (story, journal) = dead.into_parts();
    let Some(kept) = story.kept.clone() else { return Err(format!("VM {} was not kept", args.vm)) };
    let path = story.evidence.join("plan.json");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("the plan {} can't be read: {error}", path.display()))?;
    let plan: Plan =
        serde_json::from_str(&text).map_err(|error| format!("{} is no plan: {error}", path.display()))?;
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
    let sink = EvidenceSink::reopen(plan.clone(), evidence.clone()).map_err(|error| chain(&error))?;
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
            state: BuildState::Building,
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
    Ok((build, Resumption { journal, kept, undos: story.undos }, bus))
}

fn find(global: &Global, vm: &str) -> Result<DeadJournal, String> {
    let journals = global.journals();
    let dead = journals.dead().map_err(|error| chain(&error))?;
    let mut kept = Vec::new();
    for dead in dead.into_iter().flatten() {
        if dead.story.left.as_ref().is_some_and(|left| left.id == vm) {
            return Err(format!(
                "VM {vm} was left by --on-error before its provisioners had succeeded, so there is nothing to finish\n    help: `forge gc --left` removes it"
            ));
        }
        match &dead.story.kept {
            Some(build) if build.vm.id == vm => return Ok(dead),
            Some(build) => kept.push(format!("{} ({})", build.vm.id, dead.story.profile)),
            None => {}
        }
    }
    let there =
        if kept.is_empty() { "none is kept".to_owned() } else { format!("kept: {}", kept.join(", ")) };
    Err(format!(
        "no kept build has the VM {vm} ({there})\n    help: the journal is on the machine that built it, in {} or the folder given with --state-dir",
        journals.path().display()
    ))
}
