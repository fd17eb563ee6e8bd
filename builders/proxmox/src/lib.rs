//! Proxmox VE: API client and hypervisor for forge.
//!
//! [`ProxmoxHypervisor`] implements the port of `forge-machine` on top of [`api`], the HTTP client. Between the two
//! stand pure modules that can be tested without a server: [`vmconfig`] reads Proxmox's VM configuration,
//! [`params`] turns a spec into its parameters, [`permissions`] tells what a token lacks, [`check`] what a spec asks
//! in vain.
//!
//! ```text
//!  hypervisor, machine, power ─┬─ discovery, params, check, permissions ── vmconfig
//!                              └─ api: client ─ auth, tls, encode, envelope, error ; task, websocket
//! ```
//!
//! Invariants:
//! * facts about Proxmox come from observation of PVE 9.2 or its sources' behaviour, never from its code's text;
//! * the token's secret appears in one sensitive header and nowhere else;
//! * `api` knows nothing of builds.

mod agent;
pub mod api;
mod archive;
mod capacity;
pub mod check;
pub mod config;
mod diagnose;
mod discard;
pub mod discovery;
pub mod hypervisor;
mod ids;
mod least;
pub mod machine;
mod marks;
pub mod media;
pub mod newvm;
pub mod params;
pub mod permissions;
mod placement;
mod pool;
mod power;
pub mod schema;
pub mod sdn;
pub mod secret;
mod seeddisc;
pub mod setup;
mod source;
mod sweep;
mod tags;
mod turns;
pub mod vmconfig;

pub use config::{ProxmoxConfig, ProxyChoice, TlsChoice};
pub use hypervisor::{ProxmoxHypervisor, Stranger};
pub use secret::Secret;
