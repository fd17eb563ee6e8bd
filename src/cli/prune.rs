//! `forge prune`.

use std::time::Duration;

use clap::Args;
use forge_machine::{ArchivePlace, Hypervisor, PortError, TAG_DEPRECATED, TaskHandle};
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::list::{Which, chosen, open, tell_error};
use super::options::Global;
use super::signals::cancel_on_signals;
use super::{INCOMPLETE, INTERRUPTED, REFUSED, asking, prepare};
use crate::catalogue::Entry;
use crate::config::Finding;
use crate::config::reader::parse_time;
use crate::config::site::TargetKind;
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
    /// Archives each by `vzdump` before it is removed, and looks into the archive: on this storage, in this folder of its node
    /// (`/…`, for root@pam alone), or without a value on the target's `storage.archives`
    #[arg(long, value_name = "STORAGE", num_args = 0..=1, default_missing_value = "", conflicts_with = "deprecate")]
    archive: Option<String>,
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
    /// Where it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<String>,
}

impl Row {
    fn fail(&mut self, error: &PortError) {
        self.fate = Fate::Failed;
        self.why = chain(error).replace('\n', " ");
    }
}

/// Removes old templates; gives the exit code.
pub async fn prune(global: &Global, args: &PruneArgs) -> u8 {
    let redactor = Redactor::default();
    let hypervisor = match open(global, args.which.target(), &redactor).await {
        Ok(hypervisor) => hypervisor,
        Err(code) => return code,
    };
    let hypervisor = hypervisor.as_ref();
    let place = match place(global, args) {
        Ok(place) => place,
        Err(finding) => {
            prepare::tell(&[finding], &redactor);
            return REFUSED;
        }
    };
    let mut rows = match judged(hypervisor, args, &redactor).await {
        Ok(rows) => rows,
        Err(code) => return code,
    };
    let doomed = rows.iter().filter(|row| row.fate.is_ahead()).count();
    if let Err(code) = may_tag(hypervisor, args, doomed, &redactor).await {
        return code;
    }
    if let Some(place) = &place {
        if let Err(code) = can_archive(hypervisor, place, &rows, &redactor).await {
            return code;
        }
        for row in rows.iter_mut().filter(|row| row.fate.is_ahead()) {
            row.why = format!("after it is archived: {place}");
        }
    }
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
        let question = match (args.deprecate, &place) {
            (true, _) => format!("tag {these} as `{TAG_DEPRECATED}`?"),
            (false, Some(_)) => format!("archive and remove {these}?"),
            (false, None) => format!("remove {these} for good?"),
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
            _ => remove(hypervisor, row, place.as_ref(), &cancel, &redactor).await,
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
            Some(why) => Row { entry, fate: Fate::Kept, why, archive: None },
            None => Row { entry, fate, why: String::new(), archive: None },
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

/// Where archives go, when there are to be any.
fn place(global: &Global, args: &PruneArgs) -> Result<Option<ArchivePlace>, Finding> {
    match args.archive.as_deref() {
        None => Ok(None),
        Some("") => {
            let (site, _) = prepare::site(global);
            let target = site.target(args.which.target())?;
            let named = match &target.kind {
                TargetKind::Proxmox(proxmox) => proxmox.archive_storage.clone(),
                TargetKind::Qemu(_) => None,
            };
            let named = named.ok_or_else(|| {
                Finding::general(format!("target `{}` names no storage for archives", target.name))
                    .help("--archive STORAGE, or storage = { archives = \"STORAGE\" } in the target")
            })?;
            Ok(Some(ArchivePlace::Storage(named)))
        }
        Some(text) => Ok(Some(ArchivePlace::parse(text))),
    }
}

/// Whether the login is let set the tag `deprecated`. To remove a template it need not be.
async fn may_tag(
    hypervisor: &dyn Hypervisor,
    args: &PruneArgs,
    doomed: usize,
    redactor: &Redactor,
) -> Result<(), u8> {
    if doomed == 0 || !args.deprecate {
        return Ok(());
    }
    unopposed(hypervisor.check_tags(&[TAG_DEPRECATED]).await, redactor)
}

/// Whether nothing speaks against it; what does is told.
fn unopposed(found: Result<Vec<forge_machine::Finding>, PortError>, redactor: &Redactor) -> Result<(), u8> {
    let found = found.map_err(|error| {
        tell_error(&error, redactor);
        REFUSED
    })?;
    let found: Vec<Finding> =
        found.into_iter().map(|each| Finding::general(each.message).help(each.help)).collect();
    if prepare::tell(&found, redactor) { Err(REFUSED) } else { Ok(()) }
}

/// Whether those that are to go can be archived there. What speaks against it is told.
async fn can_archive(
    hypervisor: &dyn Hypervisor,
    place: &ArchivePlace,
    rows: &[Row],
    redactor: &Redactor,
) -> Result<(), u8> {
    let doomed: Vec<_> = rows.iter().filter(|row| row.fate.is_ahead()).map(|row| row.entry.vm()).collect();
    unopposed(hypervisor.check_archive(place, &doomed).await, redactor)
}

async fn tag(hypervisor: &dyn Hypervisor, row: &Row) -> Result<(), PortError> {
    let machine = hypervisor.machine(&row.entry.vm());
    match machine.tag(TAG_DEPRECATED).await {
        // Idempotent, so a lost answer is asked for again.
        Err(error) if error.is_outcome_unknown() => machine.tag(TAG_DEPRECATED).await,
        other => other,
    }
}

async fn deprecate(hypervisor: &dyn Hypervisor, row: &mut Row) {
    match tag(hypervisor, row).await {
        Ok(()) => row.fate = Fate::Deprecated,
        Err(error) => row.fail(&error),
    }
}

/// Deprecates, archives, removes: each only when the one before is done.
async fn remove(
    hypervisor: &dyn Hypervisor,
    row: &mut Row,
    place: Option<&ArchivePlace>,
    cancel: &CancellationToken,
    redactor: &Redactor,
) {
    // From here on nobody takes it for a new VM by its tags.
    if !row.entry.bears(TAG_DEPRECATED) {
        match tag(hypervisor, row).await {
            Ok(()) => {}
            // A site may keep the tag from the login, and let it remove.
            Err(error @ PortError::Denied { .. }) => {
                ui::say(&redactor.text(&format!("warning: VM {} goes untagged: {error}", row.entry.vmid)));
            }
            Err(error) => return row.fail(&error),
        }
    }
    if let Some(place) = place {
        let what = format!("archiving {} (VM {}): {place}", row.entry.name, row.entry.vmid);
        ui::say(&redactor.text(&what));
        match archive(hypervisor, row, place, cancel).await {
            Ok(Some(archive)) => row.archive = Some(archive),
            Ok(None) => {
                row.why = "it was interrupted while it was archived".into();
                return;
            }
            Err(error) => return row.fail(&error),
        }
    }
    row.why = row.archive.as_ref().map(|archive| format!("archived: {archive}")).unwrap_or_default();
    match hypervisor.machine(&row.entry.vm()).discard(&row.entry.chain_id).await {
        Ok(()) => row.fate = Fate::Removed,
        Err(error) => row.fail(&error),
    }
}

/// Archives one, and looks into the archive; tells where it is, or nothing when that was interrupted.
async fn archive(
    hypervisor: &dyn Hypervisor,
    row: &Row,
    place: &ArchivePlace,
    cancel: &CancellationToken,
) -> Result<Option<String>, PortError> {
    let machine = hypervisor.machine(&row.entry.vm());
    let task: TaskHandle = machine.submit_archive(&row.entry.chain_id, place).await?;
    tokio::select! {
        biased;
        () = cancel.cancelled() => {
            hypervisor.stop_task(&task).await?;
            return Ok(None);
        }
        ended = hypervisor.wait(&task) => ended?,
    }
    machine.archived(&row.entry.chain_id, place, &task).await.map(Some)
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
