//! A Proxmox-compatible server over real QEMU, for the tests and demos of forge.
//!
//! The lab answers as a Proxmox VE 9.2 (or 8.4) cluster over TLS and holds each VM in a real `qemu-system-x86_64`. It is an
//! independent oracle: it is checked against Proxmox's own schema and the answers of a real server, and imports
//! nothing of forge's client.
//!
//! ```no_run
//! use forge_lab::{Fault, Gate, ImportVm, LEAST_PRIVILEGES_PVE9, Lab, LabConfig};
//!
//! # async fn example() -> anyhow::Result<()> {
//! let lab = Lab::start(LabConfig { run_guests: false, ..LabConfig::default() }).await?;
//! let secret = lab.add_token("forge@pve!build", &[("/", LEAST_PRIVILEGES_PVE9)]);
//! lab.import_vm(ImportVm { vmid: 100, template: true, ..ImportVm::default() }).await?;
//!
//! // The first clone's task stays running until the gate is released; the second call is refused.
//! let gate = Gate::new();
//! lab.faults().on("POST", "/nodes/*/qemu/*/clone").call(1).then(Fault::TaskHold(gate.clone()));
//! lab.faults().on("POST", "/nodes/*/qemu/*/clone").call(2).then(Fault::DoThenDrop);
//!
//! // … point a client at lab.url(), lab.fingerprint(), "forge@pve!build" and `secret` …
//! gate.reached().await;
//! gate.release();
//! assert!(lab.vms().iter().all(|vm| !vm.running));
//! lab.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! What is faithful and what is simplified is said where it is done; the modules' first lines name their source.

mod api;
mod auth;
pub mod browser;
pub mod cli;
mod clock;
mod cluster;
mod config;
mod connect_proxy;
mod coverage;
mod error;
mod faults;
mod http;
mod ids;
pub mod images;
mod lab;
pub mod netns;
mod page;
mod routes;
mod scenario;
mod schema;
pub mod setup;
mod shell;
mod state;
mod tasks;
mod tls;
mod vm;
pub mod vma;

pub use auth::{ALL_PRIVILEGES_PVE8, ALL_PRIVILEGES_PVE9, LEAST_PRIVILEGES_PVE9};
pub use clock::Clock;
pub use cluster::RequestRecord;
pub use config::{LabConfig, PveVersion};
pub use connect_proxy::ConnectProxy;
pub use faults::{Fault, FaultBuilder, FaultHandle, Faults, Gate};
pub use lab::{ImportVm, Lab, VmView};
pub use scenario::Scenario;
pub use shell::{Shell, ShellConfig};
pub use state::StorageConfig;
pub use vm::SshForward;
