//! Which tags the cluster lets a login set: `user-tag-access` and `registered-tags` of its options.
//!
//! Setting a tag and taking it off are refused alike: who has `Sys.Modify` on `/` may do all, everybody else only what
//! the policy allows, and never with a registered tag (pve-guest-common `GuestHelpers.pm`). The policy itself is shown to
//! those with `Sys.Audit` on `/` alone; others see in `allowed-tags` which of the tags that exist they may set, so that a
//! tag which another VM bears and that is missing there is known to be refused. Servers before 7.4 have no policy.

use std::collections::BTreeSet;

use forge_machine::{Finding, TAG_LATEST, TAG_OWN, TAGS_OF_TRIALS};
use serde_json::Value;

use crate::api::client::Client;
use crate::api::encode::Params;
use crate::api::error::ApiError;
use crate::api::types::{PermissionMap, ResourceEntry};
use crate::params::{TAG_BUILD, TAG_KEPT};
use crate::permissions::{Grants, grant_command};
use crate::sdn::Zones;

/// The cluster's options; none where the login may not see them (before 7.3 they took `Sys.Audit`). May be dropped.
///
/// # Errors
/// When the target can't be asked.
pub async fn options(client: &Client) -> Result<Value, ApiError> {
    match client.get("/cluster/options", &Params::new()).await {
        Err(ApiError::Denied { .. }) => Ok(Value::Null),
        other => other,
    }
}

/// What is known of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagPolicy {
    /// The tags that exist or are listed, and may be set; `None` before Proxmox VE 7.4.
    allowed: Option<BTreeSet<String>>,
    /// What else: `none`, `list`, `existing` or `free`; `None` when the login may not see it.
    rule: Option<String>,
    registered: BTreeSet<String>,
    listed: BTreeSet<String>,
}

impl TagPolicy {
    /// Reads the answer of `GET /cluster/options`. `sees_all` is whether the login has `Sys.Audit` on `/`: what is missing
    /// then is not set.
    #[must_use]
    pub fn read(options: &Value, sees_all: bool) -> Self {
        let access = options.get("user-tag-access");
        let of_access = |name: &str| match access {
            Some(Value::Object(map)) => map.get(name).cloned(),
            // A property string, as in the cluster's file.
            Some(Value::String(text)) => text
                .split(',')
                .filter_map(|part| part.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| Value::from(value)),
            _ => None,
        };
        let rule = of_access("user-allow").and_then(|rule| rule.as_str().map(str::to_owned));
        Self {
            allowed: options.get("allowed-tags").map(list),
            rule: rule.or_else(|| (sees_all || access.is_some()).then(|| "free".to_owned())),
            registered: options.get("registered-tags").map(list).unwrap_or_default(),
            listed: of_access("user-allow-list").as_ref().map(list).unwrap_or_default(),
        }
    }

    /// Why a tag can't be set, and what to do about it; `None` when it can, or when nobody can tell.
    fn refusal(&self, tag: &str, borne: bool, grants: &Grants) -> Option<(String, String)> {
        let allowed = self.allowed.as_ref()?;
        if allowed.contains(tag) {
            return None;
        }
        let who = &grants.token_id;
        let as_root = |command: &str| format!("as root on a node: {command}");
        let privilege = grant_command(&grants.role, who, "Sys.Modify", "/");
        if self.registered.contains(tag) {
            let why =
                format!("the tag `{tag}` is registered in the cluster's options, which keeps it from {who}");
            return Some((why, as_root(&privilege)));
        }
        match self.rule.as_deref() {
            Some("free") => None,
            Some(rule) => {
                let why =
                    format!("the cluster's policy (`user-allow={rule}`) keeps the tag `{tag}` from {who}");
                let mut listed = self.listed.clone();
                listed.insert(tag.to_owned());
                let listed: Vec<String> = listed.into_iter().collect();
                let rule = if rule == "none" { "list" } else { rule };
                let command = format!(
                    "pvesh set /cluster/options --user-tag-access 'user-allow={rule},user-allow-list={}'",
                    listed.join(";")
                );
                Some((why, as_root(&command)))
            }
            None if borne => {
                let why =
                    format!("the cluster's policy keeps the tag `{tag}` from {who}, though a VM bears it");
                Some((why, as_root(&privilege)))
            }
            None => None,
        }
    }

    /// What a build will not be let do: `tags` are those of the template, `source` those that a clone inherits and loses,
    /// `borne` all that can be seen on VMs.
    #[must_use]
    pub fn findings(
        &self,
        tags: &[String],
        source: &BTreeSet<String>,
        borne: &BTreeSet<String>,
        grants: &Grants,
    ) -> Vec<Finding> {
        // Every VM of forge's bears one of these.
        let forges = [TAG_BUILD.to_owned(), TAG_KEPT.to_owned()];
        let inherited = source.iter().filter(|tag| !tags.contains(tag) && !forges.contains(tag));
        let found = tags.iter().chain(&forges).chain(inherited).filter_map(|tag| {
            let (why, help) = self.refused(tag, borne, grants)?;
            let out = "; or leave the tag out";
            Some(match tag.as_str() {
                TAG_BUILD | TAG_KEPT | TAG_LATEST | TAG_OWN => Finding::fatal("target.token", why, help),
                tag if TAGS_OF_TRIALS.contains(&tag) => {
                    let why = format!("{why}; the template's trial needs it");
                    Finding::fatal(
                        "template.test",
                        why,
                        format!("{help}; or publish without a trial: --no-test"),
                    )
                }
                _ if tags.contains(tag) => Finding::fatal("template.tags", why, help + out),
                _ => {
                    let why = format!("{why}; the source bears it, and its clone has to lose it");
                    Finding::fatal("source", why, help)
                }
            })
        });
        found.collect()
    }

    /// Why a login can't set a tag or take it off, and what to do about it; `None` when it can, or when nobody can tell.
    #[must_use]
    pub fn refused(&self, tag: &str, borne: &BTreeSet<String>, grants: &Grants) -> Option<(String, String)> {
        if grants.on("/", "Sys.Modify") {
            return None;
        }
        self.refusal(tag, borne.contains(tag), grants)
    }
}

/// What the policy keeps from the login of these tags, each with what to do about it. May be dropped.
///
/// # Errors
/// When the target can't be asked.
pub(crate) async fn kept_from(client: &Client, tags: &[&str]) -> Result<Vec<(String, String)>, ApiError> {
    let (none, of_vms) = (Params::new(), Params::new().with("type", "vm"));
    let (resources, map, options) = tokio::try_join!(
        client.get::<Vec<ResourceEntry>>("/cluster/resources", &of_vms),
        client.get::<PermissionMap>("/access/permissions", &none),
        options(client),
    )?;
    let grants = Grants {
        token_id: client.login_id().to_owned(),
        role: client.role().to_owned(),
        // Neither release nor pool nor zone has to do with it.
        major: 0,
        map,
        pool: None,
        zones: Zones::new(),
    };
    let borne = resources.iter().flat_map(ResourceEntry::tags).map(str::to_lowercase).collect();
    let policy = TagPolicy::read(&options, grants.on("/", "Sys.Audit"));
    Ok(tags.iter().filter_map(|tag| policy.refused(tag, &borne, &grants)).collect())
}

/// An array of tags, or a text that lists them.
fn list(value: &Value) -> BTreeSet<String> {
    let texts: Vec<&str> = match value {
        Value::Array(each) => each.iter().filter_map(Value::as_str).collect(),
        Value::String(text) => text.split([';', ',', ' ']).collect(),
        _ => Vec::new(),
    };
    texts.into_iter().filter(|text| !text.is_empty()).map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grants(map: &str) -> Grants {
        Grants {
            token_id: "forge@pve!build".into(),
            role: crate::permissions::ROLE.into(),
            major: 9,
            map: serde_json::from_str(map).expect("valid"),
            pool: None,
            zones: Default::default(),
        }
    }

    fn refused(options: &Value, sees_all: bool, borne: &[&str]) -> Vec<String> {
        let borne = borne.iter().map(|tag| (*tag).to_owned()).collect();
        let policy = TagPolicy::read(options, sees_all);
        let found =
            policy.findings(&["golden".into(), "latest".into()], &BTreeSet::new(), &borne, &grants("{}"));
        let named = |finding: &Finding| {
            let tag = finding.message.split('`').find(|part| !part.contains(' ') && !part.contains('='));
            tag.unwrap_or_default().to_owned()
        };
        found.iter().map(named).collect()
    }

    /// Name, options, whether the policy may be seen, tags on VMs, tags that are refused.
    type Case = (&'static str, Value, bool, &'static [&'static str], &'static [&'static str]);

    #[test]
    fn what_the_policy_refuses_is_found_and_nothing_else() {
        let table: [Case; 9] = [
            ("an old server", json!({}), true, &[], &[]),
            ("no policy", json!({"allowed-tags": []}), true, &[], &[]),
            ("no policy that may be seen", json!({"allowed-tags": []}), false, &[], &[]),
            (
                "registered",
                json!({"allowed-tags": [], "registered-tags": ["golden"]}),
                true,
                &[],
                &["golden"],
            ),
            (
                "a list",
                json!({"allowed-tags": ["latest", "forge-build", "forge-kept"],
                       "user-tag-access": {"user-allow": "list", "user-allow-list": ["latest"]}}),
                true,
                &[],
                &["golden"],
            ),
            (
                "none",
                json!({"allowed-tags": [], "user-tag-access": "user-allow=none"}),
                true,
                &[],
                &["golden", "latest", "forge-build", "forge-kept"],
            ),
            (
                "existing",
                json!({"allowed-tags": ["golden"], "user-tag-access": {"user-allow": "existing"}}),
                true,
                &["golden"],
                &["latest", "forge-build", "forge-kept"],
            ),
            ("hidden, and another VM bears it", json!({"allowed-tags": []}), false, &["latest"], &["latest"]),
            ("hidden and allowed", json!({"allowed-tags": ["latest"]}), false, &["latest"], &[]),
        ];
        for (case, options, sees_all, borne, expected) in table {
            assert_eq!(refused(&options, sees_all, borne), expected, "{case}");
        }
    }

    #[test]
    fn who_may_modify_the_system_may_set_every_tag() {
        let policy =
            TagPolicy::read(&json!({"allowed-tags": [], "user-tag-access": {"user-allow": "none"}}), true);
        let grants = grants(r#"{"/":{"Sys.Modify":1}}"#);
        let none = BTreeSet::new();
        assert_eq!(policy.findings(&["golden".into()], &none, &none, &grants), []);
    }

    #[test]
    fn each_tag_is_told_where_it_comes_from() {
        let policy =
            TagPolicy::read(&json!({"allowed-tags": [], "user-tag-access": {"user-allow": "none"}}), true);
        let tags = ["golden", "latest", "forge", "untested", "validated", "test-failed"].map(str::to_owned);
        let none = BTreeSet::new();
        let found = policy.findings(&tags, &["base".to_owned()].into(), &none, &grants("{}"));
        let told: Vec<(&str, bool)> =
            found.iter().map(|each| (each.setting.as_str(), each.help.contains("--no-test"))).collect();
        let (token, trial) = (("target.token", false), ("template.test", true));
        let expected =
            [("template.tags", false), token, token, trial, trial, trial, token, token, ("source", false)];
        assert_eq!(told, expected);
        assert!(found[0].help.ends_with("or leave the tag out") && found.iter().all(|each| each.fatal));
    }

    #[test]
    fn the_command_keeps_what_is_listed_already() {
        let options = json!({"allowed-tags": ["web"],
                             "user-tag-access": {"user-allow": "list", "user-allow-list": ["web"]}});
        let none = BTreeSet::new();
        let policy = TagPolicy::read(&options, true);
        let found = policy.findings(&["golden".into()], &none, &none, &grants("{}"));
        let help = &found.first().expect("a finding").help;
        assert!(help.contains("'user-allow=list,user-allow-list=golden;web'"), "{help}");
    }
}
