//! The client and hypervisor against forge-lab, an independent Proxmox-compatible server.

#![expect(clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod conformance;
mod connection;
mod courier;
mod denials;
mod facts;
mod faults;
mod hardware;
mod lifecycle;
mod media;
mod newvm;
mod raw;
mod readme;
mod screen;
mod seed_disc;
mod silence;
mod support;
mod trust;
