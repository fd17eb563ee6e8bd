//! Holds a template back from taking all the memory or never ending: it is a file of the user's, and may be wrong.
//!
//! What makes tera's parser go too deep is told from the text, before it is parsed. Loops, `set` and `range` are charged
//! while the template is rendered: each loop's container and each value that is set goes through a filter of forge's own,
//! written into the tag behind it, which leaves the value as it is.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tera::Tera;

use super::scan::{Tag, tags};

/// The largest template.
pub(super) const FILE: usize = 1 << 20;
/// The largest file that is made of one, and what its loops may write together.
const WRITTEN: usize = 64 << 20;
/// Tags within tags.
const NESTED: usize = 100;
/// Tags on one line: each is judged by all that stands on the line before it.
const ON_A_LINE: usize = 1_000;
/// Brackets within brackets of one tag, and calls within calls: tera's parser tries each of them several ways, and those
/// multiply.
const BRACKETS: usize = 16;
const CALLS: usize = 4;
/// Operators of one tag: each makes the expression deeper.
const OPERATORS: usize = 200;
/// Turns that all loops of a template take together.
const TURNS: usize = 100_000;
/// Elements of one `range`.
const RANGE: usize = 10_000;
/// What a call of a macro comes to, with the calls that it makes itself.
pub(super) const EXPANSIONS: usize = 1_000;

/// The filter behind loops and `set`.
const FILTER: &str = "forge_bound";

/// Where a template goes too far, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TooFar {
    pub line: usize,
    pub column: usize,
    pub why: String,
    pub help: &'static str,
}

impl TooFar {
    fn at(tag: Tag<'_>, why: String, help: &'static str) -> Self {
        Self { line: tag.line, column: tag.column, why, help }
    }
}

/// What must be so before tera reads the text.
pub(super) fn of_text(text: &str) -> Option<TooFar> {
    if text.len() > FILE {
        let why = format!("the template has {} bytes; at most {FILE} are read", text.len());
        let help = "a file that needs no values is given without `.tera`, or served from a folder";
        return Some(TooFar { line: 1, column: 1, why, help });
    }
    let mut open = 0_usize;
    let (mut line, mut on_it) = (0, 0_usize);
    for tag in tags(text) {
        (line, on_it) = if tag.line == line { (line, on_it + 1) } else { (tag.line, 1) };
        if on_it > ON_A_LINE {
            let why = format!("more than {ON_A_LINE} tags on one line");
            return Some(TooFar::at(tag, why, "write them on lines of their own, or take a loop"));
        }
        match word(tag) {
            "if" | "for" | "block" | "macro" | "filter" => open += 1,
            word if word.starts_with("end") => open = open.saturating_sub(1),
            _ => {}
        }
        if open > NESTED {
            let why = format!("more than {NESTED} tags within each other");
            return Some(TooFar::at(tag, why, "close the tags before, or take a loop"));
        }
        if let Some(why) = of_tag(tag.text) {
            return Some(TooFar::at(tag, why, "give its parts names by `{% set … %}`"));
        }
    }
    None
}

/// The first word of a `{% … %}`.
fn word(tag: Tag<'_>) -> &str {
    let inner = tag.text.strip_prefix("{%").unwrap_or_default().trim_start_matches('-').trim_start();
    inner.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// What is too deep within one tag.
fn of_tag(text: &str) -> Option<String> {
    let mut quote = None;
    let mut brackets: Vec<bool> = Vec::new();
    let (mut operators, mut name) = (0, String::new());
    for c in text.chars() {
        if quote.is_some() {
            quote = quote.filter(|open| *open != c);
            continue;
        }
        if c.is_ascii_alphanumeric() || c == '_' {
            name.push(c);
            continue;
        }
        let operator = matches!(name.as_str(), "and" | "or") || "+-*/%".contains(c);
        operators += usize::from(operator);
        match c {
            '"' | '\'' | '`' => quote = Some(c),
            '(' | '[' => brackets.push(c == '(' && !name.is_empty()),
            ')' | ']' => drop(brackets.pop()),
            _ => {}
        }
        if !c.is_whitespace() || operator {
            name.clear();
        }
        if brackets.len() > BRACKETS {
            return Some(format!("more than {BRACKETS} brackets within each other"));
        }
        if brackets.iter().filter(|call| **call).count() > CALLS {
            return Some(format!("more than {CALLS} calls within each other"));
        }
        if operators > OPERATORS {
            return Some(format!("more than {OPERATORS} operators in one tag"));
        }
    }
    None
}

/// The template with the filter behind each loop's container and each value that is set.
pub(super) fn with_filter(text: &str) -> String {
    let tags = tags(text);
    // The bytes from each loop to its end: what one turn may write, values aside.
    let mut bodies: Vec<usize> = vec![0; tags.len()];
    let mut open: Vec<usize> = Vec::new();
    for (index, tag) in tags.iter().enumerate() {
        match word(*tag) {
            "for" => open.push(index),
            "endfor" => {
                let begun = open.pop().unwrap_or(index);
                let length = tags.get(begun).map_or(0, |begun| tag.at.saturating_sub(begun.at));
                if let Some(body) = bodies.get_mut(begun) {
                    *body = length;
                }
            }
            _ => {}
        }
    }
    let mut out = String::with_capacity(text.len() + tags.len() * 48);
    let mut done = 0;
    for (tag, body) in tags.iter().zip(bodies) {
        let kind = word(*tag);
        if !matches!(kind, "for" | "set" | "set_global") {
            continue;
        }
        let close = if tag.text.ends_with("-%}") { 3 } else { 2 };
        let end = tag.at + tag.text.len().saturating_sub(close);
        let own = usize::from(kind == "for");
        out.push_str(text.get(done..end).unwrap_or_default());
        let (line, column) = (tag.line, tag.column);
        out.push_str(&format!(" | {FILTER}(loop={own}, body={body}, line={line}, column={column}) "));
        done = end;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

/// What a rendering has used up, and where it was stopped.
#[derive(Debug, Default)]
struct Used {
    turns: usize,
    bytes: usize,
    stopped: Option<TooFar>,
}

/// The account of one rendering.
#[derive(Clone, Debug, Default)]
pub(super) struct Account(Arc<Mutex<Used>>);

type Arguments = HashMap<String, Value>;

fn number(arguments: &Arguments, name: &str) -> Option<usize> {
    arguments.get(name).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok())
}

impl Account {
    /// Puts the filter and the bounded `range` in.
    pub(super) fn register(&self, tera: &mut Tera, text: &str) {
        let account = self.clone();
        tera.register_filter(FILTER, move |value: &Value, arguments: &Arguments| {
            account.charge(value, arguments)
        });
        let account = self.clone();
        let place = tags(text)
            .into_iter()
            .find(|tag| tag.text.contains("range"))
            .map_or((1, 1), |tag| tag.place_of("range"));
        tera.register_function("range", move |arguments: &Arguments| account.range(arguments, place));
    }

    /// Where the rendering was stopped.
    pub(super) fn stopped(&self) -> Option<TooFar> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stopped.take()
    }

    fn stop(&self, far: TooFar) -> tera::Error {
        let error = tera::Error::msg(far.why.clone());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stopped = Some(far);
        error
    }

    fn charge(&self, value: &Value, arguments: &Arguments) -> tera::Result<Value> {
        let given = |name: &str| number(arguments, name).unwrap_or_default();
        let length = match value {
            Value::Array(items) => items.len(),
            Value::Object(table) => table.len(),
            Value::String(text) => text.len(),
            _ => 0,
        };
        let (turns, bytes) = {
            let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if given("loop") == 1 {
                used.turns = used.turns.saturating_add(length);
                used.bytes = used.bytes.saturating_add(length.saturating_mul(given("body")));
            } else {
                used.bytes = used.bytes.saturating_add(length);
            }
            (used.turns, used.bytes)
        };
        let (line, column) = (given("line"), given("column"));
        if turns > TURNS {
            let why = format!("the loops of this template take more than {TURNS} turns");
            return Err(self.stop(TooFar { line, column, why, help: "loops within loops multiply" }));
        }
        if bytes > WRITTEN {
            let why = format!("the template would write more than {} MiB", WRITTEN >> 20);
            return Err(self.stop(TooFar { line, column, why, help: "an answer file is small" }));
        }
        Ok(value.clone())
    }

    /// tera's `range`, which has no bounds and never ends with a step of nothing.
    fn range(&self, arguments: &Arguments, (line, column): (usize, usize)) -> tera::Result<Value> {
        let wrong = |why: String| {
            let help = "range(start=0, end=9, step_by=1)";
            self.stop(TooFar { line, column, why, help })
        };
        let take = |name: &str, otherwise: Option<usize>| match arguments.get(name) {
            None => otherwise.ok_or_else(|| wrong(format!("`range` needs `{name}`"))),
            Some(value) => number(arguments, name)
                .ok_or_else(|| wrong(format!("`{name}` of `range` is a number from 0 on, not {value}"))),
        };
        let (start, end, step) = (take("start", Some(0))?, take("end", None)?, take("step_by", Some(1))?);
        if step == 0 {
            return Err(wrong("`range` with a step of 0 would never end".into()));
        }
        if start > end {
            return Err(wrong(format!("`range` begins at {start}, after its end {end}")));
        }
        let count = (end - start).div_ceil(step);
        if count > RANGE {
            return Err(wrong(format!("`range` would have {count} elements; at most {RANGE} are made")));
        }
        Ok((start..end).step_by(step).collect())
    }
}

/// Takes what is written, up to a size.
#[derive(Debug, Default)]
pub(super) struct Bounded(Vec<u8>);

impl Bounded {
    pub(super) fn text(self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > WRITTEN {
            let why = format!("the template would write more than {} MiB", WRITTEN >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
