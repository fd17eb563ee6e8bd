//! Measures what forge adds to a build: the same guest built by forge on the lab, by a bare loop that sends the same
//! calls to the same lab and polls every 20 ms (the floor), and by Packer's `qemu` builder, in turn.
//!
//! Run by hand: `cargo bench --bench compare -- --rounds 3`. What is measured and how is in `benches/README.md`.

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
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
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
        images::debian(&images::default_cache_root())?;
    }
    netns::enter(&mut say)?;
    // Already installed only when this is called twice.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    let disk = images::debian(&images::default_cache_root())?.disk;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(rounds(arguments, disk))
}

async fn rounds(arguments: &Arguments, disk: std::path::PathBuf) -> anyhow::Result<()> {
    let scene = Scene::new(disk).await?;
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
            let run = match builder {
                Builder::Floor => floor::run(&scene).await?,
                Builder::Forge => forge::run(&scene).await?,
                Builder::Packer => packer::run(&scene).await?,
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
