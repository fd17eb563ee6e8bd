//! Whether there is the pool that a build VM goes into.

use forge_machine::Finding;
use serde::Deserialize;
use serde_json::Value;

use crate::api::client::Client;
use crate::api::encode::Params;
use crate::api::error::ApiError;
use crate::discovery::did_you_mean;
use crate::permissions::Grants;

/// An entry of `GET /pools`.
#[derive(Debug, Deserialize)]
struct Entry {
    poolid: String,
}

/// Tells a pool that is not there.
///
/// Asked for one pool, a server says that it does not exist before it looks at privileges (observed on PVE 9.2; since
/// 8.1). An older one only lists those that the login may audit, and then nothing is said of one that it may not.
///
/// # Errors
/// When the target can't be asked.
pub(crate) async fn missing(
    client: &Client,
    pool: &str,
    grants: &Grants,
) -> Result<Option<Finding>, ApiError> {
    let one = client.get::<Value>("/pools", &Params::new().with("poolid", pool)).await;
    let (is_gone, is_old) = match one {
        Ok(_) | Err(ApiError::Denied { .. }) => (false, false),
        Err(ApiError::Missing { .. }) => (true, false),
        Err(ApiError::Refused { .. }) => (false, true),
        Err(error) => return Err(error),
    };
    if !is_gone && !is_old {
        return Ok(None);
    }
    let seen: Vec<Entry> = client.get("/pools", &Params::new()).await?;
    let seen: Vec<&str> = seen.iter().map(|entry| entry.poolid.as_str()).collect();
    let may_see = grants.on(&format!("/pool/{pool}"), "Pool.Audit");
    if !is_gone && (!may_see || seen.contains(&pool)) {
        return Ok(None);
    }
    let help = match seen.is_empty() {
        true => format!("as root on a node: pveum pool add {pool}; or leave the pool out"),
        false => did_you_mean(pool, &seen, "pools"),
    };
    Ok(Some(Finding::fatal("pool", format!("there is no pool `{pool}`"), help)))
}
