//! Asks the person at the terminal what is done about a failure: `--on-error=ask`.

use async_trait::async_trait;

use crate::engine::on_error::{Ask, Choice};

/// Whoever sits at the terminal.
#[derive(Clone, Copy, Debug)]
pub struct AtTerminal;

#[async_trait]
impl Ask for AtTerminal {
    async fn ask(&self, may_retry: bool) -> Choice {
        loop {
            match line().await.as_deref().map(str::trim) {
                Some("c") | None => return Choice::CleanUp,
                Some("a") => return Choice::Abort,
                Some("r") if may_retry => return Choice::Retry,
                Some(_) => crate::ui::say(if may_retry { "c, a or r" } else { "c or a" }),
            }
        }
    }
}

/// The next line of standard input; `None` at its end.
async fn line() -> Option<String> {
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own: reading a terminal can't be interrupted, and must not hold up the end of the program.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        _ = tell.send(read.is_ok_and(|bytes| bytes > 0).then_some(line));
    });
    told.await.ok().flatten()
}
