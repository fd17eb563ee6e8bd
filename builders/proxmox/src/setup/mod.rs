//! Making a Proxmox VE ready for builds: user, role, pool, access list and token, and what there is to build on.
//!
//! What is asked and what is changed are values ([`Ask`], [`Change`]), each of them a command of `pvesh` or `pveum` and a
//! call of the API alike. A [`Door`] carries them out: forge's own by SSH, [`ApiDoor`] by the API with a ticket of root's.
//! What there is to do is found by [`steps`], which is pure.

mod api;
mod certificate;
mod discover;
mod ops;
mod standing;
mod steps;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use serde_json::Value;
use thiserror::Error;

pub use api::{ApiDoor, lacking};
pub use certificate::{CertificateError, certificate};
pub use discover::{Bridge, Land, Node, Storage, discover};
pub use ops::{Ask, Change, Verb};
pub use standing::{Role, Standing};
pub use steps::{Conflict, Step, Wanted, paths, steps};

/// The cause of an error of whatever layer.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A question or a change that was not carried out, or whose answer makes no sense.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DoorError {
    /// It was refused.
    #[error("`{what}` failed: {said}")]
    Refused {
        /// The command or call.
        what: String,
        /// What was said about it.
        said: String,
    },
    /// It could not be asked.
    #[error("`{what}` could not be carried out")]
    Broken {
        /// The command or call.
        what: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The answer is another than expected.
    #[error("the answer to `{what}` can't be understood: {why}")]
    Unclear {
        /// The command or call.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A way to ask and change a Proxmox VE as root.
#[async_trait]
pub trait Door: Send + Sync {
    /// Where it leads and as whom, for people.
    fn describe(&self) -> String;

    /// A question as this door puts it: a command, or a call.
    fn asks(&self, ask: &Ask) -> String;

    /// A change as this door makes it: a command that can be pasted, or a call.
    fn makes(&self, change: &Change) -> String;

    /// Asks. May be dropped.
    ///
    /// # Errors
    /// When there is no answer, or none that is JSON.
    async fn ask(&self, ask: &Ask) -> Result<Value, DoorError>;

    /// Changes; what comes back is the answer, null where there is none. Must not be dropped in flight.
    ///
    /// # Errors
    /// When it was refused, or when nobody knows whether it was carried out.
    async fn change(&self, change: &Change) -> Result<Value, DoorError>;
}
