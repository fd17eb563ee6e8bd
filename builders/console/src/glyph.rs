//! Glyphs of a bitmap font: the exact lookup from a cell's pixels to its character.
//!
//! A cell of a text screen has at most two colours, so its pixels are one 128-bit number under either choice of
//! the foreground; the font is a table from that number to the character. A cell that is not in the table may
//! hold the text cursor: full rows drawn over the glyph, which are then left out of the comparison.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::frame::Frame;

/// Height of a cell, in pixels.
pub(crate) const CELL_HEIGHT: u32 = 16;
/// A text cursor reaches at least down to this row of its cell.
const LOWEST_CURSOR_ROW: u32 = 11;

/// The VGA text font, 256 glyphs of 16 rows in code page 437 (its origin: `fonts/LICENSE.md`).
static VGA: &[u8; 4096] = include_bytes!("fonts/vga-8x16.bin");

/// Code page 437 as the VGA shows it: the control codes have pictures.
const CODE_PAGE_437: &str = concat!(
    " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼",
    " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~⌂",
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»",
    "░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀",
    "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ",
);

static FONT: LazyLock<HashMap<u128, char>> = LazyLock::new(|| {
    let mut by_pixels = HashMap::with_capacity(256);
    for (rows, character) in VGA.chunks_exact(16).zip(CODE_PAGE_437.chars()) {
        let pixels = rows.iter().fold(0_u128, |pixels, row| pixels << 8 | u128::from(*row));
        by_pixels.entry(pixels).or_insert(character);
    }
    by_pixels
});

/// One cell as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The character; `U+FFFD` when the pixels are no glyph of the font.
    pub character: char,
    /// Foreground colour `0x00RRGGBB`; equal to the background in a blank cell.
    pub foreground: u32,
    /// Background colour `0x00RRGGBB`.
    pub background: u32,
}

/// What a cell holds, and whether the text cursor is drawn in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) cell: Cell,
    pub(crate) cursor: bool,
}

/// Reads the cell whose top left pixel is at `x`, `y`, `width` (8 or 9) pixels wide.
///
/// `before` is what the cell held at the last look: where a cursor hides what tells two glyphs apart, it decides.
pub(crate) fn read(frame: &Frame, x: u32, y: u32, width: u32, before: Option<char>) -> Reading {
    let first = frame.row(x, y, 1).first().copied().unwrap_or(0);
    let mut second = None;
    let mut pixels = 0_u128;
    let mut ninth = 0_u16;
    let mut plain = true;
    for row in 0..CELL_HEIGHT {
        for (column, pixel) in frame.row(x, y + row, width).iter().enumerate() {
            let other = *pixel != first;
            if other {
                plain &= *second.get_or_insert(*pixel) == *pixel;
            }
            if column < 8 {
                pixels = pixels << 1 | u128::from(other);
            } else {
                ninth = ninth << 1 | u16::from(other);
            }
        }
    }
    let Some(second) = second else {
        return Reading { cell: cell(' ', first, first), cursor: false };
    };
    if !plain {
        return Reading { cell: cell(char::REPLACEMENT_CHARACTER, second, first), cursor: false };
    }
    // The background is the colour that covers more of the cell; the other way round is tried second.
    let as_drawn = (pixels, ninth, second, first);
    let swapped = (!pixels, !ninth, first, second);
    let order = if pixels.count_ones() > 64 { [swapped, as_drawn] } else { [as_drawn, swapped] };
    for (pixels, ninth, foreground, background) in order {
        if let Some(character) = exact(pixels, ninth, width) {
            return Reading { cell: cell(character, foreground, background), cursor: false };
        }
    }
    for (pixels, ninth, foreground, background) in order {
        if let Some(character) = under_cursor(pixels, ninth, width, before) {
            let foreground = if character == ' ' { background } else { foreground };
            return Reading { cell: cell(character, foreground, background), cursor: true };
        }
    }
    Reading { cell: cell(char::REPLACEMENT_CHARACTER, second, first), cursor: false }
}

fn cell(character: char, foreground: u32, background: u32) -> Cell {
    Cell { character, foreground, background }
}

fn exact(pixels: u128, ninth: u16, width: u32) -> Option<char> {
    let character = *FONT.get(&pixels)?;
    if width == 8 || ninth == 0 {
        return Some(character);
    }
    // Only the line-drawing characters C0..DF repeat their eighth column in the ninth. An underscore whose ninth
    // column is set is no underscore: the text cursor spans all nine.
    let eighth = (0..16).rev().fold(0_u16, |column, row| column << 1 | (pixels >> (row * 8) & 1) as u16);
    (!character.is_ascii() && ninth == eighth).then_some(character)
}

/// The character under a text cursor: a block of full rows in the lower half of the cell hides the glyph there.
///
/// A blank is taken before anything else (the usual place of a cursor), then what was there before; a glyph that
/// can't be told from another is not guessed.
fn under_cursor(pixels: u128, ninth: u16, width: u32, before: Option<char>) -> Option<char> {
    let full = |row: u32| {
        (pixels >> ((15 - row) * 8)) & 0xff == 0xff && (width == 8 || ninth >> (15 - row) & 1 == 1)
    };
    let first = (8..CELL_HEIGHT).find(|row| full(*row))?;
    let last = (first..CELL_HEIGHT).take_while(|row| full(*row)).last()?;
    if last < LOWEST_CURSOR_ROW {
        return None;
    }
    let hidden = (first..=last).fold(0_u128, |mask, row| mask | 0xff << ((15 - row) * 8));
    let mut fitting = FONT.iter().filter(|(glyph, _)| *glyph & !hidden == pixels & !hidden);
    if pixels & !hidden == 0 {
        return Some(' ');
    }
    let (_, character) = fitting.next()?;
    match fitting.next() {
        None => Some(*character),
        Some((_, second)) => {
            let mut others = [*character, *second].into_iter().chain(fitting.map(|(_, other)| *other));
            Some(others.find(|other| Some(*other) == before).unwrap_or(char::REPLACEMENT_CHARACTER))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The glyph of a character, for painting test screens.
    pub(crate) fn rows_of(character: char) -> [u8; 16] {
        let index = CODE_PAGE_437.chars().position(|other| other == character).unwrap();
        VGA[index * 16..index * 16 + 16].try_into().unwrap()
    }

    #[test]
    fn code_page_437_has_its_256_characters_in_place() {
        let table: Vec<char> = CODE_PAGE_437.chars().collect();
        assert_eq!(table.len(), 256);
        for code in 0x20..0x7f_u8 {
            assert_eq!(table[usize::from(code)], char::from(code));
        }
        for (code, character) in
            [(0x80, 'Ç'), (0xb0, '░'), (0xc4, '─'), (0xdb, '█'), (0xe1, 'ß'), (0xfe, '■')]
        {
            assert_eq!(table[code], character);
        }
    }

    #[test]
    fn the_font_is_the_one_of_the_installed_vga_bios() {
        let path = "/usr/share/seabios/vgabios-stdvga.bin";
        let Ok(bios) = std::fs::read(path) else {
            println!("skipped: {path} (package seabios) is not installed");
            return;
        };
        assert!(bios.windows(VGA.len()).any(|window| window == VGA));
    }

    #[test]
    fn every_glyph_reads_back_in_both_polarities_and_widths() {
        for width in [8, 9] {
            for (ink, paper) in [(0x00aa_aaaa, 0), (0, 0x00aa_aaaa)] {
                for character in CODE_PAGE_437.chars().filter(|character| !" ▀▄▌▐█◘◙•○".contains(*character))
                {
                    let frame = paint(character, width, ink, paper, None);
                    let reading = read(&frame, 0, 0, width, None);
                    assert_eq!(reading.cell.character, character, "width {width}");
                    assert!(!reading.cursor, "{character:?}");
                }
            }
        }
    }

    #[test]
    fn a_cursor_over_a_glyph_is_seen_through() {
        for width in [8, 9] {
            for character in " Aa$/:=".chars() {
                let frame = paint(character, width, 0x00aa_aaaa, 0, Some(13));
                let reading = read(&frame, 0, 0, width, None);
                assert_eq!(reading.cell.character, character, "width {width}");
                assert!(reading.cursor);
            }
        }
    }

    #[test]
    fn glyphs_that_differ_only_under_the_cursor_are_not_guessed() {
        let frame = paint('q', 9, 0x00aa_aaaa, 0, Some(13));
        let reading = |before| read(&frame, 0, 0, 9, before).cell.character;
        assert_eq!(reading(None), char::REPLACEMENT_CHARACTER);
        assert_eq!(reading(Some('q')), 'q');
        assert_eq!(reading(Some('x')), char::REPLACEMENT_CHARACTER);
    }

    #[test]
    fn what_is_no_glyph_is_told_as_such() {
        let mut frame = Frame::new(9, 16).unwrap();
        frame.put_row(0, 0, &[1, 0, 1, 0, 1, 0, 1, 0, 0]);
        assert_eq!(read(&frame, 0, 0, 9, None).cell.character, char::REPLACEMENT_CHARACTER);
        frame.put_row(0, 1, &[2, 3]);
        assert_eq!(read(&frame, 0, 0, 9, None).cell.character, char::REPLACEMENT_CHARACTER);
    }

    fn paint(character: char, width: u32, ink: u32, paper: u32, cursor: Option<u32>) -> Frame {
        let mut frame = Frame::new(width, 16).unwrap();
        let line_drawing = ('─'..='▟').contains(&character);
        for (row, bits) in rows_of(character).into_iter().enumerate() {
            let mut line: Vec<u32> =
                (0..8).map(|bit| if bits >> (7 - bit) & 1 == 1 { ink } else { paper }).collect();
            if width == 9 {
                line.push(if line_drawing { line[7] } else { paper });
            }
            if cursor.is_some_and(|first| (first..first + 2).contains(&(row as u32))) {
                line.fill(ink);
            }
            frame.put_row(0, row as u32, &line);
        }
        frame
    }
}
