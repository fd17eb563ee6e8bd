//! A real QEMU for one test, and the boot media it starts from.

#![expect(clippy::print_stdout, reason = "a skipped test says why")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use forge_console::Console;
use tokio::net::UnixStream;

use super::grub_disk::{TRANSLATION, run};

/// A running QEMU; dropped, it is killed by its own id and waited for.
pub struct Vm {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Vm {
    /// Starts a PC with VGA, no network and a display on a Unix socket; `disk` is its only disk.
    pub fn start(folder: tempfile::TempDir, disk: &Path) -> Result<Self> {
        Self::start_with(folder, disk, "", &[])
    }

    /// The same, with more options for the display and for QEMU.
    pub fn start_with(folder: tempfile::TempDir, disk: &Path, display: &str, more: &[&str]) -> Result<Self> {
        let socket = folder.path().join("vnc");
        let child = Command::new("qemu-system-x86_64")
            .args(more)
            .args([
                "-accel",
                TRANSLATION,
                "-m",
                "256",
                "-display",
                "none",
                "-net",
                "none",
                "-nodefaults",
                "-vga",
                "std",
            ])
            .arg("-drive")
            .arg(format!("file={},format=raw,if=ide", disk.display()))
            .arg("-vnc")
            // As forge starts its own QEMU.
            .arg(format!("unix:{}{display},key-delay-ms=1", socket.display()))
            .stdin(Stdio::null())
            .spawn()
            .context("starting qemu-system-x86_64")?;
        Ok(Self { child, folder })
    }

    /// Opens the console as soon as QEMU listens.
    pub async fn console(&self) -> Result<Console> {
        self.console_with(None).await
    }

    /// The same, with a password.
    pub async fn console_with(&self, password: Option<&str>) -> Result<Console> {
        let socket = self.folder.path().join("vnc");
        let began = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket).await {
                Ok(stream) => break stream,
                Err(error) if began.elapsed() > Duration::from_secs(20) => {
                    bail!("QEMU does not listen: {error}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        Ok(Console::open(stream, password).await?)
    }
}

/// Says why a test can't run here, if so.
pub fn missing(tools: &[&str]) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&paths).collect();
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    for tool in tools {
        let there = Path::new(tool).is_absolute() && Path::new(tool).exists();
        if !there && !folders.iter().any(|folder| folder.join(tool).exists()) {
            println!("skipped: {tool} is not installed");
            return true;
        }
    }
    false
}

/// An empty disk.
pub fn empty_disk(folder: &Path) -> Result<PathBuf> {
    let disk = folder.join("empty.img");
    fs::File::create(&disk)?.set_len(1 << 20)?;
    Ok(disk)
}

/// A disk that boots extlinux to its prompt; needs root for a loop mount.
pub fn extlinux_disk(folder: &Path, configuration: &str) -> Result<PathBuf> {
    const FIRST_SECTOR: u64 = 2048;
    let (disk, mount) = (folder.join("extlinux.img"), folder.join("mount"));
    fs::File::create(&disk)?.set_len(24 << 20)?;
    fs::create_dir(&mount)?;
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext2", "-E"])
        .arg(format!("offset={}", FIRST_SECTOR * 512))
        .arg(&disk)
        .arg("20M"))?;
    run(Command::new("mount")
        .arg("-o")
        .arg(format!("loop,offset={}", FIRST_SECTOR * 512))
        .arg(&disk)
        .arg(&mount))?;
    let filled = fs::write(mount.join("extlinux.conf"), configuration)
        .map_err(anyhow::Error::from)
        .and_then(|()| run(Command::new("extlinux").arg("--install").arg(&mount)));
    run(Command::new("umount").arg(&mount))?;
    filled?;
    let mut image = fs::read(&disk)?;
    let boot = fs::read("/usr/lib/EXTLINUX/mbr.bin")?;
    image[..boot.len()].copy_from_slice(&boot);
    // One active Linux partition.
    let mut entry = [0_u8; 16];
    entry[0] = 0x80;
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&(FIRST_SECTOR as u32).to_le_bytes());
    entry[12..16].copy_from_slice(&40_960_u32.to_le_bytes());
    image[446..462].copy_from_slice(&entry);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(&disk, image)?;
    Ok(disk)
}
