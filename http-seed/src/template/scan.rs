//! Finds the tags of a template's text, with their places.
//!
//! tera's syntax tree holds no positions. It holds one node for each tag, in order, so the n-th tag of the text is
//! the n-th of the tree: [`Tags`] is walked along with the tree. Comments and `{% raw %}` blocks have no tag here.

/// A `{{ … }}` or `{% … %}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    /// The tag with its braces.
    pub text: &'a str,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// What stands on the tag's line before it.
    pub before: &'a str,
    /// Where it begins in the text, in bytes.
    pub at: usize,
}

impl Tag<'_> {
    /// Where a variable's name stands within the tag; the tag's beginning when it can't be told.
    pub(super) fn place_of(&self, name: &str) -> (usize, usize) {
        let part_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '"' | '\'' | '`');
        let found = self.text.match_indices(name).map(|(at, _)| at).find(|at| {
            let before = self.text.get(..*at).and_then(|text| text.chars().next_back());
            let after = self.text.get(at + name.len()..).and_then(|text| text.chars().next());
            !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
        });
        let lead = self.text.get(..found.unwrap_or(0)).unwrap_or_default();
        let (lines, column) = advance(lead);
        if lines == 0 { (self.line, self.column + column) } else { (self.line + lines, column + 1) }
    }
}

/// The tags of a template that tera could parse, in order.
pub(super) fn tags(text: &str) -> Vec<Tag<'_>> {
    let mut found = Vec::new();
    let (mut line, mut column, mut at) = (1, 1, 0);
    let mut raw = false;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let length = if rest.starts_with("{#") && !raw {
            rest.find("#}").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("{%") || (rest.starts_with("{{") && !raw) {
            let tag = rest.get(..tag_length(rest)).unwrap_or(rest);
            let word = tag.trim_matches(['{', '%', '-', '}']).trim();
            if raw {
                // Anything but the end of a raw block is text within it.
                raw = word != "endraw";
                if raw { 2 } else { tag.len() }
            } else if tag.starts_with("{%") && word == "raw" {
                raw = true;
                tag.len()
            } else {
                let line_start = text.get(..at).and_then(|text| text.rfind('\n')).map_or(0, |end| end + 1);
                let before = text.get(line_start..at).unwrap_or_default();
                found.push(Tag { text: tag, line, column, before, at });
                tag.len()
            }
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
        let (lines, columns) = advance(rest.get(..length).unwrap_or(rest));
        (line, column) = if lines == 0 { (line, column + columns) } else { (line + lines, columns + 1) };
        at += length;
    }
    found
}

/// The template with its line's number after the last visible character of each line that lies outside of its tags.
///
/// There a mark changes nothing: what a tag trims are blanks, and it follows none.
pub(super) fn with_line_marks(text: &str, mark: [char; 2]) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut line, mut at, mut raw) = (1, 0, false);
    // Where in `out` the mark of the line goes.
    let mut place: Option<usize> = None;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let length = if rest.starts_with("{#") && !raw {
            rest.find("#}").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("{%") || (rest.starts_with("{{") && !raw) {
            let length = tag_length(rest);
            match rest.get(..length).unwrap_or(rest).trim_matches(['{', '%', '-', '}']).trim() {
                "raw" => raw = true,
                "endraw" => raw = false,
                _ => {}
            }
            length
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
        let piece = rest.get(..length).unwrap_or(rest);
        let is_text = piece.chars().count() == 1;
        if is_text
            && piece == "\n"
            && let Some(place) = place.take()
        {
            out.insert_str(place, &format!("{}{line}{}", mark[0], mark[1]));
        }
        out.push_str(piece);
        line += piece.matches('\n').count();
        if is_text && !piece.trim().is_empty() {
            place = Some(out.len());
        } else if !is_text && piece.contains('\n') {
            place = None;
        }
        at += length;
    }
    if let Some(place) = place {
        out.insert_str(place, &format!("{}{line}{}", mark[0], mark[1]));
    }
    out
}

/// A piece of a line with its tags taken out: nothing for `{% … %}`, a letter for each insertion.
pub(super) fn outside_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        if tag.starts_with("{{") {
            out.push('x');
        }
        rest = tag.get(tag_length(tag)..).unwrap_or_default();
    }
    out + rest
}

/// How many bytes a tag takes: up to its end, which does not count within quotes. tera's strings have no escapes.
fn tag_length(text: &str) -> usize {
    let end = if text.starts_with("{{") { "}}" } else { "%}" };
    let mut quote = None;
    for (at, character) in text.char_indices().skip(2) {
        match quote {
            Some(open) if open == character => quote = None,
            Some(_) => {}
            None if matches!(character, '"' | '\'' | '`') => quote = Some(character),
            None if text.get(at..).is_some_and(|rest| rest.starts_with(end)) => return at + 2,
            None => {}
        }
    }
    text.len()
}

/// The line breaks in a text, and the characters after the last one.
fn advance(text: &str) -> (usize, usize) {
    let last = text.rsplit('\n').next().unwrap_or_default();
    (text.matches('\n').count(), last.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_with_their_places() {
        let text =
            "a {{ x }}\n{# {{ no }} #}{% raw %}{{ no }}{% endraw %}é{%- if \"%}\" == b -%}\n{{\n  c.d }}";
        let found: Vec<_> = tags(text).iter().map(|tag| (tag.text, tag.line, tag.column)).collect();
        assert_eq!(found, [("{{ x }}", 1, 3), ("{%- if \"%}\" == b -%}", 2, 45), ("{{\n  c.d }}", 3, 1)]);
    }

    #[test]
    fn a_name_is_found_within_its_tag() {
        let text = "ab {{ ab.c ~\n\"x\" ~ xx ~ x }}";
        let tags = tags(text);
        assert_eq!(tags[0].place_of("ab.c"), (1, 7));
        assert_eq!(tags[0].place_of("x"), (2, 12));
        assert_eq!(tags[0].place_of("nosuch"), (1, 4));
    }
}
