//! Reads the merged table of a profile into a [`Profile`], collecting everything that is wrong with it.

mod access;
mod boot;
mod boot_lint;
mod hardware;
mod provision;
mod provision_windows;
mod seed;
mod seed_files;
mod source;
mod system;
mod vm;

#[cfg(test)]
pub(crate) use seed::RUNGS;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forge_machine::FileFormat;

use super::findings::{Finding, in_order, suggest};
use super::place::{Node, Place, Spot, Table};
use super::profile::{DeadlineConfig, Os, Profile, Source, Tested};
use super::reader::Reader;
use super::template::{Scope, Template, parse as parse_template};
use super::variables::{Given, Variables};

/// Names of files, with their sizes in bytes.
pub type SizedFiles = Vec<(String, u64)>;

/// What reading a profile needs besides its text.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Values for its variables.
    pub given: &'a Given,
    /// Reads a script's file; relative paths are already resolved.
    pub read_file: &'a dyn Fn(&Path) -> std::io::Result<String>,
    /// Reads a picture that a profile names.
    pub read_bytes: &'a dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
    /// The files at a path with their sizes: a file alone, without a name; or those below a folder, by their names there.
    pub walk: &'a dyn Fn(&Path) -> std::io::Result<SizedFiles>,
    /// Whether a file or folder that is to be uploaded is there.
    pub exists: &'a dyn Fn(&Path) -> bool,
}

/// Reads the merged table of a profile; `files` are those it came from, with their SHA-256.
///
/// There is a profile when no finding is fatal. A base, which has no name and no source that is whole, is checked as far as
/// it goes, and is none.
#[must_use]
pub fn profile(
    table: &Table,
    place: &Place,
    files: Vec<(PathBuf, String)>,
    context: &Context<'_>,
) -> (Option<Profile>, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut root = Reader::new(table, "", place.clone());
    root.any("extends");
    match root.any("schema").map(|spot| &spot.node) {
        Some(Node::Integer(1)) => {}
        Some(Node::Integer(other)) => {
            findings
                .push(root.finding("schema", format!("this version of forge reads `schema` 1, not {other}")));
        }
        Some(_) => {
            root.integer("schema", 1, 1, &mut findings);
        }
        None => {
            let finding = root.finding("schema", "`schema` is missing");
            findings.push(finding.help("write `schema = 1` as the first line"));
        }
    }
    let variables = root.table("variables", &mut findings);
    let variables = Variables::read(variables, context.given, &mut findings);
    let base = is_base(table, &place.file);
    let mut load = Load { variables: &variables, context, base, findings, mirrors: BTreeMap::new() };
    if base {
        let source = if table.get("source").is_none() { " and no `[source]`" } else { "" };
        let finding =
            Finding::at(place, "name", format!("this file has no `name`{source}: it builds nothing"));
        load.findings.push(finding.help("it is a base; name a profile that extends it").warning());
    }
    let name = if base { "base".into() } else { load.name(&mut root) };
    let os = load.os(&mut root);
    let (template_name, description, tags, test) = load.template(&mut root, &name);
    let (formats, compress) = load.files(&mut root);
    let source =
        if base && table.get("source").is_none() { Source::default() } else { load.source(&mut root) };
    let vm = load.vm(&mut root);
    let boot = load.boot(&mut root);
    let access = load.access(&mut root, os.family == "windows");
    let seed = load.seed(&mut root, &os, &vm, &access);
    let provision = load.provision(&mut root, os.family == "windows");
    let seal = load.seal(&mut root, os.family == "windows");
    let deadlines = load.deadlines(&mut root);
    load.lint_time(&root, &boot, &deadlines);
    let mut findings = load.findings;
    root.done(&mut findings);

    let mut places = BTreeMap::new();
    collect_places(table, "", &mut places);
    let mut secrets = variables.secrets().clone();
    secrets.add(vm.proxmox.get("cipassword").cloned().unwrap_or_default());
    let profile = Profile {
        name,
        os,
        template_name,
        description,
        tags,
        test,
        formats,
        compress,
        source,
        vm,
        seed,
        boot,
        access,
        provision,
        seal,
        deadlines,
        files,
        secrets,
        places,
    };
    if !base {
        findings.extend(access::no_login(&profile));
    }
    let usable = !base && findings.iter().all(|finding| !finding.fatal);
    (usable.then_some(profile), in_order(findings))
}

/// Whether a file is there to be extended: it has no name, and is called a base or names nothing to start from. What of a
/// medium's own files is started needs the medium.
fn is_base(table: &Table, file: &Path) -> bool {
    let called = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("base-"));
    let starts = match table.get("source").map(|spot| &spot.node) {
        None => false,
        Some(Node::Table(source)) => {
            let inside = |spot: &Spot| matches!(&spot.node, Node::Table(file) if file.get("iso").is_some());
            ["clone", "image", "iso"].iter().any(|key| source.get(key).is_some())
                || source.get("kernel").is_some_and(|spot| !inside(spot))
        }
        Some(_) => true,
    };
    table.get("name").is_none() && (called || !starts)
}

fn collect_places(table: &Table, path: &str, places: &mut BTreeMap<String, Place>) {
    for (key, place, spot) in &table.entries {
        let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        // Of a table the key is what a person looks for, of anything else the value.
        let place = if matches!(spot.node, Node::Table(_)) { place } else { &spot.place };
        collect_places_of(spot, &name, places);
        places.insert(name, place.clone());
    }
}

fn collect_places_of(spot: &Spot, name: &str, places: &mut BTreeMap<String, Place>) {
    match &spot.node {
        Node::Table(inner) => collect_places(inner, name, places),
        Node::List(items) => {
            for (index, item) in items.iter().enumerate() {
                let name = format!("{name}[{index}]");
                collect_places_of(item, &name, places);
                places.insert(name, item.place.clone());
            }
        }
        _ => {}
    }
}

/// What is read with, and what was found.
struct Load<'a> {
    variables: &'a Variables,
    context: &'a Context<'a>,
    /// Whether the file is a base: what is missing in it is not told.
    base: bool,
    findings: Vec<Finding>,
    /// Further URLs of media, by their first.
    mirrors: BTreeMap<String, Vec<String>>,
}

impl Load<'_> {
    fn templated(&mut self, text: &str, scope: Scope, setting: &str, place: &Place) -> Template {
        parse_template(text, scope, setting, place, self.variables, &mut self.findings)
    }

    /// A name in which variables and the environment are filled in, but no secret.
    fn filled(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<String> {
        let text = reader.raw_text(key, &mut self.findings)?;
        let place = reader.place_of(key).clone();
        let before = self.findings.len();
        let template = self.templated(&text, Scope::Name, &reader.name(key), &place);
        template.to_text(|_| String::new()).filter(|_| self.findings.len() == before)
    }

    /// A value as JSON, with variables filled in in every string.
    fn fill_in(&mut self, spot: &Spot, setting: &str) -> serde_json::Value {
        match &spot.node {
            Node::Text(text) => {
                let template = self.templated(text, Scope::Load, setting, &spot.place);
                template.to_text(|_| String::new()).unwrap_or_default().into()
            }
            Node::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| self.fill_in(item, &format!("{setting}[{index}]")))
                .collect(),
            Node::Table(table) => table
                .entries
                .iter()
                .map(|(key, _, spot)| (key.clone(), self.fill_in(spot, &format!("{setting}.{key}"))))
                .collect(),
            _ => spot.to_json(),
        }
    }

    fn name(&mut self, root: &mut Reader<'_>) -> String {
        let name = root.required("name", &mut self.findings);
        let fits = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.len() <= 40
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'));
        if !name.is_empty() && !fits {
            let finding = root.finding("name", format!("`{name}` is no name for a profile"));
            let help = "lower-case letters, digits, `-` and `.`, a letter or digit first, 40 at most";
            self.findings.push(finding.help(help));
        }
        name
    }

    fn os(&mut self, root: &mut Reader<'_>) -> Os {
        let Some(mut reader) = root.table("os", &mut self.findings) else {
            return Os { family: "linux".into(), ..Os::default() };
        };
        let os = Os {
            family: reader
                .word("family", &["linux", "windows"], &mut self.findings)
                .unwrap_or_else(|| "linux".into()),
            distribution: reader.text("distribution", &mut self.findings).unwrap_or_default(),
            version: reader.text("version", &mut self.findings).unwrap_or_default(),
            tested: reader.word("tested", &Tested::NAMES, &mut self.findings).and_then(|word| {
                [Tested::Real, Tested::Reader, Tested::Read].into_iter().find(|each| each.name() == word)
            }),
        };
        reader.done(&mut self.findings);
        os
    }

    fn template(&mut self, root: &mut Reader<'_>, profile: &str) -> (Template, Template, Vec<String>, bool) {
        let default = format!("tpl-{profile}");
        let Some(mut reader) = root.table("template", &mut self.findings) else {
            let place = root.place().clone();
            let name = self.templated(&default, Scope::Plan, "template.name", &place);
            return (name, Template::default(), Vec::new(), false);
        };
        let name = reader.raw_text("name", &mut self.findings).unwrap_or(default);
        let place = reader.place_of("name").clone();
        let before = self.findings.len();
        let template = self.templated(&name, Scope::Plan, "template.name", &place);
        // What planning fills in are digits and capitals, so a stand-in tells whether the name can be one.
        let sample = template.to_text(|_| "0".into()).filter(|_| self.findings.len() == before);
        if sample.is_some_and(|sample| !is_dns_name(&sample)) {
            let finding = reader.finding("name", format!("`{name}` is no name for a VM"));
            self.findings.push(finding.help("letters, digits and `-`, at most 63 between dots; no `_`"));
        }
        let description = self.description(&mut reader);
        let tags = reader.texts("tags", &mut self.findings).unwrap_or_default();
        for (index, tag) in tags.iter().enumerate().filter(|(_, tag)| !is_tag(tag)) {
            let place = match reader.any("tags").map(|spot| &spot.node) {
                Some(Node::List(items)) => items.get(index).map(|item| item.place.clone()),
                _ => None,
            };
            let place = place.unwrap_or_else(|| reader.place().clone());
            let finding = Finding::at(&place, "template.tags", format!("`{tag}` is no tag"));
            self.findings
                .push(finding.help("letters, digits, `_`, `-`, `+` and `.`; a letter, digit or `_` first"));
        }
        let test = reader.flag("test", &mut self.findings).unwrap_or(false);
        reader.done(&mut self.findings);
        (template, description, tags, test)
    }

    /// What people write into a template's notes.
    fn description(&mut self, reader: &mut Reader<'_>) -> Template {
        let Some(text) = reader.raw_text("description", &mut self.findings) else {
            return Template::default();
        };
        // Proxmox takes 8 KiB of notes (qemu-server, `description`), and forge's own mark is such a comment.
        if text.len() > 6000 {
            let message = format!("{} bytes are more than a VM's notes have room for", text.len());
            self.findings.push(reader.finding("description", message).help("6000 at most"));
        }
        if text.contains("<!--") {
            let finding = reader.finding("description", "there can be no HTML comment in it");
            self.findings.push(finding.help("forge marks its VMs by one: leave `<!--` out"));
        }
        let place = reader.place_of("description").clone();
        self.templated(&text, Scope::Plan, "template.description", &place)
    }

    /// What becomes of the image on a target that makes files.
    fn files(&mut self, root: &mut Reader<'_>) -> (Vec<FileFormat>, bool) {
        let default = (vec![FileFormat::Qcow2], false);
        let Some(mut reader) = root.table("output", &mut self.findings) else { return default };
        let known = FileFormat::ALL.map(FileFormat::name);
        let named = reader.any("formats").is_some();
        let mut formats = Vec::new();
        for name in reader.texts("formats", &mut self.findings).unwrap_or_default() {
            match FileFormat::ALL.into_iter().find(|format| format.name() == name) {
                Some(format) if formats.contains(&format) => {
                    self.findings.push(reader.finding("formats", format!("`{name}` is named twice")));
                }
                Some(format) => formats.push(format),
                None => {
                    let finding = reader.finding("formats", format!("`{name}` is no format of an image"));
                    self.findings.push(finding.help(suggest(&name, &known)));
                }
            }
        }
        if formats.is_empty() {
            if named {
                let finding = reader.finding("formats", "no format is named, so nothing would be written");
                self.findings.push(finding.help("there are: qcow2, raw, vmdk"));
            }
            formats = default.0;
        }
        let compress = reader.flag("compress", &mut self.findings).unwrap_or(false);
        reader.done(&mut self.findings);
        (formats, compress)
    }

    fn seal(&mut self, root: &mut Reader<'_>, windows: bool) -> BTreeMap<String, bool> {
        let operations = crate::seal::operations(windows);
        let mut known: Vec<&str> = operations.iter().map(|operation| operation.name).collect();
        let mut seal: BTreeMap<String, bool> = known.iter().map(|name| ((*name).to_owned(), true)).collect();
        known.push("dry-run");
        let Some(reader) = root.table("seal", &mut self.findings) else { return seal };
        for (key, place, spot) in reader.entries() {
            if !known.contains(&key) {
                let finding =
                    Finding::at(place, reader.name(key), format!("there is no seal operation `{key}`"));
                self.findings.push(finding.help(suggest(key, &known)));
                continue;
            }
            match &spot.node {
                Node::Bool(flag) => {
                    seal.insert(key.to_owned(), *flag);
                }
                node => {
                    let message = format!("expected true or false, found {}", node.kind());
                    self.findings.push(Finding::at(&spot.place, reader.name(key), message));
                }
            }
        }
        seal
    }

    fn deadlines(&mut self, root: &mut Reader<'_>) -> DeadlineConfig {
        let mut deadlines = DeadlineConfig::default();
        let Some(mut reader) = root.table("deadlines", &mut self.findings) else { return deadlines };
        let findings = &mut self.findings;
        deadlines.boot = reader.time("boot", findings).unwrap_or(deadlines.boot);
        deadlines.connect = reader.time("connect", findings).unwrap_or(deadlines.connect);
        deadlines.shutdown = reader.time("shutdown", findings).unwrap_or(deadlines.shutdown);
        deadlines.build = match reader.any("build").map(|spot| &spot.node) {
            Some(Node::Text(text)) if text == "none" => None,
            _ => reader.time("build", findings),
        };
        reader.done(findings);
        deadlines
    }
}

/// A path relative to the file that names it.
fn beside(place: &Place, path: &str) -> PathBuf {
    place.file.parent().unwrap_or(Path::new("")).join(path)
}

fn is_dns_name(name: &str) -> bool {
    !name.is_empty()
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
}

/// As Proxmox takes them (`pve-tag`, pve-common's JSONSchema.pm).
fn is_tag(tag: &str) -> bool {
    tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '.'))
}

fn is_user_name(user: &str) -> bool {
    user.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && user.len() <= 32
        && user.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
}
