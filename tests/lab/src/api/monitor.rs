//! `POST monitor`: QEMU's human monitor.
//!
//! Who may run what (proxmox.md §3.7): `info` and `help` need nothing beyond the call's own privilege, what changes the
//! host is for `root@pam` alone, the rest needs `Sys.Modify` on `/`.

use super::{Answer, Call, not_running};
use crate::error::{ApiError, ApiResult};

/// Commands that reach the host's files, processes or devices.
const ROOT_ONLY: &[&str] = &[
    "migrate",
    "migrate_incoming",
    "memsave",
    "pmemsave",
    "screendump",
    "chardev-add",
    "chardev-change",
    "netdev_add",
    "device_add",
    "drive_add",
    "object_add",
    "dump-guest-memory",
    "savevm",
    "loadvm",
    "logfile",
    "gdbserver",
    "snapshot_blkdev",
    "drive_mirror",
    "drive_backup",
    "change",
    "nbd_server_start",
    "wavcapture",
    "hostfwd_add",
    "quit",
];

/// Runs a command and returns what QEMU prints.
pub async fn monitor(call: Call) -> ApiResult<Answer> {
    let command = call.params.text("command").to_owned();
    let first = command.split_whitespace().next().unwrap_or_default();
    if ROOT_ONLY.contains(&first) && !call.caller.is_root() {
        return Err(ApiError::forbidden_unnamed());
    }
    if !matches!(first, "info" | "help" | "?") && !ROOT_ONLY.contains(&first) {
        call.require("/", &["Sys.Modify"])?;
    }
    let (node, vmid) = (call.node(), call.vmid());
    if !call.cluster.vm(node, vmid)?.is_running() {
        return Err(not_running(vmid));
    }
    match call.cluster.process(node, vmid)? {
        Some(process) => match process.qmp.human_monitor(&command).await {
            Ok(text) => Ok(text.into()),
            Err(error) => Ok(format!("ERROR: {error}").into()),
        },
        None => Ok(String::new().into()),
    }
}
