//! The folder of one build's evidence: `output/<profile>/<chain-id>/`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;

use crate::event::Redactor;

/// A file or folder of the evidence could not be read or written.
#[derive(Debug, Error)]
#[error("{} can't be read or written", path.display())]
pub struct EvidenceError {
    /// The file or folder.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: std::io::Error,
}

/// A build's folder. Cheap to clone; text written through it is masked.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    redactor: Redactor,
    screens: Arc<AtomicU32>,
}

impl Folder {
    /// Makes the folder of a new build.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn create(path: PathBuf, redactor: Redactor) -> Result<Self, EvidenceError> {
        std::fs::create_dir_all(path.join("screens"))
            .map_err(|source| EvidenceError { path: path.clone(), source })?;
        Ok(Self { path, redactor, screens: Arc::new(AtomicU32::new(1)) })
    }

    /// Opens the folder of a build that goes on (`forge finish`).
    ///
    /// # Errors
    /// When its folder for pictures can't be made.
    pub fn reopen(path: PathBuf, redactor: Redactor) -> Result<Self, EvidenceError> {
        let folder = Self::create(path, redactor)?;
        let taken = std::fs::read_dir(folder.path.join("screens")).map(Iterator::count).unwrap_or(0);
        folder.screens.store(u32::try_from(taken).unwrap_or(u32::MAX).saturating_add(1), Ordering::Relaxed);
        Ok(folder)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The redactor that masks what is written, shared with all sinks.
    #[must_use]
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Writes a text, masked. Folders on the way are made.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_text(&self, name: &str, text: &str) -> Result<(), EvidenceError> {
        self.write_bytes(name, self.redactor.text(text).as_bytes())
    }

    /// Writes bytes as they are: pictures only, since nothing masks them.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn write_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), EvidenceError> {
        let path = self.path.join(name);
        let write = || {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&path, bytes)
        };
        write().map_err(|source| EvidenceError { path: path.clone(), source })
    }

    /// Writes a picture of the screen under the next number; gives its name in the folder.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_screen(&self, label: &str, png: &[u8]) -> Result<String, EvidenceError> {
        let number = self.screens.fetch_add(1, Ordering::Relaxed);
        let slug: String = label
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .take(40)
            .collect();
        let name = format!("screens/{number:02}-{}.png", slug.trim_matches('-'));
        self.write_bytes(&name, png)?;
        Ok(name)
    }
}
