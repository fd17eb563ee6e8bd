//! Bridges and virtual networks: the path that rights on them are given on.

use std::collections::BTreeMap;

use crate::api::client::Client;
use crate::api::encode::Params;
use crate::api::types::VnetEntry;

/// The zones of virtual networks, by the networks' names.
pub type Zones = BTreeMap<String, String>;

/// The zone of a node's own bridges.
const LOCAL: &str = "localnetwork";

/// The path of a bridge, or of a virtual network whose zone is known.
#[must_use]
pub fn sdn_path(zones: &Zones, bridge: &str) -> String {
    format!("/sdn/zones/{}/{bridge}", zones.get(bridge).map_or(LOCAL, String::as_str))
}

/// The zones of the virtual networks that the token is told of: none where it may not see any, or there is no SDN. May be
/// dropped.
pub(crate) async fn zones(client: &Client) -> Zones {
    match client.get::<Vec<VnetEntry>>("/cluster/sdn/vnets", &Params::new()).await {
        Ok(entries) => entries.into_iter().map(|entry| (entry.vnet, entry.zone)).collect(),
        Err(error) => {
            tracing::debug!(%error, "the zones of virtual networks are not known");
            Zones::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_network_lies_in_its_own_zone_and_a_bridge_in_the_local_one() {
        let zones: Zones = [("lan1".to_owned(), "lab".to_owned())].into();
        assert_eq!(sdn_path(&zones, "lan1"), "/sdn/zones/lab/lan1");
        assert_eq!(sdn_path(&zones, "vmbr0"), "/sdn/zones/localnetwork/vmbr0");
    }
}
