//! What the guest writes to its serial port: kept in the evidence line by line, masked, and something to wait for.
//!
//! The record of the VM is read from its beginning whenever it is opened, so a VM that was started again has one record,
//! and a step finds what came before it.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forge_machine::Machine;
use regex_lite::Regex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::engine::Cx;
use crate::event::Redactor;

/// The record in the evidence.
const FILE: &str = "serial.log";
/// How often the record is read: it is a file of this machine.
const PACE: Duration = Duration::from_millis(100);
/// How much of the record's end is searched and told.
const KEPT: usize = 256 << 10;
/// The longest line; what is longer is cut in pieces.
const LONGEST: usize = 16 << 10;

/// Follows the serial port until this is dropped.
#[derive(Debug)]
pub(super) struct Wire {
    task: JoinHandle<()>,
    record: Arc<Mutex<Record>>,
    heard: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Record {
    path: PathBuf,
    redactor: Redactor,
    file: Option<File>,
    /// Whether nothing is written any more: the evidence is being summed up.
    closed: bool,
    /// A line without its end.
    pending: Vec<u8>,
    /// The last lines, masked.
    text: String,
}

impl Wire {
    pub(super) fn start(cx: &Cx, machine: Arc<dyn Machine>) -> Self {
        let record = Arc::new(Mutex::new(Record {
            path: cx.evidence.path().join(FILE),
            redactor: cx.evidence.redactor().clone(),
            file: None,
            closed: false,
            pending: Vec::new(),
            text: String::new(),
        }));
        let (tell, heard) = watch::channel(0);
        let task = tokio::spawn(follow(machine, Arc::clone(&record), tell));
        Self { task, record, heard }
    }

    /// Waits for a line; gives up with the last one that came.
    pub(super) async fn wait_for(&self, wanted: &Regex, limit: Duration) -> Result<(), String> {
        let mut heard = self.heard.clone();
        let comes = async {
            loop {
                heard.borrow_and_update();
                if lock(&self.record).lines().any(|line| wanted.is_match(line.trim_end())) {
                    return;
                }
                if heard.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        if tokio::time::timeout(limit, comes).await.is_ok() {
            return Ok(());
        }
        let record = lock(&self.record);
        Err(record.lines().filter(|line| !line.trim().is_empty()).last().unwrap_or("nothing").to_owned())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
        lock(&self.record).close();
    }
}

async fn follow(machine: Arc<dyn Machine>, record: Arc<Mutex<Record>>, tell: watch::Sender<u64>) {
    let mut from = 0;
    loop {
        match machine.serial(from).await {
            Ok(bytes) if !bytes.is_empty() => {
                from += bytes.len() as u64;
                lock(&record).take(&bytes);
                tell.send_replace(from);
            }
            Ok(_) => tokio::time::sleep(PACE).await,
            Err(error) => {
                tracing::debug!(%error, "the serial port is not followed");
                return;
            }
        }
    }
}

impl Record {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                // What moves the cursor or colours means nothing in a file.
                0 => {}
                _ => self.pending.push(*byte),
            }
            if self.pending.len() > LONGEST {
                self.end_line();
            }
        }
    }

    /// Nothing comes any more. A port that said nothing leaves no file.
    fn close(&mut self) {
        if !self.pending.is_empty() {
            self.end_line();
        }
        self.closed = true;
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned();
        let line = format!("{}\n", self.redactor.text(&line));
        self.write(&line);
        self.text.push_str(&line);
        if self.text.len() > 2 * KEPT {
            let cut = self.text.len() - KEPT;
            let cut = self.text.char_indices().map(|(at, _)| at).find(|at| *at >= cut).unwrap_or(0);
            self.text.drain(..cut);
        }
    }

    /// No build ends for its evidence of the serial port.
    fn write(&mut self, line: &str) {
        if self.closed {
            return;
        }
        if self.file.is_none() {
            self.file = File::create(&self.path).ok();
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(line.as_bytes())
        {
            tracing::warn!(%error, "the record of the serial port ends here");
            self.closed = true;
        }
    }

    /// All lines that are kept, and the one that has not ended yet: a prompt has no end.
    fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines().chain(std::str::from_utf8(&self.pending).ok())
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(folder: &std::path::Path) -> Record {
        Record {
            path: folder.join(FILE),
            redactor: Redactor::default(),
            file: None,
            closed: false,
            pending: Vec::new(),
            text: String::new(),
        }
    }

    #[test]
    fn a_port_that_said_nothing_leaves_no_file_and_a_last_line_without_an_end_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        record(folder.path()).close();
        assert!(!folder.path().join(FILE).exists());
        let mut other = record(folder.path());
        other.take(b"booted\nlogin: ");
        other.close();
        other.close();
        other.take(b"too late\n");
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE)).unwrap(), "booted\nlogin: \n");
    }

    #[test]
    fn lines_are_kept_masked_and_a_prompt_without_an_end_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut record) = (folder.path().join(FILE), record(folder.path()));
        record.redactor.add("correct-horse");
        record.take(b"Linux\r\npassword correct-");
        assert!(record.lines().any(|line| line.starts_with("password")));
        record.take(b"horse\nlogin: ");
        assert_eq!(record.lines().last(), Some("login: "));
        let kept = std::fs::read_to_string(path).unwrap();
        assert!(kept.starts_with("Linux\npassword ") && !kept.contains("correct-horse"), "{kept}");
        record.take(&vec![b'x'; 3 * KEPT]);
        assert!(record.text.len() <= 2 * KEPT && record.pending.len() <= LONGEST);
    }
}
