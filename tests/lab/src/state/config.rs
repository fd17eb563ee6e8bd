//! A VM's configuration as text and as JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use sha1::{Digest, Sha1};

use crate::schema::{schema, split_list};

/// Keys and values as in the configuration file.
pub type Config = BTreeMap<String, String>;

/// The JSON of one value: numbers for what the schema calls integer, boolean or number, else text. `memory` is
/// text since it became a property string.
pub fn typed(key: &str, value: &str) -> Value {
    if key == "cipassword" {
        return "**********".into();
    }
    json_value(schema().config_type(key), value)
}

fn json_value(kind: Option<&str>, value: &str) -> Value {
    match kind {
        Some("integer" | "boolean") => value.parse::<i64>().map_or_else(|_| value.into(), Value::from),
        Some("number") => value.parse::<f64>().map_or_else(|_| value.into(), Value::from),
        _ => value.into(),
    }
}

/// The answer of `GET config`.
pub fn config_json(config: &Config, digest: &str) -> Value {
    let mut answer = Map::new();
    for (key, value) in config {
        answer.insert(key.clone(), typed(key, value));
    }
    answer.insert("digest".to_owned(), digest.into());
    Value::Object(answer)
}

/// The SHA-1 of the configuration file with its pending section.
pub fn digest(config: &Config, pending: &BTreeMap<String, Option<String>>) -> String {
    let mut hash = Sha1::new();
    for (key, value) in config {
        hash.update(format!("{key}: {value}\n"));
    }
    for (key, value) in pending {
        hash.update(format!("[PENDING] {key}: {value:?}\n"));
    }
    crate::ids::hex(&hash.finalize())
}

/// Tags as Proxmox keeps them: lower case, sorted, each once, joined by `;`.
pub fn normalise_tags(tags: &str) -> String {
    let set: BTreeSet<String> = split_list(tags).map(str::to_lowercase).collect();
    set.into_iter().collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_proxmox_s_loose_types() {
        assert_eq!(typed("cores", "2"), Value::from(2));
        assert_eq!(typed("memory", "512"), Value::from("512"));
        assert_eq!(typed("kvm", "0"), Value::from(0));
        assert_eq!(typed("cipassword", "x"), Value::from("**********"));
        assert_eq!(normalise_tags("Forge;build-2026 forge"), "build-2026;forge");
    }
}
