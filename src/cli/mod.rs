//! The command line: parses, calls, and turns what happened into an exit code.
//!
//! Exit codes: 0 done, 1 the build failed, 2 usage, 3 refused before any effect, 4 clean-up incomplete, 5 the artefact
//! exists but a later step failed, 6 a template could not be tried, 130 interrupted.

pub mod asking;
pub mod build;
pub mod diff;
pub mod doctor;
pub mod evidence;
pub mod finish;
pub mod first_contact;
mod gate;
pub mod gc;
pub mod init;
pub mod list;
mod named;
pub mod options;
pub mod plan;
pub mod prepare;
pub mod prestage;
pub mod profiles;
pub mod promote;
pub mod prune;
pub mod render;
pub mod schema;
pub mod screen;
pub mod show;
pub mod signals;
pub mod test;
mod throwaway;
pub mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use options::Global;

/// Exit code: wrong usage.
pub const USAGE: u8 = 2;
/// Exit code: refused before any effect.
pub const REFUSED: u8 = 3;
/// Exit code: clean-up incomplete.
pub const INCOMPLETE: u8 = 4;
/// Exit code: interrupted.
pub const INTERRUPTED: u8 = 130;

/// Builds VM templates on Proxmox VE and disk images with local QEMU, from one profile file.
#[derive(Debug, Parser)]
#[command(
    name = "forge",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
A first build:
  forge validate os-profiles/debian-12.toml   checks the files; asks nobody
  forge plan os-profiles/debian-12.toml       asks the target, changes nothing
  forge build os-profiles/debian-12.toml      builds

The target is described in ./forge.toml (or --config FILE), or by PROXMOX_URL,
PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET in the environment or an --env-file.

Exit codes:
  0    done
  1    the build failed; nothing is left, or the VM is kept for `forge finish`
  2    usage
  3    refused before anything was changed
  4    something was left behind: `forge gc`
  5    the artefact exists, and a later step failed
  6    a template could not be tried: the target was at fault
  130  interrupted"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a target ready for builds: user, role, token, site file
    #[command(subcommand)]
    Init(init::InitCommand),
    /// Builds one or several profiles
    Build(build::BuildArgs),
    /// Prints what a build would do; asks the target and changes nothing
    Plan(plan::PlanArgs),
    /// Looks at a target and at this machine before the first build, and says what to do about what is wrong
    Doctor(doctor::DoctorArgs),
    /// Brings the media of profiles to where their builds read them, and does nothing else
    Prestage(prestage::PrestageArgs),
    /// Checks profiles and the site file without asking anybody
    Validate(validate::ValidateArgs),
    /// Tries a template: clones it, boots the clone, checks it, starts it anew, and removes it
    Test(test::TestArgs),
    /// Compares what is in two templates, by the inventories of their trials
    Diff(diff::DiffArgs),
    /// Lists the templates of a target, newest first
    List(list::ListArgs),
    /// Prints the newest template, for scripts and Terraform
    Latest(list::LatestArgs),
    /// Makes another template of a profile the `latest`
    Promote(promote::PromoteArgs),
    /// Makes the template before the `latest` one of a profile the `latest`
    Rollback(promote::RollbackArgs),
    /// Removes old templates: keeps the newest of each profile, and what linked clones need
    Prune(prune::PruneArgs),
    /// Writes the answer files that a build would give the guest
    Render(render::RenderArgs),
    /// Lists the profiles that are in this binary, or prints one
    Profiles(profiles::ProfilesArgs),
    /// Goes on with a build that failed after its provisioners had succeeded
    Finish(finish::FinishArgs),
    /// Removes what dead builds left
    Gc(gc::GcArgs),
    /// Works on the folders that builds leave
    #[command(subcommand)]
    Evidence(evidence::EvidenceCommand),
    /// Shows a folder of evidence as one HTML page that needs nothing else
    Report(evidence::ReportArgs),
    /// Works on pictures of guests' screens
    #[command(subcommand)]
    Screen(screen::ScreenCommand),
    /// Prints the JSON Schema of profiles, of the site file, or of a build's proof
    Schema(schema::SchemaArgs),
    /// Prints the completions for a shell
    Completions(CompletionsArgs),
}

/// Options of `forge completions`.
#[derive(Clone, Debug, clap::Args)]
struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

fn completions(shell: clap_complete::Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut <Cli as clap::CommandFactory>::command(), "forge", &mut script);
    crate::ui::data(&String::from_utf8_lossy(&script));
    0
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    crate::ui::settle_colours();
    cli.global.start_tracing();
    screen::use_learnt_fonts(&cli.global);
    // One provider of cryptography for everything; already installed only when called twice.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            crate::ui::say(&format!("error: no threads can be started: {error}"));
            return ExitCode::from(REFUSED);
        }
    };
    let code = runtime.block_on(async {
        match cli.command {
            Command::Init(command) => init::init(&cli.global, &command).await,
            Command::Build(args) => build::build(&cli.global, &args).await,
            Command::Plan(args) => plan::plan(&cli.global, &args).await,
            Command::Doctor(args) => doctor::doctor(&cli.global, &args).await,
            Command::Prestage(args) => prestage::prestage(&cli.global, &args).await,
            Command::Validate(args) => validate::validate(&cli.global, &args),
            Command::Test(args) => test::test(&cli.global, &args).await,
            Command::Diff(args) => diff::diff(&cli.global, &args),
            Command::List(args) => list::list(&cli.global, &args).await,
            Command::Latest(args) => list::latest(&cli.global, &args).await,
            Command::Promote(args) => promote::promote(&cli.global, &args).await,
            Command::Rollback(args) => promote::rollback(&cli.global, &args).await,
            Command::Prune(args) => prune::prune(&cli.global, &args).await,
            Command::Render(args) => render::render(&cli.global, &args),
            Command::Profiles(args) => profiles::profiles(&cli.global, &args),
            Command::Finish(args) => finish::finish(&cli.global, &args).await,
            Command::Gc(args) => gc::gc(&cli.global, &args).await,
            Command::Evidence(command) => evidence::evidence(&cli.global, &command),
            Command::Report(args) => evidence::report(&cli.global, &args),
            Command::Screen(command) => screen::screen(&cli.global, &command),
            Command::Schema(args) => schema::schema(&args),
            Command::Completions(args) => completions(args.shell),
        }
    });
    // A file of this machine that is still being read (a pipe, a disk that is gone) holds nobody up: all else has ended.
    runtime.shutdown_background();
    ExitCode::from(code)
}
