//! The lab's guests: real disks made from the distribution's packages, made once and cached.
//!
//! - [`debian`] is Debian 12 as a site's boot VM would be: GRUB menu on the VGA text screen, cloud-init, sshd,
//!   guest agent.
//! - [`tiny`] is a kernel, busybox, dropbear and the guest agent with a NoCloud reader written in shell: it
//!   answers on SSH within seconds under emulation, for matrices of faults and races.
//! - [`tiny_uefi`] is the same for UEFI too.
//! - [`tiny_signed`] is the same for UEFI with Secure Boot on.
//! - [`install`] is a CD that installs the tiny guest without questions, for builds from an ISO.
//! - [`fai`] is a CD of FAI from Debian's packages, which installs what a configuration space says, for a soak.
//!
//! Invariants: an image in the cache is complete (it is made under another name and renamed) and belongs to its
//! recipe (the folder's name holds the recipe's hash); two processes never make the same image at once (a file
//! lock); nothing is downloaded but from the machine's own apt sources; no loop device, no mount by hand, but
//! for FAI's own tools, whose mounts end with them.

pub(crate) mod apt;
mod boot_disk;
mod cache;
pub(crate) mod command;
mod debian;
mod efi;
mod fai;
mod install;
mod signed;
mod tiny;
mod uefi;

use std::path::{Path, PathBuf};

pub use apt::mirror;
pub use debian::DebianImage;
pub use fai::FaiMedium;
pub use install::InstallMedium;
pub use tiny::TinyImage;

/// Returns the Debian 12 guest, making it when the cache lacks it: about a minute, as root.
///
/// Blocks: call it outside an async runtime or through `spawn_blocking`.
///
/// # Errors
/// A tool is missing or fails, the process is not root while the image is missing, or the cache can't be written.
pub fn debian(cache_root: &Path) -> anyhow::Result<DebianImage> {
    debian::image(cache_root)
}

/// Returns the tiny guest, making it when the cache lacks it: about half a minute, as root.
///
/// Blocks: call it outside an async runtime or through `spawn_blocking`.
///
/// # Errors
/// As [`debian`].
pub fn tiny(cache_root: &Path) -> anyhow::Result<TinyImage> {
    tiny::image(cache_root)
}

/// Returns the install medium, making it (and the tiny guest it installs) when the cache lacks it: a few seconds.
///
/// Blocks: call it outside an async runtime or through `spawn_blocking`.
///
/// # Errors
/// As [`debian`].
pub fn install(cache_root: &Path) -> anyhow::Result<InstallMedium> {
    install::image(cache_root, &tiny(cache_root)?, false)
}

/// Returns the tiny guest that UEFI can start too, making it (and the tiny guest) when the cache lacks it: a few seconds.
///
/// Blocks: call it outside an async runtime or through `spawn_blocking`.
///
/// # Errors
/// As [`debian`].
pub fn tiny_uefi(cache_root: &Path) -> anyhow::Result<TinyImage> {
    uefi::image(cache_root, &tiny(cache_root)?)
}

/// Returns the tiny guest whose boot loaders and kernel bear the signatures that a firmware with Microsoft's keys takes,
/// making it (and the tiny guest) when the cache lacks it: a few seconds.
///
/// Blocks: call it outside an async runtime or through `spawn_blocking`.
///
/// # Errors
/// As [`debian`].
pub fn tiny_signed(cache_root: &Path) -> anyhow::Result<TinyImage> {
    signed::image(cache_root, &tiny(cache_root)?)
}

/// Returns the install medium of the tiny guest that UEFI can start too; as [`install`].
///
/// # Errors
/// As [`debian`].
pub fn install_uefi(cache_root: &Path) -> anyhow::Result<InstallMedium> {
    install::image(cache_root, &tiny_uefi(cache_root)?, false)
}

/// Returns the install medium of the tiny guest for Secure Boot: what starts by itself on it is signed by nobody, as nobody
/// has signed a GRUB with a menu inside; beside that it has Debian's signed loaders, as Debian's media do. As [`install`].
///
/// # Errors
/// As [`debian`].
pub fn install_signed(cache_root: &Path) -> anyhow::Result<InstallMedium> {
    install::image(cache_root, &tiny_signed(cache_root)?, true)
}

/// Returns the medium of FAI, making it when the cache lacks it: two to five minutes, as root, with FAI's package
/// `fai-server`.
///
/// Blocks: call it outside an async runtime or through `spawn_blocking`.
///
/// # Errors
/// As [`debian`].
pub fn fai(cache_root: &Path) -> anyhow::Result<FaiMedium> {
    fai::image(cache_root)
}

/// Where images are kept: `$FORGE_LAB_CACHE`, else `lab-cache` in cargo's target folder.
pub fn default_cache_root() -> PathBuf {
    if let Some(path) = std::env::var_os("FORGE_LAB_CACHE") {
        return PathBuf::from(path);
    }
    target_dir().join("lab-cache")
}

/// Cargo's target folder: `$CARGO_TARGET_DIR`, else `target` beside the workspace's manifest.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => PathBuf::from(path),
        None => workspace_dir().join("target"),
    }
}

/// The folder of the workspace that this crate was built from.
pub fn workspace_dir() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_path_buf()
}

/// Writes a recipe's files into a new folder.
fn write_files(folder: &Path, files: &[(&str, &str)]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (name, text) in files {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// The names in a list of packages: one a line, `#` begins a comment.
fn package_names(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|name| !name.is_empty())
}
