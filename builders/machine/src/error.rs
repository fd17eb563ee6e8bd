//! What can go wrong at the port, by what the engine has to do about it.

use thiserror::Error;

/// A boxed cause.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Whether a failed call may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never: the answer would be the same, or nobody knows what the first call did.
    Never,
    /// At once: the request was certainly not carried out.
    Safe,
    /// Only when doing it twice is the same as doing it once.
    IfIdempotent,
}

/// An error of a hypervisor or of one of its VMs.
///
/// Display tells this layer only; the backend's own error is the source.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PortError {
    /// The VM, storage, node or task does not exist.
    #[error("{what} does not exist")]
    NotFound {
        /// The thing that was asked for, as the user would name it.
        what: String,
    },
    /// The id was taken by somebody else between choosing and creating.
    #[error("id {id} was taken by another VM in the meantime")]
    IdTaken {
        /// The id.
        id: String,
    },
    /// The VM is locked by work of the target.
    #[error("{what} is locked ({lock})")]
    Locked {
        /// The VM.
        what: String,
        /// The target's name for the lock (`clone`, `backup`, or `flock`).
        lock: String,
    },
    /// The credentials lack a privilege.
    #[error("the credentials may not {what}: {detail}")]
    Denied {
        /// What was tried.
        what: String,
        /// The target's words: path and privilege.
        detail: String,
    },
    /// The credentials themselves were refused.
    #[error("{target} refused the credentials: {detail}")]
    Unauthorized {
        /// The target by name.
        target: String,
        /// The target's words.
        detail: String,
    },
    /// No connection: the request was certainly not carried out.
    #[error("{target} can't be reached: {detail}")]
    Unreachable {
        /// The target by name and address.
        target: String,
        /// Which phase failed (name, TCP, TLS) and how.
        detail: String,
        /// The transport's error.
        #[source]
        source: Option<Cause>,
    },
    /// The server's certificate is not the one that was pinned, or has no trusted issuer.
    #[error("{target} shows a certificate that is not trusted: {detail}")]
    Untrusted {
        /// The target by name and address.
        target: String,
        /// What was expected and what was seen.
        detail: String,
        /// The SHA-256 fingerprint of the certificate that was shown.
        seen: String,
    },
    /// The request was sent and no answer came: it may or may not have been carried out.
    #[error("no answer to `{what}`: nobody knows whether it was carried out")]
    OutcomeUnknown {
        /// What was asked.
        what: String,
        /// The transport's error.
        #[source]
        source: Option<Cause>,
    },
    /// The target refused the request or its task failed; nothing else is known to have changed.
    #[error("{what} failed: {detail}")]
    Failed {
        /// What was asked.
        what: String,
        /// The target's own words, field errors included.
        detail: String,
    },
    /// Something took longer than its limit.
    #[error("{what} was not done within {limit:?}; last seen: {last_seen}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// The limit.
        limit: std::time::Duration,
        /// The last thing that was seen.
        last_seen: String,
    },
    /// The backend can't do this at all; planning should have refused it.
    #[error("{backend} can't {what}")]
    Unsupported {
        /// The backend.
        backend: &'static str,
        /// What was asked.
        what: String,
    },
    /// The answer could not be understood, or a local file, process or socket failed.
    #[error("{what}")]
    Broken {
        /// What was being done, to what.
        what: String,
        /// The cause.
        #[source]
        source: Option<Cause>,
    },
}

impl PortError {
    /// Whether the call may be made again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. } | Self::Locked { .. } | Self::IdTaken { .. } => Retry::Safe,
            Self::OutcomeUnknown { .. } => Retry::IfIdempotent,
            _ => Retry::Never,
        }
    }

    /// Shorthand for [`PortError::Failed`].
    pub fn failed(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), detail: detail.into() }
    }

    /// Shorthand for [`PortError::Broken`] with a cause.
    pub fn broken(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Broken { what: what.into(), source: Some(source.into()) }
    }

    /// Whether nobody knows if the request was carried out.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. })
    }
}
