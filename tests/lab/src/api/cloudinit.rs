//! `/cloudinit`: pending settings, the files as text, and writing the drive again.

use serde_json::{Value, json};

use super::{Answer, Call, drives, rules};
use crate::error::{ApiError, ApiResult};
use crate::state::typed;
use crate::vm::CloudInit;

/// `GET cloudinit`.
pub fn pending(call: &Call) -> ApiResult<Answer> {
    let config = call.cluster.vm(call.node(), call.vmid())?.with_pending();
    let keys =
        ["cicustom", "cipassword", "citype", "ciuser", "ciupgrade", "nameserver", "searchdomain", "sshkeys"];
    let listed = config
        .iter()
        .filter(|(key, _)| keys.contains(&key.as_str()) || key.starts_with("ipconfig"))
        .map(|(key, value)| json!({"key": key, "value": typed(key, value)}));
    Ok(listed.collect::<Value>().into())
}

/// `GET cloudinit/dump`.
pub fn dump(call: &Call) -> ApiResult<Answer> {
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    let config = vm.with_pending();
    let files = CloudInit::of(&config, &rules::name_of(&config, vm.vmid));
    Ok(match call.params.text("type") {
        "user" => files.user,
        "network" => files.network,
        _ => files.meta,
    }
    .into())
}

/// `PUT cloudinit`.
pub async fn regenerate(call: &Call) -> ApiResult<Answer> {
    let _lock = call.cluster.lock_config(call.vmid()).await?;
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    vm.check_lock()?;
    if let Some((_, drive)) = vm.cloudinit_drive() {
        let config = vm.with_pending();
        let name = rules::name_of(&config, vm.vmid);
        drives::write_cloudinit(&call.cluster, call.node(), vm.vmid, &name, &config, &drive.volume)
            .await
            .map_err(ApiError::die)?;
    }
    Ok(Value::Null.into())
}
