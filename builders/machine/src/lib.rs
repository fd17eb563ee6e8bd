//! The port of forge: what a hypervisor, and the VM that holds a build, must offer.
//!
//! The engine knows only the traits of this crate; `forge-proxmox`, `forge-qemu` and the strict fake
//! ([`fake`], feature `testing`) implement them. The vocabulary is that of a build's stages, not that of one
//! backend: what a backend can't do is a field of [`Capabilities`], known when planning.
//!
//! Invariants:
//! * this crate imports no other forge crate, and opens no socket, file or process;
//! * no trait method has a default body, so a backend can't silently lack one;
//! * every async method says in its doc whether its future may be dropped.

pub mod agent;
pub mod archive;
pub mod console;
pub mod error;
pub mod facts;
pub mod growth;
pub mod guest;
pub mod hardware;
pub mod health;
pub mod ids;
pub mod interfaces;
pub mod ownership;
pub mod port;
pub mod source;
pub mod spec;

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod fake;

pub use agent::{AgentChannel, AgentError, AgentExit};
pub use archive::ArchivePlace;
pub use console::{Display, DisplayStream, KeyChord};
pub use error::{PortError, Retry};
pub use facts::{Facts, FactsQuery, Finding, SourceFacts, StorageFacts, TemplateFacts};
pub use growth::{Follower, Growth};
pub use guest::{Command, ExecOutcome, Guest, GuestError, OutputSink, Stream};
pub use hardware::{Bios, EfiDisk, Hardware, TpmState};
pub use health::{Checkup, Diagnosis, Health};
pub use ids::{ChainId, Nonce, TaskHandle, VmRef};
pub use ownership::{BuildState, Ownership};
pub use port::{
    AddressReport, Artefact, Attachments, Capabilities, CloudInitSettings, DiskFind, Fetch, Forbidden,
    HostAddress, Hypervisor, Machine, MachineState, Orphan, Power, Standing, StopLadder, StopRung,
};
pub use source::{
    Algorithm, BootFile, Checksum, IsoDrives, KernelSpec, Location, Medium, SourceSelector, SourceSpec,
};
pub use spec::{
    CloneSelector, CloudInitDrive, DiskSpec, FileFormat, Finish, MANIFEST_ENDING, MachineSpec, NetworkSpec,
    SUMS_ENDING, TAG_DEPRECATED, TAG_FAILED, TAG_LATEST, TAG_OWN, TAG_UNTESTED, TAG_VALIDATED,
    TAGS_OF_TRIALS, VARIABLES_ENDING,
};
