//! The effects of a build by name, and where tests may make them fail.

use async_trait::async_trait;

use crate::event::Stage;

/// Everything a build does that changes something outside of forge.
///
/// The fault matrix of the tests is generated from [`Effect::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Opening the seed server.
    ServeSeed,
    /// Submitting the creation of the build VM.
    SubmitCreate,
    /// Waiting for it to be created.
    AwaitCreate,
    /// Writing its configuration.
    Configure,
    /// Starting it.
    Start,
    /// Pressing keys on its boot screen.
    DriveScreen,
    /// Logging in.
    Login,
    /// Running the provisioners.
    Provision,
    /// Removing what a template must not carry.
    Seal,
    /// Shutting the guest down.
    Stop,
    /// Taking the build's settings off the VM.
    Detach,
    /// Turning the VM into the artefact: the commit point.
    Finalize,
    /// Giving the template its name and tags.
    Publish,
    /// Taking the tag `latest` off the templates before it.
    Retire,
}

impl Effect {
    /// All effects, in their order.
    pub const ALL: [Self; 14] = [
        Self::ServeSeed,
        Self::SubmitCreate,
        Self::AwaitCreate,
        Self::Configure,
        Self::Start,
        Self::DriveScreen,
        Self::Login,
        Self::Provision,
        Self::Seal,
        Self::Stop,
        Self::Detach,
        Self::Finalize,
        Self::Publish,
        Self::Retire,
    ];

    /// The stage it belongs to.
    #[must_use]
    pub fn stage(self) -> Stage {
        match self {
            Self::ServeSeed => Stage::Seed,
            Self::SubmitCreate | Self::AwaitCreate | Self::Configure => Stage::Create,
            Self::Start | Self::DriveScreen => Stage::Boot,
            Self::Login => Stage::Connect,
            Self::Provision => Stage::Provision,
            Self::Seal => Stage::Seal,
            Self::Stop => Stage::Shutdown,
            Self::Detach | Self::Finalize | Self::Publish | Self::Retire => Stage::Finish,
        }
    }
}

/// Before or after an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum When {
    /// Its undo is recorded; it was not tried.
    Before,
    /// It was carried out, and its result not yet used.
    After,
}

/// Lets tests fail, cancel or freeze a build at a point. The product uses [`NoFaults`].
#[async_trait]
pub trait Faults: std::fmt::Debug + Send + Sync {
    /// Called at each point; an error fails the stage there, with this text.
    async fn reach(&self, effect: Effect, when: When) -> Result<(), String>;
}

/// No fault anywhere.
#[derive(Clone, Copy, Debug)]
pub struct NoFaults;

#[async_trait]
impl Faults for NoFaults {
    async fn reach(&self, _effect: Effect, _when: When) -> Result<(), String> {
        Ok(())
    }
}
