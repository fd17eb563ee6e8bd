//! The profile of Agama, the installer of openSUSE Leap 16 and SLES 16: JSON, built as a value.
//!
//! Keys: Agama's `profile.schema.json` and `storage.schema.json` of its branch for Leap 16.0 and SLES 16.0.

use serde_json::{Map, Value, json};

use super::context::{hash_of, packages};
use super::{Answers, Build};

/// The whole profile.
///
/// # Errors
/// A password that can't be hashed, or partitions that are no JSON.
pub(super) fn profile(answers: &Answers, build: &Build) -> Result<Value, String> {
    let settings = &answers.settings;
    let mut profile = json!({
        "product": { "id": product(&answers.distribution, &answers.version) },
        // A question would wait for somebody.
        "questions": { "policy": "auto" },
        "localization": {
            "language": settings.text("locale"),
            "keyboard": settings.text("keyboard"),
            "timezone": settings.text("timezone"),
        },
        "software": { "onlyRequired": true, "packages": packages(answers) },
        "storage": storage(answers)?,
        "scripts": { "post": [{
            "name": "forge",
            "chroot": true,
            "content": format!("#!/bin/bash\n{}", script(answers, build)),
        }] },
    });
    let Some(table) = profile.as_object_mut() else { return Ok(profile) };
    // Without a password nobody knows the one that the hash is of; Agama makes no user without.
    let hash = hash_of(answers, build, &build.random_password)?;
    if build.create_user {
        let user = json!({
            "fullName": "forge build", "userName": build.user, "password": hash, "hashedPassword": true,
        });
        table.insert("user".into(), user);
    } else {
        let root = json!({ "password": hash, "hashedPassword": true, "sshPublicKey": build.public_key });
        table.insert("root".into(), root);
    }
    if let Some(hostname) = &build.hostname {
        table.insert("hostname".into(), json!({ "static": hostname }));
    }
    if let Some(network) = network(answers) {
        table.insert("network".into(), network);
    }
    let repositories = repositories(answers);
    if !repositories.is_empty()
        && let Some(software) = table.get_mut("software").and_then(Value::as_object_mut)
    {
        software.insert("extraRepositories".into(), Value::Array(repositories));
    }
    let arguments = settings.text("kernel_arguments");
    if !arguments.is_empty() {
        table.insert("bootloader".into(), json!({ "extraKernelParams": arguments }));
    }
    Ok(profile)
}

/// Agama's identifier of a product (`products.d/*.yaml`).
fn product(distribution: &str, version: &str) -> String {
    match distribution {
        "sles" => "SLES".to_owned(),
        "opensuse-tumbleweed" => "Tumbleweed".to_owned(),
        _ => format!("Leap_{version}"),
    }
}

fn network(answers: &Answers) -> Option<Value> {
    let text = |name: &str| Some(answers.settings.text(name)).filter(|text| !text.is_empty());
    let (four, six) = (text("address"), text("address6"));
    if four.is_none() && six.is_none() {
        return None;
    }
    let method = |address: Option<&str>, none: &str| {
        if address.is_some() { "manual".to_owned() } else { none.to_owned() }
    };
    let mut connection = Map::new();
    let mut set = |name: &str, value: Value| connection.insert(name.to_owned(), value);
    set("id", "forge".into());
    match text("interface") {
        Some(interface) => set("interface", interface.into()),
        None => set("match", json!({ "interface": ["e*"] })),
    };
    set("method4", method(four, "disabled").into());
    set("method6", method(six, "auto").into());
    set("addresses", four.into_iter().chain(six).collect());
    for (name, key) in [("gateway", "gateway4"), ("gateway6", "gateway6")] {
        if let Some(gateway) = text(name) {
            set(key, gateway.into());
        }
    }
    set("nameservers", answers.settings.items("nameservers").into());
    Some(json!({ "connections": [connection] }))
}

fn repositories(answers: &Answers) -> Vec<Value> {
    let mirror = Some(answers.settings.text("mirror")).filter(|text| !text.is_empty());
    let named = answers.settings.items("repositories").into_iter().filter_map(|item| item.split_once('='));
    mirror
        .map(|url| ("forge-mirror", url))
        .into_iter()
        .chain(named)
        .map(|(alias, url)| json!({ "alias": alias, "url": url }))
        .collect()
}

/// What the disk becomes: the product's own file systems, on partitions or in a volume group.
fn storage(answers: &Answers) -> Result<Value, String> {
    let settings = &answers.settings;
    let mut drive = Map::new();
    let disk = settings.text("disk");
    if !disk.is_empty() {
        drive.insert("search".into(), format!("/dev/{disk}").into());
    }
    let old = json!({ "search": "*", "delete": true });
    match settings.text("layout") {
        "custom" => {
            let text = settings.text("partitions");
            let value: Value = serde_json::from_str(text)
                .map_err(|error| format!("`partitions` is no JSON (Agama's `storage`): {error}"))?;
            if value.is_object() { Ok(value) } else { Err("`partitions` is no JSON object".into()) }
        }
        "lvm" => {
            drive.insert(
                "partitions".into(),
                json!([old, { "alias": "pv", "id": "lvm", "size": { "min": "5 GiB" } }]),
            );
            Ok(json!({
                "drives": [drive],
                "volumeGroups": [{
                    "name": "system",
                    "physicalVolumes": ["pv"],
                    "logicalVolumes": [{ "generate": "default" }],
                }],
            }))
        }
        _ => {
            drive.insert("partitions".into(), json!([old, { "generate": "default" }]));
            Ok(json!({ "drives": [drive] }))
        }
    }
}

/// What is done in the new system: the user's right and key, the services, the profile's own commands.
fn script(answers: &Answers, build: &Build) -> String {
    let mut text = String::from("set -e\n");
    for line in super::context::user_script(build) {
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str("systemctl enable sshd qemu-guest-agent cloud-init.target || true\n");
    // firewalld lets nobody in by itself (Leap 16's default zone is `public`).
    text.push_str(
        "if command -v firewall-offline-cmd >/dev/null; then firewall-offline-cmd --add-service=ssh; fi\n",
    );
    for server in answers.settings.items("ntp") {
        let line = super::context::quoted(&format!("server {server} iburst"));
        text.push_str(&format!(
            "mkdir -p /etc/chrony.d && printf '%s\\n' {line} >>/etc/chrony.d/60-forge.conf\n"
        ));
    }
    for command in answers.settings.items("late_commands") {
        text.push_str(&format!("sh -c {}\n", super::context::quoted(command)));
    }
    text
}
