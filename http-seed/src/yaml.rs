//! Writes values as YAML that every reader takes the same way.
//!
//! cloud-init reads with PyYAML (YAML 1.1, where `on`, `22:22` and `2026-01-01` are no strings), netplan with libyaml,
//! others by YAML 1.2. So every string is quoted that is not plainly a word. The same value gives the same bytes.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// A value as a block of lines, each ended.
pub(crate) fn document(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

/// A value within a line.
pub(crate) fn inline(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(value) => number(value),
        Value::String(text) => string(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(table) => {
            let members: Vec<String> =
                table.iter().map(|(key, value)| format!("{}: {}", string(key), inline(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(table) if !table.is_empty() => {
            for (key, value) in table {
                let _infallible = write!(out, "{:indent$}{}:", "", string(key));
                if is_nested(value) {
                    out.push('\n');
                    block(value, indent + 2, out);
                } else {
                    let _infallible = writeln!(out, " {}", inline(value));
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut nested = String::new();
                block(item, indent + 2, &mut nested);
                // The first line of what is nested stands behind the dash.
                let _infallible = write!(out, "{:indent$}- {}", "", nested.trim_start_matches(' '));
            }
        }
        other => {
            let _infallible = writeln!(out, "{:indent$}{}", "", inline(other));
        }
    }
}

fn is_nested(value: &Value) -> bool {
    match value {
        Value::Object(table) => !table.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// YAML 1.1 knows an exponent only behind a point and with a sign.
fn number(value: &Number) -> String {
    let text = value.to_string();
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

fn string(text: &str) -> String {
    let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/' | '_');
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(in_word);
    // The words that YAML 1.1 reads as truth values or nothing (yaml.org/type/bool.html, null.html).
    let reserved = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    if word && !reserved.contains(&text.to_ascii_lowercase().as_str()) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// JSON's strings are YAML's double-quoted ones, but for the characters that YAML does not count as printable
/// (YAML 1.2.2, production 1) or that break a line in YAML 1.1.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for character in Value::String(text.to_owned()).to_string().chars() {
        match character {
            '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                let _infallible = write!(out, "\\u{:04x}", u32::from(character));
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_values_are_written_as_blocks() {
        let value = json!({
            "users": [{ "name": "forge", "sudo": "ALL=(ALL) NOPASSWD:ALL", "keys": ["a b", "c"] }, "default"],
            "on": [[1, 2], [], {}], "n": null, "at": "22:22", "day": "2026-01-01", "f": 1e300,
        });
        insta::assert_snapshot!(document(&value), @r#"
        users:
          - name: forge
            sudo: "ALL=(ALL) NOPASSWD:ALL"
            keys:
              - "a b"
              - c
          - default
        "on":
          - - 1
            - 2
          - []
          - {}
        "n": null
        at: "22:22"
        day: "2026-01-01"
        f: 1.0e+300
        "#);
        insta::assert_snapshot!(inline(&value["users"][0]), @r#"{name: forge, sudo: "ALL=(ALL) NOPASSWD:ALL", keys: ["a b", c]}"#);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[a-zA-Z0-9:~._-]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_equal(value in any_value()) {
            let held = json!({ "v": value });
            let read: Value = serde_yaml::from_str(&document(&held)).expect("YAML");
            prop_assert_eq!(&read, &held);
            let read: Value = serde_yaml::from_str(&format!("v: {}\n", inline(&held["v"]))).expect("YAML");
            prop_assert_eq!(&read, &held);
        }
    }

    /// cloud-init's own reader is PyYAML; without it here, the test says so and passes.
    #[test]
    fn pyyaml_reads_back_what_was_written() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let available = Command::new("python3").args(["-c", "import yaml"]).stderr(Stdio::null()).status();
        if !available.is_ok_and(|status| status.success()) {
            crate::skipped("there is no python3 with PyYAML here");
            return;
        }
        let awkward = [
            "",
            " ",
            "~",
            "on",
            "NO",
            "y",
            "null",
            "0",
            "0x1f",
            "0o17",
            "1_000",
            "22:22",
            "1e5",
            ".inf",
            ".nan",
            "-",
            "2026-01-01",
            "a: b",
            "a #b",
            "#a",
            "- a",
            "? a",
            "!a",
            "&a",
            "*a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "<<",
            "=",
            "'",
            "\"",
            "\\",
            "a\nb",
            "\n",
            "a\r\nb",
            "\t",
            "\u{0}",
            "\u{7}",
            "\u{85}",
            "\u{a0}",
            "\u{2028}",
            "\u{feff}",
            "\u{fffe}",
            "\u{1f600}",
            "---",
            "...",
            "{",
            "}",
            "[",
            "]",
            ",",
            "é",
            "$6$a.b/c",
            "{{ x }}",
        ];
        let values: Vec<Value> = awkward.into_iter().map(Value::from).collect();
        let keys: serde_json::Map<String, Value> =
            awkward.into_iter().map(|word| (word.to_owned(), json!([word, 1e300, 0.1, -5, true]))).collect();
        let held = json!({ "list": values, "table": keys });
        let script = "import sys, yaml, json; json.dump(yaml.safe_load(sys.stdin.buffer.read()), sys.stdout)";
        let mut python = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        python.stdin.take().expect("piped").write_all(document(&held).as_bytes()).expect("written");
        let output = python.wait_with_output().expect("ended");
        let read: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(read, held);
    }
}
