use proptest::prelude::*;

use super::*;
use crate::font::Font;
use crate::screen::Screen;

/// How a screen is drawn: its size, where its first cell is, from one cell to the next, and the two colours.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    size: (u32, u32),
    at: (u32, u32),
    pitch: u32,
    ink: u32,
    paper: u32,
}

/// Whether the VGA draws the eighth column of this character again as the ninth.
fn joins(character: char) -> bool {
    ('─'..='▟').contains(&character)
}

fn draw(font: &Font, lines: &[String], drawn: Drawn) -> Frame {
    let mut frame = Frame::new(drawn.size.0, drawn.size.1).unwrap();
    for y in 0..drawn.size.1 {
        frame.put_row(0, y, &vec![drawn.paper; drawn.size.0 as usize]);
    }
    for (line, text) in (0_u32..).zip(lines) {
        for (column, character) in (0_u32..).zip(text.chars()).filter(|(_, character)| *character != ' ') {
            for (row, bits) in (0_u32..).zip(font.picture(character).unwrap()) {
                let colour = |on: bool| if on { drawn.ink } else { drawn.paper };
                let mut pixels: Vec<u32> =
                    (0..font.width).rev().map(|bit| colour(bits >> bit & 1 == 1)).collect();
                pixels.resize(drawn.pitch as usize, colour(joins(character) && bits & 1 == 1));
                let (x, y) = (drawn.at.0 + column * drawn.pitch, drawn.at.1 + line * font.height + row);
                frame.put_row(x, y, &pixels);
            }
        }
    }
    frame
}

/// Two full rows near the bottom of a cell, as consoles draw their cursor.
fn draw_cursor(frame: &mut Frame, font: &Font, drawn: Drawn, (line, column): (u32, u32)) {
    for row in font.height - 3..font.height - 1 {
        let (x, y) = (drawn.at.0 + column * drawn.pitch, drawn.at.1 + line * font.height + row);
        frame.put_row(x, y, &vec![drawn.ink; drawn.pitch as usize]);
    }
}

/// All of ASCII that can be seen, in three lines, and three lines of what else the font has: letters and boxes that look
/// like nothing else in the other colours.
fn lines(font: &Font) -> Vec<String> {
    let full = u16::MAX >> (16 - font.width);
    let other: Vec<Vec<u16>> =
        font.characters().map(|c| font.picture(c).unwrap().iter().map(|row| !row & full).collect()).collect();
    let tells = |character: &char| {
        let picture = font.picture(*character).unwrap();
        !character.is_ascii()
            && (character.is_alphabetic() || ('─'..='╬').contains(character))
            && !other.iter().any(|other| other == picture)
    };
    let more: Vec<char> = font.characters().filter(tells).collect();
    let mut lines: Vec<String> =
        [' '..'@', '@'..'`', '`'..'\u{7f}'].map(|range| range.collect::<String>().trim().to_owned()).into();
    // From all over the font, not its beginning alone.
    let step = (more.len() / 96).max(1);
    let more: Vec<char> = more.into_iter().step_by(step).take(96).collect();
    lines.extend(more.chunks(32).map(|line| line.iter().collect::<String>()));
    lines
}

/// Reads what was drawn, and compares every cell of the screen with it.
fn compare(name: &str, font: &Font, drawn: Drawn) {
    let lines = lines(font);
    let mut frame = draw(font, &lines, drawn);
    let cursor = (0, lines[0].chars().count() as u32 + 1);
    draw_cursor(&mut frame, font, drawn, cursor);
    let screen = Screen::read(&frame);
    let text = screen.text().unwrap_or_else(|| panic!("{name}, {drawn:?}: {screen}"));
    let place = text.cell_rect(0, 0);
    let here = (place.x, place.y, place.width, place.height);
    assert_eq!(here, (drawn.at.0, drawn.at.1, drawn.pitch, font.height), "{name}, {drawn:?}: {screen}");
    let same = |read: &Font| ('!'..='~').all(|c| read.picture(c) == font.picture(c));
    let read_as = font::by_name(text.font()).unwrap();
    // Those of VGA's complete each other: what text mode shows is read with its usual font first.
    let both_vga =
        [name, text.font()].iter().all(|font| font.trim_start_matches(['u', 'l']).starts_with("vga-"));
    assert!(text.font() == name || both_vga || same(&read_as), "{name}, {drawn:?}: read as {}", text.font());
    for (number, row) in text.rows.iter().enumerate() {
        let wanted = lines.get(number).map_or("", String::as_str);
        // A font may have a character that looks like the cursor.
        let is_cursor = (number as u32, text.cursor) == (cursor.0, None);
        let cut = wanted.char_indices().nth(cursor.1 as usize - 1).map_or(wanted.len(), |(at, _)| at);
        let row = if is_cursor { row.get(..cut).unwrap_or(row) } else { row };
        assert_eq!(row, wanted, "{name}, {drawn:?}, line {number}:\n{screen}");
    }
    if let Some((line, column)) = text.cursor {
        assert_eq!((line as u32, column as u32), cursor, "{name}, {drawn:?}: {screen}");
    }
    assert!(text.confidence >= 1.0, "{name}, {drawn:?}: {screen}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn text_in_every_built_in_font_is_read_exactly_at_any_offset_and_pitch(
        (x, y) in (0_u32..64, 0_u32..64),
        (ink, paper) in prop::sample::select(vec![(0x00aa_aaaa_u32, 0_u32), (0, 0x00aa_aaaa), (0x00ff_ff55, 0x0000_00aa)]),
    ) {
        // Those of `lvga-8x16` complete another font.
        for name in font::built_in().filter(|name| *name != "lvga-8x16") {
            let font = font::by_name(name).unwrap();
            let at = (x % font.width, y % font.height);
            compare(name, &font, Drawn { size: (1024, 768), at, pitch: font.width, ink, paper });
            if font.width == 8 {
                let at = (x % 9, y % font.height);
                compare(name, &font, Drawn { size: (720, 400), at, pitch: 9, ink, paper });
            }
        }
    }
}
