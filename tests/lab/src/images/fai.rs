//! A medium of FAI (Fully Automatic Installation), made by FAI's own tools from Debian's packages.
//!
//! `fai-make-nfsroot` makes the system that the medium starts, `fai-cd` the CD, with FAI's own menu. It installs what the
//! configuration space says that `FAI_CONFIG_SRC=URL` on its kernel's line names; none is on the medium. The installed
//! system's base file is on it, so that neither needs a network beyond that address.
//!
//! FAI's tools mount what they need (`/proc`, a loop device); they run in a mount namespace of their own, so that nothing
//! stays mounted on this machine, however they end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{self, Recipe};
use super::command::{command, remove_tree, run};
use super::debian::EXCLUDED;
use super::{apt, package_names, write_files};

/// What FAI's tools read, by the names that they look for.
const FILES: [(&str, &str); 3] = [
    ("NFSROOT", include_str!("../../guests/fai/NFSROOT")),
    ("nfsroot.conf", include_str!("../../guests/fai/nfsroot.conf")),
    ("fai.conf", "LOGUSER=\n"),
];
/// The packages of the system that is installed, one a line, with comments.
const PACKAGES: &str = include_str!("../../guests/fai/packages.txt");
/// The menu of FAI's package, which the medium has.
const MENU: &str = "/etc/fai/grub.cfg";
/// What an installed system makes for itself, or has from the machine that it is installed on.
const CLEAN: &str = "rm -f \"$1\"/etc/ssh/ssh_host_* \"$1\"/etc/apt/sources.list \"$1\"/etc/resolv.conf; : >\"$1\"/etc/machine-id";

/// The medium of FAI.
#[derive(Debug, Clone)]
pub struct FaiMedium {
    /// The CD image, labelled `FAI_CD`. Read-only for everyone.
    pub iso: PathBuf,
}

/// See [`super::fai`].
pub fn image(cache_root: &Path) -> anyhow::Result<FaiMedium> {
    let version = run(command("dpkg-query").args(["-W", "-f", "${Version}", "fai-server"]))?;
    let mut recipe = Recipe::new("fai").with(PACKAGES).with(CLEAN).with(&version);
    for (_, text) in FILES {
        recipe = recipe.with(text);
    }
    let folder = cache::get_or_make(cache_root, recipe, make)?;
    Ok(FaiMedium { iso: folder.join("fai.iso") })
}

fn make(folder: &Path) -> anyhow::Result<()> {
    let folder = &std::path::absolute(folder)?;
    let etc = folder.join("etc");
    write_files(&etc, &FILES)?;
    fs::copy(MENU, etc.join("grub.cfg"))?;
    fs::create_dir_all(etc.join("apt"))?;
    fs::write(etc.join("apt/sources.list"), apt::sources()?.join("\n") + "\n")?;
    // A configuration space without a class: what is installed is said by the one that the kernel's line names.
    fs::create_dir_all(folder.join("config/class"))?;

    let [base, target] = ["base", "target"].map(|name| folder.join(format!("{name}.tar.zst")));
    bootstrap(&base, &["ca-certificates"], "true")?;
    bootstrap(&target, &package_names(PACKAGES).collect::<Vec<_>>(), CLEAN)?;
    run(fai(folder, "fai-make-nfsroot").args(["-f", "-s", "-C"]).arg(&etc).arg("-B").arg(&base))?;
    fs::rename(&target, folder.join("nfsroot/var/tmp/base.tar.zst"))?;
    let space = folder.join("tmp");
    fs::create_dir(&space)?;
    run(fai(folder, "fai-cd")
        .env("TMPDIR", &space)
        .args(["-M", "-C"])
        .arg(&etc)
        .arg(folder.join("fai.iso")))?;
    for left in ["etc", "config", "nfsroot", "tftp", "tmp"] {
        remove_tree(&folder.join(left))?;
    }
    Ok(fs::remove_file(&base)?)
}

/// Debian with these packages, as an archive.
fn bootstrap(archive: &Path, packages: &[&str], customize: &str) -> anyhow::Result<()> {
    let mut mmdebstrap = command("mmdebstrap");
    mmdebstrap
        .args(["--quiet", "--mode=root", "--variant=apt", "--architectures=amd64"])
        .arg("--aptopt=Apt::Install-Recommends \"false\"")
        .arg("--dpkgopt=force-unsafe-io")
        .args(EXCLUDED.map(|pattern| format!("--dpkgopt=path-exclude={pattern}")))
        .arg(format!("--include={}", packages.join(",")))
        .arg(format!("--customize-hook={customize}"))
        .arg(apt::SUITE)
        .arg(archive)
        .args(apt::sources()?);
    run(&mut mmdebstrap).map(drop)
}

/// One of FAI's tools, with mounts that end with it.
fn fai(folder: &Path, tool: &str) -> Command {
    let mut unshare = command("unshare");
    unshare.args(["--mount", "--propagation", "private", tool]);
    unshare.env("FORGE_FAI", folder);
    unshare
}
