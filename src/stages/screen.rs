//! The build VM's screen while it runs: pictures for the evidence, and how long it stands still.

use std::time::Duration;

use forge_console::frame::{Frame, Rect};
use forge_console::{Console, Sighting, known};
use forge_machine::Machine;

use crate::engine::{Cx, StageError};
use crate::event::Event;

/// The screen of the build VM; empty when it could not be had.
#[derive(Debug, Default)]
pub struct Watch {
    console: Option<Console>,
}

impl Watch {
    /// Opens the screen.
    ///
    /// # Errors
    /// When it can't be had, in one line.
    pub async fn open(machine: &dyn Machine) -> Result<Self, String> {
        let display = machine.display().await.map_err(|error| crate::engine::error::chain(&error))?;
        let console = Console::open(display.stream, display.password.as_deref())
            .await
            .map_err(|error| crate::engine::error::chain(&error))?;
        Ok(Self { console: Some(console) })
    }

    /// The console, when there is one.
    #[must_use]
    pub fn console(&self) -> Option<&Console> {
        self.console.as_ref()
    }

    /// How long the screen has not changed; `None` when it can't be seen.
    #[must_use]
    pub fn unchanged_for(&self) -> Option<Duration> {
        self.console.as_ref().filter(|console| console.failure().is_none()).map(Console::unchanged_for)
    }

    /// The screen that says that this guest will not come up any more, when it shows one and stands still.
    #[must_use]
    pub fn dead_end(&self) -> Option<Sighting> {
        let console = self.console.as_ref().filter(|console| console.failure().is_none())?;
        known::fatal_now(&console.screen(), console.unchanged_for())
    }

    /// Takes a picture for the evidence. A failure is told, and no more: no build ends for a picture.
    pub fn picture(&self, cx: &Cx, label: &str) {
        let Some(console) = &self.console else { return };
        let screen = console.screen();
        let text = screen.text().map(|text| text.rows.join("\n").trim_end().to_owned());
        let mut frame = console.frame();
        if let Some(text) = screen.text() {
            let secrets = cx.evidence.redactor().needles();
            for (row, columns) in secret_cells(&text.rows, &secrets) {
                for column in columns {
                    blacken(&mut frame, text.cell_rect(row, column));
                }
            }
        }
        let file = match frame.png() {
            Ok(png) => match cx.evidence.write_screen(label, &png) {
                Ok(name) => name,
                Err(error) => {
                    cx.warn(crate::engine::error::chain(&error), "");
                    String::new()
                }
            },
            Err(error) => {
                tracing::debug!(%error, "no picture of the screen");
                String::new()
            }
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

/// The shortest piece of a secret that is masked at the edge of a line.
const PIECE: usize = 6;

/// The cells of a text screen that hold a secret or, where it is wrapped over two lines, a piece of one.
fn secret_cells(rows: &[String], secrets: &[String]) -> Vec<(usize, std::ops::Range<usize>)> {
    let mut cells = Vec::new();
    for secret in secrets.iter().filter(|secret| secret.is_ascii() && secret.len() >= PIECE) {
        for (row, line) in rows.iter().enumerate() {
            // Every piece is looked for, since nobody knows where a boot loader breaks its lines.
            for start in 0..=secret.len() - PIECE {
                let Some(piece) = secret.get(start..start + PIECE) else { continue };
                for (at, _) in line.match_indices(piece) {
                    let column = line.get(..at).map_or(0, |before| before.chars().count());
                    cells.push((row, column..column + PIECE));
                }
            }
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
}
