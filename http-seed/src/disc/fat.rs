//! FAT12 with long names (Microsoft's "FAT: General Overview of On-Disk Format", 1.03): a floppy of 1.44 MB, and the part
//! of a disc from which UEFI starts.

use std::collections::{BTreeMap, BTreeSet};

use super::{DiscError, checked_label};
use crate::set::SeedSet;

const SECTOR: usize = 512;
const ROOT_ENTRIES: usize = 224;
pub(super) const MOST: u64 = FLOPPY.most() as u64;
/// 1980-01-01, the first day that FAT knows.
const DATE: u16 = 0x21;
/// How deep a file may lie, as on a disc.
const DEPTH: usize = 8;

/// What an entry is of.
const LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;
const FILE: u8 = 0x20;

/// What the first sector says of a medium.
struct Geometry {
    /// What errors call it.
    medium: &'static str,
    /// How many sectors there are; 0 for as many as what is on it takes.
    sectors: usize,
    /// How many of them a cluster has.
    cluster: usize,
    fat_sectors: usize,
    descriptor: u8,
    track: usize,
}

const FLOPPY: Geometry =
    Geometry { medium: "floppy", sectors: 2880, cluster: 1, fat_sectors: 9, descriptor: 0xf0, track: 18 };
/// As many clusters as FAT12 can have, of 4 KiB.
const BOOT: Geometry =
    Geometry { medium: "boot image", sectors: 0, cluster: 8, fat_sectors: 12, descriptor: 0xf8, track: 32 };

impl Geometry {
    /// The first sector of the clusters.
    const fn data(&self) -> usize {
        1 + 2 * self.fat_sectors + ROOT_ENTRIES * 32 / SECTOR
    }

    const fn clusters(&self) -> usize {
        // FAT12 ends at 4084 (overview, "FAT Type Determination").
        if self.sectors == 0 { 4084 } else { (self.sectors - self.data()) / self.cluster }
    }

    const fn most(&self) -> usize {
        self.clusters() * self.cluster * SECTOR
    }
}

/// A floppy.
pub(super) fn image(label: &str, files: &SeedSet) -> Result<Vec<u8>, DiscError> {
    let label = checked_label(label, 11, FLOPPY.medium)?;
    of(&FLOPPY, label, files)
}

/// What UEFI starts from, as large as it must be.
pub(super) fn boot_image(files: &SeedSet) -> Result<Vec<u8>, DiscError> {
    of(&BOOT, "FORGE_BOOT", files)
}

fn of(geometry: &Geometry, label: &str, files: &SeedSet) -> Result<Vec<u8>, DiscError> {
    let (medium, most) = (geometry.medium, geometry.most());
    let too_big = |bytes: usize| DiscError::TooBig { bytes: bytes as u64, medium, most: most as u64 };
    let cluster = geometry.cluster * SECTOR;
    let wanted: usize = files.files().map(|(_, file)| file.bytes().len().next_multiple_of(cluster)).sum();
    if wanted > most {
        return Err(too_big(wanted));
    }
    let tree = Folder::of(files, medium)?;
    let first = 0xf00 | u16::from(geometry.descriptor);
    let mut area = Area { fat: vec![first, 0xfff], data: Vec::new(), cluster };
    area.fat.resize(geometry.clusters() + 2, 0);
    let mut root = entry(&padded(&label.to_ascii_uppercase()), LABEL, 0, 0);
    root.extend(tree.records(0, &mut area));
    if root.len() > ROOT_ENTRIES * 32 {
        let name = files.files().last().map(|(name, _)| name.to_owned()).unwrap_or_default();
        return Err(DiscError::Name { name, medium, why: "its root holds no more files" });
    }
    // Folders take room too.
    if area.data.len() > most {
        return Err(too_big(area.data.len()));
    }
    let sectors = match geometry.sectors {
        0 => geometry.data() + area.data.len() / SECTOR,
        sectors => sectors,
    };
    let mut out = boot_sector(geometry, sectors, label);
    for _copy in 0..2 {
        let mut table = packed(&area.fat);
        table.resize(geometry.fat_sectors * SECTOR, 0);
        out.extend(table);
    }
    root.resize(ROOT_ENTRIES * 32, 0);
    out.extend(root);
    out.extend(area.data);
    out.resize(sectors * SECTOR, 0);
    Ok(out)
}

/// What is in a folder, by name.
#[derive(Default)]
struct Folder<'a> {
    files: BTreeMap<&'a str, &'a [u8]>,
    folders: BTreeMap<&'a str, Folder<'a>>,
    /// All of these names as FAT compares them.
    taken: BTreeMap<String, &'a str>,
}

impl<'a> Folder<'a> {
    /// The root of a set's names.
    fn of(files: &'a SeedSet, medium: &'static str) -> Result<Self, DiscError> {
        let mut root = Self::default();
        for (path, file) in files.files() {
            let wrong = |why| DiscError::Name { name: path.to_owned(), medium, why };
            let parts: Vec<&str> = path.split('/').collect();
            if parts.len() > DEPTH {
                return Err(wrong("folders go 8 deep"));
            }
            if parts.iter().any(|part| part.len() > 64) {
                return Err(wrong("each part has 64 characters at most"));
            }
            let Some((&name, above)) = parts.split_last() else { continue };
            let mut at = &mut root;
            for &part in above {
                at.claim(part).map_err(wrong)?;
                if at.files.contains_key(part) {
                    return Err(wrong("a file and a folder would have the same name"));
                }
                at = at.folders.entry(part).or_default();
            }
            at.claim(name).map_err(wrong)?;
            if at.folders.contains_key(name) {
                return Err(wrong("a file and a folder would have the same name"));
            }
            at.files.insert(name, file.bytes());
        }
        Ok(root)
    }

    fn claim(&mut self, name: &'a str) -> Result<(), &'static str> {
        match self.taken.insert(name.to_ascii_lowercase(), name) {
            Some(other) if other != name => {
                Err("another name differs from it in the case of its letters alone")
            }
            _ => Ok(()),
        }
    }

    /// How long its records are, with the two that lead to itself and above.
    fn size(&self) -> usize {
        let names = self.files.keys().chain(self.folders.keys());
        (2 + names.map(|name| name.len().div_ceil(13) + 1).sum::<usize>()) * 32
    }

    /// Its records, once what is in it lies in the area; `own` is its own first cluster, 0 for the root.
    fn records(&self, own: u16, area: &mut Area) -> Vec<u8> {
        let mut taken = BTreeSet::new();
        let mut out = Vec::new();
        for (name, bytes) in &self.files {
            let first = area.take(bytes.len());
            area.fill(first, bytes);
            let short = short_name(name, &mut taken);
            out.extend(long_name(name, &short));
            out.extend(entry(&short, FILE, first, u32::try_from(bytes.len()).unwrap_or_default()));
        }
        for (name, inner) in &self.folders {
            let first = area.take(inner.size());
            let mut inside = entry(&padded("."), FOLDER, first, 0);
            inside.extend(entry(&padded(".."), FOLDER, own, 0));
            inside.extend(inner.records(first, area));
            area.fill(first, &inside);
            let short = short_name(name, &mut taken);
            out.extend(long_name(name, &short));
            out.extend(entry(&short, FOLDER, first, 0));
        }
        out
    }
}

/// The clusters, each of so many bytes, and the table of what follows on which.
struct Area {
    fat: Vec<u16>,
    data: Vec<u8>,
    cluster: usize,
}

impl Area {
    /// Takes clusters for so many bytes and gives the first one's number, 0 where there is nothing to hold.
    fn take(&mut self, bytes: usize) -> u16 {
        let clusters = bytes.div_ceil(self.cluster);
        let first = 2 + self.data.len() / self.cluster;
        for index in 0..clusters {
            let next = if index + 1 == clusters { 0xfff } else { first + index + 1 };
            if let Some(slot) = self.fat.get_mut(first + index) {
                *slot = u16::try_from(next).unwrap_or(0xfff);
            }
        }
        self.data.resize(self.data.len() + clusters * self.cluster, 0);
        if clusters == 0 { 0 } else { u16::try_from(first).unwrap_or_default() }
    }

    fn fill(&mut self, first: u16, bytes: &[u8]) {
        let at = usize::from(first).saturating_sub(2) * self.cluster;
        if let Some(room) = self.data.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }
}

/// The first sector. Nothing is started by it: UEFI reads the files.
fn boot_sector(geometry: &Geometry, sectors: usize, label: &str) -> Vec<u8> {
    let mut out = b"\xeb\x3c\x90FORGE   ".to_vec();
    let word = |value: usize| u16::try_from(value).unwrap_or_default().to_le_bytes();
    out.extend(word(SECTOR));
    out.push(u8::try_from(geometry.cluster).unwrap_or_default());
    out.extend(word(1));
    out.push(2);
    out.extend(word(ROOT_ENTRIES));
    out.extend(word(sectors));
    out.push(geometry.descriptor);
    out.extend(word(geometry.fat_sectors));
    out.extend(word(geometry.track));
    out.extend(word(2));
    out.extend([0; 8]);
    out.extend([0, 0, 0x29]);
    // The serial number, which readers don't need.
    out.extend(*b"FORG");
    out.extend(padded(&label.to_ascii_uppercase()));
    out.extend(*b"FAT12   ");
    // Who jumps here gives the firmware its turn for the next medium, and stands still where it knows none.
    out.extend([0xcd, 0x18, 0xeb, 0xfe]);
    out.resize(SECTOR - 2, 0);
    out.extend([0x55, 0xaa]);
    out
}

/// 12 bits for each cluster.
fn packed(fat: &[u16]) -> Vec<u8> {
    fat.chunks(2)
        .flat_map(|pair| {
            let first = pair.first().copied().unwrap_or_default();
            let second = pair.get(1).copied().unwrap_or_default();
            let all = (u32::from(first) | (u32::from(second) << 12)).to_le_bytes();
            all.into_iter().take(3)
        })
        .collect()
}

fn padded(text: &str) -> [u8; 11] {
    let mut out = [b' '; 11];
    for (slot, byte) in out.iter_mut().zip(text.bytes()) {
        *slot = byte;
    }
    out
}

fn entry(name: &[u8; 11], attribute: u8, cluster: u16, size: u32) -> Vec<u8> {
    let mut out = name.to_vec();
    out.extend([attribute, 0, 0]);
    for value in [0, DATE, DATE, 0, 0, DATE, cluster] {
        out.extend(value.to_le_bytes());
    }
    out.extend(size.to_le_bytes());
    out
}

/// A name of 8 and 3 characters that no other file has: `AUTOUN~1XML`.
fn short_name(name: &str, taken: &mut BTreeSet<[u8; 11]>) -> [u8; 11] {
    let plain = |text: &str, length: usize| -> String {
        let fits = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_uppercase() } else { '_' };
        text.chars().map(fits).take(length).collect()
    };
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let extension = plain(extension, 3);
    for number in 1_u32.. {
        let tail = format!("~{number}");
        let stem = format!("{}{tail}", plain(stem, 8 - tail.len().min(7)));
        let short = padded(&format!("{stem:<8}{extension}"));
        if taken.insert(short) {
            return short;
        }
    }
    padded("")
}

/// The entries that carry a long name, its last part first.
fn long_name(name: &str, short: &[u8; 11]) -> Vec<u8> {
    let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if !units.len().is_multiple_of(13) {
        units.push(0);
    }
    units.resize(units.len().next_multiple_of(13), 0xffff);
    let parts = units.len() / 13;
    let mut out = Vec::new();
    for (index, part) in units.chunks(13).enumerate().rev() {
        let last = if index + 1 == parts { 0x40 } else { 0 };
        out.push(u8::try_from(index + 1).unwrap_or_default() | last);
        let bytes: Vec<u8> = part.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        out.extend(bytes.iter().take(10));
        out.extend([0x0f, 0, sum]);
        out.extend(bytes.iter().skip(10).take(12));
        out.extend([0, 0]);
        out.extend(bytes.iter().skip(22));
    }
    out
}
