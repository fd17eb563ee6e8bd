//! Which VMID is tried next, and whether one is free.
//!
//! Nothing reserves a VMID, so builds that begin at once try the same. A build that is alone gets the lowest free one,
//! which people expect; the more often a build was beaten, the wider it throws, so that many builds spread over the
//! range after a few tries instead of chasing each other through it.

use std::collections::BTreeSet;

use forge_machine::Finding;
use rand::RngExt as _;
use serde_json::Value;

use crate::api::client::Client;
use crate::api::encode::Params;
use crate::api::error::ApiError;
use crate::api::types::ResourceEntry;

/// Proxmox's highest VMID (pve-common `JSONSchema.pm`, `pve-vmid`).
pub const LAST: u32 = 999_999_999;

/// Whether a VMID is free in the whole cluster at this moment. May be dropped.
///
/// # Errors
/// When the target can't be asked.
pub(crate) async fn is_free(client: &Client, vmid: &str) -> Result<bool, ApiError> {
    match client.get::<Value>("/cluster/nextid", &Params::new().with("vmid", vmid)).await {
        Ok(_) => Ok(true),
        Err(ApiError::IdTaken { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What keeps a build from the one id that its profile names: somebody has it. May be dropped.
///
/// # Errors
/// When the target can't be asked.
pub(crate) async fn taken(
    client: &Client,
    vmid: u32,
    known: &[ResourceEntry],
) -> Result<Option<Finding>, ApiError> {
    // The list may be old, and shows only what the token may see.
    if is_free(client, &vmid.to_string()).await? {
        return Ok(None);
    }
    let by = match known.iter().find(|entry| entry.vmid == u64::from(vmid)) {
        Some(entry) => {
            let kind = match entry.kind.as_str() {
                "lxc" => "the container",
                _ if entry.template => "the template",
                _ => "the VM",
            };
            format!("{kind} {} on {}", entry.name.as_deref().unwrap_or("without a name"), entry.node)
        }
        None => "something that the token may not see".to_owned(),
    };
    let help = "name another id, or leave `vmid` out for one of the target's `vmids`; a template that is there is replaced by \
                none, not with `--force` either: `forge prune` removes old ones";
    Ok(Some(Finding::fatal("vm.vmid", format!("VMID {vmid} is taken: {by} has it"), help)))
}

/// The ids of a range that may be free, in the order in which they are to be tried.
#[derive(Debug)]
pub struct Choice {
    range: (u32, u32),
    /// Known to be taken, or tried already.
    out: BTreeSet<u64>,
    /// Taken when they were tried, or listed as taken; perhaps free by now. The list may be 10 s old.
    last: Vec<u32>,
    window: usize,
}

impl Choice {
    /// `taken` are ids that are in use; `refused` those that were taken when they were tried, oldest first.
    #[must_use]
    pub fn new(range: (u32, u32), taken: BTreeSet<u64>, refused: Vec<u32>) -> Self {
        let window =
            4_usize.saturating_pow(u32::try_from(refused.len().saturating_sub(2)).unwrap_or(u32::MAX));
        let mut last = refused;
        last.retain(|id| (range.0..=range.1).contains(id));
        let listed = taken.iter().filter_map(|id| u32::try_from(*id).ok());
        let listed: Vec<u32> =
            listed.filter(|id| (range.0..=range.1).contains(id) && !last.contains(id)).collect();
        last.extend(listed);
        let mut out = taken;
        out.extend(last.iter().map(|id| u64::from(*id)));
        Self { range, out, last, window: window.min(4096) }
    }

    /// The next id to ask about; `None` when the range is through.
    pub fn next(&mut self) -> Option<u32> {
        let (first, last) = self.range;
        let open: Vec<u32> =
            (first..=last).filter(|id| !self.out.contains(&u64::from(*id))).take(self.window).collect();
        let next = if open.is_empty() {
            (!self.last.is_empty()).then(|| self.last.remove(0))
        } else {
            open.get(rand::rng().random_range(0..open.len())).copied()
        };
        self.out.extend(next.map(u64::from));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut choice: Choice) -> Vec<u32> {
        std::iter::from_fn(|| choice.next()).collect()
    }

    #[test]
    fn a_build_alone_gets_the_lowest_id_that_is_free() {
        let taken = BTreeSet::from([9000, 9002]);
        assert_eq!(all(Choice::new((9000, 9004), taken, vec![])), [9001, 9003, 9004, 9000, 9002]);
    }

    #[test]
    fn a_build_that_was_beaten_often_throws_wide_and_still_tries_every_id_once() {
        let refused: Vec<u32> = (9000..9006).collect();
        let mut firsts = BTreeSet::new();
        for _ in 0..200 {
            let mut tried = all(Choice::new((9000, 9049), BTreeSet::new(), refused.clone()));
            firsts.insert(tried[0]);
            assert_eq!(tried[44..], refused, "what was refused comes last, the longest ago first");
            tried.sort_unstable();
            assert_eq!(tried, Vec::from_iter(9000..9050));
        }
        assert!(firsts.len() > 20, "200 throws met only {firsts:?}");
    }

    #[test]
    fn an_id_beyond_the_range_is_never_proposed() {
        assert_eq!(all(Choice::new((9000, 9001), BTreeSet::from([100, 9001]), vec![100])), [9000, 9001]);
    }
}
