//! What a look at a target says before the first build: each thing that was looked at, and how it is.

use serde::{Deserialize, Serialize};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// As it should be.
    Pass,
    /// Builds can do with it, or some builds can't.
    Warn,
    /// No build can do with it.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Diagnosis {
    /// What was looked at, in a word or two (`login`, `storage local-lvm`).
    pub check: String,
    /// How it is.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What to do about it; empty when there is nothing to do.
    pub help: String,
}

impl Diagnosis {
    /// It is as it should be.
    pub fn pass(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), health: Health::Pass, found: found.into(), help: String::new() }
    }

    /// Some builds can't do with it.
    pub fn warn(check: impl Into<String>, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self { check: check.into(), health: Health::Warn, found: found.into(), help: help.into() }
    }

    /// The same, where builds can do without it.
    #[must_use]
    pub fn no_worse_than_a_warning(self) -> Self {
        Self { health: self.health.min(Health::Warn), ..self }
    }

    /// No build can do with it.
    pub fn fail(check: impl Into<String>, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self { check: check.into(), health: Health::Fail, found: found.into(), help: help.into() }
    }
}

/// What a target is looked at for: what its builds will use, as the site file says. What it does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkup {
    /// The storages for disks and cloud-init drives.
    pub disk_storages: Vec<String>,
    /// The storage for install media.
    pub iso_storage: Option<String>,
    /// The storage for archives of templates.
    pub archive_storage: Option<String>,
    /// The bridge for network adapters.
    pub bridge: Option<String>,
    /// The ids that builds may take, first and last.
    pub ids: Option<(u32, u32)>,
    /// The resource pool.
    pub pool: Option<String>,
}
