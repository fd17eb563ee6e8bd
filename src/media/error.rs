//! Why a medium can't be had, and what to do about it.

use std::io;
use std::path::PathBuf;

use forge_machine::PortError;
use thiserror::Error;

/// A medium that can't be had, or is not the one that was meant.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MediaError {
    /// The bytes are others.
    #[error(
        "{what} is not what its checksum says: {algorithm} is {found}, expected {expected}; if the publisher has \
         replaced the file, put its new `checksum` into the profile; else do not trust it"
    )]
    Mismatch {
        /// The URL or file.
        what: String,
        /// The algorithm by name.
        algorithm: &'static str,
        /// What the profile says, in hexadecimal digits.
        expected: String,
        /// What the bytes have.
        found: String,
    },
    /// The server refuses.
    #[error("{url} answers {status}{advice}")]
    Status {
        /// Without a password.
        url: String,
        /// `404 Not Found`.
        status: String,
        /// What to do, with its punctuation; may be empty.
        advice: &'static str,
    },
    /// No connection, or one that broke.
    #[error("{url} can't be read: {detail}")]
    Unreachable {
        /// Without a password.
        url: String,
        /// What failed, innermost cause last.
        detail: String,
    },
    /// The server is not who it should be.
    #[error(
        "{url} shows a certificate that is not trusted: {detail}; if an authority of your own made it, name its \
         certificates with SSL_CERT_FILE"
    )]
    Untrusted {
        /// Without a password.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Nothing moved any more.
    #[error("{url} sent nothing for {seconds} s, after {done} bytes")]
    Stalled {
        /// Without a password.
        url: String,
        /// How long.
        seconds: u64,
        /// What is here.
        done: u64,
    },
    /// It ended too early, again and again.
    #[error(
        "{url} breaks off after {done} of {total} bytes; what is here is kept, and the next build goes on with it"
    )]
    Truncated {
        /// Without a password.
        url: String,
        /// What is here.
        done: u64,
        /// What was promised.
        total: u64,
    },
    /// The server packs the file up, so that its bytes are not the publisher's.
    #[error("{url} is sent as `{encoding}`, although it was asked for as it is; name another mirror")]
    Encoded {
        /// Without a password.
        url: String,
        /// The value of Content-Encoding.
        encoding: String,
    },
    /// The disk is too small.
    #[error(
        "there is no space for {name} in {}: it needs {needed} bytes more, and {free} are free; make room, or name \
         another folder with --cache-dir", folder.display()
    )]
    NoSpace {
        /// The file's name.
        name: String,
        /// The cache.
        folder: PathBuf,
        /// Bytes that are missing from the file.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// None of the mirrors had it.
    #[error("none of {} mirrors has {name}: {}", failures.len(), failures.join("; "))]
    Mirrors {
        /// The file's name.
        name: String,
        /// What each one said.
        failures: Vec<String>,
    },
    /// The publisher's file of sums does not have it.
    #[error("{place} has no checksum of {name}{seen}")]
    NoSum {
        /// Where the sums are.
        place: String,
        /// The file's name.
        name: String,
        /// What it has instead, with its punctuation.
        seen: String,
    },
    /// The publisher's file of sums has several, which differ.
    #[error("{place} has several checksums of {name}, which differ: write the right one into the profile")]
    SeveralSums {
        /// Where the sums are.
        place: String,
        /// The file's name.
        name: String,
    },
    /// It is on the target, not here.
    #[error("{what} is not on this machine")]
    Elsewhere {
        /// The volume.
        what: String,
    },
    /// The connection can't be set up at all.
    #[error("no connection to the web can be set up: {0}")]
    Setup(String),
    /// A file of this machine.
    #[error("{} can't be {verb}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `read`, `written`, …
        verb: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl MediaError {
    /// Shorthand for [`MediaError::File`].
    pub(super) fn file(path: impl Into<PathBuf>, verb: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, verb, source }
    }

    /// Whether another mirror would fail in the same way.
    pub(super) fn is_of_this_machine(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::File { .. } | Self::Setup(_))
    }
}

impl From<MediaError> for PortError {
    fn from(error: MediaError) -> Self {
        match error {
            MediaError::File { path, verb, source } => {
                Self::broken(format!("{} can't be {verb}", path.display()), source)
            }
            error => Self::Broken { what: error.to_string(), source: None },
        }
    }
}
