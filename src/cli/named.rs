//! Profiles that are named by a folder or a pattern.

use std::path::{Path, PathBuf};

use super::options::matches;
use crate::config::Finding;

/// The files that are meant: of a folder, or of a pattern that no shell has filled in, all that name a profile. Bases, which
/// name none, and a site file are left out there.
pub(super) fn expand(named: &[PathBuf], findings: &mut Vec<Finding>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in named {
        let pattern = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (folder, pattern) = if path.is_dir() {
            (path.as_path(), "*.toml".to_owned())
        } else if pattern.contains('*') && !path.exists() {
            (path.parent().unwrap_or(Path::new("")), pattern)
        } else {
            files.push(path.clone());
            continue;
        };
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut found: Vec<PathBuf> = std::fs::read_dir(here)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| matches(&pattern, &entry.file_name().to_string_lossy()))
            .map(|entry| folder.join(entry.file_name()))
            .filter(|file| file.is_file() && names_a_profile(file))
            .collect();
        if found.is_empty() {
            let words = format!("there is no profile in {}", path.display());
            findings.push(Finding::general(words).help("a profile is a .toml file with a `name` of its own"));
        }
        found.sort();
        files.extend(found);
    }
    files
}

/// Whether a file names a profile; one with a fault is taken for one, so that the fault is told.
fn names_a_profile(file: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(file) else { return true };
    toml::from_str::<toml::Table>(&text).map_or(true, |table| table.contains_key("name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_folder_or_a_pattern_the_files_that_name_a_profile_are_meant() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [
            ("web.toml", "name = \"web\""),
            ("db.toml", "name = \"db\""),
            ("base.toml", "schema = 1"),
            ("forge.toml", "[targets.x]"),
            ("broken.toml", "name = "),
            ("notes.txt", "name = \"no\""),
        ] {
            std::fs::write(at(name), text).expect("written");
        }
        let of = |named: &[PathBuf]| {
            let mut findings = Vec::new();
            let files = expand(named, &mut findings);
            let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (files.iter().map(name).collect::<Vec<_>>(), findings.len())
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(of(&[folder.path().to_owned()]), (names(&["broken.toml", "db.toml", "web.toml"]), 0));
        assert_eq!(of(&[at("w*.toml"), at("base.toml")]), (names(&["web.toml", "base.toml"]), 0));
        assert_eq!(of(&[at("x*.toml")]), (Vec::new(), 1));
        assert_eq!(of(&[PathBuf::from("rocky-9")]), (names(&["rocky-9"]), 0), "one of the binary's");
    }
}
