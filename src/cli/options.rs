//! Options that all commands share.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::engine::JournalDir;
use crate::evidence::Layout;
use crate::media::Store;

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
    /// Where downloads are kept [default: $XDG_CACHE_HOME/forge]
    #[arg(long, global = true, value_name = "DIR", env = "FORGE_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Where the evidence of a build or trial stands below its root, with {profile}, {chain-id} and {time}
    #[arg(
        long,
        global = true,
        value_name = "PATTERN",
        env = "FORGE_EVIDENCE_LAYOUT",
        default_value = "{profile}/{chain-id}"
    )]
    pub evidence_layout: Layout,
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
        let state =
            self.state_dir.clone().unwrap_or_else(|| base("XDG_STATE_HOME", ".local/state").join("forge"));
        // What is noted there is read again by programs that run in other folders.
        std::path::absolute(&state).unwrap_or(state)
    }

    /// The cache of media: in `--cache-dir`, else `$XDG_CACHE_HOME/forge`, else `~/.cache/forge`.
    #[must_use]
    pub fn media(&self) -> Store {
        let cache = self.cache_dir.clone().unwrap_or_else(|| base("XDG_CACHE_HOME", ".cache").join("forge"));
        // QEMU runs in another folder.
        Store::new(std::path::absolute(&cache).unwrap_or(cache).join("media"))
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

/// A folder of the XDG specification: by its variable, else in the home.
fn base(variable: &str, in_home: &str) -> PathBuf {
    let named = std::env::var_os(variable).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    named.unwrap_or_else(|| {
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
        home.join(in_home)
    })
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
    /// Only the profiles whose name, or `target.profile`, matches one of these; `*` stands for anything
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Not the profiles whose name, or `target.profile`, matches one of these
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', conflicts_with = "only")]
    pub except: Vec<String>,
    /// A value for a variable of the profile; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub vars: Vec<String>,
    /// A TOML file of values for variables; may be repeated, later ones win
    #[arg(long = "var-file", value_name = "FILE")]
    pub var_files: Vec<PathBuf>,
}

/// Whether templates are tried before they are published.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Trying {
    /// Tries each template before it is published as `latest`; one that fails keeps the tag `test-failed` instead
    #[arg(long, conflicts_with = "no_test")]
    pub test: bool,
    /// Publishes without a trial, whatever the profile says
    #[arg(long)]
    pub no_test: bool,
}

impl Trying {
    /// What was said; `None` leaves it to the profile.
    #[must_use]
    pub fn choice(self) -> Option<bool> {
        (self.test || self.no_test).then_some(self.test)
    }
}

impl Selection {
    /// Whether a profile is meant by `--only` and `--except`, on a target if that is known.
    #[must_use]
    pub fn takes(&self, profile: &str, target: Option<&str>) -> bool {
        let named = |patterns: &[String]| patterns.iter().any(|pattern| names(pattern, profile, target));
        (self.only.is_empty() || named(&self.only)) && !named(&self.except)
    }

    /// The patterns of `--only` and `--except` that name none of the profiles: they are misspelt.
    #[must_use]
    pub fn idle<'a>(&'a self, profiles: &[&str], target: Option<&str>) -> Vec<&'a str> {
        let idle = |pattern: &&String| !profiles.iter().any(|profile| names(pattern, profile, target));
        self.only.iter().chain(&self.except).filter(idle).map(String::as_str).collect()
    }
}

fn names(pattern: &str, profile: &str, target: Option<&str>) -> bool {
    matches(pattern, profile) || target.is_some_and(|target| matches(pattern, &format!("{target}.{profile}")))
}

/// Whether a text matches a pattern in which `*` stands for any characters.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            text.char_indices()
                .map(|(at, _)| at)
                .chain([text.len()])
                .any(|at| text.get(at..).is_some_and(|text| matches(rest, text)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(only: &[&str], except: &[&str]) -> Selection {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Selection {
            profiles: Vec::new(),
            target: None,
            only: owned(only),
            except: owned(except),
            vars: Vec::new(),
            var_files: Vec::new(),
        }
    }

    #[test]
    fn only_and_except_take_names_stars_and_targets() {
        let takes = |only: &[&str], except: &[&str]| {
            ["debian-12", "rocky-9", "debian-13"].map(|each| selection(only, except).takes(each, Some("pve")))
        };
        assert_eq!(takes(&[], &[]), [true; 3]);
        assert_eq!(takes(&["debian-*"], &[]), [true, false, true]);
        assert_eq!(takes(&["pve.rocky-9", "*3"], &[]), [false, true, true]);
        assert_eq!(takes(&[], &["local.*"]), [true; 3]);
        assert_eq!(takes(&[], &["*.debian-12"]), [false, true, true]);
        assert_eq!(takes(&["*a*-1*"], &[]), [true, false, true]);
    }

    #[test]
    fn a_pattern_that_names_nothing_is_found() {
        let selection = selection(&["debian-12", "debain-*"], &[]);
        assert_eq!(selection.idle(&["debian-12", "rocky-9"], None), ["debain-*"]);
    }
}
