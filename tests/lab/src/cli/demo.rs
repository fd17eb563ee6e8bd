//! `cargo lab demo`: forge's main job, end to end, on a machine that has nothing but cargo. With `--target local` it is
//! `demo_local`'s.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use tokio::process::Command;

use super::programs::{build_forge, forge_path, succeeded};
use super::site::{self, BOOT_VM, BOOT_VM_NAME, SECRET_VARIABLE, TOKEN_ID};
use super::{Guest, demo_local, images, output, runtime, trial};
use crate::images::{target_dir, workspace_dir};
use crate::netns::{self, Network};
use crate::{LEAST_PRIVILEGES_PVE9, Lab, LabConfig};

/// The port that Proxmox VE listens on.
const PROXMOX_PORT: u16 = 8006;
/// What builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// The lab, as a Proxmox VE: a template
    Lab,
    /// QEMU alone: an image file
    Local,
}

/// The arguments of `cargo lab demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// What builds
    #[arg(long, value_enum, default_value_t = Target::Lab)]
    target: Target,
    /// The profile that is built [default: os-profiles/debian-12.toml]
    #[arg(long)]
    profile: Option<PathBuf>,
    /// What the boot VM is, or whose disk `local` starts from
    #[arg(long, value_enum, default_value_t = Guest::Debian)]
    guest: Guest,
    /// Where site file, journals, evidence and images go [default: target/lab-demo]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Gives the boot VM a cloud-init drive, so that the build is seeded through it
    #[arg(long)]
    cloud_init_drive: bool,
    /// Builds and uses forge's release binary
    #[arg(long)]
    release: bool,
    /// Doesn't try the template or image after the build
    #[arg(long)]
    no_trial: bool,
}

/// Prepares on the host, then builds in a namespace.
pub fn run(arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    if arguments.target == Target::Local && arguments.cloud_init_drive {
        bail!("--cloud-init-drive is Proxmox's: --target local has none");
    }
    if !netns::is_inside() {
        crate::setup::ensure(&mut output::say)?;
        build_forge(arguments.release)?;
        images::disk(arguments.guest)?;
    }
    let network = netns::enter(&mut output::say)?;
    let folder = match &arguments.folder {
        Some(folder) => std::path::absolute(folder)?,
        None => target_dir().join("lab-demo"),
    };
    fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let profile = match &arguments.profile {
        Some(path) => std::path::absolute(path)?,
        None => workspace_dir().join("os-profiles/debian-12.toml"),
    };
    let build =
        Build { forge: forge_path(arguments.release)?, folder, profile, untested: arguments.no_trial };
    runtime()?.block_on(async {
        match arguments.target {
            Target::Lab => demo(arguments, &build, network).await,
            Target::Local => {
                let disk =
                    images::disk(arguments.guest)?.context("--target local needs the disk of a guest")?;
                tokio::select! {
                    result = demo_local::run(build, &disk, !arguments.no_trial) => result,
                    _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
                }
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A build by forge.
pub struct Build {
    /// The program.
    pub forge: PathBuf,
    /// Where it runs: its site file is there already.
    pub folder: PathBuf,
    /// The profile.
    pub profile: PathBuf,
    /// Whether its template is published without forge's own trial.
    pub untested: bool,
}

impl Build {
    /// Runs it to its end. Returns what there is to say of it: where the evidence is, and each stage's time.
    pub async fn run(&self, secret: Option<&str>) -> anyhow::Result<Vec<String>> {
        let site_file = self.folder.join("forge.toml");
        output::say(&format!("forge --config {} build {}", site_file.display(), self.profile.display()));
        let started = Instant::now();
        let mut command = Command::new(&self.forge);
        command.arg("--config").arg(site_file).arg("--state-dir").arg(self.folder.join("state"));
        command.arg("build").arg(&self.profile).current_dir(&self.folder);
        command.args(self.untested.then_some("--no-test"));
        if let Some(secret) = secret {
            command.env(SECRET_VARIABLE, secret);
        }
        let status = command.kill_on_drop(true).status().await.context("forge can't be run")?;
        succeeded(status, "forge build")?;
        let took = started.elapsed();
        let evidence = newest_evidence(&self.folder.join("output"))?;
        let mut lines = vec![
            format!("evidence  {}", evidence.display()),
            format!("build     {:.1} s", took.as_secs_f64()),
        ];
        lines.extend(stage_times(&fs::read_to_string(evidence.join("proof.json"))?)?);
        Ok(lines)
    }
}

async fn demo(arguments: &DemoArguments, build: &Build, network: Network) -> anyhow::Result<()> {
    let config = LabConfig::default();
    let port = if network == Network::Own { PROXMOX_PORT } else { 0 };
    let config = LabConfig { listen: ([127, 0, 0, 1], port).into(), ..config };
    let nodes = config.nodes.clone();
    let lab = Lab::start(config).await?;
    lab.import_vm(site::boot_vm(images::disk(arguments.guest)?, arguments.cloud_init_drive)).await?;
    let secret = lab.add_token(TOKEN_ID, &[("/", LEAST_PRIVILEGES_PVE9)]);
    output::say(&format!(
        "the lab answers as Proxmox VE on {}; boot VM {BOOT_VM} ({BOOT_VM_NAME})",
        lab.url()
    ));
    fs::write(build.folder.join("forge.toml"), site::forge_toml(&lab, &nodes))?;

    let result = tokio::select! {
        result = build_and_try(build, &lab, &secret, !arguments.no_trial) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    lab.stop().await;
    result
}

async fn build_and_try(build: &Build, lab: &Lab, secret: &str, trial: bool) -> anyhow::Result<()> {
    let said = build.run(Some(secret)).await?;
    let templates: Vec<u32> = lab.vms().iter().filter(|vm| vm.template).map(|vm| vm.vmid).collect();
    let [template] = templates[..] else {
        bail!("the lab should hold one template after the build, and holds {}", templates.len());
    };
    let mut lines = vec![String::new(), format!("template  {template}")];
    lines.extend(said);
    lines.iter().for_each(|line| output::print(line));
    if !trial {
        return Ok(());
    }
    trial::run(lab, secret, template, &build.folder).await?;
    if let Some(left) = lab.vms().iter().find(|vm| vm.vmid != BOOT_VM && vm.vmid != template) {
        bail!("VM {} ({}) was left behind", left.vmid, left.name);
    }
    Ok(())
}

/// The folder of the newest successful build: what a `latest` points to.
fn newest_evidence(output: &Path) -> anyhow::Result<PathBuf> {
    let mut found: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(output).with_context(|| format!("forge left no {}", output.display()))? {
        let entry = entry?;
        // Its trial leaves a folder of its own.
        if entry.file_name().to_string_lossy().starts_with("test-") {
            continue;
        }
        let latest = entry.path().join("latest");
        if let Ok(folder) = latest.canonicalize() {
            found.push((fs::symlink_metadata(&latest)?.modified()?, folder));
        }
    }
    found.sort();
    found
        .pop()
        .map(|(_, folder)| folder)
        .with_context(|| format!("no build in {} succeeded", output.display()))
}

/// What the demo reads of a `proof.json`.
#[derive(Deserialize)]
struct Proof {
    stages: Vec<StageOfProof>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StageOfProof {
    name: String,
    took_ms: u64,
    result: String,
}

/// The stages of a `proof.json` with their times.
fn stage_times(proof: &str) -> anyhow::Result<Vec<String>> {
    let proof: Proof = serde_json::from_str(proof).context("proof.json is not as it was")?;
    let lines = proof.stages.iter().map(|stage| {
        let time = Duration::from_millis(stage.took_ms).as_secs_f64();
        format!("  {:<12}{time:>7.1} s  {}", stage.name, stage.result)
    });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_of_a_proof_becomes_a_line() {
        let proof = r#"{"stages": [{"name": "create", "took-ms": 1530, "result": "VM 9001"}, {"name": "boot", "took-ms": 20, "result": ""}], "version": 1}"#;
        let lines = stage_times(proof).unwrap();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].contains("create") && lines[0].contains("1.5 s") && lines[0].contains("VM 9001"),
            "{lines:?}"
        );
        let other = r#"{"stages": [{"name": "create", "seconds": 2}]}"#;
        assert!(stage_times(other).is_err(), "another form gives an error and no times");
    }

    #[test]
    fn the_newest_evidence_is_what_the_latest_link_points_to() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("debian-12/CHAIN-1");
        fs::create_dir_all(&run).unwrap();
        std::os::unix::fs::symlink("CHAIN-1", folder.path().join("debian-12/latest")).unwrap();
        assert_eq!(newest_evidence(folder.path()).unwrap(), run.canonicalize().unwrap());
    }
}
