//! The live console: a task owns the RFB connection and keeps the picture fresh, handles look, wait and press.
//!
//! ```text
//! stream <-> task { RfbClient } -> Look { screen, last change } -> watch -> wait_for, wait_still, typist
//! ```
//!
//! Invariants: an incremental update request is always outstanding, so that a change is known as soon as the
//! server tells it; the text cursor's blinking is no change; a key stroke is queued whole (shift down, key, shift
//! up), so a dropped future never leaves a key pressed; when the last handle goes, held keys are released and
//! the connection is closed. The last picture stays readable after a disconnect, and a VM's display that is lost while
//! the VM runs is opened again.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use forge_machine::{Display, Machine, PortError};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::frame::{Frame, FrameError};
use crate::keymap::KeyStroke;
use crate::keys::{KeyError, KeySink};
use crate::rfb::RfbError;
use crate::screen::Screen;

mod reopen;
mod task;

use reopen::{OfMachine, Source};
use task::{Look, Shared};

/// How long the handshake and the first picture may take.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// A picture on which nothing changed while the server looked at its screen so often is drawn to its end. QEMU looks every
/// 30 ms, and as much more rarely as its guest is slower.
const LOOKS: u32 = 20;
/// One that still changes after so many looks has something on it that never rests.
const RESTLESS: u32 = 150;
/// What is drawn to its end has not changed for so long.
const CALM: Duration = Duration::from_millis(300);
/// A server that does not answer within this time does so only when something changed.
const NO_SIGN: Duration = Duration::from_secs(2);
/// The pause between two key strokes of one [`KeySink::press`]. QEMU's keyboard holds 16 bytes that the guest has not
/// read yet, and drops what comes then.
const KEY_PAUSE: Duration = Duration::from_millis(10);

/// Why there is no console (any more).
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// The server broke the protocol or refused.
    #[error("the display's connection failed")]
    Rfb(#[source] Arc<RfbError>),
    /// The transport failed.
    #[error("the display's connection broke")]
    Io(#[source] Arc<io::Error>),
    /// The server closed the connection: the VM stopped, or the ticket was not taken.
    #[error("the display closed the connection")]
    Closed,
    /// The server said nothing more before the first picture was there.
    #[error("the display sent no picture within {} s", limit.as_secs())]
    Silent {
        /// The limit.
        limit: Duration,
    },
}

/// Why there is no console of a VM.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The VM gave no display.
    #[error("the VM gives no display")]
    Port(#[from] PortError),
    /// The display that it gave could not be opened.
    #[error("the VM's display could not be opened")]
    Console(#[from] ConsoleError),
}

/// Why a wait ended without what was waited for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The text did not come.
    #[error("the screen did not show {text:?} within {:.1} s; it shows\n{screen}", limit.as_secs_f64())]
    NoText {
        /// What was waited for.
        text: String,
        /// The limit.
        limit: Duration,
        /// The screen at the end.
        screen: Arc<Screen>,
    },
    /// None of several things came.
    #[error("the screen did not show {text} within {:.1} s; it shows\n{screen}", limit.as_secs_f64())]
    NoPattern {
        /// What was waited for.
        text: String,
        /// The limit.
        limit: Duration,
        /// The screen at the end.
        screen: Arc<Screen>,
    },
    /// The screen went on changing.
    #[error("the screen was not still for {:.1} s within {:.1} s; it shows\n{screen}", quiet.as_secs_f64(), limit.as_secs_f64())]
    NotStill {
        /// How long it should have been still.
        quiet: Duration,
        /// The limit.
        limit: Duration,
        /// The screen at the end.
        screen: Arc<Screen>,
    },
    /// Nothing changed.
    #[error("the screen did not change within {:.1} s; it shows\n{screen}", limit.as_secs_f64())]
    NoChange {
        /// The limit.
        limit: Duration,
        /// The screen at the end.
        screen: Arc<Screen>,
    },
    /// The display is gone.
    #[error("the screen was lost while waiting; it showed\n{screen}")]
    Lost {
        /// What happened to the display.
        #[source]
        source: ConsoleError,
        /// The last screen.
        screen: Arc<Screen>,
    },
}

/// A handle on a live console; cheap to clone.
#[derive(Clone, Debug)]
pub struct Console {
    handle: Arc<Handle>,
}

/// Ends the task when the last clone goes.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Console {
    /// Opens a console on a raw RFB stream and waits for its first picture, at most 10 s. May be dropped.
    ///
    /// # Errors
    /// When the peer is no RFB server, refuses the password, closes, or stays silent.
    pub async fn open<S>(stream: S, password: Option<&str>) -> Result<Self, ConsoleError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::start(Display { stream: Box::new(stream), password: password.map(str::to_owned) }, None).await
    }

    /// Opens the console of a VM and waits for its first picture, at most 10 s. When its connection is lost while the VM
    /// runs (a proxy restarts, a ticket ends), the display is asked for again, for up to 30 s each time, and given up when
    /// three in a row show no picture within 10 s each; until then the last picture stays, waits go on, and keys wait to be pressed; those that were under way are lost. May be dropped.
    ///
    /// # Errors
    /// When the VM gives no display, or as for [`Console::open`].
    pub async fn follow(machine: Arc<dyn Machine>) -> Result<Self, FollowError> {
        let display = machine.display().await?;
        Ok(Self::start(display, Some(Arc::new(OfMachine(machine)))).await?)
    }

    async fn start(display: Display, source: Option<Arc<dyn Source>>) -> Result<Self, ConsoleError> {
        let shared = Arc::new(Shared::new(display.password.as_deref())?);
        let mut version = shared.subscribe();
        let console = Self { handle: Arc::new(Handle { shared: Arc::clone(&shared) }) };
        tokio::spawn(task::run(Arc::clone(&shared), display.stream, source));
        let first = async {
            loop {
                // The lock is not held across the await.
                let (failure, pictures) = {
                    let look = shared.look();
                    (look.failure.clone(), look.pictures)
                };
                if let Some(failure) = failure {
                    return Err(failure);
                }
                if pictures > 0 {
                    return Ok(());
                }
                if version.changed().await.is_err() {
                    return Err(ConsoleError::Closed);
                }
            }
        };
        timeout(OPEN_LIMIT, first).await.map_err(|_| ConsoleError::Silent { limit: OPEN_LIMIT })??;
        Ok(console)
    }

    /// What the display shows now, or showed last.
    #[must_use]
    pub fn screen(&self) -> Arc<Screen> {
        Arc::clone(&self.look().screen)
    }

    /// The picture as it is now, or was last.
    #[must_use]
    pub fn frame(&self) -> Frame {
        self.handle.shared.picture().0
    }

    /// The picture together with what is read on it. Where an update is half drawn at this moment, the picture is read as
    /// it is.
    #[must_use]
    pub fn snapshot(&self) -> (Arc<Screen>, Frame) {
        let (frame, screen, is_partial) = self.handle.shared.picture();
        if is_partial || self.failure().is_some() {
            return (screen, frame);
        }
        (Arc::new(Screen::read(&frame)), frame)
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    /// When the encoder fails, as on a display without a size.
    pub fn png(&self) -> Result<Vec<u8>, FrameError> {
        self.frame().png()
    }

    /// Width and height in pixels.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        self.handle.shared.size()
    }

    /// How long the content has been the same: a blinking cursor does not count.
    #[must_use]
    pub fn unchanged_for(&self) -> Duration {
        self.look().changed.elapsed()
    }

    /// A number that grows with each change of content.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.look().changes
    }

    /// A number that grows with each update, whether it changed the content or not.
    #[must_use]
    pub(crate) fn pictures(&self) -> u64 {
        self.look().pictures
    }

    /// Why the display is gone, when it is.
    #[must_use]
    pub fn failure(&self) -> Option<ConsoleError> {
        self.look().failure.clone()
    }

    /// Whether keys travel as scancodes (QEMU's extended key event), independent of any layout but the guest's.
    #[must_use]
    pub fn types_scancodes(&self) -> bool {
        self.handle.shared.client().extended_keys()
    }

    /// Whether caps lock is on in the guest; `None` where the server does not tell its lights.
    #[must_use]
    pub fn caps_lock(&self) -> Option<bool> {
        self.handle.shared.client().leds().map(|leds| leds.caps)
    }

    /// Waits until a line of the screen holds the text, runs of blanks counting as one. May be dropped.
    ///
    /// # Errors
    /// After `limit`, quoting the screen; or when the display is lost.
    pub async fn wait_for(&self, text: &str, limit: Duration) -> Result<(), WaitError> {
        self.wait_until(limit, |look| look.screen.contains(text)).await?.map_err(|screen| WaitError::NoText {
            text: text.to_owned(),
            limit,
            screen,
        })
    }

    /// Waits until the content changes, counted from the call. May be dropped.
    ///
    /// # Errors
    /// After `limit`; or when the display is lost.
    pub async fn wait_change(&self, limit: Duration) -> Result<(), WaitError> {
        let before = self.changes();
        self.wait_until(limit, |look| look.changes != before)
            .await?
            .map_err(|screen| WaitError::NoChange { limit, screen })
    }

    /// Waits until [`Console::changes`] is another number than `seen`, or the display is lost. Unlike the other waits it
    /// does not ask the server to hurry. May be dropped.
    pub async fn wait_other_than(&self, seen: u64) {
        let shared = &self.handle.shared;
        let mut version = shared.subscribe();
        loop {
            {
                let look = shared.look();
                if look.changes != seen || look.failure.is_some() {
                    return;
                }
            }
            if version.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until the content has not changed for `quiet`, at most `limit`. May be dropped.
    ///
    /// # Errors
    /// When it went on changing until `limit`; or when the display is lost.
    pub async fn wait_still(&self, quiet: Duration, limit: Duration) -> Result<(), WaitError> {
        let deadline = Instant::now() + limit;
        let _watching = self.handle.shared.watching();
        loop {
            let still = self.unchanged_for();
            if still >= quiet {
                return Ok(());
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(WaitError::NotStill { quiet, limit, screen: self.screen() });
            }
            let step = (quiet - still).min(deadline - now);
            let _ = self.wait_until(step, |look| look.changed.elapsed() < still).await?;
        }
    }

    /// Waits until the picture is drawn to its end, judged by the pace at which the display is refreshed: a slow machine is
    /// slow in this too. `false` when something on it never rests, or went on changing until `limit`. May be dropped.
    ///
    /// # Errors
    /// When the display is lost.
    pub async fn wait_drawn(&self, limit: Duration) -> Result<bool, WaitError> {
        let deadline = Instant::now() + limit;
        let (mut all, mut looks, mut changes) = (0, 0, self.changes());
        while looks < LOOKS || self.unchanged_for() < CALM {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || all == RESTLESS {
                return Ok(false);
            }
            all += 1;
            let before = self.look().drawings;
            self.handle.shared.ask_for_a_sign();
            let sign = self.wait_until(NO_SIGN.min(left), |look| look.drawings != before).await?;
            if self.changes() != changes {
                (looks, changes) = (0, self.changes());
            } else if sign.is_err() {
                return Ok(self.unchanged_for() >= CALM);
            } else {
                looks += 1;
            }
        }
        Ok(true)
    }

    /// Waits until `done`; the inner error is the screen at the deadline, the outer one a lost display.
    pub(crate) async fn wait_until(
        &self,
        limit: Duration,
        mut done: impl FnMut(&Look) -> bool,
    ) -> Result<Result<(), Arc<Screen>>, WaitError> {
        let deadline = Instant::now() + limit;
        let shared = &self.handle.shared;
        let _watching = shared.watching();
        let mut version = shared.subscribe();
        loop {
            {
                let look = shared.look();
                if done(&look) {
                    return Ok(Ok(()));
                }
                if let Some(source) = look.failure.clone() {
                    return Err(WaitError::Lost { source, screen: Arc::clone(&look.screen) });
                }
            }
            match timeout_at(deadline, version.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(Err(self.screen())),
            }
        }
    }

    fn look(&self) -> std::sync::MutexGuard<'_, Look> {
        self.handle.shared.look()
    }

    /// Queues one stroke, without any pause after it.
    pub(crate) fn strike(&self, stroke: KeyStroke) -> Result<(), ConsoleError> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        self.handle.shared.strike(stroke);
        Ok(())
    }
}

#[async_trait]
impl KeySink for Console {
    async fn press(&self, strokes: &[KeyStroke]) -> Result<(), KeyError> {
        for (index, stroke) in strokes.iter().enumerate() {
            if index > 0 {
                sleep(KEY_PAUSE).await;
            }
            self.handle.shared.connected().await;
            self.strike(*stroke)?;
        }
        Ok(())
    }

    async fn hold(&self, key: KeyStroke, down: bool) -> Result<(), KeyError> {
        self.handle.shared.connected().await;
        if let Some(failure) = self.failure() {
            return Err(failure.into());
        }
        self.handle.shared.hold(key, down);
        sleep(KEY_PAUSE).await;
        Ok(())
    }

    async fn roll(&self, stroke: KeyStroke, again: bool) -> Result<(), KeyError> {
        self.handle.shared.connected().await;
        if let Some(failure) = self.failure() {
            return Err(failure.into());
        }
        self.handle.shared.roll(stroke, again);
        Ok(())
    }

    fn settle(&self) {
        self.handle.shared.settle();
    }

    fn rolled_bytes(&self, stroke: KeyStroke, again: bool) -> usize {
        1 + usize::from(stroke.shift) + usize::from(!again)
    }

    fn release_all(&self) {
        self.handle.shared.release_all();
    }
}

/// A lock that a panic elsewhere does not spoil: what it guards is always whole.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
