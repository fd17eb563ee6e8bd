//! One download into one file: gone on with after every break, hashed on the way, from the first mirror that has it. Who
//! sends the file on meanwhile follows its [`Growth`].

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forge_machine::{Algorithm, Growth};
use reqwest::header::{
    ACCEPT_ENCODING, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Client, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::digest::{Hasher, Stop, take_in};
use super::error::MediaError;
use super::http::{Patience, as_it_is, broken, content_range, length, refused};
use super::{Watch, shown, size};

/// How much is gathered before it is written.
const BATCH: usize = 1 << 20;
/// How long what is gathered waits at most when somebody reads the file meanwhile.
const SOON: Duration = Duration::from_millis(250);
/// How often progress is told at most.
const TELL: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What is known of the bytes of a part, beside it as JSON, so that a later process can go on with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Origin {
    /// Where they are from.
    pub(super) url: String,
    /// The file's ETag there.
    pub(super) etag: Option<String>,
    /// Its Last-Modified there.
    pub(super) modified: Option<String>,
    /// Its size there.
    pub(super) total: Option<u64>,
    /// The SHA-256 of a finished file that has no checksum: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<String>,
}

impl Origin {
    fn of(url: &str, headers: &HeaderMap, total: Option<u64>) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self { url: url.to_owned(), etag: text(ETAG), modified: text(LAST_MODIFIED), total, bytes: None }
    }

    /// What proves to the server that we mean the same bytes: a weak ETag does not.
    fn validator(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        strong.or(self.modified.as_deref())
    }

    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), MediaError> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        std::fs::write(path, text).map_err(MediaError::file(path, "written"))
    }
}

/// What came of a transfer.
#[derive(Debug)]
pub(super) struct Got {
    /// The digest of the whole, where one was asked for.
    pub(super) hex: Option<String>,
    /// In bytes.
    pub(super) size: u64,
    /// What the server said of it.
    pub(super) origin: Origin,
    /// Whether some of it was here before, or nothing but the checksum can tell that all of it is of one file.
    mixed: bool,
}

/// Why an attempt ended.
enum Broke {
    /// Trying again may help.
    Again(MediaError),
    /// It won't.
    Final(MediaError),
    /// The server has nothing newer than what is known.
    Unchanged,
}

/// What a conditional request came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is here.
    Got(Got),
    /// What is known is still what the server has.
    Unchanged,
}

/// A download into a file.
pub(super) struct Transfer<'a> {
    pub(super) client: &'a Client,
    pub(super) patience: &'a Patience,
    pub(super) watch: &'a dyn Watch,
    /// The file's name, for people.
    pub(super) name: &'a str,
    /// Where the bytes are gathered.
    pub(super) part: PathBuf,
    /// The digest that is made on the way, and what it should be.
    pub(super) digest: Option<(Algorithm, &'a str)>,
    /// Who reads the file meanwhile; of one that is proved on the way only.
    pub(super) growth: Option<&'a Growth>,
    /// What is here already of an earlier download; asks for something newer only.
    pub(super) known: Option<Origin>,
    /// Held until the last byte is written, also when nobody waits for it any more.
    pub(super) lock: Arc<File>,
}

impl Transfer<'_> {
    /// Downloads from the first mirror that has it. May be dropped: the next one goes on with what is here.
    pub(super) async fn run(&self, urls: &[String]) -> Result<Outcome, MediaError> {
        let mut failures = Vec::new();
        for url in urls {
            let result = match self.proved(url).await {
                Err((error, true)) => {
                    self.watch.warn(&format!(
                        "what was here of {} did not fit: once more from the start ({error})",
                        self.name
                    ));
                    self.proved(url).await
                }
                other => other,
            };
            match result {
                Ok(outcome) => return Ok(outcome),
                Err((error, _)) if error.is_of_this_machine() || urls.len() == 1 => return Err(error),
                Err((error, _)) => {
                    self.watch.warn(&format!("{error}; asking the next mirror"));
                    failures.push(error.to_string());
                }
            }
        }
        Err(MediaError::Mirrors { name: self.name.to_owned(), failures })
    }

    /// Downloads from a mirror and compares; tells with an error whether it may be the fault of what was here before.
    async fn proved(&self, url: &str) -> Result<Outcome, (MediaError, bool)> {
        let got = match self.from(url).await.map_err(|error| (error, false))? {
            Outcome::Got(got) => got,
            Outcome::Unchanged => return Ok(Outcome::Unchanged),
        };
        match (&self.digest, &got.hex) {
            (Some((algorithm, expected)), Some(found)) if found != expected => {
                self.discard();
                let error = MediaError::Mismatch {
                    what: shown(url),
                    algorithm: algorithm.name(),
                    expected: (*expected).to_owned(),
                    found: found.clone(),
                };
                Err((error, got.mixed))
            }
            _ => Ok(Outcome::Got(got)),
        }
    }

    pub(super) fn notes(&self) -> PathBuf {
        notes_of(&self.part)
    }

    fn discard(&self) {
        if let Some(growth) = self.growth {
            growth.begin_again();
        }
        for path in [&self.part, &self.notes()] {
            // What stays is compared again by the next one.
            let _gone_already = std::fs::remove_file(path);
        }
    }

    async fn from(&self, url: &str) -> Result<Outcome, MediaError> {
        let mut origin = Origin::read(&self.notes()).unwrap_or_default();
        let mut sink = self.sink().await?;
        let mut state = State { mixed: sink.have > 0, last_told: None };
        let (mut best, mut still) = (sink.have, 0);
        loop {
            let broke = match self.attempt(url, &mut sink, &mut origin, &mut state).await {
                Ok(()) => break,
                Err(Broke::Unchanged) => return Ok(Outcome::Unchanged),
                Err(Broke::Final(error)) => return Err(error),
                Err(Broke::Again(error)) => error,
            };
            sink.settled().await.map_err(|error| self.write_error(error, &origin, sink.have))?;
            if sink.have > best {
                (best, still) = (sink.have, 0);
            }
            still += 1;
            if still >= self.patience.tries {
                return Err(broke);
            }
            let pause = self.patience.pause.saturating_mul(1 << (still - 1).min(8)).min(LONGEST_PAUSE);
            self.watch.doing(&format!("{}: {broke}; trying again", self.name));
            tokio::time::sleep(pause).await;
        }
        let size = sink.have;
        self.watch.progress(self.name, size, Some(size));
        let hex = sink
            .finished(self.digest.map(|(_, hex)| hex))
            .await
            .map_err(|error| self.write_error(error, &origin, size))?;
        Ok(Outcome::Got(Got { hex, size, origin, mixed: state.mixed }))
    }

    fn write_error(&self, error: io::Error, origin: &Origin, have: u64) -> MediaError {
        if error.kind() == io::ErrorKind::StorageFull || error.kind() == io::ErrorKind::QuotaExceeded {
            let needed = origin.total.map_or(1, |total| total.saturating_sub(have));
            return self.no_space(needed, 0);
        }
        MediaError::File { path: self.part.clone(), verb: "written", source: error }
    }

    fn no_space(&self, needed: u64, free: u64) -> MediaError {
        let folder = self.part.parent().unwrap_or(Path::new(".")).to_owned();
        MediaError::NoSpace { name: self.name.to_owned(), folder, needed, free }
    }

    /// Opens the part; what is in it is hashed first.
    async fn sink(&self) -> Result<Sink, MediaError> {
        let (path, lock) = (self.part.clone(), Arc::clone(&self.lock));
        let algorithm = self.digest.map(|(algorithm, _)| algorithm);
        Sink::open(path, algorithm, lock, self.growth.cloned()).await
    }

    async fn attempt(
        &self,
        url: &str,
        sink: &mut Sink,
        origin: &mut Origin,
        state: &mut State,
    ) -> Result<(), Broke> {
        let mut request = self.client.get(url).header(ACCEPT_ENCODING, "identity");
        let validator = origin.validator().filter(|_| origin.url == url);
        // Without a proof that the bytes are the same only the checksum can tell.
        let resumes = sink.have > 0 && (validator.is_some() || self.digest.is_some());
        if resumes {
            request = request.header(RANGE, format!("bytes={}-", sink.have));
            if let Some(validator) = validator {
                request = request.header(IF_RANGE, validator);
            }
        } else if let Some(known) = self.known.as_ref().filter(|known| known.url == url) {
            if let Some(etag) = &known.etag {
                request = request.header(IF_NONE_MATCH, etag);
            } else if let Some(modified) = &known.modified {
                request = request.header(IF_MODIFIED_SINCE, modified);
            }
        }
        let response = match tokio::time::timeout(self.patience.stall, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let words = broken(url, &error);
                let hopeless = matches!(words, MediaError::Untrusted { .. })
                    || error.is_redirect()
                    || error.is_builder();
                return Err(if hopeless { Broke::Final(words) } else { Broke::Again(words) });
            }
            Err(_elapsed) => return Err(Broke::Again(self.stalled(url, sink.have))),
        };
        let status = response.status();
        as_it_is(url, response.headers()).map_err(Broke::Final)?;
        let total = match status {
            StatusCode::PARTIAL_CONTENT if resumes => {
                let (first, total) = content_range(response.headers()).unwrap_or_default();
                let promised = total.or_else(|| length(&response).map(|rest| sink.have + rest));
                let moved = first.is_some_and(|first| first != sink.have);
                let another = origin.total.is_some() && promised.is_some() && origin.total != promised;
                if moved || another {
                    self.restart(sink).await?;
                    let words = "the file is another one than before".to_owned();
                    return Err(Broke::Again(MediaError::Unreachable { url: shown(url), detail: words }));
                }
                state.mixed |= validator.is_none();
                promised
            }
            StatusCode::RANGE_NOT_SATISFIABLE if resumes => {
                let total = content_range(response.headers()).and_then(|(_, total)| total);
                if total == Some(sink.have) {
                    return Ok(());
                }
                self.restart(sink).await?;
                return Err(Broke::Again(refused(url, status)));
            }
            StatusCode::NOT_MODIFIED if !resumes && self.known.is_some() => return Err(Broke::Unchanged),
            StatusCode::OK => {
                self.restart(sink).await?;
                state.mixed = false;
                length(&response)
            }
            status => {
                let passes = status.is_server_error()
                    || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
                let error = refused(url, status);
                return Err(if passes { Broke::Again(error) } else { Broke::Final(error) });
            }
        };
        *origin = Origin::of(url, response.headers(), total);
        origin.write(&self.notes()).map_err(Broke::Final)?;
        let needed = total.map_or(0, |total| total.saturating_sub(sink.have));
        if let Some(free) = free_bytes(&self.part).filter(|free| *free < needed) {
            return Err(Broke::Final(self.no_space(needed, free)));
        }
        if let (Some(growth), Some(total)) = (self.growth, total) {
            growth.begin(&sink.reader, total);
            growth.reach(sink.have);
        }
        let of = total.map_or_else(String::new, |total| format!(" ({})", size(total)));
        let from = if sink.have > 0 { format!(", going on at {}", size(sink.have)) } else { String::new() };
        self.watch.doing(&format!("downloading {}{of}{from}", shown(url)));
        self.stream(url, response, sink, total, state).await
    }

    async fn stream(
        &self,
        url: &str,
        mut response: Response,
        sink: &mut Sink,
        total: Option<u64>,
        state: &mut State,
    ) -> Result<(), Broke> {
        let failed =
            |error, have| Broke::Final(self.write_error(error, &Origin { total, ..Origin::default() }, have));
        loop {
            let mut next = std::pin::pin!(tokio::time::timeout(self.patience.stall, response.chunk()));
            let next = loop {
                tokio::select! {
                    next = &mut next => break next,
                    () = sink.due() => {
                        let have = sink.have;
                        sink.write().await.map_err(|error| failed(error, have))?;
                    }
                }
            };
            let piece = match next {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    return Err(Broke::Again(match total {
                        Some(total) => MediaError::Truncated { url: shown(url), done: sink.have, total },
                        None => broken(url, &error),
                    }));
                }
                Err(_elapsed) => return Err(Broke::Again(self.stalled(url, sink.have))),
            };
            let have = sink.have;
            sink.take(piece).await.map_err(|error| failed(error, have))?;
            if state.last_told.is_none_or(|told| told.elapsed() >= TELL) {
                state.last_told = Some(Instant::now());
                self.watch.progress(self.name, sink.have, total);
            }
        }
        match total {
            Some(total) if sink.have != total => {
                Err(Broke::Again(MediaError::Truncated { url: shown(url), done: sink.have, total }))
            }
            _ => Ok(()),
        }
    }

    async fn restart(&self, sink: &mut Sink) -> Result<(), Broke> {
        let written = sink.restart().await;
        written.map_err(|error| Broke::Final(self.write_error(error, &Origin::default(), 0)))
    }

    fn stalled(&self, url: &str, done: u64) -> MediaError {
        MediaError::Stalled { url: shown(url), seconds: self.patience.stall.as_secs(), done }
    }
}

/// What one call of [`Transfer::from`] knows beside the bytes.
struct State {
    mixed: bool,
    last_told: Option<Instant>,
}

/// Where the notes on a part are.
pub(super) fn notes_of(part: &Path) -> PathBuf {
    let mut name = part.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

/// What is free for us on the disk of a file.
fn free_bytes(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path.parent()?).ok()?;
    stat.blocks_available().checked_mul(stat.fragment_size())
}

/// The file that is being written, and its digest so far. Two batches are in memory at most: one that is gathered and one
/// that is being written.
struct Sink {
    /// Bytes that came, written or not.
    have: u64,
    batch: Vec<Bytes>,
    gathered: usize,
    /// Since when something is gathered.
    since: Option<Instant>,
    writer: Writer,
    /// The file, for those who read it meanwhile.
    reader: Arc<File>,
    growth: Option<Growth>,
}

enum Writer {
    Idle(Box<Disk>),
    Busy(tokio::task::JoinHandle<(Box<Disk>, io::Result<()>)>),
    /// It panicked.
    Lost,
}

/// What the blocking thread holds.
struct Disk {
    file: File,
    /// Bytes that are in it.
    written: u64,
    hasher: Option<Hasher>,
    algorithm: Option<Algorithm>,
    _lock: Arc<File>,
}

impl Sink {
    async fn open(
        path: PathBuf,
        algorithm: Option<Algorithm>,
        lock: Arc<File>,
        growth: Option<Growth>,
    ) -> Result<Self, MediaError> {
        let failed = MediaError::file(path.clone(), "opened");
        let stop = Stop::new();
        let token: Arc<AtomicBool> = Arc::clone(&stop.0);
        let work = tokio::task::spawn_blocking(move || {
            let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut hasher = algorithm.map(Hasher::new);
            let have = match &mut hasher {
                Some(hasher) => take_in(hasher, &file, &token)?,
                None => file.metadata()?.len(),
            };
            file.seek(SeekFrom::Start(have))?;
            let reader = Arc::new(file.try_clone()?);
            Ok((Disk { file, written: have, hasher, algorithm, _lock: lock }, reader))
        });
        let opened = work.await.map_err(io::Error::other).and_then(|opened| opened);
        drop(stop);
        let (disk, reader) = opened.map_err(failed)?;
        Ok(Self {
            have: disk.written,
            batch: Vec::new(),
            gathered: 0,
            since: None,
            writer: Writer::Idle(Box::new(disk)),
            reader,
            growth,
        })
    }

    /// Returns when what is gathered has waited long enough for somebody who reads the file meanwhile.
    async fn due(&self) {
        match self.since.filter(|_| self.growth.is_some()) {
            Some(since) => tokio::time::sleep_until((since + SOON).into()).await,
            None => std::future::pending().await,
        }
    }

    async fn take(&mut self, piece: Bytes) -> io::Result<()> {
        self.have += piece.len() as u64;
        self.gathered += piece.len();
        self.since.get_or_insert_with(Instant::now);
        self.batch.push(piece);
        if self.gathered >= BATCH { self.write().await } else { Ok(()) }
    }

    /// Waits for the batch before, then has the one that was gathered written.
    async fn write(&mut self) -> io::Result<()> {
        let mut disk = self.idle().await?;
        let batch = std::mem::take(&mut self.batch);
        self.gathered = 0;
        self.since = None;
        let growth = self.growth.clone();
        self.writer = Writer::Busy(tokio::task::spawn_blocking(move || {
            let written = batch.iter().try_for_each(|piece| {
                disk.file.write_all(piece)?;
                disk.written += piece.len() as u64;
                if let Some(hasher) = &mut disk.hasher {
                    hasher.update(piece);
                }
                Ok(())
            });
            if let (Some(growth), Ok(())) = (growth, &written) {
                growth.reach(disk.written);
            }
            (disk, written)
        }));
        Ok(())
    }

    async fn idle(&mut self) -> io::Result<Box<Disk>> {
        match std::mem::replace(&mut self.writer, Writer::Lost) {
            Writer::Idle(disk) => Ok(disk),
            Writer::Busy(work) => {
                let (disk, written) = work.await.map_err(io::Error::other)?;
                written.map(|()| disk)
            }
            Writer::Lost => Err(io::Error::other("an earlier write failed")),
        }
    }

    /// Waits until everything that came is in the file.
    async fn settled(&mut self) -> io::Result<()> {
        if self.gathered > 0 {
            self.write().await?;
        }
        let disk = self.idle().await?;
        self.writer = Writer::Idle(disk);
        Ok(())
    }

    /// Forgets everything.
    async fn restart(&mut self) -> io::Result<()> {
        self.settled().await?;
        if self.have == 0 {
            return Ok(());
        }
        if let Some(growth) = &self.growth {
            growth.begin_again();
        }
        let mut disk = self.idle().await?;
        disk.file.set_len(0)?;
        disk.file.seek(SeekFrom::Start(0))?;
        disk.written = 0;
        disk.hasher = disk.algorithm.map(Hasher::new);
        self.have = 0;
        self.writer = Writer::Idle(disk);
        Ok(())
    }

    /// Everything is on the disk; gives the digest. Who sends the file on is told of its proof before: a disk may take
    /// longer to write it down than a server waits for the last byte.
    async fn finished(mut self, expected: Option<&str>) -> io::Result<Option<String>> {
        self.settled().await?;
        let mut disk = self.idle().await?;
        let hex = disk.hasher.take().map(Hasher::finish);
        if let Some(growth) = self.growth.as_ref().filter(|_| hex.is_some() && hex.as_deref() == expected) {
            growth.prove();
        }
        tokio::task::spawn_blocking(move || disk.file.sync_all()).await.map_err(io::Error::other)??;
        Ok(hex)
    }
}
