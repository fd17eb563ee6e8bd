//! What the tests share.

pub mod fake_build;
pub mod fresh;
pub mod lab_site;
pub mod local_site;
pub mod matrix;
pub mod raw_disk;
pub mod web;
pub mod workbench;
