//! The tiny guest for Secure Boot: behind its disk a partition with Debian's shim, which bears Microsoft's signature, and
//! Debian's signed GRUB, which starts the guest's kernel because Debian has signed that too.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::apt;
use super::cache::{self, Recipe};
use super::command::{command, remove_tree, run, version_line};
use super::tiny::TinyImage;
use super::uefi;

/// The packages; they are unpacked beside the guest, never installed.
const PACKAGES: &str = "shim-signed,grub-efi-amd64-signed";
/// What goes where: shim where UEFI looks, GRUB beside it, where shim looks.
const LOADERS: [(&str, &str); 2] = [
    ("usr/lib/shim/shimx64.efi.signed", "::/EFI/BOOT/BOOTX64.EFI"),
    ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "::/EFI/BOOT/grubx64.efi"),
];
/// Where Debian's signed GRUB looks for its menu.
const START: &str = "::/EFI/debian/grub.cfg";

/// The same on an install medium: Debian's has the GRUB that looks for its menu on the medium.
const LOADERS_OF_MEDIUM: [(&str, &str); 2] = [
    ("usr/lib/shim/shimx64.efi.signed", "EFI/BOOT/BOOTX64.EFI"),
    ("usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed", "EFI/BOOT/grubx64.efi"),
];

/// See [`super::tiny_signed`].
pub fn image(cache_root: &Path, tiny: &TinyImage) -> anyhow::Result<TinyImage> {
    let source = tiny.disk.parent().and_then(Path::file_name).unwrap_or_default();
    let recipe = Recipe::new("tiny-signed")
        .with(&source.to_string_lossy())
        .with(PACKAGES)
        .with(uefi::START)
        .with(&format!("{LOADERS:?} {START}"))
        .with(&version_line("mmdebstrap"));
    let folder = cache::get_or_make(cache_root, recipe, |folder| make(folder, &tiny.disk))?;
    Ok(TinyImage::of(&folder))
}

fn make(folder: &Path, disk: &Path) -> anyhow::Result<()> {
    let (root, part, start) = (folder.join("root"), folder.join("esp"), folder.join("start.cfg"));
    unpack(&root)?;
    fs::write(&start, uefi::START)?;
    let sectors = (uefi::PARTITION / uefi::SECTOR).to_string();
    run(command("mformat").arg("-i").arg(&part).args(["-C", "-T", &sectors, "-h", "2", "-s", "32", "::"]))?;
    run(command("mmd").arg("-i").arg(&part).args(["::/EFI", "::/EFI/BOOT", "::/EFI/debian"]))?;
    for (file, place) in LOADERS {
        run(command("mcopy").arg("-i").arg(&part).arg(root.join(file)).arg(place))?;
    }
    run(command("mcopy").arg("-i").arg(&part).arg(&start).arg(START))?;
    uefi::with_partition(folder, disk, &part)?;
    remove_tree(&root)?;
    fs::remove_file(&start)?;
    Ok(())
}

fn unpack(root: &Path) -> anyhow::Result<()> {
    run(command("mmdebstrap")
        .args(["--quiet", "--mode=root", "--variant=extract", "--architectures=amd64"])
        .args(["--skip=cleanup/apt,cleanup/reproducible", "--aptopt=Apt::Install-Recommends \"false\""])
        .arg(format!("--include={PACKAGES}"))
        .arg(apt::SUITE)
        .arg(root)
        .args(apt::sources()?))
    .context("the signed boot loaders")?;
    Ok(())
}

/// Puts them where an install medium has them.
pub(super) fn onto_medium(folder: &Path, tree: &Path) -> anyhow::Result<()> {
    let root = folder.join("root");
    unpack(&root)?;
    fs::create_dir_all(tree.join("EFI/BOOT"))?;
    for (file, place) in LOADERS_OF_MEDIUM {
        fs::copy(root.join(file), tree.join(place))?;
    }
    remove_tree(&root)
}
