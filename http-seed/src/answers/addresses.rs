//! Whether a static address is one that a guest can have, and a gateway one that it can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::network::Network;

/// Why a guest can't have an address (`192.0.2.10/24`); `None` when it can, or when it is no address.
pub(super) fn no_host(own: &str) -> Option<String> {
    let (address, prefix) = own.split_once('/')?;
    let (address, prefix): (IpAddr, u32) = (address.parse().ok()?, prefix.parse().ok()?);
    let what = match address {
        _ if address.is_unspecified() => "stands for no address",
        IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST) => "is the guest itself",
        _ if address.is_multicast() => "is one of a group (multicast)",
        IpAddr::V4(Ipv4Addr::BROADCAST) => "is everyone's",
        // Both ends of a link of two are hosts (RFC 3021).
        IpAddr::V4(own) if prefix < 31 => {
            let host = u32::MAX.checked_shr(prefix).unwrap_or(0);
            match u32::from(own) & host {
                0 => "is the network itself",
                end if end == host => "is everyone's in its network (broadcast)",
                _ => return None,
            }
        }
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    Some(format!("{own} {what}, and no guest can have it"))
}

/// Why a guest with that address can't go by a gateway; `None` when it can.
pub(super) fn no_gateway(own: &str, via: &str) -> Option<String> {
    let gateway: IpAddr = via.parse().ok()?;
    let network: Network = own.parse().ok()?;
    let (address, prefix) = own.split_once('/')?;
    if address.parse::<IpAddr>().is_ok_and(|address| address == gateway) {
        return Some(format!("the gateway {via} is the guest's own address"));
    }
    if matches!(gateway, IpAddr::V6(via) if via.is_unicast_link_local()) {
        return None;
    }
    if !network.contains(gateway) {
        return Some(format!("the gateway {via} is not in the network of {own}"));
    }
    no_host(&format!("{via}/{prefix}")).map(|_| format!("the gateway {via} is no address of a host in {own}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_no_guest_can_have_is_told() {
        for (own, why) in [
            ("192.0.2.0/24", "is the network itself"),
            ("192.0.2.255/24", "broadcast"),
            ("127.0.0.1/8", "is the guest itself"),
            ("0.0.0.0/0", "stands for no address"),
            ("224.0.0.5/24", "multicast"),
            ("255.255.255.255/32", "everyone's"),
            ("::1/128", "is the guest itself"),
            ("ff02::1/64", "multicast"),
        ] {
            let told = no_host(own).unwrap_or_default();
            assert!(told.contains(why) && told.starts_with(own), "{own}: {told}");
        }
        for own in [
            "192.0.2.10/24",
            "192.0.3.0/23",
            "192.0.2.0/31",
            "192.0.2.1/31",
            "192.0.2.1/32",
            "2001:db8::/64",
            "",
        ] {
            assert_eq!(no_host(own), None, "{own}");
        }
    }

    #[test]
    fn a_gateway_that_the_guest_cannot_go_by_is_told() {
        for (own, via, why) in [
            ("192.0.2.10/24", "192.0.2.10", "is the guest's own address"),
            ("192.0.2.10/24", "192.0.3.1", "is not in the network"),
            ("192.0.2.10/24", "192.0.2.255", "is no address of a host"),
            ("2001:db8::10/64", "2001:db8:1::1", "is not in the network"),
        ] {
            let told = no_gateway(own, via).unwrap_or_default();
            assert!(told.contains(why), "{own} by {via}: {told}");
        }
        for (own, via) in
            [("192.0.2.10/24", "192.0.2.1"), ("2001:db8::10/64", "fe80::1"), ("192.0.2.10/24", "")]
        {
            assert_eq!(no_gateway(own, via), None, "{own} by {via}");
        }
    }
}
