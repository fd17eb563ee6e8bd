//! A boot disk with GRUB on it and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// How QEMU is to translate a GRUB. With its default, a cache of up to 1 GiB, GRUB takes twice as long for a key: each of its calls
/// of the BIOS leaves translated code that is never used again, and looking through it takes longer and longer.
pub const TRANSLATION: &str = "tcg,thread=multi,tb-size=32";

/// A disk that boots GRUB in VGA text mode with this configuration.
pub fn grub_disk(folder: &Path, configuration: &str) -> Result<PathBuf> {
    let (tree, tar) = (folder.join("tree"), folder.join("memdisk.tar"));
    fs::create_dir(&tree)?;
    fs::write(tree.join("grub.cfg"), configuration)?;
    run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&tree).arg("grub.cfg"))?;
    let (early, core) = (folder.join("early.cfg"), folder.join("core.img"));
    fs::write(&early, "configfile (memdisk)/grub.cfg\n")?;
    run(Command::new("grub-mkimage")
        .args(["-O", "i386-pc", "-p", "(memdisk)", "-c"])
        .arg(&early)
        .arg("-m")
        .arg(&tar)
        .arg("-o")
        .arg(&core)
        .args([
            "memdisk",
            "tar",
            "biosdisk",
            "normal",
            "configfile",
            "linux",
            "echo",
            "test",
            "minicmd",
            "sleep",
            "vga_text",
        ]))?;
    let disk = folder.join("grub.img");
    let mut image = fs::read("/usr/lib/grub/i386-pc/boot.img")?;
    ensure!(image.len() == 512, "boot.img is one sector");
    image.extend(fs::read(core)?);
    image.resize(image.len().next_multiple_of(1 << 20), 0);
    fs::write(&disk, image)?;
    Ok(disk)
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
