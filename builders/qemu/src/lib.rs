//! Local QEMU: QMP, guest agent, process, accelerator, images, and the hypervisor built from them.
//!
//! * [`qmp`] and [`agent`] speak to a running QEMU and to the agent in its guest;
//! * [`process`] starts QEMU so that it never outlives forge, and keeps its last words;
//! * [`accel`] finds out by trying whether KVM works here;
//! * [`image`] wraps `qemu-img`;
//! * [`args`], [`drives`] and [`firmware`] make a machine's argument list of its spec;
//! * [`QemuHypervisor`] is the local target: a disk image or install media in, disks in a work directory while the guest
//!   works, flat image files out.
//!
//! Invariant: every text that comes from QEMU or from the guest is untrusted: lengths are bounded, and nothing in
//! it can make this crate panic.

pub mod accel;
pub mod agent;
mod agent_channel;
pub mod args;
mod base;
mod bridge;
mod check;
mod cpu;
mod create;
mod diagnose;
mod digest;
pub mod drives;
mod finalize;
pub mod firmware;
pub mod hardware;
mod hypervisor;
pub mod image;
mod known;
mod line;
mod machine;
mod media;
mod port;
pub mod process;
pub mod qmp;
mod room;
mod sandbox;
mod search;
mod socket;
mod spawner;
mod tpm;
mod workdir;

pub use hypervisor::{AcceleratorChoice, QemuHypervisor, QemuTarget};
