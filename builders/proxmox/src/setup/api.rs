//! The door by the API, for sites without SSH: with a user's password, so by a ticket of root's.

use async_trait::async_trait;
use serde_json::Value;

use super::{Ask, Change, Door, DoorError, Verb};
use crate::api::client::{Client, SetupError};
use crate::api::encode::Params;
use crate::api::error::ApiError;
use crate::api::types::PermissionMap;
use crate::config::ProxmoxConfig;
use crate::permissions::Grants;
use crate::sdn::Zones;

/// Asks and changes by the API.
#[derive(Debug)]
pub struct ApiDoor {
    client: Client,
}

impl ApiDoor {
    /// A door for a target whose login is a user with a password. Nothing is sent.
    ///
    /// # Errors
    /// When the target's settings can't be used.
    pub fn new(config: &ProxmoxConfig) -> Result<Self, SetupError> {
        Ok(Self { client: Client::new(config)? })
    }
}

fn parameters(list: &[(&'static str, String)]) -> Params {
    list.iter().fold(Params::new(), |all, (name, value)| all.with(*name, value))
}

fn in_words(path: &str, parameters: &[(&'static str, String)]) -> String {
    // What people read is the path as it is meant.
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    parameters.iter().fold(path, |all, (name, value)| format!("{all} {name}={value}"))
}

fn broken(what: String, error: ApiError) -> DoorError {
    match error {
        ApiError::Refused { detail, .. }
        | ApiError::Denied { detail, .. }
        | ApiError::Missing { detail, .. } => DoorError::Refused { what, said: detail },
        other => DoorError::Broken { what, source: Box::new(other) },
    }
}

#[async_trait]
impl Door for ApiDoor {
    fn describe(&self) -> String {
        format!("{} by the API at https://{}", self.client.login_id(), self.client.endpoint())
    }

    fn asks(&self, ask: &Ask) -> String {
        let (path, query) = ask.call();
        format!("GET {}", in_words(&path, query))
    }

    fn makes(&self, change: &Change) -> String {
        let (verb, path, list) = change.call();
        format!("{} {}", verb.name(), in_words(&path, &list))
    }

    async fn ask(&self, ask: &Ask) -> Result<Value, DoorError> {
        let (path, query) = ask.call();
        let reply = self.client.get_reply(&path, &parameters(query)).await;
        reply.map(|reply| reply.data).map_err(|error| broken(self.asks(ask), error))
    }

    async fn change(&self, change: &Change) -> Result<Value, DoorError> {
        let (verb, path, list) = change.call();
        let list = parameters(&list);
        let reply = match verb {
            Verb::Post => self.client.post(&path, &list).await,
            Verb::Put => self.client.put(&path, &list).await,
            Verb::Delete => self.client.delete(&path, &list).await,
        };
        reply.map(|reply| reply.data).map_err(|error| broken(self.makes(change), error))
    }
}

/// What a token lacks of privileges on paths, as `VM.Clone on /vms`, asked by the token itself. May be dropped.
///
/// # Errors
/// When the token is refused, or the API can't be reached.
pub async fn lacking(
    config: &ProxmoxConfig,
    major: u32,
    privileges: &[String],
    paths: &[String],
) -> Result<Vec<String>, ApiError> {
    let client = Client::new(config).map_err(|error| ApiError::Unreachable {
        peer: config.target.clone(),
        detail: error.to_string(),
        source: None,
    })?;
    let map: PermissionMap = client.get("/access/permissions", &Params::new()).await?;
    let grants = Grants {
        token_id: config.token_id.clone(),
        role: client.role().to_owned(),
        major,
        map,
        pool: None,
        zones: Zones::new(),
    };
    let mut lacking = Vec::new();
    for path in paths {
        for privilege in privileges.iter().filter(|name| belongs(name, path)) {
            if !grants.on(path, privilege) {
                lacking.push(format!("{privilege} on {path}"));
            }
        }
    }
    Ok(lacking)
}

/// Whether a privilege means something on a path.
fn belongs(privilege: &str, path: &str) -> bool {
    let family = privilege.split('.').next().unwrap_or_default();
    let top = path.split('/').nth(1).unwrap_or_default();
    match top {
        "vms" => family == "VM",
        "pool" => matches!(family, "VM" | "Pool"),
        "storage" => family == "Datastore",
        "sdn" => family == "SDN",
        "nodes" => family == "Sys",
        _ => true,
    }
}
