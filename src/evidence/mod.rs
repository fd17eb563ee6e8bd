//! What a build leaves for people and machines to check: `output/<profile>/<chain-id>/`.
//!
//! | file | what it is |
//! |---|---|
//! | `README.md` | what was built, from what, how, and how it ended, for people |
//! | `proof.json` | the same for machines; only a build that succeeded has one |
//! | `plan.json`, `plan.txt` | what was going to be done |
//! | `events.jsonl` | every event, as `--json` prints it |
//! | `build.log` | the same as lines |
//! | `screens/` | pictures of the screen at boot steps and failures |
//! | `recording/` | every frame of the screen that differed from the one before, as text and picture |
//! | `seed/` | the seed as it was served, secrets masked |
//! | `provision/` | each provisioner's whole output |
//! | `SHA256SUMS` | the checksums of all the others |
//!
//! `forge init` leaves `output/init/<chain-id>/`: `README.md`, `proof.json`, `init.log`, `SHA256SUMS`.
//!
//! `output/<profile>/latest` points to the newest build that succeeded.

pub mod folder;
mod layout;
pub mod proof;
pub mod report;
pub mod sink;
pub mod verify;

pub use folder::{EvidenceError, Folder, Log};
pub use layout::Layout;
pub use sink::{EvidenceSink, close_folder};
