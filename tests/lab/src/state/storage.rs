//! Storages and the files behind volume identifiers.
//!
//! Every storage is of type `dir`: folders `images/VMID`, `template/iso`, `import`, `snippets` under the lab's
//! folder; a storage that is not shared has one tree per node.

use std::path::{Path, PathBuf};

use crate::error::{ApiError, ApiResult};

/// One storage of the cluster.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// Its name.
    pub name: String,
    /// Content types it takes.
    pub content: Vec<String>,
    /// Whether all nodes see the same files.
    pub shared: bool,
    /// Bytes it can hold; `None` is as much as the machine has.
    pub size: Option<u64>,
    /// The nodes that have it; `None` is all.
    pub nodes: Option<Vec<String>>,
    /// The type it is shown as; `None` is `nfs` for a shared one and `dir` for any other, which all are underneath.
    pub kind: Option<String>,
}

impl StorageConfig {
    /// A storage that takes everything, as `local` of the transcripts.
    pub fn everything(name: &str) -> Self {
        StorageConfig::of(name, &["images", "iso", "snippets", "vztmpl", "import", "backup"])
    }

    /// A storage of these content types.
    pub fn of(name: &str, content: &[&str]) -> Self {
        let content = content.iter().map(|kind| (*kind).to_owned()).collect();
        StorageConfig { name: name.to_owned(), content, shared: false, size: None, nodes: None, kind: None }
    }

    /// The same storage, seen by all nodes.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// The same storage, which can hold only so many bytes.
    #[must_use]
    pub fn with_size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// The type it is shown as.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or(if self.shared { "nfs" } else { "dir" })
    }

    /// Whether it takes a content type.
    pub fn takes(&self, content: &str) -> bool {
        self.content.iter().any(|kind| kind == content)
    }

    /// Whether a node has it.
    pub fn is_on(&self, node: &str) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.iter().any(|name| name == node))
    }

    /// The content types as Proxmox prints them.
    pub fn content_text(&self) -> String {
        self.content.join(",")
    }
}

/// All storages of a cluster.
#[derive(Debug)]
pub struct Storages {
    root: PathBuf,
    list: Vec<StorageConfig>,
}

/// A volume identifier taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Storage.
    pub storage: String,
    /// Content type: `images`, `iso`, `import`, …
    pub content: String,
    /// Owner, of images.
    pub vmid: Option<u32>,
    /// File name.
    pub file: String,
    /// Base volume's path within its storage, of a linked clone: `9000/base-9000-disk-0.qcow2`.
    pub base: Option<String>,
}

impl Volume {
    /// Parses an identifier.
    ///
    /// # Errors
    /// The 500 `unable to parse directory volume name '…'`.
    pub fn parse(volid: &str) -> ApiResult<Volume> {
        let bad = |name: &str| ApiError::die(format!("unable to parse directory volume name '{name}'"));
        let (storage, name) = volid
            .split_once(':')
            .ok_or_else(|| ApiError::die(format!("unable to parse volume ID '{volid}'")))?;
        let volume = |content: &str, vmid, file: &str, base| Volume {
            storage: storage.to_owned(),
            content: content.to_owned(),
            vmid,
            file: file.to_owned(),
            base,
        };
        let parts: Vec<&str> = name.split('/').collect();
        match parts.as_slice() {
            [kind @ ("iso" | "import" | "snippets" | "vztmpl" | "backup"), file] => {
                Ok(volume(kind, None, file, None))
            }
            [vmid, file] => {
                let vmid = vmid.parse().map_err(|_| bad(name))?;
                Ok(volume("images", Some(vmid), file, None))
            }
            [base_vmid, base, vmid, file] => {
                let vmid = vmid.parse().map_err(|_| bad(name))?;
                Ok(volume("images", Some(vmid), file, Some(format!("{base_vmid}/{base}"))))
            }
            _ => Err(bad(name)),
        }
    }

    /// The image format its name tells.
    pub fn format(&self) -> &str {
        match self.file.rsplit_once('.') {
            Some((_, format @ ("qcow2" | "raw" | "vmdk" | "iso"))) => format,
            _ => "raw",
        }
    }

    /// The path a real server would print.
    pub fn display_path(&self) -> String {
        let folder = mount_point(&self.storage);
        match self.vmid {
            Some(vmid) => format!("{folder}/images/{vmid}/{}", self.file),
            None => format!("{folder}/{}/{}", folder_of(&self.content), self.file),
        }
    }
}

impl Storages {
    /// The storages with their files under `root`.
    pub fn new(root: PathBuf, list: Vec<StorageConfig>) -> Self {
        Storages { root, list }
    }

    /// All of them.
    pub fn all(&self) -> &[StorageConfig] {
        &self.list
    }

    /// Those of one node.
    pub fn on(&self, node: &str) -> impl Iterator<Item = &StorageConfig> {
        self.list.iter().filter(move |storage| storage.is_on(node))
    }

    /// One by name that a node must have.
    ///
    /// # Errors
    /// The 500 of a storage that is not there, or not on the node.
    pub fn get_on(&self, node: &str, name: &str) -> ApiResult<&StorageConfig> {
        let storage = self.get(name)?;
        if storage.is_on(node) {
            return Ok(storage);
        }
        Err(ApiError::die(format!("storage '{name}' is not available on node '{node}'")))
    }

    /// Bytes in all, and bytes in use: of the storage's own limit, or of the machine's file system.
    ///
    /// # Errors
    /// As [`Storages::get`].
    pub fn usage(&self, node: &str, storage: &StorageConfig) -> ApiResult<(u64, u64)> {
        let folder = self.folder(node, &storage.name)?;
        if let Some(size) = storage.size {
            return Ok((size, bytes_below(&folder).min(size)));
        }
        Ok(match nix::sys::statvfs::statvfs(&folder) {
            Ok(stat) => {
                let block = stat.fragment_size();
                let total = stat.blocks() * block;
                (total, total.saturating_sub(stat.blocks_available() * block))
            }
            Err(_) => (0, 0),
        })
    }

    /// Whether that many bytes more fit on a storage.
    ///
    /// # Errors
    /// As [`Storages::get`].
    pub fn has_room(&self, node: &str, name: &str, bytes: u64) -> ApiResult<bool> {
        let storage = self.get(name)?;
        let (total, used) = self.usage(node, storage)?;
        Ok(storage.size.is_none() || used.saturating_add(bytes) <= total)
    }

    /// One by name.
    ///
    /// # Errors
    /// The 500 `storage '…' does not exist`.
    pub fn get(&self, name: &str) -> ApiResult<&StorageConfig> {
        self.list
            .iter()
            .find(|storage| storage.name == name)
            .ok_or_else(|| ApiError::die(format!("storage '{name}' does not exist")))
    }

    /// Demands that a storage takes VM disks.
    ///
    /// # Errors
    /// 500, when it does not exist or takes none.
    pub fn check_images(&self, name: &str) -> ApiResult<()> {
        if self.get(name)?.content.iter().any(|content| content == "images") {
            return Ok(());
        }
        Err(ApiError::die(format!("storage '{name}' does not support vm images")))
    }

    /// The folder of a storage on a node.
    ///
    /// # Errors
    /// As [`Storages::get`].
    pub fn folder(&self, node: &str, name: &str) -> ApiResult<PathBuf> {
        let owner = if self.get(name)?.shared { "shared" } else { node };
        Ok(self.root.join(owner).join(name))
    }

    /// The folder of one content type.
    ///
    /// # Errors
    /// As [`Storages::get`].
    pub fn content_folder(&self, node: &str, name: &str, content: &str) -> ApiResult<PathBuf> {
        let below = match content {
            "iso" => Path::new("template").join("iso"),
            "vztmpl" => Path::new("template").join("cache"),
            "backup" => PathBuf::from("dump"),
            other => PathBuf::from(other),
        };
        Ok(self.folder(node, name)?.join(below))
    }

    /// The file behind a volume.
    ///
    /// # Errors
    /// As [`Volume::parse`] and [`Storages::get`].
    pub fn path(&self, node: &str, volid: &str) -> ApiResult<PathBuf> {
        let volume = Volume::parse(volid)?;
        let folder = self.content_folder(node, &volume.storage, &volume.content)?;
        Ok(match volume.vmid {
            Some(vmid) => folder.join(vmid.to_string()).join(&volume.file),
            None => folder.join(&volume.file),
        })
    }

    /// The file behind a path of a node, as far as it is below one of its storages; else the path as it is.
    pub fn behind(&self, node: &str, shown: &str) -> PathBuf {
        let below = |storage: &StorageConfig| {
            let rest = shown.strip_prefix(&mount_point(&storage.name))?.strip_prefix('/')?;
            Some(self.folder(node, &storage.name).ok()?.join(rest))
        };
        self.list.iter().find_map(below).unwrap_or_else(|| shown.into())
    }

    /// An unused disk name of a VM, `vm-9000-disk-N.FORMAT`, whose file does not exist yet; `taken` holds the
    /// volumes that are named already.
    ///
    /// # Errors
    /// As [`Storages::get`].
    pub fn new_disk(
        &self,
        node: &str,
        storage: &str,
        vmid: u32,
        format: &str,
        taken: &[String],
    ) -> ApiResult<String> {
        let folder = self.content_folder(node, storage, "images")?.join(vmid.to_string());
        let existing: Vec<String> = std::fs::read_dir(&folder)
            .map(|entries| {
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
            })
            .unwrap_or_default();
        for number in 0..1000 {
            let stem = format!("-{vmid}-disk-{number}.");
            let used = existing.iter().chain(taken).any(|name| name.contains(&stem));
            if !used {
                return Ok(format!("{storage}:{vmid}/vm{stem}{format}"));
            }
        }
        Err(ApiError::die("unable to allocate an image name"))
    }
}

/// Where a node has a storage.
fn mount_point(storage: &str) -> String {
    if storage == "local" { "/var/lib/vz".to_owned() } else { format!("/mnt/pve/{storage}") }
}

/// Where a storage of type `dir` keeps a content type.
fn folder_of(content: &str) -> &str {
    match content {
        "iso" => "template/iso",
        "vztmpl" => "template/cache",
        "backup" => "dump",
        other => other,
    }
}

/// The bytes of all files below a folder, as they count on the disk: holes take no room.
fn bytes_below(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() {
            bytes_below(&entry.path())
        } else {
            metadata.len().min(metadata.blocks() * 512)
        })
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_identifiers_are_taken_apart() {
        let linked =
            Volume::parse("local:9000/base-9000-disk-0.qcow2/9101/vm-9101-disk-0.qcow2").expect("parses");
        assert_eq!((linked.vmid, linked.base.as_deref()), (Some(9101), Some("9000/base-9000-disk-0.qcow2")));
        assert_eq!(Volume::parse("local:iso/a.iso").expect("parses").content, "iso");
        assert_eq!(
            Volume::parse("local:1G").expect_err("refused").message,
            "unable to parse directory volume name '1G'"
        );
    }
}
