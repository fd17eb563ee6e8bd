//! Paths to a variable's parts, as tera writes them: `a.b`, `a[0]`, `a["b"]`, `a[b.c]`.

/// One step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A member by its name.
    Name(&'a str),
    /// An element by its number.
    Index,
    /// A member whose name is another variable's value.
    Dynamic(&'a str),
}

/// The variable, and the steps from it.
pub(super) fn split(path: &str) -> (&str, Vec<Step<'_>>) {
    let root_ends = path.find(['.', '[']).unwrap_or(path.len());
    let (root, mut rest) = path.split_at(root_ends);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(bracket) = rest.strip_prefix('[') {
            let end = closing(bracket);
            let inner = bracket.get(..end).unwrap_or(bracket);
            steps.push(match inner.chars().next() {
                Some('"' | '\'' | '`') => Step::Name(inner.trim_matches(['"', '\'', '`'])),
                Some(c) if c.is_ascii_digit() || c == '-' => Step::Index,
                _ => Step::Dynamic(inner),
            });
            rest = bracket.get(end + 1..).unwrap_or_default();
        } else {
            let named = rest.strip_prefix('.').unwrap_or(rest);
            let end = named.find(['.', '[']).unwrap_or(named.len());
            let (name, after) = named.split_at(end);
            let number = name.chars().all(|c| c.is_ascii_digit());
            steps.push(if number { Step::Index } else { Step::Name(name) });
            rest = after;
        }
    }
    (root, steps)
}

/// Where the bracket that was opened before the text closes.
fn closing(text: &str) -> usize {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(character),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return at,
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_into_its_steps() {
        assert_eq!(split("a"), ("a", vec![]));
        assert_eq!(split("a.b.0"), ("a", vec![Step::Name("b"), Step::Index]));
        assert_eq!(
            split(r#"a["b]"][c[0].d].e"#),
            ("a", vec![Step::Name("b]"), Step::Dynamic("c[0].d"), Step::Name("e")])
        );
    }
}
