//! `forge test`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use forge_machine::{
    CloneSelector, Facts, Hypervisor, Machine, PortError, SourceSelector, SourceSpec, TAG_FAILED,
    TAG_UNTESTED,
};

use super::REFUSED;
use super::build::{REPLAY_LIMIT, one};
use super::options::Global;
use super::prepare::{self, Prepared};
use super::signals::cancel_on_signals;
use crate::catalogue::{Entry, TAG_VALIDATED};
use crate::config::Finding;
use crate::config::site::Target;
use crate::engine::error::chain;
use crate::engine::on_error::OnError;
use crate::event::{Bus, CheckResult, Ending, Redactor, Stage, Verdict};
use crate::plan::Plan;
use crate::provision::ShellStep;
use crate::stages::connect::SshConnector;
use crate::trial;
use crate::trial::baseline::Baseline;
use crate::trial::inventory::{FILE, Inventory};
use crate::ui::{self, Style, table::table};

/// Options of `forge test`.
#[derive(Clone, Debug, Args)]
pub struct TestArgs {
    /// The template: its name, its VMID, or `tag:NAME` for the newest that has the tag
    #[arg(value_name = "TEMPLATE")]
    template: String,
    /// The target of the site file [default: its default-target, or the only one]
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Further checks: a TOML file of `[[check]]` with `name`, and `shell` or `script`; may be repeated
    #[arg(long, value_name = "FILE")]
    checks: Vec<PathBuf>,
    /// Leaves the second boot and its checks out
    #[arg(long)]
    no_second_boot: bool,
    /// The folder of baselines, with a file <profile>.json for each profile
    #[arg(long, value_name = "DIR", default_value = "baselines")]
    baselines: PathBuf,
    /// Writes what is in the clone as the baseline of its profile, when no check fails
    #[arg(long)]
    accept: bool,
    /// Tags the template: `validated` when no check fails, `test-failed` when one does or the clone does not come up
    #[arg(long)]
    mark: bool,
    /// Writes the results in JUnit's form
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// The folder under which evidence is kept
    #[arg(long, value_name = "DIR", default_value = "output")]
    output: PathBuf,
}

/// The exit code of a trial that came to no verdict for a reason that is not the template's: the target was at fault.
pub(super) const UNTRIED: u8 = 6;

/// What to say of a template that could not be tried, and what to do.
pub(super) fn untried(name: &str) -> String {
    format!(
        "error: {name} could not be tried\n    help: that says nothing of the template, and it is not tagged for it; \
         once what is told above is mended, `forge test` tries it again"
    )
}

/// The exit code of a trial.
pub(super) fn code(ending: &Ending) -> u8 {
    match (verdict(ending), ending.exit_code()) {
        (None, 1) => UNTRIED,
        (_, code) => code,
    }
}

/// Tries a template; gives the exit code.
pub async fn test(global: &Global, args: &TestArgs) -> u8 {
    let redactor = Redactor::default();
    let prepared = match prepare_trial(global, args, &redactor).await {
        Ok(prepared) => prepared,
        Err(findings) => {
            prepare::tell(&findings, &redactor);
            return REFUSED;
        }
    };
    let journals = global.journals();
    super::gc::replay_quietly(&journals, &prepared.hypervisor, REPLAY_LIMIT).await;
    let cancel = cancel_on_signals(journals.path().to_owned());
    let bus = Bus::start(vec![Style::choose(global.json, global.quiet).sink()], redactor.clone());
    let name = prepared.plan.artefact_name().to_owned();
    let template = match &prepared.plan.machine.source {
        SourceSpec::Clone { vm, .. } if args.mark => Some(prepared.hypervisor.machine(vm)),
        _ => None,
    };
    let baseline = prepared.plan.baseline.clone().filter(|_| args.accept);
    let plan = &prepared.plan;
    let evidence = global.evidence_layout.location(&args.output, &plan.profile, &plan.chain_id);
    let ending = one(prepared, global, &args.output, &bus, &cancel, OnError::default()).await;
    bus.close();
    let ending = match ending {
        Ok(ending) => ending,
        Err(code) => return code,
    };
    if let (Some(template), Some(right)) = (template, verdict(&ending))
        && let Err(error) = mark(template.as_ref(), right).await
    {
        ui::say(&redactor.text(&format!("error: the template is not tagged: {}", chain(&error))));
        return code(&ending).max(1);
    }
    if let Ending::Tested { checks, .. } = &ending {
        if !global.json {
            ui::data(&redactor.text(&results(checks)));
        }
        if let Some(baseline) = baseline
            && checks.iter().all(|check| check.verdict != Verdict::Failed)
        {
            match accept(&baseline, &evidence.join(FILE)) {
                Ok(()) => ui::say(&format!("wrote {}", baseline.file.display())),
                Err(words) => {
                    ui::say(&redactor.text(&format!("error: {words}")));
                    return code(&ending).max(1);
                }
            }
        }
        if let Some(path) = &args.junit {
            let xml = redactor.text(&trial::junit::junit(&name, checks));
            if let Err(error) = std::fs::write(path, xml) {
                ui::say(&format!("error: {} can't be written: {error}", path.display()));
                return code(&ending).max(1);
            }
        }
    }
    let code = code(&ending);
    if code == UNTRIED {
        ui::say(&redactor.text(&untried(&name)));
    }
    code
}

/// Makes the inventory that a trial left the baseline.
fn accept(baseline: &Baseline, inventory: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(inventory)
        .map_err(|error| format!("the trial left no inventory in {}: {error}", inventory.display()))?;
    let found: Inventory = serde_json::from_str(&text)
        .map_err(|error| format!("{} is no inventory: {error}", inventory.display()))?;
    baseline.accept(&found).map_err(|error| chain(&error))
}

async fn prepare_trial(
    global: &Global,
    args: &TestArgs,
    redactor: &Redactor,
) -> Result<Prepared, Vec<Finding>> {
    let mut checks = trial::built_in(!args.no_second_boot);
    let mut findings = Vec::new();
    for file in &args.checks {
        match trial::from_file(file) {
            Ok(more) => checks.extend(more),
            Err(error) => findings.push(Finding::general(chain(&error))),
        }
    }
    let (site, wrong) = prepare::site(global);
    findings.extend(wrong);
    let target = match site.target(args.target.as_deref()) {
        Ok(target) => target,
        Err(finding) => {
            findings.push(finding);
            return Err(findings);
        }
    };
    if findings.iter().any(|finding| finding.fatal) {
        return Err(findings);
    }
    let hypervisor = prepare::open(target, global, redactor).await.map_err(|finding| vec![finding])?;
    prepare::has_templates(target, hypervisor.as_ref()).map_err(|finding| vec![finding])?;
    let what = Trial {
        template: SourceSelector::Clone(selector(&args.template)),
        checks,
        baselines: &args.baselines,
        accept: args.accept,
        output: &args.output,
    };
    plan(target, &hypervisor, what).await
}

/// What is tried, and how.
pub(super) struct Trial<'a> {
    /// The template.
    pub(super) template: SourceSelector,
    /// All checks.
    pub(super) checks: Vec<ShellStep>,
    /// The folder of baselines.
    pub(super) baselines: &'a Path,
    /// Whether the baseline is to be written.
    pub(super) accept: bool,
    /// The folder under which evidence is kept.
    pub(super) output: &'a Path,
}

/// Asks the target, and plans a trial.
///
/// # Errors
/// What keeps the template from being tried.
pub(super) async fn plan(
    target: &Target,
    hypervisor: &Arc<dyn Hypervisor>,
    what: Trial<'_>,
) -> Result<Prepared, Vec<Finding>> {
    let one = |finding: Finding| vec![finding];
    let query = trial::query(what.template.clone(), target);
    let (facts, wrong) = prepare::facts(hypervisor, &query).await.map_err(one)?;
    let fatal: Vec<Finding> = wrong
        .into_iter()
        .filter(|found| found.fatal)
        .map(|found| {
            let finding = Finding::general(found.message);
            if found.help.is_empty() { finding } else { finding.help(found.help) }
        })
        .collect();
    if !fatal.is_empty() {
        return Err(fatal);
    }
    let moment = prepare::moment(what.output);
    let baseline = baseline(hypervisor, &facts, &what).await?;
    let plan = trial::plan(target, &hypervisor.capabilities(), &facts, &moment, what.checks, baseline)
        .map_err(|words| one(Finding::general(words)))?;
    let plan = Plan { origin: prepare::origin(&plan), ..plan };
    let connector = Arc::new(SshConnector::default());
    let takes = (plan.machine.node.clone(), 0);
    Ok(Prepared { plan, takes, hypervisor: hypervisor.clone(), connector, moment })
}

/// What a trial says of the template: right, wrong, or nothing, when it came to no checks for another reason than the
/// clone's own.
pub(super) fn verdict(ending: &Ending) -> Option<bool> {
    match ending {
        Ending::Tested { checks, .. } => Some(checks.iter().all(|check| check.verdict != Verdict::Failed)),
        // A clone that does not come up, or lets nobody in.
        Ending::Failed { failure, .. } if !failure.interrupted => {
            let at_guest = matches!(failure.stage, Some(Stage::Boot | Stage::Connect));
            (at_guest && !failure.of_target).then_some(false)
        }
        _ => None,
    }
}

/// Tags a template by what its trial said. It loses nothing but the tag that is not true any more. Effect, idempotent.
///
/// # Errors
/// When the target refuses.
pub(super) async fn mark(template: &dyn Machine, right: bool) -> Result<(), PortError> {
    let (gets, other) = if right { (TAG_VALIDATED, TAG_FAILED) } else { (TAG_FAILED, TAG_VALIDATED) };
    match template.tag(gets).await {
        Err(error) if error.is_outcome_unknown() => template.tag(gets).await,
        other => other,
    }?;
    template.untag(other).await?;
    template.untag(TAG_UNTESTED).await
}

/// The results as a table.
pub(super) fn results(checks: &[CheckResult]) -> String {
    let row = |check: &CheckResult| {
        vec![
            check.name.clone(),
            check.verdict.word().to_owned(),
            crate::event::phrase::time(check.took_ms),
            check.detail.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = checks.iter().map(row).collect();
    table(&["CHECK", "VERDICT", "TIME", "WHAT IT SAID"], &rows)
}

/// The baseline of the profile that the template was built from; `None` when its notes don't tell of one.
async fn baseline(
    hypervisor: &Arc<dyn Hypervisor>,
    facts: &Facts,
    what: &Trial<'_>,
) -> Result<Option<Baseline>, Vec<Finding>> {
    let wrong = |error: &(dyn std::error::Error + 'static)| vec![Finding::general(chain(error))];
    let templates = hypervisor.templates(None).await.map_err(|error| wrong(&error))?;
    let source = facts.source.as_ref().map(|source| source.vm.id.as_str());
    let template = templates.iter().map(Entry::new).find(|entry| Some(entry.vmid.as_str()) == source);
    let profile = template.map(|entry| entry.profile).filter(|name| is_plain(name));
    let Some(profile) = profile else {
        if what.accept {
            let words =
                "the notes of the template don't tell of which profile it is, so it makes no baseline";
            return Err(vec![Finding::general(words)]);
        }
        return Ok(None);
    };
    let mut baseline = Baseline::of(what.baselines, &profile).map_err(|error| wrong(&error))?;
    if what.accept {
        baseline.inventory = None;
    }
    Ok(Some(baseline))
}

/// Whether a profile's name, which anybody may have written into the notes, is the name of a file here.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// How a template is named on the command line.
fn selector(text: &str) -> CloneSelector {
    match (text.parse(), text.strip_prefix("tag:")) {
        (Ok(vmid), _) => CloneSelector::Vmid(vmid),
        (_, Some(tag)) => CloneSelector::Tags(tag.split(',').map(str::to_owned).collect()),
        _ => CloneSelector::Name(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Failure;

    #[test]
    fn what_the_target_did_is_no_verdict_on_the_template_and_has_a_code_of_its_own() {
        let failed = |stage, of_target, interrupted| Ending::Failed {
            failure: Failure {
                stage: Some(stage),
                heading: "it failed".into(),
                causes: Vec::new(),
                last_seen: Vec::new(),
                hints: Vec::new(),
                interrupted,
                of_target,
            },
            left_behind: Vec::new(),
        };
        for (ending, expected) in [
            (failed(Stage::Connect, false, false), (Some(false), 1)),
            (failed(Stage::Boot, false, false), (Some(false), 1)),
            // It refused to start the clone, or does not answer any more.
            (failed(Stage::Boot, true, false), (None, UNTRIED)),
            (failed(Stage::Connect, true, false), (None, UNTRIED)),
            (failed(Stage::Create, true, false), (None, UNTRIED)),
            (failed(Stage::Connect, false, true), (None, 130)),
            (Ending::Tested { checks: Vec::new(), left_behind: vec!["VM 9002".into()] }, (Some(true), 4)),
        ] {
            assert_eq!((verdict(&ending), code(&ending)), expected, "{ending:?}");
        }
    }
}
