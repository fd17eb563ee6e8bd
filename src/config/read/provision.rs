//! `[[provision]]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Load, beside};
use crate::config::findings::Finding;
use crate::config::place::{Node, Place, Spot};
use crate::config::profile::Provisioner;
use crate::config::reader::Reader;

/// How much of a command names a step that has no name.
const NAME_LENGTH: usize = 40;

/// The keys of a provisioner.
const KEYS: [&str; 12] = [
    "name",
    "enabled",
    "shell",
    "script",
    "scripts",
    "env",
    "become",
    "valid-exit-codes",
    "timeout",
    "expect-disconnect",
    "only",
    "except",
];

/// What a provisioner runs.
enum Script {
    Inline(String),
    Files(Vec<(String, Place)>),
}

impl Load<'_> {
    pub(super) fn provision(&mut self, root: &mut Reader<'_>) -> Vec<Provisioner> {
        let mut steps = Vec::new();
        for mut reader in root.tables("provision", &mut self.findings) {
            let enabled = reader.flag("enabled", &mut self.findings).unwrap_or(true);
            let before = self.findings.len();
            let found = self.provisioner(&mut reader, enabled);
            if !enabled {
                // What is switched off need not be whole; its keys are still checked below.
                self.findings.truncate(before);
            }
            reader.done(&mut self.findings);
            steps.extend(found.into_iter().filter(|_| enabled));
        }
        steps
    }

    fn provisioner(&mut self, reader: &mut Reader<'_>, enabled: bool) -> Vec<Provisioner> {
        let name = reader.raw_text("name", &mut self.findings).unwrap_or_default();
        let script = self.script(reader);
        let step = Provisioner {
            name,
            script: String::new(),
            file: None,
            env: self.env(reader),
            r#become: reader.flag("become", &mut self.findings).unwrap_or(false),
            valid_exit_codes: exit_codes(reader, &mut self.findings),
            timeout: reader.time("timeout", &mut self.findings),
            expect_disconnect: reader.flag("expect-disconnect", &mut self.findings).unwrap_or(false),
            only: reader.texts("only", &mut self.findings).unwrap_or_default(),
            except: reader.texts("except", &mut self.findings).unwrap_or_default(),
        };
        match script {
            Some(Script::Inline(text)) => {
                let first: String =
                    text.lines().next().unwrap_or_default().chars().take(NAME_LENGTH).collect();
                let name = if step.name.is_empty() { first } else { step.name.clone() };
                vec![Provisioner { name, script: text, ..step }]
            }
            Some(Script::Files(paths)) if enabled => {
                let single = paths.len() == 1;
                let named = |path: &String| match step.name.as_str() {
                    "" => path.clone(),
                    name if single => name.to_owned(),
                    name => format!("{name}: {path}"),
                };
                paths
                    .iter()
                    .map(|(path, place)| {
                        let (file, script) = self.script_file(path, place, &reader.name("script"));
                        Provisioner { name: named(path), script, file: Some(file), ..step.clone() }
                    })
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// What it runs: exactly one of `shell`, `script` and `scripts`.
    fn script(&mut self, reader: &mut Reader<'_>) -> Option<Script> {
        let before = self.findings.len();
        let shell = match reader.any("shell").map(|spot| &spot.node) {
            Some(Node::Text(text)) => Some(text.clone()),
            Some(_) => reader.texts("shell", &mut self.findings).map(|lines| lines.join("\n")),
            None => None,
        };
        let one = reader
            .raw_text("script", &mut self.findings)
            .map(|path| (path, reader.place_of("script").clone()));
        let several: Option<Vec<(String, Place)>> = match reader.any("scripts").map(|spot| &spot.node) {
            Some(Node::List(items)) => {
                reader.texts("scripts", &mut self.findings);
                let text = |spot: &Spot| match &spot.node {
                    Node::Text(text) => Some((text.clone(), spot.place.clone())),
                    _ => None,
                };
                Some(items.iter().filter_map(text).collect())
            }
            Some(_) => reader.texts("scripts", &mut self.findings).map(|_| Vec::new()),
            None => None,
        };
        let what = match (shell, one, several) {
            (Some(text), None, None) if text.trim().is_empty() => None,
            (Some(text), None, None) => Some(Script::Inline(text)),
            (None, Some(file), None) => Some(Script::Files(vec![file])),
            (None, None, Some(files)) if !files.is_empty() => Some(Script::Files(files)),
            (None, None, _) => None,
            _ => {
                let message = "`shell`, `script` and `scripts` exclude each other";
                let finding = Finding::at(reader.place(), reader.path(), message);
                self.findings.push(finding.help("write one provisioner for each"));
                return None;
            }
        };
        let misspelt = || reader.entries().any(|(key, ..)| !KEYS.contains(&key));
        if what.is_none() && self.findings.len() == before && !misspelt() {
            let finding = Finding::at(reader.place(), reader.path(), "this provisioner runs nothing");
            self.findings.push(finding.help("give it `shell = [\"command\"]` or `script = \"file.sh\"`"));
        }
        what
    }

    fn script_file(&mut self, path: &str, place: &Place, setting: &str) -> (PathBuf, String) {
        let file = beside(place, path);
        let text = (self.context.read_file)(&file).unwrap_or_else(|error| {
            let message = format!("the script {} can't be read: {error}", file.display());
            let finding = Finding::at(place, setting, message);
            self.findings.push(finding.help("paths are relative to the file that names them"));
            String::new()
        });
        (file, text)
    }

    fn env(&mut self, reader: &mut Reader<'_>) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let Some(table) = reader.table("env", &mut self.findings) else { return env };
        for (key, place, spot) in table.entries() {
            let fits = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !fits {
                let finding =
                    Finding::at(place, table.name(key), format!("`{key}` is no name for a variable"));
                self.findings.push(finding.help("letters, digits and `_`, no digit first"));
            }
            let value = match &spot.node {
                Node::Text(_) | Node::Integer(_) | Node::Bool(_) => self.fill_in(spot, &table.name(key)),
                node => {
                    let message = format!("expected a string, integer or truth value, found {}", node.kind());
                    self.findings.push(Finding::at(&spot.place, table.name(key), message));
                    continue;
                }
            };
            env.insert(key.to_owned(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        env
    }
}

fn exit_codes(reader: &mut Reader<'_>, findings: &mut Vec<Finding>) -> Vec<i32> {
    let Some(spot) = reader.any("valid-exit-codes") else { return vec![0] };
    let Node::List(items) = &spot.node else {
        let message = format!("expected an array of integers, found {}", spot.node.kind());
        findings.push(reader.finding("valid-exit-codes", message));
        return vec![0];
    };
    let mut codes = Vec::new();
    for item in items {
        match &item.node {
            Node::Integer(code) if (0..=255).contains(code) => codes.extend(i32::try_from(*code)),
            _ => {
                let finding =
                    Finding::at(&item.place, reader.name("valid-exit-codes"), "this is no exit code");
                findings.push(finding.help("integers from 0 to 255"));
            }
        }
    }
    if codes.is_empty() { vec![0] } else { codes }
}
