//! A TPM by `swtpm`, whose state is the VM's `tpmstate0` volume.
//!
//! Simplified: a real server gives a new TPM certificates of its own; here its keys are made when it first starts.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

/// How long `swtpm` may take to listen.
const START: Duration = Duration::from_secs(10);

/// A running TPM; it ends with its VM, and is killed when dropped.
#[derive(Debug)]
pub struct Tpm {
    /// Its control socket.
    pub socket: PathBuf,
    _process: Child,
}

/// Whether this machine has `swtpm`.
pub fn is_available() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/bin".into()]).any(|folder| folder.join("swtpm").is_file())
}

impl Tpm {
    /// Starts a TPM with its state in `volume` and waits until it listens.
    ///
    /// # Errors
    /// What `swtpm` said.
    pub async fn start(folder: &Path, volume: &Path, version: &str) -> Result<Tpm, String> {
        let socket = folder.join("swtpm.sock");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("swtpm");
        command
            .arg("socket")
            .arg("--tpmstate")
            .arg(format!("backend-uri=file://{},mode=0600", volume.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={},mode=0600", socket.display()))
            .arg("--terminate")
            .arg("--log")
            .arg(format!("file={},level=1", folder.join("swtpm.log").display()));
        if version != "v1.2" {
            command.arg("--tpm2");
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("failed to run swtpm: {error}"))?;
        let listens = async {
            while !socket.exists() {
                if let Ok(Some(status)) = process.try_wait() {
                    let said = std::fs::read_to_string(folder.join("swtpm.log")).unwrap_or_default();
                    return Err(format!("swtpm ended ({status}): {}", said.trim()));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        };
        match tokio::time::timeout(START, listens).await {
            Ok(result) => result?,
            Err(_) => return Err("swtpm does not listen".to_owned()),
        }
        Ok(Tpm { socket, _process: process })
    }
}
