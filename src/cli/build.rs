//! `forge build`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use forge_machine::{BuildState, Diagnosis, Finish, Health, Ownership};
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio_util::sync::CancellationToken;

use super::asking::AtTerminal;
use super::gate::{Gate, Passed};
use super::options::{Global, Selection, Trying};
use super::prepare::{Prepared, Refusal, prepare};
use super::signals::cancel_on_signals;
use super::test::UNTRIED;
use super::{REFUSED, USAGE};
use crate::engine::error::chain;
use crate::engine::on_error::OnError;
use crate::engine::{Build, NoFaults, run};
use crate::event::{Bus, Ending, Redactor};
use crate::evidence::{EvidenceSink, Folder};
use crate::provision::is_interactive;
use crate::seal;
use crate::ui::{self, Style};

/// How long the journals of dead builds may hold a new build up.
pub(super) const REPLAY_LIMIT: Duration = Duration::from_secs(30);

/// Options of `forge build`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = seal_operations())]
pub struct BuildArgs {
    #[command(flatten)]
    selection: Selection,
    /// The folder under which evidence is kept
    #[arg(long, value_name = "DIR", default_value = "output")]
    output: PathBuf,
    /// How many builds run at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
    /// Replaces image files of the same name (QEMU); templates are never replaced
    #[arg(long)]
    force: bool,
    /// Shows the guest's screen below the progress, on a terminal
    #[arg(long)]
    screen: bool,
    /// What is done with the VM of a build that fails before its keep point
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    on_error: OnErrorArg,
    #[command(flatten)]
    trying: Trying,
    /// Plans and checks, and stops before anything is changed
    #[arg(long)]
    dry_run: bool,
}

/// The catalogue of the seal, for `--help`.
fn seal_operations() -> String {
    let of = |operations: &'static [seal::Operation]| -> String {
        let width = operations.iter().map(|operation| operation.name.len()).max().unwrap_or(0);
        operations.iter().map(|each| format!("  {:width$}  {}\n", each.name, each.about)).collect()
    };
    format!(
        "Seal operations, each on unless it is switched off in `[seal]` (`dry-run = true` only tells what they would do):\n{}\n\
         Seal operations of Windows, in their order, without a dry run:\n{}",
        of(seal::OPERATIONS),
        of(seal::WINDOWS_OPERATIONS)
    )
}

/// What `--on-error` takes.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum OnErrorArg {
    /// Runs the `on-error` steps, then removes it
    #[default]
    Cleanup,
    /// Runs the `on-error` steps, then leaves it as it is
    #[value(alias = "run-cleanup-provisioner")]
    Keep,
    /// Leaves it as it is
    Abort,
    /// Asks; a provisioner that failed can be tried again
    Ask,
}

impl OnErrorArg {
    fn for_the_engine(self, global: &Global) -> OnError {
        match self {
            Self::Ask if !is_interactive() => {
                ui::say(
                    "warning: --on-error=ask needs a terminal: a build that fails is cleaned up, as without it",
                );
                OnError::CleanUp
            }
            Self::Cleanup => OnError::CleanUp,
            Self::Keep => OnError::Keep,
            Self::Abort => OnError::Abort,
            Self::Ask => OnError::Ask(Arc::new(AtTerminal { aloud: global.json })),
        }
    }
}

/// Builds; gives the exit code.
pub async fn build(global: &Global, args: &BuildArgs) -> u8 {
    let redactor = Redactor::default();
    let choice = args.trying.choice();
    let mut prepared = match prepare(global, &args.selection, choice, &args.output, &redactor).await {
        Ok(prepared) => prepared,
        Err(Refusal(code)) => return code,
    };
    if let Some(code) = refuse_existing(&prepared, args) {
        return code;
    }
    for each in &mut prepared {
        if let Finish::Files { replace, .. } = &mut each.plan.finish {
            *replace = args.force;
        }
    }
    if args.trying.test && prepared.iter().any(|each| matches!(each.plan.finish, Finish::Files { .. })) {
        ui::say(
            "error: templates are tried on Proxmox VE, and this target makes files\n    help: leave --test out",
        );
        return USAGE;
    }
    if args.dry_run {
        return super::plan::print(global, &prepared, &redactor);
    }
    let journals = global.journals();
    for hypervisor in prepared.iter().map(|each| &each.hypervisor).take(1) {
        super::gc::replay_quietly(&journals, hypervisor, REPLAY_LIMIT).await;
    }
    let cancel = cancel_on_signals(journals.path().to_owned());
    let style = Style::choose(global.json, global.quiet);
    let bus = Bus::start(vec![style.sink()], redactor.clone());
    if args.screen && style == Style::Terminal {
        bus.show_screens();
    } else if args.screen {
        ui::say(
            "warning: --screen needs a terminal, and neither --json nor --quiet; afterwards `forge screen show` replays the screen",
        );
    }
    let on_error = args.on_error.for_the_engine(global);
    let (site, _) = super::prepare::site(global);
    let target = match site.target(args.selection.target.as_deref()) {
        Ok(target) => target,
        Err(finding) => {
            super::prepare::tell(&[finding], &redactor);
            return REFUSED;
        }
    };
    let gate = Gate { global, target, output: &args.output, bus: &bus, cancel: &cancel };
    let gate = &gate;
    let passed: Vec<Result<Passed, u8>> = stream::iter(prepared)
        .map(|prepared| gate.pass(prepared, on_error.clone()))
        .buffer_unordered(usize::from(args.parallel))
        .collect()
        .await;
    bus.close();
    if passed.len() > 1 && !global.json {
        ui::say(&tally(&passed));
    }
    worst(passed.into_iter().map(|passed| passed.map_or_else(|code| code, |passed| passed.code)))
}

/// What became of several builds, in one line.
fn tally(passed: &[Result<Passed, u8>]) -> String {
    let count = |is: fn(&Passed) -> bool| passed.iter().flatten().filter(|passed| is(passed)).count();
    let done = count(|passed| matches!(passed.ending, Ending::Done { .. }) && passed.code == 0);
    let troubled = count(|passed| match passed.ending {
        Ending::DoneWithFailure { .. } => true,
        Ending::Done { .. } => passed.code != 0,
        _ => false,
    });
    let kept = count(|passed| matches!(passed.ending, Ending::Kept { .. }));
    let left = count(|passed| matches!(passed.ending, Ending::Left { .. }));
    let rest = [
        (troubled, "done with a failure after it"),
        (kept, "kept for `forge finish`"),
        (left, "left as they were"),
        (passed.len() - done - troubled - kept - left, "failed"),
    ];
    let rest = rest.iter().filter(|(count, _)| *count > 0).map(|(count, words)| format!(", {count} {words}"));
    format!("{} builds: {done} done{}", passed.len(), rest.collect::<String>())
}

/// Of several builds the worst counts: 4, then 130, 1, 3, 5, 6, 0.
pub(super) fn worst(codes: impl Iterator<Item = u8>) -> u8 {
    let rank = |code: u8| match code {
        4 => 7,
        130 => 6,
        1 => 5,
        REFUSED => 4,
        5 => 3,
        UNTRIED => 2,
        0 => 0,
        _ => 1,
    };
    codes.max_by_key(|code| rank(*code)).unwrap_or(USAGE)
}

fn refuse_existing(prepared: &[Prepared], args: &BuildArgs) -> Option<u8> {
    let files: Vec<PathBuf> =
        prepared.iter().flat_map(|each| each.plan.finish.files(&each.plan.machine)).collect();
    let twice =
        files.iter().enumerate().find(|(index, file)| files.iter().take(*index).any(|one| one == *file));
    if let Some((_, file)) = twice {
        let help = "give their templates different names";
        ui::say(&format!("error: two of these builds would make {}\n    help: {help}", file.display()));
        return Some(REFUSED);
    }
    // It would be found when all the work is done.
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    let unfit: Vec<Diagnosis> = folders
        .into_iter()
        .map(|folder| crate::doctor::folder("images", folder))
        .filter(|found| found.health == Health::Fail)
        .collect();
    for found in &unfit {
        ui::say(&format!("error: no image can be written: {}\n    help: {}", found.found, found.help));
    }
    if !unfit.is_empty() {
        return Some(REFUSED);
    }
    // A link to nowhere has the name too.
    let taken: Vec<PathBuf> = files.into_iter().filter(|path| path.symlink_metadata().is_ok()).collect();
    if args.force || taken.is_empty() {
        return None;
    }
    for path in taken {
        ui::say(&format!(
            "error: {} exists\n    help: give --force to replace it, or the template another name",
            path.display()
        ));
    }
    Some(REFUSED)
}

/// Runs what is planned, with a folder of evidence of its own.
///
/// # Errors
/// The exit code, when it could not even begin.
pub(super) async fn one(
    prepared: Prepared,
    global: &Global,
    output: &std::path::Path,
    bus: &Bus,
    cancel: &CancellationToken,
    on_error: OnError,
) -> Result<Ending, u8> {
    let Prepared { plan, hypervisor, connector, moment, .. } = prepared;
    let plan = Arc::new(plan);
    let location = global.evidence_layout.location(output, &plan.profile, &plan.chain_id);
    let opened = Folder::create(location, bus.redactor().clone())
        .and_then(|folder| EvidenceSink::open(plan.clone(), folder.clone()).map(|sink| (folder, sink)));
    let (evidence, sink) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            ui::say(&format!("error: {}\n    help: name another folder with --output", chain(&error)));
            return Err(REFUSED);
        }
    };
    bus.attach(Box::new(sink));
    let build = Build {
        mark: Ownership {
            nonce: moment.nonce,
            chain_id: plan.chain_id.clone(),
            owner: moment.owner,
            started: moment.now,
            heartbeat: moment.now,
            state: BuildState::Building,
            memory_mib: plan.machine.memory_mib,
        },
        events: bus.events(plan.chain_id.clone()),
        plan,
        hypervisor,
        connector,
        journals: global.journals(),
        evidence,
        media: global.media(),
        cancel: cancel.child_token(),
        on_error,
        faults: Arc::new(NoFaults),
    };
    // A task of its own: whatever happens in one build, the others go on.
    tokio::spawn(run(build)).await.map_err(|error| {
        ui::say(&format!(
            "error: forge itself is at fault: {error}; `forge gc` looks after what the build left"
        ));
        1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_seal_operation() {
        let mut command = BuildArgs::augment_args(clap::Command::new("build"));
        // Lines are broken where the terminal ends.
        let help = command.render_long_help().to_string();
        let help: String = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for operation in seal::OPERATIONS.iter().chain(seal::WINDOWS_OPERATIONS) {
            assert!(help.contains(operation.name) && help.contains(operation.about), "{}", operation.name);
        }
        assert!(!command.render_help().to_string().contains("leak-gate"), "-h is short");
    }
}
