//! The programs that the commands run: cargo and the forge binary it builds.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, bail};

use super::output;
use crate::images::workspace_dir;

/// What `cargo run` tells the program that it runs, which is about that program's package.
const ABOUT_THIS_PACKAGE: [&str; 5] =
    ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"];

/// Cargo in the workspace's folder: the one that runs this program, else the one in the path. It is not told what
/// `cargo run` says of this program's package: build scripts that depend on such variables (ring's) would run again, and
/// all that is built upon them, whenever a build by hand and one of this program's follow each other.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if ABOUT_THIS_PACKAGE.iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(name);
        }
    }
    command.current_dir(workspace_dir());
    command
}

/// Builds the forge binary and returns its path: beside this program, whose profile and target are the same, or in the
/// release folder next to that.
///
/// # Errors
/// The build fails.
pub fn build_forge(release: bool) -> anyhow::Result<PathBuf> {
    output::say("building forge");
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--workspace", "--bin", "forge"]);
    if release {
        build.arg("--release");
    }
    let status = build.status().context("cargo can't be run")?;
    if !status.success() {
        bail!("cargo build of forge failed ({status})");
    }
    forge_path(release)
}

/// Where the forge binary is.
///
/// # Errors
/// It isn't there.
pub fn forge_path(release: bool) -> anyhow::Result<PathBuf> {
    let own = crate::netns::own_path()?;
    let profile = own.parent().context("this program's folder is unknown")?;
    let path = match release {
        true => profile.with_file_name("release").join("forge"),
        false => profile.join("forge"),
    };
    if !path.is_file() {
        bail!("{} is not there: build it with cargo build --bin forge", path.display());
    }
    Ok(path)
}

/// Turns a child's end into an error unless it was a success.
///
/// # Errors
/// The child failed.
pub fn succeeded(status: ExitStatus, what: &str) -> anyhow::Result<()> {
    if status.success() { Ok(()) } else { bail!("{what} failed ({status})") }
}
