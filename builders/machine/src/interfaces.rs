//! The guest's interfaces as its agent reports them, and which of their addresses may answer SSH. Pure.
//!
//! The agent reports every interface: loopback, bridges of containers, link-local addresses. Those of the VM's own
//! adapters, known by their MAC addresses, come first; within them IPv4 before IPv6. No address is left out for its
//! range alone but link-local ones: what looks like loopback elsewhere may be a forwarded address.

use std::net::IpAddr;

use serde::Deserialize;

use crate::port::AddressReport;

/// The port of the guest's SSH server.
const SSH_PORT: u16 = 22;

/// One interface of the agent's `guest-network-get-interfaces` (QEMU docs, `interop/qemu-ga-ref`).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct AgentInterface {
    /// The guest's name for it.
    #[serde(default)]
    pub name: String,
    /// Its MAC address, in lower case.
    #[serde(rename = "hardware-address", default)]
    pub mac: Option<String>,
    /// Its addresses; missing when it has none.
    #[serde(rename = "ip-addresses", default)]
    pub addresses: Option<Vec<AgentAddress>>,
}

/// One address of an [`AgentInterface`].
#[derive(Clone, Debug, Default, Deserialize)]
pub struct AgentAddress {
    /// The address in text, perhaps with a zone (`fe80::1%eth0`).
    #[serde(rename = "ip-address", default)]
    pub address: String,
}

/// Prefixes of interfaces that belong to container and virtualisation software inside the guest.
const INNER: &[&str] = &[
    "docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "podman", "lxcbr", "lxdbr", "vnet", "kube-",
    "tun", "wg",
];

/// What an agent's answer says of where SSH may answer. `macs` are those of the VM's adapters, in order.
#[must_use]
pub fn report(interfaces: &[AgentInterface], macs: &[String]) -> AddressReport {
    let found = candidates(interfaces, macs);
    let detail = if found.is_empty() {
        format!("the guest agent knows no usable address: {}", summary(interfaces))
    } else {
        "told by the guest agent".to_owned()
    };
    let candidates = found.into_iter().map(|address| (address, SSH_PORT)).collect();
    AddressReport { candidates, detail, agent: true, interfaces: named(interfaces) }
}

/// Picks the addresses to try, best first. `macs` are those of the VM's adapters, in order.
fn candidates(interfaces: &[AgentInterface], macs: &[String]) -> Vec<IpAddr> {
    let rank = |interface: &AgentInterface| {
        let mac = interface.mac.as_deref()?;
        macs.iter().position(|known| known.eq_ignore_ascii_case(mac))
    };
    let own_any =
        interfaces.iter().any(|interface| rank(interface).is_some() && !usable(interface).is_empty());
    let mut found: Vec<(usize, bool, IpAddr)> = Vec::new();
    for interface in interfaces {
        let rank = rank(interface);
        let skipped = if own_any { rank.is_none() } else { is_loopback(interface) || is_inner(interface) };
        if skipped {
            continue;
        }
        for address in usable(interface) {
            let entry = (rank.unwrap_or(usize::MAX), address.is_ipv6(), address);
            if !found.iter().any(|(_, _, known)| *known == address) {
                found.push(entry);
            }
        }
    }
    // Stable: what the guest names first stays first among equals.
    found.sort_by_key(|(rank, is_v6, _)| (*is_v6, *rank));
    found.into_iter().map(|(_, _, address)| address).collect()
}

/// Every interface with each of its addresses that leads further than the link.
fn named(interfaces: &[AgentInterface]) -> Vec<(String, IpAddr)> {
    let all = interfaces.iter().flat_map(|each| usable(each).into_iter().map(|ip| (each.name.clone(), ip)));
    all.collect()
}

/// The interfaces in words, for a wait message that has no address yet.
fn summary(interfaces: &[AgentInterface]) -> String {
    let names: Vec<String> = interfaces
        .iter()
        .filter(|interface| !is_loopback(interface))
        .map(|interface| match interface.addresses.as_deref().unwrap_or_default() {
            [] => format!("{} without address", interface.name),
            [first, ..] => format!("{} with {}", interface.name, first.address),
        })
        .collect();
    if names.is_empty() { "the guest has no network interface yet".to_owned() } else { names.join(", ") }
}

fn usable(interface: &AgentInterface) -> Vec<IpAddr> {
    let addresses = interface.addresses.as_deref().unwrap_or_default();
    addresses.iter().filter_map(|entry| entry.address.parse().ok()).filter(is_reachable).collect()
}

fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !v4.is_link_local() && !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            !v6.is_unicast_link_local() && !v6.is_unspecified() && !v6.is_multicast() && !v6.is_loopback()
        }
    }
}

fn is_loopback(interface: &AgentInterface) -> bool {
    interface.name == "lo"
        || interface.name.starts_with("Loopback")
        || interface.mac.as_deref() == Some("00:00:00:00:00:00")
}

fn is_inner(interface: &AgentInterface) -> bool {
    INNER.iter().any(|prefix| interface.name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, mac: &str, addresses: &[&str]) -> serde_json::Value {
        let addresses: Vec<_> =
            addresses.iter().map(|a| serde_json::json!({"ip-address": a, "prefix": 24})).collect();
        serde_json::json!({"name": name, "hardware-address": mac, "ip-addresses": addresses})
    }

    fn pick(interfaces: &[serde_json::Value], macs: &[&str]) -> Vec<String> {
        let read: Vec<AgentInterface> =
            interfaces.iter().map(|value| serde_json::from_value(value.clone()).expect("valid")).collect();
        let macs: Vec<String> = macs.iter().map(|mac| (*mac).to_owned()).collect();
        candidates(&read, &macs).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_vms_own_adapters_decide_and_ipv4_comes_first() {
        let lo = interface("lo", "00:00:00:00:00:00", &["127.0.0.1", "::1"]);
        let eth0 = interface("eth0", "bc:24:11:00:00:01", &["fe80::1", "2001:db8::5", "192.0.2.5"]);
        let eth1 = interface("eth1", "bc:24:11:00:00:02", &["192.0.2.6"]);
        let docker = interface("docker0", "02:42:00:00:00:01", &["172.17.0.1"]);
        let bare = serde_json::json!({"name": "eth9"});
        let all = [lo.clone(), docker.clone(), eth1, eth0, bare];
        let macs = ["BC:24:11:00:00:01", "BC:24:11:00:00:02"];
        assert_eq!(pick(&all, &macs), ["192.0.2.5", "192.0.2.6", "2001:db8::5"]);
        // A bond or a bridge in the guest may have another MAC: then all but the inner ones count.
        assert_eq!(pick(&all, &["BC:24:11:99:99:99"]), ["192.0.2.6", "192.0.2.5", "2001:db8::5"]);
        assert_eq!(pick(&[lo, docker], &macs), Vec::<String>::new());
    }

    #[test]
    fn an_address_of_the_loopback_range_on_a_real_adapter_counts() {
        let eth0 = interface("eth0", "bc:24:11:00:00:01", &["127.77.0.3"]);
        assert_eq!(pick(&[eth0], &["BC:24:11:00:00:01"]), ["127.77.0.3"]);
    }

    #[test]
    fn link_local_addresses_are_no_answer() {
        let eth0 = interface("eth0", "bc:24:11:00:00:01", &["169.254.7.7", "fe80::5%eth0", "fe80::5"]);
        assert_eq!(pick(&[eth0], &["BC:24:11:00:00:01"]), Vec::<String>::new());
    }
}
