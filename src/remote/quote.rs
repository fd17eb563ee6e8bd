//! Quoting for POSIX shells.

use std::borrow::Cow;

/// Quotes a word so that a POSIX shell takes it literally.
#[must_use]
pub fn sh(word: &str) -> Cow<'_, str> {
    let plain = !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte))
        // `A=b` in front of a command would be an assignment.
        && !word.contains('=');
    if plain { Cow::Borrowed(word) } else { Cow::Owned(format!("'{}'", word.replace('\'', r"'\''"))) }
}

/// Whether a shell takes this as the name of a variable.
#[must_use]
pub fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The lines that set and export variables. Names that are none are left out: callers check them first.
#[must_use]
pub fn exports<'a>(env: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    env.into_iter()
        .filter(|(name, _)| is_variable_name(name))
        .map(|(name, value)| format!("export {name}={}\n", sh(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_come_back_from_a_real_shell_unchanged() {
        for word in
            ["", "plain", "two words", "it's", "a=b", "$HOME `id` \\ \" !", "line\nbreak", "ümläut *?[]"]
        {
            let line = format!("printf %s {}", sh(word));
            let output = std::process::Command::new("/bin/sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn variable_names_are_told_from_other_words() {
        assert!(is_variable_name("FORGE_VM_ID") && is_variable_name("_x1"));
        assert!(
            !is_variable_name("")
                && !is_variable_name("1x")
                && !is_variable_name("a-b")
                && !is_variable_name("a=b")
        );
    }
}
