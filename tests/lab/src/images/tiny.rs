//! The tiny guest: packages unpacked by `mmdebstrap` and never configured, busybox's init, a few shell scripts.

use std::path::{Path, PathBuf};

use super::boot_disk::{self, BootDisk};
use super::cache::{self, Recipe};
use super::command::{command, remove_tree, run, version_line};
use super::{apt, package_names, write_files};

/// The recipe's files, by the names that `customize.sh` finds them under.
const FILES: [(&str, &str); 12] = [
    ("customize.sh", include_str!("../../guests/tiny/customize.sh")),
    ("grub.cfg", include_str!("../../guests/tiny/grub.cfg")),
    ("initrd-init", include_str!("../../guests/tiny/initrd-init")),
    ("inittab", include_str!("../../guests/tiny/inittab")),
    ("rcS", include_str!("../../guests/tiny/rcS")),
    ("sshd", include_str!("../../guests/tiny/sshd")),
    ("agent", include_str!("../../guests/tiny/agent")),
    ("udhcpc.script", include_str!("../../guests/tiny/udhcpc.script")),
    ("seed", include_str!("../../guests/tiny/seed")),
    ("shutdown", include_str!("../../guests/tiny/shutdown")),
    ("cloud-init", include_str!("../../guests/tiny/cloud-init")),
    ("userdel", include_str!("../../guests/tiny/userdel")),
];
/// The packages, one a line, with comments.
const PACKAGES: &str = include_str!("../../guests/tiny/packages.txt");
/// The size of the disk in bytes.
const DISK_SIZE: u64 = 256 << 20;

/// The tiny guest.
///
/// Reads a NoCloud seed (kernel command line, SMBIOS serial, disc labelled `cidata`) for a host name, one user and SSH
/// keys; runs dropbear with SFTP, the guest agent and `sudo`; its root is a real file system, so what is
/// written stays over a reboot and in a clone. `/etc/os-release` says `ID=tiny`.
#[derive(Debug, Clone)]
pub struct TinyImage {
    /// The disk: qcow2, 256 MiB virtual. Read-only for everyone: guests get overlays or copies.
    pub disk: PathBuf,
}

impl TinyImage {
    /// The disk in a folder of the cache.
    pub(super) fn of(folder: &Path) -> Self {
        Self { disk: folder.join("disk.qcow2") }
    }

    /// The kernel and the initrd of the tiny guest that starts by BIOS, for who starts it without a boot loader; it
    /// also drives virtio devices that are on no PCI bus.
    #[must_use]
    pub fn kernel(&self) -> [PathBuf; 2] {
        ["vmlinuz", "initrd"].map(|name| self.disk.with_file_name(name))
    }
}

/// See [`super::tiny`].
pub fn image(cache_root: &Path) -> anyhow::Result<TinyImage> {
    let mut recipe = Recipe::new("tiny").with(PACKAGES).with(&version_line("grub-mkimage"));
    for (_, text) in FILES {
        recipe = recipe.with(text);
    }
    let folder = cache::get_or_make(cache_root, recipe, make)?;
    Ok(TinyImage::of(&folder))
}

fn make(folder: &Path) -> anyhow::Result<()> {
    let root = folder.join("root");
    let files = folder.join("recipe");
    write_files(&files, &FILES)?;
    let packages: Vec<&str> = package_names(PACKAGES).collect();
    run(command("mmdebstrap")
        .args(["--quiet", "--mode=root", "--variant=extract", "--architectures=amd64"])
        .args(["--skip=cleanup/apt,cleanup/reproducible", "--aptopt=Apt::Install-Recommends \"false\""])
        .arg(format!("--include={}", packages.join(",")))
        .arg(apt::SUITE)
        .arg(&root)
        .args(apt::sources()?))?;
    run(command("sh").arg("-eu").arg(files.join("customize.sh")).arg(&root).arg(&files))?;
    boot_disk::make(&BootDisk { root: &root, size: DISK_SIZE }, &folder.join("disk.qcow2"))?;
    remove_tree(&root)?;
    remove_tree(&files)
}
