//! Takes files out of an ISO 9660 image by their paths: a medium's kernel and initrd, its loaders, and its label.
//!
//! Reads what installers' media have: Rock Ridge names where there are some, else the plain ones without version and
//! regardless of case; files in several extents. Layout by ECMA-119 and the Rock Ridge Interchange Protocol 1.12. The
//! crates for it are incomplete or panic on a broken image, and this needs a lookup only.
//!
//! Invariant: the image is untrusted. Nothing in it makes this panic, read beyond it or hold more than a directory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A sector of a CD.
const SECTOR: u64 = 2048;
/// Where the volume descriptors begin, and how many are looked at.
const DESCRIPTORS: (u64, u64) = (16, 32);
/// The largest directory that is read, in bytes.
const DIRECTORY_LIMIT: u64 = 16 << 20;
/// How many names an error tells of.
const NAMES_TOLD: usize = 12;

/// A file could not be taken out of an image.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IsoError {
    /// The image or the copy can't be read or written.
    #[error("{path} can't be read")]
    Io {
        /// The image.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// It is no ISO 9660 image.
    #[error("{path} is no ISO 9660 image")]
    NotIso {
        /// The image.
        path: PathBuf,
    },
    /// It holds no such file.
    #[error("{image} has no file {path}; in {folder} it has: {there}")]
    NotFound {
        /// The image.
        image: PathBuf,
        /// What was looked for.
        path: String,
        /// The last folder on the way to it that is there.
        folder: String,
        /// The names in that folder.
        there: String,
    },
}

/// A file or a folder in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    folder: bool,
    /// Where its parts lie, in bytes, and how long they are.
    extents: Vec<(u64, u64)>,
}

impl Entry {
    fn size(&self) -> u64 {
        self.extents.iter().fold(0, |sum, (_, length)| sum.saturating_add(*length))
    }
}

/// An image that is open.
#[derive(Debug)]
pub struct Iso {
    file: File,
    path: PathBuf,
    label: String,
    root: Entry,
}

impl Iso {
    /// Opens an image.
    ///
    /// # Errors
    /// When it can't be read, or is no ISO 9660 image.
    pub fn open(path: &Path) -> Result<Self, IsoError> {
        let wrap = |source| IsoError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(wrap)?;
        let (first, count) = DESCRIPTORS;
        for number in first..first + count {
            let mut sector = [0_u8; 2048];
            file.seek(SeekFrom::Start(number * SECTOR)).map_err(wrap)?;
            match file.read_exact(&mut sector) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                result => result.map_err(wrap)?,
            }
            match (sector.get(1..6), sector.first()) {
                (Some(b"CD001"), Some(1)) => {
                    let root = sector.get(156..190).and_then(|bytes| record(bytes, 0));
                    let (root, _) = root.ok_or_else(|| IsoError::NotIso { path: path.to_owned() })?;
                    // The volume identifier: the bytes 41 to 72 (ECMA-119, 8.4).
                    let label = String::from_utf8_lossy(sector.get(40..72).unwrap_or_default());
                    let label = label.trim_end_matches([' ', '\0']).to_owned();
                    return Ok(Self { file, path: path.to_owned(), label, root });
                }
                (Some(b"CD001"), Some(number)) if *number != 255 => {}
                _ => break,
            }
        }
        Err(IsoError::NotIso { path: path.to_owned() })
    }

    /// The label of its file system.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The names of the files of a folder, as they are there.
    ///
    /// # Errors
    /// When it has no such folder, with what is there instead; when it can't be read.
    pub fn files(&mut self, folder: &str) -> Result<Vec<String>, IsoError> {
        let at = self.find(folder, true)?;
        let entries = self.entries(&at)?;
        Ok(entries.into_iter().filter(|entry| !entry.folder).map(|entry| entry.name).collect())
    }

    /// Whether it holds that file.
    ///
    /// # Errors
    /// When it does not, with what is there instead; when it can't be read.
    pub fn check(&mut self, path: &str) -> Result<(), IsoError> {
        self.find(path, false).map(drop)
    }

    /// The first bytes of a file, at most so many.
    ///
    /// # Errors
    /// When there is no such file, or it can't be read.
    pub fn start(&mut self, path: &str, most: u64) -> Result<Vec<u8>, IsoError> {
        let entry = self.find(path, false)?;
        let wrap = |source| IsoError::Io { path: self.path.clone(), source };
        let Some((start, length)) = entry.extents.first() else { return Ok(Vec::new()) };
        self.file.seek(SeekFrom::Start(*start)).map_err(wrap)?;
        let mut bytes = Vec::new();
        (&mut self.file).take(most.min(*length)).read_to_end(&mut bytes).map_err(wrap)?;
        Ok(bytes)
    }

    /// Copies a file out of it; the number of bytes.
    ///
    /// # Errors
    /// When there is no such file, the image is cut off, or one of both can't be read or written.
    pub fn extract(&mut self, path: &str, to: &mut dyn Write) -> Result<u64, IsoError> {
        let entry = self.find(path, false)?;
        let wrap = |source| IsoError::Io { path: self.path.clone(), source };
        for (start, length) in &entry.extents {
            self.file.seek(SeekFrom::Start(*start)).map_err(wrap)?;
            let copied = io::copy(&mut (&mut self.file).take(*length), to).map_err(wrap)?;
            if copied < *length {
                return Err(wrap(io::Error::new(io::ErrorKind::UnexpectedEof, "the image is cut off")));
            }
        }
        Ok(entry.size())
    }

    fn find(&mut self, path: &str, folder_wanted: bool) -> Result<Entry, IsoError> {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let mut at = self.root.clone();
        let mut folder = String::from("/");
        for (index, name) in names.iter().enumerate() {
            let entries = self.entries(&at)?;
            let same = entries.iter().find(|entry| entry.name == *name);
            let found = same.or_else(|| entries.iter().find(|entry| entry.name.eq_ignore_ascii_case(name)));
            // Only the last one may be a file.
            let wanted = |entry: &&Entry| entry.folder == (folder_wanted || index + 1 < names.len());
            let Some(found) = found.filter(wanted) else {
                return Err(self.not_found(path, folder, &entries));
            };
            at = found.clone();
            folder = format!("{}/{name}", folder.trim_end_matches('/'));
        }
        if at.folder && !folder_wanted {
            let entries = self.entries(&at)?;
            return Err(self.not_found(path, folder, &entries));
        }
        Ok(at)
    }

    fn not_found(&self, path: &str, folder: String, entries: &[Entry]) -> IsoError {
        let shown = |entry: &Entry| format!("{}{}", entry.name, if entry.folder { "/" } else { "" });
        let mut there: Vec<String> = entries.iter().take(NAMES_TOLD).map(shown).collect();
        if entries.len() > NAMES_TOLD {
            there.push("…".to_owned());
        }
        let there = if there.is_empty() { "nothing".to_owned() } else { there.join(", ") };
        IsoError::NotFound { image: self.path.clone(), path: path.to_owned(), folder, there }
    }

    /// What is in a folder, without itself and its parent.
    fn entries(&mut self, folder: &Entry) -> Result<Vec<Entry>, IsoError> {
        let wrap = |source| IsoError::Io { path: self.path.clone(), source };
        let mut bytes = Vec::new();
        for (start, length) in &folder.extents {
            let left = DIRECTORY_LIMIT.saturating_sub(bytes.len() as u64);
            self.file.seek(SeekFrom::Start(*start)).map_err(wrap)?;
            (&mut self.file).take((*length).min(left)).read_to_end(&mut bytes).map_err(wrap)?;
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut continued = false;
        let mut at = 0;
        while at < bytes.len() {
            let length = bytes.get(at).copied().map_or(0, usize::from);
            if length == 0 {
                // Records do not cross sectors: the rest of this one is empty.
                at = (at / 2048 + 1) * 2048;
                continue;
            }
            let slice = bytes.get(at..at + length).unwrap_or_default();
            at += length;
            let Some((mut entry, more)) = record(slice, 33) else { continue };
            if matches!(entry.name.as_str(), "\0" | "\u{1}") {
                continue;
            }
            if let Some(name) = self.rock_ridge_name(slice) {
                entry.name = name;
            }
            match entries.last_mut() {
                Some(last) if continued => last.extents.extend(entry.extents),
                _ => entries.push(entry),
            }
            continued = more;
        }
        Ok(entries)
    }

    /// The name that Rock Ridge gives, if it does: the parts of it in the record, and in the area it goes on in.
    fn rock_ridge_name(&mut self, record: &[u8]) -> Option<String> {
        let length = usize::from(*record.get(32)?);
        // Padded to an even length.
        let start = 33 + length + usize::from(length.is_multiple_of(2));
        let mut area = record.get(start..)?.to_owned();
        let mut name = Vec::new();
        // Areas may go on in others; more than a few are a broken image.
        for _ in 0..4 {
            let mut next = None;
            let mut at = 0;
            while let Some([s1, s2, size, _]) = area.get(at..at + 4) {
                let size = usize::from(*size);
                let Some(data) = (size >= 4).then(|| area.get(at + 4..at + size)).flatten() else { break };
                match [*s1, *s2] {
                    // Flags 2 and 4 stand for `.` and `..`.
                    [b'N', b'M'] if data.first().is_some_and(|flags| flags & 6 == 0) => {
                        name.extend_from_slice(data.get(1..).unwrap_or_default());
                    }
                    [b'C', b'E'] => next = Some((number(data, 0)?, number(data, 8)?, number(data, 16)?)),
                    [b'S', b'T'] => break,
                    _ => {}
                }
                at += size;
            }
            let Some((block, offset, length)) = next else { break };
            let start = block.checked_mul(SECTOR)?.checked_add(offset)?;
            area.clear();
            self.file.seek(SeekFrom::Start(start)).ok()?;
            (&mut self.file).take(length.min(SECTOR)).read_to_end(&mut area).ok()?;
        }
        if name.is_empty() { None } else { String::from_utf8(name).ok() }
    }
}

/// A directory record: the entry by its plain name, and whether the next record goes on with it.
fn record(bytes: &[u8], name_at: usize) -> Option<(Entry, bool)> {
    let start = number(bytes, 2)?.checked_mul(SECTOR)?;
    let length = number(bytes, 10)?;
    let flags = *bytes.get(25)?;
    let name = match name_at {
        0 => String::new(),
        at => {
            let name = bytes.get(at..at + usize::from(*bytes.get(32)?))?;
            let name = String::from_utf8_lossy(name).into_owned();
            let plain = name.split(';').next().unwrap_or_default();
            plain.strip_suffix('.').unwrap_or(plain).to_owned()
        }
    };
    Some((Entry { name, folder: flags & 2 != 0, extents: vec![(start, length)] }, flags & 0x80 != 0))
}

/// A number of 32 bits in little-endian order.
fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u64::from(u32::from_le_bytes(four)))
}

#[cfg(test)]
mod tests;
