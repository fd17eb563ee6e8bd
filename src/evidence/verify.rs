//! Checks a folder of evidence without asking anybody: nothing changed, nothing missing, nothing added, and the proof
//! fits the plan.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::proof::Proof;
use super::sink::files_of;
use crate::plan::Plan;

/// What was found in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// The folder.
    pub folder: PathBuf,
    /// Whether it holds what the build left.
    pub ok: bool,
    /// How many files have the checksum they had.
    pub files: usize,
    /// What the proof proves, in words; nothing for a build that failed.
    pub proves: Option<String>,
    /// What is wrong.
    pub wrong: Vec<String>,
}

/// What tells the proof of an init from that of a build.
#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct InitProof {
    kind: String,
    chain_id: String,
    token_id: String,
    url: String,
    product: String,
}

/// Checks a folder.
#[must_use]
pub fn verify(folder: &Path) -> Verdict {
    let mut verdict =
        Verdict { folder: folder.to_owned(), ok: false, files: 0, proves: None, wrong: Vec::new() };
    checksums(folder, &mut verdict);
    proof(folder, &mut verdict);
    verdict.ok = verdict.wrong.is_empty();
    verdict
}

fn checksums(folder: &Path, verdict: &mut Verdict) {
    let sums = match std::fs::read_to_string(folder.join("SHA256SUMS")) {
        Ok(sums) => sums,
        Err(error) => {
            let words = "SHA256SUMS can't be read, so it is no closed folder of evidence";
            verdict.wrong.push(format!("{words}: {error}"));
            return;
        }
    };
    let mut listed = BTreeSet::new();
    for line in sums.lines() {
        let Some((sum, name)) = line.split_once("  ") else {
            verdict.wrong.push(format!("SHA256SUMS has a line that is none: {line}"));
            continue;
        };
        listed.insert(PathBuf::from(name));
        // A name that leads out of the folder is not looked at.
        let inside = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !inside {
            verdict.wrong.push(format!("{name} lies outside the folder"));
            continue;
        }
        match std::fs::read(folder.join(name)) {
            Ok(bytes) if hex(&bytes) == sum => verdict.files += 1,
            Ok(_) => verdict.wrong.push(format!("{name} was changed")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                verdict.wrong.push(format!("{name} is missing"));
            }
            Err(error) => verdict.wrong.push(format!("{name} can't be read: {error}")),
        }
    }
    match files_of(folder) {
        Ok(there) => {
            let added = there.into_iter().filter(|name| !listed.contains(name));
            verdict.wrong.extend(added.map(|name| format!("{} was added", name.display())));
        }
        Err(error) => verdict.wrong.push(crate::engine::error::chain(&error)),
    }
}

fn proof(folder: &Path, verdict: &mut Verdict) {
    let text = match std::fs::read_to_string(folder.join("proof.json")) {
        Ok(text) => text,
        // A build that failed has none; were it taken away, the checksums would say so.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => {
            verdict.wrong.push(format!("proof.json can't be read: {error}"));
            return;
        }
    };
    if let Ok(init) = serde_json::from_str::<InitProof>(&text)
        && init.kind == "init"
    {
        verdict.proves =
            Some(format!("{}: {} on {}, {}", init.chain_id, init.token_id, init.url, init.product));
        return;
    }
    let proof: Proof = match serde_json::from_str(&text) {
        Ok(proof) => proof,
        Err(error) => {
            verdict.wrong.push(format!("proof.json is no proof: {error}"));
            return;
        }
    };
    let text = std::fs::read_to_string(folder.join("plan.json")).unwrap_or_default();
    match serde_json::from_str::<Plan>(&text) {
        Ok(plan) => {
            if plan.chain_id.as_str() != proof.chain_id {
                verdict
                    .wrong
                    .push(format!("the proof is of {}, the plan of {}", proof.chain_id, plan.chain_id));
            }
            // A secret of the plan is masked in the file, and the digest is of the plan itself.
            if !text.contains("***") && plan.digest() != proof.plan {
                verdict.wrong.push("plan.json is not the plan that the proof is of".into());
            }
        }
        Err(error) => verdict.wrong.push(format!("plan.json is no plan: {error}")),
    }
    let made = proof.artefact.as_ref().map(crate::event::phrase::artefact);
    verdict.proves = Some(format!(
        "{}: {} on {}",
        proof.chain_id,
        made.unwrap_or_else(|| "nothing was made".into()),
        proof.product
    ));
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("screens")).unwrap();
        std::fs::write(folder.path().join("build.log"), "one\n").unwrap();
        std::fs::write(folder.path().join("screens/01.png"), "png").unwrap();
        let sums = format!("{}  build.log\n{}  screens/01.png\n", hex(b"one\n"), hex(b"png"));
        std::fs::write(folder.path().join("SHA256SUMS"), sums).unwrap();
        folder
    }

    #[test]
    fn an_untouched_folder_is_sound() {
        let folder = folder();
        let verdict = verify(folder.path());
        assert!(verdict.ok, "{verdict:?}");
        assert_eq!((verdict.files, verdict.proves), (2, None));
    }

    #[test]
    fn what_was_changed_taken_away_or_added_is_named() {
        let folder = folder();
        std::fs::write(folder.path().join("build.log"), "two\n").unwrap();
        std::fs::remove_file(folder.path().join("screens/01.png")).unwrap();
        std::fs::write(folder.path().join("screens/02.png"), "png").unwrap();
        let verdict = verify(folder.path());
        assert!(!verdict.ok);
        let expected = ["build.log was changed", "screens/01.png is missing", "screens/02.png was added"];
        assert_eq!(verdict.wrong, expected);
    }

    #[test]
    fn a_list_of_checksums_can_not_lead_out_of_the_folder() {
        let folder = folder();
        let sums = folder.path().join("SHA256SUMS");
        let text = std::fs::read_to_string(&sums).unwrap();
        std::fs::write(&sums, format!("{text}00  ../../etc/passwd\nnonsense\n")).unwrap();
        let verdict = verify(folder.path());
        let expected =
            ["../../etc/passwd lies outside the folder", "SHA256SUMS has a line that is none: nonsense"];
        assert_eq!(verdict.wrong, expected);
    }

    #[test]
    fn a_folder_without_checksums_is_no_evidence() {
        let folder = tempfile::tempdir().unwrap();
        let verdict = verify(folder.path());
        assert!(!verdict.ok && verdict.wrong[0].starts_with("SHA256SUMS can't be read"), "{verdict:?}");
    }
}
