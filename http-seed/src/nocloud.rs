//! cloud-init's NoCloud seed: `meta-data`, `user-data`, `vendor-data`, and `network-config` when one is given.
//!
//! User-data is built as a value and dumped, so no value can break out of its place. What it makes for the build
//! (one user with one key) is what sealing takes away again.

use serde_json::{Map, Value, json};

use crate::set::SeedSet;
use crate::template::{RenderError, render};

/// The user that a build logs in as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildUser {
    /// Its name.
    pub name: String,
    /// Its one authorized key, in OpenSSH's form.
    pub authorized_key: String,
}

impl BuildUser {
    /// A user who may become root without a password and can only log in with this key.
    #[must_use]
    pub fn sudoer(name: &str, authorized_key: &str) -> Self {
        Self { name: name.to_owned(), authorized_key: authorized_key.to_owned() }
    }

    /// By cloud-init's names (module "Users and Groups").
    fn to_value(&self) -> Value {
        json!({
            "name": self.name,
            "gecos": "forge build",
            "shell": "/bin/sh",
            "lock_passwd": true,
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "ssh_authorized_keys": [self.authorized_key],
        })
    }
}

/// A NoCloud seed.
#[derive(Clone, Debug, PartialEq)]
pub struct NoCloud {
    /// What cloud-init tells a new machine by.
    pub instance_id: String,
    /// The host name during the build; `None` leaves the source's.
    pub hostname: Option<String>,
    /// The user to make; `None` when the source has one.
    pub user: Option<BuildUser>,
    /// Further user-data, merged over forge's own: tables merge, lists append, everything else replaces.
    pub user_data: Option<Value>,
    /// The network configuration (cloud-init's version 1 or 2).
    pub network_config: Option<Value>,
}

impl NoCloud {
    /// User-data as a value.
    #[must_use]
    pub fn user_data_value(&self) -> Value {
        let mut data = Map::new();
        if let Some(user) = &self.user {
            // `users` without `default`: the distribution's own user is not made in a template.
            data.insert("users".into(), json!([user.to_value()]));
            data.insert("ssh_pwauth".into(), Value::Bool(false));
        }
        let mut value = Value::Object(data);
        if let Some(more) = &self.user_data {
            merge(&mut value, more);
        }
        value
    }

    /// The files.
    ///
    /// # Errors
    /// When a template can't be rendered.
    pub fn files(&self) -> Result<SeedSet, RenderError> {
        let context = json!({
            "instance_id": self.instance_id,
            "hostname": self.hostname,
            "user_data": self.user_data_value(),
            "network_config": self.network_config,
        });
        let mut set = SeedSet::default();
        for (name, text) in [
            ("meta-data", include_str!("../templates/nocloud/meta-data.tera")),
            ("user-data", include_str!("../templates/nocloud/user-data.tera")),
            ("vendor-data", include_str!("../templates/nocloud/vendor-data.tera")),
        ] {
            set = set.with(name, render(name, text, &context)?);
        }
        if self.network_config.is_some() {
            let text = include_str!("../templates/nocloud/network-config.tera");
            set = set.with("network-config", render("network-config", text, &context)?);
        }
        Ok(set)
    }
}

/// Tables merge, lists append, everything else replaces.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match into.get_mut(key) {
                    Some(present) => merge(present, value),
                    None => {
                        into.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        (into, from) => *into = from.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> NoCloud {
        NoCloud {
            instance_id: "forge-00112233".into(),
            hostname: Some("build".into()),
            user: Some(BuildUser::sudoer("forge", "ssh-ed25519 AAAA forge-build")),
            user_data: Some(json!({ "timezone": "UTC", "users": [{ "name": "extra: \"#x\"\n- y" }] })),
            network_config: None,
        }
    }

    #[test]
    fn the_files_are_what_cloud_init_asks_for() {
        let set = sample().files().expect("renders");
        insta::assert_snapshot!(set.get("meta-data").expect("there"), @r"
        instance-id: forge-00112233
        local-hostname: build
        ");
        assert_eq!(set.get("vendor-data"), Some("#cloud-config\n{}\n"));
        assert_eq!(set.get("network-config"), None);
        let user_data = set.get("user-data").expect("there");
        assert!(user_data.starts_with("#cloud-config\n"), "{user_data}");
        assert!(
            user_data.contains("ssh-ed25519 AAAA forge-build\n"),
            "the key stands on one line: {user_data}"
        );
    }

    #[test]
    fn whatever_a_value_holds_it_comes_back_as_it_was() {
        let sample = sample();
        let set = sample.files().expect("renders");
        let read: Value = serde_yaml::from_str(set.get("user-data").expect("there")).expect("YAML");
        assert_eq!(read, sample.user_data_value());
        assert_eq!(read["users"][1]["name"], "extra: \"#x\"\n- y");
        assert_eq!(read["users"][0]["ssh_authorized_keys"][0], "ssh-ed25519 AAAA forge-build");
    }

    #[test]
    fn without_a_user_nothing_is_made() {
        let bare = NoCloud { user: None, user_data: None, hostname: None, ..sample() };
        assert_eq!(bare.user_data_value(), json!({}));
        let meta = bare.files().expect("renders");
        assert_eq!(meta.get("meta-data"), Some("instance-id: forge-00112233\n"));
    }
}
