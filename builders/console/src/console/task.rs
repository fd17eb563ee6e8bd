//! The task that owns the connection, and what it shares with the handles.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use forge_machine::DisplayStream;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::reopen::{Source, reopen};
use super::{ConsoleError, OPEN_LIMIT, lock};
use crate::frame::{Frame, Rect};
use crate::keymap::{ALTGR, KeyStroke, SHIFT};
use crate::rfb::{Event, RfbClient};
use crate::screen::{NoText, Screen};

/// While somebody waits, QEMU is kept from slowing its refresh down: left alone it looks at an unchanging screen
/// only every 3 s (`ui/vnc.c`: the interval grows by 50 ms with each look, and a key message resets it to 30 ms).
const NUDGE: Duration = Duration::from_millis(200);
/// A change within a rectangle of at most this side may be the flicker of a cursor or a spinner.
const FLICKER_SIDE: u32 = 64;
/// So many connections one after another without a picture, and the display is given up.
const IN_VAIN: u32 = 3;
/// How many such small pictures are remembered.
const FLICKER_MEMORY: usize = 16;
/// Of the time, at most one part in so many and one more goes into reading a picture on which no text was found: it
/// costs the most to read, and may never come to rest.
const READING_SHARE: u32 = 3;

/// What the display shows.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) screen: Arc<Screen>,
    /// When the content last changed.
    pub(crate) changed: Instant,
    /// Counts the changes of content.
    pub(crate) changes: u64,
    /// Counts the updates.
    pub(crate) pictures: u64,
    /// Counts those that had pixels, and so the looks that the server took at its screen.
    pub(crate) drawings: u64,
    /// Why there is no connection any more.
    pub(crate) failure: Option<ConsoleError>,
    flicker: VecDeque<(Rect, u64)>,
    /// A picture without text is read again from then on.
    next_reading: Instant,
    /// Whether the picture changed since it was read.
    is_owed: bool,
}

/// What task and handles share.
pub(crate) struct Shared {
    client: Mutex<RfbClient>,
    look: Mutex<Look>,
    held: Mutex<Vec<KeyStroke>>,
    rolled: Mutex<Vec<KeyStroke>>,
    version: watch::Sender<u64>,
    wake: Notify,
    watchers: AtomicUsize,
    closing: AtomicBool,
    /// From the loss of a connection until another shows a picture.
    interrupted: AtomicBool,
    /// The last picture of a connection that was lost, until another shows one.
    last: Mutex<Option<Frame>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Keeps the server's refresh fast as long as it lives.
pub(crate) struct Watching<'s>(&'s Shared);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(password: Option<&str>) -> Result<Self, ConsoleError> {
        let client = RfbClient::new(password).map_err(|error| ConsoleError::Rfb(Arc::new(error)))?;
        Ok(Self {
            client: Mutex::new(client),
            look: Mutex::new(Look::new()),
            held: Mutex::new(Vec::new()),
            rolled: Mutex::new(Vec::new()),
            version: watch::Sender::new(0),
            wake: Notify::new(),
            watchers: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            last: Mutex::new(None),
        })
    }

    pub(crate) fn client(&self) -> MutexGuard<'_, RfbClient> {
        lock(&self.client)
    }

    pub(crate) fn look(&self) -> MutexGuard<'_, Look> {
        lock(&self.look)
    }

    /// The picture as it is now, or was last; what was read on the last whole one; and whether that is
    /// what to go by.
    pub(crate) fn picture(&self) -> (Frame, Arc<Screen>, bool) {
        // In this order the task locks them too.
        let client = self.client();
        let last = lock(&self.last);
        let screen = Arc::clone(&self.look().screen);
        match &*last {
            Some(last) => (last.clone(), screen, true),
            None => (client.frame().clone(), screen, !client.is_between_updates()),
        }
    }

    /// Width and height of that picture.
    pub(crate) fn size(&self) -> (u32, u32) {
        let client = self.client();
        let last = lock(&self.last);
        let frame = last.as_ref().unwrap_or_else(|| client.frame());
        (frame.width(), frame.height())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn watching(&self) -> Watching<'_> {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watching(self)
    }

    /// Waits while a lost display is being opened again: a key that is pressed meanwhile would be lost.
    pub(crate) async fn connected(&self) {
        let mut version = self.subscribe();
        while self.interrupted.load(Ordering::Relaxed) {
            if version.changed().await.is_err() {
                return;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Begins a new connection: what was held down went up with the old one (QEMU lifts all keys of a client that goes),
    /// and the last picture stays to be read until a new one is there.
    pub(super) fn renew(&self, password: Option<&str>) -> Result<(), ConsoleError> {
        let client = RfbClient::new(password).map_err(|error| ConsoleError::Rfb(Arc::new(error)))?;
        lock(&self.held).clear();
        lock(&self.rolled).clear();
        let mut current = self.client();
        lock(&self.last).get_or_insert_with(|| current.frame().clone());
        *current = client;
        Ok(())
    }

    /// Ends the task after held keys are let go.
    pub(crate) fn close(&self) {
        self.release_all();
        self.closing.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Queues a whole stroke.
    pub(crate) fn strike(&self, stroke: KeyStroke) {
        self.settle();
        let shift_is_held = lock(&self.held).iter().any(KeyStroke::is_shift);
        // QEMU compares the case of the keysym with the state of shift and caps lock, and presses caps lock
        // itself when they disagree (`ui/vnc.c`, do_key_event): they must agree.
        let keysym = if shift_is_held && !stroke.shift { stroke.shifted_keysym() } else { stroke.keysym };
        let with_shift = stroke.shift && !shift_is_held;
        let mut client = self.client();
        if with_shift {
            client.key(true, SHIFT.keysym, SHIFT.scancode);
        }
        if stroke.altgr {
            client.key(true, ALTGR.keysym, ALTGR.scancode);
        }
        client.key(true, keysym, stroke.scancode);
        client.key(false, keysym, stroke.scancode);
        if stroke.altgr {
            client.key(false, ALTGR.keysym, ALTGR.scancode);
        }
        if with_shift {
            client.key(false, SHIFT.keysym, SHIFT.scancode);
        }
        drop(client);
        self.wake.notify_one();
    }

    /// Queues one half of a stroke, and remembers it.
    pub(crate) fn hold(&self, key: KeyStroke, down: bool) {
        self.settle();
        let mut held = lock(&self.held);
        held.retain(|other| other.scancode != key.scancode);
        if down {
            held.push(key);
        }
        drop(held);
        self.client().key(down, key.keysym, key.scancode);
        self.wake.notify_one();
    }

    /// Queues the press of a key that stays down until it does not come `again`, or [`Shared::settle`]; shift goes down and up
    /// as its run of characters needs. A key that is down already is pressed again, as a keyboard that repeats does.
    pub(crate) fn roll(&self, stroke: KeyStroke, again: bool) {
        if stroke.altgr || !lock(&self.held).is_empty() {
            return self.strike(stroke);
        }
        let mut rolled = lock(&self.rolled);
        let shift_is_down = rolled.iter().any(KeyStroke::is_shift);
        let mut client = self.client();
        // A blank is a blank with and without shift.
        if stroke.shift != shift_is_down && stroke.keysym != 0x20 {
            client.key(stroke.shift, SHIFT.keysym, SHIFT.scancode);
            rolled.retain(|key| !key.is_shift());
            if stroke.shift {
                rolled.push(SHIFT);
            }
        }
        client.key(true, stroke.keysym, stroke.scancode);
        rolled.retain(|key| key.scancode != stroke.scancode);
        if again {
            rolled.push(stroke);
        } else {
            client.key(false, stroke.keysym, stroke.scancode);
        }
        drop(client);
        drop(rolled);
        self.wake.notify_one();
    }

    /// Queues the release of what was rolled, shift last.
    pub(crate) fn settle(&self) {
        let rolled = std::mem::take(&mut *lock(&self.rolled));
        if rolled.is_empty() {
            return;
        }
        let mut client = self.client();
        let (shift, keys): (Vec<KeyStroke>, Vec<KeyStroke>) =
            rolled.into_iter().partition(KeyStroke::is_shift);
        for key in keys.into_iter().chain(shift) {
            client.key(false, key.keysym, key.scancode);
        }
        drop(client);
        self.wake.notify_one();
    }

    /// Queues the release of every held key, newest first.
    pub(crate) fn release_all(&self) {
        self.settle();
        let held = std::mem::take(&mut *lock(&self.held));
        let mut client = self.client();
        for key in held.iter().rev() {
            client.key(false, key.keysym, key.scancode);
        }
        drop(client);
        self.wake.notify_one();
    }

    /// The release of a key that is not pressed: QEMU drops it before any device, but it resets the refresh.
    fn nudge(&self) {
        let shift_is_held = lock(&self.held).iter().chain(lock(&self.rolled).iter()).any(KeyStroke::is_shift);
        let mut client = self.client();
        if client.extended_keys() && !shift_is_held {
            client.key(false, SHIFT.keysym, SHIFT.scancode);
        }
    }

    /// Has the server answer when it next looks at its screen, whether anything changed or not.
    pub(crate) fn ask_for_a_sign(&self) {
        self.client().request_sign();
        self.wake.notify_one();
    }

    /// Takes bytes from the server; updates what the handles see.
    fn absorb(&self, bytes: &[u8]) -> Result<(), ConsoleError> {
        let mut client = self.client();
        let events = client.receive(bytes).map_err(|error| ConsoleError::Rfb(Arc::new(error)))?;
        let mut updated = false;
        let mut dirty: Option<Rect> = None;
        for event in events {
            match event {
                Event::Ready { name } => tracing::debug!(name, "display is ready"),
                Event::Resized { width, height } => {
                    dirty = None;
                    tracing::debug!(width, height, "display changed its size");
                }
                Event::Updated(rect) => {
                    updated = true;
                    dirty = match (dirty, rect) {
                        (Some(one), Some(two)) => Some(one.union(two)),
                        (one, two) => one.or(two),
                    };
                }
                Event::ExtendedKeys | Event::Leds(_) | Event::Bell => {}
            }
        }
        // What tells of keys or lights alone is no picture.
        if updated && client.has_drawn() {
            self.interrupted.store(false, Ordering::Relaxed);
            *lock(&self.last) = None;
            let mut look = self.look();
            look.drawings = client.drawings();
            look.show(client.frame(), dirty);
            drop(look);
            drop(client);
            self.version.send_modify(|version| *version += 1);
        }
        Ok(())
    }

    /// When the picture as it stands has to be read; `None` when what was read is of that picture.
    fn owed(&self) -> Option<Instant> {
        // What is half drawn is read when it is whole.
        let client = self.client();
        let whole = client.is_between_updates() && lock(&self.last).is_none();
        let look = self.look();
        (whole && look.is_owed).then_some(look.next_reading)
    }

    /// Reads the picture that was left unread.
    fn catch_up(&self) {
        let client = self.client();
        self.look().read(client.frame(), None);
        drop(client);
        self.version.send_modify(|version| *version += 1);
    }

    fn fail(&self, failure: ConsoleError) {
        tracing::debug!(%failure, "display is lost");
        if self.owed().is_some() {
            self.catch_up();
        }
        self.interrupted.store(false, Ordering::Relaxed);
        self.look().failure = Some(failure);
        self.version.send_modify(|version| *version += 1);
    }
}

impl Look {
    pub(super) fn new() -> Self {
        let screen = Screen::NoText(NoText { width: 0, height: 0, reason: "no picture was received yet" });
        let now = Instant::now();
        Self {
            screen: Arc::new(screen),
            changed: now,
            changes: 0,
            pictures: 0,
            drawings: 0,
            failure: None,
            flicker: VecDeque::new(),
            next_reading: now,
            is_owed: false,
        }
    }

    /// Takes an update. Text is read at once; a picture on which none was found only when enough time has passed since,
    /// or when [`Shared::catch_up`] does it.
    pub(super) fn show(&mut self, frame: &Frame, dirty: Option<Rect>) {
        self.pictures += 1;
        let Some(dirty) = dirty else { return };
        let same_size = |old: &NoText| (old.width, old.height) == (frame.width(), frame.height());
        let was_picture = matches!(&*self.screen, Screen::NoText(old) if same_size(old));
        if was_picture && Instant::now() < self.next_reading {
            self.is_owed = true;
            if self.is_news(frame, dirty) {
                self.count_change();
            }
            return;
        }
        self.read(frame, Some(dirty));
    }

    /// Reads the picture; with no place that changed, it differs only if what is read on it does.
    fn read(&mut self, frame: &Frame, dirty: Option<Rect>) {
        // Not the clock of the waits: what counts is the processor's time.
        let began = std::time::Instant::now();
        let screen = Screen::read_after(frame, Some(&self.screen), dirty);
        self.next_reading = Instant::now() + began.elapsed() * READING_SHARE;
        self.is_owed = false;
        let changed = match (&screen, &*self.screen) {
            (Screen::NoText(new), Screen::NoText(old)) if new == old => {
                dirty.is_some_and(|dirty| self.is_news(frame, dirty))
            }
            (new, old) => !new.same_content(old),
        };
        self.screen = Arc::new(screen);
        if changed {
            self.count_change();
        }
    }

    fn count_change(&mut self) {
        self.changed = Instant::now();
        self.changes += 1;
    }

    /// Whether a change of a picture without text is more than a small place going back to an earlier state.
    fn is_news(&mut self, frame: &Frame, dirty: Rect) -> bool {
        if dirty.width > FLICKER_SIDE || dirty.height > FLICKER_SIDE {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        for row in 0..dirty.height {
            frame.row(dirty.x, dirty.y + row, dirty.width).hash(&mut hasher);
        }
        let state = (dirty, hasher.finish());
        if self.flicker.contains(&state) {
            return false;
        }
        if self.flicker.len() == FLICKER_MEMORY {
            self.flicker.pop_front();
        }
        self.flicker.push_back(state);
        true
    }
}

/// Serves the handles until the display is lost for good or the last handle goes.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut stream: Box<dyn DisplayStream>,
    source: Option<Arc<dyn Source>>,
) {
    // A display that never showed anything is not asked for again.
    let mut in_vain = IN_VAIN;
    // The first picture of the first connection is waited for by who opens the console.
    let mut limit = None;
    loop {
        let before = shared.look().pictures;
        let failure = converse(&shared, stream, limit).await;
        let saw = shared.look().pictures > before && !shared.interrupted.load(Ordering::Relaxed);
        in_vain = if saw { 0 } else { in_vain + 1 };
        let again = match &source {
            Some(source) if in_vain < IN_VAIN && !shared.is_closing() => {
                tracing::debug!(%failure, "the display is lost, asking for it again");
                shared.interrupted.store(true, Ordering::Relaxed);
                reopen(&shared, source.as_ref()).await
            }
            _ => None,
        };
        match again {
            Some(next) => (stream, limit) = (next, Some(OPEN_LIMIT)),
            None => return shared.fail(failure),
        }
    }
}

/// Moves bytes both ways until the connection ends, shows no picture within the limit, or the last handle goes; gives how
/// it ended.
async fn converse(shared: &Shared, stream: Box<dyn DisplayStream>, limit: Option<Duration>) -> ConsoleError {
    let silent = limit.map(|limit| (Instant::now() + limit, limit));
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut input = vec![0_u8; 64 * 1024];
    let mut output = Outgoing::default();
    let mut nudge = interval(NUDGE);
    nudge.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        output.queue(shared.client().take_output());
        if output.is_idle() && shared.is_closing() {
            break ConsoleError::Closed;
        }
        let idle = output.is_idle();
        let owed = shared.owed().map(|at| (at, ()));
        tokio::select! {
            read = reader.read(&mut input) => match read {
                Ok(0) => break ConsoleError::Closed,
                Ok(length) => {
                    if let Err(failure) = shared.absorb(input.get(..length).unwrap_or(&[])) {
                        break failure;
                    }
                }
                Err(error) => break lost(error),
            },
            sent = output.push(&mut writer), if !idle => {
                if let Err(error) = sent {
                    break lost(error);
                }
            }
            () = shared.wake.notified() => {}
            limit = passed(silent), if shared.interrupted.load(Ordering::Relaxed) => {
                break ConsoleError::Silent { limit };
            }
            () = passed(owed) => shared.catch_up(),
            _ = nudge.tick(), if shared.watchers.load(Ordering::Relaxed) > 0 => shared.nudge(),
        }
    }
}

/// Waits for a point in time, and gives what comes with it; for ever where there is none.
async fn passed<T>(deadline: Option<(Instant, T)>) -> T {
    match deadline {
        Some((deadline, with)) => {
            sleep_until(deadline).await;
            with
        }
        None => std::future::pending().await,
    }
}

fn lost(error: io::Error) -> ConsoleError {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            ConsoleError::Closed
        }
        _ => ConsoleError::Io(Arc::new(error)),
    }
}

/// Bytes on their way out. Dropping [`Outgoing::push`] in flight loses nothing.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    unflushed: bool,
}

impl Outgoing {
    fn queue(&mut self, more: Vec<u8>) {
        if self.sent == self.bytes.len() {
            self.bytes = more;
            self.sent = 0;
        } else {
            self.bytes.extend(more);
        }
    }

    fn is_idle(&self) -> bool {
        self.sent == self.bytes.len() && !self.unflushed
    }

    /// One step: writes some bytes, or flushes what was written (a websocket may hold it back).
    async fn push(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let rest = self.bytes.get(self.sent..).unwrap_or(&[]);
        if rest.is_empty() {
            writer.flush().await?;
            self.unflushed = false;
            return Ok(());
        }
        let written = writer.write(rest).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.sent += written;
        self.unflushed = true;
        Ok(())
    }
}
