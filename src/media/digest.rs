//! Digests of files, with the memory of one piece whatever their size.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forge_machine::Algorithm;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

/// How much is read at a time.
const PIECE: usize = 1 << 20;

/// A digest in the making.
#[derive(Clone)]
pub(super) enum Hasher {
    Md5(md5::Md5),
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Md5 => Self::Md5(md5::Md5::default()),
            Algorithm::Sha1 => Self::Sha1(Sha1::default()),
            Algorithm::Sha256 => Self::Sha256(Sha256::default()),
            Algorithm::Sha512 => Self::Sha512(Sha512::default()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hasher) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> String {
        match self {
            Self::Md5(hasher) => hex(&hasher.finalize()),
            Self::Sha1(hasher) => hex(&hasher.finalize()),
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Sha512(hasher) => hex(&hasher.finalize()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Takes in the first bytes of a file, at most so many; gives how many there were.
pub(super) fn take_in(hasher: &mut Hasher, file: impl Read, stop: &AtomicBool) -> io::Result<u64> {
    let mut file = file;
    let mut piece = vec![0; PIECE];
    let mut count = 0;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("it was stopped"));
        }
        match file.read(&mut piece)? {
            0 => return Ok(count),
            read => {
                hasher.update(piece.get(..read).unwrap_or_default());
                count += read as u64;
            }
        }
    }
}

/// Stops a pass when it is dropped: blocking work can't be aborted.
pub(super) struct Stop(pub(super) Arc<AtomicBool>);

impl Stop {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The digest of a file in lower-case hexadecimal digits, and its size in bytes. May be dropped.
///
/// # Errors
/// When it can't be read.
pub async fn of_file(path: &Path, algorithm: Algorithm) -> io::Result<(String, u64)> {
    let path = path.to_owned();
    let stop = Stop::new();
    let token = Arc::clone(&stop.0);
    let work = tokio::task::spawn_blocking(move || {
        let mut hasher = Hasher::new(algorithm);
        let size = take_in(&mut hasher, std::fs::File::open(path)?, &token)?;
        Ok((hasher.finish(), size))
    });
    let result = work.await.map_err(io::Error::other)?;
    drop(stop);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_has_the_digests_that_the_usual_programs_print() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").expect("ours");
        for (algorithm, starts) in [
            (Algorithm::Md5, "900150983cd24fb0"),
            (Algorithm::Sha1, "a9993e364706816a"),
            (Algorithm::Sha256, "ba7816bf8f01cfea"),
            (Algorithm::Sha512, "ddaf35a193617aba"),
        ] {
            let (hex, size) = of_file(&path, algorithm).await.expect("read");
            assert!(hex.starts_with(starts) && hex.len() == algorithm.digits() && size == 3, "{hex}");
        }
        assert!(of_file(&folder.path().join("gone"), Algorithm::Md5).await.is_err());
    }
}
