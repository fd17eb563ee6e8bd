//! A command line in words, as a POSIX shell splits it.

/// Splits a line of one simple command.
///
/// # Errors
/// A quote that does not end, or something that only a real shell can do.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("unexpected EOF while looking for matching `''".to_owned()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('"') => break,
                        Some('\\') => match rest.next() {
                            Some(kept @ ('"' | '\\' | '$' | '`')) => word.push(kept),
                            Some(other) => word.extend(['\\', other]),
                            None => return Err("unexpected EOF".to_owned()),
                        },
                        Some(c @ ('$' | '`')) => return Err(beyond(c)),
                        Some(c) => word.push(c),
                        None => return Err("unexpected EOF while looking for matching `\"'".to_owned()),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(rest.next()),
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' | '\n' => return Err(beyond(c)),
            // History is not expanded in a shell that nobody types into.
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn beyond(c: char) -> String {
    format!("the lab's shell runs one simple command at a time, and knows no `{c}`")
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_are_split_as_a_shell_does() {
        for (line, expected) in [
            ("pveum acl modify / --tokens 'a@pve!b'", "pveum|acl|modify|/|--tokens|a@pve!b"),
            (r#"a  "b c"d '' 'it'\''s'"#, "a|b cd||it's"),
            ("  ", ""),
        ] {
            assert_eq!(split(line).map(|words| words.join("|")).as_deref(), Ok(expected), "{line}");
        }
        for line in ["a 'b", "a; b", "a | b", "echo $HOME", "a \"$x\""] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
