//! Where a guest may be, from all who may know it: its hypervisor, the network settings that its seed gives it, and
//! whoever has fetched the seed. A guest without an agent is found by the last two.

use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use forge_machine::AddressReport;
use serde_json::Value;

use super::wait::AddressSource;

/// The port of SSH, unless the profile names another.
const SSH_PORT: u16 = 22;

/// What is known of a guest's addresses besides what its hypervisor says. Clones share who has asked.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    given: Vec<IpAddr>,
    askers: Arc<Mutex<Vec<IpAddr>>>,
}

impl Hints {
    /// The addresses that a seed gives its guest: Proxmox's `ipconfig0`, or cloud-init's network configuration.
    #[must_use]
    pub fn given_by(ip_config: Option<&str>, network_config: Option<&Value>) -> Self {
        let mut given = ip_config.map(of_ip_config).unwrap_or_default();
        if let Some(network) = network_config {
            collect(network, &mut given);
        }
        Self { given, askers: Arc::default() }
    }

    /// Somebody has fetched a file of the seed. Behind a NAT it is another's address: so it is asked only while nobody else
    /// knows one, and never when it is this machine's own.
    pub fn asked(&self, peer: IpAddr) {
        let peer = peer.to_canonical();
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        if askers.first() != Some(&peer) && !is_own(peer) {
            askers.retain(|known| *known != peer);
            askers.insert(0, peer);
        }
    }

    fn askers(&self) -> Vec<IpAddr> {
        self.askers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether it is an address of this machine.
fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

/// `ip=192.0.2.5/24,gw=192.0.2.1,ip6=2001:db8::5/64` (qm(1), `ipconfig`).
fn of_ip_config(text: &str) -> Vec<IpAddr> {
    let values = text.split(',').filter_map(|part| {
        let (key, value) = part.trim().split_once('=')?;
        ["ip", "ip6"].contains(&key).then_some(value)
    });
    values.filter_map(address).collect()
}

/// The addresses of interfaces in a network configuration of version 1 or 2 (cloud-init's documentation). Those of name
/// servers have no prefix, and those of version 1 no static subnet.
fn collect(value: &Value, found: &mut Vec<IpAddr>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("addresses", Value::Array(entries)) => {
                        let texts = entries.iter().filter_map(|entry| match entry {
                            Value::Object(one) => one.keys().next().map(String::as_str),
                            other => other.as_str(),
                        });
                        found.extend(texts.filter(|text| text.contains('/')).filter_map(address));
                    }
                    ("address", Value::String(text)) if is_static(fields.get("type")) => {
                        found.extend(address(text));
                    }
                    _ => collect(value, found),
                }
            }
        }
        Value::Array(entries) => entries.iter().for_each(|entry| collect(entry, found)),
        _ => {}
    }
}

fn is_static(kind: Option<&Value>) -> bool {
    matches!(kind.and_then(Value::as_str), Some("static" | "static6"))
}

fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.trim().parse().ok()
}

/// A hypervisor's addresses, and what is known besides them.
pub struct Known {
    /// The hypervisor's.
    pub source: Arc<dyn AddressSource>,
    /// What is known besides.
    pub hints: Hints,
    /// The guest's interface whose addresses count alone, by the guest's name for it.
    pub interface: Option<String>,
}

/// Of a report only what it says of one interface.
fn on(report: AddressReport, interface: &str) -> AddressReport {
    let port =
        |ip: &IpAddr| report.candidates.iter().find(|(known, _)| known == ip).map_or(SSH_PORT, |at| at.1);
    let its = report.interfaces.iter().filter(|(name, _)| name == interface);
    let candidates: Vec<(IpAddr, u16)> = its.map(|(_, ip)| (*ip, port(ip))).collect();
    let others: Vec<String> =
        report.interfaces.iter().map(|(name, ip)| format!("{name} with {ip}")).collect();
    let detail = match (candidates.is_empty(), others.is_empty()) {
        (false, _) => format!("the guest's {interface}, {}", report.detail),
        (true, false) => format!("{interface} has no address; the guest has {}", others.join(", ")),
        (true, true) => format!("nobody tells the address of {interface}: {}", report.detail),
    };
    AddressReport { candidates, detail, ..report }
}

#[async_trait]
impl AddressSource for Known {
    async fn addresses(&self) -> AddressReport {
        let mut report = self.source.addresses().await;
        // A port of this machine leads to the guest: its own addresses are those of a network that only it is in.
        let forwarded = report.candidates.iter().any(|(ip, _)| ip.is_loopback());
        match &self.interface {
            Some(interface) if !(forwarded && report.interfaces.is_empty()) => return on(report, interface),
            _ if forwarded => return report,
            _ => {}
        }
        let askers = if report.candidates.is_empty() { self.hints.askers() } else { Vec::new() };
        let given = self.hints.given.iter().map(|ip| (*ip, "is given to it by its seed"));
        for (ip, why) in given.chain(askers.into_iter().map(|ip| (ip, "has fetched its seed"))) {
            if !report.candidates.iter().any(|(known, _)| *known == ip) {
                report.candidates.push((ip, SSH_PORT));
                let separator = if report.detail.is_empty() { "" } else { "; " };
                report.detail = format!("{}{separator}{ip} {why}", report.detail);
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Says(Vec<(IpAddr, u16)>);

    #[async_trait]
    impl AddressSource for Says {
        async fn addresses(&self) -> AddressReport {
            let detail = if self.0.is_empty() { "agent not running" } else { "told by the agent" };
            AddressReport { candidates: self.0.clone(), detail: detail.into(), ..AddressReport::default() }
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_seeds_own_addresses_are_read_and_those_of_name_servers_are_not() {
        let given = |ip_config, network: Value| Hints::given_by(ip_config, Some(&network)).given;
        let proxmox = Some("ip=192.0.2.5/24,gw=192.0.2.1,ip6=2001:db8::5/64");
        assert_eq!(given(proxmox, Value::Null), [ip("192.0.2.5"), ip("2001:db8::5")]);
        assert_eq!(given(Some("ip=dhcp,ip6=auto"), Value::Null), [] as [IpAddr; 0]);
        let second = json!({ "version": 2, "ethernets": { "eth0": {
            "addresses": ["192.0.2.7/24", { "192.0.2.8/24": { "label": "x" } }], "gateway4": "192.0.2.1",
            "nameservers": { "addresses": ["192.0.2.53"] }, "routes": [{ "to": "default", "via": "192.0.2.1" }] } } });
        assert_eq!(given(None, second), [ip("192.0.2.7"), ip("192.0.2.8")]);
        let first = json!({ "version": 1, "config": [
            { "type": "physical", "name": "eth0", "subnets": [
                { "type": "static", "address": "192.0.2.9/24", "gateway": "192.0.2.1" }, { "type": "dhcp" }] },
            { "type": "nameserver", "address": "192.0.2.53" }] });
        assert_eq!(given(None, first), [ip("192.0.2.9")]);
    }

    #[tokio::test]
    async fn who_has_fetched_the_seed_is_asked_while_nobody_else_knows_an_address() {
        let hints = Hints::given_by(None, None);
        for peer in ["127.0.0.1", "::1", "0.0.0.0", "203.0.113.7", "::ffff:203.0.113.8", "203.0.113.7"] {
            hints.asked(ip(peer));
        }
        let silent = Known { source: Arc::new(Says(Vec::new())), hints: hints.clone(), interface: None };
        let report = silent.addresses().await;
        assert_eq!(
            report.candidates,
            [(ip("203.0.113.7"), 22), (ip("203.0.113.8"), 22)],
            "the last one first"
        );
        assert_eq!(
            report.detail,
            "agent not running; 203.0.113.7 has fetched its seed; 203.0.113.8 has fetched its seed"
        );
        let told = Known { source: Arc::new(Says(vec![(ip("203.0.113.9"), 22)])), hints, interface: None };
        assert_eq!(told.addresses().await.candidates, [(ip("203.0.113.9"), 22)]);
    }

    #[tokio::test]
    async fn an_address_that_the_seed_gives_is_asked_beside_those_of_the_agent_and_only_once() {
        let hints = Hints::given_by(Some("ip=203.0.113.5/24"), None);
        let told = Known {
            source: Arc::new(Says(vec![(ip("203.0.113.9"), 22)])),
            hints: hints.clone(),
            interface: None,
        };
        let report = told.addresses().await;
        assert_eq!(report.candidates, [(ip("203.0.113.9"), 22), (ip("203.0.113.5"), 22)]);
        let same = Known { source: Arc::new(Says(vec![(ip("203.0.113.5"), 2222)])), hints, interface: None };
        assert_eq!(same.addresses().await.candidates, [(ip("203.0.113.5"), 2222)]);
        let forwarded = Known {
            source: Arc::new(Says(vec![(ip("127.0.0.1"), 4022)])),
            hints: same.hints,
            interface: None,
        };
        assert_eq!(
            forwarded.addresses().await.candidates,
            [(ip("127.0.0.1"), 4022)],
            "as with QEMU's user network"
        );
    }

    #[tokio::test]
    async fn of_a_guest_whose_interface_is_named_only_its_addresses_count() {
        struct Tells(AddressReport);

        #[async_trait]
        impl AddressSource for Tells {
            async fn addresses(&self) -> AddressReport {
                self.0.clone()
            }
        }

        let report = AddressReport {
            candidates: vec![(ip("203.0.113.9"), 22)],
            detail: "told by the guest agent".into(),
            agent: true,
            interfaces: vec![("eth0".into(), ip("203.0.113.9")), ("wg0".into(), ip("198.51.100.7"))],
        };
        let seen = async |report: &AddressReport, interface: &str| {
            let hints = Hints::given_by(Some("ip=203.0.113.5/24"), None);
            let source = Arc::new(Tells(report.clone()));
            let report = Known { source, hints, interface: Some(interface.into()) }.addresses().await;
            let found: Vec<String> =
                report.candidates.iter().map(|(ip, port)| format!("{ip}:{port}")).collect();
            (found.join(" "), report.detail)
        };
        assert_eq!(seen(&report, "eth0").await.0, "203.0.113.9:22");
        // Also one that is none of the VM's own adapters.
        assert_eq!(seen(&report, "wg0").await.0, "198.51.100.7:22");
        let (none, detail) = seen(&report, "eth1").await;
        assert_eq!(
            (none.as_str(), detail.as_str()),
            ("", "eth1 has no address; the guest has eth0 with 203.0.113.9, wg0 with 198.51.100.7")
        );
        let silent = AddressReport { detail: "agent not running".into(), ..AddressReport::default() };
        let (none, detail) = seen(&silent, "eth0").await;
        assert_eq!(
            (none.as_str(), detail.as_str()),
            ("", "nobody tells the address of eth0: agent not running")
        );
        // QEMU's user network leads a port to the guest, whatever its interface is called.
        let forwarded = AddressReport { candidates: vec![(ip("127.0.0.1"), 4022)], ..silent };
        assert_eq!(seen(&forwarded, "eth0").await.0, "127.0.0.1:4022");
    }
}
