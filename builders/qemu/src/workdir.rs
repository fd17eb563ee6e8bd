//! A VM's work directory: everything a local build has on disk, and the only thing that says whose it is.
//!
//! ```text
//! <root>/<id>/mark.json       whose it is (the nonce); written first
//!             machine.json    how to start it
//!             outputs.json    temporary files outside of the directory, written before they are made
//!             disk.qcow2      the overlay
//!             qemu.pid …      made by QEMU
//! ```
//!
//! Invariants: the directory is made in one step and readable by its owner only; JSON files are replaced whole; a
//! process is signalled only when its command line bears the nonce, so that a recycled pid is never hit.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forge_machine::{Nonce, Ownership, PortError, VmRef};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::args::{PID_FILE, Settings};
use crate::base::Base;

const MARK_FILE: &str = "mark.json";
const SETTINGS_FILE: &str = "machine.json";
const OUTPUTS_FILE: &str = "outputs.json";
const BASE_FILE: &str = "base.json";
/// The longest file of ours that is read back.
const FILE_LIMIT: u64 = 1 << 20;

/// The work directory of one VM, which may or may not exist.
#[derive(Clone, Debug)]
pub(crate) struct WorkDir {
    path: PathBuf,
    at: VmRef,
}

impl WorkDir {
    /// Names the directory of a VM. An id that is no plain name is refused, because it may come from a journal.
    pub(crate) fn new(root: &Path, at: &VmRef) -> Result<Self, PortError> {
        let plain = !at.id.is_empty()
            && at.id.len() <= 100
            && at.id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !plain {
            return Err(PortError::NotFound { what: at.to_string() });
        }
        Ok(Self { path: root.join(&at.id), at: at.clone() })
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Makes it, with the mark in it.
    pub(crate) fn create(&self, mark: &Ownership) -> Result<(), PortError> {
        if let Some(root) = self.path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(root)
                .map_err(|error| PortError::broken(format!("{} can't be made", root.display()), error))?;
        }
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(PortError::IdTaken { id: self.at.id.clone() });
            }
            Err(error) => {
                return Err(PortError::broken(format!("{} can't be made", self.path.display()), error));
            }
        }
        self.write_mark(mark)
    }

    /// The error for a directory that should be there.
    pub(crate) fn missing(&self) -> PortError {
        PortError::NotFound { what: self.at.to_string() }
    }

    pub(crate) fn mark(&self) -> Result<Option<Ownership>, PortError> {
        self.read(MARK_FILE)
    }

    pub(crate) fn write_mark(&self, mark: &Ownership) -> Result<(), PortError> {
        self.write(MARK_FILE, mark)
    }

    pub(crate) fn settings(&self) -> Result<Option<Settings>, PortError> {
        self.read(SETTINGS_FILE)
    }

    pub(crate) fn write_settings(&self, settings: &Settings) -> Result<(), PortError> {
        self.write(SETTINGS_FILE, settings)
    }

    /// The image below the overlay, as it was when that was made; `None` where there is none.
    pub(crate) fn base(&self) -> Result<Option<Base>, PortError> {
        self.read(BASE_FILE)
    }

    pub(crate) fn write_base(&self, base: &Base) -> Result<(), PortError> {
        self.write(BASE_FILE, base)
    }

    pub(crate) fn write_outputs(&self, outputs: &[PathBuf]) -> Result<(), PortError> {
        self.write(OUTPUTS_FILE, &outputs)
    }

    /// Whether nothing was written into it yet: its creation was cut off before the mark.
    pub(crate) fn is_blank(&self) -> bool {
        let Ok(mut entries) = fs::read_dir(&self.path) else { return false };
        entries.all(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(&format!(".{MARK_FILE}")))
        })
    }

    /// The pid of its QEMU, if that runs.
    pub(crate) fn running(&self) -> Option<Pid> {
        let nonce = self.mark().ok().flatten()?.nonce;
        let text = fs::read_to_string(self.file(PID_FILE)).ok()?;
        let pid: i32 = text.trim().parse().ok().filter(|pid| *pid > 1)?;
        is_vm_process(pid, &nonce).then_some(Pid::from_raw(pid))
    }

    /// Ends its QEMU by its recorded pid: asks first, then kills. No running process is no error.
    pub(crate) async fn end_process(&self, patience: Duration) -> Result<(), PortError> {
        for (signal, limit) in [(Signal::SIGTERM, patience), (Signal::SIGKILL, Duration::from_secs(10))] {
            let Some(pid) = self.running() else { return Ok(()) };
            // Looked at just before, so the pid is still that process's.
            if let Err(error) = kill(pid, signal) {
                tracing::debug!(%pid, %signal, %error, "signal not delivered");
            }
            let deadline = Instant::now() + limit;
            while Instant::now() < deadline {
                if self.running().is_none() {
                    return Ok(());
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
        Err(PortError::TimedOut {
            what: format!("the end of the QEMU process of {}", self.at),
            limit: patience,
            last_seen: "it outlives SIGKILL".to_owned(),
        })
    }

    /// Removes it, and the temporary files that it names. Gone is no error.
    pub(crate) fn remove(&self) -> Result<(), PortError> {
        if !self.exists() {
            return Ok(());
        }
        let outputs: Vec<PathBuf> = self.read(OUTPUTS_FILE)?.unwrap_or_default();
        if let Some(mark) = self.mark()? {
            for output in outputs {
                // Only files that bear this build's nonce are ever removed outside of the directory.
                let ours = output
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy().ends_with(mark.nonce.as_str()));
                if ours {
                    remove_file(&output)?;
                }
            }
        }
        // The mark goes last: as long as anything is left, it says whose it is.
        let wrap = |error| PortError::broken(format!("{} can't be removed", self.path.display()), error);
        for entry in fs::read_dir(&self.path).map_err(wrap)? {
            let entry = entry.map_err(wrap)?;
            if entry.file_name() != MARK_FILE {
                if entry.file_type().map_err(wrap)?.is_dir() {
                    fs::remove_dir_all(entry.path()).map_err(wrap)?;
                } else {
                    remove_file(&entry.path())?;
                }
            }
        }
        fs::remove_dir_all(&self.path).map_err(wrap)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, PortError> {
        let path = self.file(name);
        let wrap = |error: forge_machine::error::Cause| {
            PortError::broken(format!("{} can't be read", path.display()), error)
        };
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrap(error.into())),
            Ok(meta) if meta.len() > FILE_LIMIT => return Err(wrap("it is far too long".into())),
            Ok(_) => {}
        }
        let bytes = fs::read(&path).map_err(|error| wrap(error.into()))?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| wrap(error.into()))
    }

    /// Replaces a file whole and has it on the disk before returning.
    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), PortError> {
        let path = self.file(name);
        let aside = self.file(&format!(".{name}.new"));
        let work = || -> io::Result<()> {
            let mut file = File::create(&aside)?;
            file.write_all(&serde_json::to_vec(value)?)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(&self.path)?.sync_all()
        };
        work().map_err(|error| PortError::broken(format!("{} can't be written", path.display()), error))
    }
}

fn remove_file(path: &Path) -> Result<(), PortError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PortError::broken(format!("{} can't be removed", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Whether a process is the QEMU of the build with that nonce, by its command line.
fn is_vm_process(pid: i32, nonce: &Nonce) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let name = nonce.vm_name();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    words.windows(2).any(|pair| pair == [b"-name".as_slice(), name.as_bytes()])
}
