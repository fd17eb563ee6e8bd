//! Asks the person at the terminal: what is done about a failure (`--on-error=ask`), for a yes, or for a line.

use std::sync::OnceLock;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::engine::on_error::{Ask, Choice};

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
        let mut lines = lines().lock().await;
        while lines.try_recv().is_ok() {}
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

/// The next line that the person types, without what was typed before the question; `None` at the end of the input.
pub async fn line() -> Option<String> {
    let mut lines = lines().lock().await;
    while lines.try_recv().is_ok() {}
    lines.recv().await
}

/// Asks for a yes; anything else, the end of the input too, is a no.
pub async fn agrees(question: &str) -> bool {
    crate::ui::say(&format!("{question} [y/N]"));
    matches!(line().await.as_deref().map(str::trim), Some("y" | "Y" | "yes"))
}

/// The lines of standard input, up to its end; read by one thread for the whole program, since reading a terminal
/// can't be interrupted, and must not hold up the end of the program.
fn lines() -> &'static Mutex<UnboundedReceiver<String>> {
    static LINES: OnceLock<Mutex<UnboundedReceiver<String>>> = OnceLock::new();
    LINES.get_or_init(|| {
        let (tell, told) = unbounded_channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lines() {
                let Ok(line) = line else { return };
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Mutex::new(told)
    })
}
