//! `cargo lab images`: makes the guests' disks.

use std::process::ExitCode;

use clap::Args;

use super::{Guest, output};
use crate::images;

/// The arguments of `cargo lab images`.
#[derive(Debug, Args)]
pub struct ImagesArguments {
    /// Which guests; all without
    guests: Vec<Guest>,
}

/// Makes what the cache lacks.
pub fn run(arguments: &ImagesArguments) -> anyhow::Result<ExitCode> {
    crate::setup::ensure(&mut output::say)?;
    let all = [Guest::Debian, Guest::Tiny];
    let guests = if arguments.guests.is_empty() { &all[..] } else { &arguments.guests };
    for guest in guests {
        if let Some(disk) = disk(*guest)? {
            output::print(&disk.display().to_string());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The disk of a kind of guest; `None` for the kind that has none.
pub fn disk(guest: Guest) -> anyhow::Result<Option<std::path::PathBuf>> {
    let root = images::default_cache_root();
    Ok(match guest {
        Guest::Debian => Some(images::debian(&root)?.disk),
        Guest::Tiny => Some(images::tiny(&root)?.disk),
        Guest::None => None,
    })
}
