//! Marks in a script's output that only the script itself can have written.
//!
//! The wrapper around each script ([`super::script`]) prints lines that begin with a nonce: when it begins, and with
//! the exit status when it has ended. The nonce travels in the wrapper's file and never on a command line, so a
//! script that prints the list of processes does not print it. Output is handed on without the marks.

/// Marks of one script.
#[derive(Clone, PartialEq, Eq)]
pub struct Sentinel {
    nonce: String,
}

impl std::fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sentinel")
    }
}

/// A mark longer than this is none.
const LONGEST_MARK: usize = 16 * 1024;

impl Sentinel {
    /// Marks with a new nonce of 128 random bits.
    #[must_use]
    pub fn generate() -> Self {
        Self { nonce: format!("forge-mark-{:032x}", rand::random::<u128>()) }
    }

    /// The nonce; letters, digits and `-` only.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// A piece of a marked stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The script's own output.
    Output(&'a [u8]),
    /// A mark: the text after the nonce (`exit 0`).
    Mark(&'a str),
}

/// Takes the marks out of a stream that comes in pieces of any size.
#[derive(Debug)]
pub struct Filter {
    sentinel: Sentinel,
    pending: Vec<u8>,
}

impl Filter {
    /// A filter for the marks of one script.
    #[must_use]
    pub fn new(sentinel: Sentinel) -> Self {
        Self { sentinel, pending: Vec::new() }
    }

    /// Takes bytes and hands over output and marks in their order. What may be the beginning of a mark is kept back.
    pub fn push(&mut self, bytes: &[u8], mut piece: impl FnMut(Piece<'_>)) {
        self.pending.extend_from_slice(bytes);
        let nonce = self.sentinel.nonce.as_bytes();
        loop {
            let Some(at) = find(&self.pending, nonce) else {
                let keep = (1..nonce.len().min(self.pending.len() + 1))
                    .rev()
                    .find(|length| nonce.starts_with(&self.pending[self.pending.len() - length..]))
                    .unwrap_or(0);
                let rest = self.pending.split_off(self.pending.len() - keep);
                if !self.pending.is_empty() {
                    piece(Piece::Output(&self.pending));
                }
                self.pending = rest;
                return;
            };
            if at > 0 {
                piece(Piece::Output(&self.pending[..at]));
                self.pending.drain(..at);
            }
            match self.pending.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    let text = String::from_utf8_lossy(&self.pending[nonce.len()..end]);
                    piece(Piece::Mark(text.trim()));
                    self.pending.drain(..=end);
                }
                None if self.pending.len() > LONGEST_MARK => {
                    piece(Piece::Output(&self.pending));
                    self.pending.clear();
                }
                None => return,
            }
        }
    }

    /// Hands over what was kept back, at the end of the stream.
    pub fn finish(&mut self, mut piece: impl FnMut(Piece<'_>)) {
        // Half a mark is no output that anybody wants to see.
        if !self.pending.is_empty() && !self.pending.starts_with(self.sentinel.nonce.as_bytes()) {
            piece(Piece::Output(&self.pending));
        }
        self.pending.clear();
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_and_taken_out_however_the_stream_is_cut() {
        let sentinel = Sentinel::generate();
        let nonce = sentinel.nonce().to_owned();
        let stream = format!("{nonce} begin x\nhello forge-mark-0 wo{nonce} exit 3\n");
        for size in 1..stream.len() {
            let mut filter = Filter::new(sentinel.clone());
            let (mut output, mut marks) = (Vec::new(), Vec::new());
            let mut take = |piece: Piece<'_>| match piece {
                Piece::Output(bytes) => output.extend_from_slice(bytes),
                Piece::Mark(text) => marks.push(text.to_owned()),
            };
            for chunk in stream.as_bytes().chunks(size) {
                filter.push(chunk, &mut take);
            }
            filter.finish(&mut take);
            assert_eq!(String::from_utf8(output).unwrap(), "hello forge-mark-0 wo");
            assert_eq!(marks, ["begin x", "exit 3"]);
        }
    }

    #[test]
    fn a_cut_off_mark_is_no_mark_and_other_output_is_not_held_back() {
        let sentinel = Sentinel::generate();
        let mut filter = Filter::new(sentinel.clone());
        let mut seen = Vec::new();
        filter.push(b"prompt> ", |piece| seen.push(format!("{piece:?}")));
        assert_eq!(seen.len(), 1, "{seen:?}");
        filter
            .push(format!("{} exit ", sentinel.nonce()).as_bytes(), |piece| seen.push(format!("{piece:?}")));
        filter.finish(|piece| seen.push(format!("{piece:?}")));
        assert_eq!(seen.len(), 1, "{seen:?}");
    }
}
