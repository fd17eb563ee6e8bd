//! The log and the proof that an init leaves: `output/init/<chain-id>/`.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::talk::Talk;
use crate::event::Redactor;
use crate::evidence::{EvidenceError, close_folder};

/// The form of an init's `proof.json`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct InitProof {
    /// The version of this form: 1.
    pub version: u32,
    /// `init`: what tells it from a build's.
    pub kind: &'static str,
    /// The init.
    pub chain_id: String,
    /// forge's version.
    pub forge: String,
    /// When it began.
    pub started: String,
    /// The target's name.
    pub target: String,
    /// Product and version.
    pub product: String,
    /// By what it was done.
    pub by: String,
    /// The host key, where there is one.
    pub host_key: Option<String>,
    /// The API's address.
    pub url: String,
    /// The SHA-256 fingerprint of the API's certificate.
    pub fingerprint: Option<String>,
    /// The token.
    pub token_id: String,
    /// The role.
    pub role: String,
    /// What it may do.
    pub privileges: Vec<String>,
    /// Where.
    pub paths: Vec<String>,
    /// What was changed, in the order it was: commands or calls.
    pub changed: Vec<String>,
    /// What was found as it should be.
    pub kept: Vec<String>,
    /// Whether the token itself has said that it lacks nothing.
    pub token_checked: bool,
    /// The files that were written.
    pub files: Vec<WrittenFile>,
}

/// A file that was written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct WrittenFile {
    /// Its path.
    pub path: PathBuf,
    /// Its SHA-256; not of files with a secret, which could be guessed by it.
    pub sha256: Option<String>,
}

/// The SHA-256 of a text, in hexadecimal digits.
#[must_use]
pub fn sum(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the folder of an init; without a proof for one that failed. All of it is masked.
///
/// # Errors
/// When a file can't be written.
pub fn write(
    root: &Path,
    chain_id: &str,
    proof: Option<&InitProof>,
    talk: &Talk,
) -> Result<PathBuf, EvidenceError> {
    let folder = root.join("init").join(chain_id);
    let redactor: &Redactor = talk.redactor();
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, redactor.text(text)).map_err(|source| EvidenceError { path, source })
    };
    std::fs::create_dir_all(&folder).map_err(|source| EvidenceError { path: folder.clone(), source })?;
    put("init.log", &talk.log())?;
    put("README.md", &readme(chain_id, proof))?;
    if let Some(proof) = proof {
        let json = serde_json::to_string_pretty(proof).unwrap_or_default();
        put("proof.json", &format!("{json}\n"))?;
    }
    close_folder(&folder, proof.is_some())?;
    Ok(folder)
}

fn readme(chain_id: &str, proof: Option<&InitProof>) -> String {
    let mut text = format!("# {chain_id}\n\n");
    let Some(proof) = proof else {
        text.push_str("The init failed: `init.log` says what was done and what went wrong.\n");
        return text;
    };
    let none = "-".to_owned();
    let rows = [
        ("target", format!("{} ({})", proof.target, proof.product)),
        ("by", proof.by.clone()),
        ("host key", proof.host_key.clone().unwrap_or_else(|| none.clone())),
        ("API", proof.url.clone()),
        ("certificate", proof.fingerprint.clone().unwrap_or(none)),
        ("token", proof.token_id.clone()),
        ("role", format!("{}: {}", proof.role, proof.privileges.join(" "))),
        ("on", proof.paths.join(" ")),
        ("began", proof.started.clone()),
        ("forge", proof.forge.clone()),
    ];
    text.push_str("| | |\n|---|---|\n");
    for (name, value) in rows {
        text.push_str(&format!("| {name} | {value} |\n"));
    }
    let mut list = |title: &str, lines: &[String]| {
        text.push_str(&format!("\n## {title}\n\n"));
        if lines.is_empty() {
            text.push_str("Nothing.\n");
        }
        for line in lines {
            text.push_str(&format!("* `{line}`\n"));
        }
    };
    list("Changed", &proof.changed);
    list("Found as it should be", &proof.kept);
    let files: Vec<String> = proof.files.iter().map(|file| file.path.display().to_string()).collect();
    list("Files written", &files);
    text.push_str("\n`sha256sum --check SHA256SUMS` checks this folder.\n");
    text
}
