//! Joliet: the second tree of a disc, whose names are in UCS-2 (Joliet specification, 1995).

/// The longest name in characters (Joliet, "Allowed Length of File and Directory Identifiers": 128 bytes).
pub(super) const LONGEST: usize = 64;
/// The escape sequence of UCS-2 level 3, in the volume descriptor.
pub(super) const LEVEL_3: &[u8; 3] = b"%/E";

/// A text in big-endian UCS-2; names of seeds are ASCII.
pub(super) fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// A text in a field of a fixed length, filled up with spaces; an odd last byte is zero.
pub(super) fn field(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = ucs2(text);
    while bytes.len() + 2 <= length {
        bytes.extend([0, b' ']);
    }
    bytes.truncate(length);
    bytes.resize(length, 0);
    bytes
}
