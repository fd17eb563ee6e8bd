//! Plays a parsed boot command on a console.
//!
//! A run of characters is typed with read-back where it appears on a readable screen, and blind where it does not
//! (hot keys, graphical screens); the report says which. After a special key the screen gets a moment to answer, so
//! that a menu is never overrun.

use std::time::Duration;

use thiserror::Error;
use tokio::time::sleep;

use crate::boot_command::BootAction;
use crate::console::{Console, WaitError};
use crate::expect::{Pattern, Seen, at_rest, expect};
use crate::keys::{KeyError, KeySink};
use crate::known::Sighting;
use crate::typist::{Echo, TypeError, TypeOptions, type_text_with};

/// How to play a boot command.
#[derive(Clone, Debug)]
pub struct PlayOptions {
    /// How texts are typed. [`Echo::Required`] is taken as [`Echo::IfSeen`]: the language can't tell hot keys from text.
    pub typing: TypeOptions,
    /// Shorter runs of characters are hot keys and not looked for on the screen.
    pub shortest_text: usize,
    /// The limit of a `<waitFor>` that names none.
    pub wait_for_limit: Duration,
    /// The limit of a `<waitStill>`.
    pub still_limit: Duration,
    /// How long a special key may wait for the screen to answer.
    pub answer_limit: Duration,
}

impl Default for PlayOptions {
    fn default() -> Self {
        Self {
            typing: TypeOptions { echo: Echo::IfSeen, ..TypeOptions::default() },
            shortest_text: 4,
            wait_for_limit: Duration::from_secs(300),
            still_limit: Duration::from_secs(300),
            answer_limit: Duration::from_millis(250),
        }
    }
}

/// What playing came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlayReport {
    /// Keys pressed.
    pub keys: usize,
    /// Characters that were read back from the screen.
    pub verified: usize,
    /// Characters of texts that were typed blind.
    pub blind: usize,
}

/// Why a boot command was not played to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlayError {
    /// A text could not be typed.
    #[error("boot command step {step} could not be typed")]
    Type {
        /// Number of the action, from 1.
        step: usize,
        /// Why.
        #[source]
        source: TypeError,
    },
    /// A wait ended without what was waited for.
    #[error("boot command step {step} waited in vain")]
    Wait {
        /// Number of the action, from 1.
        step: usize,
        /// Why.
        #[source]
        source: WaitError,
    },
    /// The screen showed what nothing comes after while something else was waited for.
    #[error("boot command step {step} waited, and {sighting}")]
    Fatal {
        /// Number of the action, from 1.
        step: usize,
        /// What it showed.
        sighting: Sighting,
    },
    /// A key could not be pressed.
    #[error("boot command step {step} could not press its key")]
    Key {
        /// Number of the action, from 1.
        step: usize,
        /// Why.
        #[source]
        source: KeyError,
    },
}

/// Releases what is held on every way out, also when the future is dropped.
struct Release<'k>(&'k dyn KeySink);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.release_all();
    }
}

/// Plays the actions in order; held keys are released at the end, at an error, and when dropped. May be dropped.
///
/// # Errors
/// The first action that fails, with its number.
pub async fn play(
    console: &Console,
    keys: &dyn KeySink,
    actions: &[BootAction],
    options: &PlayOptions,
) -> Result<PlayReport, PlayError> {
    let _release = Release(keys);
    let mut report = PlayReport::default();
    let mut held = 0_usize;
    for (index, action) in actions.iter().enumerate() {
        let step = index + 1;
        match action {
            BootAction::Type(text) => {
                let characters = text.chars().count();
                let hot_keys = held > 0 || characters < options.shortest_text;
                let echo = match options.typing.echo {
                    Echo::None => Echo::None,
                    _ if hot_keys => Echo::None,
                    Echo::Required | Echo::IfSeen => Echo::IfSeen,
                };
                let typing = TypeOptions { echo, ..options.typing.clone() };
                let typed = type_text_with(console, keys, text, &typing)
                    .await
                    .map_err(|source| PlayError::Type { step, source })?;
                report.keys += typed.keys;
                *if typed.verified { &mut report.verified } else { &mut report.blind } += characters;
            }
            BootAction::Press(stroke) => {
                let changes = console.changes();
                let before = console.screen().text().and_then(|text| text.cursor);
                keys.press(&[*stroke]).await.map_err(|source| PlayError::Key { step, source })?;
                report.keys += 1;
                // An answer is a change of content, or the text cursor somewhere else. No answer is no error.
                let answered = console.wait_until(options.answer_limit, |look| {
                    let cursor = look.screen.text().and_then(|text| text.cursor);
                    look.changes != changes || (cursor.is_some() && cursor != before)
                });
                // Keys that go another way need no display.
                if let Err(source) = answered.await
                    && !matches!(source, WaitError::Lost { .. })
                {
                    return Err(PlayError::Wait { step, source });
                }
            }
            BootAction::Hold(key) | BootAction::Release(key) => {
                let down = matches!(action, BootAction::Hold(_));
                held = if down { held + 1 } else { held.saturating_sub(1) };
                keys.hold(*key, down).await.map_err(|source| PlayError::Key { step, source })?;
            }
            BootAction::Wait(time) => sleep(*time).await,
            BootAction::WaitFor { text, limit } => {
                let limit = limit.unwrap_or(options.wait_for_limit);
                let seen = expect(console, &[Pattern::text(text)], limit).await;
                if let Seen::Fatal(sighting) = seen.map_err(|source| PlayError::Wait { step, source })? {
                    return Err(PlayError::Fatal { step, sighting });
                }
            }
            BootAction::WaitStill(quiet) => {
                let seen = at_rest(console, *quiet, options.still_limit).await;
                if let Some(sighting) = seen.map_err(|source| PlayError::Wait { step, source })? {
                    return Err(PlayError::Fatal { step, sighting });
                }
            }
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::boot_command::parse;
    use crate::console::lock;
    use crate::testing::{Guest, console};

    async fn played(command: &str) -> (Result<PlayReport, PlayError>, Guest) {
        let (console, shared) = console(Guest::with_prompt("boot: ")).await;
        let outcome = play(&console, &console, &parse(command).unwrap(), &PlayOptions::default()).await;
        // Held keys are released without waiting: the guest takes them a moment later.
        tokio::time::timeout(Duration::from_secs(20), async {
            while !lock(&shared).down.is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        console.wait_still(Duration::from_millis(200), Duration::from_secs(20)).await.unwrap();
        let guest = lock(&shared).clone();
        (outcome, guest)
    }

    #[tokio::test(start_paused = true)]
    async fn a_boot_command_waits_types_with_proof_and_presses_keys() {
        let (report, guest) = played("<waitFor \"boot:\"><waitStill>linux quiet<enter><wait2>y").await;
        assert_eq!(report.unwrap(), PlayReport { keys: 13, verified: 11, blind: 1 });
        assert_eq!(guest.keys, "linux quiet\ny");
    }

    #[tokio::test(start_paused = true)]
    async fn a_boot_command_that_waits_ends_at_a_fatal_screen_with_its_name() {
        for command in ["<waitFor \"login:\">", "<waitStill 1s>x"] {
            let (console, guest) = console(Guest::with_prompt("(initramfs) ")).await;
            let began = tokio::time::Instant::now();
            let actions = parse(command).unwrap();
            let error = play(&console, &console, &actions, &PlayOptions::default()).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "boot command step 1 waited, and the boot was dropped to the initramfs shell: \"(initramfs)\""
            );
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
            assert_eq!(lock(&guest).keys, "", "nothing was typed into it");
        }
    }

    /// Takes keys without a display.
    #[derive(Default)]
    struct Elsewhere(std::sync::Mutex<Vec<&'static str>>);

    #[async_trait::async_trait]
    impl KeySink for Elsewhere {
        async fn press(&self, strokes: &[crate::keymap::KeyStroke]) -> Result<(), KeyError> {
            lock(&self.0).extend(strokes.iter().map(|stroke| stroke.qcode));
            Ok(())
        }

        async fn hold(&self, _key: crate::keymap::KeyStroke, _down: bool) -> Result<(), KeyError> {
            Ok(())
        }

        fn release_all(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_go_another_way_are_pressed_though_the_display_is_lost() {
        let (console, guest) = console(Guest::with_prompt("boot: ")).await;
        lock(&guest).lines.clear();
        console.wait_for("login:", Duration::from_secs(20)).await.unwrap_err();
        assert!(console.failure().is_some());
        let blind = TypeOptions { echo: Echo::None, ..TypeOptions::default() };
        let options = PlayOptions { typing: blind, ..PlayOptions::default() };
        let (keys, actions) = (Elsewhere::default(), parse("<tab>text<enter>").unwrap());
        let report = play(&console, &keys, &actions, &options).await.unwrap();
        assert_eq!(report, PlayReport { keys: 6, verified: 0, blind: 4 });
        assert_eq!(*lock(&keys.0), ["tab", "t", "e", "x", "t", "ret"]);
        let error = play(&console, &console, &actions, &options).await.unwrap_err();
        assert!(matches!(error, PlayError::Key { step: 1, .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_step_is_numbered_and_what_is_held_is_released() {
        let (outcome, guest) = played("<leftCtrlOn>x<waitFor \"GRUB\" 1s><leftCtrlOff>").await;
        let error = outcome.unwrap_err();
        assert_eq!(error.to_string(), "boot command step 3 waited in vain");
        assert!(
            error.source().unwrap().to_string().starts_with("the screen did not show \"GRUB\" within 1.0 s")
        );
        assert!(guest.down.is_empty());
    }
}
