//! The lab's answers against those of a real Proxmox VE 9.2, and its own promises.

mod access;
mod answers;
mod bridge;
mod client;
mod config;
mod faults;
mod guest;
mod hardware;
mod install;
mod lifecycle;
mod move_disk;
mod novnc;
mod packer;
mod page;
mod protocol;
mod replay;
mod snapshots;
mod storage;
mod strangers;
mod tags;
mod tiny;
mod trouble;
mod vzdump;
mod websocket;

use std::path::PathBuf;

use forge_lab::{ALL_PRIVILEGES_PVE9, Lab, LabConfig, images};

use client::Client;

/// The token of the tests.
const TOKEN: &str = "automation@pve!forge";

/// A lab without processes and a client that may do everything but look at the node.
async fn fast_lab() -> anyhow::Result<(Lab, Client)> {
    lab_with(LabConfig { run_guests: false, ..LabConfig::default() }).await
}

async fn lab_with(config: LabConfig) -> anyhow::Result<(Lab, Client)> {
    let lab = Lab::start(config).await?;
    let secret = lab.add_token(TOKEN, &[("/", ALL_PRIVILEGES_PVE9)]);
    let client = Client::new(&lab, TOKEN, &secret)?;
    Ok((lab, client))
}

/// The disk of the tiny guest; where there is none, a test that needs it is skipped, and this has said why.
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
async fn tiny_disk() -> anyhow::Result<Option<PathBuf>> {
    let cache = images::default_cache_root();
    Ok(match tokio::task::spawn_blocking(move || images::tiny(&cache)).await? {
        Ok(image) => Some(image.disk),
        Err(error) => {
            println!("skipped: there is no tiny guest: {error:#}");
            None
        }
    })
}
