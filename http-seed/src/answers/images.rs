//! The settings of a seed for images that are installed already: cloud-init's user-data and network configuration.

use serde_json::{Map, Value, json};

use super::Settings;
use crate::template::escaped;

/// Which tool of the image installs packages, and by which keys cloud-init tells it where from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Apt,
    Dnf,
    Zypper,
}

impl Tool {
    fn of(distribution: &str) -> Self {
        match distribution {
            "rocky" | "almalinux" | "rhel" | "centos" | "centos-stream" | "fedora" => Self::Dnf,
            name if name.starts_with("opensuse") || name.starts_with("sles") => Self::Zypper,
            _ => Self::Apt,
        }
    }
}

/// Whether `repositories` mean something to the images of a distribution: dnf's and zypper's are a name and a URL.
#[must_use]
pub fn takes_repositories(distribution: &str) -> bool {
    Tool::of(distribution) != Tool::Apt
}

/// User-data for what a profile gives; nothing of the defaults, which the image has chosen already.
#[must_use]
pub fn user_data(settings: &Settings, given: &Map<String, Value>, distribution: &str) -> Option<Value> {
    let mut data = Map::new();
    let has = |name: &str| given.contains_key(name);
    for name in ["locale", "timezone"] {
        if has(name) {
            data.insert(name.into(), settings.text(name).into());
        }
    }
    if has("keyboard") {
        data.insert("keyboard".into(), json!({ "layout": settings.text("keyboard") }));
    }
    let packages: Vec<&str> =
        settings.items("base_packages").into_iter().chain(settings.items("packages")).collect();
    if !packages.is_empty() {
        data.insert("package_update".into(), true.into());
        data.insert("packages".into(), packages.into());
    }
    match Tool::of(distribution) {
        Tool::Apt => apt(settings, &mut data),
        tool => rpm(settings, tool, &mut data),
    }
    (!data.is_empty()).then_some(Value::Object(data))
}

fn apt(settings: &Settings, data: &mut Map<String, Value>) {
    let mut apt = Map::new();
    for (name, key) in [("mirror", "primary"), ("security_mirror", "security")] {
        if !settings.text(name).is_empty() {
            apt.insert(key.into(), json!([{ "arches": ["default"], "uri": settings.text(name) }]));
        }
    }
    if !settings.text("proxy").is_empty() {
        apt.insert("http_proxy".into(), settings.text("proxy").into());
        apt.insert("https_proxy".into(), settings.text("proxy").into());
    }
    if !apt.is_empty() {
        data.insert("apt".into(), Value::Object(apt));
    }
}

/// With a mirror or repositories given, they take the place of the image's own, whose keys they are signed by. What runs
/// before is done once: cloud-init runs `bootcmd` at each boot ("Module reference", Bootcmd, `cloud-init-per`).
fn rpm(settings: &Settings, tool: Tool, data: &mut Map<String, Value>) {
    let (mirror, proxy) = (settings.text("mirror"), settings.text("proxy"));
    let mut sources: Vec<(&str, &str)> = Vec::new();
    if !mirror.is_empty() {
        sources.push(("forge-mirror", mirror));
    }
    sources.extend(settings.items("repositories").into_iter().filter_map(|item| item.split_once('=')));
    let mut before = Vec::new();
    let folder = if tool == Tool::Dnf { "/etc/yum.repos.d" } else { "/etc/zypp/repos.d" };
    if !sources.is_empty() {
        before.push(format!("sed -i 's/^enabled *= *1/enabled=0/' {folder}/*.repo"));
        // zypper's images have their keys in rpm's database already.
        if tool == Tool::Dnf {
            before.push("rpm --import /etc/pki/rpm-gpg/RPM-GPG-KEY-*".to_owned());
        }
    }
    if !proxy.is_empty() {
        let word = escaped("sh", proxy).unwrap_or_default();
        before.push(match tool {
            Tool::Dnf => format!("printf 'proxy=%s\\n' {word} >>/etc/dnf/dnf.conf"),
            _ => format!(
                "printf 'PROXY_ENABLED=\"yes\"\\nHTTP_PROXY=\"%s\"\\nHTTPS_PROXY=\"%s\"\\n' {word} {word} >/etc/sysconfig/proxy"
            ),
        });
    }
    if !before.is_empty() {
        let command = ["cloud-init-per", "instance", "forge-sources", "sh", "-c", &before.join("; ")];
        data.insert("bootcmd".into(), json!([command]));
    }
    if sources.is_empty() {
        return;
    }
    match tool {
        Tool::Zypper => {
            let repos: Vec<Value> = sources
                .iter()
                .map(|(name, url)| json!({ "id": name, "name": name, "baseurl": url, "enabled": 1, "autorefresh": 1 }))
                .collect();
            data.insert("zypper".into(), json!({ "repos": repos }));
        }
        _ => {
            let repos: Map<String, Value> = sources
                .iter()
                .map(|(name, url)| {
                    let repo = json!({ "name": name, "baseurl": url, "enabled": true, "gpgcheck": true });
                    ((*name).to_owned(), repo)
                })
                .collect();
            data.insert("yum_repos".into(), Value::Object(repos));
        }
    }
}

/// A static address as cloud-init's network configuration, version 2; `None` leaves DHCP.
///
/// The adapter is told by its name (`interface`) or by its hardware address, which every image understands: with that
/// it is called `eth0`. Without either it is the one whose name begins with `e`, and only images with netplan take a
/// pattern: ifupdown, sysconfig and NetworkManager would take it for a name (cloud-init 22.4 on Debian 12, observed).
#[must_use]
pub fn network_config(settings: &Settings, mac: Option<&str>) -> Option<Value> {
    let text = |name: &str| Some(settings.text(name)).filter(|text| !text.is_empty());
    let addresses: Vec<&str> = ["address", "address6"].into_iter().filter_map(text).collect();
    if addresses.is_empty() {
        return None;
    }
    let routes: Vec<Value> = [("gateway", "0.0.0.0/0"), ("gateway6", "::/0")]
        .into_iter()
        .filter_map(|(name, to)| Some(json!({ "to": to, "via": text(name)? })))
        .collect();
    let mut all = json!({ "dhcp4": false, "addresses": addresses, "routes": routes });
    let interface = text("interface");
    if interface.is_none()
        && let Some(all) = all.as_object_mut()
    {
        match mac {
            Some(mac) => {
                all.insert("match".into(), json!({ "macaddress": mac.to_lowercase() }));
                all.insert("set-name".into(), "eth0".into());
            }
            None => {
                all.insert("match".into(), json!({ "name": "e*" }));
            }
        }
    }
    let servers = settings.items("nameservers");
    if !servers.is_empty()
        && let Some(all) = all.as_object_mut()
    {
        all.insert("nameservers".into(), json!({ "addresses": servers }));
    }
    let name = interface.or(mac.map(|_| "eth0")).unwrap_or("all");
    Some(json!({ "version": 2, "ethernets": { name: all } }))
}
