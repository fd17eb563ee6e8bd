//! The values that templates see.

use serde_json::{Map, Value, json};

use super::{Answers, Build, Kind, agama};
use crate::crypt::{Scheme, salt};
use crate::nocloud::{BuildUser, NoCloud};
use crate::template::escaped;

/// Everything a template of a kind may use.
///
/// # Errors
/// A password that can't be hashed, or partitions that are not what the kind reads.
pub(super) fn context(answers: &Answers, build: &Build) -> Result<Value, String> {
    let settings = &answers.settings;
    let mut context: Map<String, Value> = settings.context();
    let password = settings.text("password");
    let hash = if password.is_empty() { Value::Null } else { hash_of(answers, build, "")?.into() };
    let account = answers.account_password(&build.random_password);
    let mut set = |name: &str, value: Value| {
        context.insert(name.to_owned(), value);
    };
    set("password_hash", hash.clone());
    set("account_password", account.into());
    set("hostname", build.hostname.clone().map_or(Value::Null, Value::from));
    set("instance_id", format!("forge-{}", build.nonce).into());
    set("distribution", answers.distribution.clone().into());
    set("version", answers.version.clone().into());
    set("user", json!({ "name": build.user, "create": build.create_user, "key": build.public_key }));
    let winrm =
        build.winrm.map(|how| json!({ "tls": how.tls, "basic": how.basic, "port": how.port.to_string() }));
    set("winrm", winrm.unwrap_or_default());
    set("addresses", addresses(answers));
    set("routes", routes(answers));
    set("ipv6_cidr", none_if_empty(settings.text("address6")));
    let disk = settings.text("disk");
    set("disk_path", if disk.is_empty() { Value::Null } else { format!("/dev/{disk}").into() });
    set("partitions_value", partitions(answers)?);
    set("all_packages", packages(answers));
    set("boot_arguments", boot_arguments(answers));
    set("grub_default_sh", grub_default(settings.text("kernel_arguments")).into());
    set("late_command", late_command(answers, build).into());
    set("late_script", late_script(answers, build).into());
    // The hash takes a while, and others do without.
    let agama = if answers.kind == Kind::Agama { agama::profile(answers, build)? } else { Value::Null };
    set("agama", agama);
    set("proxy_host", proxy_host(settings.text("proxy")));
    set("user_data", user_data(answers, build, &hash));
    set("var", Value::Object(answers.variables.clone()));
    Ok(Value::Object(context))
}

/// The hash of the password, or of another where none is given.
pub(super) fn hash_of(answers: &Answers, build: &Build, otherwise: &str) -> Result<String, String> {
    let given = Some(answers.settings.text("password")).filter(|text| !text.is_empty());
    let scheme = Scheme::from_name(answers.settings.text("password_hash")).unwrap_or_default();
    let salt = salt(&build.nonce, &build.user);
    scheme.hash(given.unwrap_or(otherwise), &salt).map_err(|error| error.to_string())
}

fn none_if_empty(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

fn list<'a>(answers: &'a Answers, name: &str) -> Vec<&'a str> {
    answers.settings.items(name)
}

fn addresses(answers: &Answers) -> Value {
    let both = [answers.settings.text("address"), answers.settings.text("address6")];
    both.into_iter().filter(|text| !text.is_empty()).collect()
}

/// netplan's and Windows' default routes.
fn routes(answers: &Answers) -> Value {
    let windows = answers.kind == Kind::Autounattend;
    let destination = |zero: &str| if windows { zero.to_owned() } else { "default".to_owned() };
    [("gateway", "0.0.0.0/0"), ("gateway6", "::/0")]
        .into_iter()
        .filter(|(name, _)| !answers.settings.text(name).is_empty())
        .map(|(name, zero)| json!({ "to": destination(zero), "via": answers.settings.text(name) }))
        .collect()
}

/// The profile's packages and those asked for, each once.
pub(super) fn packages(answers: &Answers) -> Value {
    let mut all: Vec<&str> = Vec::new();
    for package in list(answers, "base_packages").into_iter().chain(list(answers, "packages")) {
        if !all.contains(&package) {
            all.push(package);
        }
    }
    all.into_iter().collect()
}

/// curtin's storage configuration is data, the others' are lines of their language.
fn partitions(answers: &Answers) -> Result<Value, String> {
    let text = answers.settings.text("partitions");
    if text.is_empty() || answers.kind != Kind::Autoinstall {
        return Ok(Value::Null);
    }
    match serde_yaml::from_str::<Value>(text) {
        Ok(value) if value.is_array() => Ok(value),
        Ok(_) => Err("`partitions` must be a YAML list: curtin's storage configuration".into()),
        Err(error) => Err(format!("`partitions` is no YAML: {error}")),
    }
}

fn boot_arguments(answers: &Answers) -> Value {
    let fips = answers.settings.flag("fips").then_some("fips=1");
    let more = Some(answers.settings.text("kernel_arguments")).filter(|text| !text.is_empty());
    none_if_empty(&fips.into_iter().chain(more).collect::<Vec<_>>().join(" "))
}

pub(super) fn quoted(text: &str) -> String {
    escaped("sh", text).unwrap_or_else(|| "''".into())
}

/// Appends to the kernel's default line in the new system; run by Subiquity outside of it.
fn grub_default(arguments: &str) -> String {
    let mut line = String::from("GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX ");
    for character in arguments.chars() {
        // Between double quotes these mean something (POSIX shell, 2.2.3).
        if matches!(character, '"' | '$' | '`' | '\\') {
            line.push('\\');
        }
        line.push(character);
    }
    line.push('"');
    let file = "/target/etc/default/grub.d/60-forge.cfg";
    format!("mkdir -p /target/etc/default/grub.d && printf '%s\\n' {} >>{file}", quoted(&line))
}

/// Gives the build's user its key and its right, as root within the new system.
pub(super) fn user_script(build: &Build) -> Vec<String> {
    let (user, key) = (quoted(&build.user), quoted(&build.public_key));
    let home = if build.user == "root" { "/root".to_owned() } else { format!("/home/{}", build.user) };
    if !build.create_user && build.user != "root" {
        return Vec::new();
    }
    let ssh = quoted(&format!("{home}/.ssh"));
    let keys = quoted(&format!("{home}/.ssh/authorized_keys"));
    let mut lines = vec![
        format!("install -d -m 0700 {ssh}"),
        format!("printf '%s\\n' {key} >{keys}"),
        format!("chmod 0600 {keys}"),
        // With the colon alone the user's own group, whatever it is called.
        format!("chown -R {user}: {ssh}"),
    ];
    if build.create_user {
        let file = quoted(&format!("/etc/sudoers.d/{}", build.user));
        lines.push(format!("printf '%s ALL=(ALL) NOPASSWD:ALL\\n' {user} >{file}"));
        lines.push(format!("chmod 0440 {file}"));
    }
    lines
}

/// The Debian installer's one late command.
fn late_command(answers: &Answers, build: &Build) -> String {
    let mut lines = user_script(build);
    lines.push("{ systemctl enable qemu-guest-agent ssh || true; }".into());
    let servers = list(answers, "ntp");
    if !servers.is_empty() {
        // The installer sets the clock by the first; the system itself asks them all (timesyncd.conf(5)).
        let line = quoted(&format!("NTP={}", servers.join(" ")));
        lines.push("mkdir -p /etc/systemd/timesyncd.conf.d".into());
        lines.push(format!("printf '[Time]\\n%s\\n' {line} >/etc/systemd/timesyncd.conf.d/60-forge.conf"));
    }
    let mut commands = vec![format!("in-target sh -c {}", quoted(&lines.join(" && ")))];
    commands.extend(second_address(answers).map(|line| format!("in-target sh -c {}", quoted(&line))));
    commands.extend(list(answers, "late_commands").iter().map(|c| format!("in-target sh -c {}", quoted(c))));
    commands.join(" && ")
}

/// The IPv6 address beside an IPv4 one: netcfg configures one of them, and what it writes names a folder for others.
fn second_address(answers: &Answers) -> Option<String> {
    let text = |name: &str| Some(answers.settings.text(name)).filter(|text| !text.is_empty());
    let (_, address) = (text("address")?, text("address6")?);
    let interface = text("interface").map_or_else(
        // The adapter of the default route (proc(5), /proc/net/route).
        || "\"$(awk '$2 == \"00000000\" { print $1; exit }' /proc/net/route)\"".to_owned(),
        quoted,
    );
    let gateway = text("gateway6").map(|gateway| format!("    gateway {gateway}\n")).unwrap_or_default();
    let format =
        quoted(&format!("iface %s inet6 static\n    address {address}\n{gateway}").replace('\n', "\\n"));
    Some(format!("printf {format} {interface} >/etc/network/interfaces.d/60-forge"))
}

/// AutoYaST's script in the new system.
fn late_script(answers: &Answers, build: &Build) -> String {
    let mut lines = vec!["set -e".to_owned()];
    if build.create_user {
        let file = quoted(&format!("/etc/sudoers.d/{}", build.user));
        lines.push(format!("printf '%s ALL=(ALL) NOPASSWD:ALL\\n' {} >{file}", quoted(&build.user)));
        lines.push(format!("chmod 0440 {file}"));
    }
    lines.extend(list(answers, "late_commands").iter().map(|command| format!("sh -c {}", quoted(command))));
    lines.join("\n") + "\n"
}

/// `host:port` of a proxy's URL.
fn proxy_host(url: &str) -> Value {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    none_if_empty(rest.split('/').next().unwrap_or_default())
}

/// The user-data of the installed Ubuntu.
fn user_data(answers: &Answers, build: &Build, hash: &Value) -> Value {
    let user = BuildUser::sudoer(&build.user, &build.public_key);
    let mut seed = NoCloud {
        instance_id: String::new(),
        hostname: None,
        user: build.create_user.then_some(user),
        host_key: None,
        user_data: None,
        network_config: None,
    };
    let mut own = json!({});
    if let Some(hostname) = &build.hostname
        && let Some(table) = own.as_object_mut()
    {
        table.insert("hostname".into(), hostname.clone().into());
    }
    if build.user == "root"
        && let Some(table) = own.as_object_mut()
    {
        table.insert("disable_root".into(), false.into());
        table.insert("users".into(), json!([{ "name": "root", "ssh_authorized_keys": [build.public_key] }]));
    }
    let servers = list(answers, "ntp");
    if !servers.is_empty()
        && let Some(table) = own.as_object_mut()
    {
        table.insert("ntp".into(), json!({ "enabled": true, "servers": servers }));
    }
    seed.user_data = Some(own);
    let mut data = seed.user_data_value();
    if let Some(more) = &answers.user_data {
        crate::nocloud::merge(&mut data, more);
    }
    if !hash.is_null()
        && let Some(user) = data.pointer_mut("/users/0").and_then(Value::as_object_mut)
    {
        user.insert("lock_passwd".into(), false.into());
        user.insert("passwd".into(), hash.clone());
    }
    data
}
