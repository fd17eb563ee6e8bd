//! What people have remarked in a table of a TOML file, and where it stands in the table that takes its place. Pure.

use std::collections::BTreeMap;

/// The remarks of a table: those on lines of their own by the key that follows them, and those at a line's end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    above: BTreeMap<String, Vec<String>>,
    beside: BTreeMap<String, String>,
    /// Of no key that follows.
    rest: Vec<String>,
}

/// What a line is about: its key, or the header.
fn subject(line: &str) -> Option<&str> {
    let bare = line.trim();
    if bare.starts_with('[') {
        return Some("[");
    }
    let (key, _) = bare.split_once('=')?;
    let key = key.trim().trim_matches('"');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (!key.is_empty() && key.chars().all(plain)).then_some(key)
}

/// The remark at the end of a line: what follows the first `#` that is in no string.
fn tail(line: &str) -> Option<&str> {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), c) if c == open && !escaped => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') => return Some(line.get(at..)?.trim_end()),
            _ => {}
        }
        escaped = false;
    }
    None
}

impl Remarks {
    /// Reads the lines of a table, and of the tables below it. `is_ours` tells the remarks that forge has written itself.
    pub fn read<'a>(lines: impl IntoIterator<Item = &'a str>, is_ours: impl Fn(&str) -> bool) -> Self {
        let mut remarks = Self::default();
        let mut waiting: Vec<String> = Vec::new();
        for line in lines {
            let bare = line.trim();
            if bare.starts_with('#') {
                if !is_ours(bare) {
                    waiting.push(bare.to_owned());
                }
                continue;
            }
            let beside = tail(line).map(str::to_owned);
            match subject(line) {
                Some(key) if !remarks.above.contains_key(key) => {
                    remarks.above.insert(key.to_owned(), std::mem::take(&mut waiting));
                    remarks.beside.extend(beside.map(|text| (key.to_owned(), text)));
                }
                // Inside a value of several lines, or of a table below.
                _ => waiting.extend(beside),
            }
        }
        remarks.rest = waiting;
        remarks
    }

    /// The table with these remarks: each at its key, and at the end those whose key is not there any more.
    #[must_use]
    pub fn into_table(mut self, table: &str) -> String {
        let mut text = String::new();
        for line in table.lines() {
            let key = subject(line).filter(|_| !line.trim_start().starts_with('#'));
            let above = key.and_then(|key| self.above.remove(key)).unwrap_or_default();
            above.iter().for_each(|remark| text.push_str(&format!("{remark}\n")));
            match key.and_then(|key| self.beside.remove(key)) {
                Some(remark) => text.push_str(&format!("{line}   {remark}\n")),
                None => text.push_str(&format!("{line}\n")),
            }
        }
        let left = self.above.into_values().flatten().chain(self.beside.into_values()).chain(self.rest);
        left.for_each(|remark| text.push_str(&format!("{remark}\n")));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_stay_at_their_keys_and_those_of_a_key_that_goes_stand_at_the_end() {
        let old = "[targets.pve] # the cluster in the cellar\n# ask ops before\nurl = \"https://a#b:8006\"  # old \"name\"\n\
                   nodes = [\n  \"pve1\", # the small one\n]\n# rack 3\nbridge = 'vmbr0'\npool = \"ci\"   # theirs\n# the end\n";
        let new = "[targets.pve]\nurl = \"https://c:8006\"\nnodes = \"auto\"\n# vmids = \"9001-9099\"\nbridge = \"vmbr7\"\n";
        let expected = "[targets.pve]   # the cluster in the cellar\n# ask ops before\nurl = \"https://c:8006\"   # old \"name\"\n\
                        nodes = \"auto\"\n# vmids = \"9001-9099\"\n# the small one\n# rack 3\nbridge = \"vmbr7\"\n# theirs\n# the end\n";
        assert_eq!(Remarks::read(old.lines(), |_| false).into_table(new), expected);
    }

    #[test]
    fn a_remark_of_forges_own_is_not_repeated_and_a_mark_in_a_string_is_none() {
        let ours = "# vmids = \"9001-9099\"";
        let remarks = Remarks::read([ours, "bridge = \"vm#br\\\"#0\""], |remark| remark == ours);
        assert_eq!(remarks.into_table("bridge = \"vmbr0\"\n"), "bridge = \"vmbr0\"\n");
    }
}
