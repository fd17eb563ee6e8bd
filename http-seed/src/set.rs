//! The files of one seed: rendered once, never changed.

use std::collections::BTreeMap;

/// Named texts, by the path under which the guest asks for them (`user-data`, `ks.cfg`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeedSet {
    files: BTreeMap<String, String>,
}

impl SeedSet {
    /// Adds or replaces a file.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.files.insert(name.into(), text.into());
        self
    }

    /// A file's text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(String::as_str)
    }

    /// All files with their texts, by name.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }
}
