//! The folder of one build's evidence: `output/<profile>/<chain-id>/`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

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

/// How long a line of a [`Log`] may wait for others before it is written.
const GATHER: Duration = Duration::from_millis(100);

/// A text of the evidence that grows line by line, masked. It is in its file at once, so that a forge that is killed leaves
/// what it had seen; only a flood of lines is gathered for a moment.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    redactor: Redactor,
    file: io::Result<BufWriter<File>>,
    written: Instant,
}

impl Log {
    /// Adds a line. What fails is told by [`Log::close`].
    pub fn line(&mut self, line: &str) {
        let Ok(file) = &mut self.file else { return };
        let now = Instant::now();
        let masked = self.redactor.text(line);
        let mut write = || {
            file.write_all(masked.as_bytes())?;
            file.write_all(b"\n")?;
            if now.duration_since(self.written) >= GATHER {
                self.written = now;
                file.flush()?;
            }
            Ok(())
        };
        if let Err(error) = write() {
            self.file = Err(error);
        }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When a line could not be written.
    pub fn close(self) -> Result<(), EvidenceError> {
        let closed = self.file.and_then(|mut file| file.flush());
        closed.map_err(|source| EvidenceError { path: self.path, source })
    }
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

    /// Opens a text that grows line by line, after what stands there already. Folders on the way are made.
    #[must_use]
    pub fn log(&self, name: &str) -> Log {
        let path = self.path.join(name);
        let open = || {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            OpenOptions::new().append(true).create(true).open(&path).map(BufWriter::new)
        };
        Log { file: open(), redactor: self.redactor.clone(), written: Instant::now(), path }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_log_are_in_its_file_while_it_grows_and_masked() {
        let dir = tempfile::tempdir().expect("a folder");
        let redactor = Redactor::default();
        redactor.add("hunter22");
        let folder = Folder::create(dir.path().to_owned(), redactor).expect("a folder");
        let text = || std::fs::read_to_string(dir.path().join("provision/01-x.log")).expect("it is there");
        let mut log = folder.log("provision/01-x.log");
        assert_eq!(text(), "", "also of a step that says nothing");
        log.line("first hunter22");
        log.written = log.written.checked_sub(GATHER).expect("this machine runs for that long");
        log.line("second");
        assert_eq!(text(), "first ***\nsecond\n");
        log.line("third");
        log.close().expect("written");
        let mut again = folder.log("provision/01-x.log");
        again.line("tried again");
        drop(again);
        assert_eq!(text(), "first ***\nsecond\nthird\ntried again\n");
    }

    #[test]
    fn a_log_that_can_t_be_written_says_so_when_it_is_closed() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::create(dir.path().to_owned(), Redactor::default()).expect("a folder");
        std::fs::write(dir.path().join("provision"), "no folder").expect("written");
        let mut log = folder.log("provision/01-x.log");
        log.line("lost");
        assert!(log.close().expect_err("no folder").to_string().contains("01-x.log"));
    }
}
