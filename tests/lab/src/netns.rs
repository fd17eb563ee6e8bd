//! A network namespace of the lab's own, so that ports 22 and 8006 are free and the guests are truly offline.
//!
//! The namespace is entered by running the program again inside `unshare`, before it has started any thread: the second
//! run finds a mark in its environment. Everything below (lab, client, guests) lives and ends with it.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::images::command::{command, run};

/// The mark in the environment of the second run.
const MARK: &str = "FORGE_LAB_NETNS";

/// The ways into a namespace, tried in this order: without privileges, and as root where user namespaces are off.
const WAYS: [&[&str]; 2] = [&["--user", "--map-root-user", "--net"], &["--net"]];

/// Where the program runs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// In a namespace with nothing but its own loopback interface.
    Own,
    /// On the host: the reason has been said.
    Host,
}

/// Whether this is the second run, so that what the first did needn't be done again.
pub fn is_inside() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Enters a namespace when that is possible: then the process is replaced by a second run with the same arguments, for
/// which this returns [`Network::Own`].
///
/// # Errors
/// The loopback interface of the new namespace can't be set up, or the program can't be run again.
pub fn enter(say: &mut dyn FnMut(&str)) -> anyhow::Result<Network> {
    if is_inside() {
        run(command("ip").args(["link", "set", "lo", "up"]))
            .context("the namespace's loopback interface can't be set up")?;
        // Addresses that are no loopback addresses: one for clients that tell their guests where they are, and a network
        // for the guests. A second run of this finds them there.
        for words in [
            ["address", "replace", "192.0.2.1/32", "dev", "lo"].as_slice(),
            &["route", "replace", "local", "198.18.0.0/16", "dev", "lo"],
        ] {
            run(command("ip").args(words)).context("the namespace's addresses can't be set up")?;
        }
        return Ok(Network::Own);
    }
    for way in WAYS {
        if run(command("unshare").args(way).args(["ip", "link", "set", "lo", "up"])).is_err() {
            continue;
        }
        let program = own_path()?;
        let error = Command::new("unshare")
            .args(way)
            .arg(program)
            .args(std::env::args_os().skip(1))
            .env(MARK, "1")
            .exec();
        return Err(error).context("unshare can't be run");
    }
    say("this machine allows no network namespace: running on the host");
    Ok(Network::Host)
}

/// The path of this program. A build that this program starts may have put a new file in its place: then the kernel calls
/// the running one deleted, and the new one is what is meant.
///
/// # Errors
/// The path is unknown.
pub(crate) fn own_path() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("this program's own path is unknown")?;
    Ok(match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(replaced) => PathBuf::from(replaced),
        None => path,
    })
}
