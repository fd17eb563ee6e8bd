//! The image below an overlay: it has to stay what it was when the VM was made.
//!
//! An overlay holds only what the guest has changed. QEMU keeps the image open that it started with, while `qemu-img` opens
//! it anew by its name to write the result: a file that was put in its place meanwhile would be mixed into that.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use forge_machine::PortError;
use serde::{Deserialize, Serialize};

use crate::workdir::WorkDir;

/// What an image was known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Base {
    path: PathBuf,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of its last change.
    modified: (i64, i64),
}

impl Base {
    /// How an image is at present.
    pub(crate) fn of(path: &Path) -> std::io::Result<Self> {
        let data = std::fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            inode: data.ino(),
            size: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
        })
    }
}

/// Looks whether the image below a VM's overlay is the one that the VM was made of.
///
/// # Errors
/// When it is another by now, or gone.
pub(crate) fn unchanged(dir: &WorkDir, action: &str) -> Result<(), PortError> {
    let Some(then) = dir.base()? else { return Ok(()) };
    let shown = then.path.display();
    match Base::of(&then.path) {
        Ok(now) if now == then => Ok(()),
        Ok(_) => Err(PortError::failed(
            action,
            format!(
                "{shown} has been replaced or changed since the VM was made from it, and the VM's disk holds only what \
                 differs from it; build anew, or with `copy = true` of `source.image`"
            ),
        )),
        Err(error) => {
            let what = format!("{shown}, which the VM was made from, can't be looked at; put it back");
            Err(PortError::broken(what, error))
        }
    }
}
