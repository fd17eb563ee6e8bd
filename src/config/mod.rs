//! `forge.toml` and profiles: text in, typed values and findings out.
//!
//! Reading is pure but for [`load`]. Every finding is told at once, with file, line, column and what to do; an unknown
//! key names the nearest known one.

pub mod beside;
pub mod embedded;
pub mod environment;
pub mod extend;
pub mod findings;
pub mod load;
pub mod names;
pub mod place;
pub mod profile;
pub mod read;
pub mod reader;
pub mod secrets;
pub mod site;
pub mod template;
pub mod units;
pub mod variables;

pub use findings::Finding;
pub use load::{SiteSearch, load_given, load_profile, load_site};
pub use profile::Profile;
pub use site::{Site, Target, TargetKind};

#[cfg(test)]
mod tests;
