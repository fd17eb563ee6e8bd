//! Writes a build's events into its folder, and closes the folder when the build is over.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forge_machine::ChainId;
use sha2::{Digest as _, Sha256};

use super::folder::{EvidenceError, Folder};
use super::proof::{proof, readme};
use crate::event::phrase::phrase;
use crate::event::{BuildView, Ending, Envelope, Event, Sink, Verdict};
use crate::plan::Plan;
use crate::trial::junit::junit;

/// The sink of one build.
#[derive(Debug)]
pub struct EvidenceSink {
    build: ChainId,
    plan: Arc<Plan>,
    folder: Folder,
    events: File,
    log: File,
    broken: Option<EvidenceError>,
}

impl EvidenceSink {
    /// Opens the files of a build's folder and writes its plan.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn open(plan: Arc<Plan>, folder: Folder) -> Result<Self, EvidenceError> {
        let json = serde_json::to_string_pretty(plan.as_ref()).unwrap_or_default();
        folder.write_text("plan.json", &format!("{json}\n"))?;
        folder.write_text("plan.txt", &crate::plan::explain::explain(&plan))?;
        Self::reopen(plan, folder)
    }

    /// Opens the files of a build that goes on (`forge finish`): what is there is added to.
    ///
    /// # Errors
    /// When a file can't be opened.
    pub fn reopen(plan: Arc<Plan>, folder: Folder) -> Result<Self, EvidenceError> {
        let open = |name: &str| {
            let path = folder.path().join(name);
            File::options()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(|source| EvidenceError { path: path.clone(), source })
        };
        let (events, log) = (open("events.jsonl")?, open("build.log")?);
        Ok(Self { build: plan.chain_id.clone(), plan, folder, events, log, broken: None })
    }

    fn write(&mut self, envelope: &Envelope, view: &BuildView) -> Result<(), EvidenceError> {
        let failed = |folder: &Folder, name: &str| {
            let path = folder.path().join(name);
            move |source| EvidenceError { path, source }
        };
        let mut line = serde_json::to_vec(envelope).unwrap_or_default();
        line.push(b'\n');
        self.events.write_all(&line).map_err(failed(&self.folder, "events.jsonl"))?;
        if let Some((_, mark, words)) = phrase(envelope) {
            let (seconds, tenths) = (envelope.t_ms / 1000, envelope.t_ms % 1000 / 100);
            writeln!(self.log, "[{seconds:>4}.{tenths}] {mark} {words}")
                .map_err(failed(&self.folder, "build.log"))?;
        }
        if let Event::BuildFinished { ending, .. } = &envelope.event {
            self.close(ending, view)?;
        }
        Ok(())
    }

    fn close(&mut self, ending: &Ending, view: &BuildView) -> Result<(), EvidenceError> {
        self.folder.write_text("README.md", &readme(&self.plan, view))?;
        let made = matches!(ending, Ending::Done { .. } | Ending::DoneWithFailure { artefact: Some(_), .. });
        if made {
            let json = serde_json::to_string_pretty(&proof(&self.plan, view)).unwrap_or_default();
            self.folder.write_text("proof.json", &format!("{json}\n"))?;
        }
        if let Ending::Tested { checks, .. } = ending {
            let json = serde_json::to_string_pretty(checks).unwrap_or_default();
            self.folder.write_text("checks.json", &format!("{json}\n"))?;
            self.folder.write_text("junit.xml", &junit(self.plan.artefact_name(), checks))?;
        }
        let success = match ending {
            Ending::Done { .. } => true,
            Ending::Tested { checks, .. } => checks.iter().all(|check| check.verdict != Verdict::Failed),
            _ => false,
        };
        close_folder(self.folder.path(), success)
    }
}

impl Sink for EvidenceSink {
    fn take(&mut self, envelope: &Envelope, view: &BuildView) {
        if envelope.build != self.build || self.broken.is_some() {
            return;
        }
        if let Err(error) = self.write(envelope, view) {
            // Told once; a full disk must not stop a build.
            tracing::warn!(error = %crate::engine::error::chain(&error), "the evidence is not complete");
            self.broken = Some(error);
        }
    }
}

/// Closes a folder: checksums over all of it, and `latest` beside it points there when it is a success.
///
/// # Errors
/// When a file can't be read or written.
pub fn close_folder(folder: &Path, success: bool) -> Result<(), EvidenceError> {
    checksums(folder)?;
    if success { point_latest(folder) } else { Ok(()) }
}

/// Writes `SHA256SUMS` over every other file of the folder, in the form that `sha256sum --check` reads.
fn checksums(folder: &Path) -> Result<(), EvidenceError> {
    let mut sums = String::new();
    for name in files_of(folder)? {
        let path = folder.join(&name);
        let bytes = std::fs::read(&path).map_err(|source| EvidenceError { path, source })?;
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        sums.push_str(&format!("{digest}  {}\n", name.display()));
    }
    let path = folder.join("SHA256SUMS");
    std::fs::write(&path, sums).map_err(|source| EvidenceError { path, source })
}

/// Every file of a folder but `SHA256SUMS`, by its path from there, sorted.
///
/// # Errors
/// When a folder can't be read.
pub fn files_of(folder: &Path) -> Result<Vec<PathBuf>, EvidenceError> {
    let mut names = Vec::new();
    walk(folder, Path::new(""), &mut names)?;
    names.sort();
    Ok(names)
}

fn walk(folder: &Path, below: &Path, names: &mut Vec<PathBuf>) -> Result<(), EvidenceError> {
    let path = folder.join(below);
    let failed = |source| EvidenceError { path: path.clone(), source };
    for entry in std::fs::read_dir(&path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = below.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            walk(folder, &name, names)?;
        } else if name != Path::new("SHA256SUMS") {
            names.push(name);
        }
    }
    Ok(())
}

/// Lets `latest` beside the folder point to it, without a moment at which it points nowhere.
fn point_latest(folder: &Path) -> Result<(), EvidenceError> {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else { return Ok(()) };
    let latest = parent.join("latest");
    let new = parent.join(format!(".latest-{}", std::process::id()));
    let failed = |source| EvidenceError { path: latest.clone(), source };
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::os::unix::fs::symlink(name, &new).and_then(|()| std::fs::rename(&new, &latest)).map_err(failed)
}
