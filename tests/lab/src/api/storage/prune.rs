//! `GET` and `DELETE prunebackups`: which backups of a VM are kept.
//!
//! What counts are the files in a storage's `dump` folder that are named as vzdump names them. Times are UTC.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{Answer, Call};
use super::backup;
use crate::error::{ApiError, ApiResult};

/// A backup file.
struct Backup {
    file: String,
    vmid: String,
    time: jiff::civil::DateTime,
}

/// `vzdump-qemu-100-2026_11_21-08_00_00.vma.zst`.
fn parse(file: &str) -> Option<Backup> {
    let rest = file.strip_prefix("vzdump-qemu-")?;
    let (vmid, rest) = rest.split_once('-')?;
    let stamp = rest.get(..19)?;
    let time = jiff::civil::DateTime::strptime("%Y_%m_%d-%H_%M_%S", stamp).ok()?;
    vmid.parse::<u32>().ok()?;
    Some(Backup { file: file.to_owned(), vmid: vmid.to_owned(), time })
}

/// The VM of a backup file.
pub fn owner(file: &str) -> Option<String> {
    parse(file).map(|backup| backup.vmid)
}

/// What is kept: `keep-last=3,keep-daily=7`.
fn rules(text: &str) -> ApiResult<BTreeMap<String, usize>> {
    let bad = || ApiError::parameter("prune-backups", "invalid format - format error\n");
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, value) = part.split_once('=').ok_or_else(bad)?;
            Ok((key.to_owned(), value.parse().map_err(|_| bad())?))
        })
        .collect()
}

/// Marks one VM's backups, newest first: each rule keeps the newest of as many periods as it says, and counts only
/// periods that no rule before it has kept.
fn marks(backups: &[Backup], rules: &BTreeMap<String, usize>) -> Vec<&'static str> {
    let mut marks = vec!["remove"; backups.len()];
    if rules.get("keep-all") == Some(&1) || rules.values().all(|count| *count == 0) {
        return vec!["keep"; backups.len()];
    }
    let periods: [(&str, &str); 6] = [
        ("keep-last", "%Y%m%d%H%M%S"),
        ("keep-hourly", "%Y%m%d%H"),
        ("keep-daily", "%Y%m%d"),
        ("keep-weekly", "%G%V"),
        ("keep-monthly", "%Y%m"),
        ("keep-yearly", "%Y"),
    ];
    for (rule, period) in periods {
        let Some(count) = rules.get(rule) else { continue };
        let name = |backup: &Backup| backup.time.strftime(period).to_string();
        let kept: Vec<String> = backups
            .iter()
            .zip(&marks)
            .filter(|(_, mark)| **mark == "keep")
            .map(|(backup, _)| name(backup))
            .collect();
        let mut taken: Vec<String> = Vec::new();
        for (index, backup) in backups.iter().enumerate() {
            let period = name(backup);
            if marks[index] == "keep"
                || kept.contains(&period)
                || taken.contains(&period)
                || taken.len() >= *count
            {
                continue;
            }
            taken.push(period);
            marks[index] = "keep";
        }
    }
    marks
}

fn listed(call: &Call) -> ApiResult<Vec<Value>> {
    let name = call.params.text("storage");
    if !call.cluster.storages.get_on(call.node(), name)?.takes("backup") {
        return Err(ApiError::die(format!("storage '{name}' does not support content type 'backup'")));
    }
    let folder = call.cluster.storages.content_folder(call.node(), name, "backup")?;
    let rules = rules(call.params.get("prune-backups").unwrap_or("keep-all=1"))?;
    let mut by_vm: BTreeMap<String, Vec<Backup>> = BTreeMap::new();
    for (file, _, _) in super::files(&folder).into_iter().filter(|(file, ..)| backup::format(file).is_some())
    {
        let Some(backup) = parse(&file) else { continue };
        if call.params.get("vmid").is_none_or(|vmid| vmid == backup.vmid) {
            by_vm.entry(backup.vmid.clone()).or_default().push(backup);
        }
    }
    let mut list = Vec::new();
    for (vmid, mut backups) in by_vm {
        backups.sort_by_key(|backup| std::cmp::Reverse(backup.time));
        // What is protected stays, and takes no other's place.
        let is_protected = |each: &Backup| backup::beside(&folder.join(&each.file), "protected").exists();
        let (protected, backups): (Vec<_>, Vec<_>) = backups.into_iter().partition(is_protected);
        let marked = backups.iter().zip(marks(&backups, &rules));
        for (backup, mark) in protected.iter().map(|backup| (backup, "protected")).chain(marked) {
            let ctime =
                backup.time.to_zoned(jiff::tz::TimeZone::UTC).map_or(0, |time| time.timestamp().as_second());
            list.push(
                json!({"volid": format!("{name}:backup/{}", backup.file), "type": "qemu", "ctime": ctime,
                "vmid": vmid.parse::<u32>().unwrap_or(0), "mark": mark}),
            );
        }
    }
    Ok(list)
}

/// `GET prunebackups`: changes nothing.
pub fn list(call: &Call) -> ApiResult<Answer> {
    Ok(Value::Array(listed(call)?).into())
}

/// `DELETE prunebackups`.
pub fn prune(call: &Call) -> ApiResult<Answer> {
    let storage = call.params.text("storage").to_owned();
    match call.params.get("vmid") {
        Some(vmid) => {
            call.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
            call.require(&format!("/vms/{vmid}"), &["VM.Backup"])?;
        }
        None => call.require(&format!("/storage/{storage}"), &["Datastore.Allocate"])?,
    }
    let marked = listed(call)?;
    let folder = call.cluster.storages.content_folder(call.node(), &storage, "backup")?;
    call.spawn("prunebackups", storage, |log| async move {
        for entry in marked {
            let volid = entry["volid"].as_str().unwrap_or_default();
            log.line(format!("{}: {volid}", entry["mark"].as_str().unwrap_or_default()));
            if entry["mark"] == "remove"
                && let Some(file) = volid.rsplit('/').next()
            {
                std::fs::remove_file(folder.join(file)).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_keeps_the_newest_of_its_periods() {
        let files =
            ["2026_11_21-08_00_00", "2026_11_21-07_00_00", "2026_11_20-08_00_00", "2026_11_19-08_00_00"];
        let backups: Vec<Backup> =
            files.iter().filter_map(|stamp| parse(&format!("vzdump-qemu-100-{stamp}.vma.zst"))).collect();
        assert_eq!(backups.len(), 4);
        let of = |text: &str| marks(&backups, &rules(text).expect("rules"));
        assert_eq!(of("keep-last=1"), ["keep", "remove", "remove", "remove"]);
        assert_eq!(of("keep-daily=2"), ["keep", "remove", "keep", "remove"]);
        assert_eq!(of("keep-last=1,keep-daily=1"), ["keep", "remove", "keep", "remove"]);
        assert_eq!(of("keep-all=1"), ["keep"; 4]);
        assert!(rules("keep-last").is_err());
    }
}
