//! `forge profiles`.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::REFUSED;
use super::options::Global;
use super::prepare;
use crate::config::embedded;
use crate::config::load_profile;
use crate::config::variables::Given;
use crate::event::Redactor;
use crate::ui;

/// Options of `forge profiles`.
#[derive(Clone, Debug, Args)]
pub struct ProfilesArgs {
    /// Prints this profile's file instead of the list
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// A profile as the list shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    name: String,
    template: String,
    distribution: String,
    version: String,
    source: String,
    seed: &'static str,
    tested: &'static str,
}

/// Prints the profiles that are in this binary; gives the exit code.
pub fn profiles(global: &Global, args: &ProfilesArgs) -> u8 {
    if let Some(name) = &args.name {
        let file = if name.ends_with(".toml") { name.clone() } else { format!("{name}.toml") };
        return match embedded::text(&file) {
            Some(text) => {
                ui::data(text);
                0
            }
            None => {
                ui::say(&format!(
                    "error: there is no profile `{name}` in this binary; `forge profiles` lists them"
                ));
                REFUSED
            }
        };
    }
    let mut rows = Vec::new();
    for name in embedded::names() {
        let (profile, findings) = load_profile(Path::new(name), &Given::default());
        let Some(profile) = profile else {
            prepare::tell(&findings, &Redactor::default());
            continue;
        };
        let source = &profile.source;
        let from = [
            (source.clone.is_some(), "boot VM"),
            (!source.isos.is_empty(), "install medium"),
            (source.image.is_some(), "cloud image"),
        ];
        let from: Vec<&str> = from.iter().filter(|(there, _)| *there).map(|(_, what)| *what).collect();
        rows.push(Row {
            template: profile.template_name.to_string(),
            distribution: profile.os.distribution.clone(),
            version: profile.os.version.clone(),
            source: from.join(", "),
            seed: profile.seed.kind.name(),
            tested: profile.os.tested.map_or("", crate::config::profile::Tested::name),
            name: profile.name,
        });
    }
    if global.json {
        ui::data(&format!("{}\n", serde_json::to_string_pretty(&rows).unwrap_or_default()));
    } else {
        ui::data(&format!("{:<24} {:<28} {:<15} {:<13} {}\n", "profile", "makes", "from", "seed", "tested"));
        for row in &rows {
            let line = format!(
                "{:<24} {:<28} {:<15} {:<13} {}",
                row.name, row.template, row.source, row.seed, row.tested
            );
            ui::data(&format!("{}\n", line.trim_end()));
        }
    }
    0
}
