//! The only code of `config` that reads files: site files, profiles with what they extend, variables.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::extend::lay_over;
use super::findings::{Finding, in_order, suggest};
use super::place::{Node, Place, Spot, Table, parse};
use super::profile::Profile;
use super::read;
use super::secrets::Secret;
use super::site::{self, SecretRef, Site, TargetKind};
use super::variables::Given;
use super::{embedded, environment};

/// Where the site file is looked for. Debug leaves the environment out: it holds secrets.
#[derive(Clone, Default)]
pub struct SiteSearch {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--env-file`.
    pub env_file: Option<PathBuf>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
}

impl SiteSearch {
    /// The site file: what `--config` names, else the first that is there.
    #[must_use]
    pub fn site_file(&self) -> Option<PathBuf> {
        let found = || candidates(&self.environment).into_iter().find(|file| file.exists());
        self.config.clone().or_else(found)
    }
}

impl fmt::Debug for SiteSearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteSearch")
            .field("config", &self.config)
            .field("env_file", &self.env_file)
            .finish_non_exhaustive()
    }
}

/// Finds and reads the site file; without one, Packer's environment names. What an `--env-file` says wins over the
/// environment, and its variables are also those that a site file's `{ env = "NAME" }` means.
#[must_use]
pub fn load_site(search: &SiteSearch) -> (Site, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut from_file = BTreeMap::new();
    if let Some(file) = &search.env_file {
        match std::fs::read_to_string(file) {
            Ok(text) => {
                let (more, wrong) = environment::read_env_file(file, &text);
                from_file = more;
                findings.extend(wrong);
            }
            Err(error) => findings.push(Finding::in_file(file, format!("can't be read: {error}"))),
        }
    }
    let file = match from_file.contains_key("PROXMOX_URL") && search.config.is_none() {
        true => None,
        false => search.site_file(),
    };
    let site = match file {
        Some(file) => match std::fs::read_to_string(&file) {
            Ok(text) => {
                let (mut site, wrong) = site::read(&file, &text);
                findings.extend(wrong);
                fill_in_secrets(&mut site, &from_file);
                site
            }
            Err(error) => {
                findings.push(Finding::in_file(&file, format!("can't be read: {error}")));
                Site { origin: file.display().to_string(), ..Site::default() }
            }
        },
        None => {
            let origin =
                search.env_file.as_ref().map_or("the environment".into(), |file| file.display().to_string());
            let mut environment = search.environment.clone();
            environment.extend(from_file);
            let (site, wrong) = environment::from_environment(&environment, &origin);
            findings.extend(wrong);
            let none = format!("no forge.toml was found, and {origin}");
            site.unwrap_or(Site { origin: none, ..Site::default() })
        }
    };
    (site, in_order(findings))
}

/// Puts the secrets of an `--env-file` where the site file names their variables.
fn fill_in_secrets(site: &mut Site, variables: &BTreeMap<String, String>) {
    for target in site.targets.values_mut() {
        if let TargetKind::Proxmox(proxmox) = &mut target.kind {
            let given = match &proxmox.token_secret {
                SecretRef::Env(name) => variables.get(name),
                _ => None,
            };
            if let Some(secret) = given {
                proxmox.token_secret = SecretRef::Given(Secret::new(secret));
            }
        }
    }
}

fn candidates(environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let get = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = get("XDG_CONFIG_HOME").or_else(|| get("HOME").map(|home| home.join(".config")));
    std::iter::once(PathBuf::from("forge.toml"))
        .chain(user.map(|folder| folder.join("forge/forge.toml")))
        .collect()
}

/// Reads `--var`, `--var-file` and the environment.
#[must_use]
pub fn load_given(
    vars: &[String],
    files: &[PathBuf],
    environment: BTreeMap<String, String>,
) -> (Given, Vec<Finding>) {
    let mut given = Given { environment, ..Given::default() };
    let mut findings = Vec::new();
    for var in vars {
        match var.split_once('=') {
            Some((name, value)) => {
                given.command_line.insert(name.trim().to_owned(), value.to_owned());
            }
            None => findings.push(Finding::general(format!("--var {var}: this is no NAME=VALUE"))),
        }
    }
    for file in files {
        let table = std::fs::read_to_string(file)
            .map_err(|error| vec![Finding::in_file(file, format!("can't be read: {error}"))])
            .and_then(|text| parse(file, &text));
        match table {
            Ok(table) => {
                for (name, place, spot) in &table.entries {
                    let value = match &spot.node {
                        Node::Text(text) => text.clone(),
                        Node::Integer(number) => number.to_string(),
                        Node::Bool(flag) => flag.to_string(),
                        node => {
                            let message =
                                format!("expected a string, integer or truth value, found {}", node.kind());
                            findings.push(Finding::at(place, name, message));
                            continue;
                        }
                    };
                    given.files.insert(name.clone(), value);
                }
            }
            Err(wrong) => findings.extend(wrong),
        }
    }
    (given, findings)
}

/// So many files may extend each other.
const DEEPEST: usize = 16;
/// So deep may the folders of a seed go.
const DEEPEST_FOLDER: usize = 16;
/// So many files may a folder of a seed hold.
const MOST_FILES: usize = 2000;

/// Reads a profile with everything it extends. There is a profile when no finding is fatal.
#[must_use]
pub fn load_profile(file: &Path, given: &Given) -> (Option<Profile>, Vec<Finding>) {
    let mut chain = Chain::default();
    let table = chain.read(file, None);
    let Chain { files, mut findings } = chain;
    // Without its base a profile would make findings of everything that the base was to give.
    let Some(table) = table else { return (None, in_order(findings)) };
    let own = files.first().map_or_else(|| file.to_owned(), |(path, _)| path.clone());
    let place = Place { file: Arc::new(own), line: 1, column: 1 };
    let read_file = |path: &Path| std::fs::read_to_string(path);
    let read_bytes = |path: &Path| std::fs::read(path);
    let exists = |path: &Path| path.exists();
    let context =
        read::Context { given, read_file: &read_file, read_bytes: &read_bytes, walk: &walk, exists: &exists };
    let (profile, more) = read::profile(&table, &place, files, &context);
    findings.extend(more);
    let usable = findings.iter().all(|finding| !finding.fatal);
    (profile.filter(|_| usable), in_order(findings))
}

/// The files at a path with their sizes: a file alone, without a name; or those below a folder, by their names there, in
/// order. Links are followed.
fn walk(path: &Path) -> std::io::Result<Vec<(String, u64)>> {
    let found = std::fs::metadata(path)?;
    if !found.is_dir() {
        return Ok(vec![(String::new(), found.len())]);
    }
    let mut files = Vec::new();
    let mut folders = vec![(path.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?.path();
            let shown = entry.display();
            let Some(name) = entry.file_name().and_then(|name| name.to_str()) else {
                return Err(std::io::Error::other(format!("the name of {shown} is no text")));
            };
            let name = format!("{prefix}{name}");
            let found = std::fs::metadata(&entry)
                .map_err(|error| std::io::Error::new(error.kind(), format!("{shown}: {error}")))?;
            if !found.is_dir() {
                files.push((name, found.len()));
            } else if name.matches('/').count() < DEEPEST_FOLDER {
                folders.push((entry, format!("{name}/")));
            } else {
                let message = format!("{shown} lies deeper than {DEEPEST_FOLDER} folders, or in itself");
                return Err(std::io::Error::other(message));
            }
            if files.len() > MOST_FILES {
                return Err(std::io::Error::other(format!("it holds more than {MOST_FILES} files")));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A profile and the files it extends.
#[derive(Default)]
struct Chain {
    files: Vec<(PathBuf, String)>,
    findings: Vec<Finding>,
}

impl Chain {
    /// The table of a file laid over that of the file it extends. All files that can be read are: what is wrong in one
    /// does not hide what is wrong in another.
    fn read(&mut self, file: &Path, named_at: Option<&Place>) -> Option<Table> {
        if self.files.iter().any(|(seen, _)| same(seen, file)) || self.files.len() == DEEPEST {
            let message = if self.files.len() == DEEPEST {
                format!("more than {DEEPEST} files extend each other")
            } else {
                format!("{} extends itself, by way of other files or at once", file.display())
            };
            self.findings.push(match named_at {
                Some(at) => Finding::at(at, "extends", message),
                None => Finding::in_file(file, message),
            });
            return None;
        }
        let embedded =
            if embedded::is_embedded(file) || !file.exists() { embedded::lookup(file) } else { None };
        let (file, text) = match &embedded {
            Some((path, text)) => (path.as_path(), Ok((*text).to_owned())),
            None => (file, std::fs::read_to_string(file)),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                let message = format!("{} can't be read: {error}", file.display());
                let finding = match named_at {
                    Some(at) => Finding::at(at, "extends", message),
                    None => Finding::general(message),
                };
                let help = match error.kind() {
                    std::io::ErrorKind::InvalidData => "a profile is a text, in UTF-8".to_owned(),
                    std::io::ErrorKind::NotFound => profiles_beside(file),
                    _ => "it has to be a file that this user may read".to_owned(),
                };
                self.findings.push(finding.help(help));
                return None;
            }
        };
        let digest: String =
            Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        self.files.push((file.to_owned(), digest));
        let mut table = match parse(file, &text) {
            Ok(table) => table,
            Err(findings) => {
                self.findings.extend(findings);
                return None;
            }
        };
        let base = match table.remove("extends") {
            None => return Some(lay_over(Table::default(), table, &mut self.findings)),
            Some(Spot { node: Node::Text(base), place }) => {
                self.read(&embedded::beside(file, &base), Some(&place))?
            }
            Some(spot) => {
                let message = format!("expected a string, found {}", spot.node.kind());
                self.findings.push(Finding::at(&spot.place, "extends", message));
                return None;
            }
        };
        Some(lay_over(base, table, &mut self.findings))
    }
}

/// Whether two paths lead to one file, however they are written.
fn same(one: &Path, other: &Path) -> bool {
    one == other
        || match (one.canonicalize(), other.canonicalize()) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
}

/// What a mistyped profile may have meant.
fn profiles_beside(file: &Path) -> String {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| {
            let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
            paths
                .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
                .filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    let mut known: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in embedded::names() {
        known.push(name);
    }
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    suggest(&name, &known)
}
