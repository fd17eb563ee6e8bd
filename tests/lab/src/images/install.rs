//! An install medium of our own making: a CD with a kernel, an initrd and an unattended script that writes a disk.
//!
//! It boots by BIOS and by UEFI, shows GRUB's menu for a minute on the text screen, and installs the tiny guest onto the
//! first disk: `answers=URL` on the kernel's line names a file with `hostname=`, `key=` (an SSH key of root) and
//! `after=reboot|poweroff|again`, the last for a disk that starts the installer anew; without, a disc labelled `OEMDRV` or `cidata` may hold the file `answers`; without that, it
//! asks on the screen. What it says goes to the screen and to the serial port, each line after `installer: `.
//!
//! Everything comes out of the tiny guest's disk, so nothing is downloaded for it.

use std::fs;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::cache::{self, Recipe};
use super::command::{command, remove_tree, run, version_line};
use super::efi;
use super::signed;
use super::tiny::TinyImage;

/// What the first process of the medium does.
const INIT: &str = include_str!("../../guests/install/init");
/// GRUB's menu.
const MENU: &str = include_str!("../../guests/install/grub.cfg");
/// How DHCP's answer is applied.
const DHCP: &str = include_str!("../../guests/tiny/udhcpc.script");
/// Where GRUB finds its menu when UEFI started it from the small image inside the CD.
const EFI_START: &str = "search --no-floppy --file --set=root /payload/extents\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n";
/// GRUB's modules on both firmwares.
const MODULES: [&str; 17] = [
    "iso9660",
    "normal",
    "configfile",
    "linux",
    "echo",
    "test",
    "search",
    "search_fs_file",
    "search_label",
    "ls",
    "cat",
    "help",
    "minicmd",
    "sleep",
    "halt",
    "reboot",
    "boot",
];
/// Where the partition of the tiny guest's disk begins.
const PARTITION: &str = "1048576";
/// The grain in which the disk's used parts are told from its empty ones.
const GRAIN: usize = 1 << 20;

/// The install medium.
#[derive(Debug, Clone)]
pub struct InstallMedium {
    /// The CD image, about 120 MiB, labelled `FORGE_INSTALL`. Read-only for everyone.
    pub iso: PathBuf,
}

/// See [`super::install`]; `signed` puts signed loaders for UEFI onto it.
pub fn image(cache_root: &Path, tiny: &TinyImage, signed: bool) -> anyhow::Result<InstallMedium> {
    // The tiny guest's folder is named after its own recipe.
    let source = tiny.disk.parent().and_then(Path::file_name).unwrap_or_default();
    let recipe = Recipe::new("install")
        .with(&source.to_string_lossy())
        .with(INIT)
        .with(MENU)
        .with(DHCP)
        .with(EFI_START)
        .with(&version_line("grub-mkimage"));
    let recipe = if signed { recipe.with("signed") } else { recipe };
    let folder = cache::get_or_make(cache_root, recipe, |folder| make(folder, &tiny.disk, signed))?;
    Ok(InstallMedium { iso: folder.join("install.iso") })
}

fn make(folder: &Path, disk: &Path, signed: bool) -> anyhow::Result<()> {
    let raw = folder.join("disk.raw");
    let tree = folder.join("tree");
    let grub = tree.join("boot/grub");
    fs::create_dir_all(&grub)?;
    fs::create_dir_all(tree.join("payload"))?;
    run(command("qemu-img").args(["convert", "-O", "raw"]).arg(disk).arg(&raw))?;
    write_payload(&raw, &tree.join("payload"))?;
    dump(&raw, "dump /boot/vmlinuz", &tree.join("boot/vmlinuz"))?;
    write_initrd(&raw, folder, &tree.join("boot/initrd"))?;
    fs::remove_file(&raw)?;
    fs::write(grub.join("grub.cfg"), MENU)?;
    run(command("grub-mkimage")
        .args(["-O", "i386-pc-eltorito", "-p", "/boot/grub", "-o"])
        .arg(grub.join("bios.img"))
        .arg("biosdisk")
        .args(MODULES))?;
    let modules: Vec<&str> = ["part_gpt", "part_msdos", "fat"].into_iter().chain(MODULES).collect();
    efi::write(folder, &grub.join("efi.img"), EFI_START, &modules, None)
        .context("the UEFI part of the install medium")?;
    if signed {
        signed::onto_medium(folder, &tree)?;
    }
    run(command("genisoimage")
        .args(["-quiet", "-iso-level", "3", "-J", "-R", "-V", "FORGE_INSTALL"])
        .args(["-b", "boot/grub/bios.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
        .args(["-eltorito-alt-boot", "-e", "boot/grub/efi.img", "-no-emul-boot", "-o"])
        .arg(folder.join("install.iso"))
        .arg(&tree))?;
    remove_tree(&tree)
}

/// Copies something out of the file system on the disk.
fn dump(raw: &Path, request: &str, to: &Path) -> anyhow::Result<()> {
    let partition = format!("{}?offset={PARTITION}", raw.display());
    run(command("debugfs").arg("-R").arg(format!("{request} {}", to.display())).arg(partition))?;
    ensure!(to.exists(), "debugfs did not {request}");
    Ok(())
}

/// The used parts of the disk, one after the other, and where they belong: `OFFSET COUNT`, in MiB.
fn write_payload(raw: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut disk = fs::File::open(raw)?;
    let mut data = BufWriter::new(fs::File::create(folder.join("data"))?);
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut grain = vec![0; GRAIN];
    let mut at = 0;
    loop {
        let mut read = 0;
        while read < GRAIN {
            match disk.read(&mut grain[read..])? {
                0 => break,
                more => read += more,
            }
        }
        if read == 0 {
            break;
        }
        if grain[..read].iter().any(|byte| *byte != 0) {
            ensure!(read == GRAIN, "the disk is no whole number of MiB");
            data.write_all(&grain)?;
            match runs.last_mut() {
                Some((start, count)) if *start + *count == at => *count += 1,
                _ => runs.push((at, 1)),
            }
        }
        at += 1;
    }
    data.flush()?;
    let lines: String = runs.iter().map(|(start, count)| format!("{start} {count}\n")).collect();
    fs::write(folder.join("extents"), lines)?;
    Ok(())
}

/// The guest's own initrd with all of its modules and our first process.
fn write_initrd(raw: &Path, folder: &Path, target: &Path) -> anyhow::Result<()> {
    let old = folder.join("initrd.cpio");
    let tree = folder.join("initrd");
    dump(raw, "dump /boot/initrd", &old)?;
    fs::create_dir_all(tree.join("lib"))?;
    fs::create_dir_all(tree.join("etc"))?;
    shell("cpio --quiet -i -d --no-absolute-filenames <\"$1\"", &tree, &old)?;
    remove_tree(&tree.join("modules"))?;
    dump(raw, "rdump /lib/modules", &tree.join("lib"))?;
    for (name, text) in [("init", INIT), ("etc/udhcpc.script", DHCP)] {
        fs::write(tree.join(name), text)?;
        run(command("chmod").arg("755").arg(tree.join(name)))?;
    }
    shell("find . | cpio --quiet -o -H newc -R 0:0 >\"$1\"", &tree, target)?;
    fs::remove_file(&old)?;
    remove_tree(&tree)
}

/// Runs a line of shell in a folder, with one path as `$1`.
fn shell(line: &str, folder: &Path, path: &Path) -> anyhow::Result<()> {
    let path = std::path::absolute(path)?;
    run(command("sh").args(["-eu", "-c", line, "sh"]).arg(path).current_dir(folder)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_holds_the_used_parts_and_where_they_belong() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("raw");
        let mut disk = vec![0_u8; 6 * GRAIN];
        disk[0] = 1;
        disk[3 * GRAIN] = 2;
        disk[5 * GRAIN - 1] = 3;
        fs::write(&raw, &disk).unwrap();
        write_payload(&raw, folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("extents")).unwrap(), "0 1\n3 2\n");
        let data = fs::read(folder.path().join("data")).unwrap();
        assert_eq!(data.len(), 3 * GRAIN);
        assert_eq!((data[0], data[GRAIN], data[3 * GRAIN - 1]), (1, 2, 3));
    }
}
