//! `forge test`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use forge_machine::{CloneSelector, SourceSelector};

use super::REFUSED;
use super::build::{REPLAY_LIMIT, one};
use super::options::Global;
use super::prepare::{self, Prepared};
use super::signals::cancel_on_signals;
use crate::config::Finding;
use crate::engine::error::chain;
use crate::engine::on_error::OnError;
use crate::event::{Bus, Ending, Redactor};
use crate::stages::connect::SshConnector;
use crate::trial;
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
    /// Writes the results in JUnit's form
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// The folder under which evidence is kept
    #[arg(long, value_name = "DIR", default_value = "output")]
    output: PathBuf,
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
    let ending = one(prepared, global, &args.output, &bus, &cancel, OnError::default()).await;
    bus.close();
    let ending = match ending {
        Ok(ending) => ending,
        Err(code) => return code,
    };
    if let Ending::Tested { checks, .. } = &ending {
        if !global.json {
            let rows: Vec<Vec<String>> = checks
                .iter()
                .map(|check| {
                    vec![
                        check.name.clone(),
                        check.verdict.word().to_owned(),
                        crate::event::phrase::time(check.took_ms),
                        check.detail.clone(),
                    ]
                })
                .collect();
            ui::data(&redactor.text(&table(&["CHECK", "VERDICT", "TIME", "WHAT IT SAID"], &rows)));
        }
        if let Some(path) = &args.junit {
            let xml = redactor.text(&trial::junit::junit(&name, checks));
            if let Err(error) = std::fs::write(path, xml) {
                ui::say(&format!("error: {} can't be written: {error}", path.display()));
                return ending.exit_code().max(1);
            }
        }
    }
    ending.exit_code()
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
    let one = |finding: Finding| vec![finding];
    let hypervisor = prepare::open(target, global, redactor).await.map_err(one)?;
    let query = trial::query(SourceSelector::Clone(selector(&args.template)), target);
    let (facts, wrong) = prepare::facts(&hypervisor, &query).await.map_err(one)?;
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
    let moment = prepare::moment(&args.output);
    let plan = trial::plan(target, &hypervisor.capabilities(), &facts, &moment, checks)
        .map_err(|words| one(Finding::general(words)))?;
    let connector = Arc::new(SshConnector::default());
    let takes = (plan.machine.node.clone(), 0);
    Ok(Prepared { plan, takes, hypervisor, connector, moment })
}

/// How a template is named on the command line.
fn selector(text: &str) -> CloneSelector {
    match (text.parse(), text.strip_prefix("tag:")) {
        (Ok(vmid), _) => CloneSelector::Vmid(vmid),
        (_, Some(tag)) => CloneSelector::Tags(tag.split(',').map(str::to_owned).collect()),
        _ => CloneSelector::Name(text.to_owned()),
    }
}
