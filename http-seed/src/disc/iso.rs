//! An ISO 9660 image (ECMA-119) with Joliet and Rock Ridge.
//!
//! ```text
//! 16 primary descriptor · 17 Joliet's · 18 terminator · path tables · folders · Joliet's folders · Rock Ridge · files
//! ```
//!
//! One that starts a machine has El Torito's boot record at 17, the two behind it one further, and the catalogue and what is
//! started before the files.

use super::directory::{Extent, Kind, SECTOR, Tree, both_u16, both_u32, record, sectors};
use super::rock_ridge::continuation_area;
use super::{DiscError, LARGEST, checked_label, el_torito, joliet};
use crate::set::SeedSet;

/// What follows the last file, as mkisofs does it: who looks for file systems asks at 64 KiB too, and busybox gives a shorter
/// disc up; drives read ahead.
const PADDING: u32 = 150;

/// One of the two trees: where its tables and folders are.
struct Layout {
    path_table: [u32; 2],
    path_table_bytes: usize,
    folders: Vec<u32>,
    sizes: Vec<u32>,
}

/// The image; `boot` is what UEFI starts from.
pub(super) fn image(label: &str, files: &SeedSet, boot: Option<&[u8]>) -> Result<Vec<u8>, DiscError> {
    // 16 characters, so that Joliet's field holds the same label.
    let label = checked_label(label, 16, "disc")?;
    let bytes: u64 =
        files.files().map(|(_, file)| u64::try_from(file.bytes().len()).unwrap_or(u64::MAX)).sum();
    if bytes > LARGEST {
        return Err(DiscError::TooBig { bytes, medium: "disc", most: LARGEST });
    }
    let tree = Tree::of(files)?;
    let second_at = 17 + u32::from(boot.is_some());
    let mut next = second_at + 2;
    let primary = layout(&tree, Kind::Primary, &mut next);
    let second = layout(&tree, Kind::Joliet, &mut next);
    let continuation = next;
    next += 1;
    let catalogue = next;
    next += boot.map_or(0, |boot| 1 + sectors(boot.len()));
    let mut extents = Vec::new();
    for (_, file) in files.files() {
        let bytes = u32::try_from(file.bytes().len()).unwrap_or(u32::MAX);
        extents.push(Extent { sector: next, bytes });
        next += sectors(file.bytes().len());
    }
    next += PADDING;

    let mut out = vec![0; 16 * SECTOR];
    for (kind, layout) in [(Kind::Primary, &primary), (Kind::Joliet, &second)] {
        pad_to(&mut out, if kind == Kind::Primary { 16 } else { second_at });
        descriptor(&mut out, kind, label, layout, next);
        if kind == Kind::Primary && boot.is_some() {
            pad_to(&mut out, 17);
            out.extend(el_torito::record(catalogue));
        }
    }
    pad_to(&mut out, second_at + 1);
    out.extend(*b"\xffCD001\x01");
    for (kind, layout) in [(Kind::Primary, &primary), (Kind::Joliet, &second)] {
        for (place, big_endian) in layout.path_table.into_iter().zip([false, true]) {
            pad_to(&mut out, place);
            out.extend(tree.path_table(kind, &layout.folders, big_endian));
        }
        let directories = tree.directories(kind, &layout.folders, &layout.sizes, &extents, continuation);
        for (place, directory) in layout.folders.iter().zip(directories) {
            pad_to(&mut out, *place);
            out.extend(directory);
        }
    }
    pad_to(&mut out, continuation);
    out.extend(continuation_area());
    if let Some(boot) = boot {
        pad_to(&mut out, catalogue);
        out.extend(el_torito::catalogue(catalogue + 1, boot.len()));
        pad_to(&mut out, catalogue + 1);
        out.extend(boot);
    }
    for (extent, (_, file)) in extents.iter().zip(files.files()) {
        pad_to(&mut out, extent.sector);
        out.extend(file.bytes());
    }
    pad_to(&mut out, next);
    Ok(out)
}

/// Gives a tree its sectors. The sizes of folders and tables don't depend on what is in them, so places of 0 do.
fn layout(tree: &Tree, kind: Kind, next: &mut u32) -> Layout {
    let path_table_bytes = tree.path_table(kind, &[], false).len();
    let mut take = |bytes: usize| {
        let place = *next;
        *next += sectors(bytes);
        place
    };
    let path_table = [take(path_table_bytes), take(path_table_bytes)];
    let empty = tree.directories(kind, &[], &[], &[], 0);
    let sizes: Vec<u32> =
        empty.iter().map(|directory| u32::try_from(directory.len()).unwrap_or(u32::MAX)).collect();
    let folders = empty.iter().map(|directory| take(directory.len())).collect();
    debug_assert_eq!(sizes.len(), tree.len());
    Layout { path_table, path_table_bytes, folders, sizes }
}

fn pad_to(out: &mut Vec<u8>, sector: u32) {
    let length = usize::try_from(sector).unwrap_or(usize::MAX).saturating_mul(SECTOR);
    if out.len() < length {
        out.resize(length, 0);
    }
}

/// A volume descriptor (ECMA-119, 8.4 and 8.5).
fn descriptor(out: &mut Vec<u8>, kind: Kind, label: &str, layout: &Layout, total: u32) {
    let text = |text: &str, length: usize| match kind {
        Kind::Primary => {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(length, b' ');
            bytes
        }
        Kind::Joliet => joliet::field(text, length),
    };
    out.push(if kind == Kind::Primary { 1 } else { 2 });
    out.extend(*b"CD001\x01\x00");
    out.extend(text("", 32));
    out.extend(text(label, 32));
    out.extend([0; 8]);
    out.extend(both_u32(total));
    let mut escapes = [0; 32];
    if kind == Kind::Joliet {
        escapes[..3].copy_from_slice(joliet::LEVEL_3);
    }
    out.extend(escapes);
    out.extend(both_u16(1));
    out.extend(both_u16(1));
    out.extend(both_u16(2048));
    out.extend(both_u32(u32::try_from(layout.path_table_bytes).unwrap_or(u32::MAX)));
    let [little, big] = layout.path_table;
    out.extend(little.to_le_bytes());
    out.extend([0; 4]);
    out.extend(big.to_be_bytes());
    out.extend([0; 4]);
    let root = Extent {
        sector: layout.folders.first().copied().unwrap_or_default(),
        bytes: layout.sizes.first().copied().unwrap_or_default(),
    };
    out.extend(record(&[0], root, true, &[]));
    out.extend(text("", 128));
    out.extend(text("", 128));
    out.extend(text("", 128));
    out.extend(text("FORGE", 128));
    for _file_identifier in 0..3 {
        out.extend(text("", 37));
    }
    // ECMA-119, 8.4.26.1: times that are not given.
    for _time in 0..4 {
        out.extend(*b"0000000000000000\0");
    }
    out.extend([1, 0]);
}
