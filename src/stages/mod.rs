//! The stages of a build, each a function that consumes the value of the one before.
//!
//! ```text
//! seed() → Seeded   create(&Seeded) → Created   boot(Created) → Running   connect(Running) → Connected
//! provision(Connected) → Provisioned   seal(Provisioned) → Sealed   shutdown(Sealed) → Stopped   finish(Stopped) → Artefact
//! ```
//!
//! Holding a [`Connected`] is the proof that the guest answers. Stages reach the target only through the port and
//! the guest only through [`forge_machine::Guest`]; they never print.

pub mod boot;
mod boot_disc;
pub mod check;
pub mod connect;
pub mod create;
mod disk;
pub mod finish;
mod gone;
pub mod install;
pub mod media;
pub mod provision;
pub mod record;
pub mod screen;
pub mod seal;
pub mod seed;
mod serial;
pub mod shutdown;
pub mod ways;

use std::sync::Arc;

use forge_machine::{Forbidden, Guest, Machine};

use crate::remote::BuildKey;

pub use screen::Watch;
pub use seed::Seeded;

/// The build VM exists and is configured; it does not run.
#[derive(Debug)]
pub struct Created {
    /// The VM.
    pub machine: Arc<dyn Machine>,
}

/// The build VM runs and its boot screen was driven.
#[derive(Debug)]
pub struct Running {
    /// The VM.
    pub machine: Arc<dyn Machine>,
    /// Its screen, when it could be had.
    pub watch: Watch,
}

/// The guest answers.
#[derive(Debug)]
pub struct Connected {
    /// The VM.
    pub machine: Arc<dyn Machine>,
    /// Its screen, when it could be had.
    pub watch: Watch,
    /// The guest.
    pub guest: Arc<dyn Guest>,
    /// The build's key, by which the guest lets programs of this machine in too.
    pub key: Arc<BuildKey>,
}

/// All provisioners succeeded: the keep point.
#[derive(Debug)]
pub struct Provisioned(pub Connected);

/// The guest holds nothing any more that a template must not carry.
#[derive(Debug)]
pub struct Sealed {
    /// The VM.
    pub machine: Arc<dyn Machine>,
    /// What may not stand on its disks; nothing when nobody wants to know.
    pub forbidden: Vec<Forbidden>,
}

/// The VM is stopped and ready to become the artefact.
#[derive(Debug)]
pub struct Stopped {
    /// The VM.
    pub machine: Arc<dyn Machine>,
    /// What may not stand on its disks.
    pub forbidden: Vec<Forbidden>,
}
