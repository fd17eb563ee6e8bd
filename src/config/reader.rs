//! Reads a table key by key into typed values, collecting everything that is wrong with it.

use std::time::Duration;

use super::findings::{Finding, nearest, suggest, suggest_key};
use super::place::{Node, Place, Spot, Table};
pub use super::units::{parse_size, parse_time};

#[cfg(test)]
thread_local! {
    /// Every table that was read on this thread, with the keys that were asked for: what the schema is held against.
    pub(crate) static ASKED: std::cell::RefCell<Vec<(String, Vec<&'static str>)>> =
        const { std::cell::RefCell::new(Vec::new()) };
}

/// Reads one table. Keys that nobody asked for are findings when it is [`Reader::done`].
#[derive(Debug)]
pub struct Reader<'a> {
    table: &'a Table,
    path: String,
    place: Place,
    asked: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    /// Reads the table at a dotted path.
    #[must_use]
    pub fn new(table: &'a Table, path: impl Into<String>, place: Place) -> Self {
        Self { table, path: path.into(), place, asked: Vec::new() }
    }

    /// The dotted name of a key of this table.
    #[must_use]
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The dotted name of this table.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where the table stands.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A key's value, whatever it is.
    pub fn any(&mut self, key: &'static str) -> Option<&'a Spot> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.table.get(key)
    }

    /// Where a key's value stands, or else the table.
    #[must_use]
    pub fn place_of(&self, key: &str) -> &Place {
        self.table.get(key).map_or(&self.place, |spot| &spot.place)
    }

    /// A finding about a key's value.
    #[must_use]
    pub fn finding(&self, key: &str, message: impl Into<String>) -> Finding {
        Finding::at(self.place_of(key), self.name(key), message)
    }

    fn wrong(&self, key: &str, spot: &Spot, expected: &str, findings: &mut Vec<Finding>) {
        let message = format!("expected {expected}, found {}", spot.node.kind());
        let finding = Finding::at(&spot.place, self.name(key), message);
        findings.push(match &spot.node {
            Node::Integer(_) | Node::Float(_) | Node::Date(_) if expected == "a string" => {
                finding.help("put it into quotes")
            }
            Node::Text(text) if expected != "a string" && text.parse::<i64>().is_ok() => {
                finding.help("leave the quotes out")
            }
            Node::Text(text) if matches!(text.as_str(), "true" | "false") => {
                finding.help("leave the quotes out")
            }
            _ => finding,
        });
    }

    /// A string in which nothing is filled in.
    pub fn text(&mut self, key: &'static str, findings: &mut Vec<Finding>) -> Option<String> {
        let text = self.raw_text(key, findings)?;
        if text.contains("{{") {
            let finding = self.finding(key, format!("nothing is filled in in `{}`", self.name(key)));
            findings.push(finding.help("the page of profiles says which settings take `{{ … }}`"));
        }
        Some(text)
    }

    /// A string, whatever it holds.
    pub fn raw_text(&mut self, key: &'static str, findings: &mut Vec<Finding>) -> Option<String> {
        let spot = self.any(key)?;
        match &spot.node {
            Node::Text(text) => Some(text.clone()),
            _ => {
                self.wrong(key, spot, "a string", findings);
                None
            }
        }
    }

    /// A string that must be there.
    pub fn required(&mut self, key: &'static str, findings: &mut Vec<Finding>) -> String {
        // A misspelt key is told by itself.
        let misspelt = || self.table.entries.iter().any(|(each, ..)| nearest(each, [key]).is_some());
        if self.table.get(key).is_none() && !misspelt() {
            findings.push(self.finding(key, format!("`{}` is missing", self.name(key))));
        }
        self.text(key, findings).unwrap_or_default()
    }

    /// One of some words.
    pub fn word(&mut self, key: &'static str, known: &[&str], findings: &mut Vec<Finding>) -> Option<String> {
        let text = self.raw_text(key, findings)?;
        if known.contains(&text.as_str()) {
            return Some(text);
        }
        let finding = self.finding(key, format!("`{text}` is no value of `{}`", self.name(key)));
        findings.push(finding.help(suggest(&text, known)));
        None
    }

    /// A truth value.
    pub fn flag(&mut self, key: &'static str, findings: &mut Vec<Finding>) -> Option<bool> {
        let spot = self.any(key)?;
        match &spot.node {
            Node::Bool(flag) => Some(*flag),
            _ => {
                self.wrong(key, spot, "true or false", findings);
                None
            }
        }
    }

    /// An integer within a range.
    pub fn integer(
        &mut self,
        key: &'static str,
        low: u32,
        high: u32,
        findings: &mut Vec<Finding>,
    ) -> Option<u32> {
        let spot = self.any(key)?;
        match &spot.node {
            Node::Integer(number) => match u32::try_from(*number) {
                Ok(number) if (low..=high).contains(&number) => Some(number),
                _ => {
                    findings.push(self.finding(key, format!("{number} is not between {low} and {high}")));
                    None
                }
            },
            _ => {
                self.wrong(key, spot, "an integer", findings);
                None
            }
        }
    }

    /// An array of strings.
    pub fn texts(&mut self, key: &'static str, findings: &mut Vec<Finding>) -> Option<Vec<String>> {
        let spot = self.any(key)?;
        let Node::List(items) = &spot.node else {
            self.wrong(key, spot, "an array of strings", findings);
            return None;
        };
        let mut texts = Vec::new();
        for item in items {
            match &item.node {
                Node::Text(text) => texts.push(text.clone()),
                _ => self.wrong(key, item, "a string", findings),
            }
        }
        Some(texts)
    }

    /// A time such as `"90s"`, `"10m"`, `"1h30m"`, `"500ms"`; longer than nothing.
    pub fn time(&mut self, key: &'static str, findings: &mut Vec<Finding>) -> Option<Duration> {
        let text = self.raw_text(key, findings)?;
        match parse_time(&text) {
            Some(Duration::ZERO) => findings.push(self.finding(key, "this must be longer than nothing")),
            Some(time) => return Some(time),
            None => {
                let finding = self.finding(key, format!("`{text}` is no time"));
                findings.push(finding.help("write it like \"90s\", \"10m\", \"1h30m\" or \"500ms\""));
            }
        }
        None
    }

    /// A size in bytes such as `"4GiB"` or `"512MiB"`; a bare integer counts in `unit` bytes.
    pub fn size(&mut self, key: &'static str, unit: u64, findings: &mut Vec<Finding>) -> Option<u64> {
        let spot = self.any(key)?;
        let (size, shown) = match &spot.node {
            Node::Integer(number) => {
                (u64::try_from(*number).ok().and_then(|number| number.checked_mul(unit)), number.to_string())
            }
            Node::Text(text) => (parse_size(text), text.clone()),
            _ => {
                self.wrong(key, spot, "a size like \"4GiB\"", findings);
                return None;
            }
        };
        let size = size.filter(|bytes| *bytes > 0);
        if size.is_none() {
            let finding = self.finding(key, format!("`{shown}` is no size"));
            findings.push(
                finding.help("write it like \"4GiB\", \"512MiB\" or \"20G\" (G and GiB are both 1024 MiB)"),
            );
        }
        size
    }

    /// A table within.
    pub fn table(&mut self, key: &'static str, findings: &mut Vec<Finding>) -> Option<Reader<'a>> {
        let spot = self.any(key)?;
        match &spot.node {
            Node::Table(table) => Some(Reader::new(table, self.name(key), spot.place.clone())),
            _ => {
                self.wrong(key, spot, "a table", findings);
                None
            }
        }
    }

    /// An array of tables.
    pub fn tables(&mut self, key: &'static str, findings: &mut Vec<Finding>) -> Vec<Reader<'a>> {
        let Some(spot) = self.any(key) else { return Vec::new() };
        let Node::List(items) = &spot.node else {
            let message = format!("expected an array of tables, found {}", spot.node.kind());
            findings.push(self.finding(key, message).help(format!("write `[[{}]]`", self.name(key))));
            return Vec::new();
        };
        let mut readers = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match &item.node {
                Node::Table(table) => {
                    readers.push(Reader::new(
                        table,
                        format!("{}[{index}]", self.name(key)),
                        item.place.clone(),
                    ));
                }
                _ => self.wrong(key, item, "a table", findings),
            }
        }
        readers
    }

    /// All keys with their values, for tables whose keys are free.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Place, &'a Spot)> + use<'a> {
        self.table.entries.iter().map(|(key, place, spot)| (key.as_str(), place, spot))
    }

    /// Tells the keys that nobody asked for.
    pub fn done(self, findings: &mut Vec<Finding>) {
        #[cfg(test)]
        ASKED.with_borrow_mut(|asked| asked.push((self.path.clone(), self.asked.clone())));
        for (key, place, _) in &self.table.entries {
            if !self.asked.contains(&key.as_str()) {
                let finding = Finding::at(place, self.name(key), format!("unknown key `{}`", self.name(key)));
                findings.push(finding.help(suggest_key(key, &self.path, &self.asked)));
            }
        }
    }
}
