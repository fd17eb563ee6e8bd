//! What a wait looks for: a text or a regular expression in a part of the screen, a needle on its picture, or one of
//! several; and the known screens after which waiting makes no sense.
//!
//! Texts and expressions look at one line at a time. Of several patterns the first in the given order wins, so that the order of a
//! profile decides.

use std::fmt;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::console::{Console, WaitError};
use crate::frame::Frame;
use crate::known::{self, Sighting};
use crate::needle::Needle;
use crate::screen::{Screen, ScreenText};

/// How often the clock is looked at: a fatal screen counts only when it has stood still.
const TICK: Duration = Duration::from_millis(250);
/// A search for needles takes at most this share of the time.
const SEARCH_SHARE: u32 = 3;
/// How long a guest at rest may take for its first answer to a key.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// A guest may take so many times as long for an answer as it took for its slowest one.
const ANSWERS: u32 = 4;

/// A part of a text screen, in lines and columns from 1, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The lines.
    pub lines: RangeInclusive<usize>,
    /// The columns.
    pub columns: RangeInclusive<usize>,
}

impl Default for Region {
    fn default() -> Self {
        Self { lines: 1..=usize::MAX, columns: 1..=usize::MAX }
    }
}

#[derive(Clone, Debug)]
enum Wanted {
    Words(String),
    Expression(regex_lite::Regex),
    Needle { name: String, needle: Arc<Needle>, tolerance: f64 },
}

/// What is looked for on a screen.
#[derive(Clone, Debug)]
pub struct Pattern {
    wanted: Wanted,
    region: Region,
}

impl Pattern {
    /// A text; runs of blanks count as one.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self { wanted: Wanted::Words(squeeze(text)), region: Region::default() }
    }

    /// A regular expression, searched in each line.
    ///
    /// # Errors
    /// When it is none.
    pub fn regex(expression: &str) -> Result<Self, regex_lite::Error> {
        let expression = regex_lite::Regex::new(expression)?;
        Ok(Self { wanted: Wanted::Expression(expression), region: Region::default() })
    }

    /// Whether an expression is found in a blank line: then it is on every screen, and to wait for it is to wait for nothing.
    #[must_use]
    pub fn is_in_blank_lines(&self) -> bool {
        matches!(&self.wanted, Wanted::Expression(expression) if expression.is_match(""))
    }

    /// A piece of a picture, by a name for messages; `tolerance` as in [`Needle::find`].
    #[must_use]
    pub fn needle(name: &str, needle: Needle, tolerance: f64) -> Self {
        let wanted = Wanted::Needle { name: name.to_owned(), needle: Arc::new(needle), tolerance };
        Self { wanted, region: Region::default() }
    }

    /// The same, in a part of the screen only; a needle is looked for everywhere.
    #[must_use]
    pub fn within(self, region: Region) -> Self {
        Self { region, ..self }
    }

    /// The line that holds it; never for a needle.
    #[must_use]
    pub fn find(&self, screen: &Screen) -> Option<String> {
        self.find_in(screen.text()?)
    }

    fn find_in(&self, text: &ScreenText) -> Option<String> {
        let first = self.region.columns.start().saturating_sub(1);
        let width = self.region.columns.end().saturating_sub(first);
        text.rows
            .iter()
            .enumerate()
            .filter(|(index, _)| self.region.lines.contains(&(index + 1)))
            .map(|(_, row)| row.chars().skip(first).take(width).collect::<String>())
            .find(|row| match &self.wanted {
                Wanted::Words(words) => squeeze(row).contains(words),
                Wanted::Expression(expression) => expression.is_match(row),
                Wanted::Needle { .. } => false,
            })
    }

    /// Whether it is on the screen, or on its picture.
    fn is_on(&self, screen: &Screen, picture: &Frame) -> bool {
        match &self.wanted {
            Wanted::Needle { needle, tolerance, .. } => needle.find(picture, *tolerance).is_some(),
            _ => self.find(screen).is_some(),
        }
    }

    fn is_needle(&self) -> bool {
        matches!(self.wanted, Wanted::Needle { .. })
    }
}

/// What is looked for, for messages.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wanted {
            Wanted::Words(words) => write!(f, "{words:?}")?,
            Wanted::Expression(expression) => write!(f, "/{expression}/")?,
            Wanted::Needle { name, .. } => write!(f, "the needle {name}")?,
        }
        let part = |range: &RangeInclusive<usize>| match *range.end() {
            usize::MAX => format!("{} to the end", range.start()),
            end => format!("{} to {end}", range.start()),
        };
        let all = Region::default();
        if self.region.lines != all.lines {
            write!(f, " in lines {}", part(&self.region.lines))?;
        }
        if self.region.columns != all.columns {
            write!(f, " in columns {}", part(&self.region.columns))?;
        }
        Ok(())
    }
}

/// How a wait for patterns ended.
#[derive(Clone, Debug)]
pub enum Seen {
    /// The pattern of that number, from 0.
    Pattern(usize),
    /// A screen after which nothing comes.
    Fatal(Sighting),
}

/// Waits until the screen shows one of the patterns, or a fatal known screen, at most `limit`. May be dropped.
///
/// # Errors
/// After `limit`, quoting the screen; or when the display is lost.
pub async fn expect(console: &Console, patterns: &[Pattern], limit: Duration) -> Result<Seen, WaitError> {
    expect_or(console, patterns, limit, known::fatal_now).await
}

/// As [`expect`], for whoever will type nothing until a pattern is seen: a prompt at which nobody types is an end too.
///
/// # Errors
/// As for [`expect`].
pub async fn expect_unattended(
    console: &Console,
    patterns: &[Pattern],
    limit: Duration,
) -> Result<Seen, WaitError> {
    expect_or(console, patterns, limit, known::left_alone_now).await
}

/// Waits until the content has not changed for `quiet`, at most `limit`; a fatal known screen is no screen at rest, and
/// comes back by its name. May be dropped.
///
/// # Errors
/// When it went on changing until `limit`; or when the display is lost.
pub async fn at_rest(
    console: &Console,
    quiet: Duration,
    limit: Duration,
) -> Result<Option<Sighting>, WaitError> {
    let deadline = Instant::now() + limit;
    let mut quiet = quiet;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        console.wait_still(quiet, left.max(quiet * 2)).await?;
        let Some(fatal) = known::recognise(&console.screen()).filter(|seen| seen.known.fatal) else {
            return Ok(None);
        };
        // Some screens have to stand for longer before they are an end.
        if console.unchanged_for() >= fatal.known.still {
            return Ok(Some(fatal));
        }
        quiet = fatal.known.still;
    }
}

/// Waits for a fatal known screen, for ever; also when the display is lost. May be dropped.
pub async fn fatal(console: &Console) -> Sighting {
    loop {
        let seen = known::fatal_now(&console.screen(), console.unchanged_for());
        if let Some(sighting) = seen.filter(|_| console.failure().is_none()) {
            return sighting;
        }
        tokio::time::sleep(TICK).await;
    }
}

/// The pressing of a key.
pub type Pressing<'p, E> = Pin<Box<dyn Future<Output = Result<(), E>> + Send + 'p>>;

/// Presses a key by `press` until the screen shows the pattern, or a fatal known screen, at most `limit`: at once, and then
/// each `every`, but never again before a slow guest has answered. May be dropped.
///
/// A guest answers by another screen. How long it takes is learnt from its answers; before the first one a text at rest,
/// which waits for somebody, is given five seconds once.
///
/// # Errors
/// After `limit`, quoting the screen; when the display is lost; or what `press` gives.
pub async fn press_until<'p, E: From<WaitError>>(
    console: &Console,
    pattern: &Pattern,
    every: Duration,
    limit: Duration,
    mut press: impl FnMut() -> Pressing<'p, E>,
) -> Result<Seen, E> {
    let deadline = Instant::now() + limit;
    let mut slowest: Option<Duration> = None;
    let mut first = every.max(FIRST_ANSWER);
    let mut pause = Duration::ZERO;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match expect(console, std::slice::from_ref(pattern), pause.min(left)).await {
            Err(WaitError::NoPattern { .. }) if left > pause => {}
            other => return Ok(other?),
        }
        // What is still being drawn would be taken for an answer; what never rests is not waited for.
        let text = console.screen().text().is_some();
        let rested = console.wait_drawn(if text { left } else { every.min(left) }).await?;
        let at_rest = text && rested;
        // What was drawn meanwhile may be what is waited for.
        if pattern.find(&console.screen()).is_some() {
            continue;
        }
        let patience = match slowest {
            Some(slowest) => every.max(ANSWERS * slowest),
            None if at_rest => first,
            None => every,
        };
        let (pressed, before) = (Instant::now(), console.changes());
        press().await?;
        let left = deadline.saturating_duration_since(Instant::now());
        if tokio::time::timeout(patience.min(left), console.wait_other_than(before)).await.is_ok() {
            slowest = slowest.max(Some(pressed.elapsed()));
        } else if at_rest {
            first = every;
        }
        pause = every.saturating_sub(pressed.elapsed());
    }
}

async fn expect_or(
    console: &Console,
    patterns: &[Pattern],
    limit: Duration,
    end: impl Fn(&Arc<Screen>, Duration) -> Option<Sighting>,
) -> Result<Seen, WaitError> {
    let deadline = Instant::now() + limit;
    let needles = patterns.iter().any(Pattern::is_needle);
    let mut searched = None;
    loop {
        let mut found = None;
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = console
            .wait_until(left.min(TICK), |look| {
                found = patterns.iter().position(|pattern| pattern.find(&look.screen).is_some());
                found.is_some() || (needles && searched != Some(look.pictures))
            })
            .await?;
        if needles && found.is_none() {
            let (pictures, began) = (console.pictures(), Instant::now());
            if searched.replace(pictures) != Some(pictures) {
                found = search(console, patterns).await;
                // A picture that never comes to rest must not keep a processor busy.
                let pause = began.elapsed() * SEARCH_SHARE;
                tokio::time::sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            }
        }
        if let Some(number) = found {
            return Ok(Seen::Pattern(number));
        }
        if let Some(sighting) = end(&console.screen(), console.unchanged_for()) {
            return Ok(Seen::Fatal(sighting));
        }
        if let (Err(screen), true) = (waited, Instant::now() >= deadline) {
            let text = patterns.iter().map(Pattern::to_string).collect::<Vec<_>>().join(" or ");
            return Err(WaitError::NoPattern { text, limit, screen });
        }
    }
}

/// Looks for every pattern on the picture as it is, away from the tasks that must answer soon.
async fn search(console: &Console, patterns: &[Pattern]) -> Option<usize> {
    let (screen, picture) = console.snapshot();
    let patterns = patterns.to_vec();
    let searched = tokio::task::spawn_blocking(move || {
        patterns.iter().position(|pattern| pattern.is_on(&screen, &picture))
    });
    // Only a panic inside loses the answer; then nothing was found.
    searched.await.ok().flatten()
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Rect;
    use crate::keys::KeySink as _;
    use crate::screen::tests::draw;
    use crate::testing::{Guest, console};

    #[tokio::test(start_paused = true)]
    async fn the_first_of_several_patterns_in_the_given_order_wins() {
        let (console, _guest) = console(Guest::with_prompt("boot: ")).await;
        let patterns =
            [Pattern::text("GRUB"), Pattern::regex("^SeaBIOS .*1\\.\\d+").unwrap(), Pattern::text("boot:")];
        let seen = expect(&console, &patterns, Duration::from_secs(5)).await.unwrap();
        assert!(matches!(seen, Seen::Pattern(1)), "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_region_leaves_out_what_stands_elsewhere() {
        let (console, _guest) = console(Guest::with_prompt("boot: ")).await;
        let screen = console.screen();
        let in_lines = |lines| Pattern::text("boot:").within(Region { lines, ..Region::default() });
        assert!(in_lines(3..=3).find(&screen).is_some());
        assert!(in_lines(1..=2).find(&screen).is_none());
        let columns = Region { columns: 2..=5, ..Region::default() };
        assert_eq!(Pattern::regex("^oot:$").unwrap().within(columns.clone()).find(&screen).unwrap(), "oot:");
        assert!(Pattern::text("boot").within(columns).find(&screen).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_screen_that_ends_everything_ends_the_wait_at_once_with_its_name() {
        let mut guest = Guest::with_prompt("No bootable device.");
        guest.shows_cursor = false;
        let (console, _guest) = console(guest).await;
        let began = Instant::now();
        let seen = expect(&console, &[Pattern::text("GRUB")], Duration::from_secs(300)).await.unwrap();
        let Seen::Fatal(sighting) = seen else { panic!("{seen:?}") };
        assert!(sighting.to_string().contains("No bootable device"), "{sighting}");
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_prompt_at_which_nobody_types_is_an_end_for_whoever_types_nothing() {
        let mut guest = Guest::with_prompt("Shell> ");
        guest.lines[0] = "UEFI Interactive Shell v2.2".to_owned();
        let (console, _guest) = console(guest).await;
        let wanted = [Pattern::text("GRUB")];
        let seen = expect(&console, &wanted, Duration::from_secs(60)).await;
        assert!(matches!(seen, Err(WaitError::NoPattern { .. })), "{seen:?}");
        let seen = expect_unattended(&console, &wanted, Duration::from_secs(60)).await.unwrap();
        assert!(matches!(&seen, Seen::Fatal(sighting) if sighting.known.id == "uefi-shell"), "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fatal_screen_is_no_screen_at_rest() {
        let (fine, _guest) = console(Guest::with_prompt("boot: ")).await;
        let quiet = Duration::from_secs(1);
        assert!(at_rest(&fine, quiet, Duration::from_secs(60)).await.unwrap().is_none());
        let (dead, _guest) = console(Guest::with_prompt("(initramfs) ")).await;
        let sighting = at_rest(&dead, quiet, Duration::from_secs(60)).await.unwrap().unwrap();
        assert_eq!(sighting.known.id, "initramfs-shell");
        assert!(dead.unchanged_for() >= sighting.known.still, "it stood for as long as it has to");
        assert_eq!(fatal(&dead).await.known.id, "initramfs-shell");
    }

    /// A menu of ten lines whose bar each key moves by one; a second too early would move it past the wanted line.
    #[tokio::test(start_paused = true)]
    async fn a_key_is_not_pressed_again_before_a_slow_guest_has_answered() {
        for slowness in [0, 3] {
            let mut guest = Guest::with_prompt("menu: ");
            guest.slowness = Duration::from_secs(slowness);
            let (console, guest) = console(guest).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let every = Duration::from_secs(1);
            let began = Instant::now();
            let wanted = Pattern::text("menu: jjj");
            let press = || -> Pressing<'_, WaitError> {
                Box::pin(async {
                    console.press(&[crate::keymap::us('j').unwrap()]).await.unwrap();
                    Ok(())
                })
            };
            let seen = press_until(&console, &wanted, every, Duration::from_secs(90), press);
            assert!(matches!(seen.await.unwrap(), Seen::Pattern(0)));
            let took = began.elapsed();
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!(crate::console::lock(&guest).keys, "jjj", "{slowness} s a key");
            assert!(took < Duration::from_secs(30), "{took:?}");
        }
    }

    #[tokio::test]
    async fn a_needle_is_waited_for_beside_a_text_and_found_when_it_comes() {
        let mut guest = Guest::with_prompt("boot: ");
        guest.shows_cursor = false;
        let (console, guest) = console(guest).await;
        let button = draw(&["", "", "Install now"], None);
        let needle = Needle::from_frame(&button, &[Rect { x: 0, y: 32, width: 99, height: 16 }]).unwrap();
        let patterns = [Pattern::text("no such text"), Pattern::needle("button.png", needle, 0.02)];
        let error = expect(&console, &patterns, Duration::from_millis(300)).await.unwrap_err().to_string();
        assert!(error.contains("\"no such text\" or the needle button.png within 0.3 s"), "{error}");
        crate::console::lock(&guest).lines = vec!["x".to_owned(); 7];
        crate::console::lock(&guest).lines.push("Install now".to_owned());
        let seen = expect(&console, &patterns, Duration::from_secs(60)).await.unwrap();
        assert!(matches!(seen, Seen::Pattern(1)), "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_in_vain_names_all_patterns_and_quotes_the_screen() {
        let (console, _guest) = console(Guest::with_prompt("boot: ")).await;
        let patterns = [Pattern::text("GRUB"), Pattern::regex("lo+gin").unwrap()];
        let error = expect(&console, &patterns, Duration::from_secs(2)).await.unwrap_err().to_string();
        assert!(error.starts_with("the screen did not show \"GRUB\" or /lo+gin/ within 2.0 s"), "{error}");
        assert!(error.contains("| boot:"), "{error}");
    }
}
