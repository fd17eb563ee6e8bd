//! Variables of a profile: `--var` over `--var-file` over `FORGE_VAR_NAME` over the default.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::findings::{Finding, suggest};
use super::place::{Node, Spot, Table};
use super::reader::Reader;
use super::secrets::Secrets;

/// Values that came from outside of the profile, before it is known which variables it has. Debug shows names only:
/// any value may be secret.
#[derive(Clone, Default)]
pub struct Given {
    /// From `--var`, as text.
    pub command_line: BTreeMap<String, String>,
    /// From `--var-file`, as text; later files win.
    pub files: BTreeMap<String, String>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given")
            .field("command_line", &self.command_line.keys())
            .field("files", &self.files.keys())
            .finish_non_exhaustive()
    }
}

/// What a variable's value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    String,
    Integer,
    Boolean,
}

impl Kind {
    const ALL: [(&'static str, Self); 3] =
        [("string", Self::String), ("integer", Self::Integer), ("boolean", Self::Boolean)];

    /// Whether a text can be read as this.
    fn fits(self, value: &str) -> bool {
        match self {
            Self::String => true,
            Self::Integer => value.parse::<i64>().is_ok(),
            Self::Boolean => matches!(value, "true" | "false"),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "an integer",
            Self::Boolean => "true or false",
        }
    }
}

/// The variables of a profile with their values; Debug shows names only.
#[derive(Clone, Default)]
pub struct Variables {
    values: BTreeMap<String, String>,
    kinds: BTreeMap<String, Kind>,
    secret_names: BTreeSet<String>,
    secrets: Secrets,
    environment: BTreeMap<String, String>,
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Variables {
    /// A variable's value as text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The values by their types, with `_` for `-` in the names: for templates of answer files.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        let typed = |name: &str, text: &str| match self.kinds.get(name) {
            Some(Kind::Integer) => text.parse::<i64>().map_or_else(|_| text.into(), Into::into),
            Some(Kind::Boolean) => (text == "true").into(),
            _ => text.into(),
        };
        self.values.iter().map(|(name, text)| (name.replace('-', "_"), typed(name, text))).collect()
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Whether a variable's value must not be shown.
    #[must_use]
    pub fn is_secret(&self, name: &str) -> bool {
        self.secret_names.contains(name)
    }

    /// A variable of the environment.
    #[must_use]
    pub fn environment(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// The values that must be masked everywhere.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Reads `[variables]` of a profile and fills the values in.
    #[must_use]
    pub fn read(table: Option<Reader<'_>>, given: &Given, findings: &mut Vec<Finding>) -> Self {
        let mut variables = Self { environment: given.environment.clone(), ..Self::default() };
        let mut known = Vec::new();
        if let Some(table) = table {
            for (name, place, spot) in table.entries() {
                known.push(name);
                if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
                {
                    let message = format!("`{name}` is no name for a variable");
                    let finding = Finding::at(place, table.name(name), message);
                    findings.push(finding.help("letters, digits, `-` and `_`"));
                }
                let Node::Table(definition) = &spot.node else {
                    let message = format!("expected a table, found {}", spot.node.kind());
                    let finding = Finding::at(&spot.place, table.name(name), message);
                    findings.push(finding.help(format!("write `[variables.{name}]` with a `default`")));
                    variables.values.insert(name.to_owned(), String::new());
                    continue;
                };
                let reader = Reader::new(definition, table.name(name), place.clone());
                variables.define(name, definition, reader, given, findings);
            }
        }
        let from_outside = [("--var", &given.command_line), ("--var-file", &given.files)];
        for (from, values) in from_outside {
            for name in values.keys().filter(|name| !known.contains(&name.as_str())) {
                let finding = Finding::general(format!("{from}: the profile has no variable `{name}`"));
                findings.push(finding.help(suggest(name, &known)));
            }
        }
        variables
    }

    fn define(
        &mut self,
        name: &str,
        definition: &Table,
        mut reader: Reader<'_>,
        given: &Given,
        findings: &mut Vec<Finding>,
    ) {
        let words = Kind::ALL.map(|(word, _)| word);
        let default_spot = reader.any("default");
        let kind = match reader.word("type", &words, findings) {
            Some(word) => {
                Kind::ALL.iter().find(|(each, _)| *each == word).map_or(Kind::String, |(_, kind)| *kind)
            }
            // Without a type, the default's.
            None => match default_spot.filter(|_| definition.get("type").is_none()).map(|spot| &spot.node) {
                Some(Node::Integer(_)) => Kind::Integer,
                Some(Node::Bool(_)) => Kind::Boolean,
                _ => Kind::String,
            },
        };
        self.kinds.insert(name.to_owned(), kind);
        let default = default_spot.and_then(|spot| default(kind, spot, &reader, findings));
        let pattern = reader.raw_text("pattern", findings);
        let secret = reader.flag("secret", findings).unwrap_or(false);
        reader.raw_text("description", findings);

        let variable = environment_name(name);
        let (value, from) = match (
            given.command_line.get(name),
            given.files.get(name),
            given.environment.get(&variable),
            default,
        ) {
            (Some(value), ..) => (Some(value.clone()), "--var".to_owned()),
            (None, Some(value), ..) => (Some(value.clone()), "--var-file".to_owned()),
            (None, None, Some(value), _) => (Some(value.clone()), variable.clone()),
            (None, None, None, default) => (default, "its default".to_owned()),
        };
        let missing = value.is_none() && default_spot.is_none();
        // Without a value an empty one stands in, so that its uses are not findings of their own.
        let text = value.clone().unwrap_or_default();
        if missing {
            let finding =
                Finding::at(reader.place(), reader.path(), format!("the variable `{name}` has no value"));
            findings.push(
                finding.help(format!("give one with --var {name}=…, or {variable} in the environment")),
            );
        }
        if let Some(value) = value {
            let shown = if secret { "a secret value".to_owned() } else { format!("`{value}`") };
            if !kind.fits(&value) {
                let message =
                    format!("the variable `{name}` must be {}, and {from} gives {shown}", kind.expected());
                findings.push(Finding::at(reader.place(), reader.path(), message));
            }
            if let Some(message) = pattern.and_then(|pattern| mismatch(&pattern, &value)) {
                let message = format!("the variable `{name}`: {shown} (from {from}) {message}");
                findings.push(reader.finding("pattern", message));
            }
        }
        if secret {
            self.secret_names.insert(name.to_owned());
            self.secrets.add(text.clone());
        }
        reader.done(findings);
        self.values.insert(name.to_owned(), text);
    }
}

/// The name of the variable of the environment that gives a variable its value.
#[must_use]
pub fn environment_name(name: &str) -> String {
    format!("FORGE_VAR_{}", name.to_uppercase().replace('-', "_"))
}

fn default(kind: Kind, spot: &Spot, reader: &Reader<'_>, findings: &mut Vec<Finding>) -> Option<String> {
    match (kind, &spot.node) {
        (Kind::String, Node::Text(text)) => Some(text.clone()),
        (Kind::Integer, Node::Integer(number)) => Some(number.to_string()),
        (Kind::Boolean, Node::Bool(flag)) => Some(flag.to_string()),
        (_, node) => {
            findings.push(
                reader.finding("default", format!("expected {}, found {}", kind.expected(), node.kind())),
            );
            None
        }
    }
}

/// What is wrong with a value by its pattern, which must match the whole of it.
fn mismatch(pattern: &str, value: &str) -> Option<String> {
    match regex_lite::Regex::new(&format!("^(?:{pattern})$")) {
        Ok(regex) if regex.is_match(value) => None,
        Ok(_) => Some(format!("does not match `{pattern}`")),
        Err(error) => Some(format!("can't be checked, `{pattern}` is no regular expression: {error}")),
    }
}
