//! `cargo lab test`: every test of the workspace, those with real guests too.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use clap::Args;

use super::programs::{build_forge, cargo, succeeded};
use super::{Guest, images, output};
use crate::coverage;
use crate::images::default_cache_root;
use crate::netns::{self, Network};

/// The arguments of `cargo lab test`.
#[derive(Debug, Args)]
pub struct TestArguments {
    /// Given to the test runner: names of tests, `--package NAME`, …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Makes everything outside the namespace, then runs the tests inside it.
pub fn run(arguments: &TestArguments) -> anyhow::Result<ExitCode> {
    let nextest = has_nextest();
    if !netns::is_inside() {
        crate::setup::ensure_for_tests(&mut output::say)?;
        crate::setup::python::ensure(&mut output::say)?;
        crate::setup::node::ensure(&mut output::say)?;
        build_forge(false)?;
        output::say("building the tests");
        let status = runner(nextest, arguments).arg("--no-run").stdout(Stdio::null()).status();
        succeeded(status.context("cargo can't be run")?, "building the tests")?;
        images::disk(Guest::Tiny)?;
        images::disk(Guest::Debian)?;
        crate::images::install(&default_cache_root())?;
        // The other images are derived from these without a network; the signed one has packages of its own.
        crate::images::tiny_signed(&default_cache_root())?;
        crate::images::install_signed(&default_cache_root())?;
    }
    if netns::enter(&mut output::say)? == Network::Own {
        output::say("running the tests in a network namespace of their own");
    }
    let mut tests = runner(nextest, arguments);
    let calls = coverage::folder();
    // What the run before has called does not count.
    let _ = std::fs::remove_dir_all(&calls);
    tests.env(coverage::VARIABLE, &calls);
    tests.env("FORGE_LAB", "1").env("FORGE_LAB_CACHE", default_cache_root());
    let status = tests.status().context("cargo can't be run")?;
    if let Ok(calls) = coverage::read(&calls) {
        output::print(&coverage::table(&calls));
    }
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The runner with its fixed arguments: nextest when it is there, else cargo's own.
fn runner(nextest: bool, arguments: &TestArguments) -> Command {
    let mut runner = cargo();
    match nextest {
        true => runner.args(["nextest", "run"]),
        false => runner.arg("test"),
    };
    if !arguments.arguments.iter().any(|argument| matches!(argument.as_str(), "-p" | "--package")) {
        runner.arg("--workspace");
    }
    runner.args(["--locked", "--offline"]).args(&arguments.arguments);
    runner
}

fn has_nextest() -> bool {
    let status = cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
