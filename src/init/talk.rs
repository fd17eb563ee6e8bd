//! What is said, kept for the log, and asked at the terminal.

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};

use console::Term;

use crate::event::Redactor;

/// Says things on stderr, masked, and keeps them for the log.
#[derive(Debug, Default)]
pub struct Talk {
    quiet: bool,
    redactor: Redactor,
    log: Mutex<Vec<String>>,
}

impl Talk {
    /// A talk that says nothing when it is to be quiet, and keeps everything.
    #[must_use]
    pub fn new(quiet: bool, redactor: Redactor) -> Self {
        Self { quiet, redactor, log: Mutex::default() }
    }

    /// What masks secrets.
    #[must_use]
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Keeps a line for the log.
    pub fn note(&self, line: &str) {
        let line = format!("{} {line}", jiff::Timestamp::now().strftime("%H:%M:%S"));
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Says a line, and keeps it.
    pub fn say(&self, line: &str) {
        self.note(line);
        if !self.quiet {
            crate::ui::say(&self.redactor.text(line));
        }
    }

    /// Says a line even when it is to be quiet, and keeps it.
    pub fn warn(&self, line: &str) {
        self.note(&format!("warning: {line}"));
        crate::ui::say(&self.redactor.text(&format!("warning: {line}")));
    }

    /// The log so far, masked by what is known by now.
    #[must_use]
    pub fn log(&self) -> String {
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
        self.redactor.text(&format!("{lines}\n"))
    }
}

/// Whether somebody can be asked.
#[must_use]
pub fn somebody_is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for a secret, which is not shown; `None` when nobody answers.
pub async fn ask_secret(question: &str) -> Option<String> {
    ask(question, Term::read_secure_line).await
}

/// Asks for a line; `None` when nobody answers.
pub async fn ask_line(question: &str) -> Option<String> {
    ask(question, Term::read_line).await
}

async fn ask(question: &str, read: fn(&Term) -> std::io::Result<String>) -> Option<String> {
    if !somebody_is_there() {
        return None;
    }
    let question = question.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let terminal = Term::stderr();
        terminal.write_str(&format!("{question} ")).ok()?;
        read(&terminal).ok()
    });
    asked.await.ok().flatten().filter(|answer| !answer.is_empty())
}
