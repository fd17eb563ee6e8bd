//! One line per event, with the time since the build began: for logs and CI.

use std::io::Write;

use super::failure;
use super::paint::paint;
use crate::event::phrase::{Tone, phrase};
use crate::event::{BuildView, Envelope, Event, Sink};

/// Writes lines.
#[derive(Debug)]
pub struct Lines<W> {
    out: W,
    quiet: bool,
}

impl<W: Write + Send> Lines<W> {
    /// Writes to `out`; a quiet one only writes warnings, failures and results.
    pub fn new(out: W, quiet: bool) -> Self {
        Self { out, quiet }
    }
}

impl<W: Write + Send> Sink for Lines<W> {
    fn take(&mut self, envelope: &Envelope, view: &BuildView) {
        let Some((tone, mark, words)) = phrase(envelope) else { return };
        let result = matches!(envelope.event, Event::BuildFinished { .. });
        if self.quiet && matches!(tone, Tone::Plain | Tone::Faint | Tone::Good) && !result {
            return;
        }
        let seconds = envelope.t_ms / 1000;
        let tenths = envelope.t_ms % 1000 / 100;
        let line = paint(tone, &format!("{mark} {words}"));
        // Whoever reads the log may be gone; the build goes on.
        let _reader_is_gone = writeln!(self.out, "[{seconds:>4}.{tenths}] {} {line}", view.profile);
        if let Event::BuildFinished { ending, .. } = &envelope.event
            && let Some(failed) = ending.failure()
        {
            let _reader_is_gone = write!(self.out, "{}", failure::render(failed));
        }
        let _reader_is_gone = self.out.flush();
    }
}
