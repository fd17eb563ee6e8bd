//! Seeds: the answer files of unattended installs, and the server that hands them to the guest.
//!
//! * [`template`] renders templates strictly: an undefined variable is an error wherever it stands, and values go in
//!   through a filter for the language of the file;
//! * [`nocloud`] builds cloud-init's NoCloud seed as values;
//! * [`answers`] renders the answer files of installers, [`lint`] judges them before anything boots;
//! * [`disc`] makes a disc or floppy of a seed, [`crypt`] hashes passwords;
//! * [`server`] serves a [`SeedSet`] behind an unguessable path, tells each fetch, and closes;
//! * [`address`] and [`serial`] say how the guest learns of it.
//!
//! Invariants: no forge crate is imported; nothing here reads or writes files; the server answers nothing but GET
//! and HEAD of the set's own names.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]

pub mod address;
pub mod answers;
pub mod crypt;
pub mod disc;
pub mod lint;
pub mod network;
pub mod nocloud;
pub mod serial;
pub mod server;
pub mod set;
pub mod template;
pub mod token;
mod yaml;

/// What a test says that can't be run here. `cargo lab test` sets up what they need, so there nothing is left out.
#[cfg(test)]
fn skipped(why: &str) {
    assert!(std::env::var_os("FORGE_LAB").is_none(), "{why}, and the lab's tests leave nothing out");
    eprintln!("skipped: {why}");
}

pub use set::SeedSet;
pub use token::SeedToken;
