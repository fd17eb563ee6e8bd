//! The Debian 12 guest: `mmdebstrap`, a customize hook, and a disk with GRUB.

use std::path::{Path, PathBuf};

use super::boot_disk::{self, BootDisk};
use super::cache::{self, Recipe};
use super::command::{command, remove_tree, run, version_line};
use super::{apt, package_names, write_files};

/// The recipe's files, by the names that the customize hook finds them under.
const FILES: [(&str, &str); 3] = [
    ("customize.sh", include_str!("../../guests/debian/customize.sh")),
    ("cloud.cfg", include_str!("../../guests/debian/cloud.cfg")),
    ("grub.cfg", include_str!("../../guests/debian/grub.cfg")),
];
/// The packages, one a line, with comments.
const PACKAGES: &str = include_str!("../../guests/debian/packages.txt");
/// What is not unpacked: nobody reads manuals in a test.
pub(super) const EXCLUDED: [&str; 3] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];
/// The size of the disk in bytes; the image holds only what is used.
const DISK_SIZE: u64 = 4 << 30;

/// The Debian 12 guest.
///
/// No user, no password, no host keys, an empty machine id: cloud-init (NoCloud) makes them. Boots by BIOS from
/// `scsi0` on virtio-scsi, from virtio-blk, SATA or IDE; the menu waits 5 s on the VGA text screen.
#[derive(Debug, Clone)]
pub struct DebianImage {
    /// The disk: qcow2, 4 GiB virtual. Read-only for everyone: guests get overlays or copies.
    pub disk: PathBuf,
}

/// See [`super::debian`].
pub fn image(cache_root: &Path) -> anyhow::Result<DebianImage> {
    let mut recipe = Recipe::new("debian").with(PACKAGES).with(&version_line("grub-mkimage"));
    for (_, text) in FILES {
        recipe = recipe.with(text);
    }
    let folder = cache::get_or_make(cache_root, recipe, make)?;
    Ok(DebianImage { disk: folder.join("disk.qcow2") })
}

fn make(folder: &Path) -> anyhow::Result<()> {
    let root = folder.join("root");
    let files = folder.join("recipe");
    write_files(&files, &FILES)?;
    let packages: Vec<&str> = package_names(PACKAGES).collect();
    let mut mmdebstrap = command("mmdebstrap");
    mmdebstrap
        .args([
            "--quiet",
            "--mode=root",
            "--variant=apt",
            "--architectures=amd64",
            "--skip=cleanup/apt,cleanup/reproducible",
        ])
        .arg("--aptopt=Apt::Install-Recommends \"false\"")
        .arg("--dpkgopt=force-unsafe-io")
        .arg(format!("--include={}", packages.join(",")));
    for pattern in EXCLUDED {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    mmdebstrap
        .arg(format!("--customize-hook=sh {0}/customize.sh \"$1\" {0}", files.display()))
        .arg(apt::SUITE)
        .arg(&root)
        .args(apt::sources()?);
    run(&mut mmdebstrap)?;
    boot_disk::make(&BootDisk { root: &root, size: DISK_SIZE }, &folder.join("disk.qcow2"))?;
    remove_tree(&root)?;
    remove_tree(&files)
}
