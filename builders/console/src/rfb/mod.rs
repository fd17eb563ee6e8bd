//! The RFB (VNC) protocol, client side, without input or output: bytes in, events out, bytes to send out.
//!
//! ```text
//! Version -> Security(3.3 word | 3.7 list) -> [Challenge] -> Result -> Init -> Messages <-> Rectangles
//! ```
//!
//! RFB 3.3, 3.7 and 3.8; security None and VncAuth; encodings Raw, CopyRect, ZRLE; DesktopSize,
//! ExtendedDesktopSize, LastRect, the pointer's picture (skipped); QEMU's extended key event (-258) and LED state (-261).
//!
//! Invariants: no byte sequence makes it panic; at most one message's bounded part is buffered (raw pixels are
//! taken row by row, what is skipped is not stored); how the bytes are cut into pieces changes nothing; after an
//! error the client stays in error.

mod auth;
mod decode;
mod error;
mod wire;
mod zrle;

pub use error::RfbError;

use crate::frame::{Frame, Rect};
use wire::{extended_key_event, key_event, update_request};

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is over, and the first update was asked for.
    Ready {
        /// The name the server gives its display.
        name: String,
    },
    /// The display changed its size; its content is unknown until the next [`Event::Updated`].
    Resized {
        /// New width in pixels.
        width: u32,
        /// New height in pixels.
        height: u32,
    },
    /// One update is complete in the frame; `None` when no pixel differs, or none was ever sent. The next one was asked
    /// for.
    Updated(Option<Rect>),
    /// The server takes scancodes (QEMU's extended key event).
    ExtendedKeys,
    /// The lights of the guest's keyboard (QEMU's LED state).
    Leds(Leds),
    /// The bell rang.
    Bell,
}

/// The lights of the guest's keyboard: what the guest itself thinks of its lock keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leds {
    /// Scroll lock.
    pub scroll: bool,
    /// Num lock.
    pub num: bool,
    /// Caps lock: letters would be typed in the other case.
    pub caps: bool,
}

#[derive(Debug)]
enum State {
    Version,
    SecurityWord,
    SecurityList,
    Challenge,
    SecurityResult,
    Reason { result: bool },
    Init,
    Message,
    RectHeader { left: u16 },
    RawRows { left: u16, rect: Rect, row: u32 },
    Skip { bytes: u64, then: Box<State> },
    Failed,
}

/// The protocol's state, and the frame it fills.
pub struct RfbClient {
    state: State,
    minor: u8,
    password: Option<String>,
    input: Vec<u8>,
    taken: usize,
    output: Vec<u8>,
    frame: Frame,
    inflater: zrle::Inflater,
    extended_keys: bool,
    leds: Option<Leds>,
    resized: bool,
    drawn: bool,
    /// Whether the update that comes in has pixels, and how many such updates were whole.
    pixels: bool,
    drawings: u64,
    events: Vec<Event>,
}

impl RfbClient {
    /// Starts a client; with a password it prefers VncAuth, and refuses it without one.
    ///
    /// # Errors
    /// Never in practice: the empty first frame is always plausible.
    pub fn new(password: Option<&str>) -> Result<Self, RfbError> {
        Ok(Self {
            state: State::Version,
            minor: 8,
            password: password.map(str::to_owned),
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
            frame: Frame::new(0, 0)?,
            inflater: zrle::Inflater::new(),
            extended_keys: false,
            leds: None,
            resized: false,
            drawn: false,
            pixels: false,
            drawings: 0,
            events: Vec::new(),
        })
    }

    /// Takes bytes from the server and gives the events they complete.
    ///
    /// # Errors
    /// When the server breaks the protocol, refuses, or asks for what is not supported; the connection is of no
    /// use then.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Event>, RfbError> {
        self.input.extend_from_slice(bytes);
        loop {
            match self.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.state = State::Failed;
                    self.input = Vec::new();
                    self.taken = 0;
                    return Err(error);
                }
            }
        }
        self.input.drain(..self.taken);
        self.taken = 0;
        Ok(std::mem::take(&mut self.events))
    }

    /// Takes the bytes to be sent to the server, in order.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// The picture as of the last complete row; events say when an update is whole.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Whether keys go as scancodes, so that the guest's layout is the only one that matters.
    #[must_use]
    pub fn extended_keys(&self) -> bool {
        self.extended_keys
    }

    /// The lights of the guest's keyboard, when the server tells them.
    #[must_use]
    pub fn leds(&self) -> Option<Leds> {
        self.leds
    }

    /// Whether the handshake is over.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(
            self.state,
            State::Message | State::RectHeader { .. } | State::RawRows { .. } | State::Skip { .. }
        )
    }

    /// Whether any pixels were sent.
    #[must_use]
    pub fn has_drawn(&self) -> bool {
        self.drawn
    }

    /// How many updates with pixels were received, those that changed nothing too.
    #[must_use]
    pub fn drawings(&self) -> u64 {
        self.drawings
    }

    /// Whether the frame shows whole updates only: none is being received.
    #[must_use]
    pub fn is_between_updates(&self) -> bool {
        matches!(self.state, State::Message)
    }

    /// Presses or releases a key: by scancode where the server takes them, else by keysym.
    pub fn key(&mut self, down: bool, keysym: u32, scancode: u32) {
        if self.extended_keys {
            self.output.extend_from_slice(&extended_key_event(down, keysym, scancode));
        } else {
            self.output.extend_from_slice(&key_event(down, keysym));
        }
    }

    /// Asks for changes, or for the whole picture.
    pub fn request_update(&mut self, incremental: bool) {
        let request = update_request(incremental, self.frame.width(), self.frame.height());
        self.output.extend_from_slice(&request);
    }

    /// Asks for one pixel, whether it changed or not: the answer comes when the server next looks at its screen.
    pub fn request_sign(&mut self) {
        if self.is_ready() && self.frame.width() > 0 {
            self.output.extend_from_slice(&update_request(false, 1, 1));
        }
    }
}

#[cfg(test)]
mod tests;
