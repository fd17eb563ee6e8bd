//! Lines out of a stream of bytes, fit to be shown, and the last few of them.

use std::collections::VecDeque;

/// A line longer than this is cut in pieces, so that output without line ends can't fill the memory.
const LONGEST: usize = 16 * 1024;

/// Cuts a stream into lines. Bytes that are no UTF-8 are replaced; control and escape sequences are taken out; of a
/// line that is drawn over (`\r`) its last state is kept.
#[derive(Debug, Default)]
pub struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Takes bytes and hands over the lines that are complete.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.last() == Some(&b'\n') || self.partial.len() > LONGEST {
                self.flush(&mut line);
            }
        }
    }

    /// Hands over what is left of a line without an end.
    pub fn flush(&mut self, mut line: impl FnMut(&str)) {
        if self.partial.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.partial);
        line(&plain(&String::from_utf8_lossy(&bytes)));
    }
}

fn plain(text: &str) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    let text = text.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or("");
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => match chars.next() {
                // CSI: up to its final byte.
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // OSC: up to BEL or ESC \.
                Some(']') => {
                    while let Some(c) = chars.next() {
                        if c == '\x07' || (c == '\x1b' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                Some('(' | ')') => _ = chars.next(),
                _ => {}
            },
            '\t' => out.push('\t'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// The last lines of something.
#[derive(Clone, Debug)]
pub struct Tail {
    lines: VecDeque<String>,
    keep: usize,
}

impl Tail {
    /// Keeps the last `keep` lines that are not empty.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self { lines: VecDeque::new(), keep }
    }

    /// Takes a line; a long one is shortened.
    pub fn push(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        if self.lines.len() == self.keep {
            self.lines.pop_front();
        }
        let mut kept: String = line.chars().take(400).collect();
        if kept.len() < line.len() {
            kept.push('…');
        }
        self.lines.push_back(kept);
    }

    /// The lines, oldest first.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_and_plain_however_the_stream_is_cut() {
        let stream = b"one\ntwo\r\n 10%\r 50%\r100%\n\x1b[31mred\x1b[0m \x1b]0;title\x07x\n\xff\nrest";
        for size in 1..stream.len() {
            let (mut splitter, mut lines) = (LineSplitter::default(), Vec::new());
            for chunk in stream.chunks(size) {
                splitter.push(chunk, |line| lines.push(line.to_owned()));
            }
            splitter.flush(|line| lines.push(line.to_owned()));
            assert_eq!(lines, ["one", "two", "100%", "red x", "\u{fffd}", "rest"]);
        }
    }

    #[test]
    fn the_tail_keeps_only_the_last_lines() {
        let mut tail = Tail::new(2);
        for line in ["a", "b", "", "c"] {
            tail.push(line);
        }
        assert_eq!(tail.into_lines(), ["b", "c"]);
    }
}
