//! The lab's answers against those of a real Proxmox VE 9.2, and its own promises.

mod access;
mod answers;
mod bridge;
mod browser;
mod client;
mod config;
mod faults;
mod guest;
mod hardware;
mod install;
mod lifecycle;
mod novnc;
mod packer;
mod page;
mod protocol;
mod replay;
mod snapshots;
mod storage;
mod strangers;
mod tiny;
mod trouble;
mod websocket;

use forge_lab::{ALL_PRIVILEGES_PVE9, Lab, LabConfig};

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
