//! A FAT file system with GRUB where UEFI looks for it.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::command::{command, run};

/// Bytes in a sector.
const SECTOR: u64 = 512;
/// Without a size of its own it is as large as GRUB needs, in these steps.
const STEP: u64 = 1 << 20;

/// Writes one whose GRUB runs `start` first and holds `modules`.
///
/// # Errors
/// GRUB's tools or mtools fail.
pub fn write(
    folder: &Path,
    target: &Path,
    start: &str,
    modules: &[&str],
    size: Option<u64>,
) -> anyhow::Result<()> {
    let (first, loader) = (folder.join("start.cfg"), folder.join("loader.efi"));
    fs::write(&first, start)?;
    run(command("grub-mkimage")
        .args(["-O", "x86_64-efi", "-p", "/boot/grub", "-c"])
        .arg(&first)
        .arg("-o")
        .arg(&loader)
        .args(modules))?;
    let size = match size {
        Some(size) => size,
        None => (fs::metadata(&loader)?.len().div_ceil(STEP) + 1) * STEP,
    };
    let sectors = (size / SECTOR).to_string();
    run(command("mformat").arg("-i").arg(target).args(["-C", "-T", &sectors, "-h", "2", "-s", "32", "::"]))
        .context("mformat")?;
    run(command("mmd").arg("-i").arg(target).args(["::/EFI", "::/EFI/BOOT"]))?;
    run(command("mcopy").arg("-i").arg(target).arg(&loader).arg("::/EFI/BOOT/BOOTX64.EFI"))?;
    fs::remove_file(&loader)?;
    fs::remove_file(&first)?;
    Ok(())
}
