//! A node's shell over SSH, with `pveum`, `pvesh` and `pvesm` that act on the lab's own state.
//!
//! Each program does what it does on a real node: it calls the API's methods as root, and prints what they answer. The words
//! are those of PVE 9.2.11 (transcripts `pveum-cli`, `pvesh-pvesm-cli`). Simplified: one command at a time, without pipes,
//! variables and substitutions; only these programs, `id`, `hostname`, `pveversion` and `command -v`; no YAML.

mod format;
mod programs;
mod pvesh;
mod pvesm;
mod pveum;
mod server;
#[cfg(test)]
mod tests;
mod words;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use russh::keys::{Algorithm, HashAlg, PrivateKey};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::api::Answer;
use crate::auth::{Caller, ROOT};
use crate::cluster::Cluster;
use crate::error::ApiResult;

/// What a program has printed, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Printed {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit status.
    pub code: u32,
}

impl Printed {
    fn out(stdout: impl Into<String>) -> Self {
        Printed { stdout: stdout.into(), ..Printed::default() }
    }

    fn failed(code: u32, stderr: impl Into<String>) -> Self {
        Printed { stderr: stderr.into(), code, ..Printed::default() }
    }
}

/// Who may log in, and to what.
#[derive(Debug, Clone)]
pub struct ShellConfig {
    /// The one account.
    pub user: String,
    /// Its password; none can't log in by one.
    pub password: Option<String>,
    /// Its public keys, as OpenSSH writes them.
    pub authorized_keys: Vec<String>,
    /// Whether it is a node of Proxmox VE; any other machine has none of its programs.
    pub proxmox: bool,
}

impl Default for ShellConfig {
    fn default() -> Self {
        ShellConfig { user: "root".to_owned(), password: None, authorized_keys: Vec::new(), proxmox: true }
    }
}

/// A shell that is served until this is dropped.
#[derive(Debug)]
pub struct Shell {
    address: SocketAddr,
    host_key: String,
    lines: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Shell {
    /// Serves the first node of a lab on a free port of loopback.
    pub(crate) async fn serve(cluster: Arc<Cluster>, config: ShellConfig) -> anyhow::Result<Shell> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for SSH")?;
        let address = listener.local_addr()?;
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)?;
        let host_key = key.public_key().fingerprint(HashAlg::Sha256).to_string();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let node = Arc::new(Node { cluster, config, lines: Arc::clone(&lines) });
        let task = tokio::spawn(server::serve(listener, key, node));
        Ok(Shell { address, host_key, lines, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its host key's fingerprint, as `SHA256:…`.
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// The commands that were run so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The machine behind a shell.
#[derive(Debug)]
pub(crate) struct Node {
    pub cluster: Arc<Cluster>,
    pub config: ShellConfig,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Runs one command line.
    pub async fn run(&self, line: &str) -> Printed {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        match words::split(line) {
            Ok(words) => programs::run(self, &words).await,
            Err(why) => Printed::failed(2, format!("bash: -c: line 1: {why}\n")),
        }
    }

    /// Calls the API as root, as the node's programs do; `None` when there is no such method.
    async fn call(
        &self,
        method: &str,
        path: &str,
        parameters: Map<String, Value>,
    ) -> Option<ApiResult<Value>> {
        let answer =
            crate::http::call(&self.cluster, Caller(ROOT.to_owned()), method, path, parameters).await?;
        Some(answer.map(|answer| match answer {
            Answer::Data(data) | Answer::Page(data, _) => data,
            Answer::File(_) | Answer::Upgrade(_) => Value::Null,
        }))
    }
}
