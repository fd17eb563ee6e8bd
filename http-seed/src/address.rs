//! Which address of this machine a target can reach.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The address of ours from which packets to `target` leave: the one that a guest beside the target can reach, unless
/// there is a NAT between.
///
/// Connecting a UDP socket only asks the kernel's routing table; no packet is sent.
///
/// # Errors
/// When no route leads there.
pub fn local_address_towards(target: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Port 0 can't be connected to; the port does not matter for the route.
    socket.connect((target.ip(), target.port().max(1)))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn towards_loopback_leads_loopback() {
        let target = "127.0.0.1:8006".parse().expect("an address");
        assert_eq!(local_address_towards(target).expect("a route"), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
}
