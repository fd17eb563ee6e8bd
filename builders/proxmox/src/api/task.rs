//! Proxmox's background tasks: their names (UPIDs), waiting for them, what they say when they fail.
//!
//! Nothing pushes, so waiting is polling. The interval grows with the time already waited, from 50 ms to 1 s: the
//! end of a task is seen late by at most a sixteenth of its length.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use crate::api::client::Client;
use crate::api::encode::{Params, path};
use crate::api::error::ApiError;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// How long a target that stopped answering is asked on, before waiting for its task is given up.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a task may say nothing new before it is given up, where the site says nothing else. Copies of disks tell their
/// percents, so the longest silence of theirs is that of a percent which takes long. What says nothing by nature may be
/// silent for longer: see [`SILENT`].
pub const STALL: Duration = Duration::from_secs(15 * 60);
/// Tasks that do their work without a word: the copy of an upload from the spool to its storage, and the checksum of what
/// was uploaded or downloaded (pve-storage `API2/Storage/Status.pm`, pve-common `Tools::download_file_from_url`). With a
/// large file on a slow share that takes longer than anything that talks is silent.
const SILENT: [&str; 2] = ["imgcopy", "download"];
/// How many times as long these may be silent.
const SILENT_FACTOR: u32 = 8;
/// How long a task that was asked to stop may take for that.
const STOPS_WITHIN: Duration = Duration::from_secs(20);
/// How often a task that takes long is asked what it says, at most.
const LISTEN_EVERY: Duration = Duration::from_secs(20);
/// How much of a task's log is looked through.
const WARNING_LINES: u64 = 500;
/// How much of a failed task's log is told.
const LOG_LINES: u64 = 12;

/// An interval between two questions that grows with the time already waited.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
}

impl Pace {
    /// Begins to wait.
    #[must_use]
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// How long it has been waited.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits until it is time to ask again. May be dropped.
    pub async fn rest(&self) {
        tokio::time::sleep(interval_after(self.elapsed())).await;
    }
}

fn interval_after(waited: Duration) -> Duration {
    (waited / 16).clamp(SHORTEST, LONGEST)
}

/// A task's name, `UPID:{node}:{pid}:{pstart}:{starttime}:{type}:{id}:{user}:` (pve-common `UPID.pm`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upid {
    /// The whole name.
    pub text: String,
    /// The node that works on it; its status must be asked of this node.
    pub node: String,
    /// `qmclone`, `qmstart`, …
    pub kind: String,
    /// What it works on, usually the VMID.
    pub id: String,
}

impl Upid {
    /// Reads a UPID; `None` when it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        if parts.len() < 9 || parts.first() != Some(&"UPID") {
            return None;
        }
        Some(Self {
            text: text.to_owned(),
            node: (*parts.get(1)?).to_owned(),
            kind: (*parts.get(5)?).to_owned(),
            id: (*parts.get(6)?).to_owned(),
        })
    }

    /// The task in words.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("task {} of VM {} on {}", self.kind, self.id, self.node)
    }
}

/// What is known of a task.
#[derive(Clone, Debug, Deserialize)]
pub struct TaskStatus {
    /// `running` or `stopped`.
    pub status: String,
    /// How it ended: `OK`, `WARNINGS: n`, or the error.
    #[serde(default)]
    pub exitstatus: Option<String>,
}

impl TaskStatus {
    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.status == "stopped"
    }
}

#[derive(Debug, Deserialize)]
struct LogLine {
    #[serde(default)]
    t: String,
}

/// Whether an exit status means success: `OK`, or `WARNINGS: n` (pve-common `UPID.pm` `status_is_error`).
#[must_use]
pub fn is_success(exit: &str) -> bool {
    exit == "OK"
        || exit
            .strip_prefix("WARNINGS: ")
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// How long a task of a kind may be silent, where others may be so for `stall`.
fn stall_of(kind: &str, stall: Duration) -> Duration {
    if SILENT.contains(&kind) { stall.saturating_mul(SILENT_FACTOR) } else { stall }
}

impl Client {
    /// Asks how a task stands. May be dropped.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn task_status(&self, upid: &Upid) -> Result<TaskStatus, ApiError> {
        self.get(&path(&["nodes", &upid.node, "tasks", &upid.text, "status"]), &Params::new()).await
    }

    /// Waits until a task is over, and tells its exit status. May be dropped: the task goes on.
    ///
    /// A target that does not answer for a while (a restart of its proxy) is asked again. However long a task takes, it is
    /// given up only when its log stands still, for [`STALL`] or several times as long where it has nothing to say; it is
    /// stopped then, so that it neither holds its locks nor comes to its end later, when nobody counts on it any more.
    ///
    /// # Errors
    /// When the target can't be asked any more, or the task makes no progress.
    pub async fn await_task(&self, upid: &Upid) -> Result<String, ApiError> {
        let pace = Pace::start();
        let stall = stall_of(&upid.kind, self.stall());
        let mut silent_since: Option<Instant> = None;
        let (mut asked, mut moved, mut said) = (Instant::now(), Instant::now(), None);
        loop {
            if asked.elapsed() >= LISTEN_EVERY.min(stall / 4) {
                asked = Instant::now();
                let now = self.task_log_end(upid).await;
                if now != said {
                    (moved, said) = (Instant::now(), now);
                } else if moved.elapsed() >= stall {
                    let last = said.map_or_else(|| "nothing".to_owned(), |(_, line)| format!("`{line}`"));
                    let silent = moved.elapsed().as_secs();
                    let stopped = self.stop_and_see(upid).await;
                    let detail = format!("no progress for {silent} s; it said last: {last}; {stopped}");
                    return Err(ApiError::Refused { request: upid.describe(), detail });
                }
            }
            match self.task_status(upid).await {
                Ok(status) if status.is_over() => {
                    return Ok(status.exitstatus.unwrap_or_else(|| "unexpected status".to_owned()));
                }
                Ok(_) => silent_since = None,
                Err(error @ ApiError::Unreachable { .. }) => {
                    let since = *silent_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > PATIENCE.min(self.stall()) {
                        return Err(error);
                    }
                    tracing::debug!(%error, upid = upid.text, "the task can't be asked about; trying on");
                }
                Err(error) => return Err(error),
            }
            pace.rest().await;
        }
    }

    /// Waits until a task has succeeded. May be dropped: the task goes on.
    ///
    /// # Errors
    /// The task's failure in its own words with the last lines of its log, sorted like any other error.
    pub async fn wait_task(&self, upid: &Upid) -> Result<(), ApiError> {
        let exit = self.await_task(upid).await?;
        if is_success(&exit) {
            if exit != "OK" {
                tracing::warn!(upid = upid.text, exit, "the task ended with warnings");
            }
            return Ok(());
        }
        Err(self.task_failure(upid, &exit).await)
    }

    /// The error of a failed task, with the last lines of its log.
    pub async fn task_failure(&self, upid: &Upid, exit: &str) -> ApiError {
        let mut detail = exit.trim().to_owned();
        for line in self.task_log_tail(upid).await {
            // The last line repeats the exit status.
            if !line.contains(exit.trim()) && !line.trim().is_empty() {
                detail.push_str("\n  ");
                detail.push_str(line.trim_end());
            }
        }
        ApiError::from_text(&upid.describe(), exit, detail)
    }

    /// How long a task's log is and what its last line says; `None` while it can't be read.
    async fn task_log_end(&self, upid: &Upid) -> Option<(u64, String)> {
        let path = path(&["nodes", &upid.node, "tasks", &upid.text, "log"]);
        let first = self.get_reply(&path, &Params::new().with("start", 0).with("limit", 1)).await.ok()?;
        let total = first.total.unwrap_or(0);
        let query = Params::new().with("start", total.saturating_sub(1)).with("limit", 1);
        let last = self.get_reply(&path, &query).await.ok()?;
        let lines: Vec<LogLine> = crate::api::client::decode("GET the task's log", last.data).ok()?;
        Some((total, lines.into_iter().map(|line| line.t.trim().to_owned()).collect()))
    }

    /// What a task warned of while it succeeded, in its own words (`WARN: …`, pve-guest-common `RESTEnvironment::warn`).
    pub async fn task_warnings(&self, upid: &Upid) -> Vec<String> {
        let lines = self.task_log(upid).await.unwrap_or_default();
        let warnings = lines.iter().filter_map(|line| line.strip_prefix("WARN: "));
        warnings.map(|text| text.trim().to_owned()).collect()
    }

    /// What a task has said, as far as its log is looked through.
    ///
    /// # Errors
    /// When the log can't be read.
    pub async fn task_log(&self, upid: &Upid) -> Result<Vec<String>, ApiError> {
        let path = path(&["nodes", &upid.node, "tasks", &upid.text, "log"]);
        let query = Params::new().with("start", 0).with("limit", WARNING_LINES);
        let lines: Vec<LogLine> = self.get(&path, &query).await?;
        Ok(lines.into_iter().map(|line| line.t).collect())
    }

    /// The last lines of a task's log; none when it can't be read. The default limit of the call is 50 lines
    /// from the beginning, so the length is asked first.
    pub async fn task_log_tail(&self, upid: &Upid) -> Vec<String> {
        let path = path(&["nodes", &upid.node, "tasks", &upid.text, "log"]);
        let lines = async {
            let first =
                self.get_reply(&path, &Params::new().with("start", 0).with("limit", LOG_LINES)).await?;
            let start = first.total.unwrap_or(0).saturating_sub(LOG_LINES);
            let data = if start == 0 {
                first.data
            } else {
                self.get_reply(&path, &Params::new().with("start", start).with("limit", LOG_LINES))
                    .await?
                    .data
            };
            crate::api::client::decode::<Vec<LogLine>>("GET the task's log", data)
        };
        match lines.await {
            Ok(lines) => lines.into_iter().map(|line| line.t).collect(),
            Err(error) => {
                tracing::debug!(%error, upid = upid.text, "the task's log can't be read");
                Vec::new()
            }
        }
    }

    /// Stops a task that hangs and waits a moment for its end, which may be a good one after all; in words.
    async fn stop_and_see(&self, upid: &Upid) -> String {
        if let Err(error) = self.stop_task(upid).await {
            return format!("it could not be stopped: {error}");
        }
        let pace = Pace::start();
        while pace.elapsed() < STOPS_WITHIN {
            match self.task_status(upid).await {
                Ok(status) if status.is_over() => return "it was stopped".to_owned(),
                _ => pace.rest().await,
            }
        }
        format!("it was asked to stop, and still runs {} s later", STOPS_WITHIN.as_secs())
    }

    /// Asks a task to stop. A finished or unknown task is no error. Effect.
    ///
    /// # Errors
    /// When the target can't be asked.
    pub async fn stop_task(&self, upid: &Upid) -> Result<(), ApiError> {
        let answer = self.delete(&path(&["nodes", &upid.node, "tasks", &upid.text]), &Params::new()).await;
        match answer {
            Ok(_) => Ok(()),
            Err(ApiError::Missing { .. }) => Ok(()),
            // The answer may be lost while the worker dies; what counts is whether it is over.
            Err(error) => match self.task_status(upid).await {
                Ok(status) if status.is_over() => Ok(()),
                Err(ApiError::Missing { .. }) => Ok(()),
                _ => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_upid_tells_its_node_kind_and_vm() {
        let text = "UPID:pve:00000306:00047E4D:6B010569:qmclone:9000:automation@pve!forge:";
        let upid = Upid::parse(text).expect("well formed");
        assert_eq!((upid.node.as_str(), upid.kind.as_str(), upid.id.as_str()), ("pve", "qmclone", "9000"));
        assert_eq!(upid.describe(), "task qmclone of VM 9000 on pve");
        for text in ["", "UPID:pve", "OK", "XPID:a:b:c:d:e:f:g:"] {
            assert!(Upid::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn warnings_are_a_success_and_nothing_else_is() {
        for exit in ["OK", "WARNINGS: 1", "WARNINGS: 12"] {
            assert!(is_success(exit), "{exit}");
        }
        for exit in ["", "ok", "WARNINGS: ", "WARNINGS: x", "unexpected status", "received interrupt", "OK?"]
        {
            assert!(!is_success(exit), "{exit}");
        }
    }

    #[test]
    fn what_has_nothing_to_say_may_be_silent_for_longer() {
        for (kind, hours) in [("qmclone", 1), ("qmcreate", 1), ("imgcopy", 8), ("download", 8)] {
            let hour = Duration::from_secs(3600);
            assert_eq!(stall_of(kind, hour), hour * hours, "{kind}");
        }
    }

    #[test]
    fn polling_is_fast_at_first_and_never_slower_than_a_second() {
        let table =
            [(0, 50), (100, 50), (800, 50), (1_600, 100), (8_000, 500), (16_000, 1_000), (600_000, 1_000)];
        for (waited, interval) in table {
            let waited = Duration::from_millis(waited);
            assert_eq!(interval_after(waited), Duration::from_millis(interval), "after {waited:?}");
        }
    }
}
