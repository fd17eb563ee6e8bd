//! Brings media to a storage of a node: looked for under a name made of their digest, then downloaded by the node or sent
//! from here.
//!
//! ```text
//!  on a storage already ──────────────────────────────► compared by the node
//!  a URL ── the node may download ────────────────────► download-url, compared by the node
//!        └─ it may not, does not get there, ───┐
//!           or the URL carries a login         │
//!  a file of this machine ─────────────────────┴──────► sent, compared by the node
//! ```
//!
//! What comes by way of this machine is hashed once: while it is downloaded (or when the cache has it), while it is sent, or,
//! where the bytes make its name, before. A download is sent on while it comes (`onward.rs`).
//!
//! A file `forge-<digest>-…` comes into being only after the node has compared it with that digest, so that finding it is
//! almost proof; where the token may let the node download (`Sys.AccessNetwork`), the node compares it once more.
//! Builds that want the same file wait for each other ([`Turns`]), and for a download of it that the node is busy with
//! already, whoever asked for that.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use forge_machine::source::{login, shown};
use forge_machine::{
    Checksum, FactsQuery, Fetch as PortFetch, Growth, Location, MachineSpec, Medium as PortMedium, PortError,
    SourceSelector, SourceSpec,
};
use serde::Deserialize;

use crate::api::client::Client;
use crate::api::encode::{Params, path};
use crate::api::error::ApiError;
use crate::api::task::Upid;
use crate::api::transfer::{Volume, sha256_of};
use crate::api::types::StorageEntry;
use crate::permissions::Grants;
use crate::turns::Turn;
pub use crate::turns::Turns;
use onward::Place;

mod onward;

/// How much of a digest stands in a file's name.
const SHOWN: usize = 20;
/// Who may have any file of a node imported: exactly this user, so by password, and none of its tokens (pve-storage
/// `Storage.pm`, `check_volume_access`).
pub(crate) const ROOT: &str = "root@pam";
/// An address that the node never asks, because the file is there.
const NOWHERE: &str = "http://127.0.0.1:9/forge-compares";

/// A task that runs.
#[derive(Debug, Deserialize)]
struct Running {
    upid: String,
    #[serde(default)]
    id: String,
}

/// What is told of one volume.
#[derive(Debug, Deserialize)]
struct Told {
    path: String,
}

/// Where a medium is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// It is downloaded.
    Url(&'a str),
    /// A file of this machine.
    File(&'a Path),
    /// A volume of the target (`local:iso/debian.iso`).
    Volume(&'a str),
}

/// A medium that a storage is to hold.
#[derive(Clone, Copy, Debug)]
pub struct Medium<'a> {
    /// Where it is now.
    pub origin: Origin<'a>,
    /// Algorithm (`sha256`, …) and hexadecimal digits.
    pub digest: Option<(&'a str, &'a str)>,
    /// What the storage holds it as: `iso` or `import`.
    pub content: &'a str,
}

/// Downloads to this machine, and hears what is going on.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// The file of this machine that holds what a URL names, proved by the medium's digest; one that is downloaded is
    /// told to `growth` meanwhile. May be dropped.
    ///
    /// # Errors
    /// When it can't be had.
    async fn fetch(&self, url: &str, growth: Option<&Growth>) -> Result<PathBuf, PortError>;

    /// Tells what is being done, in a few words.
    fn tell(&self, what: &str);
}

/// Brings media to the storages of one node.
pub struct Courier<'a> {
    client: &'a Client,
    turns: &'a Turns,
    node: &'a str,
    preferred: Option<&'a str>,
    storages: Vec<StorageEntry>,
    fetch: &'a dyn Fetch,
}

impl<'a> Courier<'a> {
    /// Looks at the storages of a node; `preferred` is the one that takes media when it can. May be dropped.
    ///
    /// # Errors
    /// When the target can't be asked.
    pub async fn new(
        client: &'a Client,
        turns: &'a Turns,
        node: &'a str,
        preferred: Option<&'a str>,
        fetch: &'a dyn Fetch,
    ) -> Result<Self, PortError> {
        let list = path(&["nodes", node, "storage"]);
        let storages = client.get(&list, &Params::new().with("enabled", 1)).await;
        let storages =
            storages.map_err(|error: ApiError| error.at(&format!("list the storages of {node}")))?;
        Ok(Self { client, turns, node, preferred, storages, fetch })
    }

    /// The volume that holds a medium, which is brought there when it is not. May be dropped.
    ///
    /// # Errors
    /// When it can't be had or brought there, or is not what its digest says.
    pub async fn bring(&self, medium: &Medium<'_>) -> Result<String, PortError> {
        match medium.origin {
            Origin::Volume(volume) => {
                self.check_volume(volume, medium.digest).await?;
                Ok(volume.to_owned())
            }
            Origin::Url(url) => self.bring_url(medium, url).await,
            Origin::File(file) => self.bring_file(medium, file, file_name(medium.origin)).await,
        }
    }

    /// A volume that the profile names: it must be there, and be what its checksum says.
    async fn check_volume(&self, volume: &str, digest: Option<(&str, &str)>) -> Result<(), PortError> {
        let missing = |why: &str| PortError::NotFound { what: format!("{volume} on {} ({why})", self.node) };
        let (storage, rest) = volume.split_once(':').ok_or_else(|| missing("it is no volume"))?;
        // `local:iso/x.iso`; the disks of VMs are `local:9000/vm-9000-disk-0.qcow2` or `lvm:vm-9000-disk-0`.
        let (content, name) = match rest.split_once('/') {
            Some((content @ ("iso" | "import"), name)) => (content, name),
            _ => ("images", rest),
        };
        let there = self.volumes(storage, content).await?;
        if !there.iter().any(|each| each.volid == volume) {
            return Err(missing("the storage does not list it"));
        }
        match digest {
            None => Ok(()),
            Some(digest) => {
                self.fetch.tell(&format!("the node compares {volume} with its checksum"));
                self.compare(storage, content, name, digest).await.map_err(|error| {
                    let help = "its checksum can only be compared by the node: leave `checksum` out, or let the \
                                token do that (Sys.AccessNetwork on the node)";
                    match error {
                        ApiError::Denied { .. } => PortError::failed(format!("compare {volume}"), help),
                        other => other.at(&format!("compare {volume}")),
                    }
                })
            }
        }
    }

    async fn bring_url(&self, medium: &Medium<'_>, url: &str) -> Result<String, PortError> {
        let content = medium.content;
        let Some(digest) = medium.digest else {
            // Without a checksum the bytes themselves make the name.
            let file = self.fetch.fetch(url, None).await?;
            return self.bring_file(medium, &file, file_name(medium.origin)).await;
        };
        let storage = self.storage_for(content)?;
        let name = name_of(file_name(medium.origin), digest.1, content);
        let volume = format!("{storage}:{content}/{name}");
        let _turn = self.turn(&volume).await;
        if let Some(there) = self.find(storage, content, &volume).await? {
            self.confirm(storage, content, &name, digest, &there).await?;
            return Ok(volume);
        }
        if self.is_underway(&name).await
            && let Some(there) = self.find(storage, content, &volume).await?
        {
            self.confirm(storage, content, &name, digest, &there).await?;
            return Ok(volume);
        }
        // A node writes what it downloads into its log, for all who may read that: a login is not told to it.
        if login(url).is_none() {
            self.fetch.tell(&format!("{} downloads {url}", self.node));
            match self.download(storage, content, &name, url, digest).await {
                Ok(()) => return Ok(volume),
                Err(error) if is_mismatch(&error) => return Err(error.at(&format!("download {url}"))),
                // Only its answer may have been lost: what the node has begun by then goes on.
                Err(ApiError::Unanswered { .. }) => {
                    self.is_underway(&name).await;
                    if let Some(there) = self.find(storage, content, &volume).await? {
                        self.confirm(storage, content, &name, digest, &there).await?;
                        return Ok(volume);
                    }
                    self.fetch.tell(&format!("{} did not answer; by way of this machine", self.node));
                }
                // The node may not, or has no way to the web: then it comes by way of this machine.
                Err(error) => {
                    tracing::debug!(%error, "the node does not download");
                    let words = format!("{} does not download by itself; by way of this machine", self.node);
                    self.fetch.tell(&words);
                }
            }
        } else {
            self.fetch.tell(&format!("{} needs a login: by way of this machine", shown(url)));
        }
        let place = Place { storage, content, name: &name, digest };
        self.by_way_of_here(url, &place).await?;
        Ok(volume)
    }

    async fn bring_file(&self, medium: &Medium<'_>, file: &Path, named: &str) -> Result<String, PortError> {
        let content = medium.content;
        let storage = self.storage_for(content)?;
        let computed;
        let digest = match medium.digest {
            Some(digest) => digest,
            None => {
                self.fetch.tell(&format!("reading {}", file.display()));
                computed = sha256_of(file).await.map_err(|error| PortError::Broken {
                    what: format!("{} can't be read", file.display()),
                    source: Some(Box::new(error)),
                })?;
                ("sha256", computed.as_str())
            }
        };
        let name = name_of(named, digest.1, content);
        let volume = format!("{storage}:{content}/{name}");
        let _turn = self.turn(&volume).await;
        if let Some(there) = self.find(storage, content, &volume).await? {
            let size = tokio::fs::metadata(file).await.map(|metadata| metadata.len()).unwrap_or(there.size);
            if size != there.size {
                let what = format!("{volume} has {} bytes, and {} has {size}", there.size, file.display());
                return Err(PortError::failed(
                    "use the medium that is there",
                    format!("{what}: remove it from the storage"),
                ));
            }
            self.confirm(storage, content, &name, digest, &there).await?;
            return Ok(volume);
        }
        // One without a checksum was just read for its name.
        let place = Place { storage, content, name: &name, digest };
        self.send(file, &place, medium.digest.is_none()).await?;
        Ok(volume)
    }

    /// Waits until nobody else on this machine brings that volume to this node.
    async fn turn(&self, volume: &str) -> Turn {
        let place = format!("{} {}", self.client.endpoint(), self.node);
        self.turns.wait(&place, volume, &|what| self.fetch.tell(what)).await
    }

    /// Whether the node was busy with downloading that file for somebody else, which is waited for. A token sees the tasks
    /// of its own; that of another machine with the same token is one of them.
    async fn is_underway(&self, name: &str) -> bool {
        let query = Params::new().with("source", "active").with("typefilter", "download");
        let running = self.client.get::<Vec<Running>>(&path(&["nodes", self.node, "tasks"]), &query).await;
        let of_it = running.unwrap_or_default().into_iter().find(|task| task.id == name);
        let Some(upid) = of_it.and_then(|task| Upid::parse(&task.upid)) else { return false };
        self.fetch.tell(&format!("{} is busy with downloading {name}: waiting for it", self.node));
        // However it ends, the storage tells whether the file is there.
        if let Err(error) = self.client.await_task(&upid).await {
            tracing::debug!(%error, "the other download can't be waited for");
        }
        true
    }

    /// Where a volume lies on the node.
    async fn path_of(&self, volume: &str) -> Result<String, PortError> {
        let (storage, _) = volume.split_once(':').unwrap_or((volume, ""));
        let place = path(&["nodes", self.node, "storage", storage, "content", volume]);
        let there: Told = self
            .client
            .get(&place, &Params::new())
            .await
            .map_err(|error| error.at(&format!("ask where {volume} lies")))?;
        Ok(there.path)
    }

    async fn volumes(&self, storage: &str, content: &str) -> Result<Vec<Volume>, PortError> {
        let listed = self.client.volumes(self.node, storage, content).await;
        listed.map_err(|error| error.at(&format!("list what {storage} holds on {}", self.node)))
    }

    async fn find(&self, storage: &str, content: &str, volume: &str) -> Result<Option<Volume>, PortError> {
        Ok(self.volumes(storage, content).await?.into_iter().find(|each| each.volid == volume))
    }

    /// A file that is there under its digest's name: compared once more where the token may ask for that.
    async fn confirm(
        &self,
        storage: &str,
        content: &str,
        name: &str,
        digest: (&str, &str),
        there: &Volume,
    ) -> Result<(), PortError> {
        self.fetch.tell(&format!("{} is there; the node compares it", there.volid));
        match self.compare(storage, content, name, digest).await {
            Ok(()) => Ok(()),
            Err(ApiError::Denied { .. }) => {
                self.fetch.tell(&format!("{} is there, compared when it was put there", there.volid));
                Ok(())
            }
            Err(error) => Err(error.at(&format!("compare {} with its checksum", there.volid))),
        }
    }

    async fn compare(
        &self,
        storage: &str,
        content: &str,
        name: &str,
        digest: (&str, &str),
    ) -> Result<(), ApiError> {
        let ask = || self.download(storage, content, name, NOWHERE, digest);
        match ask().await {
            // Comparing changes nothing: what was not answered is asked for again.
            Err(ApiError::Unanswered { .. }) => ask().await,
            other => other,
        }
    }

    async fn download(
        &self,
        storage: &str,
        content: &str,
        name: &str,
        url: &str,
        digest: (&str, &str),
    ) -> Result<(), ApiError> {
        let client = self.client;
        match client.download_url(self.node, storage, content, name, url, Some(digest)).await? {
            Some(upid) => client.wait_task(&upid).await,
            None => Ok(()),
        }
    }

    fn storage_for(&self, content: &str) -> Result<&str, PortError> {
        pick(&self.storages, self.preferred, content)
            .map_err(|detail| PortError::failed(format!("find a storage for media on {}", self.node), detail))
    }
}

/// The storage that the site file names for media, or the first that takes them.
///
/// # Errors
/// In a sentence: none takes that content.
pub(crate) fn pick<'a>(
    storages: &'a [StorageEntry],
    preferred: Option<&str>,
    content: &str,
) -> Result<&'a str, String> {
    let takes = |storage: &&StorageEntry| {
        storage.active && storage.content.split(',').any(|each| each.trim() == content)
    };
    let named = storages.iter().filter(takes).find(|storage| Some(storage.storage.as_str()) == preferred);
    let found = named.or_else(|| storages.iter().find(takes));
    found
        .map(|storage| storage.storage.as_str())
        .ok_or_else(|| format!("none that is active takes `{content}`: add that content type to one of them"))
}

/// Which way what a profile names by URL comes to a node, in words for the plan; `None` where nothing is named so.
#[must_use]
pub(crate) fn way_in_words(grants: &Grants, node: &str, query: &FactsQuery) -> Option<String> {
    let image = match &query.source {
        SourceSelector::Image(image) => Some(image),
        SourceSelector::Clone(_) | SourceSelector::New => None,
    };
    let mut urls = query.isos.iter().chain(image).filter_map(|medium| match &medium.location {
        Location::Url(url) => Some((url, &medium.checksum)),
        Location::File(_) | Location::Volume(_) => None,
    });
    let (url, checksum) = urls.next()?;
    let by_path = format!("/nodes/{node}");
    let may = grants.on(&by_path, "Sys.AccessNetwork")
        || (grants.on("/", "Sys.Audit") && grants.on("/", "Sys.Modify"));
    let why = match (login(url), checksum) {
        (_, Checksum::None) => {
            return Some(format!(
                "media come to {node} by way of this machine (one has no checksum to be named and compared by): \
                 downloaded whole into the cache, gone on with where that breaks off, then read for its name and sent"
            ));
        }
        (Some(_), _) => "its address holds a login",
        _ if may => {
            return Some(format!("{node} downloads media by itself, and compares them with their checksums"));
        }
        _ => "the token lacks Sys.AccessNetwork there",
    };
    Some(format!(
        "media come to {node} by way of this machine ({why}): downloaded into the cache, gone on with where that breaks off, \
         compared on the way, and sent meanwhile; from the cache when that has it, or when its server tells no length"
    ))
}

fn is_mismatch(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused { detail, .. } if detail.contains("checksum mismatch"))
}

/// Brings every ISO and the image of a spec to the storages of its node, and gives the spec with their volumes. May be dropped.
///
/// # Errors
/// When one can't be had or brought there.
pub async fn prepare(
    client: &Client,
    turns: &Turns,
    preferred: Option<&str>,
    spec: &MachineSpec,
    fetch: &dyn PortFetch,
) -> Result<MachineSpec, PortError> {
    let mut prepared = spec.clone();
    let image = match &mut prepared.source {
        SourceSpec::Image { image, .. } => Some((image, "import")),
        SourceSpec::Clone { .. } | SourceSpec::New => None,
    };
    for (medium, content) in image.into_iter().chain(prepared.isos.iter_mut().map(|iso| (iso, "iso"))) {
        let by_engine = ByEngine { fetch, medium };
        let courier = Courier::new(client, turns, &spec.node, preferred, &by_engine).await?;
        // Before Proxmox VE 8.4 no storage takes disk images. Root may name a file of the node, and what is said to be
        // an ISO may be any file: it is brought there as one.
        let by_path = content == "import"
            && !matches!(medium.location, Location::Volume(_))
            && client.login_id() == ROOT
            && pick(&courier.storages, preferred, content).is_err();
        let content = if by_path { "iso" } else { content };
        let digest = match &medium.checksum {
            Checksum::Digest { algorithm, hex } => Some((algorithm.name(), hex.as_str())),
            Checksum::None | Checksum::File(_) => None,
        };
        let origin = match &medium.location {
            Location::Url(url) => Origin::Url(url),
            Location::File(file) => Origin::File(file),
            Location::Volume(volume) => Origin::Volume(volume),
        };
        let mut volume = courier.bring(&Medium { origin, digest, content }).await?;
        if by_path {
            volume = courier.path_of(&volume).await?;
        }
        *medium = PortMedium { location: Location::Volume(volume), checksum: Checksum::None };
    }
    Ok(prepared)
}

/// The engine's downloads for one medium.
struct ByEngine<'a> {
    fetch: &'a dyn PortFetch,
    medium: &'a PortMedium,
}

#[async_trait]
impl Fetch for ByEngine<'_> {
    async fn fetch(&self, _url: &str, growth: Option<&Growth>) -> Result<PathBuf, PortError> {
        self.fetch.fetch(self.medium, growth).await
    }

    fn tell(&self, what: &str) {
        self.fetch.tell(what);
    }
}

/// How the name ends that a medium of the web or of this machine has on a storage: `-debian-12.iso`.
#[must_use]
pub fn ending_of(medium: &PortMedium) -> String {
    name_of(&medium.file_name(), "", "iso").trim_start_matches("forge-").to_owned()
}

/// The last part of a medium's name.
fn file_name(origin: Origin<'_>) -> &str {
    match origin {
        Origin::Url(url) => {
            let path = url.split(['?', '#']).next().unwrap_or_default();
            path.rsplit('/').next().unwrap_or_default()
        }
        Origin::File(file) => file.file_name().and_then(|name| name.to_str()).unwrap_or_default(),
        Origin::Volume(volume) => volume.rsplit(['/', ':']).next().unwrap_or_default(),
    }
}

/// `forge-<digest>-debian-12.iso`: of the characters that Proxmox leaves as they are, with an ending that it takes.
fn name_of(original: &str, digest: &str, content: &str) -> String {
    let sound = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
    let (stem, ending) = original.rsplit_once('.').unwrap_or((original, ""));
    let ending = match (content, ending.to_ascii_lowercase().as_str()) {
        // A disk image that goes as an ISO, too.
        ("iso", "img" | "qcow2" | "raw" | "vmdk") => "img",
        ("iso", _) => "iso",
        (_, known @ ("qcow2" | "raw" | "vmdk")) => match known {
            "raw" => "raw",
            "vmdk" => "vmdk",
            _ => "qcow2",
        },
        // Publishers call their qcow2 images so, too.
        _ => "qcow2",
    };
    let stem: String = stem.chars().map(sound).take(60).collect();
    let digest: String = digest.chars().take(SHOWN).collect();
    format!("forge-{digest}-{stem}.{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mediums_name_on_the_storage_is_made_of_its_digest() {
        let hex = "ab".repeat(32);
        for (url, content, name) in [
            ("https://x/debian-12.9.0 amd64.iso?m=1", "iso", "debian-12.9.0_amd64.iso"),
            ("https://x/disk.IMG", "iso", "disk.img"),
            ("https://x/debian-12-generic.qcow2", "import", "debian-12-generic.qcow2"),
            ("https://x/noble.img", "import", "noble.qcow2"),
            ("https://x/debian-12-generic.qcow2", "iso", "debian-12-generic.img"),
            ("https://x/", "iso", ".iso"),
        ] {
            let expected = format!("forge-abababababababababab-{name}");
            assert_eq!(name_of(file_name(Origin::Url(url)), &hex, content), expected, "{url}");
        }
    }
}
