//! The npm packages that the tests let loose on the lab in a browser: noVNC. They lie in a folder of their own below
//! cargo's target folder; `package-lock.json` pins version and content.

use std::path::PathBuf;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::images::command::{command, run};
use crate::images::target_dir;

const MANIFEST: &str = include_str!("../../tests/strangers/package.json");
const LOCK: &str = include_str!("../../tests/strangers/package-lock.json");

/// The folder's name holds what is in it, so that other versions make another.
fn folder() -> PathBuf {
    let hash = Sha256::digest(LOCK.as_bytes());
    let short: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    target_dir().join(format!("lab-node-{short}"))
}

/// The folder of noVNC, with `core/rfb.js` in it once [`ensure`] has run.
pub fn novnc() -> PathBuf {
    folder().join("node_modules/@novnc/novnc")
}

/// Installs the packages when they are not there.
///
/// # Errors
/// There is no npm, or the packages can't be had, or are not those of the lock file.
pub fn ensure(say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let folder = folder();
    // Written last: an installation that was interrupted is made again.
    let mark = folder.join("complete");
    if mark.is_file() {
        return Ok(());
    }
    say("installing noVNC from npm");
    std::fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
    std::fs::write(folder.join("package.json"), MANIFEST)?;
    std::fs::write(folder.join("package-lock.json"), LOCK)?;
    run(command("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"])
        .current_dir(&folder))
    .context("noVNC can't be installed")?;
    std::fs::write(&mark, "").with_context(|| format!("{} can't be written", mark.display()))
}
