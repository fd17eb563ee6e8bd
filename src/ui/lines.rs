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

/// Which of many events about downloads and uploads become lines: one for every tenth of a file, and one in half a minute.
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
        let said = match (&envelope.event, &view.transfer) {
            (Event::Transferring { stage, .. }, Some(transfer)) => self
                .steps
                .is_due(envelope.build.as_str(), transfer, envelope.t_ms)
                .then(|| (Tone::Plain, " ", format!("{stage}: {}", transfer.in_words()))),
            _ => phrase(envelope),
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

#[cfg(test)]
mod tests {
    use forge_machine::ChainId;

    use super::*;
    use crate::event::{Stage, VERSION};

    #[test]
    fn a_file_on_its_way_to_the_guest_is_a_line_for_each_tenth_with_its_share_and_rate() {
        let mut out = Vec::new();
        let mut view = BuildView::new(ChainId::new("CHAIN-20261121T040506Z-web"));
        let mut lines = Lines::new(&mut out, false);
        for (seq, mib) in [(0_u64, 4_u64), (1, 14), (2, 15), (3, 34)] {
            let event = Event::Transferring {
                stage: Stage::Provision,
                name: "disk.img".into(),
                done: mib << 20,
                total: Some(100 << 20),
                up: true,
            };
            let envelope = Envelope { v: VERSION, build: view.build.clone(), seq, t_ms: seq * 1000, event };
            view.apply(&envelope);
            lines.take(&envelope, &view);
        }
        drop(lines);
        let told = String::from_utf8(out).expect("text");
        let told: Vec<&str> = told.lines().collect();
        assert_eq!(told.len(), 2, "{told:?}");
        let words = "provision: uploading disk.img: 14 % of 100.0 MiB, 10.0 MiB/s, 8.0 s left";
        assert!(told[0].contains(words), "{told:?}");
        assert!(told[1].contains("34 % of 100.0 MiB, 10.0 MiB/s, 6.0 s left"), "{told:?}");
        // What the provisioner says next takes its place.
        let event = Event::Output { step: "files".into(), line: "done".into(), stderr: false };
        view.apply(&Envelope { v: VERSION, build: view.build.clone(), seq: 4, t_ms: 4000, event });
        assert_eq!(view.transfer, None);
    }
}
