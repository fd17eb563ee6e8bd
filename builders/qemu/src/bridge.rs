//! Guests on a bridge of this machine, where a target names one, instead of QEMU's user network.
//!
//! QEMU's own helper puts the guest's adapter on the bridge: it is installed with the privilege to (`qemu-bridge-helper`) and
//! allowed to by its own rules (`/etc/qemu/bridge.conf`; QEMU docs, invocation, `-netdev bridge`), so forge needs none. The guest has an address of its network then,
//! which the agent tells; the seed server listens on the bridge's address and on no other.

use std::net::IpAddr;
use std::path::Path;

use forge_machine::interfaces::{self, AgentInterface};
use forge_machine::{AddressReport, Finding};
use serde_json::Value;

/// The bridge's own address, an IPv4 one first; `None` where it has none, or there is no such bridge.
pub(crate) fn address(name: &str) -> Option<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().ok()?;
    let mut found: Vec<IpAddr> = all
        .filter(|each| each.interface_name == name)
        .filter_map(|each| {
            let address = each.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let v6 = || address.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::ip);
            v4.or_else(|| v6().filter(|v6| !v6.is_unicast_link_local()).map(IpAddr::V6))
        })
        .collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found.first().copied()
}

/// What of a bridge can't work, or a note of it. `target` is the target's name.
pub(crate) fn look(target: &str, name: &str) -> Result<String, Finding> {
    let there = nix::ifaddrs::getifaddrs().is_ok_and(|mut all| all.any(|each| each.interface_name == name));
    // In a network namespace `/sys` may still be that of another one, which does not know the device.
    let known = Path::new("/sys/class/net").join(name);
    if !there || (known.exists() && !known.join("bridge").is_dir()) {
        return Err(Finding::fatal(
            format!("targets.{target}.bridge"),
            format!("this machine has no bridge `{name}`"),
            "`ip link show type bridge` lists those that are there; without the setting, guests use QEMU's user network",
        ));
    }
    match address(name) {
        Some(address) => Ok(format!("network: bridge {name}; guests reach this machine at {address}")),
        None => {
            Ok(format!("network: bridge {name}, where this machine has no address: a seed can't be served"))
        }
    }
}

/// A MAC address for an adapter that has none: QEMU gives every VM the same, which must not meet on a bridge. The first
/// three bytes are those that QEMU uses; the others come from the build's nonce.
pub(crate) fn mac(nonce: &str, number: usize) -> String {
    let digit = |at: usize| nonce.get(at..at + 2).unwrap_or("00");
    let last = u8::from_str_radix(digit(4), 16).unwrap_or(0);
    let last = last.wrapping_add(u8::try_from(number).unwrap_or(u8::MAX));
    format!("52:54:00:{}:{}:{last:02x}", digit(0), digit(2))
}

/// What the agent's answer to `guest-network-get-interfaces` says of a guest with these adapters.
pub(crate) fn report(answer: Value, macs: &[String]) -> AddressReport {
    let interfaces: Vec<AgentInterface> = match serde_json::from_value(answer) {
        Ok(interfaces) => interfaces,
        Err(error) => {
            let detail = format!("the guest agent's answer makes no sense: {error}");
            return AddressReport { detail, agent: true, ..AddressReport::default() };
        }
    };
    interfaces::report(&interfaces, macs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_build_and_each_adapter_has_a_mac_of_its_own() {
        assert_eq!(mac("0123456789abcdef", 0), "52:54:00:01:23:45");
        assert_eq!(mac("0123456789abcdef", 2), "52:54:00:01:23:47");
        assert_eq!(mac("0123ff6789abcdef", 1), "52:54:00:01:23:00");
    }

    #[test]
    fn the_addresses_of_the_vms_own_adapters_are_where_ssh_is_tried() {
        let answer = json!([
            { "name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [{ "ip-address": "127.0.0.1" }] },
            { "name": "docker0", "hardware-address": "02:42:00:00:00:01", "ip-addresses": [{ "ip-address": "172.17.0.1" }] },
            { "name": "eth0", "hardware-address": "52:54:00:01:23:45", "ip-addresses": [{ "ip-address": "192.0.2.7" }] },
        ]);
        let report = super::report(answer, &["52:54:00:01:23:45".to_owned()]);
        assert_eq!(report.candidates, [("192.0.2.7".parse().expect("an address"), 22)]);
        let nothing = super::report(json!([{ "name": "eth0" }]), &[]);
        assert!(
            nothing.candidates.is_empty() && nothing.detail.contains("eth0 without address"),
            "{nothing:?}"
        );
        assert!(super::report(json!("x"), &[]).detail.contains("makes no sense"));
    }

    #[test]
    fn a_bridge_that_is_not_there_is_told_and_a_device_that_is_none_too() {
        for name in ["no-such-bridge", "lo"] {
            let finding = look("laptop", name).expect_err("it is no bridge");
            assert_eq!(finding.setting, "targets.laptop.bridge");
            assert!(finding.message.contains(name), "{finding:?}");
        }
    }
}
