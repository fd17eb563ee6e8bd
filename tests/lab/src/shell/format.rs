//! Answers as the programs print them: JSON with sorted keys, or tables in boxes.

use serde_json::Value;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Tables.
    #[default]
    Text,
    /// JSON on one line.
    Json,
    /// JSON, indented by three and with a blank before each colon.
    JsonPretty,
}

impl Format {
    /// By its name; `None` for one that the lab does not print.
    pub fn named(name: &str) -> Option<Format> {
        match name {
            "text" => Some(Format::Text),
            "json" => Some(Format::Json),
            "json-pretty" => Some(Format::JsonPretty),
            _ => None,
        }
    }

    /// An answer as text; `first` are the columns that come first.
    pub fn print(self, answer: &Value, first: &[&str]) -> String {
        match (self, answer) {
            // What answers nothing prints nothing.
            (_, Value::Null) => String::new(),
            (Format::Json, answer) => format!("{}\n", sorted(answer)),
            (Format::JsonPretty, answer) => format!("{}\n", pretty(&sorted(answer), 0)),
            (Format::Text, Value::Array(rows)) if rows.iter().all(Value::is_object) => rows_of(rows, first),
            (Format::Text, Value::Object(fields)) => {
                let mut rows: Vec<Vec<String>> =
                    fields.iter().map(|(key, value)| vec![key.clone(), cell(value)]).collect();
                rows.sort();
                boxed(&["key".to_owned(), "value".to_owned()], &rows)
            }
            (Format::Text, answer) => format!("{}\n", cell(answer)),
        }
    }
}

/// The same with the keys of all objects sorted.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(sorted).collect(),
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> =
                fields.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            fields.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(fields.into_iter().collect())
        }
        other => other.clone(),
    }
}

fn pretty(value: &Value, depth: usize) -> String {
    let (inner, outer) = ("   ".repeat(depth + 1), "   ".repeat(depth));
    match value {
        Value::Array(list) if !list.is_empty() => {
            let items: Vec<String> =
                list.iter().map(|item| format!("{inner}{}", pretty(item, depth + 1))).collect();
            format!("[\n{}\n{outer}]", items.join(",\n"))
        }
        Value::Object(fields) if !fields.is_empty() => {
            let items: Vec<String> = fields
                .iter()
                .map(|(key, value)| {
                    format!("{inner}{} : {}", Value::from(key.as_str()), pretty(value, depth + 1))
                })
                .collect();
            format!("{{\n{}\n{outer}}}", items.join(",\n"))
        }
        other => other.to_string(),
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => sorted(other).to_string(),
    }
}

fn rows_of(rows: &[Value], first: &[&str]) -> String {
    let mut columns: Vec<String> = first.iter().map(|name| (*name).to_owned()).collect();
    let mut others: Vec<String> = rows
        .iter()
        .flat_map(|row| row.as_object().into_iter().flatten())
        .map(|(key, _)| key.clone())
        .filter(|key| !first.contains(&key.as_str()))
        .collect();
    others.sort();
    others.dedup();
    columns.extend(others);
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|column| cell(&row[column.as_str()])).collect()).collect();
    boxed(&columns, &rows)
}

fn boxed(header: &[String], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column)).chain(header.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let rule = |left: &str, line: &str, middle: &str, right: &str| {
        let parts: Vec<String> = widths.iter().map(|width| line.repeat(width + 2)).collect();
        format!("{left}{}{right}\n", parts.join(middle))
    };
    let row = |cells: &[String]| {
        let parts: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} ")).collect();
        format!("│{}│\n", parts.join("│"))
    };
    let mut text = rule("┌", "─", "┬", "┐") + &row(header);
    for (number, cells) in rows.iter().enumerate() {
        text +=
            &if number == 0 { rule("╞", "═", "╪", "╡") } else { rule("├", "─", "┼", "┤") };
        text += &row(cells);
    }
    text + &rule("└", "─", "┴", "┘")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Format;

    #[test]
    fn answers_are_printed_as_a_real_node_prints_them() {
        let list = json!([{"special": 1, "roleid": "PVESDNUser", "privs": "SDN.Audit,SDN.Use"}]);
        let json = "[{\"privs\":\"SDN.Audit,SDN.Use\",\"roleid\":\"PVESDNUser\",\"special\":1}]\n";
        assert_eq!(Format::Json.print(&list, &[]), json);
        let pretty = "[\n   {\n      \"privs\" : \"SDN.Audit,SDN.Use\",\n      \"roleid\" : \"PVESDNUser\",\n      \
                      \"special\" : 1\n   }\n]\n";
        assert_eq!(Format::JsonPretty.print(&list, &[]), pretty);
        let acl = json!([
            {"path": "/", "roleid": "LP", "type": "user", "ugid": "lp@pve", "propagate": 1},
            {"path": "/", "roleid": "ForgeBuild", "type": "user", "ugid": "automation@pve", "propagate": 1},
        ]);
        let table = "\
┌──────┬────────────┬──────┬────────────────┬───────────┐
│ path │ roleid     │ type │ ugid           │ propagate │
╞══════╪════════════╪══════╪════════════════╪═══════════╡
│ /    │ LP         │ user │ lp@pve         │ 1         │
├──────┼────────────┼──────┼────────────────┼───────────┤
│ /    │ ForgeBuild │ user │ automation@pve │ 1         │
└──────┴────────────┴──────┴────────────────┴───────────┘
";
        assert_eq!(Format::Text.print(&acl, &["path", "roleid", "type", "ugid"]), table);
        assert_eq!(Format::Json.print(&json!(null), &[]), "");
    }
}
