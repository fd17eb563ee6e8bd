//! Access to the guest: the build's key, finding and logging in over SSH, commands and files, and scripts that
//! can't lie about how they ended.
//!
//! Invariants:
//! * a host key is recorded at the first login and checked at each later one; another key is never accepted;
//! * a lost connection is never an exit status ([`forge_machine::ExecOutcome::Disconnected`]), and a script counts
//!   as ended only when its sentinel came back ([`script`]);
//! * nothing here sleeps for a fixed time: waits poll adaptively, overlap their tries, and end when dropped;
//! * no task outlives the future that started it, but for the one that closes an abandoned channel.

pub mod access;
pub mod agent;
mod credentials;
mod exec;
pub mod host;
pub mod key;
mod known;
mod lines;
pub mod powershell;
pub mod probe;
pub mod quote;
mod route;
pub mod script;
pub mod sentinel;
pub mod serial;
mod session;
pub mod ssh;
#[cfg(test)]
pub(crate) mod ssh_tests;
#[cfg(test)]
pub(crate) mod sshd_tests;
#[cfg(test)]
pub(crate) mod testing;
mod transfer;
pub mod via;
pub mod wait;
#[cfg(test)]
mod windows_tests;
pub mod winrm;

pub use access::{AccessError, Patience, SecretSource, SshAccess, SshPlan, WinRmPlan};
pub use agent::AgentGuest;
pub use credentials::{Method, Password};
pub use host::{Host, HostError, HostKey, Ran};
pub use key::{BUILD_KEY_COMMENT, BuildKey, GivenHostKey, KeyError};
pub use known::{Hints, Known};
pub use lines::{LineSplitter, Tail};
pub use powershell::PowerShell;
pub use probe::{Probe, probe};
pub(crate) use route::resolve;
pub use route::{Hop, Proxy, ProxyKind, Route};
pub use script::{Become, Begun, RemoteScript, ScriptEnd, ScriptOutput, ScriptRun, imitate, run_script};
pub use serial::{ConsoleLogin, MachinePort, SerialChannel};
pub use ssh::SshGuest;
pub use via::Via;
pub use wait::{AddressSource, MachineAddresses, Named, WaitError, WaitInput, wait_for_guest};
pub use winrm::{WinRmAuth, WinRmGuest, WinRmInput, WinRmLogin};
