//! `forge screen learn`: characters of a font that forge does not know are learnt from a picture, and read from then on.

use forge_console::font::{self, Font};
use forge_console::frame::Frame;

use crate::support::local_site::LocalSite;

const PANGRAM: [&str; 3] =
    ["The five boxing wizards jump quickly.", "Pack my box with 5 dozen liquor jugs", "0123456789 (/:-)"];

/// A picture of text in letters that no font has: each pixel of VGA's is set where it differs from the one left of it.
fn picture(known: &Font, lines: &[&str]) -> Vec<u8> {
    let mut frame = Frame::new(640, 480).expect("a frame");
    for (line, text) in (0_u32..).zip(lines) {
        for (column, character) in (0_u32..).zip(text.chars()).filter(|(_, character)| *character != ' ') {
            for (row, bits) in (0_u32..).zip(known.picture(character).expect("VGA has it")) {
                let bits = bits ^ bits >> 1;
                let pixels: Vec<u32> =
                    (0..8).rev().map(|bit| u32::from(bits >> bit & 1) * 0x00aa_aaaa).collect();
                frame.put_row(column * 8, line * 16 + row, &pixels);
            }
        }
    }
    frame.png().expect("a picture")
}

#[test]
fn a_font_that_is_not_known_is_learnt_from_a_picture_and_its_text_and_read_from_then_on() {
    let site = LocalSite::new();
    let known = font::by_name("vga-8x16").expect("it is built in");
    std::fs::write(site.path().join("first.png"), picture(&known, &PANGRAM)).expect("written");
    site.write("first.txt", &PANGRAM.join("\n"));
    let others = ["dozen wizards jump", "with my 5 boxing jugs: quick"];
    std::fs::write(site.path().join("other.png"), picture(&known, &others)).expect("written");
    site.write("nothing.txt", "");
    let learn = |arguments: &[&str]| site.run(&[&["screen", "learn"][..], arguments].concat());

    // Before, nothing on it can be read.
    let said = learn(&["other.png", "--text", "nothing.txt"]);
    assert_eq!(said.code, Some(2), "{}", said.text);
    assert!(said.text.contains("say the size of a cell with --cell 8x16"), "{}", said.text);
    for (cell, words) in [
        ("8x17", "cells of 8x17 are not looked for on screens; known sizes are 8x16, "),
        ("8", "two numbers are needed"),
    ] {
        let said = learn(&["first.png", "--text", "first.txt", "--cell", cell]);
        assert!(said.code == Some(2) && said.text.contains(words), "{cell}: {:?} {}", said.code, said.text);
    }
    let said = learn(&["first.txt", "--text", "first.txt", "--cell", "8x16"]);
    assert!(said.code == Some(3) && said.text.contains("first.txt: "), "{:?} {}", said.code, said.text);
    let said = learn(&["gone.png", "--text", "first.txt"]);
    assert!(
        said.code == Some(3) && said.text.contains("gone.png can't be read"),
        "{:?} {}",
        said.code,
        said.text
    );

    let said = learn(&["first.png", "--text", "first.txt", "--cell", "8x16", "--name", "mine"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    let mut letters: Vec<char> = PANGRAM.concat().chars().filter(|character| *character != ' ').collect();
    letters.sort_unstable();
    letters.dedup();
    let file = site.path().join("state/fonts/mine-8x16.font");
    let learnt = Font::unpack("mine", &std::fs::read(&file).expect("its file")).expect("a font");
    let mut characters: Vec<char> = learnt.characters().collect();
    characters.sort_unstable();
    assert_eq!(characters, letters);
    assert!(said.text.contains(&format!("{} new pictures of characters in ", learnt.len())), "{}", said.text);
    for line in PANGRAM {
        assert!(said.text.contains(line), "{line}: {}", said.text);
    }

    // Another run of forge reads another picture by it, and finds its cells by itself.
    let said = learn(&["other.png", "--text", "nothing.txt", "--name", "mine"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert!(said.text.contains("0 new pictures"), "{}", said.text);
    for line in others {
        assert!(said.text.contains(line), "{line}: {}", said.text);
    }

    // A damaged font is told and left out; the rest of forge goes on.
    std::fs::write(&file, "no font").expect("written");
    let said = learn(&["other.png", "--text", "nothing.txt", "--name", "other"]);
    assert!(said.text.contains("mine-8x16") && said.text.contains("is no font of forge"), "{}", said.text);
    assert_eq!(said.code, Some(2), "{}", said.text);
}
