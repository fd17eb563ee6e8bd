//! Integration tests of forge, in one binary.

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests say what they take for granted and why they skip"
)]

mod bad_input;
mod fault_matrix;
mod lab_builds;
mod lab_kills;
mod support;
