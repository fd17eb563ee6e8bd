//! What a value of YAML must be, all the way down: as much of a JSON schema as cloud-init's has for the keys that are judged here.

use serde_json::Value;

use super::nearest;

/// What a value must be.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Any,
    Text,
    Flag,
    Number,
    Null,
    OneOf(&'static [&'static str]),
    List(&'static Shape),
    /// A table of which every key is known, with those that it can't lack.
    Table(&'static [(&'static str, Shape)], &'static [&'static str]),
    /// A table that may have further keys: only what is nearly one of these is told.
    Open(&'static [(&'static str, Shape)]),
    /// A table whose keys are names.
    Map(&'static Shape),
    Either(&'static [Shape]),
}

/// A step to what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub path: Vec<Step>,
    pub message: String,
    pub help: String,
}

/// How a path is written: `write_files[0].path`.
fn shown(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Key(key) if out.is_empty() => out.push_str(key),
            Step::Key(key) => out.push_str(&format!(".{key}")),
            Step::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
    out
}

impl Shape {
    /// What a person is told that it is.
    fn word(self) -> String {
        match self {
            Self::Any => "anything".into(),
            Self::Text => "a string".into(),
            Self::Flag => "true or false".into(),
            Self::Number => "a number".into(),
            Self::Null => "nothing".into(),
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::List(_) => "a list".into(),
            Self::Table(..) | Self::Open(_) | Self::Map(_) => "a table".into(),
            Self::Either(shapes) => shapes.iter().map(|shape| shape.word()).collect::<Vec<_>>().join(" or "),
        }
    }

    /// Whether a value is of the kind, whatever is in it.
    fn is(self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Text => value.is_string(),
            // PyYAML reads YAML 1.1, where these are truth values.
            Self::Flag => {
                let spoken =
                    |text: &str| matches!(text.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off");
                value.is_boolean() || value.as_str().is_some_and(spoken)
            }
            Self::Number => value.is_i64() || value.is_u64(),
            Self::Null => value.is_null(),
            Self::OneOf(words) => value.as_str().is_some_and(|text| words.contains(&text)),
            Self::List(_) => value.is_array(),
            Self::Table(..) | Self::Open(_) | Self::Map(_) => value.is_object(),
            Self::Either(shapes) => shapes.iter().any(|shape| shape.is(value)),
        }
    }

    /// What is wrong with a value, down from a path.
    pub(super) fn check(self, value: &Value, path: &[Step]) -> Vec<Wrong> {
        if !self.is(value) {
            let mut message = format!("`{}` is {}", shown(path), self.word());
            let mut help = String::new();
            if let (Self::OneOf(words), Some(text)) = (self, value.as_str()) {
                message.push_str(&format!(", not `{text}`"));
                help = nearest(text, words);
            }
            return vec![Wrong { path: path.to_vec(), message, help }];
        }
        let below = |step: Step| [path, &[step]].concat();
        let mut wrong = Vec::new();
        match (self, value) {
            (Self::Either(shapes), _) => {
                // The least wrong of those that fit.
                let checked = shapes.iter().filter(|shape| shape.is(value)).map(|s| s.check(value, path));
                wrong = checked.min_by_key(Vec::len).unwrap_or_default();
            }
            (Self::List(shape), Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    wrong.extend(shape.check(item, &below(Step::Index(index))));
                }
            }
            (Self::Map(shape), Value::Object(table)) => {
                for (key, value) in table {
                    wrong.extend(shape.check(value, &below(Step::Key(key.clone()))));
                }
            }
            (Self::Table(known, _) | Self::Open(known), Value::Object(table)) => {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                for (key, value) in table {
                    let path = below(Step::Key(key.clone()));
                    if let Some((_, shape)) = known.iter().find(|(name, _)| name == key) {
                        wrong.extend(shape.check(value, &path));
                        continue;
                    }
                    let mut help = nearest(key, &names);
                    if matches!(self, Self::Table(..)) || !help.is_empty() {
                        if help.is_empty() && names.len() <= 10 {
                            help = format!("there are: {}", names.join(", "));
                        }
                        let within = path.split_last().map(|(_, within)| shown(within)).unwrap_or_default();
                        let message = if within.is_empty() {
                            format!("there is no key `{key}`")
                        } else {
                            format!("`{within}` has no key `{key}`")
                        };
                        wrong.push(Wrong { path, message, help });
                    }
                }
                if let Self::Table(_, needed) = self {
                    for name in needed.iter().filter(|name| !table.contains_key(**name)) {
                        let message = match path {
                            [] => format!("`{name}` is missing"),
                            path => format!("`{}` lacks `{name}`", shown(path)),
                        };
                        wrong.push(Wrong { path: path.to_vec(), message, help: String::new() });
                    }
                }
            }
            _ => {}
        }
        wrong
    }
}

/// The line of a path below a line of block YAML; the nearest one above it where it can't be told.
pub(super) fn line_of(text: &str, from: usize, path: &[Step]) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let dash = |line: &str| line.trim_start().starts_with('-');
    let mut at = from.saturating_sub(1);
    // A key may stand on the line of its list's dash.
    let mut begins = at + 1;
    for step in path {
        let outer = lines.get(at).map_or(0, |line| indent(line));
        let inside = |index: usize, line: &str| {
            index == at || line.trim().is_empty() || indent(line) > outer || dash(line)
        };
        let mut block = lines
            .iter()
            .enumerate()
            .skip(begins)
            .map(|(index, line)| (index, *line))
            .take_while(|(index, line)| inside(*index, line));
        let found = match step {
            Step::Key(key) => block.find(|(_, line)| {
                let rest = line.trim_start_matches([' ', '-']).trim_start_matches(['"', '\'']);
                rest.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with([':', '"', '\'']))
            }),
            Step::Index(number) => {
                let items: Vec<(usize, &str)> = block.filter(|(_, line)| dash(line)).collect();
                let deep = items.first().map(|(_, line)| indent(line));
                items.into_iter().filter(|(_, line)| Some(indent(line)) == deep).nth(*number)
            }
        };
        let Some((found, _)) = found else { break };
        at = found;
        begins = if matches!(step, Step::Index(_)) { at } else { at + 1 };
    }
    at + 1
}
