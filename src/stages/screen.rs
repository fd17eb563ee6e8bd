//! The build VM's screen while it runs: pictures and a recording for the evidence, and how long it stands still.
//!
//! Nothing leaves here with a secret on it: where a text screen shows one, its cells are black and its characters
//! stars; a picture that can't be read is left out from the moment a secret is typed until text is read again.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forge_console::frame::{Frame, Rect};
use forge_console::{Console, Screen, Shot, Sighting, known};
use forge_machine::Machine;

use super::record::Tape;
use super::serial::Wire;
use crate::engine::{Cx, StageError};
use crate::event::{Event, Redactor};

/// The screen of the build VM; empty when it could not be had.
#[derive(Debug, Default)]
pub struct Watch {
    console: Option<Console>,
    /// Records the screen until this goes.
    _tape: Option<Tape>,
    curtain: Curtain,
    serial: Option<Wire>,
    /// What the screen showed when the first boot step saw what it waited for.
    first: OnceLock<Vec<String>>,
    /// Whether a boot step worked at a prompt that is an end for anybody else.
    at_prompt: AtomicBool,
}

impl Watch {
    /// Opens the screen and begins to record it.
    ///
    /// # Errors
    /// When it can't be had, in one line.
    pub async fn open(cx: &Cx, machine: Arc<dyn Machine>) -> Result<Self, String> {
        let console = Console::follow(Arc::clone(&machine))
            .await
            .map_err(|error| crate::engine::error::chain(&error))?;
        let curtain = Curtain::new(cx.evidence.redactor().clone());
        let tape = Tape::start(cx, console.clone(), curtain.clone());
        let serial = Some(Wire::start(cx, machine));
        let (first, at_prompt) = (OnceLock::new(), AtomicBool::new(false));
        Ok(Self { console: Some(console), _tape: tape, curtain, serial, first, at_prompt })
    }

    /// The serial port, when it can be followed.
    pub(super) fn serial(&self) -> Option<&Wire> {
        self.serial.as_ref()
    }

    /// The console, when there is one.
    #[must_use]
    pub fn console(&self) -> Option<&Console> {
        self.console.as_ref()
    }

    /// The lines of the screen, without blank ones; `None` when it can't be read.
    #[must_use]
    pub fn lines(&self) -> Option<Vec<String>> {
        let screen = self.console.as_ref().filter(|console| console.failure().is_none())?.screen();
        let rows = screen.text()?.rows.iter().map(|row| row.trim().to_owned());
        Some(rows.filter(|row| !row.is_empty()).collect())
    }

    /// A boot step has seen what it waited for: the first time this is the installer's first screen.
    pub fn recognised(&self) {
        if let Some(lines) = self.lines() {
            self.first.get_or_init(|| lines);
        }
        self.works_here();
    }

    /// A boot step works at what the screen shows: a prompt there is the profile's business.
    pub fn works_here(&self) {
        let seen = self.console.as_ref().and_then(|console| known::recognise(&console.screen()));
        if seen.is_some_and(|sighting| sighting.known.prompts) {
            self.at_prompt.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a boot step worked at a prompt that is an end for anybody else.
    #[must_use]
    pub fn works_at_prompt(&self) -> bool {
        self.at_prompt.load(Ordering::Relaxed)
    }

    /// The first screen that a boot step waited for.
    #[must_use]
    pub fn first_screen(&self) -> Option<&[String]> {
        self.first.get().map(Vec::as_slice)
    }

    /// A text is about to be typed: when it holds a secret, pictures that can't be read are left out from now on.
    pub fn typing(&self, text: &str) {
        if self.curtain.redactor.text(text) != text {
            self.curtain.closed.store(true, Ordering::Relaxed);
        }
    }

    /// How long the screen has not changed; `None` when it can't be seen.
    #[must_use]
    pub fn unchanged_for(&self) -> Option<Duration> {
        self.console.as_ref().filter(|console| console.failure().is_none()).map(Console::unchanged_for)
    }

    /// The screen that says that this guest will not come up any more, when it shows one and stands still: also a prompt at
    /// which no boot step worked.
    #[must_use]
    pub fn dead_end(&self) -> Option<Sighting> {
        let console = self.console.as_ref().filter(|console| console.failure().is_none())?;
        let sighting = known::left_alone_now(&console.screen(), console.unchanged_for())?;
        (sighting.known.fatal || !self.works_at_prompt()).then_some(sighting)
    }

    /// Takes a picture for the evidence. A failure is told, and no more: no build ends for a picture.
    pub fn picture(&self, cx: &Cx, label: &str) {
        let Some(console) = &self.console else { return };
        let (screen, frame) = console.snapshot();
        let (shot, frame) = self.curtain.shot(&screen, frame);
        let text = shot.text.map(|rows| rows.join("\n"));
        let file = match frame.map(|frame| frame.png()) {
            Some(Ok(png)) => match cx.evidence.write_screen(label, &png) {
                Ok(name) => name,
                Err(error) => {
                    cx.warn(crate::engine::error::chain(&error), "");
                    String::new()
                }
            },
            Some(Err(error)) => {
                tracing::debug!(%error, "no picture of the screen");
                String::new()
            }
            None => String::new(),
        };
        cx.events.emit(Event::Screen { label: label.to_owned(), file, text });
    }

    /// What the screen says, as lines for an error; empty when it can't be read.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        let Some(console) = &self.console else { return Vec::new() };
        let screen = console.screen();
        let Some(text) = screen.text() else { return vec![format!("the screen: {screen}")] };
        let lines: Vec<&String> = text.rows.iter().filter(|line| !line.is_empty()).collect();
        let skip = lines.len().saturating_sub(6);
        lines.into_iter().skip(skip).map(|line| format!("the screen: {line}")).collect()
    }
}

/// The failure that a screen means after which nothing comes.
#[must_use]
pub fn wrong(sighting: &Sighting) -> StageError {
    StageError::new(sighting.to_string()).hint(sighting.known.advice)
}

/// Hides secrets on what a screen shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Curtain {
    redactor: Redactor,
    /// Whether pictures without readable text are left out.
    closed: Arc<AtomicBool>,
}

impl Curtain {
    fn new(redactor: Redactor) -> Self {
        Self { redactor, closed: Arc::default() }
    }

    /// What a screen shows, without secrets; no picture when it may show one that can't be found on it.
    pub(super) fn shot(&self, screen: &Screen, mut frame: Frame) -> (Shot, Option<Frame>) {
        let mut shot = Shot::of(screen, &frame);
        let Some((text, rows)) = screen.text().zip(shot.text.as_mut()) else {
            let hidden = self.closed.load(Ordering::Relaxed);
            return (shot, (!hidden).then_some(frame));
        };
        self.closed.store(false, Ordering::Relaxed);
        for (row, columns) in secret_cells(rows, &self.redactor.needles()) {
            columns.clone().for_each(|column| blacken(&mut frame, text.cell_rect(row, column)));
            if let Some(line) = rows.get_mut(row) {
                let starred = line.chars().enumerate();
                *line = starred.map(|(at, c)| if columns.contains(&at) { '*' } else { c }).collect();
            }
        }
        (shot, Some(frame))
    }
}

/// The shortest piece of a secret that is masked at the edge of a line.
const PIECE: usize = 6;

/// The cells of a text screen that hold a secret or, where it is wrapped over two lines, a piece of one.
fn secret_cells(rows: &[String], secrets: &[String]) -> Vec<(usize, Range<usize>)> {
    // Every piece is looked for, since nobody knows where a boot loader breaks its lines.
    let mut pieces: BTreeMap<usize, HashSet<Vec<char>>> = BTreeMap::new();
    for secret in secrets {
        let secret: Vec<char> = secret.chars().collect();
        let length = secret.len().min(PIECE);
        if length > 0 {
            pieces.entry(length).or_default().extend(secret.windows(length).map(<[char]>::to_vec));
        }
    }
    let mut cells = Vec::new();
    for (row, line) in rows.iter().enumerate() {
        let line: Vec<char> = line.chars().collect();
        for (length, pieces) in &pieces {
            let found = line.windows(*length).enumerate().filter(|(_, piece)| pieces.contains(*piece));
            cells.extend(found.map(|(column, _)| (row, column..column + length)));
        }
    }
    cells
}

/// Paints one cell of a text screen black.
fn blacken(frame: &mut Frame, cell: Rect) {
    let width = cell.width.min(frame.width().saturating_sub(cell.x));
    let black = vec![0_u32; usize::try_from(width).unwrap_or(0)];
    for y in cell.y..cell.y.saturating_add(cell.height) {
        frame.put_row(cell.x, y, &black);
    }
}

#[cfg(test)]
mod tests {
    use forge_console::NoText;

    use super::*;

    #[test]
    fn a_secret_is_found_on_the_screen_also_where_a_line_breaks_it() {
        let rows = vec!["linux x s=http://h/0123456789ab\\".to_owned(), "cdef0123/ quiet".to_owned()];
        let secret = "0123456789abcdef0123".to_owned();
        let cells = secret_cells(&rows, &[secret]);
        for column in 19..31 {
            assert!(
                cells.iter().any(|(row, columns)| *row == 0 && columns.contains(&column)),
                "{column}: {cells:?}"
            );
        }
        for column in 0..8 {
            assert!(
                cells.iter().any(|(row, columns)| *row == 1 && columns.contains(&column)),
                "{column}: {cells:?}"
            );
        }
        assert!(
            cells
                .iter()
                .all(|(row, columns)| *row == 0 && columns.end <= 31 || *row == 1 && columns.end <= 8),
            "{cells:?}"
        );
    }

    #[test]
    fn a_short_secret_and_one_with_umlauts_are_found_on_the_screen() {
        let rows = vec!["user: ops  password: hüten! ok".to_owned(), "pin 4711.".to_owned()];
        let cells = secret_cells(&rows, &["hüten!".to_owned(), "4711".to_owned()]);
        assert_eq!(cells, [(0, 21..27), (1, 4..8)]);
    }

    #[test]
    fn a_picture_that_cant_be_read_is_left_out_once_a_secret_is_typed() {
        let redactor = Redactor::default();
        redactor.add("correct-horse");
        let watch = Watch { curtain: Curtain::new(redactor), ..Watch::default() };
        let screen = Screen::NoText(NoText { width: 4, height: 4, reason: "a picture" });
        let picture = || watch.curtain.shot(&screen, Frame::new(4, 4).unwrap()).1;
        watch.typing("nothing of note");
        assert!(picture().is_some());
        watch.typing("pw=correct-horse");
        assert!(picture().is_none());
        assert!(picture().is_none(), "until text is read again");
        let blank = Frame::new(720, 400).unwrap();
        assert!(watch.curtain.shot(&Screen::read(&blank), blank).1.is_some());
        assert!(picture().is_some());
    }
}
