//! The command line of `forge-lab`, which `cargo lab` runs.
//!
//! This module parses and dispatches; each command has a file. Data goes to standard output, talk to standard error.

mod api;
mod demo;
mod demo_local;
mod images;
mod output;
mod programs;
mod routes;
mod serve;
mod site;
mod soak;
mod test;
mod trial;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// A Proxmox-compatible server over real QEMU, for the tests and demos of forge.
#[derive(Debug, Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sets up what is missing, builds a real Debian template with forge, on the lab or with QEMU alone, and tries it
    Demo(demo::DemoArguments),
    /// Sets up what is missing and runs every test, those with real guests too
    Test(test::TestArguments),
    /// Runs a test that takes longer than the tests may
    Soak(soak::SoakArguments),
    /// Runs a lab to play with until Ctrl-C
    Serve(serve::ServeArguments),
    /// Makes the guests' disks that the cache lacks and prints their paths
    Images(images::ImagesArguments),
    /// Prints what each route is like, and who called it in the last `cargo lab test`
    Routes(routes::RoutesArguments),
    /// Installs the system packages that the lab needs
    Setup,
}

/// A kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Guest {
    /// A kernel, busybox, SSH and the guest agent: up within seconds
    Tiny,
    /// Debian 12 with a boot menu and cloud-init
    Debian,
    /// VMs in name only, without processes
    None,
}

/// Runs the command that the process's arguments name, and prints its error.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,forge_lab=warn,forge_lab::images=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    let result = match arguments.command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Images(arguments) => images::run(&arguments),
        Command::Routes(arguments) => routes::run(&arguments),
        Command::Setup => crate::setup::ensure(&mut output::say).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        output::say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// A runtime for the commands that hold a lab. Made only after the namespace has been entered.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
