//! Types text and proves it: a few keys, their echo on the screen, the next keys; wrong text is taken back and
//! typed again; only what was read back counts as typed.
//!
//! The pace is the guest's own: never more keys are under way than QEMU's keyboard holds (16 bytes; more would be
//! dropped silently), and the next go out when the screen shows the earlier ones. Where typing begins is where the
//! text cursor stands, or, without a visible cursor, where the first character appears. Until that one is seen no other
//! goes out: on a busy machine a screen that looked finished may still be drawn, with the cursor on its way. What then
//! appears elsewhere is taken back, key by key, and typing begins anew.
//!
//! While the echo proves every key, keys are rolled: each is let go when it comes no more in the text, which takes a third
//! off the events (QEMU's display takes 10 ms for each by default). At the end hardly any is down: a keyboard that is full of
//! releases loses the key that is pressed next. While nothing comes of them they are let go, before a keyboard would
//! repeat them. The first wrong echo ends rolling: from then on strokes are whole.
//!
//! Invariants: no key is left pressed, also when the future is dropped; on a
//! screen without readable text nothing is claimed (`verified: false`); an error quotes what was to be typed and
//! what the screen shows there.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::console::Console;
use crate::keymap::{BACKSPACE, KeyStroke, Layout, SHIFT};
use crate::keys::KeySink;
use crate::screen::{Screen, ScreenText};

mod outcome;
mod readback;

pub use outcome::{TypeError, TypeReport};
use readback::Place;

/// What QEMU's PS/2 keyboard holds is 16 bytes; two stay free.
const KEYS_UNDER_WAY: usize = 14;
/// The text cursor of a VGA is drawn every other 228 ms (QEMU `hw/display/vga.c`): within this time it is seen.
const CURSOR_LIMIT: Duration = Duration::from_millis(600);
/// The least quiet time after which wrong text counts as wrong and not as half drawn.
const SETTLED: Duration = Duration::from_secs(1);
/// A USB keyboard's key that stays down is repeated by Linux after 250 ms, by SeaBIOS after 500: before that it is let go.
const HELD: Duration = Duration::from_millis(200);
/// After so many times the quiet that is waited for, it is not waited for any more.
const BLINKING: u32 = 4;
/// How often typing begins anew because the screen was still being drawn.
const FRESH_LOOKS: u32 = 3;
/// So many characters after a correction, the count of corrections begins anew.
const FRESH_START: usize = 16;

/// What is expected of the echo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Echo {
    /// On a readable screen the text must appear.
    #[default]
    Required,
    /// If nothing appears, go on blind.
    IfSeen,
    /// Do not look: passwords, hot keys.
    None,
}

/// How to type.
#[derive(Clone, Debug)]
pub struct TypeOptions {
    /// What is expected of the echo.
    pub echo: Echo,
    /// How often wrong text is taken back at one place.
    pub corrections: u32,
    /// How long the guest may take to show a key.
    pub echo_limit: Duration,
    /// The pause after each key when typing blind.
    pub blind_interval: Duration,
    /// The layout of the guest's keyboard.
    pub layout: Layout,
}

impl Default for TypeOptions {
    fn default() -> Self {
        Self {
            echo: Echo::default(),
            corrections: 3,
            echo_limit: Duration::from_secs(5),
            blind_interval: Duration::from_millis(100),
            layout: Layout::default(),
        }
    }
}

/// Types a text over the console's own connection. May be dropped: what was typed by then stays.
///
/// # Errors
/// See [`TypeError`].
pub async fn type_text(
    console: &Console,
    text: &str,
    options: &TypeOptions,
) -> Result<TypeReport, TypeError> {
    type_text_with(console, console, text, options).await
}

/// Types a text with the keys of `keys`, reading back from `console`. May be dropped: what was typed stays.
///
/// # Errors
/// See [`TypeError`].
pub async fn type_text_with(
    console: &Console,
    keys: &dyn KeySink,
    text: &str,
    options: &TypeOptions,
) -> Result<TypeReport, TypeError> {
    let mut strokes = Vec::with_capacity(text.len());
    for (index, character) in text.chars().enumerate() {
        match options.layout.strokes(character).filter(|_| !character.is_control()) {
            Some(keys) => strokes.push(keys),
            None => return Err(TypeError::Untypable { character, index }),
        }
    }
    let mut typist = Typist {
        console,
        keys,
        options,
        text: text.chars().collect(),
        strokes,
        report: TypeReport {
            keys: 0,
            verified: false,
            corrections: 0,
            prompt_hides: false,
            elapsed: Duration::ZERO,
        },
        start: None,
        cursor: None,
        window: KEYS_UNDER_WAY,
        rolling: true,
        recent_corrections: 0,
        corrected_at: 0,
        fresh_looks: 0,
        slowest_echo: Duration::ZERO,
        layouts: None,
    };
    let _settle = Settle(keys);
    let began = Instant::now();
    let before = console.screen();
    let verified = match before.text() {
        Some(before) if options.echo != Echo::None && asks_in_secret(before) => {
            typist.report.prompt_hides = true;
            typist.blind(0).await?;
            false
        }
        Some(_) if options.echo != Echo::None && !text.is_empty() => typist.proven().await?,
        _ => {
            typist.blind(0).await?;
            text.is_empty()
        }
    };
    Ok(TypeReport { verified, elapsed: began.elapsed(), ..typist.report })
}

/// Whether the last line is a prompt for a password: what is typed there is not shown.
fn asks_in_secret(text: &ScreenText) -> bool {
    let Some(line) = text.rows.iter().rev().find(|row| !row.trim().is_empty()) else { return false };
    let line = line.trim_end().to_lowercase();
    line.ends_with(':')
        && ["password", "passphrase", "passwort", "mot de passe"].iter().any(|word| line.contains(word))
}

/// Lets rolled keys go on every way out, also when the future is dropped.
struct Settle<'k>(&'k dyn KeySink);

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        self.0.settle();
    }
}

struct Typist<'t> {
    console: &'t Console,
    keys: &'t dyn KeySink,
    options: &'t TypeOptions,
    text: Vec<char>,
    strokes: Vec<Vec<KeyStroke>>,
    report: TypeReport,
    start: Option<Place>,
    /// Where the cursor was last seen while it was looked for.
    cursor: Option<Place>,
    /// How many bytes of keys may be under way.
    window: usize,
    /// Whether keys stay down until the end; over with the first wrong echo.
    rolling: bool,
    recent_corrections: u32,
    corrected_at: usize,
    fresh_looks: u32,
    slowest_echo: Duration,
    /// The layouts that account for everything wrong so far; `None` before anything was.
    layouts: Option<Vec<Layout>>,
}

/// What the screen says of the text typed so far.
struct Echoed {
    /// Characters read back.
    length: usize,
    /// Whether what was read back is followed by what followed before: nothing else was typed.
    clean: bool,
    /// The place behind the last character read back.
    end: Place,
}

impl Typist<'_> {
    /// Types with read-back; `false` when it had to go on blind.
    async fn proven(&mut self) -> Result<bool, TypeError> {
        loop {
            let before = self.console.screen();
            let Some(before) = before.text() else {
                self.blind(0).await?;
                return Ok(false);
            };
            if let Some(verified) = self.verified(before).await? {
                return Ok(verified);
            }
            self.fresh_looks += 1;
            // What was drawn after the first look is drawn to its end.
            let _still = self.console.wait_still(SETTLED, self.options.echo_limit).await;
        }
    }

    /// The same from one look at the screen; `None` when that look was too early and what was typed is taken back.
    async fn verified(&mut self, before: &ScreenText) -> Result<Option<bool>, TypeError> {
        self.start = self.cursor(before).await?;
        let mut sent = 0;
        let mut best = 0;
        let mut progress = Instant::now();
        let first_change = self.console.changes();
        loop {
            let echoed = self.look(before, sent);
            let complete = echoed.clean && echoed.length == self.text.len();
            if complete && (!self.ends_in_blank() || self.cursor_is_at(echoed.end).await?) {
                return Ok(Some(true));
            }
            if echoed.length > best {
                self.slowest_echo = self.slowest_echo.max(progress.elapsed());
                best = echoed.length;
                progress = Instant::now();
                if best > self.corrected_at + FRESH_START {
                    self.recent_corrections = 0;
                    self.window = KEYS_UNDER_WAY;
                }
            }
            if self.may_send(sent, echoed.length) {
                self.press_next(sent).await?;
                sent += 1;
                progress = Instant::now();
                continue;
            }
            let changes = self.console.changes();
            // Text that is right as far as it goes may still be coming; wrong text may be half drawn.
            let settled = SETTLED.min(self.options.echo_limit).max(self.slowest_echo * 4);
            let limit = if echoed.clean { self.patience() } else { settled };
            let nothing_yet = changes == first_change;
            // Until the first character is seen nothing is certain, and a busy guest may only be late.
            let early = !nothing_yet && echoed.length <= self.blanks();
            let limit = if early { limit.max(self.patience() * 4) } else { limit };
            // A cursor that blinks changes the screen for ever.
            let waited = progress.elapsed();
            let unchanged = waited.min(self.console.unchanged_for());
            let quiet = |limit: Duration| if waited >= limit * BLINKING { waited } else { unchanged };
            if waited >= HELD {
                self.keys.settle();
            }
            // What stands elsewhere, with the cursor behind it, will not come here any more.
            if early
                && self.fresh_looks < FRESH_LOOKS
                && quiet(settled) >= settled
                && self.stands_elsewhere(before, sent).await?
            {
                self.rolling = false;
                self.keys.release_all();
                for _ in 0..sent {
                    self.press_backspace().await?;
                }
                return Ok(None);
            }
            let quiet = quiet(limit);
            if quiet < limit {
                let step = (limit - quiet).min(HELD);
                let _ = self.console.wait_until(step, |look| look.changes != changes).await?;
                continue;
            }
            if nothing_yet && self.options.echo == Echo::IfSeen {
                self.blind(sent).await?;
                return Ok(Some(false));
            }
            if nothing_yet {
                return Err(TypeError::NoEcho {
                    expected: self.text.iter().collect(),
                    limit,
                    screen: self.console.screen(),
                });
            }
            sent = self.correct(before, sent).await?;
            best = sent;
            progress = Instant::now();
        }
    }

    /// Where the cursor stands, if it is seen within one period of its blinking.
    async fn cursor(&self, before: &ScreenText) -> Result<Option<Place>, TypeError> {
        if before.cursor.is_some() {
            return Ok(before.cursor);
        }
        let mut place = None;
        let _ = self
            .console
            .wait_until(CURSOR_LIMIT, |look| {
                place = look.screen.text().and_then(|text| text.cursor);
                place.is_some()
            })
            .await?;
        Ok(place)
    }

    /// Whether the cursor, if it shows itself at all, stands at a place (or on the next line, after a line break).
    async fn cursor_is_at(&mut self, place: Place) -> Result<bool, TypeError> {
        let mut behind = None;
        let mut seen = None;
        let _ = self
            .console
            .wait_until(CURSOR_LIMIT, |look| {
                let text = look.screen.text();
                if let Some((text, cursor)) = text.and_then(|text| Some((text, text.cursor?))) {
                    behind = Some(readback::is_behind(text, place, cursor));
                    seen = Some(cursor);
                }
                behind == Some(true)
            })
            .await?;
        self.cursor = seen;
        Ok(behind.unwrap_or(true))
    }

    fn ends_in_blank(&self) -> bool {
        self.text.last() == Some(&' ')
    }

    /// Reads back what stands on the screen of the first `sent` characters.
    fn look(&mut self, before: &ScreenText, sent: usize) -> Echoed {
        let screen = self.console.screen();
        let nothing = Echoed { length: 0, clean: true, end: (0, 0) };
        let Some(now) = screen.text() else { return nothing };
        let typed = self.text.get(..sent).unwrap_or(&self.text);
        if self.start.is_none() && sent > 0 {
            self.start = readback::guess_start(before, now, typed);
        }
        let Some(start) = self.start else { return nothing };
        let up = readback::scrolled(before, now, start);
        let place = (start.0 - up, start.1);
        let found = readback::read(now, place, typed);
        let mut whole = typed.get(..found.length).unwrap_or(typed).to_vec();
        whole.extend(readback::tail(before, start));
        let clean = readback::read(now, place, &whole).length == whole.len();
        Echoed { length: found.length, clean, end: found.end }
    }

    /// Whether the next key may go out: few enough are under way, and until the typing place is known, only what
    /// leads up to the first character that can be seen.
    fn may_send(&self, sent: usize, echoed: usize) -> bool {
        let blanks = self.blanks();
        sent < self.text.len()
            && (sent <= blanks || (self.start.is_some() && echoed > blanks))
            && (sent == echoed || self.under_way(echoed, sent) < self.window)
    }

    /// How long the next echo may take: a guest that was slow may be as slow again.
    fn patience(&self) -> Duration {
        self.options.echo_limit.max(self.slowest_echo * 4)
    }

    /// How many blanks the text begins with: they can't be seen.
    fn blanks(&self) -> usize {
        self.text.iter().take_while(|character| **character == ' ').count()
    }

    /// Whether the first characters were typed well, but not where the cursor had been seen: with the cursor behind them.
    async fn stands_elsewhere(&self, before: &ScreenText, sent: usize) -> Result<bool, TypeError> {
        let screen = self.console.screen();
        let (Some(now), Some(typed)) = (screen.text(), self.text.get(..sent)) else { return Ok(false) };
        let Some(cursor) = self.cursor(now).await? else { return Ok(false) };
        let typed_at = |place: Place| {
            Some(place) != self.start
                && readback::read(now, place, typed).length == sent
                && readback::is_behind(now, (place.0, place.1 + sent), cursor)
        };
        // What was drawn late may have had the same character there before: then nothing changed but the cursor.
        let before_cursor = cursor.1.checked_sub(sent).map(|column| (cursor.0, column));
        let changed = readback::guess_start(before, now, typed);
        Ok(before_cursor.into_iter().chain(changed).any(typed_at))
    }

    /// Bytes in the keyboard's queue for the characters between the two places: each key is pressed and released.
    fn under_way(&self, from: usize, to: usize) -> usize {
        let bytes = |index: usize, stroke: &KeyStroke| match self.rolling {
            true if !stroke.altgr => self.keys.rolled_bytes(*stroke, self.comes_again(index, stroke)),
            // The right Alt has two bytes each way.
            _ => 2 + if stroke.shift { 2 } else { 0 } + if stroke.altgr { 4 } else { 0 },
        };
        let strokes = self.strokes.iter().enumerate().take(to + 1).skip(from);
        strokes.map(|(index, strokes)| strokes.iter().map(|stroke| bytes(index, stroke)).sum::<usize>()).sum()
    }

    async fn press_next(&mut self, index: usize) -> Result<(), TypeError> {
        match self.strokes.get(index).map(Vec::as_slice) {
            Some([stroke]) if self.rolling => {
                self.report.keys += 1;
                let again = self.comes_again(index, stroke);
                Ok(self.keys.roll(*stroke, again).await?)
            }
            Some(strokes) => {
                self.report.keys += strokes.len();
                Ok(self.keys.press(strokes).await?)
            }
            None => Ok(()),
        }
    }

    /// Whether a later character of the text has the same key.
    fn comes_again(&self, index: usize, stroke: &KeyStroke) -> bool {
        self.strokes.iter().skip(index + 1).flatten().any(|later| later.scancode == stroke.scancode)
    }

    async fn press(&mut self, stroke: KeyStroke) -> Result<(), TypeError> {
        self.report.keys += 1;
        Ok(self.keys.press(&[stroke]).await?)
    }

    /// Types the rest without looking.
    async fn blind(&mut self, from: usize) -> Result<(), TypeError> {
        self.rolling = false;
        self.keys.settle();
        for index in from..self.strokes.len() {
            self.press_next(index).await?;
            sleep(self.options.blind_interval).await;
        }
        Ok(())
    }

    /// Takes back what is wrong; gives how many characters stand then.
    async fn correct(&mut self, before: &ScreenText, sent: usize) -> Result<usize, TypeError> {
        let good = self.look(before, sent).length;
        self.suspect(before, sent);
        if self.start.is_none() || self.recent_corrections >= self.options.corrections {
            return Err(self.mismatch(before));
        }
        tracing::debug!(good, sent, "typed text is wrong on the screen, taking it back");
        self.report.corrections += 1;
        self.recent_corrections += 1;
        self.corrected_at = good;
        self.window = 1;
        self.rolling = false;
        self.keys.release_all();
        // A lost release of shift is made up for by pressing and releasing it once more.
        self.press(SHIFT).await?;
        self.cursor = None;
        // At most what was sent can stand there; two more for what a key may have doubled, where the cursor shows it.
        for taken in 0..(sent - good) + 2 {
            let echoed = self.look(before, good);
            if echoed.length < good || (echoed.clean && self.cursor_is_at(echoed.end).await?) {
                break;
            }
            if self.cursor_is_at_start(before) {
                break;
            }
            let surplus =
                self.cursor.is_some_and(|cursor| cursor.0 == echoed.end.0 && cursor.1 > echoed.end.1);
            // Where nothing of it was ever seen, more would take back what is not ours.
            if taken >= sent - good && good <= self.blanks() && !surplus {
                break;
            }
            self.press_backspace().await?;
        }
        Ok(self.look(before, good).length)
    }

    /// Takes one character back and waits for the answer: taking back a blank moves nothing but the cursor.
    async fn press_backspace(&mut self) -> Result<(), TypeError> {
        let changes = self.console.changes();
        let mut cursor = self.console.screen().text().and_then(|text| text.cursor).or(self.cursor);
        self.press(BACKSPACE).await?;
        let _ = self
            .console
            .wait_until(self.patience(), |look| {
                let now = look.screen.text().and_then(|text| text.cursor);
                let moved = now.is_some() && cursor.is_some() && now != cursor;
                cursor = now.or(cursor);
                look.changes != changes || moved
            })
            .await?;
        self.cursor = cursor;
        Ok(())
    }

    /// Whether the cursor is seen where typing began: what stands before it is not ours to take back.
    fn cursor_is_at_start(&self, before: &ScreenText) -> bool {
        let screen = self.console.screen();
        let (Some(now), Some(start)) = (screen.text(), self.start) else { return false };
        let up = readback::scrolled(before, now, start);
        now.cursor.is_some_and(|cursor| cursor <= (start.0 - up, start.1))
    }

    /// What stands where `length` characters were typed.
    fn seen(&self, before: &ScreenText, screen: &Screen, length: usize) -> String {
        let (Some(now), Some(start)) = (screen.text(), self.start) else { return String::new() };
        let up = readback::scrolled(before, now, start);
        readback::seen(now, (start.0 - up, start.1), length)
    }

    /// Keeps the layouts that account for what is wrong now, too.
    fn suspect(&mut self, before: &ScreenText, sent: usize) {
        let shown: Vec<char> = self.seen(before, &self.console.screen(), sent).chars().take(sent).collect();
        let found = self.options.layout.mistaken_for(&self.text, &shown);
        match &mut self.layouts {
            None => self.layouts = Some(found),
            Some(suspects) => suspects.retain(|layout| found.contains(layout)),
        }
    }

    fn mismatch(&self, before: &ScreenText) -> TypeError {
        let screen = self.console.screen();
        TypeError::Mismatch {
            expected: self.text.iter().collect(),
            seen: self.seen(before, &screen, self.text.len()),
            corrections: self.report.corrections,
            layouts: self.layouts.clone().unwrap_or_default(),
            caps_lock: self.console.caps_lock() == Some(true),
            screen,
        }
    }
}

#[cfg(test)]
mod tests;
