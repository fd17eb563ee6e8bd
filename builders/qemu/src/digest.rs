//! Checksums of large files, in one pass: what is written compressed is hashed while it is written.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

/// How much is read at a time.
const CHUNK: usize = 1 << 20;

/// A file's checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digested {
    /// SHA-256 in hexadecimal digits.
    pub(crate) sha256: String,
    /// In bytes.
    pub(crate) size: u64,
}

/// Stops the passes that were given a token of it when it is dropped: blocking tasks can't be aborted.
#[derive(Debug, Default)]
pub(crate) struct Stop(Token);

/// Tells a pass that nobody waits for it any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Token(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn token(&self) -> Token {
        self.0.clone()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

impl Token {
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(io::Error::other("it was stopped")) } else { Ok(()) }
    }
}

/// Hashes a file, which is on the disk afterwards.
pub(crate) fn read(path: PathBuf, token: Token) -> JoinHandle<io::Result<Digested>> {
    tokio::task::spawn_blocking(move || of_file(&path, &token))
}

/// The same, at once. The disk writes what is still in memory while it is hashed.
pub(crate) fn of_file(path: &Path, token: &Token) -> io::Result<Digested> {
    let mut file = File::open(path)?;
    let same = file.try_clone()?;
    let mut sink = Hashing::new(io::sink());
    std::thread::scope(|scope| {
        let written = scope.spawn(move || same.sync_all());
        pump(&mut file, &mut sink, token)?;
        written.join().map_err(|_| io::Error::other("the disk could not be waited for"))?
    })?;
    Ok(sink.finish().1)
}

/// Compresses a file by zstd into another one, which is on the disk afterwards, and hashes what is written.
pub(crate) fn compress(from: PathBuf, to: File, token: Token) -> JoinHandle<io::Result<Digested>> {
    tokio::task::spawn_blocking(move || {
        let mut file = File::open(&from)?;
        let hashing = Hashing::new(BufWriter::with_capacity(CHUNK, to));
        let mut encoder = zstd::Encoder::new(hashing, zstd::DEFAULT_COMPRESSION_LEVEL)?;
        encoder.include_checksum(true)?;
        encoder.set_pledged_src_size(Some(file.metadata()?.len()))?;
        pump(&mut file, &mut encoder, &token)?;
        let (buffer, digested) = encoder.finish()?.finish();
        buffer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::remove_file(&from)?;
        Ok(digested)
    })
}

fn pump(from: &mut File, to: &mut impl Write, token: &Token) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        token.check()?;
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(buffer.get(..count).unwrap_or_default())?;
    }
}

/// Hashes what passes through.
struct Hashing<W> {
    inner: W,
    digest: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, digest: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (W, Digested) {
        let sha256 = self.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (self.inner, Digested { sha256, size: self.size })
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.digest.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_compressed_file_is_hashed_as_it_is_written_and_unpacks_to_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let (from, to) = (directory.path().join("raw"), directory.path().join("raw.zst"));
        let content: Vec<u8> = (0..3_000_000_u32).flat_map(|number| (number / 1000).to_le_bytes()).collect();
        std::fs::write(&from, &content).expect("written");
        let stop = Stop::default();
        let file = File::create(&to).expect("made");
        let packed = compress(from.clone(), file, stop.token()).await.expect("no panic").expect("packed");
        assert!(!from.exists(), "the raw image is of no more use");
        assert_eq!(packed, of_file(&to, &stop.token()).expect("read"));
        assert!(packed.size < content.len() as u64 / 10, "{packed:?}");
        let unpacked = zstd::decode_all(File::open(&to).expect("there")).expect("unpacked");
        assert!(unpacked == content);
    }

    #[test]
    fn a_pass_that_nobody_waits_for_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        std::fs::write(&path, [0; 10]).expect("written");
        let stop = Stop::default();
        let token = stop.token();
        assert!(of_file(&path, &token).is_ok());
        drop(stop);
        assert!(of_file(&path, &token).is_err());
    }
}
