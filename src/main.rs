//! The forge binary: parse, call, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    forge::cli::main()
}
