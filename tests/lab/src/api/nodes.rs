//! `/nodes` and what is directly below a node.

use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::config::PveVersion;
use crate::error::{ApiError, ApiResult};

/// What lists say about a node.
pub fn figures(call: &Call, node: &str) -> Map<String, Value> {
    let online = call.cluster.is_online(node);
    let mut entry = Map::new();
    entry.insert("id".to_owned(), format!("node/{node}").into());
    entry.insert("node".to_owned(), node.into());
    entry.insert("status".to_owned(), if online { "online" } else { "offline" }.into());
    if online {
        let uptime = call.cluster.clock.elapsed().as_secs();
        let figures = json!({"level": "", "cpu": 0, "maxcpu": 4, "mem": 2u64 << 30, "maxmem": 16u64 << 30,
            "disk": 8u64 << 30, "maxdisk": 64u64 << 30, "uptime": uptime});
        entry.extend(figures.as_object().cloned().unwrap_or_default());
    }
    entry
}

/// `GET /nodes`.
pub fn list(call: &Call) -> ApiResult<Answer> {
    let fingerprint = &call.cluster.identity.fingerprint;
    let nodes = call.cluster.config.nodes.iter().map(|node| {
        let mut entry = figures(call, node);
        entry.insert("type".to_owned(), "node".into());
        entry.insert("ssl_fingerprint".to_owned(), fingerprint.clone().into());
        if !call.may(&format!("/nodes/{node}"), &["Sys.Audit"]) {
            let kept = ["id", "node", "status", "type", "ssl_fingerprint", "level"];
            entry.retain(|key, _| kept.contains(&key.as_str()));
        }
        Value::Object(entry)
    });
    Ok(nodes.collect::<Value>().into())
}

/// `GET /nodes/{node}`.
pub fn index() -> ApiResult<Answer> {
    let names = [
        "capabilities",
        "network",
        "qemu",
        "query-url-metadata",
        "status",
        "storage",
        "tasks",
        "time",
        "version",
    ];
    Ok(names.iter().map(|name| json!({"name": name})).collect::<Value>().into())
}

/// `GET /nodes/{node}/status`: figures of no real machine.
pub fn status(call: &Call) -> ApiResult<Answer> {
    let version = match call.cluster.config.version {
        PveVersion::V9 => "pve-manager/9.2.11/14a22df3",
        PveVersion::V8 => "pve-manager/8.4.14/b502d23c55afcba1",
    };
    let (total, free) = call.cluster.memory(call.params.text("node"));
    Ok(json!({
        "uptime": call.cluster.clock.elapsed().as_secs(),
        "pveversion": version,
        "kversion": "Linux 6.14.0-lab",
        "current-kernel": {"sysname": "Linux", "release": "6.14.0-lab", "version": "#1 SMP", "machine": "x86_64"},
        "boot-info": {"mode": "legacy-bios"},
        "cpu": 0.0, "wait": 0.0, "idle": 0.0,
        "cpuinfo": {"cpus": 4, "cores": 4, "sockets": 1, "model": "lab", "mhz": "2000", "hvm": "0", "flags": "", "user_hz": 100},
        "memory": {"total": total, "used": total - free, "free": free, "available": free},
        "swap": {"total": 0, "used": 0, "free": 0},
        "rootfs": {"total": 64u64 << 30, "used": 8u64 << 30, "avail": 56u64 << 30, "free": 56u64 << 30},
        "ksm": {"shared": 0},
        "loadavg": ["0.00", "0.00", "0.00"],
    })
    .into())
}

/// `GET /nodes/{node}/time`.
pub fn time(call: &Call) -> ApiResult<Answer> {
    let now = call.cluster.clock.now();
    Ok(json!({"timezone": "UTC", "time": now, "localtime": now}).into())
}

fn bridge(name: &str) -> Value {
    json!({"iface": name, "type": "bridge", "active": 1, "autostart": 1, "method": "static", "method6": "manual",
        "address": "10.99.0.1", "netmask": "24", "cidr": "10.99.0.1/24", "families": ["inet"], "priority": 3,
        "bridge_ports": "", "bridge_stp": "off", "bridge_fd": "0"})
}

/// `GET /nodes/{node}/network`: bridges one may use or audit.
pub fn networks(call: &Call) -> ApiResult<Answer> {
    let wanted = call.params.get("type");
    let config = &call.cluster.config;
    let visible = |name: &&String| call.may(&config.sdn_path(name), &["SDN.Audit", "SDN.Use"]);
    let bridges = wanted
        .is_none_or(|kind| matches!(kind, "bridge" | "any_bridge" | "any_local_bridge" | "include_sdn"))
        .then(|| config.bridges.iter().filter(visible).map(|name| bridge(name)));
    // As PVE::API2::Network lists them: no more than what a guest can be put on.
    let vnets = wanted.is_some_and(|kind| matches!(kind, "any_bridge" | "include_sdn")).then(|| {
        let names = config.vnets.iter().map(|(name, _)| name).filter(visible);
        names.map(|name| json!({"iface": name, "type": "vnet", "active": 1}))
    });
    Ok(bridges.into_iter().flatten().chain(vnets.into_iter().flatten()).collect::<Value>().into())
}

/// `GET /nodes/{node}/network/{iface}`.
pub fn network(call: &Call) -> ApiResult<Answer> {
    let name = call.params.text("iface");
    if !call.cluster.config.bridges.iter().any(|known| known == name) {
        return Err(ApiError::parameter("iface", "interface does not exist"));
    }
    let mut answer = bridge(name);
    if let Some(answer) = answer.as_object_mut() {
        answer.remove("iface");
    }
    Ok(answer.into())
}

/// `GET /nodes/{node}/capabilities…`: what this machine's QEMU would offer, as far as builds ask.
pub fn capabilities(below: &str) -> Option<ApiResult<Answer>> {
    let index = |names: &[&str]| -> Value { names.iter().map(|name| json!({"name": name})).collect() };
    let value = match below {
        "" => index(&["qemu"]),
        "/qemu" => index(&["cpu", "cpu-flags", "machines", "migration"]),
        "/qemu/cpu" => crate::schema::cpu_models()
            .iter()
            .map(|name| json!({"name": name, "custom": 0, "vendor": "default"}))
            .collect(),
        "/qemu/machines" => [
            ("q35", "pc-q35", "10.0"),
            ("i440fx", "pc-i440fx", "10.0"),
            ("q35", "pc-q35", "9.2"),
            ("i440fx", "pc-i440fx", "9.2"),
        ]
        .iter()
        .map(|(kind, id, version)| json!({"type": kind, "id": format!("{id}-{version}"), "version": version}))
        .collect(),
        _ => return None,
    };
    Some(Ok(value.into()))
}
