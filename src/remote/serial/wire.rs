//! The bytes of a serial port: what came, line by line, and the answers among it.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_machine::AgentExit;
use sha2::{Digest as _, Sha256};

/// The longest line that is kept; what is longer is noise.
const LONGEST: usize = 4096;

/// The checksum that both ends compare.
pub(super) fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What came from the guest: whole lines, and the line that has not ended yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    whole: VecDeque<String>,
    pending: Vec<u8>,
}

impl Lines {
    /// Takes bytes as they come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.pending);
                    self.whole.push_back(String::from_utf8_lossy(&line).into_owned());
                }
                b'\r' | 0 => {}
                _ => self.pending.push(*byte),
            }
            if self.pending.len() > LONGEST {
                self.pending.clear();
            }
        }
    }

    /// The next whole line.
    pub(super) fn next(&mut self) -> Option<String> {
        self.whole.pop_front()
    }

    /// The line that has not ended yet, without what colours it: a prompt has no end.
    pub(super) fn prompt(&self) -> String {
        let text = String::from_utf8_lossy(&self.pending);
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            if c == '\u{1b}' {
                // A sequence of the terminal ends with a letter.
                while rest.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
                _ = rest.next();
            } else if !c.is_control() {
                plain.push(c);
            }
        }
        plain
    }

    /// Forgets the line that has not ended yet: it was answered.
    pub(super) fn answered(&mut self) {
        self.pending.clear();
    }
}

/// An answer while it comes.
#[derive(Debug)]
pub(super) struct Answer {
    mark: String,
    id: u64,
    head: Option<(String, usize, usize, String)>,
    body: String,
}

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It is not whole yet.
    More,
    /// It is whole.
    Whole(AgentExit),
    /// Something got lost on the way, here or there.
    Broken,
}

impl Answer {
    /// The answer to the order of that number.
    pub(super) fn to(mark: &str, id: u64) -> Self {
        Self { mark: mark.to_owned(), id, head: None, body: String::new() }
    }

    /// Takes a line; noise between the lines is passed over.
    pub(super) fn line(&mut self, line: &str) -> Came {
        if let Some((_noise, ours)) = line.split_once(self.mark.as_str()) {
            let words: Vec<&str> = ours.split_whitespace().collect();
            let id = self.id.to_string();
            match words.as_slice() {
                ["end", end] if *end == id => return self.whole(),
                [of, status, out, err, sha] if *of == id => {
                    let (Ok(out), Ok(err)) = (out.parse(), err.parse()) else { return Came::Broken };
                    self.head = Some(((*status).to_owned(), out, err, (*sha).to_owned()));
                    self.body.clear();
                }
                _ => {}
            }
            return Came::More;
        }
        let line = line.trim();
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        if self.head.is_some() && line.bytes().all(base64) {
            self.body.push_str(line);
        }
        Came::More
    }

    fn whole(&mut self) -> Came {
        let Some((status, out, err, sha)) = self.head.take() else { return Came::Broken };
        let Ok(both) = STANDARD.decode(&self.body) else { return Came::Broken };
        if both.len() != out + err || (!both.is_empty() && sum(&both) != sha) {
            return Came::Broken;
        }
        let Ok(code) = status.parse() else { return Came::Broken };
        let (stdout, stderr) = both.split_at(out);
        Came::Whole(AgentExit { code: Some(code), stdout: stdout.to_vec(), stderr: stderr.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(lines: &[&str]) -> Came {
        let mut answer = Answer::to("mark-1", 7);
        lines.iter().map(|line| answer.line(line)).find(|came| *came != Came::More).unwrap_or(Came::More)
    }

    #[test]
    fn an_answer_is_found_among_noise_and_a_damaged_one_is_none() {
        let sum = sum(b"outerr");
        let head = format!("[    3.1] mark-1 7 3 3 3 {sum}");
        let exit = AgentExit { code: Some(3), stdout: b"out".into(), stderr: b"err".into() };
        let lines = [
            "mark-1 6 0 0 0 x",
            "mark-1 end 6",
            &head,
            "b3V0",
            "[    4.2] usb 1-1: new",
            "ZXJy",
            "mark-1 end 7",
        ];
        assert_eq!(answer(&lines), Came::Whole(exit));
        assert_eq!(answer(&lines[..6]), Came::More);
        assert_eq!(answer(&[&head, "b3[   4.2] usbV0", "ZXJy", "mark-1 end 7"]), Came::Broken);
        assert_eq!(answer(&[&head, "b3V0", "mark-1 end 7"]), Came::Broken);
        assert_eq!(answer(&["mark-1 end 7"]), Came::Broken);
        assert_eq!(answer(&["mark-1 7 bad 0 0 -", "mark-1 end 7"]), Came::Broken);
    }

    #[test]
    fn a_prompt_is_seen_through_its_colours() {
        let mut lines = Lines::default();
        lines.push(b"one\r\n\x1b[0;32mguest login:\x1b[0m ");
        assert_eq!(lines.next().as_deref(), Some("one"));
        assert_eq!((lines.next(), lines.prompt().as_str()), (None, "guest login: "));
    }
}
