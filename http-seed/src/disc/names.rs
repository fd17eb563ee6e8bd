//! Names in ISO 9660's own small alphabet, for readers that know neither Joliet nor Rock Ridge.

use std::collections::BTreeSet;

/// ISO 9660's name of a file (`AUTOUNATTEND.XML;1`) or folder, unlike those already taken.
///
/// Level 2 (ECMA-119, 10.2): 30 characters of `A`-`Z`, `0`-`9` and `_` around one point.
pub(super) fn identifier(name: &str, folder: bool, taken: &mut BTreeSet<String>) -> String {
    let plain = |text: &str| -> String {
        let fits = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        text.chars().map(fits).collect()
    };
    let (stem, extension) = match name.rsplit_once('.').filter(|(stem, _)| !folder && !stem.is_empty()) {
        Some((stem, extension)) => (plain(stem), plain(extension)),
        None => (plain(name), String::new()),
    };
    let extension: String = extension.chars().take(8).collect();
    for number in 0_u32.. {
        let suffix = if number == 0 { String::new() } else { number.to_string() };
        let room = 30_usize.saturating_sub(extension.len() + 1 + suffix.len());
        let stem: String = stem.chars().take(room).collect();
        let text = if folder { format!("{stem}{suffix}") } else { format!("{stem}{suffix}.{extension};1") };
        if taken.insert(text.clone()) {
            return text;
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_that_fall_together_stay_apart() {
        let mut taken = BTreeSet::new();
        let mut id = |name: &str, folder| identifier(name, folder, &mut taken);
        assert_eq!(id("user-data", false), "USER_DATA.;1");
        assert_eq!(id("user_data", false), "USER_DATA1.;1");
        assert_eq!(id("Autounattend.xml", false), "AUTOUNATTEND.XML;1");
        assert_eq!(id(".hidden", false), "_HIDDEN.;1");
        assert_eq!(id("$OEM$.d", true), "_OEM__D");
        assert_eq!(id(&"x".repeat(60), false).len(), 30 + 2);
    }
}
