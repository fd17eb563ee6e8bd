//! The Proxmox VE HTTP API as a client sees it: connection, trust, token, envelope, errors, tasks, websocket.
//!
//! Invariants:
//! * nothing here knows what forge builds: this module never imports `params`, `machine` or `hypervisor`;
//! * a request is either *certainly not carried out*, *refused*, *carried out* or *unanswered*, and its error
//!   tells which ([`error::ApiError`]);
//! * only GET is ever repeated, and only once, after the connection was closed under it; but for what a refused ticket
//!   was shown with.

pub mod auth;
pub mod client;
pub mod encode;
pub mod endpoint;
pub mod envelope;
pub mod error;
pub mod limits;
pub mod proxy;
pub mod task;
pub mod terminal;
pub mod tls;
pub mod transfer;
pub mod types;
pub mod websocket;
