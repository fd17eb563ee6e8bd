//! `/nodes` and what is directly below a node.

use serde_json::{Value, json};

use super::{Answer, Call};
use crate::error::ApiResult;

/// `GET /nodes`.
pub fn list(call: &Call) -> ApiResult<Answer> {
    let fingerprint = &call.cluster.identity.fingerprint;
    let nodes = call.cluster.config.nodes.iter().map(|node| {
        json!({"type": "node", "id": format!("node/{node}"), "node": node, "status": "online", "level": "",
            "ssl_fingerprint": fingerprint})
    });
    Ok(nodes.collect::<Value>().into())
}

/// `GET /nodes/{node}/status`.
pub fn status(call: &Call) -> ApiResult<Answer> {
    Ok(json!({
        "uptime": call.cluster.started.elapsed().as_secs(),
        "pveversion": "pve-manager/9.2.11/14a22df3",
        "kversion": "Linux 6.14.0-lab",
        "cpuinfo": {"cpus": 4, "cores": 4, "sockets": 1, "model": "lab"},
        "memory": {"total": 16u64 << 30, "used": 2u64 << 30, "free": 14u64 << 30},
        "loadavg": ["0.00", "0.00", "0.00"],
    })
    .into())
}

/// `GET /nodes/{node}/network`: bridges one may use or audit.
pub fn networks(call: &Call) -> ApiResult<Answer> {
    let wanted = call.params.get("type");
    let visible = |bridge: &&String| {
        wanted.is_none_or(|kind| matches!(kind, "bridge" | "any_bridge" | "any_local_bridge" | "include_sdn"))
            && call.may(&format!("/sdn/zones/localnetwork/{bridge}"), &["SDN.Audit", "SDN.Use"])
    };
    let list = call.cluster.config.bridges.iter().filter(visible).map(|bridge| {
        json!({"iface": bridge, "type": "bridge", "active": 1, "autostart": 1, "method": "static",
            "bridge_ports": "", "bridge_stp": "off", "bridge_fd": "0"})
    });
    Ok(list.collect::<Value>().into())
}
