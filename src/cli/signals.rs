//! Ctrl-C and SIGTERM: the first interrupts and cleans up, the second stops waiting for that.

use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first signal cancels. The second ends the process, saying what is left to do.
#[must_use]
pub fn cancel_on_signals(journal: PathBuf) -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            tracing::warn!("signals can't be caught: an interruption will leave things for `forge gc`");
            return;
        };
        next(&mut interrupt, &mut terminate).await;
        cancelled.cancel();
        next(&mut interrupt, &mut terminate).await;
        crate::ui::say(&format!(
            "stopped in the middle of the clean-up: `forge gc` does the rest (the journals are in {})",
            journal.display()
        ));
        std::process::exit(i32::from(super::INTERRUPTED));
    });
    token
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
