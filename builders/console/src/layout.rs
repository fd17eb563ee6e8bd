//! Where the cells of a text screen are: the size of a cell, the pitch, the offset and the font, found from the picture.
//!
//! Points at the edges of what is drawn are taken as samples. Under the right layout the cell around each of them is a
//! glyph; under a wrong one hardly any is. The likely layouts (no offset, centred, VGA's text modes) are tried first,
//! then every offset of every size.

use std::sync::Arc;

use crate::font::{self, RARE_SIZES, SIZES, Table};
use crate::frame::{Frame, Rect};
use crate::glyph;

/// How many points are tried.
const SAMPLES: usize = 96;
/// How many of them decide whether an offset is worth the others.
const FIRST_SAMPLES: usize = 12;
/// How many colours may be inks on a picture.
const INKS: usize = 4;
/// How much ink differs from what it stands on at the least: pictures have many softer edges.
const CONTRAST: u8 = 48;
/// The share of samples from which on a layout is taken at once.
const SURE: f64 = 0.85;
/// Below this share there is no text.
const LEAST: f64 = 0.35;

/// Where the cells are, and what they are compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Width of a glyph.
    pub(crate) width: u32,
    /// Height of a cell.
    pub(crate) height: u32,
    /// From one cell to the next: the width, or one more in VGA's text modes.
    pub(crate) pitch: u32,
    /// Left of the first cell.
    pub(crate) x: u32,
    /// Top of the first cell.
    pub(crate) y: u32,
    /// The font's index in the table of its size.
    pub(crate) font: u8,
    /// The colours that text over a picture is looked for in.
    pub(crate) inks: Vec<u32>,
    /// Left and top of each line, where the lines stand in no grid (a boot menu's theme).
    pub(crate) lines: Vec<(u32, u32)>,
}

impl Layout {
    /// Cells in a line, and lines.
    pub(crate) fn grid(&self, frame: &Frame) -> (usize, usize) {
        if let Some(most) = self.lines.iter().map(|(x, _)| *x).max() {
            return ((frame.width().saturating_sub(most) / self.pitch.max(1)) as usize, self.lines.len());
        }
        let cols = frame.width().saturating_sub(self.x) / self.pitch.max(1);
        let lines = frame.height().saturating_sub(self.y) / self.height.max(1);
        (cols as usize, lines as usize)
    }

    /// Left and top of a cell.
    pub(crate) fn cell(&self, line: usize, column: usize) -> (u32, u32) {
        let (x, y) = self.lines.get(line).copied().unwrap_or((self.x, self.y + line as u32 * self.height));
        (x + column as u32 * self.pitch, y)
    }

    pub(crate) fn table(&self) -> Option<Arc<Table>> {
        font::table((self.width, self.height))
    }

    /// Whether all that changed lies where this layout has cells: lines that stand in no grid know of no line that is
    /// drawn beside them later.
    pub(crate) fn reaches(&self, changed: Option<Rect>) -> bool {
        let within =
            |top: u32, changed: Rect| top <= changed.y && changed.y + changed.height <= top + self.height;
        self.lines.is_empty()
            || changed.is_some_and(|changed| self.lines.iter().any(|(_, top)| within(*top, changed)))
    }
}

/// The layout of VGA's text modes with their usual font, for a screen that shows nothing yet.
pub(crate) fn text_mode(frame: &Frame) -> Option<Layout> {
    let pitch = match (frame.width(), frame.height()) {
        (720, 400) => 9,
        (640, 400) => 8,
        _ => return None,
    };
    Some(Layout { width: 8, height: 16, pitch, ..Layout::default() })
}

/// What is drawn on a picture, as far as it matters for finding text.
struct Samples {
    points: Vec<(u32, u32)>,
    inks: Vec<u32>,
}

/// One place where cells may be.
#[derive(Clone, Copy)]
struct Place {
    size: (u32, u32),
    pitch: u32,
    x: u32,
    y: u32,
}

/// Finds the layout under which the most of what is drawn is text.
pub(crate) fn find(frame: &Frame) -> Option<Layout> {
    let samples = Samples::take(frame);
    if samples.points.is_empty() {
        return None;
    }
    let mut best: Option<(f64, Place)> = None;
    let mut better = |score: f64, place: Place| {
        if score > best.map_or(LEAST, |(best, _)| best) {
            best = Some((score, place));
        }
        score >= SURE
    };
    let sizes = || SIZES.iter().chain(&RARE_SIZES);
    let sure = sizes().any(|size| {
        let Some(table) = font::table(*size) else { return false };
        likely(frame, *size).any(|place| better(samples.score(frame, &table, place), place))
    });
    if !sure {
        // A size whose right offset is found makes the others unlikely.
        for size in sizes() {
            let Some(table) = font::table(*size) else { continue };
            let mut sure = false;
            for pitch in pitches(frame, *size) {
                for (x, y) in (0..size.1).flat_map(|y| (0..pitch).map(move |x| (x, y))) {
                    let place = Place { size: *size, pitch, x, y };
                    sure |= better(samples.score(frame, &table, place), place);
                }
            }
            if sure {
                break;
            }
        }
    }
    let (_, place) = best?;
    let mut layout = Layout {
        width: place.size.0,
        height: place.size.1,
        pitch: place.pitch,
        x: place.x,
        y: place.y,
        font: 0,
        inks: samples.inks,
        lines: Vec::new(),
    };
    layout.font = font_of(frame, &layout)?;
    layout.keep_used_inks(frame);
    Some(layout)
}

/// Finds lines of 8x16 text that stand in no grid, as on a boot menu with a theme.
///
/// Each point votes for every place of a cell around it that holds a letter or digit; a line is where enough agree.
pub(crate) fn find_lines(frame: &Frame) -> Option<Layout> {
    const POINTS: usize = 2_000;
    const VOTES: usize = 6;
    let size = (8_u32, 16_u32);
    let samples = Samples::take_many(frame, POINTS);
    let table = font::table(size)?;
    let mut votes = std::collections::HashMap::<(u32, u32), std::collections::HashSet<u32>>::new();
    for (x, y) in &samples.points {
        for top in y.saturating_sub(size.1 - 1)..=(*y).min(frame.height().saturating_sub(size.1)) {
            for left in x.saturating_sub(size.0 - 1)..=(*x).min(frame.width().saturating_sub(size.0)) {
                let mut letter = false;
                glyph::matches(frame, &table, (left, top), (8, 8), &samples.inks, |_, character| {
                    letter |= character.is_ascii_alphanumeric();
                });
                if letter {
                    votes.entry((top, left % size.0)).or_default().insert(left / size.0);
                }
            }
        }
    }
    let mut votes: Vec<((u32, u32), usize)> =
        votes.into_iter().map(|(place, cells)| (place, cells.len())).collect();
    votes.sort_by_key(|(place, count)| (std::cmp::Reverse(*count), *place));
    let mut lines: Vec<(u32, u32)> = Vec::new();
    for ((top, left), count) in votes {
        if count >= VOTES && lines.iter().all(|(_, other)| other.abs_diff(top) >= size.1) {
            lines.push((left, top));
        }
    }
    lines.sort_by_key(|(_, top)| *top);
    if lines.is_empty() {
        return None;
    }
    let mut layout = Layout {
        width: size.0,
        height: size.1,
        pitch: size.0,
        inks: samples.inks,
        lines,
        ..Layout::default()
    };
    layout.font = font_of(frame, &layout)?;
    layout.keep_used_inks(frame);
    Some(layout)
}

impl Layout {
    /// Leaves out the colours that nothing is written in: a picture may have them by chance.
    fn keep_used_inks(&mut self, frame: &Frame) {
        const USED: usize = 3;
        let Some(table) = self.table() else { return };
        let (cols, lines) = self.grid(frame);
        let mut used = vec![0_usize; self.inks.len()];
        for (line, column) in (0..lines).flat_map(|line| (0..cols).map(move |column| (line, column))) {
            let cell = glyph::read(frame, &table, self, self.cell(line, column), None, None).cell;
            if cell.character.is_ascii_alphanumeric()
                && let Some(index) = self.inks.iter().position(|ink| *ink == cell.foreground)
                && let Some(count) = used.get_mut(index)
            {
                *count += 1;
            }
        }
        let mut counts = used.into_iter();
        self.inks.retain(|_| counts.next().is_some_and(|count| count >= USED));
    }
}

fn pitches(frame: &Frame, (width, _): (u32, u32)) -> impl Iterator<Item = u32> + use<> {
    let nine = width == 8 && frame.width().is_multiple_of(9) && frame.height() <= 480;
    [Some(width), nine.then_some(9)].into_iter().flatten()
}

/// Without an offset, and centred as EDK2 does it.
fn likely(frame: &Frame, size: (u32, u32)) -> impl Iterator<Item = Place> + use<> {
    let (width, height) = (frame.width(), frame.height());
    pitches(frame, size).flat_map(move |pitch| {
        let centred = (width % pitch / 2, height % size.1 / 2);
        let text_80x25 =
            (width.saturating_sub(80 * pitch) / 2 % pitch, height.saturating_sub(25 * size.1) / 2 % size.1);
        [(0, 0), (0, centred.1), centred, text_80x25].map(|(x, y)| Place { size, pitch, x, y })
    })
}

impl Samples {
    /// Takes points at the edges of the commonest colours.
    fn take(frame: &Frame) -> Self {
        Self::take_many(frame, SAMPLES)
    }

    fn take_many(frame: &Frame, many: usize) -> Self {
        let mut edges: Vec<(u32, u32, u32)> = Vec::new();
        let width = frame.width();
        // Every third row passes through every line of text, as through pictures; few points are needed.
        for y in (1..frame.height()).step_by(3) {
            let row = frame.row(0, y, width);
            for (x, pair) in row.windows(2).enumerate() {
                if let [left, right] = *pair
                    && contrast(left, right) >= CONTRAST
                {
                    edges.push((x as u32 + 1, y, right));
                }
            }
        }
        let mut counts = std::collections::HashMap::<u32, usize>::new();
        for (_, _, colour) in edges.iter().step_by(1 + edges.len() / 4096) {
            *counts.entry(*colour).or_default() += 1;
        }
        let mut inks: Vec<(u32, usize)> = counts.into_iter().collect();
        inks.sort_by_key(|(colour, count)| (std::cmp::Reverse(*count), *colour));
        let inks: Vec<u32> = inks.into_iter().take(INKS).map(|(colour, _)| colour).collect();
        edges.retain(|(_, _, colour)| inks.contains(colour));
        // A step that is no divisor of a width, so that not all points come from one column.
        let step = (edges.len() / many).max(1);
        let points = edges.iter().step_by(step).take(many).map(|(x, y, _)| (*x, *y)).collect();
        Self { points, inks }
    }

    /// The share of samples that lie in a glyph, where line drawing counts little: it looks the same in many places.
    fn score(&self, frame: &Frame, table: &Table, place: Place) -> f64 {
        let (mut hits, mut tried) = (0.0, 0_usize);
        // The first samples are taken from all over the screen.
        let stride = (self.points.len() / FIRST_SAMPLES).max(1);
        let first = self.points.iter().step_by(stride);
        let rest = self.points.iter().enumerate().filter(|(index, _)| index % stride != 0);
        for (x, y) in first.chain(rest.map(|(_, point)| point)) {
            if *x < place.x || *y < place.y {
                continue;
            }
            let left = *x - (*x - place.x) % place.pitch;
            let top = *y - (*y - place.y) % place.size.1;
            if left + place.pitch > frame.width() || top + place.size.1 > frame.height() {
                continue;
            }
            let mut hit = 0.0_f64;
            let cell = (left, top);
            let widths = (place.size.0, place.pitch);
            let inked = glyph::matches(frame, table, cell, widths, &self.inks, |_, character| {
                hit = hit.max(if tells(character) { 1.0 } else { 0.3 });
            });
            if inked {
                hits += hit;
                tried += 1;
            }
            if tried == FIRST_SAMPLES && hits < 1.0 {
                return 0.0;
            }
        }
        if tried == 0 { 0.0 } else { hits / tried as f64 }
    }
}

/// The largest difference of two colours in red, green or blue.
fn contrast(one: u32, two: u32) -> u8 {
    let channels = one.to_le_bytes().into_iter().zip(two.to_le_bytes());
    channels.map(|(one, two)| one.abs_diff(two)).max().unwrap_or(0)
}

/// Whether a character's picture tells where its cell is.
fn tells(character: char) -> bool {
    !('\u{2500}'..'\u{25a0}').contains(&character) && !"|_-¯·.'`".contains(character)
}

/// The font of which the most cells are.
pub(crate) fn font_of(frame: &Frame, layout: &Layout) -> Option<u8> {
    let table = layout.table()?;
    let (cols, lines) = layout.grid(frame);
    let mut counts = vec![0_u32; table.names.len()];
    for line in 0..lines {
        for column in 0..cols {
            let cell = layout.cell(line, column);
            let mut last = None;
            glyph::matches(
                frame,
                &table,
                cell,
                (layout.width, layout.pitch),
                &layout.inks,
                |font, character| {
                    if last != Some(font)
                        && let Some(count) = counts.get_mut(usize::from(font))
                    {
                        // One font's dash may look like another's hyphen: ASCII is the likelier.
                        *count += if character.is_ascii() { 4 } else { 3 };
                        last = Some(font);
                    }
                },
            );
        }
    }
    // Of equals the first: the likelier font.
    let most = counts.iter().copied().max().filter(|most| *most > 0)?;
    counts.iter().position(|count| *count == most).map(|index| index as u8)
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
