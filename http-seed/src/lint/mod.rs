//! Judges rendered answer files before anything boots: by tables of what the installers know, each with its source.
//!
//! A finding here is an installer that would stop and ask, or would go on and do something else. What a table does not
//! know is told; what an installer accepts and forge's table lacks can be written into a file of the user's own with
//! `lint = false` in `[seed]`.

mod agama;
mod autoyast;
mod cloud_config;
mod cloud_shapes;
mod kickstart;
mod powershell;
mod preseed;
mod shape;
mod unattend;
mod xml;

use crate::answers::Kind;

/// Something wrong with a line of a rendered file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

impl Found {
    fn new(line: usize, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { line, message: message.into(), help: help.into() }
    }
}

/// The largest file that is judged, and how much that is wrong with one is told.
const LARGEST: usize = 1 << 20;
const TOLD: usize = 100;

/// What is wrong with a file of a seed.
#[must_use]
pub fn lint(kind: Kind, name: &str, text: &str, distribution: &str, version: &str) -> Vec<Found> {
    if text.len() > LARGEST && is_judged(name) {
        let message = format!("the file has {} bytes; at most {LARGEST} are judged", text.len());
        return vec![Found::new(1, message, "is it this installer's? `lint = false` takes it as it is")];
    }
    let mut found = match (kind, name) {
        (Kind::Nocloud, "user-data" | "vendor-data") | (Kind::Autoinstall, "vendor-data") => {
            cloud_config::user_data(text)
        }
        (Kind::Nocloud, "network-config") => cloud_config::network_config(text),
        (Kind::Autoinstall, "user-data") => cloud_config::autoinstall(text),
        (Kind::Kickstart, _) if is_kickstart(name) => kickstart::lint(text, distribution, version),
        (Kind::Preseed, _) if is_kickstart(name) => preseed::lint(text),
        (Kind::Autounattend, _) if name.ends_with(".xml") => unattend::lint(text),
        (Kind::Autounattend, _) if name.ends_with(".ps1") => powershell::lint(text),
        (Kind::Autoyast, _) if name.ends_with(".xml") => autoyast::lint(text),
        (Kind::Agama, _) if name.ends_with(".json") => agama::lint(text),
        _ => Vec::new(),
    };
    found.sort_by_key(|found| found.line);
    if found.len() > TOLD {
        let line = found.get(TOLD).map_or(1, |next| next.line);
        let message = format!("{} more findings are left out", found.len() - TOLD);
        found.truncate(TOLD);
        found.push(Found::new(line, message, "is it this installer's file?"));
    }
    found
}

fn is_judged(name: &str) -> bool {
    let endings = [".cfg", ".ks", ".xml", ".ps1", ".json", "-data", "network-config"];
    endings.iter().any(|ending| name.ends_with(ending))
}

fn is_kickstart(name: &str) -> bool {
    [".cfg", ".ks"].iter().any(|ending| name.ends_with(ending))
}

/// The nearest of some words, as advice.
fn nearest(word: &str, known: &[&str]) -> String {
    let distance = |other: &str| {
        // Optimal string alignment without the crate: words are short.
        let (a, b): (Vec<char>, Vec<char>) = (word.chars().collect(), other.chars().collect());
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = i;
            if let Some(first) = row.first_mut() {
                *first = i + 1;
            }
            for (j, y) in b.iter().enumerate() {
                let left = row.get(j).copied().unwrap_or(0);
                let above = row.get(j + 1).copied().unwrap_or(0);
                let best = (diagonal + usize::from(x != y)).min(left + 1).min(above + 1);
                diagonal = above;
                if let Some(slot) = row.get_mut(j + 1) {
                    *slot = best;
                }
            }
        }
        row.last().copied().unwrap_or(usize::MAX)
    };
    let best = known.iter().filter(|other| **other != word).map(|other| (distance(other), *other)).min();
    match best {
        Some((distance, other)) if distance <= (word.len() / 3).max(1) => format!("did you mean `{other}`?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
