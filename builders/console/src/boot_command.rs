//! The boot-command language: Packer's, strict, with words that wait for what the screen shows.
//!
//! ```text
//! <enter> <f10> <leftCtrlOn> <leftCtrlOff> <aOn> <aOff>     keys, by name or character; On and Off hold and let go
//! <wait> <wait5> <wait1m20s> <wait500ms>                    time: one second, seconds, Go's durations
//! <waitFor "text">  <waitFor "text" 90s>                    until a line of the screen holds the text
//! <waitStill> <waitStill 2s>                                until the screen has been still, 1 s when not said
//! <lt>                                                      a literal `<` before something that looks like a tag
//! ```
//!
//! Names are taken in any case. What differs from Packer on purpose: an unknown `<tag>` is an error, not six typed
//! characters, and so is a key that stays `On`. A `<` before anything that does not look like a tag is typed.

use std::time::Duration;

use thiserror::Error;

use crate::keymap::{self, KeyStroke};

/// One step of a boot command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootAction {
    /// Types characters; each has a key on a US keyboard.
    Type(String),
    /// Presses and releases a special key.
    Press(KeyStroke),
    /// Presses a key and keeps it down.
    Hold(KeyStroke),
    /// Lets a key go.
    Release(KeyStroke),
    /// Waits for a time.
    Wait(Duration),
    /// Waits until a line of the screen holds the text.
    WaitFor {
        /// The text.
        text: String,
        /// The limit, when the command names one.
        limit: Option<Duration>,
    },
    /// Waits until the screen has been still for that long.
    WaitStill(Duration),
}

/// A mistake in a boot command.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{problem} (at byte {offset})")]
pub struct BootCommandError {
    /// Where it is: bytes from the beginning of the command.
    pub offset: usize,
    /// What it is.
    pub problem: Problem,
}

/// What is wrong at a place of a boot command.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The tag means nothing.
    #[error("<{tag}> is no key and no wait; {}to type it, write <lt>{tag}>", meant(.nearest))]
    UnknownTag {
        /// What stands between the angle brackets.
        tag: String,
        /// The nearest known tag.
        nearest: Option<String>,
    },
    /// A key stays pressed at the end.
    #[error("<{name}On> has no <{name}Off>")]
    StaysDown {
        /// The key as written.
        name: String,
    },
    /// A wait that waits for nothing.
    #[error("<{tag}> must wait longer than nothing")]
    NoTime {
        /// What stands between the angle brackets.
        tag: String,
    },
    /// A `waitFor` without its text.
    #[error("waitFor needs a text in double quotes: <waitFor \"text\"> or <waitFor \"text\" 90s>")]
    NoText,
    /// A duration that can't be read.
    #[error("{text:?} is no duration; write 5, 2s, 500ms or 1m20s")]
    Duration {
        /// What was written.
        text: String,
    },
    /// A character without a key.
    #[error("no key of a US keyboard types {character:?}")]
    NoKey {
        /// The character.
        character: char,
    },
}

fn meant(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|tag| format!("did you mean <{tag}>? ")).unwrap_or_default()
}

/// Parses a boot command.
///
/// # Errors
/// Every mistake, in the order of the text.
pub fn parse(command: &str) -> Result<Vec<BootAction>, Vec<BootCommandError>> {
    let mut parser = Parser::default();
    let mut offset = 0;
    while let Some(rest) = command.get(offset..).filter(|rest| !rest.is_empty()) {
        offset += parser.next(rest, offset);
    }
    parser.finish()
}

#[derive(Default)]
struct Parser {
    actions: Vec<BootAction>,
    errors: Vec<BootCommandError>,
    held: Vec<(KeyStroke, String, usize)>,
}

impl Parser {
    /// Takes one tag or character; gives its length in bytes.
    fn next(&mut self, rest: &str, offset: usize) -> usize {
        if let Some(inner) = rest.strip_prefix('<') {
            if let Some(length) = self.wait_for(inner, offset).or_else(|| self.toggle_char(inner, offset)) {
                return 1 + length;
            }
            let end = inner.find('>').unwrap_or(0);
            let tag = inner.get(..end).unwrap_or("");
            if looks_like_a_tag(tag) {
                self.tag(tag, offset);
                return end + 2;
            }
        }
        let Some(character) = rest.chars().next() else { return 1 };
        self.literal(character, offset);
        character.len_utf8()
    }

    fn literal(&mut self, character: char, offset: usize) {
        if keymap::us(character).is_none() {
            self.fail(offset, Problem::NoKey { character });
        } else if let Some(BootAction::Type(text)) = self.actions.last_mut() {
            text.push(character);
        } else {
            self.actions.push(BootAction::Type(character.to_string()));
        }
    }

    fn tag(&mut self, tag: &str, offset: usize) {
        let lower = tag.to_ascii_lowercase();
        if lower == "lt" {
            return self.literal('<', offset);
        }
        if let Some(stroke) = keymap::special(&lower) {
            return self.actions.push(BootAction::Press(stroke));
        }
        for (suffix, down) in [("on", true), ("off", false)] {
            if let Some(stroke) = lower.strip_suffix(suffix).and_then(keymap::special) {
                let name = tag.get(..tag.len() - suffix.len()).unwrap_or(tag);
                return self.toggle(stroke, name, down, offset);
            }
        }
        if let Some(argument) = lower.strip_prefix("waitstill") {
            if argument.is_empty() || argument.starts_with(|c: char| c == ' ' || c.is_ascii_digit()) {
                return self.wait(tag, argument.trim(), offset, BootAction::WaitStill);
            }
        } else if let Some(argument) = lower.strip_prefix("wait")
            && (argument.is_empty() || argument.starts_with(|c: char| c.is_ascii_digit() || "-.".contains(c)))
        {
            return self.wait(tag, argument, offset, BootAction::Wait);
        }
        let nearest = nearest(&lower);
        self.fail(offset, Problem::UnknownTag { tag: tag.to_owned(), nearest });
    }

    fn wait(&mut self, tag: &str, argument: &str, offset: usize, action: fn(Duration) -> BootAction) {
        match duration(if argument.is_empty() { "1" } else { argument }) {
            Some(Duration::ZERO) => self.fail(offset, Problem::NoTime { tag: tag.to_owned() }),
            Some(time) => self.actions.push(action(time)),
            None => self.fail(offset, Problem::Duration { text: argument.to_owned() }),
        }
    }

    /// `<waitFor "text" limit>`; gives its length after the `<`, or `None` when it is something else.
    fn wait_for(&mut self, inner: &str, offset: usize) -> Option<usize> {
        const WORD: &str = "waitfor";
        let after = inner
            .get(WORD.len()..)
            .filter(|_| inner.get(..WORD.len()).is_some_and(|word| word.eq_ignore_ascii_case(WORD)))?;
        if !after.starts_with([' ', '"', '>']) {
            return None;
        }
        let quoted = after.trim_start();
        let Some(text_and_rest) = quoted.strip_prefix('"') else {
            self.fail(offset, Problem::NoText);
            return Some(inner.find('>').map_or(inner.len(), |end| end + 1));
        };
        let mut text = String::new();
        let mut characters = text_and_rest.char_indices();
        let mut closed = None;
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    closed = text_and_rest.get(at + 1..);
                    break;
                }
                '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                other => text.push(other),
            }
        }
        let end = closed.and_then(|rest| rest.find('>').map(|end| (rest, end)));
        let Some((rest, end)) = end.filter(|_| !text.trim().is_empty()) else {
            self.fail(offset, Problem::NoText);
            return Some(inner.len() - end.map_or(0, |(rest, end)| rest.len() - end - 1));
        };
        let argument = rest.get(..end).unwrap_or("").trim();
        let limit = if argument.is_empty() { None } else { duration(argument) };
        let length = inner.len() - (rest.len() - end - 1);
        if limit.is_none() && !argument.is_empty() {
            self.fail(offset, Problem::Duration { text: argument.to_owned() });
        }
        if limit == Some(Duration::ZERO) {
            self.fail(offset, Problem::NoTime { tag: inner.get(..length - 1).unwrap_or(inner).to_owned() });
        }
        self.actions.push(BootAction::WaitFor { text, limit });
        Some(length)
    }

    /// `<xOn>` and `<xOff>` for any single character; gives the length after the `<`.
    fn toggle_char(&mut self, inner: &str, offset: usize) -> Option<usize> {
        let character = inner.chars().next()?;
        let after = inner.get(character.len_utf8()..)?;
        let end = after.find('>').filter(|end| *end <= 3)?;
        let down = match after.get(..end)? {
            word if word.eq_ignore_ascii_case("on") => true,
            word if word.eq_ignore_ascii_case("off") => false,
            _ => return None,
        };
        match keymap::us(character) {
            Some(stroke) => self.toggle(stroke, &character.to_string(), down, offset),
            None => self.fail(offset, Problem::NoKey { character }),
        }
        Some(character.len_utf8() + end + 1)
    }

    fn toggle(&mut self, stroke: KeyStroke, name: &str, down: bool, offset: usize) {
        self.held.retain(|(held, ..)| held.scancode != stroke.scancode);
        if down {
            self.held.push((stroke, name.to_owned(), offset));
        }
        self.actions.push(if down { BootAction::Hold(stroke) } else { BootAction::Release(stroke) });
    }

    fn fail(&mut self, offset: usize, problem: Problem) {
        self.errors.push(BootCommandError { offset, problem });
    }

    fn finish(mut self) -> Result<Vec<BootAction>, Vec<BootCommandError>> {
        for (_, name, offset) in std::mem::take(&mut self.held) {
            self.fail(offset, Problem::StaysDown { name });
        }
        if self.errors.is_empty() {
            return Ok(self.actions);
        }
        self.errors.sort_by_key(|error| error.offset);
        Err(self.errors)
    }
}

/// Whether what stands between angle brackets was meant as a tag: a word, perhaps with a time after it.
fn looks_like_a_tag(inner: &str) -> bool {
    let mut words = inner.split(' ');
    let word = words.next().unwrap_or("");
    let is_word = word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.');
    let is_wait = word.to_ascii_lowercase().starts_with("wait");
    is_word && (is_wait || words.next().is_none())
}

fn nearest(tag: &str) -> Option<String> {
    const WORDS: [&str; 4] = ["wait", "waitFor", "waitStill", "lt"];
    let mut known: Vec<String> = WORDS.iter().map(|word| (*word).to_owned()).collect();
    for (name, _) in keymap::SPECIAL_KEYS {
        known.extend([name.to_owned(), format!("{name}On"), format!("{name}Off")]);
    }
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(tag, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Where a known tag was begun and not ended, as in `<enter` or `<leftCtrlOn x`: such pieces are typed as letters, which is
/// hardly ever meant.
#[must_use]
pub fn unended(command: &str) -> Vec<&str> {
    let begun = command.match_indices('<').filter_map(|(at, _)| {
        let rest = command.get(at + 1..)?;
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, behind) = rest.split_at_checked(length)?;
        let ended = behind.get(..behind.find('<').unwrap_or(behind.len()))?.find('>');
        let wait = word.to_ascii_lowercase().starts_with("wait");
        // The parser tells a `waitFor` without its text.
        let closed =
            word.eq_ignore_ascii_case("waitfor") || if wait { ended.is_some() } else { ended == Some(0) };
        let known = wait || is_key(&word.to_ascii_lowercase());
        (known && !closed).then(|| command.get(at..=at + length)).flatten()
    });
    begun.collect()
}

/// Whether it is a special key, or its being held or let go.
fn is_key(word: &str) -> bool {
    let names = [Some(word), word.strip_suffix("on"), word.strip_suffix("off")];
    names.into_iter().flatten().any(|name| keymap::special(name).is_some())
}

/// Reads whole seconds (`7`) or Go's durations (`1m20s`, `1.5s`, `500ms`).
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    const LONGEST: f64 = 7.0 * 24.0 * 3600.0;
    if let Ok(seconds) = text.parse::<u32>() {
        return (f64::from(seconds) <= LONGEST).then(|| Duration::from_secs(seconds.into()));
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match rest.get(..unit)? {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = rest.get(unit..)?;
    }
    (!text.is_empty() && seconds <= LONGEST).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests;
