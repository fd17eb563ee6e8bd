//! The settings of a seed for images that are installed already: cloud-init's user-data and network configuration.

use serde_json::{Map, Value, json};

use super::Settings;

/// User-data for what a profile gives; nothing of the defaults, which the image has chosen already.
#[must_use]
pub fn user_data(settings: &Settings, given: &Map<String, Value>) -> Option<Value> {
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
    (!data.is_empty()).then_some(Value::Object(data))
}

/// A static address as cloud-init's network configuration, version 2; `None` leaves DHCP.
#[must_use]
pub fn network_config(settings: &Settings) -> Option<Value> {
    let text = |name: &str| Some(settings.text(name)).filter(|text| !text.is_empty());
    let addresses: Vec<&str> = ["address", "address6"].into_iter().filter_map(text).collect();
    if addresses.is_empty() {
        return None;
    }
    let routes: Vec<Value> = [("gateway", "0.0.0.0/0"), ("gateway6", "::/0")]
        .into_iter()
        .filter_map(|(name, to)| Some(json!({ "to": to, "via": text(name)? })))
        .collect();
    let mut all =
        json!({ "match": { "name": "e*" }, "dhcp4": false, "addresses": addresses, "routes": routes });
    let servers = settings.items("nameservers");
    if !servers.is_empty()
        && let Some(all) = all.as_object_mut()
    {
        all.insert("nameservers".into(), json!({ "addresses": servers }));
    }
    Some(json!({ "version": 2, "ethernets": { "all": all } }))
}
