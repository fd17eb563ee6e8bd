//! Backups on a storage: which files are some, who may see them, and what stands beside them.

use std::io;
use std::path::{Path, PathBuf};

use super::super::Call;
use super::{path_of, prune};
use crate::error::ApiResult;
use crate::state::Volume;

/// The format of a file that is a backup (pve-storage `Plugin.pm`, `BACKUP_EXT_RE_2`); `None` for what stands beside one.
pub fn format(file: &str) -> Option<&'static str> {
    let formats = ["vma", "vma.gz", "vma.lzo", "vma.zst", "tar", "tar.gz", "tar.lzo", "tar.zst", "tgz"];
    formats.into_iter().find(|format| file.strip_suffix(format).is_some_and(|rest| rest.ends_with('.')))
}

/// A file beside a backup: its `notes`, or that it is `protected`.
pub fn beside(path: &Path, what: &str) -> PathBuf {
    path.with_file_name(format!("{}.{what}", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// Writes a file beside a backup.
///
/// # Errors
/// It can't be written.
pub fn write_beside(path: &Path, what: &str, text: &str) -> io::Result<()> {
    std::fs::write(beside(path, what), text)
}

/// Demands what seeing a backup takes (pve-storage `Storage.pm`, `check_volume_access`): the right to all of the storage, or
/// that to its space and to back up the VM.
///
/// # Errors
/// The 403 that names what is missing.
pub fn check_access(call: &Call, volume: &Volume) -> ApiResult<()> {
    let path = path_of(&volume.storage);
    match prune::owner(&volume.file) {
        _ if call.may(&path, &["Datastore.Allocate"]) => Ok(()),
        Some(vmid) => {
            call.require(&path, &["Datastore.AllocateSpace"])?;
            call.require(&format!("/vms/{vmid}"), &["VM.Backup"])
        }
        None => call.require(&path, &["Datastore.Allocate"]),
    }
}
