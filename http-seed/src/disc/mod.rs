//! Seeds on a medium of their own: an ISO 9660 disc, or a floppy for installers that look there.
//!
//! Both are made from a [`SeedSet`] alone: the same files and label give the same bytes, for no clock, no address and
//! no random number goes in. They are made in memory: a seed is some kilobytes.

mod directory;
mod el_torito;
mod fat;
mod iso;
mod joliet;
mod names;
mod rock_ridge;

use thiserror::Error;

use crate::set::SeedSet;

/// A medium could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiscError {
    /// No reader would know the label.
    #[error("`{label}` can't be the label of a {medium}: 1 to {longest} letters, digits, `_` and `-`")]
    Label {
        /// The label.
        label: String,
        /// `disc` or `floppy`.
        medium: &'static str,
        /// How many characters are possible.
        longest: usize,
    },
    /// A name that a medium can't hold.
    #[error("`{name}` can't be the name of a file on a {medium}: {why}")]
    Name {
        /// The name.
        name: String,
        /// `disc` or `floppy`.
        medium: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More than fits.
    #[error("the files have {bytes} bytes, and a {medium} holds {most}")]
    TooBig {
        /// What they have.
        bytes: u64,
        /// `disc` or `floppy`.
        medium: &'static str,
        /// What fits.
        most: u64,
    },
}

/// How many bytes of files a disc holds. No seed is near this; what is larger was not meant to be one.
pub const LARGEST: u64 = 64 << 20;
/// How many bytes of files and folders a floppy holds, each rounded up to 512.
pub const LARGEST_FLOPPY: u64 = fat::MOST;

/// The label by which cloud-init knows a NoCloud disc (cloud-init docs, "NoCloud"; upper case is taken too).
pub const CIDATA: &str = "cidata";
/// The label by which Anaconda and YaST know a disc with answers (Anaconda boot options, "inst.ks"; AutoYaST guide).
pub const OEMDRV: &str = "OEMDRV";

/// An ISO 9660 image with Joliet and Rock Ridge: each reader sees the names as they are.
///
/// # Errors
/// When the label or a name does not fit, or the files have more than 64 MiB.
pub fn iso(label: &str, files: &SeedSet) -> Result<Vec<u8>, DiscError> {
    iso::image(label, files, None)
}

/// An ISO 9660 image from which UEFI starts what it finds among `loaders` (`EFI/BOOT/BOOTX64.EFI`); beside them it holds `files`.
///
/// # Errors
/// When the label or a name does not fit, the files have more than 64 MiB, or the loaders more than 16 MiB.
pub fn bootable(label: &str, files: &SeedSet, loaders: &SeedSet) -> Result<Vec<u8>, DiscError> {
    iso::image(label, files, Some(&fat::boot_image(loaders)?))
}

/// A floppy image of 1.44 MB with FAT12 and long names.
///
/// # Errors
/// When the label, a name or the files don't fit.
pub fn floppy(label: &str, files: &SeedSet) -> Result<Vec<u8>, DiscError> {
    fat::image(label, files)
}

/// A label of letters, digits, `_` and `-`.
fn checked_label<'a>(label: &'a str, longest: usize, medium: &'static str) -> Result<&'a str, DiscError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !label.is_empty() && label.len() <= longest && label.chars().all(plain) {
        Ok(label)
    } else {
        Err(DiscError::Label { label: label.to_owned(), medium, longest })
    }
}

#[cfg(test)]
mod tests;
