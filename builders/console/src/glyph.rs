//! One cell of a text screen: its pixels, its two colours, and the character they are.
//!
//! A cell of a text screen has at most two colours, so its pixels are a number per row under either choice of the
//! foreground, and the table of the font size says which character looks so. Over a picture a cell has more colours:
//! then the pixels of one ink must be a glyph. A cell that is no glyph may hold the text cursor: full rows drawn over
//! it, which are left out of the comparison.

use crate::font::{MAX_HEIGHT, Rows, Table};
use crate::frame::Frame;
use crate::layout::Layout;

/// Fewer pixels of an ink than this are a picture's: a full stop has four.
const LEAST_INK: u32 = 3;

/// The lowest of the terminals' scan lines and of the blocks, which hardly anybody writes: they look like the cursor of a
/// console over a blank.
const LIKE_A_CURSOR: [char; 2] = ['\u{23bd}', '▁'];

/// One cell as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The character; `U+FFFD` when the pixels are no glyph of the font.
    pub character: char,
    /// Foreground colour `0x00RRGGBB`; equal to the background in a blank cell, unless that shows a part of a picture.
    pub foreground: u32,
    /// Background colour `0x00RRGGBB`; over a picture the colour of the cell's first pixel that is no ink.
    pub background: u32,
}

/// What a cell holds, and whether the text cursor is drawn in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) cell: Cell,
    pub(crate) cursor: bool,
}

/// The pixels of a cell under its two colours.
pub(crate) struct Pixels {
    /// Set where a pixel is not of the first colour; without the ninth column.
    rows: Rows,
    /// The ninth column, where there is one.
    ninth: u32,
    /// The colour of the first pixel.
    first: u32,
    /// The other colour, if there is one.
    second: Option<u32>,
    /// No third colour.
    plain: bool,
    ink: u32,
}

impl Cell {
    /// Whether it shows a part of a picture and no character.
    pub(crate) fn is_picture(&self) -> bool {
        self.character == ' ' && self.foreground != self.background
    }
}

impl Pixels {
    pub(crate) fn look(frame: &Frame, x: u32, y: u32, width: u32, pitch: u32, height: u32) -> Self {
        // Most of the time of a reading is spent here: with the pitch known the compiler takes eight pixels at once.
        match pitch {
            8 => Self::look_at::<8>(frame, (x, y), width, 8, height),
            9 => Self::look_at::<16>(frame, (x, y), width, 9, height),
            _ => Self::look_at::<16>(frame, (x, y), width, pitch, height),
        }
    }

    #[inline(always)]
    fn look_at<const W: usize>(
        frame: &Frame,
        (x, y): (u32, u32),
        width: u32,
        pitch: u32,
        height: u32,
    ) -> Self {
        let lines = || frame.lines_of(x, y, pitch, height);
        let first = lines().next().and_then(|line| line.first()).copied().unwrap_or(0);
        let other = |colours: &[u32]| colours.iter().copied().find(|colour| *colour != first);
        let second = lines().find_map(other);
        let mut pixels = Self { rows: Rows::default(), ninth: 0, first, second, plain: true, ink: 0 };
        let Some(second) = second else { return pixels };
        let mut marks: Marks<W> = [[0; W]; MAX_HEIGHT as usize];
        let mut strange = 0;
        for (marks, colours) in marks.iter_mut().zip(lines()) {
            for (mark, colour) in marks.iter_mut().zip(colours) {
                *mark = if *colour == first { 0 } else { u8::MAX };
                strange |= (colour ^ first) & if *colour == second { 0 } else { u32::MAX };
            }
        }
        pixels.plain = strange == 0;
        pixels.take(&marks, width, pitch, height);
        pixels
    }

    /// The pixels of one colour as ink, whatever the others are.
    fn of_ink(frame: &Frame, x: u32, y: u32, layout: &Layout, ink: u32) -> Self {
        let lines = || frame.lines_of(x, y, layout.pitch, layout.height);
        let other = |colours: &[u32]| colours.iter().copied().find(|colour| *colour != ink);
        let first = lines().find_map(other).unwrap_or(ink);
        let mut pixels =
            Self { rows: Rows::default(), ninth: 0, first, second: Some(ink), plain: true, ink: 0 };
        let mut marks: Marks<16> = [[0; 16]; MAX_HEIGHT as usize];
        for (marks, colours) in marks.iter_mut().zip(lines()) {
            for (mark, colour) in marks.iter_mut().zip(colours) {
                *mark = if *colour == ink { u8::MAX } else { 0 };
            }
        }
        pixels.take(&marks, layout.width, layout.pitch, layout.height);
        pixels
    }

    /// Takes over what is marked.
    #[inline(always)]
    fn take<const W: usize>(&mut self, marks: &Marks<W>, width: u32, pitch: u32, height: u32) {
        let extra = pitch - width;
        for (row, marks) in self.rows.iter_mut().zip(marks).take(height as usize) {
            let bits = bits_of(marks, pitch);
            if extra > 0 {
                self.ninth = self.ninth << 1 | bits & 1;
            }
            *row = (bits >> extra) as u16;
        }
        let four = |four: &[u16; 4]| four.iter().fold(0_u64, |all, row| all << 16 | u64::from(*row));
        self.ink = self.rows.as_chunks().0.iter().map(|rows| four(rows).count_ones()).sum();
    }

    /// Whether all pixels have one colour.
    pub(crate) fn is_blank(&self) -> bool {
        self.second.is_none()
    }

    /// Whether there are two colours.
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    /// The same with the colours exchanged.
    fn swapped(&self, width: u32, pitch: u32, height: u32) -> Self {
        let full = full_row(width);
        let mut rows = Rows::default();
        for (row, old) in rows.iter_mut().zip(&self.rows).take(height as usize) {
            *row = !old & full;
        }
        let ninth = if pitch > width { !self.ninth & column(height) } else { 0 };
        Self {
            rows,
            ninth,
            first: self.second.unwrap_or(self.first),
            second: Some(self.first),
            plain: self.plain,
            ink: width * height - self.ink,
        }
    }

    /// The likelier choice of the foreground: the background is the colour that covers more.
    fn likelier(self, width: u32, pitch: u32, height: u32) -> Self {
        if self.ink > width * height / 2 { self.swapped(width, pitch, height) } else { self }
    }

    fn rows(&self, height: u32) -> &[u16] {
        self.rows.get(..height as usize).unwrap_or(&[])
    }

    /// Whether the ninth column is what the VGA draws for this character: nothing, or for line drawing the eighth again.
    /// An underscore whose ninth column is set is no underscore: the text cursor spans all nine.
    fn ninth_fits(&self, character: char, height: u32) -> bool {
        if self.ninth == 0 {
            return true;
        }
        let eighth = self.rows(height).iter().fold(0_u32, |column, row| column << 1 | u32::from(row & 1));
        !character.is_ascii() && self.ninth == eighth
    }
}

/// A byte for each pixel of a cell, all of its bits set or none: so the processor compares many pixels at once.
type Marks<const W: usize> = [[u8; W]; MAX_HEIGHT as usize];

/// A bit for each of the first marks of a row, the leftmost the highest.
#[inline(always)]
fn bits_of<const W: usize>(marks: &[u8; W], pitch: u32) -> u32 {
    const LOWEST: u64 = 0x0101_0101_0101_0101;
    // Brings the lowest bits of eight bytes together in the highest byte, the first byte's on top.
    const GATHER: u64 = 0x8040_2010_0804_0201;
    let gather = |eight: &[u8; 8]| (u64::from_le_bytes(*eight) & LOWEST).wrapping_mul(GATHER) >> 56;
    let bits = marks.as_chunks().0.iter().fold(0, |bits, eight| bits << 8 | gather(eight) as u32);
    bits >> (W as u32 - pitch)
}

fn full_row(width: u32) -> u16 {
    u16::MAX >> (16 - width.min(16))
}

fn column(height: u32) -> u32 {
    u32::MAX >> (MAX_HEIGHT - height.min(MAX_HEIGHT))
}

/// What a cell of exactly two colours shows, the colour that covers less taken for the ink.
pub(crate) fn picture(frame: &Frame, (x, y): (u32, u32), width: u32, height: u32) -> Option<Vec<u16>> {
    if !frame.holds(crate::frame::Rect { x, y, width, height }) {
        return None;
    }
    let pixels = Pixels::look(frame, x, y, width, width, height);
    if pixels.is_blank() || !pixels.is_plain() {
        return None;
    }
    let pixels = pixels.likelier(width, width, height);
    Some(pixels.rows(height).to_vec())
}

/// Which fonts hold what a cell shows, for finding the font of a screen: called for each match, with the character.
pub(crate) fn matches(
    frame: &Frame,
    table: &Table,
    (x, y): (u32, u32),
    (width, pitch): (u32, u32),
    inks: &[u32],
    mut found: impl FnMut(u8, char),
) -> bool {
    let height = table.height;
    let pixels = Pixels::look(frame, x, y, width, pitch, height);
    if pixels.is_blank() {
        return false;
    }
    if pixels.is_plain() {
        let mut find = |pixels: &Pixels| {
            let mut any = false;
            for hit in table.find(pixels.rows(height)) {
                if pixels.ninth_fits(hit.character, height) {
                    any = true;
                    found(hit.font, hit.character);
                }
            }
            any
        };
        let likely = pixels.likelier(width, pitch, height);
        if !find(&likely) {
            find(&likely.swapped(width, pitch, height));
        }
        return true;
    }
    let layout = Layout { width, height, pitch, ..Layout::default() };
    for ink in inks {
        let pixels = Pixels::of_ink(frame, x, y, &layout, *ink);
        for hit in table.find(pixels.rows(height)) {
            if pixels.ninth_fits(hit.character, height) {
                found(hit.font, hit.character);
            }
        }
    }
    true
}

/// Reads the cell whose top left pixel is at `x`, `y`.
///
/// `before` is what the cell held at the last look: where a cursor hides what tells two glyphs apart, it decides.
/// `paper` is the background of the last character before it.
pub(crate) fn read(
    frame: &Frame,
    table: &Table,
    layout: &Layout,
    (x, y): (u32, u32),
    before: Option<char>,
    paper: Option<u32>,
) -> Reading {
    let (width, pitch, height) = (layout.width, layout.pitch, layout.height);
    let pixels = Pixels::look(frame, x, y, width, pitch, height);
    let first = pixels.first;
    let plain = |character, foreground, background, cursor| Reading {
        cell: Cell { character, foreground, background },
        cursor,
    };
    let Some(second) = pixels.second else { return plain(' ', first, first, false) };
    if !pixels.plain {
        return over_picture(frame, table, layout, (x, y), first, second);
    }
    let likely = pixels.likelier(width, pitch, height);
    let whole =
        |pixels: &Pixels, character| plain(character, pixels.second.unwrap_or(first), pixels.first, false);
    let block = |character: Option<char>| character.filter(|character| ('▀'..='▟').contains(character));
    let read = exact(table, layout, &likely);
    // The lower half in one colour is the upper half in the other: the paper of the character before decides.
    if block(read).is_some() && likely.second == paper {
        let other = likely.swapped(width, pitch, height);
        if let Some(character) = block(exact(table, layout, &other)) {
            return whole(&other, character);
        }
    }
    if let Some(character) = read {
        return whole(&likely, character);
    }
    let other = likely.swapped(width, pitch, height);
    if let Some(character) = exact(table, layout, &other) {
        return whole(&other, character);
    }
    for pixels in [&likely, &other] {
        if let Some(character) = under_cursor(table, layout, pixels, before) {
            let foreground = if character == ' ' { pixels.first } else { pixels.second.unwrap_or(first) };
            return plain(character, foreground, pixels.first, true);
        }
    }
    plain(char::REPLACEMENT_CHARACTER, second, first, false)
}

fn exact(table: &Table, layout: &Layout, pixels: &Pixels) -> Option<char> {
    let fitting = || {
        let hits = table.find(pixels.rows(layout.height));
        hits.filter(|hit| {
            !LIKE_A_CURSOR.contains(&hit.character) && pixels.ninth_fits(hit.character, layout.height)
        })
    };
    let hit = fitting().find(|hit| hit.font == layout.font);
    hit.or_else(|| fitting().find(|hit| table.related(layout.font, hit.font))).map(|hit| hit.character)
}

/// A cell of more than two colours: the pixels of one ink are a glyph, or there is no ink in it and it is a picture's
/// part, which is blank as text.
fn over_picture(
    frame: &Frame,
    table: &Table,
    layout: &Layout,
    (x, y): (u32, u32),
    first: u32,
    second: u32,
) -> Reading {
    let mut inked = false;
    for ink in &layout.inks {
        let pixels = Pixels::of_ink(frame, x, y, layout, *ink);
        if pixels.ink < LEAST_INK {
            continue;
        }
        if let Some(character) = exact(table, layout, &pixels) {
            return Reading {
                cell: Cell { character, foreground: *ink, background: pixels.first },
                cursor: false,
            };
        }
        inked = true;
    }
    // Without an ink that is looked for every cell of more than two colours is no text at all.
    let character = if inked || layout.inks.is_empty() { char::REPLACEMENT_CHARACTER } else { ' ' };
    Reading { cell: Cell { character, foreground: second, background: first }, cursor: false }
}

/// The character under a text cursor: a block of full rows in the lower half of the cell hides the glyph there.
///
/// A blank is taken before anything else (the usual place of a cursor), then what was there before; a glyph that
/// can't be told from another is not guessed.
fn under_cursor(table: &Table, layout: &Layout, pixels: &Pixels, before: Option<char>) -> Option<char> {
    let height = layout.height as usize;
    let full = full_row(layout.width);
    let rows = pixels.rows(layout.height);
    let is_full = |row: usize| {
        rows.get(row) == Some(&full)
            && (layout.pitch == layout.width || pixels.ninth >> (height - 1 - row) & 1 == 1)
    };
    let first = (height / 2..height).find(|row| is_full(*row))?;
    let last = (first..height).take_while(|row| is_full(*row)).last()?;
    // A text cursor reaches at least down to here.
    if last < height * 11 / 16 {
        return None;
    }
    let seen = |glyph: &[u16]| {
        glyph.iter().zip(rows).enumerate().all(|(row, (a, b))| (first..=last).contains(&row) || a == b)
    };
    if seen(&[0; MAX_HEIGHT as usize][..height]) {
        return Some(' ');
    }
    let fitting: Vec<char> = table
        .of_font(layout.font)
        .filter(|(_, glyph)| seen(glyph.get(..height).unwrap_or(&[])))
        .map(|(character, _)| character)
        .collect();
    if let [only] = fitting[..] {
        return Some(only);
    }
    // A cedilla or an ogonek may be hidden, but hardly is where ASCII fits as well.
    let mut ascii = fitting.iter().filter(|character| character.is_ascii());
    match (fitting.iter().find(|character| Some(**character) == before), ascii.next(), ascii.next()) {
        (Some(character), ..) | (None, Some(character), None) => Some(*character),
        _ if fitting.is_empty() => None,
        _ => Some(char::REPLACEMENT_CHARACTER),
    }
}

#[cfg(test)]
pub(crate) mod tests;
