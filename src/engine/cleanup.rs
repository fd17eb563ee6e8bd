//! The stack of undos of one living build, with its journal.

use std::sync::Arc;
use std::time::Duration;

use forge_machine::{Finish, Hypervisor, TaskHandle, VmRef};

use super::journal::{Journal, JournalError, KeptBuild, OpenUndo, Record, UndoAction, UndoKind};
use super::reclaim::{Creation, Reclaimed, reclaim};
use crate::event::{Event, Events};

/// How long a creation whose answer was lost is given to show up, when the connection itself is over.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);

/// How long one undo may take.
pub const UNDO_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Entry {
    id: u32,
    kind: UndoKind,
    action: UndoAction,
    tasks: Vec<TaskHandle>,
    creation: Creation,
}

/// The stack of undos of one build.
#[derive(Debug)]
pub struct Cleanup {
    journal: Journal,
    entries: Vec<Entry>,
}

impl Cleanup {
    /// An empty stack over an open journal.
    #[must_use]
    pub fn new(journal: Journal) -> Self {
        Self { journal, entries: Vec::new() }
    }

    /// The stack of a build that goes on: what its journal still holds open.
    #[must_use]
    pub fn resume(journal: Journal, undos: Vec<OpenUndo>) -> Self {
        let entries = undos
            .into_iter()
            .rev()
            .map(|undo| Entry {
                id: undo.id,
                kind: undo.kind,
                action: undo.action,
                tasks: undo.tasks,
                creation: Creation::Answered,
            })
            .collect();
        Self { journal, entries }
    }

    /// Where the journal is, for messages.
    #[must_use]
    pub fn journal_path(&self) -> &std::path::Path {
        self.journal.path()
    }

    /// Records how to take an effect back, before it is tried.
    ///
    /// # Errors
    /// When the journal can't be written: the effect must not be tried.
    pub fn before_effect(&mut self, kind: UndoKind, action: UndoAction) -> Result<u32, JournalError> {
        let id = self.journal.intent(kind, action.clone())?;
        let creation = Creation::Unanswered { appears_within: APPEARS_WITHIN };
        self.entries.push(Entry { id, kind, action, tasks: Vec::new(), creation });
        Ok(id)
    }

    /// Notes that the effect became the target's own work.
    ///
    /// # Errors
    /// When the journal can't be written.
    pub fn submitted(&mut self, id: u32, task: &TaskHandle) -> Result<(), JournalError> {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.creation = Creation::Answered;
            if !task.is_finished() {
                entry.tasks.push(task.clone());
            }
        }
        self.journal.write(&Record::Submitted { id, task: task.clone() })
    }

    /// Takes an undo off: its effect was certainly not made.
    ///
    /// # Errors
    /// When the journal can't be written.
    pub fn settle(&mut self, id: u32) -> Result<(), JournalError> {
        self.entries.retain(|entry| entry.id != id);
        self.journal.write(&Record::Settled { id })
    }

    /// From here on the artefact may exist: what would remove it is void, and whoever finds it gives it its name.
    ///
    /// # Errors
    /// When the journal can't be written: the artefact must then not be made.
    pub fn committing(&mut self, publish: Finish) -> Result<(), JournalError> {
        self.journal.write(&Record::Committing { publish: Some(publish) })
    }

    /// The keep point: what would remove the VM is void, and `forge finish` finds how to go on.
    ///
    /// # Errors
    /// When the journal can't be written.
    pub fn keeping(&mut self, kept: KeptBuild) -> Result<(), JournalError> {
        self.journal.write(&Record::Keeping(kept))?;
        self.entries.retain(|entry| entry.kind == UndoKind::Always);
        Ok(())
    }

    /// The build ends here, and its VM stays as it is.
    ///
    /// # Errors
    /// When the journal can't be written.
    pub fn leaving(&mut self, vm: VmRef) -> Result<(), JournalError> {
        self.journal.write(&Record::Left { vm })
    }

    /// The guest is sealed.
    ///
    /// # Errors
    /// When the journal can't be written.
    pub fn sealed(&mut self) -> Result<(), JournalError> {
        self.journal.write(&Record::Sealed)
    }

    /// Runs the undos, newest first: all of them, or those that run on success too. What could not be undone is
    /// returned, in words, and stays in the journal.
    pub async fn unwind(
        &mut self,
        hypervisor: &Arc<dyn Hypervisor>,
        events: &Events,
        all: bool,
    ) -> Vec<String> {
        let mut left = Vec::new();
        let mut remaining = Vec::new();
        while let Some(entry) = self.entries.pop() {
            if !all && entry.kind == UndoKind::Undo {
                remaining.push(entry);
                continue;
            }
            let what = entry.action.to_string();
            events.emit(Event::Undoing { what: what.clone() });
            let result = tokio::time::timeout(UNDO_LIMIT, undo(hypervisor.as_ref(), &entry)).await;
            let (ok, detail) = match result {
                Ok(Ok(detail)) => (true, detail),
                Ok(Err(detail)) => (false, detail),
                Err(_elapsed) => (false, format!("not done within {} s", UNDO_LIMIT.as_secs())),
            };
            events.emit(Event::Undone { what: what.clone(), ok, detail: detail.clone() });
            if ok {
                if let Err(error) = self.journal.write(&Record::Settled { id: entry.id }) {
                    tracing::warn!(%error, "undone, but the journal does not know");
                }
            } else {
                left.push(format!("{what}: {detail}"));
                remaining.push(entry);
            }
        }
        remaining.reverse();
        self.entries = remaining;
        left
    }

    /// The build is over and nothing is left: the journal goes.
    ///
    /// # Errors
    /// When the file can't be removed.
    pub fn close(self) -> Result<(), JournalError> {
        self.journal.close()
    }
}

async fn undo(hypervisor: &dyn Hypervisor, entry: &Entry) -> Result<String, String> {
    match &entry.action {
        UndoAction::DestroyVm { vm, nonce } => {
            reclaim(hypervisor, vm, nonce, &entry.tasks, entry.creation, true)
                .await
                .map(|reclaimed: Reclaimed| reclaimed.to_string())
                .map_err(|error| super::error::chain(&error))
        }
        UndoAction::RemoveFile { path } => match std::fs::remove_file(path) {
            Ok(()) => Ok("removed".into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok("it does not exist".into()),
            Err(error) => Err(error.to_string()),
        },
    }
}
