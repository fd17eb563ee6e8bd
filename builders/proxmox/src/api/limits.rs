//! How long a client waits for what, and the words for it when the time is over.

use std::time::Duration;

/// How long a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a connection: name, TCP and TLS together; and for the websocket of a console.
    pub connect: Duration,
    /// For a whole exchange. pveproxy itself gives up on pvedaemon after 30 s, so its own answer arrives within this.
    pub exchange: Duration,
    /// For the next bytes of an upload to go out, and for its answer after the last.
    pub still: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            exchange: Duration::from_secs(40),
            still: Duration::from_secs(60),
        }
    }
}

/// `40 s`.
pub(crate) fn in_words(limit: Duration) -> String {
    format!("{} s", limit.as_secs_f64())
}
