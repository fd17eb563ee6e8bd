//! `forge diff`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::REFUSED;
use super::options::Global;
use crate::trial::inventory::{Difference, FILE, Inventory, differences};
use crate::ui::{self, table::table};

/// Options of `forge diff`.
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    /// A template that was tried, by name or VMID, a folder of evidence of `forge test`, an inventory.json or a baseline
    #[arg(value_name = "A")]
    first: String,
    /// What it is compared with
    #[arg(value_name = "B")]
    second: String,
    /// Only these sections: packages, services, users, ports, files, sizes
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Ends with 1 when they differ
    #[arg(long)]
    exit_code: bool,
    /// The folder under which evidence is kept
    #[arg(long, value_name = "DIR", default_value = "output")]
    output: PathBuf,
}

/// What was compared, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report<'a> {
    a: &'a Path,
    b: &'a Path,
    differences: &'a [Difference],
}

/// Compares two inventories; gives the exit code.
#[must_use]
pub fn diff(global: &Global, args: &DiffArgs) -> u8 {
    let both = read(&args.first, &args.output).and_then(|a| Ok((a, read(&args.second, &args.output)?)));
    let ((a, first), (b, second)) = match both {
        Ok(both) => both,
        Err(words) => {
            ui::say(&format!("error: {words}"));
            return REFUSED;
        }
    };
    let known: Vec<&String> = first.0.keys().chain(second.0.keys()).collect();
    if let Some(unknown) = args.only.iter().find(|name| !known.contains(name)) {
        ui::say(&format!("error: neither has a section `{unknown}`"));
        return REFUSED;
    }
    let mut found = differences(&first, &second);
    found.retain(|each| args.only.is_empty() || args.only.contains(&each.section));
    if global.json {
        let report = Report { a: &a, b: &b, differences: &found };
        ui::data(&format!("{}\n", serde_json::to_string_pretty(&report).unwrap_or_default()));
    } else if found.is_empty() {
        ui::say("no difference");
    } else {
        ui::data(&shown(&found));
    }
    u8::from(args.exit_code && !found.is_empty())
}

fn shown(found: &[Difference]) -> String {
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|each| {
            let text = |side: &Option<String>| side.clone().unwrap_or_default();
            vec![
                each.mark().to_owned(),
                each.section.clone(),
                each.name.clone(),
                text(&each.before),
                text(&each.after),
            ]
        })
        .collect();
    table(&["", "SECTION", "NAME", "A", "B"], &rows)
}

/// The inventory that a name means, and its file.
fn read(name: &str, output: &Path) -> Result<(PathBuf, Inventory), String> {
    let file = find(Path::new(name), output).ok_or_else(|| {
        format!(
            "{name} is no inventory, no evidence of a trial, and no template that was tried\n    \
             help: `forge test {name}` tries the template, and keeps its inventory in the evidence"
        )
    })?;
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("{} can't be read: {error}", file.display()))?;
    let inventory = serde_json::from_str(&text)
        .map_err(|error| format!("{} is no inventory: {error}", file.display()))?;
    Ok((file, inventory))
}

fn find(path: &Path, output: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    let inside = path.join(FILE);
    if inside.is_file() {
        return Some(inside);
    }
    let name = path.to_str()?;
    let mut trials: Vec<PathBuf> = Vec::new();
    for of_one in folders(output).filter(|folder| file_name(folder).starts_with("test-")) {
        let named = file_name(&of_one) == format!("test-{name}");
        let its = folders(&of_one).filter(|trial| trial.join(FILE).is_file());
        trials.extend(its.filter(|trial| named || vmid_of(trial).as_deref() == Some(name)));
    }
    // The newest: chain ids begin with their time.
    trials.sort_by_key(|trial| file_name(trial));
    trials.pop().map(|trial| trial.join(FILE))
}

/// The folders in a folder, without links: `latest` is one of the others.
fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink())
}

/// A chain id, or the name of a template's trials.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The VMID of the template that a trial was about, by its plan.
fn vmid_of(trial: &Path) -> Option<String> {
    let text = std::fs::read_to_string(trial.join("plan.json")).ok()?;
    let plan: serde_json::Value = serde_json::from_str(&text).ok()?;
    plan.pointer("/machine/source/clone/vm/id")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_is_found_by_file_folder_and_template_the_newest_trial_of_it() {
        let root = tempfile::tempdir().expect("a folder");
        let trial = |name: &str| {
            let folder = root.path().join("test-tpl-web").join(name);
            std::fs::create_dir_all(&folder).expect("made");
            std::fs::write(folder.join(FILE), "{}").expect("written");
            folder
        };
        let (old, new) = (trial("CHAIN-20260101T000000Z-x"), trial("CHAIN-20261101T000000Z-x"));
        std::os::unix::fs::symlink(&old, root.path().join("test-tpl-web/latest")).expect("linked");
        std::fs::create_dir_all(root.path().join("test-tpl-web/CHAIN-20261201T000000Z-x"))
            .expect("it failed before there was one");
        let found = |name: &Path| find(name, root.path());
        assert_eq!(found(&old), Some(old.join(FILE)));
        assert_eq!(found(&old.join(FILE)), Some(old.join(FILE)));
        assert_eq!(found(Path::new("tpl-web")), Some(new.join(FILE)));
        assert_eq!(found(Path::new("tpl-x")), None);
        let plan = r#"{ "machine": { "source": { "clone": { "vm": { "id": "9007" } } } } }"#;
        std::fs::write(old.join("plan.json"), plan).expect("written");
        assert_eq!(found(Path::new("9007")), Some(old.join(FILE)));
        assert!(read("tpl-x", root.path()).is_err_and(|words| words.contains("forge test tpl-x")));
    }

    #[test]
    fn what_differs_is_shown_with_what_each_side_has() {
        let a = Inventory::read("[packages]\nbash\t5.1\nvim\t9\n");
        let b = Inventory::read("[packages]\nbash\t5.2\n[ports]\ntcp/80\t\n");
        let text = shown(&differences(&a, &b));
        let words: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words,
            [
                vec!["~", "packages", "bash", "5.1", "5.2"],
                vec!["-", "packages", "vim", "9"],
                vec!["+", "ports", "tcp/80"],
            ]
        );
    }
}
