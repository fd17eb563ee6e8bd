//! Whose turn it is to bring a file to a storage: of all builds of a process, and of all processes that share a folder.
//!
//! A lock lies on a file of that folder, which stays there, empty: the system lets go of it when its holder dies. Other
//! machines are not held up by it; what they bring has the same name and the same bytes.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// How often a lock is tried that another process holds.
const LOOK: Duration = Duration::from_millis(100);

/// Whose turn it is to bring a file. The default knows this process alone.
#[derive(Debug, Default)]
pub struct Turns {
    here: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    folder: Option<PathBuf>,
}

/// The turn: it is over when this is dropped.
#[derive(Debug)]
pub struct Turn {
    /// Let go of first: the next of this process then finds it free.
    _between: Option<File>,
    _here: tokio::sync::OwnedMutexGuard<()>,
}

impl Turns {
    /// Turns that all processes of this machine with this folder take; it is made when it is needed.
    #[must_use]
    pub fn shared(folder: PathBuf) -> Self {
        Self { folder: Some(folder), ..Self::default() }
    }

    /// Waits for the turn to bring `what` to where `place` says; `tell` hears whom it waits for. A folder that can't be
    /// used is passed over: then two processes may send the same bytes. May be dropped.
    pub async fn wait(&self, place: &str, what: &str, tell: &(dyn Fn(&str) + Sync)) -> Turn {
        let mutex = {
            let mut turns = self.here.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(format!("{place} {what}")).or_default())
        };
        let here = mutex.lock_owned().await;
        let between = match &self.folder {
            Some(folder) => between(folder, place, what, tell).await,
            None => None,
        };
        Turn { _between: between, _here: here }
    }
}

/// Waits until no other process has the turn; `None` when the folder can't be used.
async fn between(folder: &Path, place: &str, what: &str, tell: &(dyn Fn(&str) + Sync)) -> Option<File> {
    let file = match open(folder, &format!("{place} {what}")) {
        Ok(file) => file,
        Err(error) => {
            tracing::debug!(%error, folder = %folder.display(), "no turns with other processes");
            return None;
        }
    };
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) => {
                if !told {
                    tell(&format!("another forge brings {what}: waiting for it"));
                    told = true;
                }
            }
            Err(TryLockError::Error(error)) => {
                tracing::debug!(%error, "no turns with other processes");
                return None;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn open(folder: &Path, key: &str) -> std::io::Result<File> {
    std::fs::create_dir_all(folder)?;
    let digest: String = Sha256::digest(key).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    File::options().write(true).create(true).truncate(false).open(folder.join(format!("media-{digest}.lock")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether somebody who asks now would have to wait.
    async fn waits(turns: &Turns, what: &str) -> bool {
        let told = Mutex::new(false);
        let tell = |_: &str| *told.lock().expect("nobody panicked") = true;
        let soon = tokio::time::timeout(LOOK * 3, turns.wait("pve", what, &tell)).await;
        assert_eq!(soon.is_err(), *told.lock().expect("nobody panicked"), "who waits is told why");
        soon.is_err()
    }

    #[tokio::test]
    async fn a_turn_is_one_processs_until_it_is_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let below = folder.path().join("not/there/yet");
        // Files that are opened apart lock each other out, in one process as in two.
        let (one, other) = (Turns::shared(below.clone()), Turns::shared(below));
        let turn = one.wait("pve", "local:iso/a.iso", &|_| {}).await;
        assert!(waits(&other, "local:iso/a.iso").await);
        assert!(!waits(&other, "local:iso/b.iso").await, "another file is another turn");
        drop(turn);
        assert!(!waits(&other, "local:iso/a.iso").await);
    }

    #[tokio::test]
    async fn a_folder_that_can_t_be_used_holds_nobody_up() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let turns = Turns::shared(file.path().join("below a file"));
        assert!(!waits(&turns, "local:iso/a.iso").await);
    }
}
