//! Real virtual machines: disks, arguments, processes, firmware, the cloud-init drive, guests' addresses.

mod args;
mod bridge;
mod cloudinit;
mod disk;
mod firmware;
mod net;
mod process;
mod tpm;

pub use args::{DiskFile, Launch, arguments};
pub use cloudinit::{CloudInit, write_drive};
pub use disk::Disks;
pub use firmware::{EfiKind, Uefi};
pub use net::{GuestNetwork, SshForward};
pub use process::{AgentFailure, RunningVm};
pub use tpm::{Tpm, is_available as has_tpm};
