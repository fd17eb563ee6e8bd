//! What typing came to, and why it failed.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::console::WaitError;
use crate::keymap::Layout;
use crate::keys::KeyError;
use crate::screen::Screen;

/// What typing came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeReport {
    /// Keys pressed, corrections included.
    pub keys: usize,
    /// Whether the whole text was read back.
    pub verified: bool,
    /// How often wrong text was taken back.
    pub corrections: u32,
    /// Whether it was typed blind because the prompt asks for something that is not shown.
    pub prompt_hides: bool,
    /// How long it took.
    pub elapsed: Duration,
}

/// Why a text was not typed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TypeError {
    /// A character without a key in the layout, or a control character.
    #[error("{character:?} at character {index} can't be typed")]
    Untypable {
        /// The character.
        character: char,
        /// Its place in the text, in characters from 0.
        index: usize,
    },
    /// Nothing of the text appeared.
    #[error("typed {expected:?}, but nothing of it appeared within {:.1} s; the screen shows\n{screen}", limit.as_secs_f64())]
    NoEcho {
        /// The text.
        expected: String,
        /// How long was waited.
        limit: Duration,
        /// The screen at the end.
        screen: Arc<Screen>,
    },
    /// Something else appeared, in spite of corrections.
    #[error(
        "typed {expected:?}, but the screen shows {seen:?} after {corrections} corrections{}{}; it shows\n{screen}",
        as_another_layout(layouts),
        if *caps_lock { ", and caps lock is on in the guest" } else { "" }
    )]
    Mismatch {
        /// The text.
        expected: String,
        /// What stands at its place.
        seen: String,
        /// How often it was taken back and typed again.
        corrections: u32,
        /// The layouts of a keyboard that would make of the keys just what was seen; empty when there is none.
        layouts: Vec<Layout>,
        /// Whether the light of caps lock is on in the guest: letters come in the other case.
        caps_lock: bool,
        /// The screen at the end.
        screen: Arc<Screen>,
    },
    /// Keys can't be pressed.
    #[error("the text could not be typed")]
    Keys(#[from] KeyError),
    /// The screen is gone.
    #[error("the typed text could not be read back")]
    Wait(#[from] WaitError),
}

/// What an error says of the guest's keyboard.
fn as_another_layout(layouts: &[Layout]) -> String {
    match layouts {
        [] => String::new(),
        layouts => {
            let names: Vec<String> = layouts.iter().map(|layout| format!("`{}`", layout.name())).collect();
            format!(", as if the guest's keyboard had the layout {}", names.join(" or "))
        }
    }
}
