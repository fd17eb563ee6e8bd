//! A guest's screen drawn into a terminal: text as text, pictures as half blocks of two colours.

use console::{Style, Term};
use forge_console::Shot;
use forge_console::frame::Frame;

/// The upper half of a character cell.
const HALF: char = '▀';

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Any colour (24 bits).
    Colour,
    /// Characters only: colours are not wanted here.
    Plain,
}

impl Ink {
    /// What this terminal, or whatever else the stream is, gets.
    #[must_use]
    pub fn of(term: &Term) -> Self {
        let wanted = if term.is_term() && term.features().colors_supported() {
            console::colors_enabled_stderr() || console::colors_enabled()
        } else {
            false
        };
        if wanted { Self::Colour } else { Self::Plain }
    }
}

/// The lines of a screen, at most `(columns, lines)` of them, the first a heading. A screen of more lines shows those
/// around its cursor, else its last.
#[must_use]
pub fn lines(
    shot: &Shot,
    picture: Option<&Frame>,
    (columns, height): (usize, usize),
    ink: Ink,
) -> Vec<String> {
    if height < 2 || columns < 8 {
        return Vec::new();
    }
    let what = match (&shot.text, picture) {
        (Some(_), _) => "text",
        (None, Some(_)) => "picture",
        (None, None) => "picture, not shown: a secret was typed on it",
    };
    let heading: String =
        format!("── {}x{} {what} ", shot.width, shot.height).chars().take(columns).collect();
    let fill = "─".repeat(columns.min(80).saturating_sub(heading.chars().count()));
    let mut lines = vec![format!("{heading}{fill}")];
    match (&shot.text, picture) {
        (Some(rows), _) => lines.extend(text(shot, rows, (columns, height - 1), ink)),
        (None, Some(picture)) if ink == Ink::Colour => {
            lines.extend(half_blocks(picture, (columns, height - 1)));
        }
        _ => {}
    }
    lines
}

fn text(shot: &Shot, rows: &[String], (columns, height): (usize, usize), ink: Ink) -> Vec<String> {
    let cursor = shot.cursor.map(|(row, _)| row);
    let first_used = rows.iter().position(|row| !row.is_empty()).unwrap_or(0);
    let last = rows.len().max(cursor.map_or(0, |row| row + 1));
    // As much as fits, up to the end; the cursor's line is never left out.
    let first = last.saturating_sub(height).max(first_used.min(last));
    let first = cursor.map_or(first, |row| first.min(row));
    (first..last.min(first + height))
        .map(|row| {
            let cells = rows.get(row).map_or("", String::as_str).chars().take(columns);
            // What a screen shows must never steer the terminal.
            let cells = cells.map(|c| if c.is_control() { '·' } else { c });
            let line: String = cells.collect();
            match ink {
                Ink::Plain => line,
                Ink::Colour => inverse(&line, row, shot, columns),
            }
        })
        .collect()
}

/// A line with its highlighted cells, and the cursor's, in inverse video.
fn inverse(line: &str, row: usize, shot: &Shot, columns: usize) -> String {
    let mut cells: Vec<char> = line.chars().collect();
    let marked = |column: usize| {
        shot.cursor == Some((row, column))
            || shot.marks.iter().any(|(line, from, to)| *line == row && (*from..*to).contains(&column))
    };
    let end = (0..columns).rev().find(|column| marked(*column)).map_or(0, |last| last + 1);
    while cells.len() < end {
        cells.push(' ');
    }
    let style = Style::new().reverse().force_styling(true);
    let mut out = String::new();
    let mut at = 0;
    while let Some(first) = cells.get(at).map(|_| marked(at)) {
        let run: String = cells
            .iter()
            .enumerate()
            .skip(at)
            .take_while(|(column, _)| marked(*column) == first)
            .map(|(_, c)| c)
            .collect();
        at += run.chars().count();
        if first {
            out.push_str(&style.apply_to(run).to_string());
        } else {
            out.push_str(&run);
        }
    }
    out
}

/// A picture in characters that are two pixels high.
fn half_blocks(picture: &Frame, (columns, height): (usize, usize)) -> Vec<String> {
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    let small = picture.shrunk(side(columns), side(height.saturating_mul(2)));
    (0..small.height())
        .step_by(2)
        .map(|y| {
            let upper = small.row(0, y, small.width());
            let lower = small.row(0, y + 1, small.width());
            let cells = upper.iter().enumerate().map(|(x, top)| {
                let style = Style::new().force_styling(true);
                let style = colour(style, *top, false);
                colour(style, lower.get(x).copied().unwrap_or(0), true).apply_to(HALF).to_string()
            });
            cells.collect()
        })
        .collect()
}

fn colour(style: Style, pixel: u32, background: bool) -> Style {
    let [blue, green, red, _] = pixel.to_le_bytes();
    if background { style.on_true_color(red, green, blue) } else { style.true_color(red, green, blue) }
}

/// A part of the terminal that is drawn again and again.
#[derive(Debug)]
pub struct Canvas {
    term: Term,
    drawn: usize,
}

impl Canvas {
    /// Whether stdout is a terminal.
    #[must_use]
    pub fn is_possible() -> bool {
        Term::stdout().is_term()
    }

    /// Draws from the current line of stdout on.
    #[must_use]
    pub fn new() -> Self {
        Self { term: Term::buffered_stdout(), drawn: 0 }
    }

    /// Columns and lines that there is place for.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let (height, width) = self.term.size();
        (usize::from(width).saturating_sub(1), usize::from(height).saturating_sub(1))
    }

    /// What the terminal can show.
    #[must_use]
    pub fn ink(&self) -> Ink {
        Ink::of(&self.term)
    }

    /// Draws lines over those that were drawn before.
    pub fn draw(&mut self, lines: &[String]) {
        // A terminal that is gone is no reason to complain.
        let _terminal_is_gone = self
            .term
            .clear_last_lines(self.drawn)
            .and_then(|()| lines.iter().try_for_each(|line| self.term.write_line(line)))
            .and_then(|()| self.term.flush());
        self.drawn = lines.len();
    }
}

impl Default for Canvas {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shot(rows: &[&str]) -> Shot {
        let text = Some(rows.iter().map(|row| (*row).to_owned()).collect());
        Shot { width: 720, height: 400, text, ..Shot::default() }
    }

    #[test]
    fn a_text_screen_fits_the_terminal_and_keeps_the_cursors_line() {
        let rows: Vec<String> = (0..25).map(|row| format!("line {row} {}", "x".repeat(80))).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let mut tall = shot(&rows);
        let drawn = lines(&tall, None, (40, 11), Ink::Plain);
        assert_eq!(drawn.len(), 11);
        assert!(drawn[0].starts_with("── 720x400 text ─"), "{}", drawn[0]);
        assert!(drawn.iter().all(|line| line.chars().count() <= 40), "{drawn:?}");
        assert!(drawn[1].starts_with("line 15 ") && drawn[10].starts_with("line 24 "), "{drawn:?}");
        tall.cursor = Some((3, 0));
        assert!(lines(&tall, None, (40, 11), Ink::Plain)[1].starts_with("line 3 "));
        assert!(lines(&tall, None, (40, 1), Ink::Plain).is_empty());
    }

    #[test]
    fn what_is_highlighted_is_inverse_and_no_control_character_passes() {
        let mut menu = shot(&["  one", "  \u{1b}two"]);
        menu.marks = vec![(1, 2, 6)];
        let drawn = lines(&menu, None, (40, 10), Ink::Colour);
        assert_eq!(drawn[1], "  one");
        assert_eq!(drawn[2], "  \u{1b}[7m·two\u{1b}[0m");
        assert_eq!(lines(&menu, None, (40, 10), Ink::Plain)[2], "  ·two");
    }

    #[test]
    fn a_picture_is_half_blocks_of_the_right_colours() {
        let mut picture = Frame::new(2, 2).unwrap();
        picture.put_row(0, 0, &[0x00ff_0000, 0x0000_ff00]);
        picture.put_row(0, 1, &[0x0000_00ff, 0x0000_0001]);
        let graphics = Shot { width: 2, height: 2, ..Shot::default() };
        let drawn = lines(&graphics, Some(&picture), (40, 10), Ink::Colour);
        assert_eq!(drawn.len(), 2);
        assert_eq!(console::strip_ansi_codes(&drawn[1]), "▀▀");
        assert!(drawn[1].contains("38;2;255;0;0") && drawn[1].contains("48;2;0;0;255"), "{:?}", drawn[1]);
        assert_eq!(lines(&graphics, Some(&picture), (40, 10), Ink::Plain).len(), 1);
        assert!(lines(&graphics, None, (40, 10), Ink::Colour)[0].contains("not shown"));
    }
}
