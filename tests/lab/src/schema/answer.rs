//! Checks what the lab answers against what the schema says a method returns.
//!
//! Proxmox's JSON types are loose (proxmox.md §1): a number may come as text and a boolean as 0/1, so both pass. Members
//! that the schema does not name pass unless it says that there are none.

use serde_json::Value;

use super::{Method, Schema, is_optional};

impl Schema {
    /// Checks the `data` of an answer.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn check_answer(&self, method: &Method, data: &Value) -> Result<(), String> {
        self.check_value("data", &method.returns, data)
    }

    fn check_value(&self, path: &str, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = match schema.as_u64() {
            Some(index) => {
                usize::try_from(index).ok().and_then(|index| self.defs.get(index)).unwrap_or(schema)
            }
            None => schema,
        };
        if value.is_null() && is_optional(schema) {
            return Ok(());
        }
        let wrong = |wanted: &str| Err(format!("{path}: {wanted} is due, not {value}"));
        match schema["type"].as_str() {
            Some("array") => {
                let Some(items) = value.as_array() else { return wrong("an array") };
                for (index, item) in items.iter().enumerate() {
                    self.check_value(&format!("{path}[{index}]"), &schema["items"], item)?;
                }
                Ok(())
            }
            Some("object") => self.check_object(path, schema, value),
            Some("null") if !value.is_null() => wrong("null"),
            Some("integer") if !is_whole(value) => wrong("an integer"),
            Some("number") if !is_number(value) => wrong("a number"),
            Some("boolean") if !is_boolean(value) => wrong("a boolean"),
            Some("string") => {
                if !(value.is_string() || value.is_number()) {
                    return wrong("text");
                }
                match schema["enum"].as_array() {
                    Some(allowed) if !allowed.contains(value) => wrong(&format!("one of {}", schema["enum"])),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn check_object(&self, path: &str, schema: &Value, value: &Value) -> Result<(), String> {
        let Some(members) = value.as_object() else {
            return Err(format!("{path}: an object is due, not {value}"));
        };
        let Some(properties) = schema["properties"].as_object() else { return Ok(()) };
        for (name, property) in properties {
            let known = match property.as_u64() {
                Some(index) => usize::try_from(index).ok().and_then(|index| self.defs.get(index)),
                None => Some(property),
            };
            match members.get(name) {
                // Perl's undef: what is not there may also be null.
                None | Some(Value::Null) if known.is_none_or(is_optional) || name.ends_with("[n]") => {}
                None => return Err(format!("{path}: the member {name} is missing")),
                Some(member) => self.check_value(&format!("{path}.{name}"), property, member)?,
            }
        }
        let closed = schema.get("additionalProperties").is_some_and(|more| more == 0 || more == "0");
        let numbered = |name: &str| {
            let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
            properties.contains_key(&format!("{base}[n]"))
        };
        let stranger = members.keys().find(|name| !properties.contains_key(*name) && !numbered(name));
        match stranger {
            Some(name) if closed => Err(format!("{path}: the schema knows no member {name}")),
            _ => Ok(()),
        }
    }
}

fn is_whole(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_i64() || number.is_u64(),
        Value::String(text) => text.parse::<i64>().is_ok(),
        _ => false,
    }
}

fn is_number(value: &Value) -> bool {
    match value {
        Value::Number(_) => true,
        Value::String(text) => text.parse::<f64>().is_ok(),
        _ => false,
    }
}

fn is_boolean(value: &Value) -> bool {
    match value {
        Value::Bool(_) => true,
        Value::Number(number) => matches!(number.as_u64(), Some(0 | 1)),
        Value::String(text) => matches!(text.as_str(), "0" | "1" | ""),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schema;

    #[test]
    fn an_answer_that_breaks_the_schema_is_named_and_loose_types_pass() {
        let check = |method: &str, path: &str, data: serde_json::Value| {
            let segments: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
            let (_, method, _) = schema().find(method, &segments).expect("the route exists");
            schema().check_answer(method, &data)
        };
        assert_eq!(
            check("GET", "/nodes", json!([{"node": "pve", "status": "online", "maxcpu": "4"}])),
            Ok(())
        );
        assert_eq!(
            check("GET", "/nodes", json!([{"node": "pve", "status": "up"}])),
            Err("data[0].status: one of [\"unknown\",\"online\",\"offline\"] is due, not \"up\"".to_owned())
        );
        assert_eq!(
            check("GET", "/nodes", json!([{"status": "online"}])),
            Err("data[0]: the member node is missing".to_owned())
        );
        assert_eq!(check("POST", "/pools", json!("x")), Err("data: null is due, not \"x\"".to_owned()));
    }
}
