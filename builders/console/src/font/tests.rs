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
