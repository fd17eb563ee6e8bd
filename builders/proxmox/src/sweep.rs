//! Looking at the VMs of all nodes, one after another.
//!
//! A cluster goes on without one of its nodes, whose VMs stay in the list: a node that does not answer hides its own VMs
//! and nothing else. It is asked once only, since each further question would take its own time limit.

use std::collections::BTreeMap;

use forge_machine::VmRef;
use serde_json::Value;

use crate::api::client::Client;
use crate::api::encode::Params;
use crate::api::error::ApiError;
use crate::discovery::vm_config;
use crate::vmconfig::VmConfig;

/// One look at many VMs.
#[derive(Debug)]
pub struct Sweep<'c> {
    client: &'c Client,
    silent: BTreeMap<String, usize>,
}

impl<'c> Sweep<'c> {
    /// Begins to look.
    #[must_use]
    pub fn new(client: &'c Client) -> Self {
        Self { client, silent: BTreeMap::new() }
    }

    /// A VM's configuration; `None` when it is gone, hidden from the token, or on a node that does not answer. May be
    /// dropped.
    ///
    /// # Errors
    /// When the target itself can't be asked, or refuses.
    pub async fn config(&mut self, at: &VmRef) -> Result<Option<VmConfig>, ApiError> {
        if let Some(missed) = self.silent.get_mut(&at.node) {
            *missed += 1;
            return Ok(None);
        }
        match vm_config(self.client, at).await {
            Ok(config) => Ok(Some(config)),
            Err(ApiError::VmMissing { .. } | ApiError::Denied { .. }) => Ok(None),
            Err(error @ ApiError::Unreachable { .. }) => {
                // Is it the node, or the server that is asked about it?
                let alive: Result<Value, ApiError> = self.client.get("/version", &Params::new()).await;
                alive?;
                tracing::warn!(%error, node = at.node, "the VMs of this node are left out");
                self.silent.insert(at.node.clone(), 1);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The nodes that did not answer, in words; `None` when all did.
    #[must_use]
    pub fn left_out(&self) -> Option<String> {
        let nodes = self.silent.iter().map(|(node, missed)| match missed {
            1 => format!("{node} does not answer, and a VM of it that might be meant was not looked at"),
            _ => format!(
                "{node} does not answer, and {missed} VMs of it that might be meant were not looked at"
            ),
        });
        let nodes: Vec<String> = nodes.collect();
        (!nodes.is_empty()).then(|| nodes.join("; "))
    }
}
