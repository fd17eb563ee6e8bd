//! Keys: by Packer's special names, and by the character of a US keyboard.
//!
//! Every key is known in the three forms in which it may travel: QEMU's qcode (Proxmox's `sendkey`), the X11
//! keysym (RFB's key event) and the XT scancode (QEMU's extended key event; `0x80` set where the real code has
//! the prefix `e0`). Sources: QEMU's `qapi/ui.json` and keycodemapdb, X11's `keysymdef.h`, and for the names
//! Packer's boot-command grammar.

use forge_machine::KeyChord;

mod layout;
#[cfg(test)]
mod qemu_tests;

pub(crate) use layout::ALTGR;
pub use layout::Layout;

/// One key, pressed and released, perhaps with shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyStroke {
    /// QEMU's name of the key.
    pub qcode: &'static str,
    /// X11 keysym of what the key gives, shift included (`A`, not `a`, when shifted).
    pub keysym: u32,
    /// XT scancode of the key.
    pub scancode: u32,
    /// Whether shift is held for this stroke.
    pub shift: bool,
    /// Whether AltGr is held for this stroke.
    pub altgr: bool,
}

/// The left shift key, which shifted characters are typed with.
pub const SHIFT: KeyStroke = key("shift", 0xffe1, 0x2a);
/// The Enter key.
pub const ENTER: KeyStroke = key("ret", 0xff0d, 0x1c);
/// The Backspace key.
pub const BACKSPACE: KeyStroke = key("backspace", 0xff08, 0x0e);

const fn key(qcode: &'static str, keysym: u32, scancode: u32) -> KeyStroke {
    KeyStroke { qcode, keysym, scancode, shift: false, altgr: false }
}

/// The special keys of the boot-command language, in lower case.
pub const SPECIAL_KEYS: [(&str, KeyStroke); 48] = [
    ("bs", BACKSPACE),
    ("del", key("delete", 0xffff, 0xd3)),
    ("down", key("down", 0xff54, 0xd0)),
    ("end", key("end", 0xff57, 0xcf)),
    ("enter", ENTER),
    ("esc", key("esc", 0xff1b, 0x01)),
    ("f1", key("f1", 0xffbe, 0x3b)),
    ("f2", key("f2", 0xffbf, 0x3c)),
    ("f3", key("f3", 0xffc0, 0x3d)),
    ("f4", key("f4", 0xffc1, 0x3e)),
    ("f5", key("f5", 0xffc2, 0x3f)),
    ("f6", key("f6", 0xffc3, 0x40)),
    ("f7", key("f7", 0xffc4, 0x41)),
    ("f8", key("f8", 0xffc5, 0x42)),
    ("f9", key("f9", 0xffc6, 0x43)),
    ("f10", key("f10", 0xffc7, 0x44)),
    ("f11", key("f11", 0xffc8, 0x57)),
    ("f12", key("f12", 0xffc9, 0x58)),
    ("home", key("home", 0xff50, 0xc7)),
    ("insert", key("insert", 0xff63, 0xd2)),
    ("left", key("left", 0xff51, 0xcb)),
    ("leftalt", LEFT_ALT),
    ("leftcommand", LEFT_SUPER),
    ("leftctrl", key("ctrl", 0xffe3, 0x1d)),
    ("leftoption", LEFT_ALT),
    ("leftshift", SHIFT),
    ("leftsuper", LEFT_SUPER),
    // QEMU's qcode `menu` is another key (e0 1e); the key that a PC keyboard labels Menu is `compose`.
    ("menu", key("compose", 0xff67, 0xdd)),
    ("pagedown", key("pgdn", 0xff56, 0xd1)),
    ("pageup", key("pgup", 0xff55, 0xc9)),
    ("return", ENTER),
    ("right", key("right", 0xff53, 0xcd)),
    ("rightalt", RIGHT_ALT),
    ("rightcommand", RIGHT_SUPER),
    ("rightctrl", key("ctrl_r", 0xffe4, 0x9d)),
    ("rightoption", RIGHT_ALT),
    ("rightshift", key("shift_r", 0xffe2, 0x36)),
    ("rightsuper", RIGHT_SUPER),
    ("spacebar", SPACE),
    ("tab", TAB),
    ("up", key("up", 0xff52, 0xc8)),
    // Names that Packer lacks: people write them, and no other meaning is possible.
    ("backspace", BACKSPACE),
    ("delete", key("delete", 0xffff, 0xd3)),
    ("escape", key("esc", 0xff1b, 0x01)),
    ("pgdn", key("pgdn", 0xff56, 0xd1)),
    ("pgup", key("pgup", 0xff55, 0xc9)),
    ("ret", ENTER),
    ("space", SPACE),
];

const SPACE: KeyStroke = key("spc", 0x20, 0x39);
const TAB: KeyStroke = key("tab", 0xff09, 0x0f);
const LEFT_ALT: KeyStroke = key("alt", 0xffe9, 0x38);
const RIGHT_ALT: KeyStroke = key("alt_r", 0xffea, 0xb8);
const LEFT_SUPER: KeyStroke = key("meta_l", 0xffeb, 0xdb);
const RIGHT_SUPER: KeyStroke = key("meta_r", 0xffec, 0xdc);

/// The keys of a US keyboard that give characters: plain, shifted, qcode, scancode.
const US_KEYS: [(char, char, &str, u32); 47] = [
    ('`', '~', "grave_accent", 0x29),
    ('1', '!', "1", 0x02),
    ('2', '@', "2", 0x03),
    ('3', '#', "3", 0x04),
    ('4', '$', "4", 0x05),
    ('5', '%', "5", 0x06),
    ('6', '^', "6", 0x07),
    ('7', '&', "7", 0x08),
    ('8', '*', "8", 0x09),
    ('9', '(', "9", 0x0a),
    ('0', ')', "0", 0x0b),
    ('-', '_', "minus", 0x0c),
    ('=', '+', "equal", 0x0d),
    ('q', 'Q', "q", 0x10),
    ('w', 'W', "w", 0x11),
    ('e', 'E', "e", 0x12),
    ('r', 'R', "r", 0x13),
    ('t', 'T', "t", 0x14),
    ('y', 'Y', "y", 0x15),
    ('u', 'U', "u", 0x16),
    ('i', 'I', "i", 0x17),
    ('o', 'O', "o", 0x18),
    ('p', 'P', "p", 0x19),
    ('[', '{', "bracket_left", 0x1a),
    (']', '}', "bracket_right", 0x1b),
    ('\\', '|', "backslash", 0x2b),
    ('a', 'A', "a", 0x1e),
    ('s', 'S', "s", 0x1f),
    ('d', 'D', "d", 0x20),
    ('f', 'F', "f", 0x21),
    ('g', 'G', "g", 0x22),
    ('h', 'H', "h", 0x23),
    ('j', 'J', "j", 0x24),
    ('k', 'K', "k", 0x25),
    ('l', 'L', "l", 0x26),
    (';', ':', "semicolon", 0x27),
    ('\'', '"', "apostrophe", 0x28),
    ('z', 'Z', "z", 0x2c),
    ('x', 'X', "x", 0x2d),
    ('c', 'C', "c", 0x2e),
    ('v', 'V', "v", 0x2f),
    ('b', 'B', "b", 0x30),
    ('n', 'N', "n", 0x31),
    ('m', 'M', "m", 0x32),
    (',', '<', "comma", 0x33),
    ('.', '>', "dot", 0x34),
    ('/', '?', "slash", 0x35),
];

/// The special key of that name, in any case.
#[must_use]
pub fn special(name: &str) -> Option<KeyStroke> {
    SPECIAL_KEYS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, stroke)| *stroke)
}

/// How a US keyboard types a character; line feed is Enter, tab is Tab. `None` when it has no key for it.
#[must_use]
pub fn us(character: char) -> Option<KeyStroke> {
    match character {
        ' ' => return Some(SPACE),
        '\t' => return Some(TAB),
        '\n' => return Some(ENTER),
        _ => {}
    }
    let (_, shifted, qcode, scancode) =
        US_KEYS.iter().find(|(plain, shifted, ..)| *plain == character || *shifted == character)?;
    Some(KeyStroke {
        qcode,
        keysym: character.into(),
        scancode: *scancode,
        shift: *shifted == character,
        altgr: false,
    })
}

impl KeyStroke {
    /// The chord that Proxmox's `sendkey` takes for this stroke while `held` keys are down.
    #[must_use]
    pub fn chord(&self, held: &[KeyStroke]) -> KeyChord {
        let mut names: Vec<String> = held.iter().map(|key| key.qcode.to_owned()).collect();
        if self.shift && !names.iter().any(|name| name == SHIFT.qcode) {
            names.push(SHIFT.qcode.to_owned());
        }
        if self.altgr && !names.iter().any(|name| name == ALTGR.qcode) {
            names.push(ALTGR.qcode.to_owned());
        }
        names.push(self.qcode.to_owned());
        KeyChord(names)
    }

    /// The keysym while shift is held from outside: letters become capitals, other keys their shifted character.
    pub(crate) fn shifted_keysym(&self) -> u32 {
        US_KEYS
            .iter()
            .find(|(plain, ..)| u32::from(*plain) == self.keysym)
            .map_or(self.keysym, |(_, shifted, ..)| u32::from(*shifted))
    }

    /// Whether this is one of the two shift keys.
    pub(crate) fn is_shift(&self) -> bool {
        matches!(self.qcode, "shift" | "shift_r")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_ascii_character_has_a_key_of_its_own() {
        let mut seen = std::collections::HashSet::new();
        for code in 0x20..0x7f_u8 {
            let stroke = us(char::from(code)).unwrap();
            assert_eq!(stroke.keysym, u32::from(code));
            assert!(seen.insert((stroke.scancode, stroke.shift)));
        }
        assert_eq!(us('é'), None);
        assert_eq!(us('\n'), Some(ENTER));
    }

    #[test]
    fn special_keys_have_distinct_names_and_are_found_in_any_case() {
        let names: std::collections::HashSet<_> = SPECIAL_KEYS.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), SPECIAL_KEYS.len());
        for (name, qcode) in
            [("pageUp", "pgup"), ("LEFTCTRL", "ctrl"), ("rightSuper", "meta_r"), ("f10", "f10")]
        {
            assert_eq!(special(name).unwrap().qcode, qcode);
        }
        assert_eq!(special("entr"), None);
    }

    #[test]
    fn chords_name_held_keys_first_and_shift_once() {
        let ctrl = special("leftctrl").unwrap();
        let alt = special("leftalt").unwrap();
        let cases = [
            (us('a').unwrap().chord(&[]), "a"),
            (us('A').unwrap().chord(&[]), "shift-a"),
            (us('A').unwrap().chord(&[SHIFT]), "shift-a"),
            (special("del").unwrap().chord(&[ctrl, alt]), "ctrl-alt-delete"),
            (us('?').unwrap().chord(&[]), "shift-slash"),
        ];
        for (chord, name) in cases {
            assert_eq!(chord.to_string(), name);
        }
    }

    #[test]
    fn a_letter_under_a_held_shift_travels_as_its_capital() {
        assert_eq!(us('a').unwrap().shifted_keysym(), u32::from('A'));
        assert_eq!(us('1').unwrap().shifted_keysym(), u32::from('!'));
        assert_eq!(special("up").unwrap().shifted_keysym(), 0xff52);
    }
}
