//! The tree of a disc and its directory records and path tables (ECMA-119, 9).

use std::collections::{BTreeMap, BTreeSet};

use super::names::identifier;
use super::rock_ridge::{Place, system_use};
use super::{DiscError, joliet};
use crate::set::SeedSet;

/// The size of a sector.
pub(super) const SECTOR: usize = 2048;
/// 1980-01-01 00:00:00 UTC, the time of everything: a seed's time means nothing, and equal seeds are equal bytes.
const TIME: [u8; 7] = [80, 1, 1, 0, 0, 0, 0];

/// Which of the two trees is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// ISO 9660's own, with Rock Ridge.
    Primary,
    /// Joliet's.
    Joliet,
}

/// A number in both byte orders.
pub(super) fn both_u32(value: u32) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&value.to_le_bytes());
    out[4..].copy_from_slice(&value.to_be_bytes());
    out
}

/// A number in both byte orders.
pub(super) fn both_u16(value: u16) -> [u8; 4] {
    let mut out = [0; 4];
    out[..2].copy_from_slice(&value.to_le_bytes());
    out[2..].copy_from_slice(&value.to_be_bytes());
    out
}

/// How many sectors so many bytes take.
pub(super) fn sectors(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(SECTOR)).unwrap_or(u32::MAX)
}

/// A folder: its files as indices of the set's, its folders as indices of the tree's.
#[derive(Clone, Debug, Default)]
struct Folder {
    name: String,
    parent: usize,
    identifier: String,
    files: Vec<Entry>,
    folders: Vec<usize>,
}

/// A file in a folder.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    identifier: String,
    index: usize,
}

/// Where a file's bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub sector: u32,
    pub bytes: u32,
}

/// The folders of a seed, the root first, each before what is in it.
#[derive(Debug)]
pub(super) struct Tree {
    folders: Vec<Folder>,
}

impl Tree {
    /// The tree of a set's names.
    pub(super) fn of(files: &SeedSet) -> Result<Self, DiscError> {
        let mut paths: BTreeMap<String, usize> = BTreeMap::from([(String::new(), 0)]);
        let mut folders = vec![Folder::default()];
        for (index, (path, _)) in files.files().enumerate() {
            let wrong = |why| DiscError::Name { name: path.to_owned(), medium: "disc", why };
            let parts: Vec<&str> = path.split('/').collect();
            if parts.len() > 8 {
                // ECMA-119, 6.8.2.1.
                return Err(wrong("folders go 8 deep"));
            }
            if parts.iter().any(|part| part.len() > joliet::LONGEST) {
                return Err(wrong("each part has 64 characters at most"));
            }
            let Some((name, above)) = parts.split_last() else { continue };
            let mut at = 0;
            let mut so_far = String::new();
            for part in above {
                so_far = format!("{so_far}/{part}");
                at = match paths.get(&so_far) {
                    Some(present) => *present,
                    None => {
                        let new = folders.len();
                        let folder = Folder { name: (*part).to_owned(), parent: at, ..Folder::default() };
                        folders.push(folder);
                        if let Some(parent) = folders.get_mut(at) {
                            parent.folders.push(new);
                        }
                        paths.insert(so_far.clone(), new);
                        new
                    }
                };
            }
            if files
                .files()
                .any(|(other, _)| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
            {
                return Err(wrong("a folder has this name"));
            }
            if let Some(folder) = folders.get_mut(at) {
                let entry = Entry { name: (*name).to_owned(), identifier: String::new(), index };
                folder.files.push(entry);
            }
        }
        let mut tree = Self { folders };
        tree.identify();
        Ok(tree)
    }

    fn identify(&mut self) {
        for at in 0..self.folders.len() {
            let mut taken = BTreeSet::new();
            let Some(folder) = self.folders.get_mut(at) else { continue };
            for entry in &mut folder.files {
                entry.identifier = identifier(&entry.name, false, &mut taken);
            }
            for child in folder.folders.clone() {
                if let Some(inner) = self.folders.get_mut(child) {
                    inner.identifier = identifier(&inner.name, true, &mut taken);
                }
            }
        }
    }

    /// How many folders there are.
    pub(super) fn len(&self) -> usize {
        self.folders.len()
    }

    /// The identifier of a record.
    fn id(kind: Kind, name: &str, identifier: &str, file: bool) -> Vec<u8> {
        match kind {
            Kind::Primary => identifier.as_bytes().to_vec(),
            // Joliet's files may do without `;1`; those of all common writers have it.
            Kind::Joliet if file => joliet::ucs2(&format!("{name};1")),
            Kind::Joliet => joliet::ucs2(name),
        }
    }

    /// The bytes of each folder, given the first sector of each and the extents of the files.
    pub(super) fn directories(
        &self,
        kind: Kind,
        places: &[u32],
        sizes: &[u32],
        files: &[Extent],
        continuation: u32,
    ) -> Vec<Vec<u8>> {
        let extent = |index: usize| Extent {
            sector: places.get(index).copied().unwrap_or_default(),
            bytes: sizes.get(index).copied().unwrap_or_default(),
        };
        let susp = |place, name: &str, folder, links| match kind {
            Kind::Primary => system_use(place, name, folder, links),
            Kind::Joliet => Vec::new(),
        };
        let links = |folder: &Folder| u32::try_from(folder.folders.len()).unwrap_or_default() + 2;
        let mut out = Vec::new();
        for (index, folder) in self.folders.iter().enumerate() {
            let own = if index == 0 { Place::Root { continuation } } else { Place::Dots };
            let above = self.folders.get(folder.parent).map_or(2, links);
            let mut records = vec![
                record(&[0], extent(index), true, &susp(own, "", true, links(folder))),
                record(&[1], extent(folder.parent), true, &susp(Place::Dots, "", true, above)),
            ];
            let mut named: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            for entry in &folder.files {
                let id = Self::id(kind, &entry.name, &entry.identifier, true);
                let at = files.get(entry.index).copied().unwrap_or(Extent { sector: 0, bytes: 0 });
                let record = record(&id, at, false, &susp(Place::Named, &entry.name, false, 1));
                named.push((id, record));
            }
            for child in &folder.folders {
                let Some(inner) = self.folders.get(*child) else { continue };
                let id = Self::id(kind, &inner.name, &inner.identifier, false);
                let more = susp(Place::Named, &inner.name, true, links(inner));
                let record = record(&id, extent(*child), true, &more);
                named.push((id, record));
            }
            // ECMA-119, 9.3: in the order of the identifiers.
            named.sort();
            records.extend(named.into_iter().map(|(_, record)| record));
            out.push(laid_out(&records));
        }
        out
    }

    /// The path table in one byte order (ECMA-119, 9.4): by depth, then by the parent's number, then by name.
    pub(super) fn path_table(&self, kind: Kind, places: &[u32], big_endian: bool) -> Vec<u8> {
        let mut order: Vec<usize> = vec![0];
        let mut at = 0;
        while let Some(index) = order.get(at).copied() {
            let mut children =
                self.folders.get(index).map(|folder| folder.folders.clone()).unwrap_or_default();
            children.sort_by_key(|child| self.folder_id(kind, *child));
            order.extend(children);
            at += 1;
        }
        let number = |index: usize| {
            let position = order.iter().position(|each| *each == index).unwrap_or_default();
            u16::try_from(position + 1).unwrap_or(u16::MAX)
        };
        let mut out = Vec::new();
        for index in &order {
            let id = if *index == 0 { vec![0] } else { self.folder_id(kind, *index) };
            let place = places.get(*index).copied().unwrap_or_default();
            let parent = number(self.folders.get(*index).map_or(0, |folder| folder.parent));
            out.extend([u8::try_from(id.len()).unwrap_or(u8::MAX), 0]);
            if big_endian {
                out.extend(place.to_be_bytes());
                out.extend(parent.to_be_bytes());
            } else {
                out.extend(place.to_le_bytes());
                out.extend(parent.to_le_bytes());
            }
            out.extend(&id);
            if id.len() % 2 == 1 {
                out.push(0);
            }
        }
        out
    }

    fn folder_id(&self, kind: Kind, index: usize) -> Vec<u8> {
        self.folders
            .get(index)
            .map(|folder| Self::id(kind, &folder.name, &folder.identifier, false))
            .unwrap_or_default()
    }
}

/// A directory record (ECMA-119, 9.1).
pub(super) fn record(id: &[u8], at: Extent, folder: bool, system_use: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0];
    out.extend(both_u32(at.sector));
    out.extend(both_u32(at.bytes));
    out.extend(TIME);
    out.extend([if folder { 2 } else { 0 }, 0, 0]);
    out.extend(both_u16(1));
    out.push(u8::try_from(id.len()).unwrap_or(u8::MAX));
    out.extend(id);
    if out.len() % 2 == 1 {
        out.push(0);
    }
    out.extend(system_use);
    if out.len() % 2 == 1 {
        out.push(0);
    }
    if let Ok(length) = u8::try_from(out.len())
        && let Some(first) = out.first_mut()
    {
        *first = length;
    }
    out
}

/// Records one after another, none across the border of a sector (ECMA-119, 6.8.1.1).
fn laid_out(records: &[Vec<u8>]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for record in records {
        if out.len() % SECTOR + record.len() > SECTOR {
            out.resize(out.len().next_multiple_of(SECTOR), 0);
        }
        out.extend(record);
    }
    out.resize(out.len().next_multiple_of(SECTOR), 0);
    out
}
