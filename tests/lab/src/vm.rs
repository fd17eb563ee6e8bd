//! Real virtual machines: disks, arguments, processes, the cloud-init drive, guests' addresses.

mod args;
mod cloudinit;
mod disk;
mod net;
mod process;

pub use args::{DiskFile, Launch, arguments};
pub use cloudinit::{CloudInit, write_drive};
pub use disk::Disks;
pub use net::{GuestNetwork, SshForward};
pub use process::{AgentFailure, RunningVm};
