//! `cargo lab serve`: a lab to play with, on the host.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::site::{self, BOOT_VM, BOOT_VM_NAME, SECRET_VARIABLE, TOKEN_ID};
use super::{Guest, images, output, runtime};
use crate::{Lab, LabConfig, SshForward};

/// The arguments of `cargo lab serve`.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:8006")]
    listen: SocketAddr,
    /// How many nodes the cluster has
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: u8,
    /// What the boot VM is
    #[arg(long, value_enum, default_value_t = Guest::Debian)]
    guest: Guest,
    /// Gives the boot VM a cloud-init drive
    #[arg(long)]
    cloud_init_drive: bool,
    /// Where disks and sockets are kept; without, a temporary folder
    #[arg(long)]
    state: Option<PathBuf>,
}

/// Serves until Ctrl-C or SIGTERM, then kills its guests.
pub fn run(arguments: &ServeArguments) -> anyhow::Result<ExitCode> {
    crate::setup::ensure(&mut output::say)?;
    let disk = images::disk(arguments.guest)?;
    runtime()?.block_on(serve(arguments, disk))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(arguments: &ServeArguments, disk: Option<PathBuf>) -> anyhow::Result<()> {
    let nodes = match arguments.nodes {
        1 => vec!["pve".to_owned()],
        count => (1..=count).map(|number| format!("pve{number}")).collect(),
    };
    let lab = Lab::start(LabConfig {
        listen: arguments.listen,
        nodes: nodes.clone(),
        run_guests: arguments.guest != Guest::None,
        // Addresses of their own where port 22 is free there, as in the namespace; else ports from 22000.
        ssh: SshForward::Auto,
        state_dir: arguments.state.clone(),
        ..LabConfig::default()
    })
    .await
    .with_context(|| format!("the lab can't start on {}", arguments.listen))?;
    let secret = lab.add_full_token(TOKEN_ID);
    lab.import_vm(site::boot_vm(disk, arguments.cloud_init_drive)).await?;
    for line in [
        format!("url          {}", lab.url()),
        format!("token        {TOKEN_ID}={secret}"),
        format!("fingerprint  {}", lab.fingerprint()),
        format!("boot VM      {BOOT_VM} ({BOOT_VM_NAME})"),
        format!("\nforge.toml, with the secret in the environment (export {SECRET_VARIABLE}={secret}):\n"),
        site::forge_toml(&lab, &nodes),
    ] {
        output::print(&line);
    }
    output::say("running; Ctrl-C stops it and its guests");
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    lab.stop().await;
    Ok(())
}
