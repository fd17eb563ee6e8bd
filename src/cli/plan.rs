//! `forge plan`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::options::{Global, Selection, Trying};
use super::prepare::{Prepared, Refusal, prepare};
use crate::event::Redactor;
use crate::plan::explain::explain;
use crate::ui;

/// Options of `forge plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    trying: Trying,
    /// The folder under which `build` would keep evidence
    #[arg(long, value_name = "DIR", default_value = "output")]
    output: PathBuf,
}

/// Prints what a build would do; gives the exit code.
pub async fn plan(global: &Global, args: &PlanArgs) -> u8 {
    let redactor = Redactor::default();
    let choice = args.trying.choice();
    match prepare(global, &args.selection, choice, Path::new(&args.output), &redactor).await {
        Ok(prepared) => print(global, &prepared, &redactor),
        Err(Refusal(code)) => code,
    }
}

/// Prints plans on stdout.
pub fn print(global: &Global, prepared: &[Prepared], redactor: &Redactor) -> u8 {
    if global.json {
        let plans: Vec<_> = prepared.iter().map(|each| &each.plan).collect();
        let text = match plans.as_slice() {
            [only] => serde_json::to_string_pretty(only),
            several => serde_json::to_string_pretty(several),
        };
        ui::data(&redactor.text(&format!("{}\n", text.unwrap_or_default())));
    } else {
        for each in prepared {
            ui::data(&redactor.text(&format!("{}\n{}\n", each.plan.chain_id, explain(&each.plan))));
        }
    }
    0
}
