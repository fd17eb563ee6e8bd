//! The folder of media, and how a medium comes into it.
//!
//! ```text
//!  sha256-<digest>            a medium; named after its bytes were compared, never written again
//!  sha256-<digest>.part       one that is being downloaded, with .part.json: where from
//!  sha256-<digest>.lock       held by who downloads it
//!  url-<digest of the URL>-<digest>   one without a checksum, by its own bytes; likewise never written again
//!  url-<digest of the URL>.json       which of them is the newest, and what the server said of it
//!  sums-<digest of the URL>   a publisher's file of sums, for when it can't be asked
//! ```
//!
//! Anything in it may be removed while no build runs; it is downloaded again when it is needed. What is replaced by a
//! newer one stays, since the overlays of builds that run or were kept lie on it.

use std::fs::{File, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forge_machine::{Algorithm, Checksum, Growth, Location, Medium};
use reqwest::Client;
use sha2::{Digest as _, Sha256};

use super::error::MediaError;
use super::http::{self, Patience};
use super::transfer::{Origin, Outcome, Transfer, notes_of};
use super::{Watch, digest, shown, size, sums};

/// How often a lock is tried.
const LOOK: Duration = Duration::from_millis(100);
/// How large a file of sums may be.
const SUMS_LIMIT: usize = 8 << 20;

/// How a medium came to be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It was downloaded.
    Downloaded,
    /// It was in the cache.
    Cached,
    /// It is a file of this machine.
    Local,
}

/// A medium that is on this machine, proved by its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brought {
    /// Where it is.
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
    /// How it came.
    pub how: How,
}

/// The media of this machine. Cheap to clone; opens and sends nothing until something is asked for.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    patience: Patience,
    client: Arc<OnceLock<Client>>,
}

impl Store {
    /// The store in a folder, which is made when it is needed.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, patience: Patience::default(), client: Arc::default() }
    }

    /// The same with another patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, client: Arc::default(), ..self }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn client(&self) -> Result<&Client, MediaError> {
        if self.client.get().is_none() {
            let client = http::client(&self.patience)?;
            // Another task may have been faster: then its client is taken.
            let _already_set = self.client.set(client);
        }
        self.client.get().ok_or_else(|| MediaError::Setup("no client".into()))
    }

    /// The file of the cache that should hold a medium of the web, when it is there. Nothing is compared.
    #[must_use]
    pub fn held(&self, medium: &Medium) -> Option<PathBuf> {
        let url = http::url_of(&medium.location)?;
        match &medium.checksum {
            Checksum::Digest { algorithm, hex } => {
                Some(self.folder.join(format!("{}-{hex}", algorithm.name()))).filter(|path| path.is_file())
            }
            Checksum::None | Checksum::File(_) => self.newest(url).map(|(path, _)| path),
        }
    }

    /// What all files of a URL without a checksum begin with.
    fn stem(&self, url: &str) -> PathBuf {
        self.folder.join(format!("url-{}", name_of(url)))
    }

    /// The newest file of a URL without a checksum, when it is there, and what the server said of it.
    fn newest(&self, url: &str) -> Option<(PathBuf, Origin)> {
        let stem = self.stem(url);
        let origin = Origin::read(&with_ending(&stem, "json"))?;
        Some((of_bytes(&stem, origin.bytes.as_deref()?), origin)).filter(|(path, _)| path.is_file())
    }

    /// The size of what a URL names, as its server tells it; `None` when it does not. May be dropped.
    ///
    /// # Errors
    /// When it can't be asked, within [`Patience::probe`].
    pub async fn probe(&self, url: &str) -> Result<Option<u64>, MediaError> {
        http::probe(self.client()?, url, self.patience.probe).await
    }

    /// A medium on this machine, compared with its checksum: also when it was here already. `mirrors` are further URLs
    /// of the same file. May be dropped: what was downloaded so far is gone on with.
    ///
    /// # Errors
    /// When it can't be had, or is not what its checksum says.
    pub async fn bring(
        &self,
        medium: &Medium,
        mirrors: &[String],
        watch: &dyn Watch,
    ) -> Result<Brought, MediaError> {
        self.bring_growing(medium, mirrors, None, watch).await
    }

    /// The same, and a download that a checksum proves is told to `growth`, for who reads the file meanwhile. May be
    /// dropped.
    ///
    /// # Errors
    /// See [`Self::bring`].
    pub async fn bring_growing(
        &self,
        medium: &Medium,
        mirrors: &[String],
        growth: Option<&Growth>,
        watch: &dyn Watch,
    ) -> Result<Brought, MediaError> {
        let proved;
        let medium = match &medium.checksum {
            Checksum::File(place) => {
                let checksum = self.sum(place, &medium.location.to_string(), watch).await?;
                proved = Medium { location: medium.location.clone(), checksum };
                &proved
            }
            _ => medium,
        };
        let name = medium.file_name();
        match (&medium.location, &medium.checksum) {
            (Location::Volume(volume), _) => Err(MediaError::Elsewhere { what: volume.clone() }),
            (Location::File(path), Checksum::Digest { algorithm, hex }) => {
                watch.doing(&format!("comparing {} with its checksum", path.display()));
                let (found, size) = digest_of(path, *algorithm).await?;
                if found != *hex {
                    return Err(mismatch(path.display().to_string(), *algorithm, hex, found));
                }
                Ok(Brought { path: path.clone(), size, how: How::Local })
            }
            (Location::File(path), _) => {
                let metadata = std::fs::metadata(path).map_err(MediaError::file(path, "read"))?;
                Ok(Brought { path: path.clone(), size: metadata.len(), how: How::Local })
            }
            (Location::Url(url), Checksum::Digest { algorithm, hex }) => {
                let urls: Vec<String> = std::iter::once(url).chain(mirrors).cloned().collect();
                self.bring_proved(&urls, &name, (*algorithm, hex), growth, watch).await
            }
            (Location::Url(url), _) => self.bring_newest(url, mirrors, &name, watch).await,
        }
    }

    async fn bring_proved(
        &self,
        urls: &[String],
        name: &str,
        (algorithm, hex): (Algorithm, &str),
        growth: Option<&Growth>,
        watch: &dyn Watch,
    ) -> Result<Brought, MediaError> {
        let place = self.folder.join(format!("{}-{hex}", algorithm.name()));
        if let Some(brought) = self.compared(&place, name, (algorithm, hex), watch).await? {
            return Ok(brought);
        }
        let lock = self.lock(&place, name, watch).await?;
        // Whoever held the lock may have brought it.
        if let Some(brought) = self.compared(&place, name, (algorithm, hex), watch).await? {
            return Ok(brought);
        }
        // What did not fit is only removed under the lock: nobody else is putting a new one there.
        if place.exists() {
            watch.warn(&format!(
                "{name} in the cache ({}) was damaged: downloading it again",
                place.display()
            ));
            std::fs::remove_file(&place).map_err(MediaError::file(&place, "removed"))?;
        }
        let transfer = Transfer {
            client: self.client()?,
            patience: &self.patience,
            watch,
            name,
            part: with_ending(&place, "part"),
            digest: Some((algorithm, hex)),
            growth,
            known: None,
            lock: Arc::new(lock),
        };
        match transfer.run(urls).await? {
            Outcome::Got(got) => {
                self.keep(&transfer.part, &place)?;
                Ok(Brought { path: place, size: got.size, how: How::Downloaded })
            }
            Outcome::Unchanged => Err(MediaError::Setup("an unconditional request was answered 304".into())),
        }
    }

    /// A file of the cache that has its digest.
    async fn compared(
        &self,
        place: &Path,
        name: &str,
        (algorithm, hex): (Algorithm, &str),
        watch: &dyn Watch,
    ) -> Result<Option<Brought>, MediaError> {
        if !place.is_file() {
            return Ok(None);
        }
        watch.doing(&format!("{name} is in the cache: comparing it with its checksum"));
        let (found, size) = digest_of(place, algorithm).await?;
        Ok((found == hex).then(|| Brought { path: place.to_owned(), size, how: How::Cached }))
    }

    /// A medium without a checksum: the newest that its server has.
    async fn bring_newest(
        &self,
        url: &str,
        mirrors: &[String],
        name: &str,
        watch: &dyn Watch,
    ) -> Result<Brought, MediaError> {
        let stem = self.stem(url);
        let lock = self.lock(&stem, name, watch).await?;
        let (held, known) = self.newest(url).unzip();
        let transfer = Transfer {
            client: self.client()?,
            patience: &self.patience,
            watch,
            name,
            part: with_ending(&stem, "part"),
            digest: None,
            growth: None,
            known,
            lock: Arc::new(lock),
        };
        let urls: Vec<String> =
            std::iter::once(url).chain(mirrors.iter().map(String::as_str)).map(str::to_owned).collect();
        match (transfer.run(&urls).await?, held) {
            (Outcome::Unchanged, Some(place)) => {
                let size = std::fs::metadata(&place).map_err(MediaError::file(&place, "read"))?.len();
                Ok(Brought { path: place, size, how: How::Cached })
            }
            (Outcome::Unchanged, None) => {
                Err(MediaError::Setup("an unconditional request was answered 304".into()))
            }
            (Outcome::Got(got), _) => {
                watch.doing(&format!("{name} has no checksum: reading it, to name it by its bytes"));
                let (hex, size) = digest_of(&transfer.part, Algorithm::Sha256).await?;
                let place = of_bytes(&stem, &hex);
                // The same bytes may be in use by now, and need not be put there again.
                if self.compared(&place, name, (Algorithm::Sha256, &hex), watch).await?.is_some() {
                    std::fs::remove_file(&transfer.part)
                        .map_err(MediaError::file(&transfer.part, "removed"))?;
                    let _not_there = std::fs::remove_file(notes_of(&transfer.part));
                } else {
                    self.keep(&transfer.part, &place)?;
                }
                Origin { bytes: Some(hex), ..got.origin }.write(&with_ending(&stem, "json"))?;
                Ok(Brought { path: place, size, how: How::Downloaded })
            }
        }
    }

    /// Gives a finished part its name.
    fn keep(&self, part: &Path, place: &Path) -> Result<(), MediaError> {
        // Builds lay overlays over it: nobody may write to it.
        std::fs::set_permissions(part, Permissions::from_mode(0o444))
            .map_err(MediaError::file(part, "kept"))?;
        std::fs::rename(part, place).map_err(MediaError::file(place, "named"))?;
        let _not_there = std::fs::remove_file(notes_of(part));
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(MediaError::file(&self.folder, "written"))
    }

    /// Waits for the turn to download a file: of all tasks and processes that share the folder one has it.
    async fn lock(&self, place: &Path, name: &str, watch: &dyn Watch) -> Result<File, MediaError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(MediaError::file(&self.folder, "made"))?;
        let path = with_ending(place, "lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(MediaError::file(&path, "opened"))?;
        let part = with_ending(place, "part");
        let mut seen = None;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    let here = std::fs::metadata(&part).map_or(0, |metadata| metadata.len());
                    // Told when it moves by 64 MiB: this is another build's progress.
                    if seen.is_none_or(|seen| here >> 26 != seen >> 26) {
                        seen = Some(here);
                        watch.doing(&format!(
                            "another build downloads {name}: waiting for it, {} are here",
                            size(here)
                        ));
                    }
                }
                Err(TryLockError::Error(error)) => {
                    return Err(MediaError::File { path, verb: "locked", source: error });
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The checksum of a file in a publisher's file of sums: of the web, or of this machine. When it can't be asked, what
    /// it said last time counts, with a warning. May be dropped.
    ///
    /// # Errors
    /// When it can't be had, or does not name the file.
    pub async fn sum(&self, place: &str, wanted: &str, watch: &dyn Watch) -> Result<Checksum, MediaError> {
        if !place.starts_with("http://") && !place.starts_with("https://") {
            let text = std::fs::read(place).map_err(MediaError::file(place, "read"))?;
            return sums::find(&String::from_utf8_lossy(&text), place, wanted);
        }
        let copy = self.folder.join(format!("sums-{}", name_of(place)));
        let text = match self.text(place).await {
            Ok(text) => {
                let kept = std::fs::create_dir_all(&self.folder).and_then(|()| std::fs::write(&copy, &text));
                if let Err(error) = kept {
                    tracing::debug!(%error, "the file of sums is not kept");
                }
                text
            }
            Err(error) => match std::fs::read(&copy) {
                Ok(text) => {
                    watch.warn(&format!("{error}; the copy of it in the cache is taken"));
                    text
                }
                Err(_none) => return Err(error),
            },
        };
        sums::find(&String::from_utf8_lossy(&text), &shown(place), wanted)
    }

    async fn text(&self, url: &str) -> Result<Vec<u8>, MediaError> {
        let limit = self.patience.stall;
        let stalled = || MediaError::Stalled { url: shown(url), seconds: limit.as_secs(), done: 0 };
        let read = async {
            let request = self.client()?.get(url).header(reqwest::header::ACCEPT_ENCODING, "identity");
            let mut response = request.send().await.map_err(|error| http::broken(url, &error))?;
            if !response.status().is_success() {
                return Err(http::refused(url, response.status()));
            }
            http::as_it_is(url, response.headers())?;
            let mut text = Vec::new();
            while let Some(piece) = response.chunk().await.map_err(|error| http::broken(url, &error))? {
                text.extend_from_slice(&piece);
                if text.len() > SUMS_LIMIT {
                    let detail =
                        format!("it is larger than {}, so it is no file of sums", size(SUMS_LIMIT as u64));
                    return Err(MediaError::Unreachable { url: shown(url), detail });
                }
            }
            Ok(text)
        };
        tokio::time::timeout(limit, read).await.map_err(|_elapsed| stalled())?
    }
}

fn mismatch(what: String, algorithm: Algorithm, expected: &str, found: String) -> MediaError {
    MediaError::Mismatch { what, algorithm: algorithm.name(), expected: expected.to_owned(), found }
}

async fn digest_of(path: &Path, algorithm: Algorithm) -> Result<(String, u64), MediaError> {
    digest::of_file(path, algorithm).await.map_err(MediaError::file(path, "read"))
}

/// A URL as the name of a file.
fn name_of(url: &str) -> String {
    Sha256::digest(url).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The file of a URL's stem that holds the bytes with a SHA-256.
fn of_bytes(stem: &Path, hex: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push("-");
    name.push(hex);
    PathBuf::from(name)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}
