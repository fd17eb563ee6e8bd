//! What can go wrong with an RFB server.

use thiserror::Error;

use crate::frame::FrameError;

/// Why the RFB connection is of no use any more.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RfbError {
    /// The peer is no RFB server.
    #[error("the peer does not speak RFB: it began with {0:?}")]
    NotRfb(String),
    /// No common security type.
    #[error("the display offers security types {offered:?}; supported are 1 (none) and 2 (password)")]
    Security {
        /// What the server offers.
        offered: Vec<u8>,
    },
    /// The server wants a password and none is known.
    #[error("the display asks for a password and none was given")]
    PasswordNeeded,
    /// The server refused the connection or the password.
    #[error("the display refused the connection: {reason}")]
    Refused {
        /// The server's own words, when it gave some.
        reason: String,
    },
    /// A rectangle outside the picture.
    #[error("an update at {x},{y} of {width}x{height} lies outside the screen")]
    Outside {
        /// First column.
        x: u32,
        /// First row.
        y: u32,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// An encoding that was not asked for.
    #[error("the display sent encoding {0}, which was not asked for")]
    Encoding(i32),
    /// A message that was not asked for.
    #[error("the display sent a message of unknown type {0}")]
    Message(u8),
    /// A length beyond every honest use.
    #[error("the display announced {what} of {length} bytes")]
    Length {
        /// What it was to be.
        what: &'static str,
        /// The announced length in bytes.
        length: u64,
    },
    /// A ZRLE rectangle is damaged.
    #[error("a compressed update is damaged: {0}")]
    Zrle(&'static str),
    /// An implausible screen size.
    #[error("the display announced an implausible screen")]
    Frame(#[from] FrameError),
    /// The client was used after an error.
    #[error("the connection had failed before")]
    Failed,
}
