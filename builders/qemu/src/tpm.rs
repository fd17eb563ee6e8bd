//! A TPM 2.0 by `swtpm`, whose state is in the VM's work directory.
//!
//! It ends with its QEMU (`--terminate`: when the VM's connection closes), with forge (as QEMU does), or when this is
//! dropped.

use std::path::Path;
use std::time::Duration;

use forge_machine::PortError;
use tokio::time::{sleep, timeout};

use crate::args::TPM_SOCKET;
use crate::process::{Launch, QemuProcess};
use crate::workdir::WorkDir;

/// Its state.
const STATE: &str = "tpm";
/// What it says.
const LOG: &str = "swtpm.log";
/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Starts it, and returns when it listens.
pub(crate) async fn start(dir: &WorkDir, program: &Path) -> Result<QemuProcess, PortError> {
    let failed =
        |error: forge_machine::error::Cause| PortError::broken("the TPM could not be started", error);
    let socket = dir.file(TPM_SOCKET);
    // A socket of an earlier start would be taken for the new one's.
    let _ = std::fs::remove_file(&socket);
    std::fs::create_dir_all(dir.file(STATE)).map_err(|error| failed(error.into()))?;
    let mut launch = Launch::new(program, dir.file(LOG)).arguments([
        "socket".to_owned(),
        "--tpm2".to_owned(),
        "--tpmstate".to_owned(),
        format!("dir={STATE},mode=0600"),
        "--ctrl".to_owned(),
        format!("type=unixio,path={TPM_SOCKET},mode=0600"),
        "--terminate".to_owned(),
    ]);
    launch.directory = Some(dir.path().to_owned());
    let process = QemuProcess::spawn(launch).await.map_err(|error| failed(error.into()))?;
    let listens = async {
        loop {
            if let Some(status) = process.exited() {
                return Err(failed(process.exit_error(status).into()));
            }
            if socket.exists() {
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    match timeout(START_LIMIT, listens).await {
        Ok(result) => result?,
        Err(_elapsed) => {
            return Err(PortError::TimedOut {
                what: "the start of the TPM".to_owned(),
                limit: START_LIMIT,
                last_seen: process.stderr_tail(),
            });
        }
    }
    Ok(process)
}
