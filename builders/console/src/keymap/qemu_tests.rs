//! Keys and layouts against QEMU's own: its keymaps are made by `qemu-keymap` from xkeyboard-config, as those of Debian's
//! console are, and name the qcode and the number of each key.

use std::collections::HashMap;
use std::path::Path;

use super::{Layout, SPECIAL_KEYS, special};

const FOLDER: &str = "/usr/share/qemu/keymaps";

/// A keymap of QEMU.
#[derive(Default)]
struct Keymap {
    /// X11's name of a keysym, the key's number, and whether it takes shift and AltGr.
    keys: Vec<(String, u32, bool, bool)>,
    /// By the key's number.
    qcodes: HashMap<u32, String>,
}

/// Reads one; `None`, with the reason printed, where QEMU is not installed.
fn keymap(name: &str) -> Option<Keymap> {
    let Ok(text) = std::fs::read_to_string(Path::new(FOLDER).join(name)) else {
        assert!(
            std::env::var_os("FORGE_LAB").is_none(),
            "{FOLDER}/{name} is not here: `cargo lab test` wants it"
        );
        println!("skipped: {FOLDER}/{name} (package qemu-system-data) is not installed");
        return None;
    };
    let number = |word: &str| u32::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let mut keymap = Keymap::default();
    for line in text.lines() {
        if let Some((_, key)) = line.split_once("QKeyCode \"") {
            let (qcode, rest) = key.split_once("\", number ").unwrap();
            keymap.qcodes.insert(number(rest).unwrap(), qcode.to_owned());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [keysym, code, modifiers @ ..] = &words[..]
            && let Some(code) = number(code).filter(|_| code.starts_with("0x"))
        {
            let has = |word| modifiers.contains(&word);
            keymap.keys.push(((*keysym).to_owned(), code, has("shift"), has("altgr")));
        }
    }
    assert!(keymap.keys.len() > 200, "{name}: {}", keymap.keys.len());
    Some(keymap)
}

/// Packer's special keys (its boot-command grammar), X11's name of each, and the number that X11's `keysymdef.h` gives it.
const PACKER: [(&str, &str, u32); 41] = [
    ("bs", "BackSpace", 0xff08),
    ("del", "Delete", 0xffff),
    ("down", "Down", 0xff54),
    ("end", "End", 0xff57),
    ("enter", "Return", 0xff0d),
    ("esc", "Escape", 0xff1b),
    ("f1", "F1", 0xffbe),
    ("f2", "F2", 0xffbf),
    ("f3", "F3", 0xffc0),
    ("f4", "F4", 0xffc1),
    ("f5", "F5", 0xffc2),
    ("f6", "F6", 0xffc3),
    ("f7", "F7", 0xffc4),
    ("f8", "F8", 0xffc5),
    ("f9", "F9", 0xffc6),
    ("f10", "F10", 0xffc7),
    ("f11", "F11", 0xffc8),
    ("f12", "F12", 0xffc9),
    ("home", "Home", 0xff50),
    ("insert", "Insert", 0xff63),
    ("left", "Left", 0xff51),
    ("leftAlt", "Alt_L", 0xffe9),
    ("leftCommand", "Super_L", 0xffeb),
    ("leftCtrl", "Control_L", 0xffe3),
    ("leftOption", "Alt_L", 0xffe9),
    ("leftShift", "Shift_L", 0xffe1),
    ("leftSuper", "Super_L", 0xffeb),
    ("menu", "Menu", 0xff67),
    ("pageDown", "Next", 0xff56),
    ("pageUp", "Prior", 0xff55),
    ("return", "Return", 0xff0d),
    ("right", "Right", 0xff53),
    ("rightAlt", "Alt_R", 0xffea),
    ("rightCommand", "Super_R", 0xffec),
    ("rightCtrl", "Control_R", 0xffe4),
    ("rightOption", "Alt_R", 0xffea),
    ("rightShift", "Shift_R", 0xffe2),
    ("rightSuper", "Super_R", 0xffec),
    ("spacebar", "space", 0x20),
    ("tab", "Tab", 0xff09),
    ("up", "Up", 0xff52),
];

#[test]
fn every_special_key_of_packer_is_the_key_that_qemu_knows_by_that_name() {
    let Some(qemu) = keymap("en-us") else { return };
    for (name, x11, keysym) in PACKER {
        let stroke = special(name).unwrap_or_else(|| panic!("<{name}> is no key"));
        let place = qemu.keys.iter().find(|(known, _, shift, altgr)| known == x11 && !shift && !altgr);
        let (_, code, ..) = place.unwrap_or_else(|| panic!("{x11} is no keysym of QEMU"));
        assert_eq!(stroke.scancode, *code, "the scancode of <{name}>");
        assert_eq!(Some(stroke.qcode), qemu.qcodes.get(code).map(String::as_str), "the qcode of <{name}>");
        assert_eq!(stroke.keysym, keysym, "the keysym of <{name}>");
        assert!(!stroke.shift && !stroke.altgr, "<{name}>");
    }
    // What Packer lacks is another word for one that it has.
    for (name, stroke) in SPECIAL_KEYS {
        assert!(PACKER.iter().any(|(packer, ..)| special(packer) == Some(stroke)), "<{name}>");
    }
}

/// X11's names of what is neither letter nor digit.
const NAMES: [(char, &str); 32] = [
    ('!', "exclam"),
    ('"', "quotedbl"),
    ('#', "numbersign"),
    ('$', "dollar"),
    ('%', "percent"),
    ('&', "ampersand"),
    ('\'', "apostrophe"),
    ('(', "parenleft"),
    (')', "parenright"),
    ('*', "asterisk"),
    ('+', "plus"),
    (',', "comma"),
    ('-', "minus"),
    ('.', "period"),
    ('/', "slash"),
    (':', "colon"),
    (';', "semicolon"),
    ('<', "less"),
    ('=', "equal"),
    ('>', "greater"),
    ('?', "question"),
    ('@', "at"),
    ('[', "bracketleft"),
    ('\\', "backslash"),
    (']', "bracketright"),
    ('^', "asciicircum"),
    ('_', "underscore"),
    ('`', "grave"),
    ('{', "braceleft"),
    ('|', "bar"),
    ('}', "braceright"),
    ('~', "asciitilde"),
];

#[test]
fn every_layout_types_ascii_with_the_keys_that_qemus_keymaps_have_for_it() {
    let files = [
        ("us", "en-us"),
        ("gb", "en-gb"),
        ("de", "de"),
        ("ch", "de-ch"),
        ("fr", "fr"),
        ("be", "fr-be"),
        ("es", "es"),
        ("it", "it"),
        ("se", "fi"),
        ("dk", "da"),
        ("no", "no"),
    ];
    assert_eq!(files.map(|(layout, _)| layout), Layout::NAMES);
    for (name, file) in files {
        let Some(qemu) = keymap(file) else { return };
        let layout = Layout::by_name(name).unwrap();
        for character in '!'..='~' {
            let strokes = layout.strokes(character).unwrap();
            let x11 = NAMES.iter().find(|(known, _)| *known == character).map(|(_, name)| *name);
            let x11 = x11.map_or_else(|| character.to_string(), str::to_owned);
            let dead = match character {
                '^' => "dead_circumflex",
                '`' => "dead_grave",
                '~' => "dead_tilde",
                _ => "",
            };
            // QEMU's German keymap is the one without dead keys.
            let is_dead = strokes.len() == 2 && file != "de";
            let wanted = if is_dead { dead } else { &x11 };
            let key = strokes[0];
            let there = (wanted.to_owned(), key.scancode, key.shift, key.altgr);
            assert!(qemu.keys.contains(&there), "{name}: {character:?} by {key:?}, as {wanted}");
        }
    }
}
