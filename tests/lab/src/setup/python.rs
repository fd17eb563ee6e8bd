//! The Python clients that the tests let loose on the lab, pykickstart, which reads kickstart as Anaconda does, what judges
//! WinRM and PowerShell (pyspnego, pypsrp, pywinrm, a grammar); in an environment of their own below cargo's target folder.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use super::apt_get;
use crate::images::command::run;
use crate::images::target_dir;

/// What is installed from PyPI; the versions are those the tests were written with.
const PACKAGES: [&str; 9] = [
    "proxmoxer==2.3.0",
    "requests==2.34.2",
    "requests-toolbelt==1.0.0",
    "pykickstart==3.78",
    "pyspnego==0.12.4",
    "pypsrp==0.9.1",
    "pywinrm==0.5.0",
    "tree-sitter==0.26.1",
    "tree-sitter-powershell==0.26.4",
];

/// The environment's folder. Its name holds what is in it, so that other versions make another.
pub fn folder() -> PathBuf {
    target_dir().join(format!("lab-python-{}", PACKAGES.join("-").replace("==", "-")))
}

/// The interpreter that has the packages.
pub fn interpreter() -> PathBuf {
    folder().join("bin").join("python")
}

/// Makes the environment when it is not there.
///
/// # Errors
/// There is no Python that can make one, or the packages can't be had.
pub fn ensure(say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let folder = folder();
    // Written last: an environment whose making was interrupted is made again.
    let mark = folder.join("complete");
    if mark.is_file() {
        return Ok(());
    }
    say(&format!("installing {} from PyPI", PACKAGES.join(", ")));
    let _ = std::fs::remove_dir_all(&folder);
    let make = || run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    if make().is_err() {
        // Debian's Python comes without what makes environments.
        let _ = std::fs::remove_dir_all(&folder);
        apt_get(&["update", "-q"])?;
        super::install(&["python3", "python3-venv"])?;
        make().context("python3 can't make an environment (Debian's package python3-venv)")?;
    }
    run(Command::new(interpreter())
        .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
        .args(PACKAGES))
    .context("the Python clients can't be installed")?;
    std::fs::write(&mark, "").with_context(|| format!("{} can't be written", mark.display()))
}
