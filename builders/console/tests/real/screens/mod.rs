//! Real screens, read cell by cell and compared with what is known to stand there: the guest's own text memory where
//! there is one, else the text that the test had the guest show.

#![expect(
    clippy::print_stdout,
    reason = "each test prints its line of the readme's table, or why it is skipped"
)]

mod firmware;
mod grub;
mod keyboards;
mod linux;
mod machine;
mod system;
mod truth;

pub use machine::Machine;
pub use system::System;

use std::time::Duration;

/// TCG on a loaded machine is slow; a test that passes never waits that long.
const PATIENCE: Duration = Duration::from_secs(180);
/// A screen is taken when it has not changed for so long.
const STILL: Duration = Duration::from_millis(400);
