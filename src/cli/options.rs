//! Options that all commands share.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::engine::JournalDir;

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The site file [default: ./forge.toml, then the user's config folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A file of PROXMOX_* variables, as the environment would have them
    #[arg(long, global = true, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Where journals and remembered verdicts are [default: $XDG_STATE_HOME/forge]
    #[arg(long, global = true, value_name = "DIR", env = "FORGE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Data and events as JSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Says only what is wrong, and the result
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Diagnostics for forge's developers on stderr; twice for more
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// The state folder: `--state-dir`, else `$XDG_STATE_HOME/forge`, else `~/.local/state/forge`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        let in_home = || {
            let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
            home.join(".local/state")
        };
        self.state_dir.clone().unwrap_or_else(|| {
            let base = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
            base.unwrap_or_else(in_home).join("forge")
        })
    }

    /// The folder of journals.
    #[must_use]
    pub fn journals(&self) -> JournalDir {
        JournalDir::in_state_dir(&self.state())
    }

    /// Switches the developers' diagnostics on, when asked for.
    pub fn start_tracing(&self) {
        let level = match self.verbose {
            0 => return,
            1 => "forge=debug,forge_proxmox=debug,forge_qemu=debug,forge_console=debug,forge_http_seed=debug",
            _ => "trace,hyper=info,h2=info,rustls=info,mio=info,want=info",
        };
        let filter = tracing_subscriber::EnvFilter::new(level);
        // Already set only when a test calls this twice.
        let _set_before = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(true)
            .try_init();
    }
}

/// Which profiles, with which values, on which target.
#[derive(Clone, Debug, Args)]
pub struct Selection {
    /// Profile files (*.toml), or names of profiles that `forge profiles` lists
    #[arg(required = true, value_name = "PROFILE")]
    pub profiles: Vec<PathBuf>,
    /// The target of the site file [default: its default-target, or the only one]
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// A value for a variable of the profile; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub vars: Vec<String>,
    /// A TOML file of values for variables; may be repeated, later ones win
    #[arg(long = "var-file", value_name = "FILE")]
    pub var_files: Vec<PathBuf>,
}
