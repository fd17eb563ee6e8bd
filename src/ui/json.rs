//! One JSON object per event and line, for programs: the public form of [`Envelope`].

use std::io::Write;

use crate::event::{BuildView, Envelope, Sink};

/// Writes JSON lines.
#[derive(Debug)]
pub struct JsonLines<W> {
    out: W,
}

impl<W: Write + Send> JsonLines<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write + Send> Sink for JsonLines<W> {
    fn take(&mut self, envelope: &Envelope, _view: &BuildView) {
        let Ok(mut line) = serde_json::to_vec(envelope) else { return };
        line.push(b'\n');
        // A reader that went away is its own affair; the build goes on.
        let _reader_is_gone = self.out.write_all(&line).and_then(|()| self.out.flush());
    }
}
