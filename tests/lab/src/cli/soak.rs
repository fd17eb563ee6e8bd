//! `cargo lab soak NAME`: what takes longer than the tests may.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::output;
use super::programs::cargo;

/// A long test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Soak {
    /// Random kernel lines typed into GRUB's editor, read back and compared
    Typing,
    /// Debian 12 is installed from the network by its own installer and forge's profile, as far as the mirror has it
    InstallDebian,
    /// A medium of FAI, made here from Debian's packages, installs a Debian as the configuration space in the seed says
    InstallFai,
    /// A Debian template that Ansible provisioned, cloned twice: nothing of the clones is the same
    Clones,
    /// Debian built by its serial console, with the network cut
    Console,
    /// A secret that the leak gate finds in a Debian, removed as it advises
    Leak,
}

/// How keys travel to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Transport {
    /// QEMU's own display
    Vnc,
    /// The lab's websocket, as on Proxmox
    Websocket,
}

/// What GRUB draws its editor with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Terminal {
    /// GRUB's own driver for VGA text
    VgaText,
    /// The BIOS, as on most media: an emulated machine takes 20 ms and more for a key then
    Console,
}

/// The arguments of `cargo lab soak`.
#[derive(Debug, Args)]
pub struct SoakArguments {
    /// Which one
    name: Soak,
    /// How the keys travel
    #[arg(long, value_enum, default_value_t = Transport::Vnc)]
    transport: Transport,
    /// What GRUB draws the lines with
    #[arg(long, value_enum, default_value_t = Terminal::VgaText)]
    terminal: Terminal,
    /// How many lines to type with proof
    #[arg(long, default_value_t = 1000)]
    lines: u32,
    /// Ends the lines with proof after so many minutes, with their number so far
    #[arg(long)]
    minutes: Option<u32>,
    /// How many lines to type as others do, with a fixed interval and unseen
    #[arg(long, default_value_t = 10)]
    fixed: u32,
    /// Leaves the machine idle; otherwise each of its cores is kept busy
    #[arg(long)]
    idle: bool,
}

/// Sets up what is missing and runs it.
pub fn run(arguments: &SoakArguments) -> anyhow::Result<ExitCode> {
    crate::setup::ensure(&mut output::say)?;
    if arguments.name == Soak::InstallDebian {
        crate::setup::ensure_for_tests(&mut output::say)?;
    }
    if arguments.name == Soak::InstallFai {
        crate::setup::ensure_for_fai(&mut output::say)?;
    }
    let (package, target, test) = match (arguments.name, arguments.transport) {
        (Soak::Typing, Transport::Vnc) => ("forge-console", "real", "soak_typing"),
        (Soak::Typing, Transport::Websocket) => ("forge", "it", "soak_typing_over_the_websocket"),
        (Soak::InstallDebian, _) => ("forge", "it", "soak_install_debian"),
        (Soak::InstallFai, _) => ("forge", "it", "soak_install_fai"),
        (Soak::Clones, _) => ("forge", "it", "soak_two_clones"),
        (Soak::Console, _) => ("forge", "it", "soak_debian_is_built_by_its_serial_console"),
        (Soak::Leak, _) => ("forge", "it", "soak_a_secret_in_a_debian_guest"),
    };
    let mut soak = cargo();
    soak.args(["test", "--locked", "--offline", "--package", package, "--test", target]);
    if arguments.name == Soak::Typing {
        // Its times are those of what people run.
        soak.arg("--release");
    }
    if let Some(minutes) = arguments.minutes {
        soak.env("FORGE_SOAK_MINUTES", minutes.to_string());
    }
    let terminal = match arguments.terminal {
        Terminal::VgaText => "vga_text",
        Terminal::Console => "console",
    };
    let status = soak
        .args(["--", "--ignored", "--nocapture", test])
        .env("FORGE_LAB", "1")
        .env("FORGE_SOAK_TERMINAL", terminal)
        .env("FORGE_SOAK_LINES", arguments.lines.to_string())
        .env("FORGE_SOAK_FIXED_LINES", arguments.fixed.to_string())
        .env("FORGE_SOAK_IDLE", u8::from(arguments.idle).to_string())
        .status()
        .context("cargo can't be run")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
