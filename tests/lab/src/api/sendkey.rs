//! `PUT sendkey`: QEMU's own `sendkey` under the configuration's lock.

use serde_json::Value;

use super::{Answer, Call, keys, not_running};
use crate::error::{ApiError, ApiResult};

/// What QEMU's monitor prints about a key; its line end holds a carriage return, which spoils the status line.
fn invalid(key: &str) -> ApiError {
    ApiError::die(format!("invalid parameter: {key}\r"))
}

/// Presses keys.
pub async fn sendkey(call: Call) -> ApiResult<Answer> {
    let (node, vmid) = (call.node(), call.vmid());
    let key = call.params.text("key");
    let _lock = call.cluster.lock_config(vmid).await?;
    let vm = call.cluster.vm(node, vmid)?;
    if !vm.is_running() {
        return Err(not_running(vmid));
    }
    let (names, hold) = key.split_once(' ').unwrap_or((key, ""));
    if !keys::are_valid(names) || !(hold.is_empty() || hold.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(invalid(names));
    }
    if let Some(process) = call.cluster.process(node, vmid)? {
        let printed = process.qmp.human_monitor(&format!("sendkey {key}")).await.map_err(|error| {
            ApiError::die(format!("VM {vmid} qmp command 'human-monitor-command' failed - {error}"))
        })?;
        if !printed.trim().is_empty() {
            return Err(ApiError::die(printed));
        }
    }
    Ok(Value::Null.into())
}
