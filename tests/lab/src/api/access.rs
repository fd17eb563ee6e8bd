//! `/access`: what a caller may do. Tickets and user administration are not served yet.

use serde_json::json;

use super::{Answer, Call};
use crate::auth::Caller;
use crate::error::ApiResult;

/// `GET /access/permissions`.
pub fn permissions(call: &Call) -> ApiResult<Answer> {
    let caller = match call.params.get("userid") {
        Some(other) if other != call.caller.0 => {
            call.require("/access", &["Sys.Audit"])?;
            Caller(other.to_owned())
        }
        _ => call.caller.clone(),
    };
    Ok(call.cluster.auth().permissions(&caller, call.params.get("path")).into())
}

/// `GET /access/users`: only those a caller may see, and a token sees none.
pub fn users(call: &Call) -> ApiResult<Answer> {
    if call.may("/access/groups", &["User.Modify", "Sys.Audit"]) {
        return Ok(json!([{"userid": call.caller.user(), "enable": 1, "expire": 0}]).into());
    }
    Ok(json!([]).into())
}
