//! What is done with a build that fails before its keep point: `--on-error`, with Packer's words.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::event::{Event, Events};

/// What `--on-error` may say.
#[derive(Clone, Debug, Default)]
pub enum OnError {
    /// Runs the `on-error` steps, then removes what the build made.
    #[default]
    CleanUp,
    /// Runs the `on-error` steps, then leaves the VM as it is (Packer's `run-cleanup-provisioner`).
    Keep,
    /// Leaves the VM as it is at the moment of the failure.
    Abort,
    /// Asks somebody.
    Ask(Arc<dyn Ask>),
}

/// What is done about one failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// As [`OnError::CleanUp`].
    CleanUp,
    /// As [`OnError::Keep`].
    Keep,
    /// As [`OnError::Abort`].
    Abort,
    /// The step that failed is tried again.
    Retry,
}

/// Somebody who can be asked.
#[async_trait]
pub trait Ask: std::fmt::Debug + Send + Sync {
    /// Asks a question. `tell` shows it where the build's events are shown, and is called when it is this question's
    /// turn. `may_retry` says whether [`Choice::Retry`] is an answer. May be dropped.
    async fn ask(&self, tell: &(dyn Fn() + Sync), question: &str, may_retry: bool) -> Choice;
}

/// What was chosen for a build: asked at most once, but for tries again.
#[derive(Debug, Default)]
pub struct Reaction {
    on_error: OnError,
    chosen: Mutex<Option<Choice>>,
}

impl Reaction {
    /// A reaction that nothing has called for yet.
    #[must_use]
    pub fn new(on_error: OnError) -> Self {
        Self { on_error, chosen: Mutex::new(None) }
    }

    /// What is to be done about a failure of the build of `profile`, in words `failed`. May be dropped.
    pub async fn choose(&self, events: &Events, profile: &str, failed: &str, may_retry: bool) -> Choice {
        let before = *self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(choice) = before {
            return choice;
        }
        let choice = match &self.on_error {
            OnError::CleanUp => Choice::CleanUp,
            OnError::Keep => Choice::Keep,
            OnError::Abort => Choice::Abort,
            OnError::Ask(somebody) => {
                // Of builds that fail side by side one question is open at a time, and it is told when it is.
                let retry = if may_retry { ", r tries it again" } else { "" };
                let answers = format!("c cleans up and ends, a leaves the VM as it is{retry}; then Enter");
                let tell = || {
                    let message = format!("{profile}: {failed}");
                    events.emit(Event::Warning { message, help: answers.clone() });
                };
                match somebody.ask(&tell, &format!("{profile}: {failed}\n{answers}"), may_retry).await {
                    Choice::Retry if may_retry => return Choice::Retry,
                    Choice::Retry => Choice::CleanUp,
                    choice => choice,
                }
            }
        };
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(choice);
        choice
    }
}
