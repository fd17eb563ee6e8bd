//! The picture read as text.
//!
//! Size, pitch and offset of the cells and their font are found from the picture: VGA's text modes, Linux
//! framebuffer consoles, GRUB's graphical terminal, EDK2's consoles. What was found is kept until it does not fit any
//! more. A picture counts as text when at least 90 % of its cells that are not blank are glyphs of one font, or when
//! whole words stand on it; everything else is [`NoText`], with mode, size and reason. Each line has its own confidence.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::font::Table;
use crate::frame::{Frame, Rect};
use crate::glyph;
pub use crate::glyph::Cell;
use crate::layout::{self, Layout};

/// The share of readable cells from which on a picture counts as text.
const ENOUGH: f64 = 0.9;
/// Few cells prove little: a picture with unreadable cells needs this many readable ones.
const FEW: usize = 8;
/// This many cells in words of at least three letters or digits are text, whatever else there is.
const WORDS: usize = 12;

/// What a display shows, as far as it can be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Screen {
    /// Text, cell by cell.
    Text(ScreenText),
    /// A picture without readable text.
    NoText(NoText),
}

/// A picture that is no readable text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoText {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Why there is no text.
    pub reason: &'static str,
}

/// A text screen.
#[derive(Clone, Debug)]
pub struct ScreenText {
    /// The lines from top to bottom, without trailing blanks.
    pub rows: Vec<String>,
    /// Cells in a line.
    pub cols: usize,
    /// The share of cells, among those not blank, that were read (0 to 1; 1 also when all are blank).
    pub confidence: f64,
    /// Where the text cursor is drawn, as line and column: absent in the dark half of its blinking.
    pub cursor: Option<(usize, usize)>,
    cells: Vec<Cell>,
    layout: Layout,
    table: Arc<Table>,
    /// Of the picture, in pixels.
    size: (u32, u32),
}

/// What was read decides, not how.
impl PartialEq for ScreenText {
    fn eq(&self, other: &Self) -> bool {
        self.layout == other.layout && self.cursor == other.cursor && self.cells == other.cells
    }
}

/// Beside a line that stands in no grid there are pictures: what can't be read there is none of its characters.
fn blank_pictures(line: &mut [Cell]) {
    let written: Vec<bool> = line
        .iter()
        .map(|cell| cell.character != ' ' && cell.character != char::REPLACEMENT_CHARACTER)
        .collect();
    for (column, cell) in line.iter_mut().enumerate() {
        let beside = |other: Option<usize>| other.and_then(|other| written.get(other)) == Some(&true);
        if cell.character == char::REPLACEMENT_CHARACTER
            && !beside(column.checked_sub(1))
            && !beside(Some(column + 1))
        {
            cell.character = ' ';
        }
    }
}

fn share_read(cells: &[Cell]) -> f64 {
    let unread = cells.iter().filter(|cell| cell.character == char::REPLACEMENT_CHARACTER).count();
    let filled = cells.iter().filter(|cell| cell.character != ' ').count();
    if filled == 0 { 1.0 } else { (filled - unread) as f64 / filled as f64 }
}

impl Screen {
    /// Reads a picture.
    #[must_use]
    pub fn read(frame: &Frame) -> Self {
        Self::read_after(frame, None, None)
    }

    /// Reads a picture again: only the cells touched by `dirty`, where the last reading was of the same layout.
    ///
    /// The last reading also tells glyphs apart that differ only where a text cursor hides them. `dirty` absent
    /// means everything.
    #[must_use]
    pub fn read_after(frame: &Frame, before: Option<&Self>, dirty: Option<Rect>) -> Self {
        let (width, height) = (frame.width(), frame.height());
        let no_text = |reason| Self::NoText(NoText { width, height, reason });
        if width == 0 || height == 0 {
            return no_text("the display has no size yet");
        }
        let before = before.and_then(Self::text).filter(|text| text.size == (width, height));
        let kept = before.and_then(|before| ScreenText::read(frame, &before.layout, Some(before), dirty));
        let kept = kept.filter(|text| text.is_text() || text.is_blank());
        if let (Some(text), Some(before)) = (&kept, before)
            && text.count(is_unread) <= before.count(is_unread)
            // What changed on a picture may be text in a colour that was not written in before, or a line more.
            && !text.shows_picture(dirty)
            && text.layout.reaches(dirty)
        {
            return kept.map_or_else(|| no_text("not a text mode"), Self::Text);
        }
        // A text mode is read with its usual font first: most of its screens are nothing else.
        let usual =
            layout::text_mode(frame).and_then(|layout| ScreenText::read(frame, &layout, before, None));
        if let Some(text) = &usual
            && (text.is_blank() || text.confidence >= ENOUGH && text.is_text())
        {
            return usual.map_or_else(|| no_text("not a text mode"), Self::Text);
        }
        if is_uniform(frame) {
            return no_text("nothing is drawn on it");
        }
        let found = layout::find(frame).and_then(|layout| ScreenText::read(frame, &layout, None, None));
        let found = ScreenText::better(kept, found.filter(ScreenText::is_text));
        let whole =
            found.as_ref().is_some_and(|text| text.confidence >= ENOUGH && text.count(Cell::is_picture) == 0);
        let found = if whole { found } else { ScreenText::better(found, Self::free_lines(frame)) };
        match found {
            Some(text) => Self::Text(text),
            None => no_text("its pixels are no characters of a known font"),
        }
    }

    /// Text in lines that stand in no grid.
    fn free_lines(frame: &Frame) -> Option<ScreenText> {
        let text = ScreenText::read(frame, &layout::find_lines(frame)?, None, None)?;
        text.is_text().then_some(text)
    }

    /// The text, when there is some.
    #[must_use]
    pub fn text(&self) -> Option<&ScreenText> {
        match self {
            Self::Text(text) => Some(text),
            Self::NoText(_) => None,
        }
    }

    /// Whether a line holds the words, see [`ScreenText::contains`]; never on a screen without text.
    #[must_use]
    pub fn contains(&self, words: &str) -> bool {
        self.text().is_some_and(|text| text.contains(words))
    }

    /// Whether both show the same, wherever the cursor is.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(two)) => one.cols == two.cols && one.cells == two.cells,
            (Self::NoText(one), Self::NoText(two)) => one == two,
            _ => false,
        }
    }
}

fn is_unread(cell: &Cell) -> bool {
    cell.character == char::REPLACEMENT_CHARACTER
}

/// Whether every pixel has the same colour.
fn is_uniform(frame: &Frame) -> bool {
    let first = frame.row(0, 0, 1).first().copied();
    (0..frame.height()).all(|y| frame.row(0, y, frame.width()).iter().all(|pixel| Some(*pixel) == first))
}

impl ScreenText {
    fn read(frame: &Frame, layout: &Layout, before: Option<&Self>, dirty: Option<Rect>) -> Option<Self> {
        let table = layout.table()?;
        let (cols, lines) = layout.grid(frame);
        let before =
            before.filter(|text| text.layout == *layout && text.cols == cols && text.lines() == lines);
        let mut cells = Vec::with_capacity(cols * lines);
        let mut cursor = None;
        let mut paper = None;
        for line in 0..lines {
            for column in 0..cols {
                let (x, y) = layout.cell(line, column);
                let old = before.and_then(|text| text.cell(line, column));
                let untouched = dirty.is_some_and(|dirty| {
                    x + layout.pitch <= dirty.x
                        || y + layout.height <= dirty.y
                        || x >= dirty.x + dirty.width
                        || y >= dirty.y + dirty.height
                });
                if let Some(old) = old.filter(|_| untouched) {
                    if before.and_then(|text| text.cursor) == Some((line, column)) {
                        cursor = Some((line, column));
                    }
                    cells.push(old);
                    continue;
                }
                let before = old.map(|cell| cell.character);
                let reading = glyph::read(frame, &table, layout, (x, y), before, paper);
                if !matches!(reading.cell.character, ' ' | char::REPLACEMENT_CHARACTER) {
                    paper = Some(reading.cell.background);
                }
                if reading.cursor {
                    cursor = Some((line, column));
                }
                cells.push(reading.cell);
            }
        }
        if !layout.lines.is_empty() {
            cells.chunks_mut(cols.max(1)).for_each(blank_pictures);
        }
        let rows = cells
            .chunks(cols.max(1))
            .map(|row| row.iter().map(|cell| cell.character).collect::<String>().trim_end().to_owned())
            .collect();
        let size = (frame.width(), frame.height());
        let mut text =
            Self { rows, cols, confidence: 1.0, cursor, cells, layout: layout.clone(), table, size };
        text.confidence = share_read(&text.cells);
        Some(text)
    }

    /// Of two readings the one that has more letters, or as many and fewer cells unread; of equals the first.
    fn better(one: Option<Self>, two: Option<Self>) -> Option<Self> {
        let letters = |text: &Self| text.count(|cell| cell.character.is_ascii_alphanumeric());
        let unread = |text: &Self| std::cmp::Reverse(text.count(is_unread));
        match (one, two) {
            (Some(one), Some(two)) if (letters(&one), unread(&one)) >= (letters(&two), unread(&two)) => {
                Some(one)
            }
            (one, two) => two.or(one),
        }
    }

    /// Whether a part of a picture lies in this rectangle; absent, anywhere.
    fn shows_picture(&self, within: Option<Rect>) -> bool {
        self.cells.iter().enumerate().filter(|(_, cell)| cell.is_picture()).any(|(index, _)| {
            let cell = self.cell_rect(index / self.cols, index % self.cols);
            within.is_none_or(|within| {
                cell.x < within.x + within.width
                    && within.x < cell.x + cell.width
                    && cell.y < within.y + within.height
                    && within.y < cell.y + cell.height
            })
        })
    }

    fn lines(&self) -> usize {
        self.rows.len()
    }

    fn is_blank(&self) -> bool {
        self.cells.iter().all(|cell| cell.character == ' ')
    }

    /// Whether what was read is text rather than a picture that looks like some glyphs.
    fn is_text(&self) -> bool {
        let unread = self.count(is_unread);
        let filled = self.count(|cell| cell.character != ' ');
        if filled > 0 && self.confidence >= ENOUGH && (unread == 0 || filled - unread >= FEW) {
            return true;
        }
        let words = self.rows.iter().flat_map(|row| row.split(|c: char| !c.is_ascii_alphanumeric()));
        words.map(str::len).filter(|length| *length >= 3).sum::<usize>() >= WORDS
    }

    /// The font that the screen was read with, by its name in `fonts/LICENSE.md`.
    #[must_use]
    pub fn font(&self) -> &str {
        self.table.names.get(usize::from(self.layout.font)).map_or("", String::as_str)
    }

    /// The pixels of a cell.
    #[must_use]
    pub fn cell_rect(&self, row: usize, column: usize) -> Rect {
        let (x, y) = self.layout.cell(row, column);
        Rect { x, y, width: self.layout.pitch, height: self.layout.height }
    }

    /// The share of a line's cells, among those not blank, that were read (0 to 1; 1 also when all are blank).
    #[must_use]
    pub fn line_confidence(&self, row: usize) -> f64 {
        share_read(self.cells.get(row * self.cols..(row + 1) * self.cols).unwrap_or(&[]))
    }

    fn count(&self, wanted: impl Fn(&Cell) -> bool) -> usize {
        self.cells.iter().filter(|cell| wanted(cell)).count()
    }

    /// One cell; `None` outside.
    #[must_use]
    pub fn cell(&self, row: usize, column: usize) -> Option<Cell> {
        if column >= self.cols {
            return None;
        }
        self.cells.get(row * self.cols + column).copied()
    }

    /// Whether one line holds the words; runs of blanks count as one on both sides.
    #[must_use]
    pub fn contains(&self, words: &str) -> bool {
        let words = squeeze(words);
        self.rows.iter().any(|row| squeeze(row).contains(&words))
    }

    /// The stretches of a line that stand on another background than most of the screen: highlighted entries.
    #[must_use]
    pub fn highlights(&self, row: usize) -> Vec<Range<usize>> {
        let common = self.common_background();
        let mut spans: Vec<Range<usize>> = Vec::new();
        for column in 0..self.cols {
            let Some(cell) = self.cell(row, column) else { break };
            if cell.background == common {
                continue;
            }
            match spans.last_mut() {
                Some(span) if span.end == column => span.end += 1,
                _ => spans.push(column..column + 1),
            }
        }
        spans
    }

    fn common_background(&self) -> u32 {
        let mut counts = std::collections::HashMap::<u32, usize>::new();
        for cell in &self.cells {
            *counts.entry(cell.background).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map_or(0, |(colour, _)| colour)
    }
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The lines that are not blank, each after a bar, for quoting in errors and logs; a line of which more than a tenth could
/// not be read after `|?`.
impl fmt::Display for ScreenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = false;
        for (number, row) in self.rows.iter().enumerate().filter(|(_, row)| !row.is_empty()) {
            if written {
                f.write_str("\n")?;
            }
            let bar = if self.line_confidence(number) < ENOUGH { "|?" } else { "|" };
            write!(f, "{bar} {row}")?;
            written = true;
        }
        if !written {
            f.write_str("a blank text screen")?;
        }
        Ok(())
    }
}

impl fmt::Display for NoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a picture of {}x{} pixels without readable text ({})",
            self.width, self.height, self.reason
        )
    }
}

impl fmt::Display for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::NoText(none) => none.fmt(f),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::glyph::tests::rows_of;

    const INK: u32 = 0x00aa_aaaa;

    /// Draws lines of text in VGA text mode with 9-dot cells, with an optional cursor at line and column.
    pub(crate) fn draw(lines: &[&str], cursor: Option<(usize, usize)>) -> Frame {
        let mut frame = Frame::new(720, 400).unwrap();
        for (line, text) in lines.iter().enumerate() {
            for (column, character) in text.chars().enumerate() {
                draw_cell(&mut frame, line, column, character, INK, 0);
            }
        }
        if let Some((line, column)) = cursor {
            for row in 13..15 {
                frame.put_row(column as u32 * 9, line as u32 * 16 + row, &[INK; 9]);
            }
        }
        frame
    }

    fn draw_cell(frame: &mut Frame, line: usize, column: usize, character: char, ink: u32, paper: u32) {
        for (row, bits) in rows_of(character).into_iter().enumerate() {
            let mut pixels: Vec<u32> =
                (0..8).map(|bit| if bits >> (7 - bit) & 1 == 1 { ink } else { paper }).collect();
            pixels.push(if ('─'..='▟').contains(&character) { pixels[7] } else { paper });
            frame.put_row(column as u32 * 9, (line * 16 + row) as u32, &pixels);
        }
    }

    #[test]
    fn a_text_screen_is_read_cell_by_cell_with_its_cursor() {
        let screen = Screen::read(&draw(&["SeaBIOS (version 1.16.3)", "", "boot: a_b"], Some((2, 9))));
        let text = screen.text().unwrap();
        assert_eq!(text.rows[..3], ["SeaBIOS (version 1.16.3)", "", "boot: a_b"]);
        assert_eq!((text.cols, text.rows.len(), text.cursor), (80, 25, Some((2, 9))));
        assert!(screen.contains("SeaBIOS  (version"));
        assert!(!screen.contains("GRUB"));
        assert_eq!(screen.to_string(), "| SeaBIOS (version 1.16.3)\n| boot: a_b");
    }

    #[test]
    fn a_line_with_unreadable_cells_says_so_and_the_others_do_not() {
        let mut frame = draw(&["SeaBIOS (version 1.16.3)", "boot: linux quiet", "press 1"], None);
        // What no font has, over a fifth of the second line.
        for column in 6..9 {
            for row in 0..16 {
                frame.put_row(column * 9, 16 + row, &[INK, 0, INK, INK, 0, INK, 0, 0, INK]);
            }
        }
        let screen = Screen::read(&frame);
        let text = screen.text().unwrap();
        let confidence: Vec<f64> = (0..4).map(|line| text.line_confidence(line)).collect();
        assert!(confidence[0] >= 1.0 && confidence[2] >= 1.0 && confidence[3] >= 1.0, "{confidence:?}");
        assert!((confidence[1] - 12.0 / 15.0).abs() < 0.001, "{confidence:?}");
        assert_eq!(
            screen.to_string(),
            "| SeaBIOS (version 1.16.3)\n|? boot: \u{fffd}\u{fffd}\u{fffd}ux quiet\n| press 1"
        );
    }

    #[test]
    fn the_blinking_cursor_is_no_change_of_content() {
        let on = Screen::read(&draw(&["boot: "], Some((0, 6))));
        let off = Screen::read(&draw(&["boot: "], None));
        assert!(on.same_content(&off));
        assert!(!on.same_content(&Screen::read(&draw(&["boot: x"], None))));
    }

    #[test]
    fn a_highlighted_entry_is_a_span_and_still_text() {
        let mut frame = draw(&["  first", "  second"], None);
        for (column, character) in "second".chars().enumerate() {
            draw_cell(&mut frame, 1, column + 2, character, 0, INK);
        }
        let screen = Screen::read(&frame);
        assert!(screen.contains("second"));
        assert_eq!(screen.text().unwrap().highlights(1), vec![2..8_usize; 1]);
        assert!(screen.text().unwrap().highlights(0).is_empty());
    }

    #[test]
    fn a_line_that_is_drawn_later_over_a_picture_is_read_too() {
        let mut frame = Frame::new(640, 480).unwrap();
        for y in 0..480 {
            let row: Vec<u32> = (0..640).map(|x| 0x0010_1010 + (x * 3 + y * 5) % 97 * 0x0001_0101).collect();
            frame.put_row(0, y, &row);
        }
        let write = |frame: &mut Frame, (left, top): (u32, u32), text: &str| {
            for (column, character) in (0_u32..).zip(text.chars()) {
                for (row, bits) in (0_u32..).zip(rows_of(character)) {
                    for bit in (0..8).filter(|bit| bits >> (7 - bit) & 1 == 1) {
                        frame.put_row(left + column * 8 + bit, top + row, &[0x00ff_ffff]);
                    }
                }
            }
        };
        write(&mut frame, (225, 24), "Installer menu of a test");
        let title = Screen::read(&frame);
        assert_eq!(title.text().unwrap().rows.len(), 1, "{title}");
        write(&mut frame, (104, 61), "Graphical install");
        let dirty = Rect { x: 104, y: 61, width: 136, height: 16 };
        let menu = Screen::read_after(&frame, Some(&title), Some(dirty));
        assert!(menu.contains("Installer menu of a test") && menu.contains("Graphical install"), "{menu}");
    }

    #[test]
    fn other_pictures_say_that_they_have_no_text() {
        let noise = {
            let mut frame = Frame::new(1024, 768).unwrap();
            for y in 0..768 {
                let row: Vec<u32> = (0..1024).map(|x| (x * 7919 + y * 104_729) & 0x00ff_ffff).collect();
                frame.put_row(0, y, &row);
            }
            frame
        };
        let cases = [
            (
                Frame::new(0, 0).unwrap(),
                "a picture of 0x0 pixels without readable text (the display has no size yet)",
            ),
            (
                Frame::new(1366, 768).unwrap(),
                "a picture of 1366x768 pixels without readable text (nothing is drawn on it)",
            ),
            (
                Frame::new(1280, 800).unwrap(),
                "a picture of 1280x800 pixels without readable text (nothing is drawn on it)",
            ),
            (
                noise,
                "a picture of 1024x768 pixels without readable text (its pixels are no characters of a known font)",
            ),
        ];
        for (frame, message) in cases {
            assert_eq!(Screen::read(&frame).to_string(), message);
        }
        assert_eq!(Screen::read(&Frame::new(720, 400).unwrap()).to_string(), "a blank text screen");
    }
}
