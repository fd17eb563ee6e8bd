//! Which templates may go (`forge prune`). Pure.
//!
//! A profile's templates are one line, newest first. Of each line the newest few stay, and what bears `latest`, what is
//! younger than the limit, what somebody protected, and what can't be told apart from foreign work. The rest is doomed,
//! unless linked clones still need it: that only the target knows.

use std::collections::BTreeMap;
use std::time::Duration;

use forge_machine::TAG_LATEST;
use jiff::Timestamp;

use crate::catalogue::{Entry, UNFIT};

/// What stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many of each profile, the newest; at least one.
    pub keep: usize,
    /// Whatever is not older than this.
    pub older_than: Option<Duration>,
}

/// Why a template stays; `None` when it is doomed.
pub type Reason = Option<String>;

/// Judges templates, newest first, and gives each with why it stays.
#[must_use]
pub fn judge(entries: Vec<Entry>, policy: Policy, now: Timestamp) -> Vec<(Entry, Reason)> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let judged = entries.into_iter().map(|entry| {
        let place = seen.entry(entry.profile.clone()).or_default();
        let reason = reason(&entry, *place, policy, now);
        // What failed its test, waits for it, or is to go, takes no good one's place: a rollback needs those.
        if !UNFIT.iter().any(|tag| entry.bears(tag)) {
            *place += 1;
        }
        (entry, reason)
    });
    judged.collect()
}

fn reason(entry: &Entry, place: usize, policy: Policy, now: Timestamp) -> Reason {
    if !entry.forge || entry.profile.is_empty() || entry.chain_id.is_empty() {
        return Some("its notes do not tell which build of forge made it".into());
    }
    if entry.bears(TAG_LATEST) {
        return Some(format!("it bears the tag `{TAG_LATEST}`"));
    }
    let keep = policy.keep.max(1);
    if place < keep {
        return Some(match keep {
            1 => format!("the newest of {}", entry.profile),
            _ => format!("one of the newest {keep} of {}", entry.profile),
        });
    }
    if let Some(limit) = policy.older_than {
        let Some(made) = entry.made() else { return Some("nobody can tell how old it is".into()) };
        let age = now.duration_since(made);
        if age.is_negative() || age.unsigned_abs() < limit {
            return Some(format!("it is {} old", days(age.unsigned_abs())));
        }
    }
    entry.protected.then(|| "somebody protected it from being removed".into())
}

fn days(age: Duration) -> String {
    match age.as_secs() / 86_400 {
        0 => "less than a day".into(),
        1 => "a day".into(),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(vmid: &str, profile: &str, day: &str, tags: &[&str]) -> Entry {
        Entry {
            vmid: vmid.into(),
            profile: profile.into(),
            forge: true,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            chain_id: format!("CHAIN-202611{day}T000000Z-{profile}-1f"),
            ..Entry::default()
        }
    }

    fn doomed(entries: Vec<Entry>, keep: usize, older_than: Option<u64>) -> Vec<String> {
        let policy = Policy { keep, older_than: older_than.map(|days| Duration::from_secs(days * 86_400)) };
        let now = "2026-11-21T00:00:00Z".parse().unwrap();
        let judged = judge(entries, policy, now).into_iter();
        judged.filter(|(_, reason)| reason.is_none()).map(|(entry, _)| entry.vmid).collect()
    }

    fn line() -> Vec<Entry> {
        vec![
            entry("5", "web", "20", &["forge"]),
            entry("9", "db", "19", &["forge", "latest"]),
            entry("4", "web", "18", &["forge"]),
            entry("3", "web", "10", &["forge", "latest"]),
            entry("2", "web", "05", &["forge"]),
            entry("8", "db", "04", &["forge"]),
            entry("1", "web", "01", &["forge"]),
        ]
    }

    #[test]
    fn of_each_profile_the_newest_and_the_published_one_stay() {
        assert_eq!(doomed(line(), 1, None), ["4", "2", "8", "1"]);
        assert_eq!(doomed(line(), 2, None), ["2", "1"]);
        assert_eq!(doomed(line(), 5, None), [""; 0]);
        assert_eq!(doomed(line(), 0, None), doomed(line(), 1, None), "the newest is never doomed");
    }

    #[test]
    fn what_failed_its_test_takes_no_good_ones_place() {
        let mut line = vec![
            entry("9", "web", "28", &["forge", "test-failed"]),
            entry("8", "web", "27", &["forge", "test-failed"]),
            entry("7", "web", "26", &["forge", "deprecated"]),
        ];
        line.extend(self::line().into_iter().filter(|entry| entry.profile == "web"));
        assert_eq!(doomed(line, 2, None), ["2", "1"]);
    }

    #[test]
    fn what_is_younger_than_the_limit_stays_and_so_does_what_has_no_age() {
        assert_eq!(doomed(line(), 1, Some(16)), ["2", "8", "1"]);
        assert_eq!(doomed(line(), 1, Some(17)), ["8", "1"]);
        assert_eq!(doomed(line(), 1, Some(90)), [""; 0]);
        let mut unknown = line();
        unknown[6].chain_id = "CHAIN-x".into();
        assert_eq!(doomed(unknown.clone(), 1, Some(16)), ["2", "8"]);
        assert_eq!(doomed(unknown, 2, None), ["2", "1"]);
    }

    #[test]
    fn what_is_protected_or_not_surely_of_forge_stays() {
        let mut line = line();
        line[6].protected = true;
        line[4].chain_id.clear();
        assert_eq!(doomed(line.clone(), 1, None), ["4", "8"]);
        line[2].forge = false;
        assert_eq!(doomed(line, 1, None), ["8"]);
    }
}
