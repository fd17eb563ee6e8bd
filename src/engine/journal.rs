//! What must be undone if the process dies, on disk before it can be needed.
//!
//! One file per build, `<chain-id>.jsonl`, locked while its build lives: a file that can be locked belongs to a dead
//! build. Each record is one line, synced before the effect it announces. A line that was cut off by a crash is the
//! last one, and is ignored: its effect was never tried. No secret is ever written here, and the target only by
//! name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use forge_machine::{ChainId, Finish, Nonce, TaskHandle, VmRef};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::publish::Move;

/// When an undo runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UndoKind {
    /// Only when the build failed.
    Undo,
    /// On success too.
    Always,
}

/// What takes an effect back, as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "undo")]
pub enum UndoAction {
    /// Removes the build VM, if it bears the nonce.
    #[serde(rename_all = "kebab-case")]
    DestroyVm {
        /// Where it is, or may be.
        vm: VmRef,
        /// The build's nonce.
        nonce: Nonce,
    },
    /// Removes a file of this machine.
    #[serde(rename_all = "kebab-case")]
    RemoveFile {
        /// The file.
        path: PathBuf,
    },
}

impl std::fmt::Display for UndoAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DestroyVm { vm, .. } => write!(f, "remove {vm}"),
            Self::RemoveFile { path } => write!(f, "remove {}", path.display()),
        }
    }
}

/// How `forge finish` goes on with a build that was past its keep point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeptBuild {
    /// The kept VM.
    pub vm: VmRef,
    /// Whether the seal still has to be done.
    pub sealed: bool,
    /// The build key's file (mode 0600), needed as long as the seal is not done.
    pub key_file: Option<PathBuf>,
    /// The guest's host key fingerprint.
    pub host_key: Option<String>,
}

/// A line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "record")]
pub enum Record {
    /// The build began.
    #[serde(rename_all = "kebab-case")]
    Opened {
        /// The version of this form: 1.
        version: u32,
        /// The build.
        chain_id: ChainId,
        /// The profile's name.
        profile: String,
        /// The target's name in the site file.
        target: String,
        /// The build's nonce.
        nonce: Nonce,
        /// When it began.
        started: Timestamp,
        /// The folder of evidence.
        evidence: PathBuf,
    },
    /// An effect is about to be tried.
    #[serde(rename_all = "kebab-case")]
    Intent {
        /// The number of the record in its journal.
        id: u32,
        /// When the undo runs.
        kind: UndoKind,
        /// What takes the effect back.
        action: UndoAction,
        /// When.
        at: Timestamp,
    },
    /// The effect became work of the target's own.
    #[serde(rename_all = "kebab-case")]
    Submitted {
        /// The intent.
        id: u32,
        /// The work.
        task: TaskHandle,
    },
    /// The undo is not needed any more: it was run, or the effect was never made.
    #[serde(rename_all = "kebab-case")]
    Settled {
        /// The intent.
        id: u32,
    },
    /// The artefact may exist from here on: undos of kind `undo` are void.
    #[serde(rename_all = "kebab-case")]
    Committing {
        /// What it becomes: whoever finds it made and not published does that.
        #[serde(default)]
        publish: Option<Finish>,
    },
    /// The keep point is reached: whatever fails from here on, the VM stays, and this is how to go on with it.
    Keeping(KeptBuild),
    /// The guest is sealed.
    Sealed,
    /// The build failed before its keep point, and its VM stays as it is because somebody wants to look at it.
    #[serde(rename_all = "kebab-case")]
    Left {
        /// The VM.
        vm: VmRef,
    },
    /// The tag `latest` is about to go from some templates to another.
    Moving(Move),
    /// The build is over and leaves nothing to do.
    Closed,
}

/// A failure of the journal itself.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("can't {action} the journal {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A line makes no sense.
    #[error("line {line} of the journal {} makes no sense", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

/// The journal of a build that lives: holds the file's lock.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    next: u32,
}

impl Journal {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a record and syncs it to the disk.
    ///
    /// # Errors
    /// When the disk refuses; the effect must then not be tried.
    pub fn write(&mut self, record: &Record) -> Result<(), JournalError> {
        let mut line = serde_json::to_vec(record).map_err(|error| self.io("write", error.into()))?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| self.io("write", error))
    }

    /// Announces an effect; the number names it from then on.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub fn intent(&mut self, kind: UndoKind, action: UndoAction) -> Result<u32, JournalError> {
        let id = self.next;
        self.next += 1;
        self.write(&Record::Intent { id, kind, action, at: Timestamp::now() })?;
        Ok(id)
    }

    /// Closes the build: nothing is left to do, so the file goes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.write(&Record::Closed)?;
        std::fs::remove_file(&self.path).map_err(|error| self.io("remove", error))
    }

    fn io(&self, action: &'static str, source: std::io::Error) -> JournalError {
        JournalError::Io { action, path: self.path.clone(), source }
    }
}

/// An undo of a dead build that was neither run nor voided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUndo {
    /// The intent's number.
    pub id: u32,
    /// When it runs.
    pub kind: UndoKind,
    /// What it does.
    pub action: UndoAction,
    /// When the effect was announced.
    pub at: Timestamp,
    /// The target's own work that it became.
    pub tasks: Vec<TaskHandle>,
}

/// What a journal tells of its build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// The build.
    pub chain_id: ChainId,
    /// The profile's name.
    pub profile: String,
    /// The target's name.
    pub target: String,
    /// The build's nonce.
    pub nonce: Nonce,
    /// When it began.
    pub started: Timestamp,
    /// The folder of evidence.
    pub evidence: PathBuf,
    /// The open undos, newest first.
    pub undos: Vec<OpenUndo>,
    /// Whether the artefact may exist.
    pub committing: bool,
    /// How it is published, when it exists.
    pub publish: Option<Finish>,
    /// How to go on, when it was past its keep point.
    pub kept: Option<KeptBuild>,
    /// The VM that was left to be looked at, by `--on-error`.
    pub left: Option<VmRef>,
    /// The move of the tag `latest` that it was about.
    pub moving: Option<Move>,
    /// Whether the build was closed in order.
    pub closed: bool,
}

impl Story {
    /// Reads a journal's text. `None` when it has no complete first record: then no effect was ever tried.
    ///
    /// # Errors
    /// When a line before the last one makes no sense.
    pub fn read(path: &Path, text: &str) -> Result<Option<Self>, JournalError> {
        let mut story: Option<Self> = None;
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for (index, line) in lines.iter().enumerate() {
            let record = match serde_json::from_str::<Record>(line) {
                Ok(record) => record,
                // Cut off by the crash, so its effect was never tried.
                Err(_) if index + 1 == lines.len() && !line.ends_with('\n') => break,
                Err(source) => {
                    return Err(JournalError::Corrupt { path: path.to_owned(), line: index + 1, source });
                }
            };
            match (&mut story, record) {
                (None, Record::Opened { chain_id, profile, target, nonce, started, evidence, .. }) => {
                    story = Some(Self {
                        chain_id,
                        profile,
                        target,
                        nonce,
                        started,
                        evidence,
                        undos: Vec::new(),
                        committing: false,
                        publish: None,
                        kept: None,
                        left: None,
                        moving: None,
                        closed: false,
                    });
                }
                (Some(story), record) => story.apply(record),
                (None, _) => {}
            }
        }
        Ok(story)
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Opened { .. } => {}
            Record::Intent { id, kind, action, at } => {
                self.undos.insert(0, OpenUndo { id, kind, action, at, tasks: Vec::new() });
            }
            Record::Submitted { id, task } => {
                if let Some(undo) = self.undos.iter_mut().find(|undo| undo.id == id) {
                    undo.tasks.push(task);
                }
            }
            Record::Settled { id } => self.undos.retain(|undo| undo.id != id),
            Record::Committing { publish } => {
                self.committing = true;
                self.publish = publish;
            }
            Record::Keeping(kept) => {
                self.kept = Some(kept);
                self.undos.retain(|undo| undo.kind == UndoKind::Always);
            }
            Record::Sealed => {
                if let Some(kept) = &mut self.kept {
                    kept.sealed = true;
                }
            }
            Record::Left { vm } => self.left = Some(vm),
            Record::Moving(moving) => self.moving = Some(moving),
            Record::Closed => self.closed = true,
        }
    }
}

/// The folder of journals.
#[derive(Clone, Debug)]
pub struct JournalDir {
    path: PathBuf,
}

/// The journal of a dead build, locked by us while we look after it.
#[derive(Debug)]
pub struct DeadJournal {
    /// What it tells.
    pub story: Story,
    journal: Journal,
}

impl DeadJournal {
    /// Gives up the story and goes on with the journal as a living build.
    #[must_use]
    pub fn into_parts(self) -> (Story, Journal) {
        (self.story, self.journal)
    }

    /// Notes that an undo was run.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub fn settle(&mut self, id: u32) -> Result<(), JournalError> {
        self.journal.write(&Record::Settled { id })
    }

    /// Removes the journal: nothing is left to do.
    ///
    /// # Errors
    /// As [`Journal::close`].
    pub fn close(self) -> Result<(), JournalError> {
        self.journal.close()
    }
}

impl JournalDir {
    /// The folder `journal` in a state folder; made when it is first written to.
    #[must_use]
    pub fn in_state_dir(state_dir: &Path) -> Self {
        Self { path: state_dir.join("journal") }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the journal of a new build and locks it.
    ///
    /// # Errors
    /// When the folder or file can't be made, or the file exists.
    pub fn create(&self, chain_id: &ChainId) -> Result<Journal, JournalError> {
        let io = |action| {
            let path = self.path.clone();
            move |source| JournalError::Io { action, path, source }
        };
        std::fs::create_dir_all(&self.path).map_err(io("make the folder of"))?;
        let path = self.path.join(format!("{chain_id}.jsonl"));
        let file = loop {
            let file = OpenOptions::new()
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(|source| JournalError::Io { action: "create", path: path.clone(), source })?;
            file.lock().map_err(|source| JournalError::Io { action: "lock", path: path.clone(), source })?;
            // Another process may have taken the empty file for a dead build's, and removed it, before it was locked.
            if file.metadata().is_ok_and(|metadata| metadata.nlink() > 0) {
                break file;
            }
        };
        // The directory entry itself must survive a crash of the machine.
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(io("sync the folder of"))?;
        Ok(Journal { file, path, next: 1 })
    }

    /// The journals of dead builds, oldest first. Those of living builds are left out; those that can't be read
    /// are given as errors.
    ///
    /// # Errors
    /// When the folder can't be read; a missing folder is an empty one.
    pub fn dead(&self) -> Result<Vec<Result<DeadJournal, JournalError>>, JournalError> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(JournalError::Io { action: "list", path: self.path.clone(), source }),
        };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .collect();
        paths.sort();
        Ok(paths.iter().filter_map(|path| Self::adopt(path).transpose()).collect())
    }

    /// The builds whose journals are locked: they live.
    #[must_use]
    pub fn living(&self) -> Vec<ChainId> {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return Vec::new() };
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .filter(|path| {
                File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
            })
            .filter_map(|path| path.file_stem().map(|stem| ChainId::new(stem.to_string_lossy())))
            .collect()
    }

    /// Locks and reads a journal; `None` when its build lives or it tells of nothing.
    fn adopt(path: &Path) -> Result<Option<DeadJournal>, JournalError> {
        let io = |action| move |source| JournalError::Io { action, path: path.to_owned(), source };
        let mut file = match OpenOptions::new().read(true).append(true).open(path) {
            Ok(file) => file,
            // Its build ended while we looked.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("open")(error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
        }
        if !path.exists() {
            return Ok(None);
        }
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).map_err(io("read"))?;
        let story = Story::read(path, &text)?;
        let next = story.as_ref().and_then(|s| s.undos.iter().map(|undo| undo.id).max()).unwrap_or(0) + 1;
        // A line that was cut off must not run into the next one.
        if !text.is_empty() && !text.ends_with('\n') {
            let complete = text.rfind('\n').map_or(0, |end| end + 1);
            file.set_len(u64::try_from(complete).unwrap_or(0)).map_err(io("repair"))?;
        }
        let journal = Journal { file, path: path.to_owned(), next };
        match story {
            Some(story) if !story.closed => Ok(Some(DeadJournal { story, journal })),
            _ => {
                journal.close()?;
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Record {
        Record::Opened {
            version: 1,
            chain_id: ChainId::new("CHAIN-1"),
            profile: "debian-12".into(),
            target: "pve".into(),
            nonce: Nonce::from_bytes([7; 8]),
            started: Timestamp::UNIX_EPOCH,
            evidence: "output/debian-12/CHAIN-1".into(),
        }
    }

    fn destroy(id: &str) -> UndoAction {
        UndoAction::DestroyVm { vm: VmRef::new(id, "pve"), nonce: Nonce::from_bytes([7; 8]) }
    }

    #[test]
    fn a_living_builds_journal_is_left_alone_and_a_dead_ones_tells_what_is_open() {
        let state = tempfile::tempdir().expect("a folder");
        let dir = JournalDir::in_state_dir(state.path());
        let mut journal = dir.create(&ChainId::new("CHAIN-1")).expect("new");
        journal.write(&opened()).expect("writable");
        let first = journal.intent(UndoKind::Undo, destroy("9000")).expect("writable");
        let second = journal.intent(UndoKind::Undo, destroy("9001")).expect("writable");
        let task = TaskHandle { id: "UPID:x".into(), node: "pve".into() };
        journal.write(&Record::Submitted { id: second, task: task.clone() }).expect("writable");
        journal.write(&Record::Settled { id: first }).expect("writable");
        assert!(dir.dead().expect("readable").is_empty(), "its build lives");
        drop(journal);
        let mut dead = dir.dead().expect("readable");
        let dead = dead.remove(0).expect("sound");
        assert_eq!(dead.story.undos.len(), 1);
        assert_eq!(dead.story.undos[0].action, destroy("9001"));
        assert_eq!(dead.story.undos[0].tasks, [task]);
        dead.close().expect("removable");
        assert!(dir.dead().expect("readable").is_empty());
    }

    #[test]
    fn a_line_cut_off_by_the_crash_is_ignored_and_repaired() {
        let state = tempfile::tempdir().expect("a folder");
        let dir = JournalDir::in_state_dir(state.path());
        let mut journal = dir.create(&ChainId::new("CHAIN-1")).expect("new");
        journal.write(&opened()).expect("writable");
        journal.intent(UndoKind::Undo, destroy("9000")).expect("writable");
        journal.file.write_all(b"{\"record\":\"settled\",\"i").expect("writable");
        drop(journal);
        let mut dead = dir.dead().expect("readable").remove(0).expect("sound");
        assert_eq!(dead.story.undos.len(), 1);
        dead.settle(1).expect("writable");
        drop(dead);
        let dead = dir.dead().expect("readable").remove(0).expect("sound after the repair");
        assert!(dead.story.undos.is_empty());
    }

    #[test]
    fn a_line_that_makes_no_sense_is_told_with_its_number_and_never_deleted() {
        let state = tempfile::tempdir().expect("a folder");
        let dir = JournalDir::in_state_dir(state.path());
        let mut journal = dir.create(&ChainId::new("CHAIN-1")).expect("new");
        journal.write(&opened()).expect("writable");
        journal.file.write_all(b"not json\n").expect("writable");
        let path = journal.path().to_owned();
        drop(journal);
        let error = dir.dead().expect("readable").remove(0).expect_err("corrupt");
        assert!(error.to_string().starts_with("line 2 of the journal"), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn the_keep_point_voids_the_undo_of_the_vm() {
        let mut text = String::new();
        let kept = KeptBuild { vm: VmRef::new("9000", "pve"), sealed: true, key_file: None, host_key: None };
        for record in [
            opened(),
            Record::Intent {
                id: 1,
                kind: UndoKind::Undo,
                action: destroy("9000"),
                at: Timestamp::UNIX_EPOCH,
            },
            Record::Keeping(kept.clone()),
        ] {
            text += &serde_json::to_string(&record).expect("plain");
            text.push('\n');
        }
        let story = Story::read(Path::new("x"), &text).expect("sound").expect("told");
        assert_eq!((story.undos, story.kept), (Vec::new(), Some(kept)));
    }
}
