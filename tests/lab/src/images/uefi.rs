//! The tiny guest for UEFI too: its disk with a second partition behind the first, which holds GRUB where UEFI looks.
//!
//! Neither GRUB nor kernel bear a signature that a firmware knows, so with Secure Boot on it does not start.

use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::cache::{self, Recipe};
use super::command::{command, run, version_line};
use super::efi;
use super::tiny::TinyImage;

/// Where GRUB finds its menu when UEFI started it.
pub(super) const START: &str =
    "search --no-floppy --label --set=root root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n";
/// GRUB's modules.
const MODULES: [&str; 13] = [
    "part_msdos",
    "fat",
    "ext2",
    "normal",
    "configfile",
    "linux",
    "echo",
    "test",
    "search",
    "search_label",
    "sleep",
    "halt",
    "boot",
];
/// The partition's size in bytes.
pub(super) const PARTITION: u64 = 8 << 20;
/// The partition type "EFI".
const EFI: u8 = 0xef;
/// Bytes in a sector.
pub(super) const SECTOR: u64 = 512;

/// See [`super::tiny_uefi`].
pub fn image(cache_root: &Path, tiny: &TinyImage) -> anyhow::Result<TinyImage> {
    // The tiny guest's folder is named after its own recipe.
    let source = tiny.disk.parent().and_then(Path::file_name).unwrap_or_default();
    let recipe = Recipe::new("tiny-uefi")
        .with(&source.to_string_lossy())
        .with(START)
        .with(&MODULES.join(" "))
        .with(&version_line("grub-mkimage"));
    let folder = cache::get_or_make(cache_root, recipe, |folder| make(folder, &tiny.disk))?;
    Ok(TinyImage::of(&folder))
}

fn make(folder: &Path, disk: &Path) -> anyhow::Result<()> {
    let part = folder.join("esp");
    efi::write(folder, &part, START, &MODULES, Some(PARTITION)).context("the UEFI part of the tiny guest")?;
    with_partition(folder, disk, &part)
}

/// Makes `disk.qcow2` in the folder: a disk with the file `part` as its second partition. The file is removed.
///
/// # Errors
/// A tool fails, or the folder can't be written.
pub(super) fn with_partition(folder: &Path, disk: &Path, part: &Path) -> anyhow::Result<()> {
    let raw = folder.join("disk.raw");
    run(command("qemu-img").args(["convert", "-O", "raw"]).arg(disk).arg(&raw))?;
    append(&raw, &fs::read(part)?)?;
    run(command("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .arg(&raw)
        .arg(folder.join("disk.qcow2")))?;
    fs::remove_file(&raw)?;
    fs::remove_file(part)?;
    Ok(())
}

/// Puts a partition behind the end of a disk, as the second one.
fn append(raw: &Path, partition: &[u8]) -> anyhow::Result<()> {
    let mut disk = OpenOptions::new().read(true).write(true).open(raw)?;
    let end = disk.seek(SeekFrom::End(0))?;
    ensure!(end.is_multiple_of(1 << 20), "the disk is no whole number of MiB");
    disk.write_all(partition)?;
    disk.set_len(end + PARTITION)?;
    let mut entry = [0_u8; 16];
    // Addresses by cylinder, head and sector are out of use: the largest value says so.
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = EFI;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&u32::try_from(end / SECTOR)?.to_le_bytes());
    entry[12..16].copy_from_slice(&u32::try_from(PARTITION / SECTOR)?.to_le_bytes());
    disk.write_all_at(&entry, 446 + 16)?;
    Ok(())
}
