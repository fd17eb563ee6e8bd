//! cloud-init's user-data and Subiquity's autoinstall: keys and the kinds of their values.

use serde_json::Value;

use super::cloud_shapes::{ENTRIES1, NETPLAN, NETWORK1, NETWORK2, USER_DATA};
use super::shape::{self, Shape, Step, Wrong};
use super::{Found, nearest};

/// cloud-init's top-level keys ("Module reference" of its documentation, 22.4 to 25).
const CLOUD_CONFIG: &[&str] = &[
    "allow_public_ssh_keys",
    "ansible",
    "apk_repos",
    "apt",
    "apt_pipelining",
    "apt_reboot_if_required",
    "apt_update",
    "apt_upgrade",
    "authkey_hash",
    "autoinstall",
    "bootcmd",
    "byobu_by_default",
    "ca-certs",
    "ca_certs",
    "chef",
    "chpasswd",
    "cloud_config_modules",
    "cloud_final_modules",
    "cloud_init_modules",
    "create_hostname_file",
    "datasource",
    "datasource_list",
    "device_aliases",
    "disable_ec2_metadata",
    "disable_root",
    "disable_root_opts",
    "disk_setup",
    "drivers",
    "fan",
    "final_message",
    "fqdn",
    "fs_setup",
    "growpart",
    "groups",
    "grub-dpkg",
    "grub_dpkg",
    "hostname",
    "keyboard",
    "landscape",
    "launch-index",
    "locale",
    "locale_configfile",
    "lxd",
    "manage_etc_hosts",
    "manage_resolv_conf",
    "manual_cache_clean",
    "mcollective",
    "merge_how",
    "merge_type",
    "migrate",
    "mount_default_fields",
    "mounts",
    "network",
    "no_ssh_fingerprints",
    "ntp",
    "output",
    "package_reboot_if_required",
    "package_update",
    "package_upgrade",
    "packages",
    "password",
    "phone_home",
    "power_state",
    "prefer_fqdn_over_hostname",
    "preserve_hostname",
    "puppet",
    "random_seed",
    "reporting",
    "resize_rootfs",
    "resolv_conf",
    "rh_subscription",
    "rpi",
    "rsyslog",
    "runcmd",
    "salt_minion",
    "snap",
    "spacewalk",
    "ssh",
    "ssh_authorized_keys",
    "ssh_deletekeys",
    "ssh_fp_console_blacklist",
    "ssh_genkeytypes",
    "ssh_import_id",
    "ssh_key_console_blacklist",
    "ssh_keys",
    "ssh_publish_hostkeys",
    "ssh_pwauth",
    "ssh_quiet_keygen",
    "swap",
    "syslog_fix_perms",
    "system_info",
    "timezone",
    "ubuntu_advantage",
    "ubuntu_pro",
    "updates",
    "user",
    "users",
    "vendor_data",
    "version",
    "wireguard",
    "write_files",
    "yum_repo_dir",
    "yum_repos",
    "zypper",
];

/// What a value must be.
#[derive(Clone, Copy)]
enum Is {
    Text,
    Flag,
    List,
    Table,
    Number,
    Any,
}

/// Autoinstall's keys ("Autoinstall configuration reference manual"; the published schema of Subiquity).
const AUTOINSTALL: &[(&str, Is)] = &[
    ("version", Is::Number),
    ("interactive-sections", Is::List),
    ("early-commands", Is::List),
    ("locale", Is::Text),
    ("refresh-installer", Is::Table),
    ("keyboard", Is::Table),
    ("source", Is::Table),
    ("network", Is::Table),
    ("proxy", Is::Any),
    ("apt", Is::Table),
    ("storage", Is::Table),
    ("identity", Is::Table),
    ("active-directory", Is::Table),
    ("ubuntu-pro", Is::Table),
    ("ssh", Is::Table),
    ("codecs", Is::Table),
    ("drivers", Is::Table),
    ("oem", Is::Table),
    ("snaps", Is::List),
    ("debconf-selections", Is::Text),
    ("packages", Is::List),
    ("kernel", Is::Table),
    ("kernel-crash-dumps", Is::Table),
    ("timezone", Is::Text),
    ("updates", Is::Text),
    ("shutdown", Is::Text),
    ("late-commands", Is::List),
    ("error-commands", Is::List),
    ("reporting", Is::Table),
    ("user-data", Is::Table),
    ("zdevs", Is::List),
];
/// Values of keys that take one of some words.
const WORDS: &[(&str, &[&str])] = &[
    ("/shutdown", &["reboot", "poweroff"]),
    ("/updates", &["security", "all"]),
    ("/storage/layout/name", &["lvm", "direct", "zfs", "dd", "hybrid"]),
    ("/apt/fallback", &["abort", "continue-anyway", "offline-install"]),
];
/// Tables of which every key is known.
const CLOSED: &[(&str, &[&str])] = &[
    ("/keyboard", &["layout", "variant", "toggle"]),
    ("/refresh-installer", &["update", "channel"]),
    ("/ssh", &["install-server", "authorized-keys", "allow-pw"]),
    ("/source", &["search_drivers", "id"]),
    ("/identity", &["realname", "username", "hostname", "password", "groups"]),
];

impl Is {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Flag => value.is_boolean(),
            Self::List => value.is_array(),
            Self::Table => value.is_object(),
            Self::Number => value.is_i64(),
            Self::Any => true,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Flag => "true or false",
            Self::List => "a list",
            Self::Table => "a table",
            Self::Number => "a number",
            Self::Any => "anything",
        }
    }
}

/// Kinds of values of cloud-init's commonest keys.
const KINDS: &[(&str, Is)] = &[
    ("packages", Is::List),
    ("runcmd", Is::List),
    ("bootcmd", Is::List),
    ("disable_root", Is::Flag),
    ("package_update", Is::Flag),
    ("package_upgrade", Is::Flag),
    ("ssh_authorized_keys", Is::List),
    ("timezone", Is::Text),
    ("hostname", Is::Text),
];

fn read(text: &str) -> Result<Value, Found> {
    if text.lines().next().map(str::trim_end) != Some("#cloud-config") {
        let help = "cloud-init tells user-data by it";
        return Err(Found::new(1, "the first line is not `#cloud-config`", help));
    }
    let value: Value =
        serde_yaml::from_str(text).map_err(|error| Found::new(1, format!("this is no YAML: {error}"), ""))?;
    if value.is_object() || value.is_null() {
        Ok(value)
    } else {
        Err(Found::new(2, "user-data is a table", ""))
    }
}

/// The line of a key, by its indentation: forge writes blocks.
fn line_of(text: &str, key: &str, indent: usize) -> usize {
    let begins = |line: &str| {
        let own = line.len() - line.trim_start().len();
        let rest = line.trim_start().trim_start_matches('"');
        own == indent && rest.strip_prefix(key).is_some_and(|rest| rest.starts_with([':', '"']))
    };
    text.lines().position(begins).map_or(1, |index| index + 1)
}

/// cloud-init's user-data.
pub(super) fn user_data(text: &str) -> Vec<Found> {
    let value = match read(text) {
        Ok(value) => value,
        Err(found) => return vec![found],
    };
    check_cloud_config(&value, |key, path| shape::line_of(text, line_of(text, key, 0), path))
}

/// The network configuration of a seed, version 1 or 2.
pub(super) fn network_config(text: &str) -> Vec<Found> {
    match serde_yaml::from_str::<Value>(text) {
        Ok(value) => {
            let top = |path: &[Step]| match path.split_first() {
                Some((Step::Key(key), rest)) => {
                    let indents = [0, 2].into_iter().map(|indent| line_of(text, key, indent));
                    shape::line_of(text, indents.max().unwrap_or(1), rest)
                }
                _ => 1,
            };
            network(&value, &[1, 2]).into_iter().map(|wrong| found_at(top(&wrong.path), wrong)).collect()
        }
        Err(error) => vec![Found::new(1, format!("this is no YAML: {error}"), "")],
    }
}

fn found_at(line: usize, wrong: Wrong) -> Found {
    Found::new(line, wrong.message, wrong.help)
}

/// What is wrong with a network configuration of one of some versions.
fn network(value: &Value, versions: &[i64]) -> Vec<Wrong> {
    // It may stand in a table `network`; and a file of nothing but remarks says nothing.
    let value = match value.get("network") {
        Some(within) if value.as_object().is_some_and(|table| table.len() == 1) => within,
        _ => value,
    };
    let subiquity = !versions.contains(&1);
    let version = value.get("version");
    match version.and_then(Value::as_i64) {
        _ if value.is_null() || value.get("config").and_then(Value::as_str) == Some("disabled") => Vec::new(),
        Some(1) if versions.contains(&1) => {
            let mut wrong = NETWORK1.check(value, &[]);
            let entries = value.get("config").and_then(Value::as_array);
            for (index, entry) in entries.into_iter().flatten().enumerate() {
                wrong.extend(entry_of_version_1(entry, &[Step::Key("config".into()), Step::Index(index)]));
            }
            wrong
        }
        Some(2) if subiquity => NETPLAN.check(value, &[]),
        Some(2) => NETWORK2.check(value, &[]),
        _ => {
            let known = versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            let message = match version {
                _ if !value.is_object() => "a network configuration is a table".to_owned(),
                Some(given) => format!("`version` of a network configuration is {known}, not {given}"),
                None => format!("a network configuration has a `version`: {known}"),
            };
            vec![Wrong { path: vec![Step::Key("version".into())], message, help: String::new() }]
        }
    }
}

fn entry_of_version_1(entry: &Value, path: &[Step]) -> Vec<Wrong> {
    let Some(kind) = entry.get("type").and_then(Value::as_str) else {
        // Of the entries only a route may lack its type.
        let route = ENTRIES1.iter().find(|(name, _)| *name == "route" && entry.get("gateway").is_some());
        let message = "an entry of `config` has a `type`".to_owned();
        let lacking = || vec![Wrong { path: path.to_vec(), message, help: String::new() }];
        return route.map_or_else(lacking, |(_, shape)| shape.check(entry, path));
    };
    match ENTRIES1.iter().find(|(name, _)| *name == kind) {
        Some((_, shape)) => shape.check(entry, path),
        None => {
            let names: Vec<&str> = ENTRIES1.iter().map(|(name, _)| *name).collect();
            let message =
                format!("`type` of an entry of `config` is one of {}, not `{kind}`", names.join(", "));
            vec![Wrong { path: path.to_vec(), message, help: nearest(kind, &names) }]
        }
    }
}

fn check_cloud_config(value: &Value, line: impl Fn(&str, &[Step]) -> usize) -> Vec<Found> {
    let mut found = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        if !CLOUD_CONFIG.contains(&key.as_str()) {
            let message = format!("cloud-init has no key `{key}`");
            found.push(Found::new(line(key, &[]), message, nearest(key, CLOUD_CONFIG)));
        }
        if let Some((_, is)) = KINDS.iter().find(|(name, _)| name == key)
            && !is.fits(value)
        {
            found.push(Found::new(line(key, &[]), format!("`{key}` is {}", is.word()), ""));
        }
        let shape = USER_DATA.iter().find(|(name, _)| name == key).map_or(Shape::Any, |(_, shape)| *shape);
        for wrong in shape.check(value, &[Step::Key(key.clone())]) {
            let below = wrong.path.get(1..).unwrap_or_default();
            found.push(found_at(line(key, below), wrong));
        }
    }
    found
}

/// Subiquity's.
pub(super) fn autoinstall(text: &str) -> Vec<Found> {
    let value = match read(text) {
        Ok(value) => value,
        Err(found) => return vec![found],
    };
    let mut found = check_cloud_config(&value, |key, path| shape::line_of(text, line_of(text, key, 0), path));
    let Some(install) = value.get("autoinstall").filter(|value| value.is_object()) else {
        found.push(Found::new(1, "there is no table `autoinstall`", "Subiquity would ask everything"));
        return found;
    };
    for (key, value) in install.as_object().into_iter().flatten() {
        let line = line_of(text, key, 2);
        match AUTOINSTALL.iter().find(|(name, _)| name == key) {
            None => {
                let names: Vec<&str> = AUTOINSTALL.iter().map(|(name, _)| *name).collect();
                let message = format!("autoinstall has no key `{key}`");
                found.push(Found::new(line, message, nearest(key, &names)));
            }
            Some((_, is)) if !is.fits(value) => {
                found.push(Found::new(line, format!("`{key}` is {}", is.word()), ""));
            }
            Some(_) => {}
        }
    }
    let at = |pointer: &str| line_of(text, pointer.split('/').nth(1).unwrap_or_default(), 2);
    if install.get("version") != Some(&Value::from(1)) {
        found.push(Found::new(at("/version"), "`version` must be 1", ""));
    }
    for (pointer, words) in WORDS {
        if let Some(value) = install.pointer(pointer)
            && !value.as_str().is_some_and(|word| words.contains(&word))
        {
            let message =
                format!("`{}` is one of {}, not {value}", &pointer.trim_start_matches('/'), words.join(", "));
            found.push(Found::new(at(pointer), message, ""));
        }
    }
    for (pointer, known) in CLOSED {
        for key in
            install.pointer(pointer).and_then(Value::as_object).into_iter().flat_map(|table| table.keys())
        {
            if !known.contains(&key.as_str()) {
                let message = format!("`{}` has no key `{key}`", pointer.trim_start_matches('/'));
                found.push(Found::new(at(pointer), message, nearest(key, known)));
            }
        }
    }
    if install.get("identity").is_none() && install.get("user-data").is_none() {
        found.push(Found::new(
            1,
            "neither `identity` nor `user-data` is there: Subiquity asks for a user",
            "",
        ));
    }
    if install.get("interactive-sections").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        let message = "`interactive-sections` makes Subiquity ask";
        found.push(Found::new(at("/interactive-sections"), message, "leave it out"));
    }
    for (key, value) in install.get("user-data").and_then(Value::as_object).into_iter().flatten() {
        let inner = serde_json::json!({ key.as_str(): value });
        found.extend(check_cloud_config(&inner, |_, _| at("/user-data")));
    }
    for wrong in install.get("network").map(|value| network(value, &[2])).unwrap_or_default() {
        found.push(found_at(shape::line_of(text, at("/network"), &wrong.path), wrong));
    }
    found
}
