//! Measures what forge adds to a build: the same guest built by forge, by hand with nothing but polling every 20 ms (the
//! floor), and by Packer's `qemu` builder, in turn. `--backend lab` has forge and the floor build on the lab, through
//! Proxmox's API; with `--backend qemu` all three build an image file with QEMU alone.
//!
//! Run by hand: `cargo bench --bench compare -- --rounds 3`. What is measured and how is in `benches/README.md`.

mod bare;
mod family;
mod floor;
mod forge;
mod measure;
mod packer;
mod report;
mod scene;

use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, ValueEnum};
use forge_lab::{images, netns, setup};

use measure::Run;
use scene::Scene;

/// With what forge and the floor build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// The lab, as a Proxmox VE: a template.
    Lab,
    /// QEMU alone: an image file, as Packer makes it.
    Qemu,
}

/// What is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Guest {
    /// A kernel, busybox and SSH: up within seconds
    Tiny,
    /// Debian 12
    Debian,
}

impl Guest {
    /// Its disk, made when it is missing.
    fn disk(self) -> anyhow::Result<std::path::PathBuf> {
        let cache = images::default_cache_root();
        Ok(match self {
            Self::Tiny => images::tiny(&cache)?.disk,
            Self::Debian => images::debian(&cache)?.disk,
        })
    }
}

/// Who builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Builder {
    /// The same calls to the lab, and nothing but tight polling.
    Floor,
    /// `forge build` on the lab.
    Forge,
    /// `packer build` with the `qemu` builder.
    Packer,
}

impl Builder {
    const ALL: [Self; 3] = [Self::Floor, Self::Forge, Self::Packer];

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Forge => "forge",
            Self::Packer => "packer",
        }
    }
}

/// Compares builds of the same guest by forge, by the floor, and by Packer.
#[derive(Debug, Parser)]
#[command(name = "compare")]
struct Arguments {
    /// How often each of them builds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// With what forge and the floor build
    #[arg(long, value_enum, default_value_t = Backend::Lab)]
    backend: Backend,
    /// What is built
    #[arg(long, value_enum, default_value_t = Guest::Debian)]
    guest: Guest,
    /// Who builds [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Builder>,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ::forge::ui::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> anyhow::Result<()> {
    let mut say = ::forge::ui::say;
    if !netns::is_inside() {
        // What needs a network happens before it is left.
        setup::ensure(&mut say)?;
        arguments.guest.disk()?;
    }
    netns::enter(&mut say)?;
    // Already installed only when this is called twice.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    let disk = arguments.guest.disk()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(rounds(arguments, disk))
}

async fn rounds(arguments: &Arguments, disk: std::path::PathBuf) -> anyhow::Result<()> {
    let scene = Scene::new(disk).await?;
    let backend = arguments.backend;
    let mut builders = if arguments.only.is_empty() { Builder::ALL.to_vec() } else { arguments.only.clone() };
    if let (true, Err(reason)) = (builders.contains(&Builder::Packer), packer::version().await) {
        ::forge::ui::say(&format!("packer is skipped: {reason}"));
        builders.retain(|builder| *builder != Builder::Packer);
    }
    if builders.is_empty() {
        bail!("nobody is left to compare");
    }
    let mut runs: Vec<Run> = Vec::new();
    for round in 1..=arguments.rounds {
        for builder in &builders {
            let run = match (builder, backend) {
                (Builder::Floor, Backend::Lab) => floor::run(&scene).await?,
                (Builder::Floor, Backend::Qemu) => bare::run(&scene).await?,
                (Builder::Forge, Backend::Lab) => forge::on_lab(&scene).await?,
                (Builder::Forge, Backend::Qemu) => forge::on_qemu(&scene).await?,
                (Builder::Packer, _) => packer::run(&scene, backend).await?,
            };
            ::forge::ui::say(&format!(
                "round {round} of {}: {:<6} {:>6.2} s",
                arguments.rounds,
                builder.name(),
                run.wall.as_secs_f64()
            ));
            runs.push(run);
        }
    }
    ::forge::ui::data(&report::report(&builders, &runs));
    Ok(())
}
