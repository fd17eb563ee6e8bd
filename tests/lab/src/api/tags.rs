//! Who may set which tag: the cluster's options `user-tag-access` and `registered-tags` (pve-guest-common
//! `GuestHelpers.pm`, `get_allowed_tags` and `assert_tag_permissions`).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Call;
use crate::error::{ApiError, ApiResult};
use crate::schema::split_list;

/// What the cluster's options say of tags.
struct Policy {
    /// `none`, `list`, `existing` or `free`.
    allow: String,
    listed: BTreeSet<String>,
    registered: BTreeSet<String>,
}

impl Policy {
    fn of(options: &Map<String, Value>) -> Policy {
        let text = |key: &str| options.get(key).and_then(Value::as_str).unwrap_or_default();
        let access = |name: &str| {
            let parts = text("user-tag-access").split(',').filter_map(|part| part.split_once('='));
            parts.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        Policy {
            allow: access("user-allow").unwrap_or_else(|| "free".to_owned()),
            listed: set(&access("user-allow-list").unwrap_or_default()),
            registered: set(text("registered-tags")),
        }
    }
}

fn set(text: &str) -> BTreeSet<String> {
    split_list(text).map(str::to_owned).collect()
}

/// What a caller may set.
struct Allowed {
    tags: BTreeSet<String>,
    registered: BTreeSet<String>,
    free: bool,
    privileged: bool,
}

impl Allowed {
    fn to(call: &Call) -> Allowed {
        let options = call.cluster.options.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let policy = Policy::of(&options);
        let privileged = call.may("/", &["Sys.Modify"]);
        let mut tags = BTreeSet::new();
        if policy.allow != "none" || privileged {
            tags.extend(policy.listed);
        }
        if privileged || matches!(policy.allow.as_str(), "free" | "existing") {
            let borne: Vec<(u32, String)> = {
                let state = call.cluster.state();
                state
                    .vms
                    .values()
                    .map(|vm| (vm.vmid, vm.get("tags").unwrap_or_default().to_owned()))
                    .collect()
            };
            for (vmid, text) in borne {
                if privileged || call.may(&format!("/vms/{vmid}"), &["VM.Audit"]) {
                    tags.extend(set(&text));
                }
            }
        }
        match privileged {
            true => tags.extend(policy.registered.iter().cloned()),
            false => tags.retain(|tag| !policy.registered.contains(tag)),
        }
        Allowed { tags, registered: policy.registered, free: policy.allow == "free", privileged }
    }
}

/// Demands what it takes to set and to take off the tags in which two lists differ.
///
/// # Errors
/// 403 for the first that may not be changed.
pub fn check(call: &Call, old: &str, new: &str) -> ApiResult<()> {
    let allowed = Allowed::to(call);
    if allowed.privileged {
        return Ok(());
    }
    for tag in set(old).symmetric_difference(&set(new)) {
        if (!allowed.tags.contains(tag) && !allowed.free) || allowed.registered.contains(tag) {
            return Err(ApiError::forbidden(&format!("/, Sys.Modify for modifying tag '{tag}'")));
        }
    }
    Ok(())
}

/// The cluster's options as `GET /cluster/options` shows them to a caller.
pub fn shown_options(call: &Call) -> Map<String, Value> {
    let mut answer = call.cluster.options.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    if !call.may("/", &["Sys.Audit"]) {
        answer.retain(|key, _| matches!(key.as_str(), "console" | "tag-style"));
    }
    answer.insert("allowed-tags".to_owned(), json!(Allowed::to(call).tags));
    answer
}
