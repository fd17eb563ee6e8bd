//! The console of a VM: its screen read as text, and its keyboard typed with proof.
//!
//! | module | what it is for |
//! |---|---|
//! | [`rfb`] | the RFB (VNC) client protocol, without any input or output of its own |
//! | [`frame`] | the picture a display shows, what changed of it, and its PNG |
//! | [`font`] | what characters look like |
//! | [`screen`] | that picture read as text, glyph by glyph |
//! | [`known`] | screens that mean something, by name, with what to do |
//! | [`needle`] | a piece of a picture, looked for on a screen that is no text |
//! | [`keymap`] | keys by name and by character, for RFB and for Proxmox's `sendkey` |
//! | [`keys`] | where key presses go: the display's own connection, or the hypervisor's `sendkey` |
//! | [`console`] | the live console: a task owns the connection, handles look, wait and press |
//! | [`expect`](mod@expect) | what a wait looks for: texts, expressions, known screens |
//! | [`typist`] | text typed, read back and corrected |
//! | [`boot_command`] | Packer's boot-command language, strict, with words that wait for what the screen shows |
//! | [`player`] | plays a parsed boot command on a console |
//! | [`recording`] | what a screen showed, frame by frame: written, read, played to a console again |
//!
//! Invariants:
//! * nothing here trusts a byte of the peer: every length has a bound, and no input can cause a panic;
//! * a key never stays pressed because a future was dropped: a stroke is sent whole or not at all, and
//!   held keys are released when their guard or the last handle goes;
//! * every wait has a deadline, and its error quotes what the screen said.

pub mod boot_command;
pub mod console;
pub mod expect;
pub mod font;
pub mod frame;
mod glyph;
pub mod keymap;
pub mod keys;
pub mod known;
mod layout;
pub mod needle;
pub mod player;
pub mod recording;
pub mod rfb;
pub mod screen;
#[cfg(test)]
mod testing;
pub mod typist;

pub use boot_command::BootAction;
pub use console::{Console, ConsoleError, FollowError, WaitError};
pub use expect::{Pattern, Pressing, Region, Seen, at_rest, expect, expect_unattended, fatal, press_until};
pub use keymap::KeyStroke;
pub use keys::{KeyError, KeySink, SendKeys};
pub use known::{KnownScreen, Sighting};
pub use needle::Needle;
pub use player::{PlayError, PlayOptions, PlayReport, play};
pub use recording::{Recorder, Recording, Shot};
pub use screen::{NoText, Screen, ScreenText};
pub use typist::{Echo, TypeError, TypeOptions, TypeReport, type_text, type_text_with};
