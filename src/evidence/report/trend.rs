//! How the builds of a profile have gone so far: from the proofs beside a folder of evidence.

use std::path::Path;

use serde::Serialize;

use crate::evidence::proof::Proof;

/// How many builds are shown.
const SHOWN: usize = 20;

/// A build of the same profile that succeeded.
#[derive(Debug, Serialize)]
pub(super) struct Past {
    chain_id: String,
    started: String,
    took: String,
    /// Its time in percent of the longest.
    height: f64,
    /// Whether it is the one that the page is of.
    this: bool,
}

/// The builds that left a proof beside this folder, oldest first, this one among them.
pub(super) fn past(folder: &Path, this: &str) -> Vec<Past> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let Some(entries) = folder.parent().and_then(|parent| std::fs::read_dir(parent).ok()) else {
        return Vec::new();
    };
    let mut proofs: Vec<Proof> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("proof.json")).ok())
        .filter_map(|text| serde_json::from_str(&text).ok())
        .collect();
    proofs.sort_by(|a, b| a.started.cmp(&b.started));
    let newest = proofs.split_off(proofs.len().saturating_sub(SHOWN));
    let longest = newest.iter().map(|proof| proof.took_ms).max().unwrap_or(1).max(1);
    newest
        .into_iter()
        .map(|proof| Past {
            this: proof.chain_id == this,
            started: super::minute(&proof.started),
            took: super::seconds(proof.took_ms),
            height: super::percent(proof.took_ms, longest),
            chain_id: proof.chain_id,
        })
        .collect()
}
