//! `forge init proxmox`: from nothing but root on a node to a target that builds.
//!
//! Reads first, decides purely, changes last: whatever speaks against it is told before the first change. The order of
//! changes is such that a token's secret is on disk before anything else can fail. A second run finds everything as it
//! should be and changes nothing.
//!
//! The operations themselves are `forge-proxmox`'s (reached by [`crate::backends::setup`]); [`ssh`] carries them out on a
//! node's shell, `ApiDoor` by the API.

mod credentials;
mod decide;
mod destination;
mod dotenv;
mod files;
mod host_key;
mod known;
mod pick;
mod private;
mod record;
mod run;
mod site;
mod ssh;
mod table;
mod talk;

use std::path::PathBuf;

use thiserror::Error;

pub use destination::Destination;
pub use run::run;
pub use talk::Talk;

/// The cause of an error of whatever layer.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What is wanted, as the command line says it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whom to ask.
    pub destination: Destination,
    /// By the API alone.
    pub api: bool,
    /// The target's name in the site file.
    pub target: String,
    /// The API's address, when it is not `https://HOST:8006`.
    pub url: Option<String>,
    /// The API's certificate, when it is known.
    pub fingerprint: Option<String>,
    /// The host key, when it is known.
    pub host_key: Option<String>,
    /// A private key to log in with.
    pub ssh_key: Option<PathBuf>,
    /// The user that builds, `name@realm`.
    pub user: String,
    /// Its token's own name.
    pub token: String,
    /// The role.
    pub role: String,
    /// Privileges besides those that forge needs.
    pub privileges: Vec<String>,
    /// The pool for build VMs.
    pub pool: Option<String>,
    /// The VMs that will be cloned, when there is a pool.
    pub boot_vms: Vec<u32>,
    /// Where the role is given, when it is not where it is needed.
    pub paths: Vec<String>,
    /// The nodes to build on; `auto` for all.
    pub nodes: Vec<String>,
    /// The storage for disks.
    pub disks: Option<String>,
    /// The storage for install media.
    pub isos: Option<String>,
    /// The storage for archives of templates, when there are to be any.
    pub archives: Option<String>,
    /// The bridge.
    pub bridge: Option<String>,
    /// The VMIDs that builds may use.
    pub vmids: Option<String>,
    /// The port of the seed server, for `PACKER_HTTP_PORT`.
    pub http_port: Option<u16>,
    /// A token that is there is made anew.
    pub rotate_token: bool,
    /// Other settings in the files are replaced.
    pub force: bool,
    /// Nothing is changed, only told.
    pub dry_run: bool,
    /// The site file.
    pub site: PathBuf,
    /// The file of variables to write.
    pub env_file: Option<PathBuf>,
    /// The folder of evidence.
    pub output: PathBuf,
    /// forge's state.
    pub state: PathBuf,
}

/// Why it could not be done.
#[derive(Debug, Error)]
pub enum InitError {
    /// Nothing was changed.
    #[error("{what}")]
    Refused {
        /// What is wrong.
        what: String,
        /// What to do.
        hints: Vec<String>,
        /// Why.
        #[source]
        source: Option<Cause>,
    },
    /// Something was changed before it failed.
    #[error("{what}")]
    Unfinished {
        /// What failed.
        what: String,
        /// What to do.
        hints: Vec<String>,
        /// Why.
        #[source]
        source: Option<Cause>,
    },
}

impl InitError {
    /// Nothing was changed, for this reason.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), hints: Vec::new(), source: None }
    }

    /// The same with a cause.
    pub fn because(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Refused { what: what.into(), hints: Vec::new(), source: Some(source.into()) }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, hint: impl Into<String>) -> Self {
        let (Self::Refused { hints, .. } | Self::Unfinished { hints, .. }) = &mut self;
        hints.push(hint.into());
        self
    }

    /// The same, after something was changed.
    #[must_use]
    pub fn after_a_change(self) -> Self {
        match self {
            Self::Refused { what, hints, source } => Self::Unfinished { what, hints, source },
            other @ Self::Unfinished { .. } => other,
        }
    }

    /// What to do.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        let (Self::Refused { hints, .. } | Self::Unfinished { hints, .. }) = self;
        hints
    }
}

/// What was done, for programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// The target's name.
    pub target: String,
    /// The API's address.
    pub url: String,
    /// The token.
    pub token_id: String,
    /// Whether nothing was changed because everything was as it should be.
    pub unchanged: bool,
    /// Whether it was only told.
    pub dry_run: bool,
    /// What was changed, or would be: commands or calls.
    pub changes: Vec<String>,
    /// The files that were written, or would be.
    pub files: Vec<PathBuf>,
    /// The folder of evidence.
    pub evidence: Option<PathBuf>,
}
