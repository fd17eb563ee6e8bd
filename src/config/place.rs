//! TOML as a tree in which every key and value knows its place: file, line, column.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::findings::Finding;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<PathBuf>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Spot {
    /// The value.
    pub node: Node,
    /// Where it stands.
    pub place: Place,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A string.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A date or time, which no setting takes.
    Date(String),
    /// An array.
    List(Vec<Spot>),
    /// A table.
    Table(Table),
}

impl Node {
    /// Its kind, as a person would say it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number with a fraction",
            Self::Bool(_) => "true or false",
            Self::Date(_) => "a date",
            Self::List(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// A table: keys with their places, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Key, the key's place, value.
    pub entries: Vec<(String, Place, Spot)>,
}

impl Table {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Spot> {
        self.entries.iter().find(|(name, ..)| name == key).map(|(_, _, spot)| spot)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &str) -> Option<Spot> {
        let index = self.entries.iter().position(|(name, ..)| name == key)?;
        Some(self.entries.remove(index).2)
    }

    /// The same as JSON, without the places.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.entries.iter().map(|(key, _, spot)| (key.clone(), spot.to_json())).collect()
    }
}

impl Spot {
    /// The same as JSON, without the places.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match &self.node {
            Node::Text(text) | Node::Date(text) => text.clone().into(),
            Node::Integer(number) => (*number).into(),
            Node::Float(number) => (*number).into(),
            Node::Bool(flag) => (*flag).into(),
            Node::List(items) => items.iter().map(Self::to_json).collect(),
            Node::Table(table) => table.to_json(),
        }
    }
}

struct Lines<'a> {
    file: Arc<PathBuf>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(file: &Path, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: Arc::new(file.to_owned()), text, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(1, |before| before.chars().count() + 1);
        Place { file: self.file.clone(), line, column }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<(usize, (String, Place, Spot))> = table
            .iter()
            .map(|(key, value)| {
                let at = key.span().start;
                let spot = Spot { node: self.node(value.get_ref()), place: self.place(value.span().start) };
                (at, (key.get_ref().to_string(), self.place(at), spot))
            })
            .collect();
        entries.sort_by_key(|(at, _)| *at);
        Table { entries: entries.into_iter().map(|(_, entry)| entry).collect() }
    }

    fn node(&self, value: &DeValue<'_>) -> Node {
        match value {
            DeValue::String(text) => Node::Text(text.to_string()),
            DeValue::Integer(number) => {
                let digits = number.as_str().replace('_', "");
                // One that does not fit is out of every range too.
                let limit = if digits.starts_with('-') { i64::MIN } else { i64::MAX };
                Node::Integer(i64::from_str_radix(&digits, number.radix()).unwrap_or(limit))
            }
            DeValue::Float(number) => {
                Node::Float(number.as_str().replace('_', "").parse().unwrap_or(f64::NAN))
            }
            DeValue::Boolean(flag) => Node::Bool(*flag),
            DeValue::Datetime(date) => Node::Date(date.to_string()),
            DeValue::Array(items) => Node::List(
                items
                    .iter()
                    .map(|item| Spot {
                        node: self.node(item.get_ref()),
                        place: self.place(item.span().start),
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Node::Table(self.table(table)),
        }
    }
}

/// So many syntax errors of a file are told: after several the reader is lost.
const SYNTAX_ERRORS: usize = 5;

/// Reads TOML.
///
/// # Errors
/// The syntax errors, one a line; what such a file says otherwise can't be trusted.
pub fn parse(file: &Path, text: &str) -> Result<Table, Vec<Finding>> {
    let lines = Lines::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(lines.table(table.get_ref()));
    }
    let mut findings: Vec<Finding> = Vec::new();
    for error in errors {
        let place = lines.place(error.span().map_or(0, |span| span.start));
        if findings.iter().all(|finding| finding.line != place.line) {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            findings.push(Finding::at(&place, "", format!("this is not TOML: {message}")));
        }
    }
    findings.truncate(SYNTAX_ERRORS);
    Err(findings)
}
