//! Records the build VM's screen into the evidence, and shows it to who watches, as long as the screen is held.
//!
//! A frame is taken when the content changed, at most every [`PACE`]; the more there are, the rarer they become, so
//! that a guest that never comes to rest fills no disk.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forge_console::recording::RecordingError;
use forge_console::{Console, Recorder};
use tokio::task::JoinHandle;

use super::screen::Curtain;
use crate::engine::Cx;
use crate::event::{Events, ScreenShot};

/// The folder of the recording in the evidence.
pub const FOLDER: &str = "recording";
/// The shortest time between two frames.
const PACE: Duration = Duration::from_millis(250);
/// After so many frames the time between them doubles, and after as many again.
const PATIENCE: usize = 400;
/// What watchers get of a picture without text, at most: a terminal shows no more.
const THUMBNAIL: (u32, u32) = (240, 135);

/// A running recording; it ends when this is dropped, and writes nothing from then on.
#[derive(Debug)]
pub(super) struct Tape {
    task: JoinHandle<()>,
    console: Console,
    deck: Arc<Mutex<Option<Deck>>>,
}

impl Tape {
    /// Begins to record. `None` when it can't be written, which is told: no build ends for its recording.
    pub(super) fn start(cx: &Cx, console: Console, curtain: Curtain) -> Option<Self> {
        let deck = match Deck::open(&cx.evidence.path().join(FOLDER), cx.events.clone(), curtain) {
            Ok(deck) => deck,
            Err(error) => {
                cx.warn(format!("the screen is not recorded: {}", crate::engine::error::chain(&error)), "");
                return None;
            }
        };
        let deck = Arc::new(Mutex::new(Some(deck)));
        let task = tokio::spawn(follow(console.clone(), Arc::clone(&deck)));
        Some(Self { task, console, deck })
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.task.abort();
        // The evidence is summed up soon after: what is being written is written to its end, and the last frame too.
        let deck = lock(&self.deck).take();
        if let Some(mut deck) = deck {
            deck.take(&self.console);
        }
    }
}

async fn follow(console: Console, deck: Arc<Mutex<Option<Deck>>>) {
    loop {
        let seen = console.changes();
        let (console_of_deck, shared) = (console.clone(), Arc::clone(&deck));
        let taken = tokio::task::spawn_blocking(move || {
            lock(&shared).as_mut().map(|deck| {
                deck.take(&console_of_deck);
                deck.pace()
            })
        });
        let Ok(Some(pace)) = taken.await else { return };
        tokio::time::sleep(pace).await;
        console.wait_other_than(seen).await;
        if console.failure().is_some() && console.changes() == seen {
            return;
        }
    }
}

/// Writes the frames and hands them to who watches.
#[derive(Debug)]
struct Deck {
    recorder: Recorder,
    events: Events,
    curtain: Curtain,
    broken: bool,
}

impl Deck {
    fn open(folder: &Path, events: Events, curtain: Curtain) -> Result<Self, RecordingError> {
        Ok(Self { recorder: Recorder::open(folder)?, events, curtain, broken: false })
    }

    fn pace(&self) -> Duration {
        let doublings = u32::try_from(self.recorder.len() / PATIENCE).unwrap_or(u32::MAX).min(8);
        PACE * 2_u32.pow(doublings)
    }

    /// Takes what the screen shows now.
    fn take(&mut self, console: &Console) {
        let (screen, frame) = console.snapshot();
        let (shot, frame) = self.curtain.shot(&screen, frame);
        if self.events.shows_screens() {
            let wanted = frame.as_ref().filter(|_| shot.text.is_none());
            let picture = wanted.map(|frame| frame.shrunk(THUMBNAIL.0, THUMBNAIL.1));
            self.events.show(ScreenShot { shot: shot.clone(), picture });
        }
        if self.broken {
            return;
        }
        if let Err(error) = self.recorder.store(self.events.began().elapsed(), shot, frame.as_ref()) {
            // Told once; a full disk must not stop a build.
            tracing::warn!(error = %crate::engine::error::chain(&error), "the recording of the screen ends here");
            self.broken = true;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
