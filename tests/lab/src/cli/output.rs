//! Where the commands' words go.

use std::io::Write as _;

/// Talk: one line on standard error. A closed terminal is no reason to stop.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Data: one line on standard output.
pub fn print(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
