//! Rock Ridge: POSIX names and rights behind each directory record (IEEE P1282, RRIP 1.12; SUSP, IEEE P1281).

use super::directory::both_u32;

/// `S_IFDIR | 0555` and `S_IFREG | 0444`: all may read, nobody writes.
const FOLDER: u32 = 0o040_555;
const FILE: u32 = 0o100_444;

/// Which fields a record's system use area begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The root's own record: it announces Rock Ridge, and where the rest of the announcement is.
    Root {
        /// The sector of the continuation area.
        continuation: u32,
    },
    /// Another `.` or `..`.
    Dots,
    /// A named file or folder.
    Named,
}

/// The system use area of a record.
pub(super) fn system_use(place: Place, name: &str, folder: bool, links: u32) -> Vec<u8> {
    let mut out = Vec::new();
    if let Place::Root { .. } = place {
        // SUSP 5.3: the check bytes, and no bytes skipped.
        out.extend(*b"SP\x07\x01\xbe\xef\x00");
    }
    // RRIP 4.1.1, with the serial number of 1.12.
    out.extend(*b"PX\x2c\x01");
    for value in [if folder { FOLDER } else { FILE }, links, 0, 0, 0] {
        out.extend(both_u32(value));
    }
    if place == Place::Named {
        let length = u8::try_from(name.len() + 5).unwrap_or(u8::MAX);
        out.extend([b'N', b'M', length, 1, 0]);
        out.extend(name.as_bytes());
    }
    if let Place::Root { continuation } = place {
        let length = u32::try_from(continuation_area().len()).unwrap_or_default();
        out.extend(*b"CE\x1c\x01");
        for value in [continuation, 0, length] {
            out.extend(both_u32(value));
        }
    }
    out
}

/// What does not fit into the root's record: which extension this is (RRIP 4.3).
pub(super) fn continuation_area() -> Vec<u8> {
    let (id, description, source) = (
        "RRIP_1991A",
        "THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS",
        "PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE.  SEE PUBLISHER IDENTIFIER IN PRIMARY VOLUME \
         DESCRIPTOR FOR CONTACT INFORMATION.",
    );
    let byte = |length: usize| u8::try_from(length).unwrap_or(u8::MAX);
    let length = 8 + id.len() + description.len() + source.len();
    let mut out =
        vec![b'E', b'R', byte(length), 1, byte(id.len()), byte(description.len()), byte(source.len()), 1];
    for text in [id, description, source] {
        out.extend(text.as_bytes());
    }
    out
}
