//! What the person at the terminal types, line by line: one reader for all who ask.

use std::sync::OnceLock;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Mutex, MutexGuard};

/// The lines that are typed from now on; what was typed before does not count. Whoever asks holds this from before the
/// question is seen until it is answered. `recv` gives nothing at the end of the input.
pub async fn fresh() -> MutexGuard<'static, UnboundedReceiver<String>> {
    let mut lines = lines().lock().await;
    while lines.try_recv().is_ok() {}
    lines
}

/// Says the question and gives the next line; nothing at the end of the input.
pub async fn answer(question: &str) -> Option<String> {
    let mut lines = fresh().await;
    super::say(question);
    lines.recv().await
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
