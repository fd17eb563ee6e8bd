//! Screen and keyboard at the port: a raw RFB stream with its password, and key chords by QEMU's names.

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream that speaks RFB (a Unix socket, or Proxmox's websocket unwrapped).
pub trait DisplayStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> DisplayStream for T {}

/// A VM's display, ready for an RFB client.
pub struct Display {
    /// The raw RFB byte stream, before the protocol version is exchanged.
    pub stream: Box<dyn DisplayStream>,
    /// The VNC password (8 characters at most), when the display has one.
    pub password: Option<String>,
}

impl fmt::Debug for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Display")
            .field("password", &self.password.as_ref().map(|_| "[redacted]"))
            .finish_non_exhaustive()
    }
}

/// Keys pressed together and released in reverse order, by QEMU's qcode names (`shift`, `a`, `ret`, `f10`).
///
/// This is what Proxmox's `sendkey` takes, joined by `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChord(pub Vec<String>);

impl fmt::Display for KeyChord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("-"))
    }
}
