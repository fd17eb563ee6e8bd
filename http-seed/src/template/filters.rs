//! The filters through which a value goes into a file: each writes a whole value of its language, so that nothing in
//! the value can end it early. What a language can't hold is refused.

use std::collections::HashMap;

use serde_json::Value;
use tera::Tera;

use crate::yaml;

/// The filters that make a value safe for a language.
pub const ESCAPES: [&str; 12] = [
    "yaml",
    "yaml_document",
    "sh",
    "ks",
    "ks_lines",
    "debconf",
    "debconf_lines",
    "xml",
    "xml_lines",
    "ps",
    "json",
    "json_document",
];

type Arguments = HashMap<String, Value>;

pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("yaml", |value: &Value, _: &Arguments| Ok(Value::String(yaml::inline(value))));
    tera.register_filter("yaml_document", |value: &Value, _: &Arguments| {
        Ok(Value::String(yaml::document(value).trim_end().to_owned()))
    });
    tera.register_filter("json", |value: &Value, _: &Arguments| Ok(Value::String(value.to_string())));
    tera.register_filter("json_document", |value: &Value, _: &Arguments| {
        serde_json::to_string_pretty(value)
            .map(Value::String)
            .map_err(|error| tera::Error::msg(error.to_string()))
    });
    tera.register_filter("sh", |value: &Value, _: &Arguments| sh(value));
    tera.register_filter("ks", |value: &Value, _: &Arguments| ks(value));
    tera.register_filter("debconf", |value: &Value, _: &Arguments| debconf(value));
    tera.register_filter("xml", |value: &Value, _: &Arguments| xml(value));
    tera.register_filter("ks_lines", |value: &Value, _: &Arguments| ks_lines(value));
    tera.register_filter("debconf_lines", |value: &Value, _: &Arguments| debconf_lines(value));
    tera.register_filter("xml_lines", |value: &Value, _: &Arguments| xml_lines(value));
    tera.register_filter("ps", |value: &Value, _: &Arguments| ps(value));
    tera.register_filter("otherwise", otherwise);
}

/// The value, or another where there is none; tera's own `default` takes `null` for a value.
fn otherwise(value: &Value, arguments: &Arguments) -> tera::Result<Value> {
    match (value, arguments.get("value")) {
        (Value::Null, Some(other)) => Ok(other.clone()),
        (Value::Null, None) => Err(tera::Error::msg("`otherwise` needs `value`")),
        (value, _) => Ok(value.clone()),
    }
}

/// The commands of kickstart that divide disks ("Kickstart commands for handling storage", RHEL 9).
const STORAGE: [&str; 12] = [
    "part",
    "partition",
    "volgroup",
    "logvol",
    "raid",
    "btrfs",
    "reqpart",
    "autopart",
    "mount",
    "snapshot",
    "clearpart",
    "#",
];

/// Lines of kickstart's storage commands and nothing else.
fn ks_lines(value: &Value) -> tera::Result<Value> {
    let text = plain(value)?;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let word = line.split_whitespace().next().unwrap_or_default();
        if !STORAGE.contains(&word) || line.ends_with('\\') || line.chars().any(char::is_control) {
            let message =
                format!("`{line}` is no line of kickstart that divides a disk ({})", STORAGE.join(", "));
            return Err(tera::Error::msg(message));
        }
    }
    Ok(Value::String(text.trim_end().to_owned()))
}

/// The value of a preseed line whose line breaks mean no more than blanks, such as partman's recipes.
fn debconf_lines(value: &Value) -> tera::Result<Value> {
    let words: Vec<String> =
        plain(value)?.split_whitespace().filter(|word| *word != "\\").map(str::to_owned).collect();
    debconf(&Value::String(words.join(" ")))
}

/// One whole XML element, as it is.
fn xml_lines(value: &Value) -> tera::Result<Value> {
    let text = plain(value)?;
    let refused = |why: String| tera::Error::msg(format!("this is not one whole XML element: {why}"));
    let mut reader = quick_xml::Reader::from_str(text.trim());
    let (mut depth, mut elements) = (0_usize, 0_usize);
    loop {
        use quick_xml::events::Event;
        match reader.read_event().map_err(|error| refused(error.to_string()))? {
            Event::Start(_) => {
                elements += usize::from(depth == 0);
                depth += 1;
            }
            Event::Empty(_) => elements += usize::from(depth == 0),
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Eof => break,
            Event::Comment(_) => {}
            Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) if depth > 0 => {}
            other => return Err(refused(format!("{other:?} stands outside of it"))),
        }
    }
    if depth == 0 && elements == 1 {
        Ok(Value::String(text.trim().to_owned()))
    } else {
        Err(refused(format!("{elements} elements, {depth} of them open")))
    }
}

/// A text of PowerShell: between single quotes nothing but the quote is special, and typographic ones count as it
/// (about_Quoting_Rules; the language's specification, 2.3.5.2).
fn ps(value: &Value) -> tera::Result<Value> {
    let text = one_line(value)?;
    let quote = |c: char| matches!(c, '\'' | '\u{2018}'..='\u{201b}');
    let doubled: String =
        text.chars().flat_map(|c| std::iter::repeat_n(c, if quote(c) { 2 } else { 1 })).collect();
    Ok(Value::String(format!("'{doubled}'")))
}

fn plain(value: &Value) -> tera::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        other => Err(tera::Error::msg(format!("`{other}` is no text, number or truth value"))),
    }
}

/// Between single quotes nothing but the quote itself is special (POSIX shell, 2.2.2).
fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A single word of the shell.
fn sh(value: &Value) -> tera::Result<Value> {
    let text = plain(value)?;
    if text.contains('\0') {
        return Err(tera::Error::msg("a shell word can't hold a NUL character"));
    }
    if begins_a_section(&text) {
        let message =
            format!("{text:?} has a line that begins with %, which would end a script of a kickstart");
        return Err(tera::Error::msg(message));
    }
    Ok(Value::String(single_quoted(&text)))
}

/// Whether a later line of the text begins with `%`.
///
/// In a script of a kickstart such a line ends or changes the file, within the shell's quotes too; pykickstart breaks
/// and trims lines as Python's `str.splitlines` and `str.lstrip` do (parser.py), at more characters than the shell.
fn begins_a_section(text: &str) -> bool {
    let breaks =
        |c| matches!(c, '\n' | '\u{b}'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let blank = |c: char| c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}');
    text.split(breaks).skip(1).any(|line| line.trim_start_matches(blank).starts_with('%'))
}

/// Control characters would begin another line of a file whose lines are commands.
fn one_line(value: &Value) -> tera::Result<String> {
    let text = plain(value)?;
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        let message = format!("{text:?} holds control characters, which would begin another line");
        return Err(tera::Error::msg(message));
    }
    Ok(text)
}

/// An argument of a kickstart command, or the name of a package.
///
/// pykickstart splits a command's line with Python's `shlex` (comments on) and gives the words to `argparse`, so a
/// word that begins with `-` is an option, quoted or not; a line of `%packages` is not split, so a plain word stays
/// unquoted.
fn ks(value: &Value) -> tera::Result<Value> {
    let text = one_line(value)?;
    if text.starts_with('-') {
        let message = format!("{text:?} begins with `-`, which kickstart reads as an option");
        return Err(tera::Error::msg(message));
    }
    let special = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '\\' | '#');
    let plain = !text.is_empty() && !text.starts_with('%') && !text.contains(special);
    Ok(Value::String(if plain { text } else { single_quoted(&text) }))
}

/// The value of a preseed line: all up to the line's end, without quotes (debconf-set-selections(1)).
fn debconf(value: &Value) -> tera::Result<Value> {
    let text = one_line(value)?;
    if text.ends_with('\\') {
        let message = format!("{text:?} ends in a backslash, which would join the next line to it");
        return Err(tera::Error::msg(message));
    }
    Ok(Value::String(text))
}

/// Text or an attribute's value in XML 1.0; line breaks and tabs as references, which attributes keep too.
fn xml(value: &Value) -> tera::Result<Value> {
    let text = plain(value)?;
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", u32::from(character))),
            // XML 1.0, production 2 (Char).
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                return Err(tera::Error::msg(format!("XML can't hold the character {character:?}")));
            }
            other => out.push(other),
        }
    }
    Ok(Value::String(out))
}

/// A text as a filter writes it, where the language can hold it.
pub(crate) fn escaped(filter: &str, text: &str) -> Option<String> {
    let value = Value::from(text);
    let written = match filter {
        "sh" => sh(&value),
        "xml" => xml(&value),
        "ps" => ps(&value),
        _ => return None,
    };
    written.ok()?.as_str().map(str::to_owned)
}
