//! Where key presses go: the display's own connection ([`crate::Console`]), or the hypervisor's `sendkey`.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use forge_machine::{KeyChord, Machine, PortError};
use thiserror::Error;

use crate::console::ConsoleError;
use crate::keymap::KeyStroke;

/// Why keys could not be pressed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The display's connection is gone.
    #[error("keys can't be typed on the display")]
    Console(#[from] ConsoleError),
    /// The hypervisor refused them.
    #[error("the hypervisor did not press the keys")]
    Port(#[from] PortError),
}

/// Something that presses keys in the guest.
#[async_trait]
pub trait KeySink: Send + Sync {
    /// Presses and releases each stroke, one after another, under the keys that are held. May be dropped between
    /// strokes: a stroke is sent whole or not at all.
    ///
    /// # Errors
    /// When the keys can't be sent.
    async fn press(&self, strokes: &[KeyStroke]) -> Result<(), KeyError>;

    /// Presses a key and keeps it down for what follows, or lets it go. May be dropped.
    ///
    /// # Errors
    /// When the key can't be sent.
    async fn hold(&self, key: KeyStroke, down: bool) -> Result<(), KeyError>;

    /// Presses a key and, when it comes `again`, leaves it down, where that is faster: QEMU's display takes 10 ms for each
    /// event, and a PC's firmware, boot loader and PS/2 drivers type when a key goes down. When it does not come again it
    /// goes up, so that little is left to let go at the end: a keyboard that is full of releases loses the key after them.
    /// Elsewhere it is a whole stroke. May be dropped.
    ///
    /// # Errors
    /// When the key can't be sent.
    async fn roll(&self, stroke: KeyStroke, again: bool) -> Result<(), KeyError> {
        let _ = again;
        self.press(&[stroke]).await
    }

    /// Lets go what [`KeySink::roll`] left down, and at once, so that a guard may call it when dropped.
    fn settle(&self) {}

    /// How many bytes a rolled key puts into the keyboard's queue, at most.
    fn rolled_bytes(&self, stroke: KeyStroke, again: bool) -> usize {
        let _ = again;
        if stroke.shift { 4 } else { 2 }
    }

    /// Lets every held key go, and at once: it needs no waiting, so that a guard may call it when dropped.
    fn release_all(&self);
}

/// Keys by the hypervisor's `sendkey`: the fallback when the display takes none.
pub struct SendKeys {
    machine: Arc<dyn Machine>,
    held: Mutex<Vec<KeyStroke>>,
}

impl SendKeys {
    /// Presses keys on a machine.
    #[must_use]
    pub fn new(machine: Arc<dyn Machine>) -> Self {
        Self { machine, held: Mutex::new(Vec::new()) }
    }
}

#[async_trait]
impl KeySink for SendKeys {
    async fn press(&self, strokes: &[KeyStroke]) -> Result<(), KeyError> {
        let chords: Vec<KeyChord> = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            strokes.iter().map(|stroke| stroke.chord(&held)).collect()
        };
        Ok(self.machine.press(&chords).await?)
    }

    /// `sendkey` knows chords only: a held key is remembered and named in each later chord.
    async fn hold(&self, key: KeyStroke, down: bool) -> Result<(), KeyError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|other| other.qcode != key.qcode);
        if down {
            held.push(key);
        }
        Ok(())
    }

    fn release_all(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
