//! Tests of what people see: which text becomes which value or finding.

mod access;
mod boot;
mod extending;
mod hardware;
mod profiles;
mod provisioners;
mod readers;
mod seeds;
mod shipped;
mod site;
mod sources;
mod variables;
mod windows;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::variables::Given;
use super::{Finding, Profile, load_profile};

/// A folder with some files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }
    folder
}

/// Findings as people see them, without the folder's path.
fn told(findings: &[Finding], folder: &Path) -> String {
    let mut text = String::new();
    for finding in findings {
        writeln!(text, "{finding}").expect("a string takes all");
    }
    text.replace(&format!("{}/", folder.display()), "")
}

/// Loads the first file; the findings as text.
fn load_with(files: &[(&str, &str)], given: &Given) -> (Option<Profile>, String) {
    let folder = folder(files);
    let (profile, findings) = load_profile(&folder.path().join(files[0].0), given);
    assert!(
        profile.is_none() || findings.iter().all(|finding| !finding.fatal),
        "no profile with a fatal finding"
    );
    (profile, told(&findings, folder.path()))
}

fn load(files: &[(&str, &str)]) -> (Option<Profile>, String) {
    load_with(files, &Given::default())
}

/// A sound profile.
fn sound(files: &[(&str, &str)]) -> Profile {
    let (profile, told) = load(files);
    profile.unwrap_or_else(|| panic!("{told}"))
}

/// The least profile, with more text after it.
fn least(more: &str) -> String {
    format!("schema = 1\nname = \"x\"\nsource = {{ clone = \"boot-vm\" }}\n{more}")
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
