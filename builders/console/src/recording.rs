//! What a screen showed, frame by frame, in a folder: written while a build runs, shown and replayed later.
//!
//! ```text
//! recording/
//!   frames.jsonl     one [`Shot`] a line: when, how large, the text, the cursor, what was highlighted, the picture
//!   00001.png        the picture of a shot
//! ```
//!
//! Only what differs from the shot before is written. [`Recording::play`] opens a console on a recording, so that
//! waits, known screens and needles are tested on it without a VM.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::frame::{Frame, FrameError};
use crate::screen::Screen;

pub(crate) mod replay;

/// The file with a line for each shot.
pub const INDEX: &str = "frames.jsonl";

/// Why a recording can't be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// A file can't be read or written.
    #[error("{} can't be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line of the index makes no sense.
    #[error("line {line} of {} is no frame of a recording", path.display())]
    Line {
        /// The index.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A picture's name leads elsewhere.
    #[error("{name:?} is no name of a picture beside the index")]
    Name {
        /// The name.
        name: String,
    },
    /// A picture can't be read or written.
    #[error("the picture of a frame can't be used")]
    Picture(#[source] FrameError),
}

/// A stretch of a line that stands out, as line, first column and the column behind it, from 0.
pub type Mark = (usize, usize, usize);

/// One frame: what a screen showed from some moment on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Shot {
    /// When, in milliseconds since the recording began.
    pub t_ms: u64,
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// The lines of a text screen from top to bottom, without the blank ones at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Vec<String>>,
    /// Line and column of the text cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<(usize, usize)>,
    /// What is highlighted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    /// The picture's file beside the index; absent when the picture had to be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl Shot {
    /// What a screen shows.
    #[must_use]
    pub fn of(screen: &Screen, frame: &Frame) -> Self {
        let mut shot = Self { width: frame.width(), height: frame.height(), ..Self::default() };
        if let Some(text) = screen.text() {
            let last = text.rows.iter().rposition(|row| !row.is_empty()).map_or(0, |last| last + 1);
            shot.text = Some(text.rows.iter().take(last).cloned().collect());
            shot.cursor = text.cursor;
            shot.marks = (0..last)
                .flat_map(|row| text.highlights(row).into_iter().map(move |span| (row, span.start, span.end)))
                .collect();
        }
        shot
    }
}

/// Writes a recording.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    index: File,
    /// When the last shot was that was there before, in ms.
    ended_ms: u64,
    /// Added to all times, once the first shot has come: one whose clock began anew goes on where the recording ended.
    base_ms: Option<u64>,
    next: usize,
    last: Option<u64>,
}

impl Recorder {
    /// Begins a recording, or goes on with the one that is in the folder.
    ///
    /// # Errors
    /// When the folder can't be made or its index not be opened.
    pub fn open(folder: &Path) -> Result<Self, RecordingError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| RecordingError::Io { path, source }
        };
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let path = folder.join(INDEX);
        let before = if path.exists() { Recording::open(folder)?.shots } else { Vec::new() };
        let index = File::options().create(true).append(true).open(&path).map_err(failed(&path))?;
        let whole = whole_lines(&fs::read(&path).map_err(failed(&path))?).len();
        index.set_len(whole as u64).map_err(failed(&path))?;
        Ok(Self {
            folder: folder.to_owned(),
            index,
            ended_ms: before.last().map_or(0, |shot| shot.t_ms),
            base_ms: None,
            next: before.len() + 1,
            last: None,
        })
    }

    /// How many shots there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.next - 1
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes a shot, unless it shows the same as the one before; without a picture only its text is kept. Gives
    /// whether it was written.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn store(
        &mut self,
        at: Duration,
        mut shot: Shot,
        picture: Option<&Frame>,
    ) -> Result<bool, RecordingError> {
        let mut hasher = DefaultHasher::new();
        (shot.width, shot.height, &shot.text, &shot.marks).hash(&mut hasher);
        if let (Some(frame), None) = (picture, &shot.text) {
            (0..frame.height()).for_each(|y| frame.row(0, y, frame.width()).hash(&mut hasher));
        }
        let state = hasher.finish();
        if self.last == Some(state) {
            return Ok(false);
        }
        if let Some(frame) = picture.filter(|frame| frame.width() > 0 && frame.height() > 0) {
            let name = format!("{:05}.png", self.next);
            let png = frame.png().map_err(RecordingError::Picture)?;
            let path = self.folder.join(&name);
            fs::write(&path, png).map_err(|source| RecordingError::Io { path, source })?;
            shot.file = Some(name);
        }
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let base = *self.base_ms.get_or_insert(if at_ms < self.ended_ms { self.ended_ms } else { 0 });
        shot.t_ms = at_ms.saturating_add(base);
        let path = self.folder.join(INDEX);
        let failed = |source| RecordingError::Io { path: path.clone(), source };
        let mut line = serde_json::to_vec(&shot).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        self.index.write_all(&line).map_err(failed)?;
        self.next += 1;
        self.last = Some(state);
        Ok(true)
    }
}

/// Without a last line that a dying process or a full disk cut off.
fn whole_lines(text: &[u8]) -> &[u8] {
    text.iter().rposition(|byte| *byte == b'\n').map_or(&[], |end| &text[..=end])
}

/// A recording that was read.
#[derive(Clone, Debug)]
pub struct Recording {
    folder: PathBuf,
    /// Its shots, in their order.
    pub shots: Vec<Shot>,
}

impl Recording {
    /// Reads a recording's index. The pictures are read when they are asked for.
    ///
    /// # Errors
    /// When the index can't be read, or is none.
    pub fn open(folder: &Path) -> Result<Self, RecordingError> {
        let path = folder.join(INDEX);
        let text = fs::read(&path).map_err(|source| RecordingError::Io { path: path.clone(), source })?;
        let shots = whole_lines(&text)
            .split_inclusive(|byte| *byte == b'\n')
            .enumerate()
            .map(|(number, line)| {
                serde_json::from_slice(line).map_err(|source| RecordingError::Line {
                    path: path.clone(),
                    line: number + 1,
                    source,
                })
            })
            .collect::<Result<Vec<Shot>, _>>()?;
        Ok(Self { folder: folder.to_owned(), shots })
    }

    /// The picture of a shot; `None` when it was left out.
    ///
    /// # Errors
    /// When it is not there, or no picture of a screen.
    pub fn picture(&self, shot: &Shot) -> Result<Option<Frame>, RecordingError> {
        let Some(name) = &shot.file else { return Ok(None) };
        if name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(RecordingError::Name { name: name.clone() });
        }
        let path = self.folder.join(name);
        let png = fs::read(&path).map_err(|source| RecordingError::Io { path, source })?;
        Frame::from_png(&png).map(Some).map_err(RecordingError::Picture)
    }
}

#[cfg(test)]
mod tests;
