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
        let first = frame.row(x, y, 1).first().copied().unwrap_or(0);
        let mut pixels = Self { rows: Rows::default(), ninth: 0, first, second: None, plain: true, ink: 0 };
        for (line, row) in pixels.rows.iter_mut().enumerate().take(height as usize) {
            let colours = frame.row(x, y + line as u32, pitch);
            let mut bits = 0_u32;
            let mut strange = 0_u32;
            match pixels.second {
                Some(second) => {
                    for colour in colours {
                        let other = *colour != first;
                        bits = bits << 1 | u32::from(other);
                        strange |= u32::from(other & (*colour != second));
                    }
                }
                None => {
                    for colour in colours {
                        bits = bits << 1 | u32::from(*colour != first);
                    }
                    if bits != 0 {
                        let second = colours.iter().copied().find(|colour| *colour != first);
                        pixels.second = second;
                        strange = u32::from(
                            colours.iter().any(|colour| *colour != first && Some(*colour) != second),
                        );
                    }
                }
            }
            if strange != 0 {
                pixels.plain = false;
                return pixels;
            }
            let extra = pitch - width;
            if extra > 0 {
                pixels.ninth = pixels.ninth << 1 | bits & 1;
            }
            *row = (bits >> extra) as u16;
            pixels.ink += u32::from(*row).count_ones();
        }
        pixels
    }

    /// The pixels of one colour as ink, whatever the others are.
    fn of_ink(frame: &Frame, x: u32, y: u32, layout: &Layout, ink: u32) -> Self {
        let extra = layout.pitch - layout.width;
        let mut pixels =
            Self { rows: Rows::default(), ninth: 0, first: ink, second: Some(ink), plain: true, ink: 0 };
        for (line, row) in pixels.rows.iter_mut().enumerate().take(layout.height as usize) {
            let mut bits = 0_u32;
            for colour in frame.row(x, y + line as u32, layout.pitch) {
                bits = bits << 1 | u32::from(*colour == ink);
                if *colour != ink && pixels.first == ink {
                    pixels.first = *colour;
                }
            }
            if extra > 0 {
                pixels.ninth = pixels.ninth << 1 | bits & 1;
            }
            *row = (bits >> extra) as u16;
            pixels.ink += u32::from(*row).count_ones();
        }
        pixels
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

    /// Both choices of the foreground, the likelier first: the background is the colour that covers more.
    fn both(self, width: u32, pitch: u32, height: u32) -> [Self; 2] {
        let swapped = self.swapped(width, pitch, height);
        if self.ink > width * height / 2 { [swapped, self] } else { [self, swapped] }
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
    let [pixels, _] = pixels.both(width, width, height);
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
        for pixels in pixels.both(width, pitch, height) {
            let mut any = false;
            for hit in table.find(pixels.rows(height)) {
                if pixels.ninth_fits(hit.character, height) {
                    any = true;
                    found(hit.font, hit.character);
                }
            }
            if any {
                break;
            }
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
    let both = pixels.both(width, pitch, height);
    // The lower half in one colour is the upper half in the other: the paper of the character before decides.
    let block = |pixels: &Pixels| {
        exact(table, layout, pixels).is_some_and(|character| ('▀'..='▟').contains(&character))
    };
    let [likely, other] = &both;
    let order = if Some(other.first) == paper && block(likely) && block(other) {
        [other, likely]
    } else {
        [likely, other]
    };
    for pixels in order {
        if let Some(character) = exact(table, layout, pixels) {
            return plain(character, pixels.second.unwrap_or(first), pixels.first, false);
        }
    }
    for pixels in &both {
        if let Some(character) = under_cursor(table, layout, pixels, before) {
            let foreground = if character == ' ' { pixels.first } else { pixels.second.unwrap_or(first) };
            return plain(character, foreground, pixels.first, true);
        }
    }
    plain(char::REPLACEMENT_CHARACTER, second, first, false)
}

fn exact(table: &Table, layout: &Layout, pixels: &Pixels) -> Option<char> {
    let mut related = None;
    for hit in table.find(pixels.rows(layout.height)) {
        if !pixels.ninth_fits(hit.character, layout.height) {
            continue;
        }
        if hit.font == layout.font {
            return Some(hit.character);
        }
        if related.is_none() && table.related(layout.font, hit.font) {
            related = Some(hit.character);
        }
    }
    related
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
