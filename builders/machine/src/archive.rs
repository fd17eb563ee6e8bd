//! Where a template is kept when it goes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place for archives of templates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArchivePlace {
    /// A storage of the target that takes backups.
    Storage(String),
    /// A folder of the node that holds the template.
    Folder(String),
}

impl ArchivePlace {
    /// The place of that name: what begins with a slash is a folder.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.starts_with('/') {
            true => Self::Folder(text.to_owned()),
            false => Self::Storage(text.to_owned()),
        }
    }
}

impl fmt::Display for ArchivePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(name) => write!(f, "storage {name}"),
            Self::Folder(path) => write!(f, "folder {path} of its node"),
        }
    }
}
