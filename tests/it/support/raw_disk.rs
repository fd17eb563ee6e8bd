//! A lab guest's disk as a raw file of a site, whose files can be replaced while nothing runs on it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::local_site::LocalSite;

/// Where the only partition of the tiny guest's disk starts.
const PARTITION: u64 = 1 << 20;

/// The disk, `disk.raw` in the site's folder.
#[derive(Debug)]
pub struct RawDisk {
    folder: PathBuf,
}

impl RawDisk {
    /// Copies a disk of the lab.
    pub fn of(site: &LocalSite, disk: &Path) -> Self {
        let folder = site.path().to_path_buf();
        run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(disk).arg("disk.raw"), &folder);
        Self { folder }
    }

    /// Replaces a file of the disk.
    pub fn replace(&self, path: &str, text: &str) {
        let own = self.folder.join("replacement");
        std::fs::write(&own, text).expect("the folder is ours");
        self.debugfs("-wR", &format!("rm {path}"));
        self.debugfs("-wR", &format!("write replacement {path}"));
        std::fs::remove_file(own).expect("just written");
    }

    /// Gives the boot loader's second part these modules besides those for a menu; it lies behind the first sector.
    pub fn boot_loader(&self, more: &[&str]) {
        let modules = ["biosdisk", "part_msdos", "ext2", "normal", "configfile", "linux", "echo", "test"];
        let mut make = Command::new("grub-mkimage");
        make.args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o", "core.img"])
            .args(modules)
            .args(more);
        run(&mut make, &self.folder);
        let core = std::fs::read(self.folder.join("core.img")).expect("just made");
        assert!(core.len() as u64 <= PARTITION - 512, "it would reach into the partition");
        let disk = std::fs::OpenOptions::new().write(true).open(self.folder.join("disk.raw")).expect("there");
        std::os::unix::fs::FileExt::write_all_at(&disk, &core, 512).expect("it is ours");
    }

    /// Overwrites the boot loader's first sector, partition table and all.
    pub fn wipe_start(&self) {
        let disk = std::fs::OpenOptions::new().write(true).open(self.folder.join("disk.raw")).expect("there");
        std::os::unix::fs::FileExt::write_all_at(&disk, &[0; 512], 0).expect("it is ours");
    }

    fn debugfs(&self, option: &str, request: &str) {
        let place = format!("disk.raw?offset={PARTITION}");
        run(Command::new("debugfs").args([option, request]).arg(place), &self.folder);
    }
}

/// Runs a tool that the lab's set-up installs.
fn run(command: &mut Command, folder: &Path) {
    let output = command.current_dir(folder).output().expect("the lab's set-up installs it");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
