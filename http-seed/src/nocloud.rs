//! cloud-init's NoCloud seed: `meta-data`, `user-data`, `vendor-data` and `network-config`.
//!
//! User-data is built as a value and dumped, so no value can break out of its place. What it makes for the build
//! (one user with one key) is what sealing takes away again; everything else is there only when it is asked for.
//!
//! cloud-init asks for `vendor-data` too, and newer ones for `network-config`. A file that is not there may cost it
//! waiting (so says the patch "Don't allow network-config", 2024-08-02, in Ubuntu's older series), so all four are
//! always served.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::set::SeedSet;
use crate::template::{RenderError, render};

/// The built-in templates, by the names of the files that they make.
pub const TEMPLATES: [(&str, &str); 4] = [
    ("meta-data", include_str!("../templates/nocloud/meta-data.tera")),
    ("user-data", include_str!("../templates/nocloud/user-data.tera")),
    ("vendor-data", include_str!("../templates/nocloud/vendor-data.tera")),
    ("network-config", include_str!("../templates/nocloud/network-config.tera")),
];

/// The user that a build logs in as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildUser {
    /// Its name.
    pub name: String,
    /// Its one authorized key, in OpenSSH's form.
    pub authorized_key: String,
    /// The hash of its password; without one nobody logs in by a password.
    pub password_hash: Option<String>,
    /// Further groups.
    pub groups: Vec<String>,
    /// Its line for sudo, without the name; `None` gives no right.
    pub sudo: Option<String>,
    /// Its login shell.
    pub shell: String,
}

impl BuildUser {
    /// A user who may become root without a password and can only log in with this key.
    #[must_use]
    pub fn sudoer(name: &str, authorized_key: &str) -> Self {
        Self {
            name: name.to_owned(),
            authorized_key: authorized_key.trim().to_owned(),
            password_hash: None,
            groups: Vec::new(),
            sudo: Some("ALL=(ALL) NOPASSWD:ALL".into()),
            shell: "/bin/sh".into(),
        }
    }

    /// By cloud-init's names (module "Users and Groups").
    fn to_value(&self) -> Value {
        let mut user = json!({
            "name": self.name,
            "gecos": "forge build",
            "shell": self.shell,
            "lock_passwd": self.password_hash.is_none(),
        });
        if let Some(hash) = &self.password_hash {
            set(&mut user, "passwd", json!(hash));
        }
        if !self.groups.is_empty() {
            set(&mut user, "groups", json!(self.groups));
        }
        if let Some(sudo) = &self.sudo {
            set(&mut user, "sudo", json!(sudo));
        }
        set(&mut user, "ssh_authorized_keys", json!([self.authorized_key]));
        user
    }
}

/// The host key that the guest is given, so that it is known before the first connection.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKey {
    /// The ed25519 private key in OpenSSH's form.
    pub private: String,
    /// Its public key.
    pub public: String,
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostKey").field("public", &self.public).finish_non_exhaustive()
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
    /// The SSH host key that it is given, as its only one; `None` lets it make its own.
    pub host_key: Option<HostKey>,
    /// Further user-data, merged over forge's own: tables merge, lists append, everything else replaces.
    pub user_data: Option<Value>,
    /// The network configuration (cloud-init's version 1 or 2); `None` leaves the source's.
    pub network_config: Option<Value>,
}

impl NoCloud {
    /// User-data as a value.
    #[must_use]
    pub fn user_data_value(&self) -> Value {
        let mut data = Map::new();
        if let Some(user) = &self.user {
            // `users` without `default`: the distribution's own user is not made in a template. `ssh_pwauth` is left
            // alone: cloud-init would write it into the image's sshd_config, for every clone.
            data.insert("users".into(), json!([user.to_value()]));
            data.insert("disable_root".into(), Value::Bool(true));
        }
        // Module "SSH": with keys of its own here, cloud-init makes none.
        if let Some(key) = &self.host_key {
            let keys = json!({ "ed25519_private": key.private, "ed25519_public": key.public });
            data.insert("ssh_keys".into(), keys);
        }
        let mut value = Value::Object(data);
        if let Some(more) = &self.user_data {
            merge(&mut value, more);
        }
        value
    }

    /// The files, all that cloud-init asks for.
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
        for (name, text) in TEMPLATES {
            set.add(name, render(name, text, &context)?)?;
        }
        Ok(set)
    }
}

fn set(table: &mut Value, key: &str, value: Value) {
    if let Value::Object(table) = table {
        table.insert(key.to_owned(), value);
    }
}

/// Tables merge, lists append, everything else replaces.
pub fn merge(into: &mut Value, from: &Value) {
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
    use crate::set::SeedFile;

    fn sample() -> NoCloud {
        NoCloud {
            instance_id: "forge-00112233".into(),
            hostname: Some("build".into()),
            user: Some(BuildUser::sudoer("forge", "ssh-ed25519 AAAA forge-build\n")),
            host_key: None,
            user_data: None,
            network_config: None,
        }
    }

    fn all(set: &SeedSet) -> String {
        set.texts().map(|(name, text)| format!("=== {name}\n{text}")).collect()
    }

    #[test]
    fn the_files_are_what_cloud_init_asks_for_and_nothing_more() {
        let files = sample().files().expect("renders");
        insta::assert_snapshot!(all(&files), @r#"
        === meta-data
        instance-id: forge-00112233
        local-hostname: build
        === network-config
        # Nothing is given: the image's own network configuration stands.
        === user-data
        #cloud-config
        users:
          - name: forge
            gecos: "forge build"
            shell: "/bin/sh"
            lock_passwd: true
            sudo: "ALL=(ALL) NOPASSWD:ALL"
            ssh_authorized_keys:
              - "ssh-ed25519 AAAA forge-build"
        disable_root: true
        === vendor-data
        #cloud-config
        {}
        "#);
        assert_eq!(files, sample().files().expect("renders"), "the same values give the same bytes");
    }

    #[test]
    fn everything_can_be_asked_for() {
        let user = BuildUser {
            groups: vec!["adm".into()],
            sudo: None,
            ..BuildUser::sudoer("forge", "ssh-ed25519 A")
        };
        let seed = NoCloud {
            hostname: None,
            user: Some(user),
            host_key: Some(HostKey {
                private: "-----BEGIN\nAAAA\n-----END\n".into(),
                public: "ssh-ed25519 B".into(),
            }),
            user_data: Some(json!({ "packages": ["tmux"], "timezone": "UTC", "users": [{ "name": "x" }] })),
            network_config: Some(json!({
                "version": 2,
                "ethernets": { "all": { "match": { "name": "e*" }, "dhcp4": true } },
            })),
            ..sample()
        };
        insta::assert_snapshot!(all(&seed.files().expect("renders")), @r#"
        === meta-data
        instance-id: forge-00112233
        === network-config
        version: 2
        ethernets:
          all:
            match:
              name: "e*"
            dhcp4: true
        === user-data
        #cloud-config
        users:
          - name: forge
            gecos: "forge build"
            shell: "/bin/sh"
            lock_passwd: true
            groups:
              - adm
            ssh_authorized_keys:
              - "ssh-ed25519 A"
          - name: x
        disable_root: true
        ssh_keys:
          ed25519_private: "-----BEGIN\nAAAA\n-----END\n"
          ed25519_public: "ssh-ed25519 B"
        packages:
          - tmux
        timezone: UTC
        === vendor-data
        #cloud-config
        {}
        "#);
        assert!(!format!("{seed:?}").contains("AAAA"), "a private key is not shown");
    }

    #[test]
    fn whatever_a_value_holds_it_comes_back_as_it_was() {
        let seed = NoCloud {
            user_data: Some(json!({ "users": [{ "name": "extra: \"#x\"\n- y" }], "on": "22:22" })),
            ..sample()
        };
        let files = seed.files().expect("renders");
        let user_data = files.get("user-data").and_then(SeedFile::text).expect("there");
        assert!(user_data.starts_with("#cloud-config\n"), "{user_data}");
        let read: Value = serde_yaml::from_str(user_data).expect("YAML");
        assert_eq!(read, seed.user_data_value());
        assert_eq!(read["users"][1]["name"], "extra: \"#x\"\n- y");
    }

    #[test]
    fn without_a_user_nothing_is_made() {
        let bare = NoCloud { user: None, hostname: None, ..sample() };
        assert_eq!(bare.user_data_value(), json!({}));
        let files = bare.files().expect("renders");
        assert_eq!(files.get("meta-data").and_then(SeedFile::text), Some("instance-id: forge-00112233\n"));
        assert_eq!(files.get("user-data").and_then(SeedFile::text), Some("#cloud-config\n{}\n"));
    }

    #[test]
    fn the_built_in_templates_pass_their_own_lint() {
        for (name, text) in TEMPLATES {
            assert_eq!(crate::template::lint(name, text), [], "{name}");
        }
    }
}
