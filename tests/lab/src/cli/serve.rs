//! `cargo lab serve`: a lab to play with, on the host.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::site::{self, BOOT_VM, BOOT_VM_NAME, SECRET_VARIABLE, TOKEN_ID};
use super::{Guest, images, output, runtime};
use crate::netns::{self, Network};
use crate::scenario::NetworkMode;
use crate::{Lab, LabConfig, Scenario, ShellConfig, SshForward};

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
    /// Sets the lab up and lets it fail as a file says (examples in tests/lab/scenarios)
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// How guests are connected [default: as the scenario says, else user]
    #[arg(long, value_enum)]
    network: Option<NetworkMode>,
    /// Where disks and sockets are kept; without, a temporary folder
    #[arg(long)]
    state: Option<PathBuf>,
}

/// Serves until Ctrl-C or SIGTERM, then kills its guests: on the host, or with real bridges in a namespace, where such can
/// be made without being root and are in nobody's way.
pub fn run(arguments: &ServeArguments) -> anyhow::Result<ExitCode> {
    let (scenario, config) = settings(arguments)?;
    if !netns::is_inside() {
        crate::setup::ensure(&mut output::say)?;
        images::disk(arguments.guest)?;
    }
    if config.ssh == SshForward::Bridge && netns::enter(&mut output::say)? == Network::Own {
        output::say(&format!(
            "in a network namespace of its own; another shell gets in by: nsenter --target {} --user --preserve-credentials --net",
            std::process::id()
        ));
    }
    let disk = images::disk(arguments.guest)?;
    runtime()?.block_on(serve(arguments, &scenario, config, disk))?;
    Ok(ExitCode::SUCCESS)
}

/// The scenario, and the settings that it and the arguments make.
fn settings(arguments: &ServeArguments) -> anyhow::Result<(Scenario, LabConfig)> {
    let nodes = match arguments.nodes {
        1 => vec!["pve".to_owned()],
        count => (1..=count).map(|number| format!("pve{number}")).collect(),
    };
    let scenario = match &arguments.scenario {
        Some(file) => {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))?;
            Scenario::parse(&text).with_context(|| format!("{} is no scenario", file.display()))?
        }
        None => Scenario::default(),
    };
    let mut config = LabConfig {
        listen: arguments.listen,
        nodes,
        run_guests: arguments.guest != Guest::None,
        // Addresses of their own where port 22 is free there, as in the namespace; else ports from 22000.
        ssh: SshForward::Auto,
        state_dir: arguments.state.clone(),
        // A person's client is not to fail by what is the lab's own fault; the log names it.
        strict_answers: false,
        ..LabConfig::default()
    };
    scenario.configure(&mut config)?;
    if let Some(network) = arguments.network {
        network.configure(&mut config);
    }
    Ok((scenario, config))
}

async fn serve(
    arguments: &ServeArguments,
    scenario: &Scenario,
    config: LabConfig,
    disk: Option<PathBuf>,
) -> anyhow::Result<()> {
    let nodes = config.nodes.clone();
    let lab =
        Lab::start(config).await.with_context(|| format!("the lab can't start on {}", arguments.listen))?;
    let secret = lab.add_full_token(TOKEN_ID);
    let password = crate::ids::uuid();
    lab.set_password("root@pam", &password);
    let shell =
        lab.serve_shell(ShellConfig { password: Some(password.clone()), ..ShellConfig::default() }).await?;
    scenario.fill(&lab, disk.as_deref()).await?;
    if lab.vm(BOOT_VM).is_none() {
        lab.import_vm(site::boot_vm(disk, arguments.cloud_init_drive)).await?;
    }
    for line in [
        format!("url          {}", lab.url()),
        format!("page         {}/ (in a browser)", lab.url()),
        format!("token        {TOKEN_ID}={secret}"),
        format!("root@pam     {password}"),
        format!("shell        root@{} (the same password; host key {})", shell.address(), shell.host_key()),
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
