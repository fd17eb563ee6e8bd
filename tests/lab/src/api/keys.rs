//! The key names of QEMU's `sendkey`, for VMs that run in name only.
//!
//! Source: QEMU's `QKeyCode` enumeration (qapi/ui.json).

const NAMES: &[&str] = &[
    "unmapped",
    "shift",
    "shift_r",
    "alt",
    "alt_r",
    "ctrl",
    "ctrl_r",
    "menu",
    "esc",
    "minus",
    "equal",
    "backspace",
    "tab",
    "bracket_left",
    "bracket_right",
    "ret",
    "semicolon",
    "apostrophe",
    "grave_accent",
    "backslash",
    "comma",
    "dot",
    "slash",
    "asterisk",
    "spc",
    "caps_lock",
    "num_lock",
    "scroll_lock",
    "kp_divide",
    "kp_multiply",
    "kp_subtract",
    "kp_add",
    "kp_enter",
    "kp_decimal",
    "sysrq",
    "less",
    "print",
    "home",
    "pgup",
    "pgdn",
    "end",
    "left",
    "up",
    "down",
    "right",
    "insert",
    "delete",
    "stop",
    "again",
    "props",
    "undo",
    "front",
    "copy",
    "open",
    "paste",
    "find",
    "cut",
    "lf",
    "help",
    "meta_l",
    "meta_r",
    "compose",
    "pause",
    "ro",
    "hiragana",
    "henkan",
    "yen",
    "muhenkan",
    "katakanahiragana",
    "kp_comma",
    "kp_equals",
    "power",
    "sleep",
    "wake",
    "audionext",
    "audioprev",
    "audiostop",
    "audioplay",
    "audiomute",
    "volumeup",
    "volumedown",
    "mediaselect",
    "mail",
    "calculator",
    "computer",
    "ac_home",
    "ac_back",
    "ac_forward",
    "ac_refresh",
    "ac_bookmarks",
    "lang1",
    "lang2",
];

/// Whether QEMU's monitor would take the keys (`ctrl-alt-delete`, `0x1c`, each part at most once a name).
pub fn are_valid(keys: &str) -> bool {
    keys.split('-').all(is_valid)
}

fn is_valid(key: &str) -> bool {
    if let Some(digits) = key.strip_prefix("0x") {
        return u32::from_str_radix(digits, 16).is_ok();
    }
    let function = key.strip_prefix('f').and_then(|number| number.parse::<u8>().ok());
    let digit = key.strip_prefix("kp_").unwrap_or(key);
    NAMES.contains(&key)
        || function.is_some_and(|number| (1..=24).contains(&number))
        || (digit.len() == 1 && digit.bytes().all(|byte| byte.is_ascii_digit()))
        || (key.len() == 1 && key.bytes().all(|byte| byte.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_transcript_are_judged_as_a_real_server_judged_them() {
        for good in
            ["ret", "a", "shift-a", "ctrl-alt-delete", "ctrl-alt-f2", "spc", "0x1c", "esc", "kp_7", "f12"]
        {
            assert!(are_valid(good), "{good}");
        }
        for bad in ["nosuchkey", "a+b", "ret-", "A", "underscore", "altgr", "f25", ""] {
            assert!(!are_valid(bad), "{bad}");
        }
    }
}
