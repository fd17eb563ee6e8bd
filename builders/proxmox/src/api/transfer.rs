//! Files on their way to a storage: a streamed upload, a download by the node itself, and what a storage holds.
//!
//! pveproxy reads an upload in one way only (pve-http-server `AnyEvent.pm`, observed on PVE 9.2): a Content-Length, the
//! fields `content`, `checksum-algorithm`, `checksum` and the file in this order, an unquoted boundary. It cuts a body
//! that stands still for 5 s, keeps it in /var/tmp and copies it from there, and overwrites a file of that name.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forge_machine::growth::{Lost, Pass};
use futures_util::stream;
use http::{HeaderValue, header};
use serde::Deserialize;
use sha2::{Digest as _, Sha256, Sha512};
use tokio::sync::mpsc;

use crate::api::client::{Client, Reply};
use crate::api::encode::{Params, path};
use crate::api::error::{ApiError, Intent};
use crate::api::limits::in_words;
use crate::api::task::Upid;
use crate::api::types::number;

/// How much is read at a time; a few of these are all that is in memory. It is still in the processor's cache when it has been
/// hashed and is sent.
const PIECE: usize = 256 << 10;
/// The same of a file that is still being downloaded, each piece of which is fetched by a task of its own.
const FOLLOWED: usize = 1 << 20;
/// How many pieces may wait between disk and network.
const PIECES: usize = 8;
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(500);
const BOUNDARY: &str = "forge-7c1e9a4b2f8d4c6e9b0a5d3f1e2c4b6a";

/// A file that a storage holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Volume {
    /// `local:iso/debian.iso`.
    pub volid: String,
    /// Its size in bytes.
    #[serde(default, deserialize_with = "number")]
    pub size: u64,
}

/// A file of this machine for a storage.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'a> {
    /// The node that takes it.
    pub node: &'a str,
    /// The storage.
    pub storage: &'a str,
    /// `iso` or `import`.
    pub content: &'a str,
    /// Its name there.
    pub name: &'a str,
    /// Where it is here.
    pub file: &'a Path,
    /// Algorithm and digest, by which the server checks what has arrived.
    pub digest: Option<(&'a str, &'a str)>,
    /// Whether its bytes were just compared with that digest here: they are not hashed once more on the way then.
    pub proved: bool,
}

impl Upload<'_> {
    /// Its path, and what it is called when something is said of it.
    fn request(&self) -> (String, String) {
        let path = path(&["nodes", self.node, "storage", self.storage, "upload"]);
        let request = format!("POST {path}");
        (path, request)
    }
}

/// A digest that is made on the way. Only what the server trusts an ISO by is computed here too; the others it checks
/// alone.
enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
    None,
}

impl Hasher {
    fn new(algorithm: Option<&str>) -> Self {
        match algorithm {
            Some("sha256") => Self::Sha256(Sha256::new()),
            Some("sha512") => Self::Sha512(Sha512::new()),
            _ => Self::None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
            Self::None => {}
        }
    }

    fn finish(self) -> Option<String> {
        match self {
            Self::Sha256(hasher) => Some(hex(&hasher.finalize())),
            Self::Sha512(hasher) => Some(hex(&hasher.finalize())),
            Self::None => None,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of a file, in hexadecimal digits. Reads it once, in small pieces.
///
/// # Errors
/// When it can't be read.
pub async fn sha256_of(file: &Path) -> std::io::Result<String> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut reader = std::fs::File::open(file)?;
        let mut hasher = Sha256::new();
        let mut piece = vec![0; PIECE];
        loop {
            match std::io::Read::read(&mut reader, &mut piece)? {
                0 => break,
                read => hasher.update(piece.get(..read).unwrap_or_default()),
            }
        }
        Ok(hex(&hasher.finalize()))
    })
    .await
    .map_err(std::io::Error::other)?
}

impl Client {
    /// What a storage of a node holds of one content type. May be dropped.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn volumes(&self, node: &str, storage: &str, content: &str) -> Result<Vec<Volume>, ApiError> {
        let path = path(&["nodes", node, "storage", storage, "content"]);
        let query = if content.is_empty() { Params::new() } else { Params::new().with("content", content) };
        self.get(&path, &query).await
    }

    /// Lets the node download a file, or check the one of that name that it has: with a digest a file that is there is
    /// compared and never replaced. May be dropped: the node goes on.
    ///
    /// # Errors
    /// See [`ApiError`]; a digest that does not fit is a task's failure.
    pub async fn download_url(
        &self,
        node: &str,
        storage: &str,
        content: &str,
        name: &str,
        url: &str,
        digest: Option<(&str, &str)>,
    ) -> Result<Option<Upid>, ApiError> {
        let mut body = Params::new().with("content", content).with("filename", name).with("url", url);
        if let Some((algorithm, hex)) = digest {
            body.set("checksum-algorithm", algorithm);
            body.set("checksum", hex);
        }
        let reply = self.post(&path(&["nodes", node, "storage", storage, "download-url"]), &body).await?;
        Ok(reply.data.as_str().and_then(Upid::parse))
    }

    /// Sends an ISO that is small and in memory to a storage, over one of that name; the task that is answered puts it
    /// in its place. May be dropped: the server then throws away what it has.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn upload_bytes(
        &self,
        node: &str,
        storage: &str,
        name: &str,
        bytes: &[u8],
    ) -> Result<Option<Upid>, ApiError> {
        let digest = hex(&Sha256::digest(bytes));
        let digest = Some(("sha256", digest.as_str()));
        let upload =
            Upload { node, storage, content: "iso", name, file: Path::new(name), digest, proved: true };
        let mut body = head(&upload).into_bytes();
        body.extend_from_slice(bytes);
        body.extend_from_slice(tail().as_bytes());
        let (path, request) = upload.request();
        let builder = self.request_to(http::Method::POST, &path).await?;
        let builder = builder.header(header::CONTENT_TYPE, form_data()).body(body);
        let reply = self.answer_to(builder, &request, Intent::Write).await?;
        Ok(reply.data.as_str().and_then(Upid::parse))
    }

    /// Sends a file of this machine to a storage; the task that is answered puts it in its place. Memory stays the same
    /// whatever its size. `progress` is told the bytes that were sent and their number. May be dropped: the server then
    /// throws away what it has.
    ///
    /// # Errors
    /// When the file can't be read or changes meanwhile, the digest does not fit, the transfer stands still, or the
    /// server refuses it.
    pub async fn upload(
        &self,
        upload: &Upload<'_>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Option<Upid>, ApiError> {
        let local = |error: std::io::Error| ApiError::Refused {
            request: upload.request().1,
            detail: format!("{}: {error}", upload.file.display()),
        };
        let file = std::fs::File::open(upload.file).map_err(local)?;
        let size = file.metadata().map_err(local)?.len();
        let sent = Arc::new(AtomicU64::new(0));
        let unproved = upload.digest.filter(|_| !upload.proved);
        let (pieces, read) = read_in_pieces(file, size, unproved, Arc::clone(&sent));
        let outcome = self.send_pieces(upload, size, pieces, &sent, progress).await;
        // What was wrong with the file on the way explains a broken transfer better than the transfer does.
        match (outcome, read.await) {
            (_, Ok(Err(detail))) => Err(ApiError::Refused {
                request: upload.request().1,
                detail: format!("{}: {detail}", upload.file.display()),
            }),
            (outcome, _) => outcome,
        }
    }

    /// The same of a file that is still being downloaded, hashed and proved by whoever does that: it waits for the bytes,
    /// and for the proof before the last one. May be dropped likewise.
    ///
    /// # Errors
    /// As [`Self::upload`]; a download that begins again or ends leaves the upload [`ApiError::Unanswered`].
    pub async fn upload_growing(
        &self,
        upload: &Upload<'_>,
        pass: Pass,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Option<Upid>, ApiError> {
        let size = pass.size();
        let sent = Arc::new(AtomicU64::new(0));
        self.send_pieces(upload, size, follow_in_pieces(pass, Arc::clone(&sent)), &sent, progress).await
    }

    async fn send_pieces(
        &self,
        upload: &Upload<'_>,
        size: u64,
        pieces: Pieces,
        sent: &AtomicU64,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Option<Upid>, ApiError> {
        let (path, request) = upload.request();
        let head = head(upload);
        let tail = tail();
        let length = head.len() as u64 + size + tail.len() as u64;
        let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from(head))]);
        let body = futures_util::StreamExt::chain(body, pieces);
        let body = futures_util::StreamExt::chain(body, stream::iter([Ok(Bytes::from(tail))]));
        let builder = self
            .request_to(http::Method::POST, &path)
            .await?
            .header(header::CONTENT_TYPE, form_data())
            .header(header::CONTENT_LENGTH, length)
            // The whole exchange lasts as long as the file is large; standing still is looked for below.
            .timeout(Duration::from_secs(7 * 24 * 3600))
            .body(reqwest::Body::wrap_stream(body));
        let answer = self.answer_to(builder, &request, Intent::Write);
        let limit = self.limits().still;
        let Reply { data, .. } = tokio::select! {
            answer = answer => answer,
            () = stands_still(sent, size, limit, progress) => Err(ApiError::Unanswered {
                detail: format!(
                    "nothing moved for {} after {} of {size} bytes",
                    in_words(limit),
                    sent.load(Ordering::Relaxed)
                ),
                request: request.clone(),
                source: None,
            }),
        }?;
        progress(size, size);
        Ok(data.as_str().and_then(Upid::parse))
    }
}

/// Returns when a transfer has not moved for too long.
async fn stands_still(
    sent: &AtomicU64,
    size: u64,
    limit: Duration,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) {
    let mut last = 0;
    let mut still = Duration::ZERO;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = sent.load(Ordering::Relaxed);
        if now == last {
            still += LOOK;
        } else {
            progress(now, size);
            (last, still) = (now, Duration::ZERO);
        }
        if still >= limit {
            return;
        }
    }
}

fn form_data() -> HeaderValue {
    HeaderValue::from_str(&format!("multipart/form-data; boundary={BOUNDARY}"))
        .unwrap_or(HeaderValue::from_static("multipart/form-data"))
}

fn tail() -> String {
    format!("\r\n--{BOUNDARY}--\r\n")
}

fn head(upload: &Upload<'_>) -> String {
    let mut fields = vec![("content", upload.content)];
    if let Some((algorithm, hex)) = upload.digest {
        fields.push(("checksum-algorithm", algorithm));
        fields.push(("checksum", hex));
    }
    let mut head = String::new();
    for (name, value) in fields {
        head.push_str(&format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        ));
    }
    head.push_str(&format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"{}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n",
        upload.name
    ));
    head
}

type Pieces = stream::BoxStream<'static, std::io::Result<Bytes>>;
type Read = tokio::task::JoinHandle<Result<(), String>>;

/// Reads exactly `size` bytes in a thread of its own, hashing them; the stream ends with an error when the file or its
/// digest is not what it should be, so that the server never has a whole body of it.
fn read_in_pieces(
    mut file: std::fs::File,
    size: u64,
    digest: Option<(&str, &str)>,
    sent: Arc<AtomicU64>,
) -> (Pieces, Read) {
    let (send, receive) = mpsc::channel::<std::io::Result<Bytes>>(PIECES);
    let mut hasher = Hasher::new(digest.map(|(algorithm, _)| algorithm));
    let expected = digest.map(|(_, hex)| hex.to_ascii_lowercase());
    let read = tokio::task::spawn_blocking(move || {
        let fail = |send: &mpsc::Sender<std::io::Result<Bytes>>, detail: String| {
            let _gone = send.blocking_send(Err(std::io::Error::other(detail.clone())));
            Err(detail)
        };
        let mut left = size;
        let mut held: Option<Bytes> = None;
        while left > 0 {
            let want = usize::try_from(left.min(PIECE as u64)).unwrap_or(PIECE);
            // Not written twice: what is read goes into a buffer that holds nothing yet.
            let mut piece = Vec::with_capacity(want);
            match std::io::Read::read_to_end(&mut std::io::Read::take(&mut file, want as u64), &mut piece) {
                Ok(read) if read == want => {}
                Ok(_) => return fail(&send, "it became shorter while it was read".to_owned()),
                Err(error) => return fail(&send, error.to_string()),
            }
            hasher.update(&piece);
            left -= want as u64;
            // The last piece waits for the digest of the whole.
            if let Some(piece) = held.replace(Bytes::from(piece)) {
                let length = piece.len() as u64;
                if send.blocking_send(Ok(piece)).is_err() {
                    // Nobody reads any more: the request has ended, and its error says why.
                    return Ok(());
                }
                sent.fetch_add(length, Ordering::Relaxed);
            }
        }
        if let (Some(got), Some(expected)) = (hasher.finish(), expected)
            && got != expected
        {
            return fail(&send, format!("its checksum is {got}, not {expected}"));
        }
        if let Some(piece) = held {
            let length = piece.len() as u64;
            let _gone = send.blocking_send(Ok(piece));
            sent.fetch_add(length, Ordering::Relaxed);
        }
        Ok(())
    });
    let pieces = stream::unfold(receive, |mut receive| async move {
        let piece = receive.recv().await?;
        Some((piece, receive))
    });
    (Box::pin(pieces), read)
}

/// Reads a file as far as it is there, and waits for more.
fn follow_in_pieces(pass: Pass, sent: Arc<AtomicU64>) -> Pieces {
    let pieces = stream::try_unfold((pass, 0), move |(mut pass, at)| {
        let sent = Arc::clone(&sent);
        async move {
            if at == pass.size() {
                return Ok(None);
            }
            let end = pass.beyond(at).await.map_err(std::io::Error::other)?;
            let want = usize::try_from((end - at).min(FOLLOWED as u64)).unwrap_or(FOLLOWED);
            let file = pass.file();
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; want];
                file.read_exact_at(&mut piece, at)?;
                Ok::<_, std::io::Error>(piece)
            });
            let piece = read.await.map_err(std::io::Error::other)?;
            if !pass.stands() {
                return Err(std::io::Error::other(Lost::Again));
            }
            sent.fetch_add(want as u64, Ordering::Relaxed);
            Ok(Some((Bytes::from(piece?), (pass, at + want as u64))))
        }
    });
    Box::pin(pieces)
}
