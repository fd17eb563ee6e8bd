//! Asks the person at the terminal: what is done about a failure (`--on-error=ask`), or for a yes.

use async_trait::async_trait;

use crate::engine::on_error::{Ask, Choice};
use crate::ui::input;

/// Whoever sits at the terminal.
#[derive(Clone, Copy, Debug)]
pub struct AtTerminal {
    /// Whether the build's events are shown where the person can't read them.
    pub aloud: bool,
}

#[async_trait]
impl Ask for AtTerminal {
    async fn ask(&self, tell: &(dyn Fn() + Sync), question: &str, may_retry: bool) -> Choice {
        // Of builds that fail side by side one asks after the other, and each answer is to the question asked last.
        let mut lines = input::fresh().await;
        tell();
        if self.aloud {
            crate::ui::say(question);
        }
        loop {
            match lines.recv().await.as_deref().map(str::trim) {
                Some("c") | None => return Choice::CleanUp,
                Some("a") => return Choice::Abort,
                Some("r") if may_retry => return Choice::Retry,
                Some(_) => crate::ui::say(if may_retry { "c, a or r" } else { "c or a" }),
            }
        }
    }
}

/// Asks for a yes; anything else, the end of the input too, is a no.
pub async fn agrees(question: &str) -> bool {
    let said = input::answer(&format!("{question} [y/N]")).await;
    matches!(said.as_deref().map(str::trim), Some("y" | "Y" | "yes"))
}
