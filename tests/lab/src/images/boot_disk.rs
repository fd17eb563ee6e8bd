//! Makes a bootable disk out of a directory, without a loop device, a mount or `grub-install`.
//!
//! The disk has a DOS partition table with one ext4 partition, filled by `mke2fs -d`. GRUB for BIOS goes where
//! `grub-install` would put it: `boot.img` into the code part of sector 0, `core.img` into the gap after it, from
//! sector 1. The defaults in both images (core image at sector 1, the rest from sector 2, boot drive as the BIOS
//! gives it) are right for that place, so nothing needs patching (GRUB manual, "Image-file format" of 2.06).

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::command::{command, run};

/// Bytes in a sector.
const SECTOR: u64 = 512;
/// Where the partition starts: 1 MiB, which leaves GRUB's core image its gap.
const PARTITION_START: u64 = 2048 * SECTOR;
/// Where the partition table starts in sector 0; the boot code must end before the disk signature ahead of it.
const BOOT_CODE_LENGTH: usize = 440;
/// The partition type "Linux".
const LINUX: u8 = 0x83;

/// The folder of GRUB's images for BIOS (Debian's package `grub-pc-bin`).
const GRUB_MODULES: &str = "/usr/lib/grub/i386-pc";
/// What GRUB's core image holds: enough for a menu that can be edited and for looking around.
const MODULES: [&str; 20] = [
    "biosdisk",
    "part_msdos",
    "ext2",
    "normal",
    "configfile",
    "linux",
    "echo",
    "test",
    "search",
    "search_label",
    "search_fs_uuid",
    "ls",
    "cat",
    "help",
    "minicmd",
    "sleep",
    "halt",
    "reboot",
    "boot",
    "true",
];

/// What to put on a disk.
pub struct BootDisk<'a> {
    /// The directory that becomes the root file system; it holds `boot/grub/grub.cfg`.
    pub root: &'a Path,
    /// The size of the whole disk in bytes.
    pub size: u64,
}

/// Writes the disk as a qcow2 image at `image`, using files beside it while it works.
///
/// # Errors
/// A tool is missing or fails, or the directory doesn't fit.
pub fn make(disk: &BootDisk<'_>, image: &Path) -> anyhow::Result<()> {
    let raw = image.with_extension("raw");
    let core = image.with_extension("core");
    let file = File::create(&raw).with_context(|| format!("{} can't be made", raw.display()))?;
    file.set_len(disk.size)?;
    drop(file);

    let blocks = (disk.size - PARTITION_START) / 1024;
    run(command("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-L", "root"])
        .arg("-E")
        .arg(format!("offset={PARTITION_START},lazy_itable_init=1,lazy_journal_init=1"))
        .arg("-d")
        .arg(disk.root)
        .arg(&raw)
        .arg(format!("{blocks}k")))?;

    run(command("grub-mkimage")
        .args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o"])
        .arg(&core)
        .args(MODULES))?;
    install_grub(&raw, &core, disk.size)?;

    run(command("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(image))?;
    fs::remove_file(&core)?;
    fs::remove_file(&raw)?;
    Ok(())
}

/// Writes the boot sector with its partition table, and the core image after it.
fn install_grub(raw: &Path, core: &Path, size: u64) -> anyhow::Result<()> {
    let boot_path = Path::new(GRUB_MODULES).join("boot.img");
    let boot = fs::read(&boot_path).with_context(|| format!("{} can't be read", boot_path.display()))?;
    let core = fs::read(core)?;
    ensure!(
        core.len() as u64 <= PARTITION_START - SECTOR,
        "GRUB's core image ({} bytes) is larger than the gap before the partition",
        core.len()
    );
    let mut disk = OpenOptions::new().write(true).open(raw)?;
    disk.write_all_at(&boot_sector(&boot, size)?, 0)?;
    disk.seek(SeekFrom::Start(SECTOR))?;
    disk.write_all(&core)?;
    Ok(())
}

/// The first sector: GRUB's boot code, and one active partition up to the end of the disk.
fn boot_sector(boot: &[u8], size: u64) -> anyhow::Result<[u8; 512]> {
    ensure!(boot.len() == 512, "GRUB's boot.img has {} bytes instead of 512", boot.len());
    let first = u32::try_from(PARTITION_START / SECTOR)?;
    let count = u32::try_from((size - PARTITION_START) / SECTOR)?;
    let mut sector = [0_u8; 512];
    sector[..BOOT_CODE_LENGTH].copy_from_slice(&boot[..BOOT_CODE_LENGTH]);
    let entry = &mut sector[446..462];
    entry[0] = 0x80;
    // Addresses by cylinder, head and sector are out of use: the largest value says so.
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = LINUX;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&first.to_le_bytes());
    entry[12..16].copy_from_slice(&count.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    Ok(sector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_holds_the_boot_code_and_one_active_partition_to_the_end() {
        let sector = boot_sector(&[0x90; 512], 64 << 20).unwrap();
        assert!(sector[..440].iter().all(|byte| *byte == 0x90));
        assert_eq!(sector[446], 0x80);
        assert_eq!(u32::from_le_bytes(sector[454..458].try_into().unwrap()), 2048);
        assert_eq!(u32::from_le_bytes(sector[458..462].try_into().unwrap()), (64 << 11) - 2048);
        assert!(sector[462..510].iter().all(|byte| *byte == 0));
        assert_eq!(sector[510..], [0x55, 0xaa]);
    }
}
