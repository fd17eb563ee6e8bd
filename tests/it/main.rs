//! Integration tests of forge, in one binary.

mod bad_input;
mod fault_matrix;
mod support;
