//! Keyboard layouts: which key of a PC keyboard types a character, as the guest takes it.
//!
//! What travels is the place of the key: its scancode, and beside it the keysym and the qcode that a US keyboard has
//! there, since QEMU's own layout is US unless told otherwise. So the guest's layout is the only one that matters.
//! Sources: ISO/IEC 9995 charts as X.Org's xkeyboard-config and the kernel's keymaps (`kbd`) hold them; where these
//! differ from Windows, a dead key is followed by a blank, which types its accent alone everywhere.

use super::{KeyStroke, RIGHT_ALT, SPACE, US_KEYS, key, us};

/// The layout of the guest's keyboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// American; what firmware and boot loaders speak.
    #[default]
    Us,
    /// British.
    Gb,
    /// German.
    De,
    /// Swiss German.
    Ch,
    /// French.
    Fr,
    /// Belgian.
    Be,
    /// Spanish.
    Es,
    /// Italian.
    It,
    /// Swedish and Finnish.
    Se,
    /// Danish.
    Dk,
    /// Norwegian.
    No,
}

/// The keys in the order of the tables: the row of digits, then the three rows of letters from left to right, with the
/// key beside Enter (`0x2b`) at the end of the third and the key beside the left shift (`0x56`) in front of the fourth.
const PLACES: [u32; 48] = [
    0x29, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, //
    0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, //
    0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x2b, //
    0x56, 0x2c, 0x2d, 0x2e, 0x2f, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35,
];

/// Nothing, in a table.
const NONE: char = '∅';

/// One layout: the characters of the keys alone, with shift, with AltGr, and those that are dead.
struct Chart {
    plain: &'static str,
    shift: &'static str,
    altgr: &'static str,
    dead: &'static str,
}

const GB: Chart = Chart {
    plain: "`1234567890-=qwertyuiop[]asdfghjkl;'#\\zxcvbnm,./",
    shift: "¬!\"£$%^&*()_+QWERTYUIOP{}ASDFGHJKL:@~|ZXCVBNM<>?",
    altgr: "¦∅∅∅€",
    dead: "",
};
const DE: Chart = Chart {
    plain: "^1234567890ß´qwertzuiopü+asdfghjklöä#<yxcvbnm,.-",
    shift: "°!\"§$%&/()=?`QWERTZUIOPÜ*ASDFGHJKLÖÄ'>YXCVBNM;:_",
    altgr: "∅∅²³∅∅∅{[]}\\∅@∅€∅∅∅∅∅∅∅∅~∅∅∅∅∅∅∅∅∅∅∅∅|∅∅∅∅∅∅µ",
    dead: "^´`",
};
const CH: Chart = Chart {
    plain: "§1234567890'^qwertzuiopü¨asdfghjklöä$<yxcvbnm,.-",
    shift: "°+\"*ç%&/()=?`QWERTZUIOPè!ASDFGHJKLéà£>YXCVBNM;:_",
    altgr: "∅∅@#∅∅¬|¢∅∅´~∅∅€∅∅∅∅∅∅∅[]∅∅∅∅∅∅∅∅∅∅{}\\",
    dead: "^`¨´~",
};
const FR: Chart = Chart {
    plain: "²&é\"'(-è_çà)=azertyuiop∅$qsdfghjklmù*<wxcvbn,;:!",
    shift: "∅1234567890°+AZERTYUIOP¨£QSDFGHJKLM%µ>WXCVBN?./§",
    altgr: "∅∅~#{[|`\\^@]}∅∅€∅∅∅∅∅∅∅∅¤",
    dead: "¨",
};
const BE: Chart = Chart {
    plain: "²&é\"'(§è!çà)-azertyuiop^$qsdfghjklmùµ<wxcvbn,;:=",
    shift: "³1234567890°_AZERTYUIOP¨*QSDFGHJKLM%£>WXCVBN?./+",
    // AltGr and 6 is `^` too, but a dead key in the kernel's keymap.
    altgr: "∅|@#∅∅∅∅∅{}∅∅∅∅€∅∅∅∅∅∅∅[]∅∅∅∅∅∅∅∅∅∅´`\\∅∅∅∅∅∅∅∅∅~",
    dead: "^¨´`~",
};
const ES: Chart = Chart {
    plain: "º1234567890'¡qwertyuiop`+asdfghjklñ´ç<zxcvbnm,.-",
    shift: "ª!\"·$%&/()=?¿QWERTYUIOP^*ASDFGHJKLÑ¨Ç>ZXCVBNM;:_",
    altgr: "\\|@#~∅¬∅∅∅∅∅∅∅∅€∅∅∅∅∅∅∅[]∅∅∅∅∅∅∅∅∅∅{}",
    dead: "`^´¨",
};
const IT: Chart = Chart {
    plain: "\\1234567890'ìqwertyuiopè+asdfghjklòàù<zxcvbnm,.-",
    shift: "|!\"£$%&/()=?^QWERTYUIOPé*ASDFGHJKLç°§>ZXCVBNM;:_",
    altgr: "∅∅∅∅∅∅∅{∅∅}`~∅∅€∅∅∅∅∅∅∅[]∅∅∅∅∅∅∅∅∅@#",
    dead: "",
};
const SE: Chart = Chart {
    plain: "§1234567890+´qwertyuiopå¨asdfghjklöä'<zxcvbnm,.-",
    shift: "½!\"#¤%&/()=?`QWERTYUIOPÅ^ASDFGHJKLÖÄ*>ZXCVBNM;:_",
    altgr: "∅∅@£$€∅{[]}\\∅∅∅∅∅∅∅∅∅∅∅∅~∅∅∅∅∅∅∅∅∅∅∅∅|",
    dead: "´`¨^~",
};
const DK: Chart = Chart {
    plain: "½1234567890+´qwertyuiopå¨asdfghjklæø'<zxcvbnm,.-",
    shift: "§!\"#¤%&/()=?`QWERTYUIOPÅ^ASDFGHJKLÆØ*>ZXCVBNM;:_",
    altgr: "∅∅@£$€∅{[]}∅|∅∅∅∅∅∅∅∅∅∅∅~∅∅∅∅∅∅∅∅∅∅∅∅\\",
    dead: "´`¨^~",
};
const NO: Chart = Chart {
    plain: "|1234567890+\\qwertyuiopå¨asdfghjkløæ'<zxcvbnm,.-",
    shift: "§!\"#¤%&/()=?`QWERTYUIOPÅ^ASDFGHJKLØÆ*>ZXCVBNM;:_",
    altgr: "∅∅@£$€∅{[]}∅´∅∅∅∅∅∅∅∅∅∅∅~",
    dead: "`¨^´~",
};

impl Layout {
    /// The names by which profiles know the layouts.
    pub const NAMES: [&str; 11] = ["us", "gb", "de", "ch", "fr", "be", "es", "it", "se", "dk", "no"];

    pub(crate) const ALL: [Self; 11] = [
        Self::Us,
        Self::Gb,
        Self::De,
        Self::Ch,
        Self::Fr,
        Self::Be,
        Self::Es,
        Self::It,
        Self::Se,
        Self::Dk,
        Self::No,
    ];

    /// The layout of that name: one of [`Layout::NAMES`], or the name that Proxmox VE, QEMU or a country has for the same keys.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let name = match name {
            "at" => "de",
            "de-ch" => "ch",
            "en-gb" | "uk" => "gb",
            "en-us" => "us",
            "fi" | "sv" => "se",
            "fr-be" | "nl-be" => "be",
            "da" => "dk",
            "nb" => "no",
            other => other,
        };
        Self::NAMES.iter().zip(Self::ALL).find(|(known, _)| **known == name).map(|(_, layout)| layout)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().zip(Self::ALL).find(|(_, layout)| *layout == self).map_or("us", |(name, _)| name)
    }

    fn chart(self) -> Option<&'static Chart> {
        Some(match self {
            Self::Us => return None,
            Self::Gb => &GB,
            Self::De => &DE,
            Self::Ch => &CH,
            Self::Fr => &FR,
            Self::Be => &BE,
            Self::Es => &ES,
            Self::It => &IT,
            Self::Se => &SE,
            Self::Dk => &DK,
            Self::No => &NO,
        })
    }

    /// The strokes that type a character; `None` when the layout has no key for it. A dead key is followed by a blank.
    #[must_use]
    pub fn strokes(self, character: char) -> Option<Vec<KeyStroke>> {
        let Some(chart) = self.chart().filter(|_| !matches!(character, ' ' | '\n' | '\t')) else {
            return us(character).map(|stroke| vec![stroke]);
        };
        if character == NONE {
            return None;
        }
        let at = |table: &str| table.chars().position(|other| other == character);
        let (index, shift, altgr) = at(chart.plain)
            .map(|index| (index, false, false))
            .or_else(|| at(chart.shift).map(|index| (index, true, false)))
            .or_else(|| at(chart.altgr).map(|index| (index, false, true)))?;
        let stroke = KeyStroke { altgr, ..place(*PLACES.get(index)?, shift) };
        Some(if chart.dead.contains(character) { vec![stroke, SPACE] } else { vec![stroke] })
    }

    /// What this stroke gives on a keyboard of this layout; `None` where it gives nothing at once (a dead key).
    pub(crate) fn character(self, stroke: KeyStroke) -> Option<char> {
        let Some(chart) = self.chart().filter(|_| stroke.scancode != SPACE.scancode) else {
            let us = US_KEYS.iter().find(|(.., code)| *code == stroke.scancode);
            let us = us.map(|(plain, shifted, ..)| if stroke.shift { *shifted } else { *plain });
            return us.or_else(|| (stroke.scancode == SPACE.scancode).then_some(' '));
        };
        let index = PLACES.iter().position(|place| *place == stroke.scancode)?;
        let table = match (stroke.altgr, stroke.shift) {
            (true, _) => chart.altgr,
            (false, true) => chart.shift,
            (false, false) => chart.plain,
        };
        table.chars().nth(index).filter(|found| *found != NONE && !chart.dead.contains(*found))
    }

    /// The layouts that turn what was meant for this one into what was seen: at least one key gave another character,
    /// and each gave just the one that such a keyboard gives for it.
    pub(crate) fn mistaken_for(self, text: &[char], seen: &[char]) -> Vec<Self> {
        if seen.len() > text.len() || text.starts_with(seen) {
            return Vec::new();
        }
        let gives = |layout: Self, character: char| match self.strokes(character).as_deref() {
            Some([stroke]) => layout.character(*stroke),
            _ => None,
        };
        let would = |layout: &Self| {
            *layout != self && seen.iter().zip(text).all(|(seen, text)| gives(*layout, *text) == Some(*seen))
        };
        Self::ALL.into_iter().filter(would).collect()
    }
}

/// The key at a place, with the names that a US keyboard has for it.
fn place(scancode: u32, shift: bool) -> KeyStroke {
    let us = US_KEYS.iter().find(|(.., code)| *code == scancode);
    match us {
        Some((plain, shifted, qcode, _)) => {
            let keysym = u32::from(if shift { *shifted } else { *plain });
            KeyStroke { qcode, keysym, scancode, shift, altgr: false }
        }
        // The key that a US keyboard lacks.
        None => KeyStroke { shift, ..key("less", 0x3c, scancode) },
    }
}

/// The key that AltGr is.
pub(crate) const ALTGR: KeyStroke = RIGHT_ALT;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_layout_types_all_of_ascii_with_distinct_strokes() {
        for layout in Layout::ALL {
            let mut seen = HashSet::new();
            for code in 0x20..0x7f_u8 {
                let strokes = layout.strokes(char::from(code));
                let strokes = strokes.unwrap_or_else(|| panic!("{layout:?} {:?}", char::from(code)));
                let first = strokes[0];
                assert!(
                    seen.insert((first.scancode, first.shift, first.altgr)),
                    "{layout:?} {:?}",
                    char::from(code)
                );
            }
            assert_eq!(Layout::by_name(layout.name()), Some(layout));
        }
        for (name, layout) in
            [("fi", Layout::Se), ("en-gb", Layout::Gb), ("de-ch", Layout::Ch), ("at", Layout::De)]
        {
            assert_eq!(Layout::by_name(name), Some(layout));
        }
        assert_eq!(Layout::by_name("jp"), None);
    }

    #[test]
    fn a_stroke_gives_back_the_character_that_it_was_made_for() {
        for layout in Layout::ALL {
            for code in 0x20..0x7f_u8 {
                let character = char::from(code);
                if let Some([stroke]) = layout.strokes(character).as_deref() {
                    assert_eq!(layout.character(*stroke), Some(character), "{layout:?}");
                }
            }
        }
    }

    #[test]
    fn what_another_layout_makes_of_a_text_names_that_layout() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let mistaken = |text: &str, seen: &str| Layout::Us.mistaken_for(&chars(text), &chars(seen));
        assert_eq!(mistaken("s=http://x", "s´"), []);
        assert_eq!(mistaken("ds=nocloud;s=http:", "dsßnocloud"), []);
        assert_eq!(mistaken("yes=/dev/z", "zes"), [Layout::De, Layout::Ch]);
        assert_eq!(mistaken("quit", "auit"), [Layout::Fr, Layout::Be]);
        assert_eq!(
            mistaken("a/b", "a-"),
            [Layout::De, Layout::Ch, Layout::Es, Layout::It, Layout::Se, Layout::Dk, Layout::No]
        );
        assert_eq!(mistaken("a/b", "a/"), [], "all is right");
        assert_eq!(mistaken("a/b", "ax"), [], "no keyboard does this");
        assert_eq!(Layout::De.mistaken_for(&chars("ab-y"), &chars("ab/z")), [Layout::Us, Layout::Gb]);
    }

    #[test]
    fn every_chart_has_a_character_for_each_place() {
        for layout in Layout::ALL {
            let Some(chart) = layout.chart() else { continue };
            for table in [chart.plain, chart.shift] {
                assert_eq!(table.chars().count(), PLACES.len(), "{layout:?} {table}");
            }
            assert!(chart.altgr.chars().count() <= PLACES.len(), "{layout:?}");
        }
    }

    #[test]
    fn a_german_keyboard_has_its_own_places() {
        let of = |character| Layout::De.strokes(character).unwrap();
        assert_eq!((of('z')[0].scancode, of('z')[0].keysym), (0x15, u32::from('y')));
        assert_eq!((of('/')[0].scancode, of('/')[0].shift), (0x08, true));
        assert_eq!((of('@')[0].scancode, of('@')[0].altgr), (0x10, true));
        assert_eq!((of('|')[0].scancode, of('|')[0].altgr), (0x56, true));
        assert_eq!(of('^').len(), 2, "a dead key and a blank");
        assert_eq!(of('ö')[0].scancode, 0x27);
    }

    #[test]
    fn a_french_keyboard_types_digits_with_shift() {
        let of = |character| Layout::Fr.strokes(character).unwrap()[0];
        assert_eq!((of('1').scancode, of('1').shift), (0x02, true));
        assert_eq!((of('a').scancode, of('q').scancode), (0x10, 0x1e));
        assert_eq!((of('\\').scancode, of('\\').altgr), (0x09, true));
        assert_eq!(of('m').scancode, 0x27);
    }
}
