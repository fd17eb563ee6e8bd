//! What the client must be told about a Proxmox VE target. Plain data; nothing is asked or read here.

use std::path::PathBuf;

use crate::secret::Secret;

/// Which server certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsChoice {
    /// Those that the roots of this machine vouch for.
    System,
    /// Those that the authorities in a PEM file vouch for (a node's `/etc/pve/pve-root-ca.pem`).
    CaFile(PathBuf),
    /// One of several certificates, each by its fingerprint: those of a cluster's nodes.
    Fingerprints(Vec<String>),
    /// The one certificate with this SHA-256 fingerprint (hexadecimal, colons allowed), whatever its name,
    /// issuer and dates. Proxmox shows it on a node's certificate page and in `pvenode cert info`.
    Fingerprint(String),
    /// Any: whoever is on the way can read the token. The caller has to say so loudly.
    Insecure,
}

/// Which proxy leads to the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyChoice {
    /// The one that the environment names (`HTTPS_PROXY`, `ALL_PROXY`), unless `NO_PROXY` excepts the host.
    Environment,
    /// None.
    #[default]
    None,
    /// This one: `http://host:port`, with `user:password@` where it asks for a login.
    Url(String),
}

/// A Proxmox VE target and how to reach it.
#[derive(Clone, Debug)]
pub struct ProxmoxConfig {
    /// The target's name in the site file, for messages.
    pub target: String,
    /// `https://host:8006`, with or without `/api2/json`; the port defaults to 8006.
    pub url: String,
    /// Further endpoints of the same cluster, for when the first can't be reached.
    pub more_urls: Vec<String>,
    /// The proxy on the way.
    pub proxy: ProxyChoice,
    /// `user@realm!token`, or `user@realm` for a login by password.
    pub token_id: String,
    /// The role that it has there; `None` is forge's own ([`crate::permissions::ROLE`]).
    pub role: Option<String>,
    /// The token's UUID, or the password.
    pub token_secret: Secret,
    /// Which server certificates are accepted.
    pub tls: TlsChoice,
    /// The nodes forge may use; empty means all.
    pub nodes: Vec<String>,
    /// The storage for disks when the profile names none.
    pub disk_storage: Option<String>,
    /// The storage for install media.
    pub iso_storage: Option<String>,
    /// The bridge for network adapters whose profile names none.
    pub bridge: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_does_not_show_in_debug() {
        let config = ProxmoxConfig {
            target: "pve".into(),
            url: "https://pve:8006".into(),
            more_urls: Vec::new(),
            proxy: ProxyChoice::default(),
            token_id: "forge@pve!build".into(),
            role: None,
            token_secret: "11111111-2222-3333-4444-555555555555".into(),
            tls: TlsChoice::System,
            nodes: Vec::new(),
            disk_storage: None,
            iso_storage: None,
            bridge: None,
        };
        let shown = format!("{config:?}");
        assert!(!shown.contains("5555") && shown.contains("[redacted]"), "{shown}");
    }
}
