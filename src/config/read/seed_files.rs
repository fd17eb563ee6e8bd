//! `directory` and `files` of `[seed]`, `[seed.disc]` and `[seed.floppy]`: files of the profile's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forge_http_seed::SeedSet;
use forge_http_seed::answers::{Kind, TemplateFile};
use forge_http_seed::disc::{self, DiscError};

use super::{Load, beside};
use crate::config::beside::{BesideFile, Content, LARGEST, OwnMedium, sha256};
use crate::config::findings::Finding;
use crate::config::place::{Node, Place, Spot};
use crate::config::reader::Reader;

/// A file that a profile names, or that lies below a folder which it names.
struct Named {
    /// The path by which the guest finds it.
    name: String,
    /// Where that is said.
    place: Place,
    /// The setting that says it.
    setting: String,
    /// What is in it.
    from: Origin,
    /// Whether it is named by itself, and not by its folder alone.
    by_itself: bool,
}

/// Where a file's content comes from.
enum Origin {
    Text(String),
    File(PathBuf, u64),
}

impl Named {
    fn wrong(&self, message: impl Into<String>) -> Finding {
        Finding::at(&self.place, self.setting.clone(), message)
    }
}

impl Load<'_> {
    /// The files of `[seed]`: those that stand in the place of the kind's own templates, and those beside the seed.
    pub(super) fn own_files(
        &mut self,
        reader: &mut Reader<'_>,
        kind: Kind,
    ) -> (BTreeMap<String, TemplateFile>, Vec<BesideFile>) {
        let (mut templates, mut others) = (BTreeMap::new(), Vec::new());
        for named in self.named_files(reader) {
            let of_seed = kind.templates().iter().any(|(name, _)| *name == named.name);
            if kind == Kind::Nocloud && of_seed {
                let finding = named.wrong(format!("`{}` of a NoCloud seed is written by forge", named.name));
                self.findings.push(finding.help("add to it with [seed.user-data] or [seed.network-config]"));
                continue;
            }
            let answers = kind != Kind::Nocloud;
            let (path, bytes) = match &named.from {
                Origin::Text(text) if answers => {
                    let file =
                        TemplateFile { shown: named.setting.clone(), text: text.clone(), template: false };
                    templates.insert(named.name, file);
                    continue;
                }
                Origin::Text(text) => {
                    others.push(BesideFile { name: named.name, content: Content::Text(text.clone()) });
                    continue;
                }
                Origin::File(path, _) => (path, self.bytes_of(&named)),
            };
            let Some(bytes) = bytes else { continue };
            let template = named.by_itself && path.extension().is_some_and(|ending| ending == "tera");
            if template && !answers {
                let finding = named.wrong("nothing fills in a template beside a NoCloud seed");
                self.findings.push(finding.help("`{ content = \"…\" }` in its place takes `{{ var.NAME }}`"));
                continue;
            }
            if !answers || !(of_seed || named.by_itself) {
                others.push(file_of(&named, path, &bytes));
                continue;
            }
            match String::from_utf8(bytes) {
                Ok(text) => {
                    let shown = path.display().to_string();
                    templates.insert(named.name, TemplateFile { shown, text, template });
                }
                Err(_) if of_seed || template => {
                    let message = format!("{} is no text, in UTF-8", path.display());
                    self.findings.push(named.wrong(message));
                }
                Err(error) => others.push(file_of(&named, path, error.as_bytes())),
            }
        }
        (templates, others)
    }

    /// `[seed.disc]` or `[seed.floppy]`, and what makes one.
    pub(super) fn own_medium(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        make: fn(&str, &SeedSet) -> Result<Vec<u8>, DiscError>,
    ) -> Option<OwnMedium> {
        let mut table = reader.table(key, &mut self.findings)?;
        let label = table.text("label", &mut self.findings);
        let mut files = Vec::new();
        for named in self.named_files(&mut table) {
            match &named.from {
                Origin::Text(text) => {
                    files.push(BesideFile { name: named.name, content: Content::Text(text.clone()) });
                }
                Origin::File(path, _) => {
                    let bytes = self.bytes_of(&named);
                    files.extend(bytes.map(|bytes| file_of(&named, path, &bytes)));
                }
            }
        }
        // What a medium can't hold is known by the names alone, and of a small one by the sizes.
        let small = key == "floppy";
        let as_large = |file: &BesideFile| {
            vec![0_u8; if small { usize::try_from(file.bytes()).unwrap_or_default() } else { 0 }]
        };
        let names = files.iter().fold(SeedSet::default(), |set, file| set.with(&file.name, as_large(file)));
        let label_alone = label.as_deref().map(|label| make(label, &SeedSet::default()));
        for (key, tried) in [("label", label_alone), ("files", Some(make(disc::CIDATA, &names)))] {
            if let Some(Err(error)) = tried {
                self.findings.push(table.finding(key, error.to_string()));
            }
        }
        table.done(&mut self.findings);
        Some(OwnMedium { label, files })
    }

    /// The files of a table with `directory` and `files`; what is named by itself comes instead of what its folder has.
    fn named_files(&mut self, reader: &mut Reader<'_>) -> Vec<Named> {
        let mut all: BTreeMap<String, Named> = BTreeMap::new();
        if let Some(folder) = reader.text("directory", &mut self.findings) {
            let (place, setting) = (reader.place_of("directory").clone(), reader.name("directory"));
            let path = beside(&place, &folder);
            match (self.context.walk)(&path) {
                Ok(files) if files.iter().any(|(name, _)| name.is_empty()) => {
                    let finding = Finding::at(&place, setting, format!("{} is no folder", path.display()));
                    self.findings.push(finding.help("name a file in `files`: \"NAME\" = \"PATH\""));
                }
                found => all.extend(self.below(found, &path, "", (&place, &setting))),
            }
        }
        let Some(table) = reader.table("files", &mut self.findings) else {
            return self.within_bounds(reader, all.into_values().collect());
        };
        for (name, _, spot) in table.entries() {
            let setting = table.name(name);
            if let Err(error) = SeedSet::default().add(name, "") {
                self.findings.push(Finding::at(&spot.place, setting, error.to_string()));
                continue;
            }
            let Node::Text(path) = &spot.node else {
                let text = self.content(spot, &setting);
                all.extend(text.map(|text| {
                    let place = spot.place.clone();
                    let from = Origin::Text(text);
                    (name.to_owned(), Named { name: name.to_owned(), place, setting, from, by_itself: true })
                }));
                continue;
            };
            let path = beside(&spot.place, path);
            let found = (self.context.walk)(&path);
            all.extend(self.below(found, &path, name, (&spot.place, &setting)));
        }
        self.within_bounds(reader, all.into_values().collect())
    }

    /// The files at a path under a name: that one, or all below it.
    fn below(
        &mut self,
        found: std::io::Result<Vec<(String, u64)>>,
        path: &Path,
        name: &str,
        (place, setting): (&Place, &str),
    ) -> Vec<(String, Named)> {
        let wrong = |message: String| Finding::at(place, setting, message);
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.findings.push(wrong(format!("{} can't be read: {error}", path.display())));
                return Vec::new();
            }
        };
        if found.is_empty() {
            self.findings.push(wrong(format!("there is no file in {}", path.display())).warning());
        }
        let mut files = Vec::new();
        for (inner, bytes) in found {
            let (file, by_itself) = match inner.is_empty() {
                true => (path.to_owned(), true),
                false => (path.join(&inner), false),
            };
            let parts = [name, &inner];
            let name = parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
            if let Err(error) = SeedSet::default().add(&name, "") {
                let finding = wrong(format!("{}: {error}", file.display()));
                self.findings
                    .push(finding.help("rename it, or give it a name that can be asked for in `files`"));
                continue;
            }
            let from = Origin::File(file, bytes);
            let (place, setting) = (place.clone(), setting.to_owned());
            files.push((name.clone(), Named { name, place, setting, from, by_itself }));
        }
        files
    }

    /// The files, when they are not more than can be held.
    fn within_bounds(&mut self, reader: &Reader<'_>, files: Vec<Named>) -> Vec<Named> {
        let sizes = files.iter().map(|named| match &named.from {
            Origin::Text(text) => text.len() as u64,
            Origin::File(_, bytes) => *bytes,
        });
        let all: u64 = sizes.fold(0, u64::saturating_add);
        if all <= LARGEST {
            return files;
        }
        let key = if reader.entries().any(|(key, ..)| key == "files") { "files" } else { "directory" };
        let message = format!(
            "these files come to {}, and {} are the most that is held for a guest",
            crate::media::size(all),
            crate::media::size(LARGEST)
        );
        let help = "bring large ones by a medium of their own (`source.additional-isos`), or by `upload` once the guest is up";
        self.findings.push(reader.finding(key, message).help(help));
        Vec::new()
    }

    /// `{ content = "…" }`, with variables filled in.
    fn content(&mut self, spot: &Spot, setting: &str) -> Option<String> {
        let Node::Table(table) = &spot.node else {
            let message = format!(
                "expected the path of a file or folder, or {{ content = \"…\" }}, found {}",
                spot.node.kind()
            );
            self.findings.push(Finding::at(&spot.place, setting, message));
            return None;
        };
        let mut reader = Reader::new(table, setting, spot.place.clone());
        let inner = reader.any("content");
        let text = match inner.map(|inner| (inner, &inner.node)) {
            Some((inner, Node::Text(_))) => {
                let filled = self.fill_in(inner, &reader.name("content"));
                filled.as_str().map(str::to_owned)
            }
            Some(_) => reader.raw_text("content", &mut self.findings),
            None => {
                let finding = reader.finding("content", "the file's `content` is missing");
                self.findings.push(finding.help("or write its path: \"NAME\" = \"PATH\""));
                None
            }
        };
        reader.done(&mut self.findings);
        text
    }

    /// The bytes of a file.
    fn bytes_of(&mut self, named: &Named) -> Option<Vec<u8>> {
        let Origin::File(path, _) = &named.from else { return None };
        match (self.context.read_bytes)(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.findings.push(named.wrong(format!("{} can't be read: {error}", path.display())));
                None
            }
        }
    }
}

fn file_of(named: &Named, path: &Path, bytes: &[u8]) -> BesideFile {
    let content = Content::File { path: path.to_owned(), bytes: bytes.len() as u64, sha256: sha256(bytes) };
    BesideFile { name: named.name.clone(), content }
}
