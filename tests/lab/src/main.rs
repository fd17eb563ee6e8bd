//! Runs the lab.

use std::process::ExitCode;

fn main() -> ExitCode {
    forge_lab::cli::main()
}
