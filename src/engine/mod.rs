//! Runs a plan: effects with their undo, journal, cancellation, the three regions.
//!
//! ```text
//!   Building ──(all provisioners succeeded)──► Keeping ──(finalize submitted)──► Committed
//!      │ failure: unwind, newest first            │ failure: stop, mark, keep        │ nothing is removed
//! ```
//!
//! Invariants:
//! * the engine knows no backend and no provisioner by name; it never prints;
//! * an undo is on the stack and in the journal before its effect is tried;
//! * only [`cx::Cx::cancellable`] may drop a future; what runs under [`cx::Cx::effect`] is awaited to its end;
//! * unwinding has a fresh token and a limit per undo, and one failure doesn't stop the rest.

mod aside;
pub mod bindings;
pub mod cleanup;
pub mod cx;
pub mod effect;
pub mod error;
pub mod journal;
pub mod on_error;
pub mod publish;
pub mod reclaim;
pub mod run;

pub use aside::set_aside;
pub use bindings::Bindings;
pub use cleanup::Cleanup;
pub use cx::Cx;
pub use effect::{Effect, Faults, NoFaults, When};
pub use error::StageError;
pub use journal::{Journal, JournalDir};
pub use run::{Build, run};
