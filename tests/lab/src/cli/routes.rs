//! `cargo lab routes`: what the lab's routes are like, and who called them in the last `cargo lab test`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::output;
use crate::{coverage, routes};

/// The arguments of `cargo lab routes`.
#[derive(Debug, Args)]
pub struct RoutesArguments {
    /// Puts both tables into tests/lab/README.md
    #[arg(long)]
    write: bool,
}

/// Prints the tables.
pub fn run(arguments: &RoutesArguments) -> anyhow::Result<ExitCode> {
    let table = routes::table()?;
    let calls = coverage::read(&coverage::folder()).ok().filter(|calls| !calls.is_empty());
    let calls = calls.map(|calls| coverage::table(&calls));
    if arguments.write {
        let path = routes::readme();
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
        std::fs::write(&path, routes::fill(&text, &table, calls.as_deref())?)?;
        output::say(&format!("{} has the tables of now", path.display()));
    } else {
        output::print(&table);
        output::print(calls.as_deref().unwrap_or("No calls are known: run cargo lab test."));
    }
    Ok(ExitCode::SUCCESS)
}
