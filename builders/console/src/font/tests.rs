use super::*;

#[test]
fn every_built_in_font_unpacks_and_has_the_printable_characters() {
    for (name, width, height, packed) in BUILT_IN {
        let font = Font::unpack(name, packed).unwrap();
        assert_eq!((font.width, font.height), (*width, *height), "{name}");
        // Only what differs from `vga-8x16`.
        let part = *name == "lvga-8x16";
        for code in (0x21..0x7f_u8).filter(|_| !part) {
            assert!(font.picture(char::from(code)).is_some(), "{name} lacks {:?}", char::from(code));
        }
        assert!(SIZES.iter().chain(&RARE_SIZES).any(|size| *size == (*width, *height)), "{name}");
        assert_eq!(Font::unpack(name, &font.pack().unwrap()).unwrap(), font, "{name}");
    }
}

#[test]
fn within_a_font_no_two_characters_look_the_same() {
    for name in built_in() {
        let font = by_name(name).unwrap();
        let mut pictures: Vec<&Rows> = font.glyphs.iter().map(|(_, rows)| rows).collect();
        pictures.sort();
        pictures.dedup();
        assert_eq!(pictures.len(), font.len(), "{name}");
    }
}

#[test]
fn the_vga_fonts_are_the_ones_of_the_installed_vga_bios() {
    let path = "/usr/share/seabios/vgabios-stdvga.bin";
    let Ok(bios) = std::fs::read(path) else {
        println!("skipped: {path} (package seabios) is not installed");
        return;
    };
    for height in [8, 14, 16] {
        let font = by_name(&format!("vga-8x{height}")).unwrap();
        // In the BIOS the glyphs stand in the order of code page 437, where ASCII has its own codes.
        let ascii: Vec<u8> =
            ('!'..='~').flat_map(|c| font.picture(c).unwrap().iter().map(|row| *row as u8)).collect();
        assert!(bios.windows(ascii.len()).any(|window| window == ascii), "8x{height}");
    }
}

#[test]
fn damaged_fonts_are_refused() {
    for packed in [&b""[..], b"\x78\x9c", b"no font at all"] {
        assert!(Font::unpack("x", packed).is_err());
    }
    let mut font = Font::new("x", 8, 16);
    assert!(font.add('x', &[1; 16]));
    assert!(!font.add('y', &[1; 16]), "the same picture again");
    let packed = font.pack().unwrap();
    for length in 0..packed.len() {
        let _ = Font::unpack("x", &packed[..length]);
    }
}

#[test]
fn what_a_frame_shows_is_learnt_once() {
    let mut frame = Frame::new(32, 20).unwrap();
    for y in 0..16 {
        frame.put_row(3, y + 2, &[0x00ff_ffff; 2]);
        frame.put_row(11, y + 2, &[u32::from(y % 2 == 0) * 0x00ff_ffff; 3]);
    }
    let mut font = Font::new("mine", 8, 16);
    assert_eq!(font.learn(&frame, (0, 2), 8, &["ab a"]), 2);
    assert_eq!(font.learn(&frame, (0, 2), 8, &["ab"]), 0, "they are known");
    assert_eq!(font.picture('a').unwrap()[0], 0b0001_1000);
    assert_eq!(font.learn(&frame, (30, 30), 8, &["x"]), 0, "outside");
}

/// The glyphs of a PSF file, as `setfont` takes it, with the characters that each stands for.
fn psf(path: &Path) -> Vec<(Vec<char>, Rows)> {
    let mut data = Vec::new();
    flate2::read::GzDecoder::new(&std::fs::read(path).unwrap()[..]).read_to_end(&mut data).unwrap();
    let number = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap()) as usize;
    let one = data.starts_with(b"\x36\x04");
    let (start, count, size, width) = if one {
        (4, if data[2] & 1 == 1 { 512 } else { 256 }, usize::from(data[3]), 8)
    } else {
        assert!(data.starts_with(b"\x72\xb5\x4a\x86"), "{}", path.display());
        (number(8), number(16), number(20), number(28))
    };
    let table = &data[start + count * size..];
    // What follows a separator within an entry is a sequence of characters, which no cell is.
    let names: Vec<Vec<char>> = if one {
        let words: Vec<u16> = table.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
        let entries = words.split(|word| *word == 0xffff);
        let single = |entry: &[u16]| entry.split(|word| *word == 0xfffe).next().unwrap_or(&[]).to_vec();
        entries
            .map(|entry| single(entry).into_iter().filter_map(|c| char::from_u32(c.into())).collect())
            .collect()
    } else {
        let entries = table.split(|byte| *byte == 0xff);
        let single = |entry: &[u8]| entry.split(|byte| *byte == 0xfe).next().unwrap_or(&[]).to_vec();
        entries.map(|entry| String::from_utf8(single(entry)).unwrap().chars().collect()).collect()
    };
    let bytes = width.div_ceil(8);
    let glyphs = data[start..].chunks_exact(size).take(count).map(|picture| {
        let mut rows = Rows::default();
        for (row, packed) in rows.iter_mut().zip(picture.chunks_exact(bytes)) {
            let bits = packed.iter().fold(0_u16, |bits, byte| bits << 8 | u16::from(*byte));
            *row = bits >> (bytes * 8 - width);
        }
        rows
    });
    names.into_iter().zip(glyphs).collect()
}

/// A face of console-setup in all of its code sets: what `make.py` makes of it, by other code.
fn face(folder: &Path, face: &str) -> HashMap<Rows, char> {
    const OTHER_SCRIPTS: [&str; 7] = ["Arabic", "Armenian", "Ethiopian", "Georgian", "Hebrew", "Lao", "Thai"];
    let rank = |character: char| match character {
        ..'\u{80}' => (0, character),
        '\u{2500}'..'\u{25a0}' => (1, character),
        _ => (2, character),
    };
    let control = |character: char| {
        character < ' ' || matches!(character, '\u{7f}'..'\u{a0}' | '\u{e000}'..'\u{f900}' | '\u{fffd}')
    };
    let mut best = HashMap::<Rows, char>::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(&format!("-{face}.psf.gz"))
            || OTHER_SCRIPTS.iter().any(|script| name.starts_with(script))
        {
            continue;
        }
        for (characters, rows) in psf(&entry.path()) {
            for character in characters.into_iter().filter(|c| !control(*c) && rows != Rows::default()) {
                let known = best.entry(rows).or_insert(character);
                if rank(character) < rank(*known) {
                    *known = character;
                }
            }
        }
    }
    best
}

#[test]
fn the_fonts_of_console_setup_are_the_installed_ones() {
    let folder = Path::new("/usr/share/consolefonts");
    if !folder.join("Lat15-Fixed16.psf.gz").exists() {
        assert!(std::env::var_os("FORGE_LAB").is_none(), "`cargo lab test` wants console-setup-linux");
        println!("skipped: {} (package console-setup-linux) holds no fonts", folder.display());
        return;
    }
    let mut compared = 0;
    for (name, width, height, _) in BUILT_IN {
        let wide = if *width == 8 { String::new() } else { format!("x{width}") };
        let face_name = match name.split_once(|c: char| c.is_ascii_digit()).unwrap().0 {
            "uvga-" => format!("VGA{height}{wide}"),
            "fixed-" => format!("Fixed{height}{wide}"),
            "ter-n-" => format!("Terminus{height}{wide}"),
            "ter-b-" => format!("TerminusBold{height}{wide}"),
            "ter-v-" => format!("TerminusBoldVGA{height}{wide}"),
            _ => continue,
        };
        let (font, installed) = (by_name(name).unwrap(), face(folder, &face_name));
        assert!(installed.len() >= 200, "{name}: {} characters in {face_name}", installed.len());
        for (character, rows) in &font.glyphs {
            assert_eq!(installed.get(rows), Some(character), "{name} and {face_name}");
        }
        assert_eq!(font.len(), installed.len(), "{name} and {face_name}");
        compared += 1;
    }
    assert_eq!(compared, 29);
}
