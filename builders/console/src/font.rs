//! Bitmap fonts: the built-in ones (`fonts/LICENSE.md`), learnt ones, and the exact lookup from pixels to characters.
//!
//! Fonts are grouped by the size of their cells. A group is one table from the pixels of a cell to the characters
//! that look so, each with its font; it is unpacked when the first screen asks for that size.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use thiserror::Error;

use crate::frame::Frame;
use crate::glyph;

/// The widest cell, in pixels.
pub const MAX_WIDTH: u32 = 16;
/// The highest cell, in pixels.
pub const MAX_HEIGHT: u32 = 32;
/// The most glyphs that a font file may hold.
const MAX_GLYPHS: usize = 1 << 14;

/// The pixels of one cell: a number per row, its lowest bit the rightmost column.
pub(crate) type Rows = [u16; MAX_HEIGHT as usize];

/// A font: a name, the size of its cells, and what its characters look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Font {
    /// Its name, as `forge screen show` tells it.
    pub name: String,
    /// Width of a cell in pixels.
    pub width: u32,
    /// Height of a cell in pixels.
    pub height: u32,
    glyphs: Vec<(char, Rows)>,
}

/// Why a font file can't be used or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FontError {
    /// It can't be read or written.
    #[error("the font {name} can't be read or written")]
    Io {
        /// The file's name.
        name: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{name} is no font of forge: {reason}")]
    Damaged {
        /// The file's name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Font {
    /// An empty font for cells of this size, clipped to what is supported.
    #[must_use]
    pub fn new(name: &str, width: u32, height: u32) -> Self {
        let (width, height) = (width.clamp(1, MAX_WIDTH), height.clamp(1, MAX_HEIGHT));
        Self { name: name.to_owned(), width, height, glyphs: Vec::new() }
    }

    /// Number of glyphs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.glyphs.len()
    }

    /// Whether it has no glyph.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.glyphs.is_empty()
    }

    /// The picture of a character, one number per row, the lowest bit rightmost.
    #[must_use]
    pub fn picture(&self, character: char) -> Option<&[u16]> {
        let (_, rows) = self.glyphs.iter().find(|(other, _)| *other == character)?;
        rows.get(..self.height as usize)
    }

    /// The characters it has, in its own order.
    pub fn characters(&self) -> impl Iterator<Item = char> + '_ {
        self.glyphs.iter().map(|(character, _)| *character)
    }

    /// Adds a character with its picture, a number per row as [`Font::picture`] gives it; `false` when that picture is
    /// there already, as this or as another character, or is blank.
    pub fn add(&mut self, character: char, picture: &[u16]) -> bool {
        let mut rows = Rows::default();
        for (row, bits) in rows.iter_mut().zip(picture).take(self.height as usize) {
            *row = bits & (u16::MAX >> (16 - self.width));
        }
        if rows == Rows::default() || self.glyphs.iter().any(|(_, other)| *other == rows) {
            return false;
        }
        self.glyphs.push((character, rows));
        true
    }

    /// Learns characters from a picture of a text screen: the lines stand from `at` (left, top) on, one cell below the
    /// other, `pitch` pixels from one character to the next. Gives how many were new.
    ///
    /// Blanks, cells that have not exactly two colours, and what is read as that character already are passed over.
    pub fn learn(&mut self, frame: &Frame, (left, top): (u32, u32), pitch: u32, lines: &[&str]) -> usize {
        let mut new = 0;
        let table = table((self.width, self.height));
        let is_known = |picture: &[u16], character: char| {
            table.as_ref().is_some_and(|table| table.find(picture).any(|hit| hit.character == character))
        };
        for (line, y) in lines.iter().zip((top..).step_by(self.height as usize)) {
            for (character, x) in line.chars().zip((left..).step_by(pitch.max(1) as usize)) {
                if character != ' '
                    && let Some(picture) = glyph::picture(frame, (x, y), self.width, self.height)
                    && !is_known(&picture, character)
                {
                    new += usize::from(self.add(character, &picture));
                }
            }
        }
        new
    }

    /// Reads a font from its packed form: zlib over width, height, count (16 bits), then code point and rows of each.
    ///
    /// # Errors
    /// When it is damaged, or beyond the supported sizes.
    pub fn unpack(name: &str, packed: &[u8]) -> Result<Self, FontError> {
        let damaged = |reason| FontError::Damaged { name: name.to_owned(), reason };
        let limit = 4 + MAX_GLYPHS * (4 + 2 * MAX_HEIGHT as usize);
        let mut plain = Vec::new();
        flate2::read::ZlibDecoder::new(packed)
            .take(limit as u64)
            .read_to_end(&mut plain)
            .map_err(|_| damaged("it is not compressed as one"))?;
        let (&[width, height, c1, c0], glyphs) =
            plain.split_first_chunk::<4>().ok_or_else(|| damaged("it is cut short"))?;
        let (width, height) = (u32::from(width), u32::from(height));
        if !(4..=MAX_WIDTH).contains(&width) || !(6..=MAX_HEIGHT).contains(&height) {
            return Err(damaged("its cells have a size that is not supported"));
        }
        let bytes = width.div_ceil(8) as usize;
        let size = 4 + bytes * height as usize;
        let mut font = Self::new(name, width, height);
        if glyphs.len() != size * usize::from(u16::from_be_bytes([c1, c0])) {
            return Err(damaged("it is cut short"));
        }
        for glyph in glyphs.chunks_exact(size) {
            let (code, picture) = glyph.split_first_chunk::<4>().ok_or_else(|| damaged("it is cut short"))?;
            let character =
                char::from_u32(u32::from_be_bytes(*code)).ok_or_else(|| damaged("a code is no character"))?;
            let mut rows = Rows::default();
            for (row, packed) in rows.iter_mut().zip(picture.chunks_exact(bytes)) {
                let bits = packed.iter().fold(0_u16, |bits, byte| bits << 8 | u16::from(*byte));
                *row = bits >> (bytes as u32 * 8 - width);
            }
            font.glyphs.push((character, rows));
        }
        Ok(font)
    }

    /// The packed form, see [`Font::unpack`].
    ///
    /// # Errors
    /// Never in practice: packing goes to memory.
    pub fn pack(&self) -> Result<Vec<u8>, FontError> {
        let bytes = self.width.div_ceil(8) as usize;
        let mut plain = vec![self.width as u8, self.height as u8];
        plain.extend_from_slice(&(self.glyphs.len().min(MAX_GLYPHS) as u16).to_be_bytes());
        for (character, rows) in self.glyphs.iter().take(MAX_GLYPHS) {
            plain.extend_from_slice(&u32::from(*character).to_be_bytes());
            for row in rows.iter().take(self.height as usize) {
                let bits = row << (bytes as u32 * 8 - self.width);
                plain.extend_from_slice(bits.to_be_bytes().get(2 - bytes..).unwrap_or(&[]));
            }
        }
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        let packed = encoder.write_all(&plain).and_then(|()| encoder.finish());
        packed.map_err(|source| FontError::Io { name: self.name.clone(), source })
    }
}

/// The built-in fonts, likeliest first within a size.
static BUILT_IN: &[(&str, u32, u32, &[u8])] = &[
    ("vga-8x16", 8, 16, include_bytes!("fonts/vga-8x16.font")),
    ("uni-8x16", 8, 16, include_bytes!("fonts/uni-8x16.font")),
    ("fixed-8x16", 8, 16, include_bytes!("fonts/fixed-8x16.font")),
    ("uvga-8x16", 8, 16, include_bytes!("fonts/uvga-8x16.font")),
    ("lvga-8x16", 8, 16, include_bytes!("fonts/lvga-8x16.font")),
    ("ter-n-8x16", 8, 16, include_bytes!("fonts/ter-n-8x16.font")),
    ("ter-b-8x16", 8, 16, include_bytes!("fonts/ter-b-8x16.font")),
    ("ter-v-8x16", 8, 16, include_bytes!("fonts/ter-v-8x16.font")),
    ("edk2-8x19", 8, 19, include_bytes!("fonts/edk2-8x19.font")),
    ("ter-b-16x32", 16, 32, include_bytes!("fonts/ter-b-16x32.font")),
    ("ter-n-16x32", 16, 32, include_bytes!("fonts/ter-n-16x32.font")),
    ("uvga-16x32", 16, 32, include_bytes!("fonts/uvga-16x32.font")),
    ("vga-8x8", 8, 8, include_bytes!("fonts/vga-8x8.font")),
    ("uvga-8x8", 8, 8, include_bytes!("fonts/uvga-8x8.font")),
    ("vga-8x14", 8, 14, include_bytes!("fonts/vga-8x14.font")),
    ("uvga-8x14", 8, 14, include_bytes!("fonts/uvga-8x14.font")),
    ("fixed-8x14", 8, 14, include_bytes!("fonts/fixed-8x14.font")),
    ("ter-n-8x14", 8, 14, include_bytes!("fonts/ter-n-8x14.font")),
    ("ter-b-8x14", 8, 14, include_bytes!("fonts/ter-b-8x14.font")),
    ("ter-v-8x14", 8, 14, include_bytes!("fonts/ter-v-8x14.font")),
    ("fixed-8x13", 8, 13, include_bytes!("fonts/fixed-8x13.font")),
    ("fixed-8x15", 8, 15, include_bytes!("fonts/fixed-8x15.font")),
    ("fixed-8x18", 8, 18, include_bytes!("fonts/fixed-8x18.font")),
    ("ter-n-6x12", 6, 12, include_bytes!("fonts/ter-n-6x12.font")),
    ("ter-n-10x18", 10, 18, include_bytes!("fonts/ter-n-10x18.font")),
    ("ter-b-10x18", 10, 18, include_bytes!("fonts/ter-b-10x18.font")),
    ("ter-n-10x20", 10, 20, include_bytes!("fonts/ter-n-10x20.font")),
    ("ter-b-10x20", 10, 20, include_bytes!("fonts/ter-b-10x20.font")),
    ("ter-n-11x22", 11, 22, include_bytes!("fonts/ter-n-11x22.font")),
    ("ter-b-11x22", 11, 22, include_bytes!("fonts/ter-b-11x22.font")),
    ("ter-n-12x24", 12, 24, include_bytes!("fonts/ter-n-12x24.font")),
    ("ter-b-12x24", 12, 24, include_bytes!("fonts/ter-b-12x24.font")),
    ("ter-n-14x28", 14, 28, include_bytes!("fonts/ter-n-14x28.font")),
    ("ter-b-14x28", 14, 28, include_bytes!("fonts/ter-b-14x28.font")),
    ("uvga-16x28", 16, 28, include_bytes!("fonts/uvga-16x28.font")),
];

/// The sizes of cells that are looked for, likeliest first.
pub(crate) static SIZES: [(u32, u32); 14] = [
    (8, 16),
    (8, 19),
    (16, 32),
    (8, 8),
    (8, 14),
    (10, 20),
    (12, 24),
    (14, 28),
    (11, 22),
    (10, 18),
    (8, 13),
    (8, 15),
    (8, 18),
    (6, 12),
];

/// Sizes that are tried after all others: only a part of the font's cells tells them from the sizes above.
pub(crate) static RARE_SIZES: [(u32, u32); 1] = [(16, 28)];

/// The sizes of cells, width and height in pixels, that are looked for on screens.
#[must_use]
pub fn sizes() -> Vec<(u32, u32)> {
    SIZES.iter().chain(&RARE_SIZES).copied().collect()
}

/// The names of the built-in fonts.
pub fn built_in() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, ..)| *name)
}

/// A built-in font by its name.
#[must_use]
pub fn by_name(name: &str) -> Option<Font> {
    let (name, _, _, packed) = BUILT_IN.iter().find(|(other, ..)| *other == name)?;
    Font::unpack(name, packed).ok()
}

/// One character that a picture may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Match {
    pub(crate) font: u8,
    pub(crate) character: char,
}

/// All fonts of one cell size.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) height: u32,
    pub(crate) names: Vec<String>,
    glyphs: Vec<(Match, Rows)>,
    by_picture: HashMap<u64, (u32, u32), BuildHasherDefault<Ready>>,
}

/// A hasher for keys that are hashes already.
#[derive(Debug, Default)]
pub(crate) struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// The hash of a cell's pixels.
pub(crate) fn hash(rows: &[u16]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    for four in rows.chunks(4) {
        let word = four.iter().fold(0_u64, |word, row| word << 16 | u64::from(*row));
        hash = (hash ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
        hash ^= hash >> 32;
    }
    hash
}

impl Table {
    fn new(fonts: &[Font], height: u32) -> Self {
        let mut glyphs: Vec<(u64, Match, Rows)> = Vec::new();
        for (index, font) in fonts.iter().enumerate().take(255) {
            for (character, rows) in &font.glyphs {
                let key = hash(rows.get(..height as usize).unwrap_or(&[]));
                glyphs.push((key, Match { font: index as u8, character: *character }, *rows));
            }
        }
        glyphs.sort_by_key(|(key, found, _)| (*key, found.font));
        let mut table =
            Self { height, names: fonts.iter().map(|font| font.name.clone()).collect(), ..Self::default() };
        for (key, found, rows) in glyphs {
            let here = table.glyphs.len() as u32;
            table.by_picture.entry(key).and_modify(|(_, count)| *count += 1).or_insert((here, 1));
            table.glyphs.push((found, rows));
        }
        table
    }

    /// The characters that look exactly so, in the order of the fonts.
    pub(crate) fn find(&self, rows: &[u16]) -> impl Iterator<Item = Match> + '_ {
        let (from, count) = self.by_picture.get(&hash(rows)).copied().unwrap_or((0, 0));
        let found = self.glyphs.get(from as usize..(from + count) as usize).unwrap_or(&[]);
        let same = found.first().is_some_and(|(_, first)| first.get(..self.height as usize) == Some(rows));
        found.iter().filter(move |_| same).map(|(found, _)| *found)
    }

    /// Every glyph of one font.
    pub(crate) fn of_font(&self, font: u8) -> impl Iterator<Item = (char, &Rows)> {
        self.glyphs
            .iter()
            .filter(move |(found, _)| found.font == font)
            .map(|(found, rows)| (found.character, rows))
    }

    /// Whether two fonts complete each other on one screen: VGA's in the forms here, and what was learnt.
    pub(crate) fn related(&self, one: u8, other: u8) -> bool {
        let is = |font: u8, families: &[&str]| {
            let name = self.names.get(usize::from(font)).map_or("", String::as_str);
            families.iter().any(|family| name.starts_with(family))
        };
        const VGA: [&str; 3] = ["vga-", "uvga-", "lvga-"];
        one == other || is(one, &VGA) && is(other, &VGA) || is(one, &[LEARNT]) || is(other, &[LEARNT])
    }
}

/// How the name of a learnt font begins.
pub const LEARNT: &str = "learnt";

static LEARNT_FONTS: Mutex<Vec<Font>> = Mutex::new(Vec::new());
type Tables = [OnceLock<Arc<Table>>; SIZES.len() + RARE_SIZES.len()];
static TABLES: LazyLock<Mutex<Arc<Tables>>> = LazyLock::new(Mutex::default);

/// The fonts with cells of this size, unpacked at the first call.
pub(crate) fn table(size: (u32, u32)) -> Option<Arc<Table>> {
    let tables = Arc::clone(&TABLES.lock().unwrap_or_else(PoisonError::into_inner));
    let index = SIZES.iter().chain(&RARE_SIZES).position(|other| *other == size)?;
    let table = tables.get(index)?.get_or_init(|| {
        let built_in = BUILT_IN.iter().filter(|(_, width, height, _)| (*width, *height) == size);
        let mut fonts: Vec<Font> =
            built_in.filter_map(|(name, _, _, packed)| Font::unpack(name, packed).ok()).collect();
        let learnt = LEARNT_FONTS.lock().unwrap_or_else(PoisonError::into_inner);
        fonts.extend(learnt.iter().filter(|font| (font.width, font.height) == size).cloned());
        Arc::new(Table::new(&fonts, size.1))
    });
    Some(Arc::clone(table))
}

/// Adds fonts for every screen that this process reads from now on. Their names get [`LEARNT`] in front, and only
/// sizes of cells that a built-in font has are looked for.
pub fn add(fonts: Vec<Font>) {
    if fonts.is_empty() {
        return;
    }
    let named = fonts.into_iter().map(|mut font| {
        if !font.name.starts_with(LEARNT) {
            font.name = format!("{LEARNT}-{}", font.name);
        }
        font
    });
    LEARNT_FONTS.lock().unwrap_or_else(PoisonError::into_inner).extend(named);
    *TABLES.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
}

/// Reads every `*.font` file of a folder, for [`add`]. A folder that isn't there holds none.
///
/// # Errors
/// When a file can't be read or is no font.
pub fn load_folder(folder: &Path) -> Result<Vec<Font>, FontError> {
    let failed = |path: &Path| {
        let name = path.display().to_string();
        move |source| FontError::Io { name, source }
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed(folder))?,
    };
    let mut fonts = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "font") {
            let packed = std::fs::read(&path).map_err(failed(&path))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            fonts.push(Font::unpack(&name, &packed)?);
        }
    }
    fonts.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(fonts)
}

#[cfg(test)]
mod tests;
