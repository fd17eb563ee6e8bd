use super::*;
use crate::font;

/// The glyph of a character in the VGA font, for painting test screens.
pub(crate) fn rows_of(character: char) -> [u8; 16] {
    static FONT: std::sync::LazyLock<font::Font> =
        std::sync::LazyLock::new(|| font::by_name("vga-8x16").unwrap());
    if character == ' ' {
        return [0; 16];
    }
    let picture = FONT.picture(character).unwrap();
    core::array::from_fn(|row| picture[row] as u8)
}

fn vga(pitch: u32) -> Layout {
    Layout { width: 8, height: 16, pitch, ..Layout::default() }
}

fn reading(frame: &Frame, pitch: u32, before: Option<char>) -> Reading {
    let layout = vga(pitch);
    read(frame, &layout.table().unwrap(), &layout, (0, 0), before, None)
}

#[test]
fn every_glyph_reads_back_in_both_polarities_and_widths() {
    let font = font::by_name("vga-8x16").unwrap();
    assert_eq!(font.len(), 253, "256 without the three blanks");
    for width in [8, 9] {
        for (ink, paper) in [(0x00aa_aaaa, 0), (0, 0x00aa_aaaa)] {
            for character in font.characters().filter(|character| !"▀▄▌▐█◘◙•○".contains(*character))
            {
                let frame = paint(character, width, ink, paper, None);
                let reading = reading(&frame, width, None);
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
            let reading = reading(&frame, width, None);
            assert_eq!(reading.cell.character, character, "width {width}");
            assert!(reading.cursor);
        }
    }
}

#[test]
fn glyphs_that_differ_only_under_the_cursor_are_not_guessed() {
    let character =
        |shown, before| reading(&paint(shown, 9, 0x00aa_aaaa, 0, Some(13)), 9, before).cell.character;
    assert_eq!(character('q', None), char::REPLACEMENT_CHARACTER, "q and g");
    assert_eq!(character('q', Some('q')), 'q');
    assert_eq!(character('q', Some('x')), char::REPLACEMENT_CHARACTER);
    assert_eq!(character('c', None), 'c', "rather than a c with a cedilla");
    assert_eq!(character('ç', Some('ç')), 'ç');
}

/// As the framebuffer console draws it in Terminus and in Unifont: two full rows, which are a character of that font.
#[test]
fn a_cursor_that_looks_like_a_character_is_a_cursor() {
    for character in LIKE_A_CURSOR {
        let has = |name: &&str| font::by_name(name).unwrap().picture(character).is_some();
        let mut seen = 0;
        for name in font::built_in().filter(has) {
            let font = font::by_name(name).unwrap();
            let picture = font.picture(character).unwrap();
            let mut layout =
                Layout { width: font.width, height: font.height, pitch: font.width, ..Layout::default() };
            let table = layout.table().unwrap();
            layout.font = table.names.iter().position(|other| other == name).unwrap() as u8;
            let mut frame = Frame::new(font.width, font.height).unwrap();
            for (y, _) in (0_u32..).zip(picture).filter(|(_, row)| **row != 0) {
                frame.put_row(0, y, &vec![0x00aa_aaaa; font.width as usize]);
            }
            let reading = read(&frame, &table, &layout, (0, 0), None, None);
            assert!((reading.cell.character, reading.cursor) == (' ', true), "{name}: {reading:?}");
            seen += 1;
        }
        assert!(seen > 0, "no font has {character}");
    }
}

#[test]
fn what_is_no_glyph_is_told_as_such() {
    let mut frame = Frame::new(9, 16).unwrap();
    frame.put_row(0, 0, &[1, 0, 1, 0, 1, 0, 1, 0, 0]);
    assert_eq!(reading(&frame, 9, None).cell.character, char::REPLACEMENT_CHARACTER);
    frame.put_row(0, 1, &[2, 3]);
    assert_eq!(reading(&frame, 9, None).cell.character, char::REPLACEMENT_CHARACTER);
}

#[test]
fn an_ink_over_a_picture_is_read_and_the_picture_is_blank() {
    let mut layout = vga(8);
    layout.inks = vec![0x00ff_ffff];
    let table = layout.table().unwrap();
    let mut frame = paint('R', 8, 0x00ff_ffff, 0, None);
    for y in 0..16 {
        let row: Vec<u32> = frame
            .row(0, y, 8)
            .iter()
            .enumerate()
            .map(|(x, pixel)| if *pixel == 0 { x as u32 * 31 + y } else { *pixel })
            .collect();
        frame.put_row(0, y, &row);
    }
    let cell = read(&frame, &table, &layout, (0, 0), None, None).cell;
    assert_eq!((cell.character, cell.foreground), ('R', 0x00ff_ffff));
    layout.inks = vec![0x00ab_cdef];
    assert_eq!(read(&frame, &table, &layout, (0, 0), None, None).cell.character, ' ');
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

proptest::proptest! {
    #[test]
    fn a_cell_of_any_size_is_its_pixels_one_by_one(
        (width, height) in proptest::sample::select(font::sizes()),
        ninth in proptest::bool::ANY,
        (x, y) in (0_u32..12, 0_u32..12),
        colours in proptest::sample::select(vec![1_u32, 2, 3]),
        seed in proptest::num::u32::ANY,
    ) {
        let pitch = if ninth && width == 8 { 9 } else { width };
        // Some cells reach over the edge of the picture: those are blank to the right of it and below.
        let (wide, high) = (pitch + 8, height + 8);
        let mut frame = Frame::new(wide, high).unwrap();
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(0x9e37_79b1).rotate_left(7) ^ seed;
            [0x00aa_aaaa, 0x0000_00aa, 0x0012_3456][(state >> 8) as usize % colours as usize]
        };
        let pixels: Vec<Vec<u32>> = (0..high).map(|_| (0..wide).map(|_| next()).collect()).collect();
        for (y, row) in (0_u32..).zip(&pixels) {
            frame.put_row(0, y, row);
        }
        let inside = x + pitch <= wide;
        let at = |row: u32, column: u32| {
            let row = pixels.get((y + row) as usize).filter(|_| inside);
            row.and_then(|row| row.get((x + column) as usize)).copied()
        };
        let first = at(0, 0).unwrap_or(0);
        let cell: Vec<Vec<u32>> = (0..height)
            .map(|row| (0..pitch).map(|column| at(row, column).unwrap_or(first)).collect())
            .collect();
        let all = || cell.iter().flatten().copied();
        let second = all().find(|colour| *colour != first);
        let plain = all().all(|colour| colour == first || Some(colour) == second);
        let bit = |row: u32, column: u32| cell[row as usize][column as usize] != first;
        let looked = Pixels::look(&frame, x, y, width, pitch, height);
        proptest::prop_assert_eq!((looked.second, looked.plain), (second, plain));
        if plain && second.is_some() {
            let number = |row: u32| (0..width).fold(0_u16, |all, column| all << 1 | u16::from(bit(row, column)));
            let rows: Vec<u16> = (0..height).map(number).collect();
            proptest::prop_assert_eq!(looked.rows(height), &rows[..]);
            proptest::prop_assert_eq!(looked.ink, rows.iter().map(|row| row.count_ones()).sum::<u32>());
            let ninth = (0..height).fold(0_u32, |all, row| all << 1 | u32::from(pitch == 9 && bit(row, 8)));
            proptest::prop_assert_eq!(looked.ninth, ninth);
            let swapped = looked.swapped(width, pitch, height);
            let ink = Pixels::of_ink(&frame, x, y, &Layout { width, height, pitch, ..Layout::default() }, first);
            proptest::prop_assert!(!inside || y + height > high || ink.rows == swapped.rows && ink.ink == swapped.ink);
        }
    }
}
