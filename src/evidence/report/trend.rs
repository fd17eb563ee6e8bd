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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_builds_stand_oldest_first_beside_the_one_that_is_shown_and_failed_ones_do_not() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = |name: &str| {
            let folder = root.path().join(name);
            std::fs::create_dir(&folder).expect("ours");
            folder
        };
        let build = |chain_id: &str, minute: u32, took_ms: u64| {
            let proof = serde_json::json!({
                "version": 1, "chain-id": chain_id, "profile": "web", "profile-files": [], "target": "pve",
                "product": "", "forge": "", "started": format!("2026-11-22T10:{minute:02}:00Z"), "took-ms": took_ms,
                "plan": "", "artefact": null, "stages": [], "warnings": [],
            });
            std::fs::write(folder(chain_id).join("proof.json"), proof.to_string()).expect("ours");
        };
        build("CHAIN-B", 20, 50_000);
        build("CHAIN-A", 10, 100_000);
        std::fs::write(folder("CHAIN-C").join("build.log"), "it failed").expect("ours");
        std::os::unix::fs::symlink("CHAIN-B", root.path().join("latest")).expect("ours");
        let shown: Vec<(String, bool, f64)> = past(&root.path().join("latest"), "CHAIN-B")
            .into_iter()
            .map(|past| (past.chain_id, past.this, past.height))
            .collect();
        assert_eq!(shown, [("CHAIN-A".to_owned(), false, 100.0), ("CHAIN-B".to_owned(), true, 50.0)]);
        for minute in 30..55 {
            build(&format!("CHAIN-M{minute}"), minute, 1000);
        }
        let shown = past(&root.path().join("CHAIN-A"), "CHAIN-A");
        assert!(shown.len() == SHOWN && shown.iter().all(|past| !past.this), "the newest: {shown:?}");
    }
}
