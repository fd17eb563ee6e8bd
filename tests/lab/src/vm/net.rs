//! The addresses of guests on the host: `127.77.X.N` for the guest in slot N of a lab, X being the lab's own; or
//! `198.18.X.N`, where the lab's network namespace has made those its own, for clients that look for an address which is
//! no loopback address (Packer's Proxmox builders do).
//!
//! Each lab on a machine claims its X by listening on a port of `127.77.X.1`, so that labs of tests that run at the
//! same time never take each other's ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::Context as _;

use super::bridge::Bridges;

/// The port whose listener claims a network.
const CLAIM_PORT: u16 = 7707;

/// How a guest's port 22 is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SshForward {
    /// [`SshForward::Addresses`] where port 22 may be bound, else [`SshForward::Ports`].
    #[default]
    Auto,
    /// `127.77.X.N:22`.
    Addresses,
    /// `127.0.0.1:22000+N`; taken ports are passed over.
    Ports,
    /// `198.18.X.N:22`; only in the network namespace of `cargo lab`.
    Outer,
    /// Directly: the guests are on real bridges, with addresses of their own from DHCP (`198.19.X.N`); only in the network
    /// namespace of `cargo lab`.
    Bridge,
}

/// The network of one lab's guests.
#[derive(Debug)]
pub struct GuestNetwork {
    first: [u8; 2],
    octet: u8,
    forward: SshForward,
    bridges: Option<Bridges>,
    _claim: TcpListener,
}

impl GuestNetwork {
    /// Claims a network.
    ///
    /// # Errors
    /// All 256 are taken, or the machine has none of that kind.
    pub fn claim(forward: SshForward) -> anyhow::Result<Self> {
        let first = if forward == SshForward::Outer { [198, 18] } else { [127, 77] };
        let [a, b] = first;
        let (octet, claim) = (0..=u8::MAX)
            .find_map(|octet| {
                let address = (Ipv4Addr::new(a, b, octet, 1), CLAIM_PORT);
                TcpListener::bind(address).ok().map(|claim| (octet, claim))
            })
            .with_context(|| format!("no guest network of {a}.{b}.0.0 to {a}.{b}.255.0 is free"))?;
        let forward = match forward {
            SshForward::Auto if TcpListener::bind((Ipv4Addr::new(127, 77, octet, 1), 22)).is_ok() => {
                SshForward::Addresses
            }
            SshForward::Auto => SshForward::Ports,
            chosen => chosen,
        };
        Ok(GuestNetwork { first, octet, forward, bridges: None, _claim: claim })
    }

    /// Makes the bridges of a lab whose guests are on real ones; see [`Bridges::make`].
    ///
    /// # Errors
    /// As [`Bridges::make`].
    pub fn make_bridges(&mut self, names: &[String], silent: &[String], folder: &Path) -> anyhow::Result<()> {
        if self.forward == SshForward::Bridge {
            self.bridges = Some(Bridges::make(self.octet, names, silent, folder)?);
        }
        Ok(())
    }

    /// The real bridges, where guests are on such.
    pub fn bridges(&self) -> Option<&Bridges> {
        self.bridges.as_ref()
    }

    /// The host's address, as guests see it.
    pub fn host_address(&self) -> Ipv4Addr {
        self.bridges.as_ref().map_or(Ipv4Addr::new(10, 0, 2, 2), Bridges::host)
    }

    /// The address that the guest agent's answers show for QEMU's user network.
    pub fn shown_address(&self, slot: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.first[0], self.first[1], self.octet, slot)
    }

    /// Where the guest's port 22 is reached.
    pub fn ssh_address(&self, slot: u8) -> SocketAddr {
        match self.forward {
            SshForward::Ports => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 22000 + u16::from(slot)),
            SshForward::Auto | SshForward::Addresses | SshForward::Outer | SshForward::Bridge => {
                SocketAddr::new(IpAddr::V4(self.shown_address(slot)), 22)
            }
        }
    }

    /// Whether nothing listens where the slot's guest would be reached.
    pub fn is_free(&self, slot: u8) -> bool {
        self.bridges.is_some() || TcpListener::bind(self.ssh_address(slot)).is_ok()
    }
}
