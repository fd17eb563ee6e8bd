//! Checks of single values, and Proxmox's property strings (`virtio=MAC,bridge=vmbr0`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, Mutex};

use regex::Regex;
use serde_json::{Map, Value};

use super::{Param, format, is_optional};

/// Checks one parameter; puts what is wrong into `errors`.
pub(super) fn check(
    path: &str,
    schema: &Value,
    value: &Value,
    errors: &mut Map<String, Value>,
) -> Option<Param> {
    if schema["type"] == "array" {
        let items = match value {
            Value::Array(items) => items.clone(),
            other => vec![other.clone()],
        };
        let texts = items.iter().map(|item| scalar(item).unwrap_or_default()).collect();
        return Some(Param::Many(texts));
    }
    let wanted = schema["type"].as_str().unwrap_or("string");
    let Some(text) = scalar(value) else {
        let kind = if value.is_array() { "ARRAY" } else { "HASH" };
        let got = if value.is_null() { String::new() } else { format!(" - got '{kind}(0x55d0c0ffee00)'") };
        errors.insert(path.to_owned(), format!("type check ('{wanted}') failed{got}").into());
        return None;
    };
    match check_text(path, schema, &text) {
        Ok(text) => Some(Param::One(text)),
        Err(error) => {
            errors.insert(path.to_owned(), error.into());
            None
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(if *flag { "1" } else { "0" }.to_owned()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Checks one scalar and returns it normalised (booleans as `1`/`0`).
fn check_text(path: &str, schema: &Value, text: &str) -> Result<String, String> {
    let wanted = schema["type"].as_str().unwrap_or("string");
    let mut normalised = text.to_owned();
    let typed = match wanted {
        "integer" => is_integer(text),
        "number" => text.parse::<f64>().is_ok_and(f64::is_finite),
        "boolean" => match boolean(text) {
            Some(flag) => {
                normalised = if flag { "1" } else { "0" }.to_owned();
                true
            }
            None => false,
        },
        _ => true,
    };
    if !typed {
        return Err(format!("type check ('{wanted}') failed - got '{text}'"));
    }
    match &schema["format"] {
        Value::String(name) => {
            format::check(path, name, text).map_err(|error| format!("invalid format - {error}"))?;
        }
        Value::Object(keys) => {
            parse_with(path, keys, text).map_err(|error| format!("invalid format - {error}"))?;
        }
        _ => {}
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !pattern_matches(pattern, text)
    {
        return Err("value does not match the regex pattern".to_owned());
    }
    let length = text.chars().count() as u64;
    if let Some(most) = limit(&schema["maxLength"])
        && wanted == "string"
        && length > most
    {
        return Err(format!("value may only be {most} characters long"));
    }
    if let Some(least) = limit(&schema["minLength"])
        && wanted == "string"
        && length < least
    {
        return Err(format!("value must be at least {least} characters long"));
    }
    if matches!(wanted, "integer" | "number") {
        let number: f64 = text.parse().unwrap_or(0.0);
        if let Some(least) = bound(&schema["minimum"])
            && number < least
        {
            return Err(format!("value must have a minimum value of {least}"));
        }
        if let Some(most) = bound(&schema["maximum"])
            && number > most
        {
            return Err(format!("value must have a maximum value of {most}"));
        }
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.iter().any(|allowed| scalar(allowed).as_deref() == Some(text))
    {
        let all: Vec<String> = values.iter().filter_map(scalar).collect();
        return Err(format!("value '{text}' does not have a value in the enumeration '{}'", all.join(", ")));
    }
    Ok(normalised)
}

fn limit(value: &Value) -> Option<u64> {
    bound(value).map(|number| number as u64)
}

fn bound(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Proxmox's spellings of a boolean.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(true),
        "0" | "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

/// Whether a text matches one of the schema's Perl patterns as a whole.
fn pattern_matches(pattern: &str, text: &str) -> bool {
    static CACHE: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);
    let mut cache = CACHE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let regex = cache.entry(pattern.to_owned()).or_insert_with(|| {
        let translated = pattern.replace("(?^:", "(?:").replace("{,", "{0,");
        Regex::new(&format!("^(?:{translated})$")).ok()
    });
    regex.as_ref().is_none_or(|regex| regex.is_match(text))
}

/// Parses a property string by the schema of a configuration key.
///
/// # Errors
/// The text Proxmox gives, with its trailing newline.
pub fn parse_property_string(key: &str, text: &str) -> Result<BTreeMap<String, String>, String> {
    let document = super::schema();
    let route = document.routes.iter().find(|route| route.template == "/nodes/{node}/qemu");
    let property = route
        .and_then(|route| route.methods.get("POST"))
        .and_then(|method| document.property(method, key))
        .map(|property| &property["format"]);
    match property {
        Some(Value::Object(keys)) => parse_with(key, keys, text),
        Some(Value::String(name)) => match format::property_format(name) {
            Some(keys) => parse_with(key, keys, text),
            None => Err("value is no property string\n".to_owned()),
        },
        _ => Err("value is no property string\n".to_owned()),
    }
}

/// Parses a property string by the given keys.
///
/// # Errors
/// The text Proxmox gives, with its trailing newline.
pub fn parse_with(
    path: &str,
    keys: &Map<String, Value>,
    text: &str,
) -> Result<BTreeMap<String, String>, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut bare_seen = false;
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => (key.to_owned(), value.to_owned()),
            Some(_) => return Err("missing key in comma-separated list property\n".to_owned()),
            None => {
                let Some((key, _)) = keys.iter().find(|(_, schema)| schema.get("default_key").is_some())
                else {
                    return Err("value without key, but schema does not define a default key\n".to_owned());
                };
                if bare_seen || found.contains_key(key) {
                    return Err(format!("duplicate key in comma-separated list property: {key}\n"));
                }
                bare_seen = true;
                (key.clone(), part.to_owned())
            }
        };
        let mut target = key.clone();
        if let Some(alias) = keys.get(&key).and_then(|schema| schema["alias"].as_str()) {
            // A network's model names itself as the key of its address: `virtio=MAC`.
            if alias == "macaddr" {
                found.insert("model".to_owned(), key.clone());
            }
            target = alias.to_owned();
        }
        if found.contains_key(&target) && target != key || found.contains_key(&key) && !is_bare(part) {
            return Err(format!("duplicate key in comma-separated list property: {key}\n"));
        }
        found.insert(target, value);
    }
    for (key, value) in &mut found {
        match keys.get(key) {
            None => problems.push(format!(
                "{path}.{key}: property is not defined in schema and the schema does not allow additional properties\n"
            )),
            Some(schema) => match check_text(&format!("{path}.{key}"), schema, value) {
                Ok(normalised) => *value = normalised,
                Err(error) => problems.push(format!("{path}.{key}: {error}\n")),
            },
        }
    }
    for (key, schema) in keys {
        if !is_optional(schema)
            && schema.get("alias").is_none()
            && !found.contains_key(key)
            && key != "enabled"
        {
            problems.push(format!("{path}.{key}: property is missing and it is not optional\n"));
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(format!("format error\n{}", problems.concat())) }
}

fn is_bare(part: &str) -> bool {
    !part.contains('=')
}
