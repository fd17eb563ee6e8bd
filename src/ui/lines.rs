//! One line per event, with the time since the build began: for logs and CI.

use std::collections::BTreeMap;
use std::io::Write;

use super::failure;
use super::paint::paint;
use crate::event::phrase::{Tone, phrase};
use crate::event::view::Transfer;
use crate::event::{BuildView, Envelope, Event, Sink};

/// Writes lines.
#[derive(Debug)]
pub struct Lines<W> {
    out: W,
    quiet: bool,
    steps: Steps,
}

/// Which of many events about downloads become lines: one for every tenth of a file, and one in half a minute.
#[derive(Debug, Default)]
pub(super) struct Steps {
    last: BTreeMap<String, (String, u64, u64)>,
}

impl Steps {
    /// Whether it is time for a line.
    pub(super) fn is_due(&mut self, build: &str, transfer: &Transfer, t_ms: u64) -> bool {
        let tenth =
            transfer.total.and_then(|total| (transfer.done * 10).checked_div(total)).unwrap_or_default();
        let now = (transfer.name.clone(), tenth, t_ms);
        match self.last.get_mut(build) {
            Some(last) if last.0 == transfer.name => {
                let due = last.1 != tenth || t_ms.saturating_sub(last.2) >= 30_000;
                if due {
                    *last = now;
                }
                due
            }
            // That it begins was told already.
            _ => {
                self.last.insert(build.to_owned(), now);
                false
            }
        }
    }
}

impl<W: Write + Send> Lines<W> {
    /// Writes to `out`; a quiet one only writes warnings, failures and results.
    pub fn new(out: W, quiet: bool) -> Self {
        Self { out, quiet, steps: Steps::default() }
    }
}

impl<W: Write + Send> Sink for Lines<W> {
    fn take(&mut self, envelope: &Envelope, view: &BuildView) {
        let transfer =
            matches!(envelope.event, Event::Transferring { .. }).then_some(view.transfer.as_ref()).flatten();
        let said = match transfer {
            Some(transfer) => self
                .steps
                .is_due(envelope.build.as_str(), transfer, envelope.t_ms)
                .then(|| (Tone::Plain, " ", format!("create: downloading {}", transfer.in_words()))),
            None => phrase(envelope),
        };
        let Some((tone, mark, words)) = said else { return };
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
