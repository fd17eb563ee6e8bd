//! Sends files of this machine to a storage: whole ones, and those that are still being downloaded.
//!
//! ```text
//!  source ══► the cache's part, hashed ══► the upload's body      each at its own pace, the last byte once it is proved
//!      ╳ gone on with (Range)                ╳ waits; the server cuts a body that waits for 5 s
//!                                            └─► begun again when more is there, and from the whole file after that
//! ```
//!
//! An upload needs a Content-Length and can't be gone on with, so the cache stays in between: what broke is sent again from
//! there, the next build finds it, and builds for other nodes share the download. The server compares what it has received
//! with the digest before it gives it its name, and never has the last byte of what is not proved.

use std::path::Path;

use forge_machine::{Follower, Growth, PortError};

use super::Courier;
use crate::api::error::ApiError;
use crate::api::task::Upid;
use crate::api::transfer::Upload;

/// How often a whole file is sent before its failure counts.
const TRIES: usize = 3;
/// How often one is sent while it is downloaded, before that is waited for.
const FOLLOWED: usize = 2;

/// What a file becomes on a storage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'p> {
    pub(super) storage: &'p str,
    pub(super) content: &'p str,
    pub(super) name: &'p str,
    /// Algorithm and hexadecimal digits.
    pub(super) digest: (&'p str, &'p str),
}

impl Place<'_> {
    fn volume(&self) -> String {
        format!("{}:{}/{}", self.storage, self.content, self.name)
    }
}

impl Courier<'_> {
    /// Downloads what a URL names, and sends it meanwhile; after that, when it could not be.
    pub(super) async fn by_way_of_here(&self, url: &str, place: &Place<'_>) -> Result<(), PortError> {
        let growth = Growth::default();
        let follower = growth.follow();
        let fetched = async {
            let file = self.fetch.fetch(url, Some(&growth)).await;
            growth.end();
            file
        };
        // What is refused for good ends the download, whose part stays in the cache.
        match tokio::try_join!(fetched, self.follow(follower, place))? {
            (_, true) => Ok(()),
            (file, false) => self.send(&file, place, true).await,
        }
    }

    /// Sends a file while it grows; whether it arrived.
    async fn follow(&self, mut follower: Follower, place: &Place<'_>) -> Result<bool, PortError> {
        let volume = place.volume();
        for _ in 0..FOLLOWED {
            let Some(pass) = follower.pass().await else { return Ok(false) };
            self.fetch.tell(&format!("sending {volume} while it is downloaded"));
            // While it is downloaded, that is the progress that is told.
            let progress = |sent: u64, size: u64| {
                if follower.is_proved() {
                    self.tell_percent(&volume, sent, size);
                }
            };
            let upload = self.upload(Path::new(place.name), place);
            match self.settled(self.client.upload_growing(&upload, pass, &progress)).await {
                Ok(()) => return Ok(true),
                Err(ApiError::Unanswered { .. } | ApiError::Unreachable { .. }) => {
                    if self.arrived(place).await? {
                        return Ok(true);
                    }
                    follower.broken();
                    self.fetch.tell(&format!("sending {volume} broke off; the download goes on"));
                }
                Err(error) => return Err(error.at(&format!("send {volume}"))),
            }
        }
        Ok(false)
    }

    /// Sends a whole file.
    pub(super) async fn send(&self, file: &Path, place: &Place<'_>, proved: bool) -> Result<(), PortError> {
        let volume = place.volume();
        let upload = Upload { proved, ..self.upload(file, place) };
        let progress = |sent: u64, size: u64| self.tell_percent(&volume, sent, size);
        for attempt in 1..=TRIES {
            match self.settled(self.client.upload(&upload, &progress)).await {
                Ok(()) => return Ok(()),
                // A broken transfer leaves nothing, unless only its answer was lost.
                Err(error @ (ApiError::Unanswered { .. } | ApiError::Unreachable { .. })) => {
                    if self.arrived(place).await? {
                        return Ok(());
                    }
                    if attempt == TRIES {
                        return Err(error.at(&format!("send {} to {volume}", file.display())));
                    }
                    self.fetch.tell(&format!("sending {volume} broke off; once more"));
                }
                Err(error) => return Err(error.at(&format!("send {} to {volume}", file.display()))),
            }
        }
        Ok(())
    }

    fn upload<'u>(&'u self, file: &'u Path, place: &Place<'u>) -> Upload<'u> {
        let Place { storage, content, name, digest } = *place;
        Upload { node: self.node, storage, content, name, file, digest: Some(digest), proved: true }
    }

    /// An upload, and the task that puts what was sent in its place.
    async fn settled(
        &self,
        upload: impl Future<Output = Result<Option<Upid>, ApiError>>,
    ) -> Result<(), ApiError> {
        match upload.await? {
            Some(upid) => self.client.wait_task(&upid).await,
            None => Ok(()),
        }
    }

    /// Whether a file is there of which no answer came, and is what its digest says.
    async fn arrived(&self, place: &Place<'_>) -> Result<bool, PortError> {
        let Place { storage, content, name, digest } = *place;
        Ok(self.find(storage, content, &place.volume()).await?.is_some()
            && self.compare(storage, content, name, digest).await.is_ok())
    }

    fn tell_percent(&self, volume: &str, sent: u64, size: u64) {
        let percent = (sent * 100).checked_div(size).unwrap_or(100);
        self.fetch.tell(&format!("sending {volume}: {percent} % of {} MiB", size >> 20));
    }
}
