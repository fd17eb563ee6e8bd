//! `forge prune`.

use std::time::Duration;

use clap::Args;
use forge_machine::{Hypervisor, TAG_DEPRECATED};
use jiff::Timestamp;
use serde::Serialize;

use super::list::{Which, chosen, open, tell_error};
use super::options::Global;
use super::signals::cancel_on_signals;
use super::{INCOMPLETE, INTERRUPTED, REFUSED, asking};
use crate::catalogue::Entry;
use crate::config::reader::parse_time;
use crate::engine::error::chain;
use crate::event::Redactor;
use crate::provision::is_interactive;
use crate::retention::{Policy, judge};
use crate::ui::{self, table::table};

/// Options of `forge prune`.
#[derive(Clone, Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    which: Which,
    /// How many templates of each profile stay, the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    keep: u16,
    /// Only templates that are older than this (90d, 12h)
    #[arg(long, value_name = "TIME", value_parser = parse_age)]
    older_than: Option<Duration>,
    /// Tags them `deprecated` instead of removing them
    #[arg(long, conflicts_with = "deprecated")]
    deprecate: bool,
    /// Removes only what has the tag `deprecated` by an earlier run
    #[arg(long)]
    deprecated: bool,
    /// Shows what would be removed, and removes nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Removes without asking
    #[arg(long, short)]
    yes: bool,
}

fn parse_age(text: &str) -> Result<Duration, String> {
    parse_time(text).ok_or_else(|| "write it like 90d, 12h or 30m".to_owned())
}

/// What becomes of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Fate {
    Kept,
    WouldGo,
    WouldBeDeprecated,
    Deprecated,
    Removed,
    Failed,
}

impl Fate {
    /// Whether it is still to come.
    fn is_ahead(self) -> bool {
        matches!(self, Self::WouldGo | Self::WouldBeDeprecated)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::WouldGo => "would go",
            Self::WouldBeDeprecated => "would be deprecated",
            Self::Deprecated => "deprecated",
            Self::Removed => "removed",
            Self::Failed => "failed",
        }
    }
}

/// A template and what becomes of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    #[serde(flatten)]
    entry: Entry,
    fate: Fate,
    why: String,
}

/// Removes old templates; gives the exit code.
pub async fn prune(global: &Global, args: &PruneArgs) -> u8 {
    let redactor = Redactor::default();
    let hypervisor = match open(global, args.which.target(), &redactor).await {
        Ok(hypervisor) => hypervisor,
        Err(code) => return code,
    };
    let hypervisor = hypervisor.as_ref();
    let mut rows = match judged(hypervisor, args, &redactor).await {
        Ok(rows) => rows,
        Err(code) => return code,
    };
    let doomed = rows.iter().filter(|row| row.fate.is_ahead()).count();
    if args.dry_run || doomed == 0 {
        print(global, &rows, &redactor);
        return 0;
    }
    if !args.yes {
        ui::say(&redactor.text(shown(&rows).trim_end()));
        if !is_interactive() {
            ui::say(&format!(
                "error: nobody can be asked whether the {doomed} may go; nothing was removed\n    \
                 help: --yes removes them, --dry-run only shows them"
            ));
            return REFUSED;
        }
        let these =
            if doomed == 1 { "this template".to_owned() } else { format!("these {doomed} templates") };
        let question = match args.deprecate {
            true => format!("tag {these} as `{TAG_DEPRECATED}`?"),
            false => format!("remove {these} for good?"),
        };
        if !asking::agrees(&question).await {
            ui::say("nothing was changed");
            return REFUSED;
        }
    }
    let cancel = cancel_on_signals(global.journals().path().to_owned());
    for row in rows.iter_mut().filter(|row| row.fate.is_ahead()) {
        // A removal that was begun is brought to its end.
        if cancel.is_cancelled() {
            break;
        }
        match row.fate {
            Fate::WouldBeDeprecated => deprecate(hypervisor, row).await,
            _ => remove(hypervisor, row).await,
        }
        ui::say(&redactor.text(&format!(
            "{} {} (VM {}) {}",
            row.fate.word(),
            row.entry.name,
            row.entry.vmid,
            row.why
        )));
    }
    print(global, &rows, &redactor);
    match rows.iter().any(|row| row.fate == Fate::Failed) {
        true => INCOMPLETE,
        false if cancel.is_cancelled() => INTERRUPTED,
        false => 0,
    }
}

/// All that are meant, newest first, with what is to become of each.
async fn judged(hypervisor: &dyn Hypervisor, args: &PruneArgs, redactor: &Redactor) -> Result<Vec<Row>, u8> {
    let entries = chosen(hypervisor, &args.which.wanted(false), redactor).await?;
    let policy = Policy { keep: args.keep.into(), older_than: args.older_than };
    let mut rows = Vec::new();
    for (entry, reason) in judge(entries, policy, Timestamp::now()) {
        let needed = match reason {
            Some(_) => None,
            // A tag harms no linked clone.
            None if args.deprecate => None,
            None => match hypervisor.linked_clones(&entry.vm()).await {
                Ok(clones) => needed_by(&clones),
                Err(error) => {
                    tell_error(&error, redactor);
                    return Err(REFUSED);
                }
            },
        };
        let marked = entry.bears(TAG_DEPRECATED);
        let other = match (args.deprecate, args.deprecated) {
            (true, _) if marked => Some(format!("it bears the tag `{TAG_DEPRECATED}` already")),
            (_, true) if !marked => Some(format!("it does not bear the tag `{TAG_DEPRECATED}`")),
            _ => None,
        };
        let fate = if args.deprecate { Fate::WouldBeDeprecated } else { Fate::WouldGo };
        rows.push(match reason.or(needed).or(other) {
            Some(why) => Row { entry, fate: Fate::Kept, why },
            None => Row { entry, fate, why: String::new() },
        });
    }
    Ok(rows)
}

/// Which linked clones need a template, in words.
fn needed_by(clones: &[(forge_machine::VmRef, String)]) -> Option<String> {
    let named = |(vm, name): &(forge_machine::VmRef, String)| match name.as_str() {
        "" => format!("VM {}", vm.id),
        name => format!("VM {} ({name})", vm.id),
    };
    let first: Vec<String> = clones.iter().take(3).map(named).collect();
    let more = clones.len().saturating_sub(first.len());
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    match clones.len() {
        0 => None,
        1 => Some(format!("{} is a linked clone of it", first.join(", "))),
        _ => Some(format!("{}{rest} are linked clones of it", first.join(", "))),
    }
}

async fn deprecate(hypervisor: &dyn Hypervisor, row: &mut Row) {
    let machine = hypervisor.machine(&row.entry.vm());
    let tagged = match machine.tag(TAG_DEPRECATED).await {
        // Idempotent, so a lost answer is asked for again.
        Err(error) if error.is_outcome_unknown() => machine.tag(TAG_DEPRECATED).await,
        other => other,
    };
    match tagged {
        Ok(()) => row.fate = Fate::Deprecated,
        Err(error) => {
            row.fate = Fate::Failed;
            row.why = chain(&error).replace('\n', " ");
        }
    }
}

async fn remove(hypervisor: &dyn Hypervisor, row: &mut Row) {
    match hypervisor.machine(&row.entry.vm()).discard(&row.entry.chain_id).await {
        Ok(()) => row.fate = Fate::Removed,
        Err(error) => {
            row.fate = Fate::Failed;
            row.why = chain(&error).replace('\n', " ");
        }
    }
}

fn shown(rows: &[Row]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let entry = &row.entry;
            vec![
                entry.name.clone(),
                entry.vmid.clone(),
                entry.node.clone(),
                entry.profile.clone(),
                entry.built.clone(),
                row.fate.word().to_owned(),
                row.why.clone(),
            ]
        })
        .collect();
    table(&["NAME", "VMID", "NODE", "PROFILE", "BUILT", "FATE", "WHY"], &cells)
}

fn print(global: &Global, rows: &[Row], redactor: &Redactor) {
    if global.json {
        let lines: Vec<String> = rows.iter().filter_map(|row| serde_json::to_string(row).ok()).collect();
        ui::data(&redactor.text(&lines.iter().map(|line| format!("{line}\n")).collect::<String>()));
    } else if rows.is_empty() {
        ui::say("there are no such templates");
    } else {
        ui::data(&redactor.text(&shown(rows)));
    }
}

#[cfg(test)]
mod tests {
    use forge_machine::VmRef;

    use super::*;

    #[test]
    fn linked_clones_are_named_the_first_three_of_them() {
        let clones = |count: u32| -> Vec<(VmRef, String)> {
            (0..count).map(|n| (VmRef::new(format!("{}", 100 + n), "pve"), format!("web{n}"))).collect()
        };
        assert_eq!(needed_by(&clones(0)), None);
        assert_eq!(needed_by(&clones(1)).as_deref(), Some("VM 100 (web0) is a linked clone of it"));
        assert_eq!(
            needed_by(&clones(5)).as_deref(),
            Some("VM 100 (web0), VM 101 (web1), VM 102 (web2) and 2 more are linked clones of it")
        );
        let unnamed = [(VmRef::new("7", "pve"), String::new())];
        assert_eq!(needed_by(&unnamed).as_deref(), Some("VM 7 is a linked clone of it"));
    }

    #[test]
    fn ages_are_written_in_days_too() {
        assert_eq!(parse_age("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert!(parse_age("3 months").is_err());
    }
}
