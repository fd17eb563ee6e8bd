//! One running VM: its QEMU process, monitor, guest agent and screen.
//!
//! Invariant: the process dies with the lab: `QemuProcess` kills it when dropped, and the kernel does when the
//! lab's own process is killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forge_qemu::agent::{AgentError, GuestAgent};
use forge_qemu::process::{Launch, QemuProcess};
use forge_qemu::qmp::Qmp;
use serde_json::Value;

/// How long QEMU may take to answer on its monitor; a busy machine is slow.
const START: Duration = Duration::from_secs(30);

/// A running VM.
#[derive(Debug)]
pub struct RunningVm {
    /// The process's number.
    pub pid: u32,
    /// When it was started.
    pub since: Instant,
    /// The monitor.
    pub qmp: Qmp,
    /// The VNC server's socket.
    pub vnc_socket: PathBuf,
    agent: GuestAgent,
    process: QemuProcess,
    // Ends with the process, and is killed with this value.
    _tpm: Option<super::Tpm>,
}

/// What an agent command failed with, as Proxmox tells it apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentFailure {
    /// The agent does not answer a ping.
    NotRunning,
    /// The agent refused, with its description.
    Refused(String),
    /// The agent stopped answering in the middle.
    Timeout,
}

impl RunningVm {
    /// Starts QEMU with its sockets in `folder` and waits for its monitor.
    ///
    /// # Errors
    /// What QEMU wrote before it gave up.
    pub async fn start(
        folder: &Path,
        arguments: Vec<String>,
        tpm: Option<super::Tpm>,
    ) -> Result<RunningVm, String> {
        let launch = Launch::new("qemu-system-x86_64", folder.join("qemu.log")).arguments(arguments);
        let failed = |error: &dyn std::error::Error| format!("start failed: {error}");
        let process = QemuProcess::spawn(launch).await.map_err(|error| failed(&error))?;
        let qmp =
            process.connect_qmp(&folder.join("qmp.sock"), START).await.map_err(|error| failed(&error))?;
        Ok(RunningVm {
            pid: process.pid(),
            since: Instant::now(),
            qmp,
            vnc_socket: folder.join("vnc.sock"),
            agent: GuestAgent::new(&folder.join("qga.sock")),
            process,
            _tpm: tpm,
        })
    }

    /// Waits for the process to end. Cancel-safe.
    pub async fn ended(&self) {
        // An error means that nobody watches it any more, which happens only when the runtime goes.
        let _ = self.process.wait().await;
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        self.process.exited().is_some()
    }

    /// Ends QEMU so that its images are whole, by force after a while.
    pub async fn stop(&self) {
        self.process.terminate();
        if tokio::time::timeout(Duration::from_secs(5), self.ended()).await.is_err() {
            self.kill();
            self.ended().await;
        }
    }

    /// Kills the process at once.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Runs an agent command after a ping, as Proxmox does; `ping` is how long the agent may take to show that it is
    /// there, `limit` the command.
    ///
    /// # Errors
    /// The agent is not there, refuses or stops answering.
    pub async fn ask_agent(
        &self,
        command: &str,
        arguments: Value,
        ping: Duration,
        limit: Duration,
    ) -> Result<Value, AgentFailure> {
        self.agent.ping(ping).await.map_err(|_| AgentFailure::NotRunning)?;
        self.agent.execute(command, arguments, limit).await.map_err(|error| match error {
            AgentError::Refused { desc, .. } => AgentFailure::Refused(desc),
            _ => AgentFailure::Timeout,
        })
    }
}
