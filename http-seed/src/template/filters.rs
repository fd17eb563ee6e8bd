//! The filters through which a value goes into a file: each writes a whole value of its language, so that nothing in
//! the value can end it early. What a language can't hold is refused.

use std::collections::HashMap;

use serde_json::Value;
use tera::Tera;

use crate::yaml;

/// The filters that make a value safe for a language.
pub const ESCAPES: [&str; 7] = ["yaml", "yaml_document", "sh", "ks", "debconf", "xml", "json"];

type Arguments = HashMap<String, Value>;

pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("yaml", |value: &Value, _: &Arguments| Ok(Value::String(yaml::inline(value))));
    tera.register_filter("yaml_document", |value: &Value, _: &Arguments| {
        Ok(Value::String(yaml::document(value).trim_end().to_owned()))
    });
    tera.register_filter("json", |value: &Value, _: &Arguments| Ok(Value::String(value.to_string())));
    tera.register_filter("sh", |value: &Value, _: &Arguments| sh(value));
    tera.register_filter("ks", |value: &Value, _: &Arguments| ks(value));
    tera.register_filter("debconf", |value: &Value, _: &Arguments| debconf(value));
    tera.register_filter("xml", |value: &Value, _: &Arguments| xml(value));
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
    Ok(Value::String(single_quoted(&text)))
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
        _ => return None,
    };
    written.ok()?.as_str().map(str::to_owned)
}
