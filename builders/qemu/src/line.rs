//! Bounded line reading that survives being dropped in the middle.
//!
//! Invariant: a line longer than the limit is an error, never an allocation of that size.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads lines ended by `\n`. Cancel-safe: what was read so far stays in the buffer.
#[derive(Debug)]
pub(crate) struct LineReader<R> {
    reader: R,
    buffer: Vec<u8>,
    /// How far the buffer was already searched for a line end.
    searched: usize,
    limit: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { reader, buffer: Vec::new(), searched: 0, limit }
    }

    /// The next line without its end; `None` at the end of the stream (a line without end is dropped).
    pub(crate) async fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let unseen = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(offset) = unseen.iter().position(|byte| *byte == b'\n') {
                let end = self.searched + offset;
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.limit {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a line is longer than {} bytes", self.limit),
                ));
            }
            self.buffer.reserve(4096);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Cuts text to at most `limit` characters, marking the cut.
pub(crate) fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_split_and_a_last_one_without_end_is_dropped() {
        let mut reader = LineReader::new(&b"one\n\ntwo\nthree"[..], 10);
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().await.expect("short lines") {
            lines.push(String::from_utf8(line).expect("text"));
        }
        assert_eq!(lines, ["one", "", "two"]);
    }

    #[tokio::test]
    async fn an_endless_line_is_an_error() {
        let mut reader = LineReader::new(tokio::io::repeat(b'x'), 10_000);
        let error = reader.next_line().await.expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
