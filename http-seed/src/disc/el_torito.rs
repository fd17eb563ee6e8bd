//! How UEFI finds what it starts on a disc ("El Torito" Bootable CD-ROM Format Specification, 1.0; UEFI specification,
//! 13.3.2.1).

use super::directory::SECTOR;

/// The platform of what is started.
const EFI: u8 = 0xef;
/// The unit in which its length is told.
const BLOCK: usize = 512;

/// The boot record, which stands in sector 17.
pub(super) fn record(catalogue: u32) -> Vec<u8> {
    let mut out = b"\0CD001\x01EL TORITO SPECIFICATION".to_vec();
    out.resize(0x47, 0);
    out.extend(catalogue.to_le_bytes());
    out.resize(SECTOR, 0);
    out
}

/// The catalogue, with one entry: a file system at this sector, of so many bytes.
pub(super) fn catalogue(sector: u32, bytes: usize) -> Vec<u8> {
    let mut out = vec![1, EFI, 0, 0];
    out.extend(*b"forge");
    out.resize(28, 0);
    out.extend([0, 0, 0x55, 0xaa]);
    // All words together come to nothing.
    let words = out.chunks(2).map(|pair| {
        u16::from_le_bytes([
            pair.first().copied().unwrap_or_default(),
            pair.get(1).copied().unwrap_or_default(),
        ])
    });
    let sum = words.fold(0_u16, u16::wrapping_add);
    out.splice(28..30, sum.wrapping_neg().to_le_bytes());
    // It may be started, and emulates no other medium.
    out.extend([0x88, 0, 0, 0, 0, 0]);
    out.extend(u16::try_from(bytes.div_ceil(BLOCK)).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(sector.to_le_bytes());
    out.resize(SECTOR, 0);
    out
}
