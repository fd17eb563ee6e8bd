//! What is in a clone: packages, units, users, open ports, files of `/etc`, sizes. Written by the check `inventory`, kept
//! in the evidence, compared by `forge diff`. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Its name in the evidence.
pub const FILE: &str = "inventory.json";

/// Things by name with what else is known of each, in sections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inventory(pub BTreeMap<String, BTreeMap<String, String>>);

impl Inventory {
    /// Reads what the check wrote: `[section]`, then a name, a tab and the rest on each line.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut current = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                current = Some(name.to_owned());
                sections.entry(name.to_owned()).or_default();
                continue;
            }
            let (Some(section), false) = (&current, line.is_empty()) else { continue };
            let (name, rest) = line.split_once('\t').unwrap_or((line, ""));
            sections.entry(section.clone()).or_default().insert(name.to_owned(), rest.to_owned());
        }
        Self(sections)
    }
}

/// How one thing differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    /// Its section.
    pub section: String,
    /// Its name.
    pub name: String,
    /// What is known of it in the first; `None` where it is not.
    pub before: Option<String>,
    /// What is known of it in the second.
    pub after: Option<String>,
}

impl Difference {
    /// `+` for what only the second has, `-` for what only the first has, `~` for what both have and differs.
    #[must_use]
    pub fn mark(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "+",
            (_, None) => "-",
            _ => "~",
        }
    }
}

/// What differs from the first to the second, by section and name.
#[must_use]
pub fn differences(first: &Inventory, second: &Inventory) -> Vec<Difference> {
    let none = BTreeMap::new();
    let mut sections: Vec<&String> = first.0.keys().chain(second.0.keys()).collect();
    sections.sort();
    sections.dedup();
    let mut found = Vec::new();
    for section in sections {
        let (before, after) = (first.0.get(section).unwrap_or(&none), second.0.get(section).unwrap_or(&none));
        let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
        names.sort();
        names.dedup();
        for name in names.into_iter().filter(|name| before.get(*name) != after.get(*name)) {
            found.push(Difference {
                section: section.clone(),
                name: name.clone(),
                before: before.get(name).cloned(),
                after: after.get(name).cloned(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_is_read_and_compared_section_by_section() {
        let first =
            Inventory::read("[packages]\nbash:amd64\t5.2-1\nvim:amd64\t9.0\n[ports]\ntcp/22\t\n[files]\n");
        let second = Inventory::read(
            "[packages]\nbash:amd64\t5.2-2\n[ports]\ntcp/22\t\ntcp/80\t\n[users]\nroot\tuid 0\n",
        );
        assert_eq!(first.0["packages"]["bash:amd64"], "5.2-1");
        assert!(first.0["files"].is_empty());
        let words: Vec<String> = differences(&first, &second)
            .into_iter()
            .map(|each| format!("{} {} {:?} {:?}", each.section, each.name, each.before, each.after))
            .collect();
        assert_eq!(
            words,
            [
                r#"packages bash:amd64 Some("5.2-1") Some("5.2-2")"#,
                r#"packages vim:amd64 Some("9.0") None"#,
                r#"ports tcp/80 None Some("")"#,
                r#"users root None Some("uid 0")"#,
            ]
        );
        assert_eq!(differences(&first, &first), []);
        let json = serde_json::to_string(&first).expect("plain");
        assert_eq!(serde_json::from_str::<Inventory>(&json).expect("read back"), first);
    }
}
