//! `forge profiles`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::REFUSED;
use super::options::Global;
use super::prepare;
use crate::config::embedded;
use crate::config::findings::nearest;
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
    /// Writes the profile's file, and the bases that it extends, into this folder; without NAME all of them. What is there
    /// already stays as it is
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
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
    if let Some(folder) = &args.export {
        return export(global, args.name.as_deref(), folder);
    }
    if let Some(name) = &args.name {
        let file = if name.ends_with(".toml") { name.clone() } else { format!("{name}.toml") };
        return match embedded::text(&file) {
            Some(text) => {
                ui::data(text);
                0
            }
            None => {
                let near = nearest(name, embedded::names()).map(|near| format!("did you mean `{near}`? "));
                ui::say(&format!(
                    "error: there is no profile `{name}` in this binary; {}`forge profiles` lists them",
                    near.unwrap_or_default()
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

/// Writes files of the binary into a folder; gives the exit code.
fn export(global: &Global, name: Option<&str>, folder: &Path) -> u8 {
    let wanted: BTreeSet<&'static str> = match name {
        None => embedded::files().collect(),
        Some(name) => match embedded::lookup(Path::new(name)) {
            Some((path, _)) => with_bases(&path),
            None => {
                ui::say(&format!(
                    "error: there is no profile `{name}` in this binary; `forge profiles` lists them"
                ));
                return REFUSED;
            }
        },
    };
    if let Err(error) = std::fs::create_dir_all(folder) {
        ui::say(&format!("error: {} can't be made: {error}", folder.display()));
        return REFUSED;
    }
    let (mut written, mut whole) = (Vec::new(), true);
    for file in wanted {
        let path = folder.join(file);
        let text = embedded::text(file).unwrap_or_default();
        match std::fs::File::create_new(&path).and_then(|mut file| file.write_all(text.as_bytes())) {
            Ok(()) => written.push(path),
            Err(_) if std::fs::read_to_string(&path).is_ok_and(|there| there == text) => written.push(path),
            Err(error) => {
                whole = false;
                ui::say(&format!("error: {} was not written: {error}", path.display()));
            }
        }
    }
    if global.json {
        ui::data(&format!("{}\n", serde_json::to_string(&written).unwrap_or_default()));
    } else {
        ui::data(&written.iter().map(|path| format!("{}\n", path.display())).collect::<String>());
    }
    if whole { 0 } else { REFUSED }
}

/// A file of the binary with the bases below it.
fn with_bases(path: &Path) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let mut next = path.to_str().and_then(|path| path.rsplit(':').next()).map(str::to_owned);
    while let Some(name) = next.take() {
        let Some(file) = embedded::files().find(|file| *file == name) else { break };
        if !found.insert(file) {
            break;
        }
        let table = embedded::text(file).and_then(|text| text.parse::<toml::Table>().ok());
        next = table.and_then(|table| table.get("extends")?.as_str().map(str::to_owned));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_comes_with_its_bases() {
        let (path, _) = embedded::lookup(Path::new("rocky-9")).expect("it is there");
        let found = with_bases(&path);
        assert!(found.contains("rocky-9.toml") && found.len() > 2, "{found:?}");
        assert!(found.iter().filter(|file| !file.starts_with("base-")).count() == 1, "{found:?}");
    }
}
