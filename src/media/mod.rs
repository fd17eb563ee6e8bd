//! Files that a build reads from elsewhere: downloaded once, proved, kept.
//!
//! ```text
//!  https://…/debian.iso ─┐                       ┌─ a dropped connection goes on where it was (Range, If-Range)
//!  its mirrors ──────────┴─ sha256-<digest>.part ┴─ hashed on the way ── sha256-<digest>
//! ```
//!
//! The cache is a folder of files named by their digests. A file gets its name only after its bytes were compared, and
//! whoever takes it later compares it again. One download at a time is made of each file, also by several processes:
//! the others wait for it by a lock on a file.

pub mod cache;
pub mod digest;
pub mod error;
pub mod http;
pub mod label;
pub mod settle;
pub mod sums;
mod transfer;

pub use cache::{Brought, How, Store};
pub use error::MediaError;
pub use forge_machine::source::shown;
pub use http::Patience;

/// Hears what is going on with a medium.
pub trait Watch: Send + Sync {
    /// Something begins.
    fn doing(&self, what: &str);

    /// A download moves: its file, and the bytes that are here of how many.
    fn progress(&self, name: &str, done: u64, total: Option<u64>);

    /// Something is not right and stops nothing.
    fn warn(&self, what: &str);
}

/// Nobody listens.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn doing(&self, _what: &str) {}

    fn progress(&self, _name: &str, _done: u64, _total: Option<u64>) {}

    fn warn(&self, _what: &str) {}
}

/// A number of bytes for people: `812 bytes`, `34.2 MiB`, `3.9 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let in_tenths = |unit: u32| {
        let tenths = (u128::from(bytes) * 10) >> unit;
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..1_048_576 => format!("{} KiB", in_tenths(10)),
        1_048_576..1_073_741_824 => format!("{} MiB", in_tenths(20)),
        _ => format!("{} GiB", in_tenths(30)),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_for_people() {
        for (bytes, words) in [
            (0, "0 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (681_574_400, "650.0 MiB"),
            (4 << 30, "4.0 GiB"),
        ] {
            assert_eq!(size(bytes), words);
        }
    }
}
