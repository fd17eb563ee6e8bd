//! Files of a profile's own that go to the guest beside its seed, or onto a disc. A plan names them with their digests; they
//! are read when the guest may ask for them.

use std::path::PathBuf;

use bytes::Bytes;
use forge_http_seed::SeedSet;
use forge_http_seed::answers::Kind;
use forge_http_seed::set::NameError;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::profile::Seed;

/// What all of them together may come to, in bytes: they are held in memory for as long as the guest may ask for them.
pub const LARGEST: u64 = forge_http_seed::disc::LARGEST;

/// Such a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BesideFile {
    /// The path by which the guest finds it.
    pub name: String,
    /// What is in it.
    pub content: Content,
}

/// What is in such a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// A text of the profile.
    Text(String),
    /// A file of this machine.
    #[serde(rename_all = "kebab-case")]
    File {
        /// Where it is.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Its digest when it was looked at, in hexadecimal.
        sha256: String,
    },
}

/// A disc or floppy of the profile's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OwnMedium {
    /// Its label; `None` takes the one that the seed's reader looks for.
    pub label: Option<String>,
    /// What is on it, besides the seed where that goes by disc.
    pub files: Vec<BesideFile>,
}

impl OwnMedium {
    /// What keeps the seed from being on it too: the key within it that is wrong, what is, and what to do. `name` is `disc` or
    /// `floppy`.
    #[must_use]
    pub fn unfit_for(&self, seed: &Seed, name: &str) -> Vec<(&'static str, String, &'static str)> {
        let mut wrong = Vec::new();
        // Windows looks at every medium, whatever its label.
        let wanted = seed.kind.disc_label().filter(|_| seed.kind != Kind::Autounattend);
        if let (Some(label), Some(wanted)) = (&self.label, wanted)
            && !label.eq_ignore_ascii_case(wanted)
        {
            let message = format!(
                "the seed is on this {name}, and its reader looks for one that is labelled `{wanted}`"
            );
            wrong.push((
                ".label",
                message,
                "leave `label` out, or have the seed go another way (`seed.delivery`)",
            ));
        }
        let answers = seed.answers.iter().flat_map(|answers| answers.templates.keys().map(String::as_str));
        let taken: Vec<&str> = seed.kind.templates().iter().map(|(name, _)| *name).chain(answers).collect();
        let beside = |name: &str| seed.files.iter().any(|file| file.name == name);
        for file in self.files.iter().filter(|file| taken.contains(&file.name.as_str()) || beside(&file.name))
        {
            let message = format!("`{}` is a file of the seed already, which is on this {name}", file.name);
            wrong.push(("", message, "name it otherwise"));
        }
        wrong
    }
}

/// A file that can't be given to the guest.
#[derive(Debug, Error)]
pub enum BesideError {
    /// It can't be read.
    #[error("{path} can't be read")]
    Unreadable {
        /// Where it is.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is another by now.
    #[error("{path} was changed after the build was planned")]
    Changed {
        /// Where it is.
        path: String,
    },
    /// No guest could ask for it.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl BesideFile {
    /// How large it is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match &self.content {
            Content::Text(text) => text.len() as u64,
            Content::File { bytes, .. } => *bytes,
        }
    }

    fn read(&self) -> Result<Bytes, BesideError> {
        let (path, expected) = match &self.content {
            Content::Text(text) => return Ok(Bytes::from(text.clone())),
            Content::File { path, sha256, .. } => (path, sha256),
        };
        let shown = || path.display().to_string();
        let bytes =
            std::fs::read(path).map_err(|source| BesideError::Unreadable { path: shown(), source })?;
        if sha256(&bytes) != *expected {
            return Err(BesideError::Changed { path: shown() });
        }
        Ok(bytes.into())
    }
}

/// A digest in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds files to a seed's own, as they were when they were looked at.
///
/// # Errors
/// When one can't be read, or is another by now.
pub fn add_to(set: &mut SeedSet, files: &[BesideFile]) -> Result<(), BesideError> {
    for file in files {
        set.add(&file.name, file.read()?)?;
    }
    Ok(())
}

/// How many there are and how large they are, in words.
#[must_use]
pub fn in_words(files: &[BesideFile]) -> String {
    let bytes = files.iter().map(BesideFile::bytes).sum();
    let many = if files.len() == 1 { "file" } else { "files" };
    format!("{} {many}, {}", files.len(), crate::media::size(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_another_than_the_planned_one_is_not_given_to_the_guest() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tool.bin");
        let bytes = [0xff, 0xfe, 0];
        std::fs::write(&path, bytes).expect("written");
        let content = Content::File { path: path.clone(), bytes: 3, sha256: sha256(&bytes) };
        let files = [
            BesideFile { name: "bin/tool".into(), content },
            BesideFile { name: "hello".into(), content: Content::Text("hi".into()) },
        ];
        let mut set = SeedSet::default();
        add_to(&mut set, &files).expect("as planned");
        assert_eq!(set.get("bin/tool").map(|file| file.bytes().to_vec()), Some(bytes.to_vec()));
        assert_eq!(set.get("hello").and_then(|file| file.text()), Some("hi"));
        assert_eq!(in_words(&files), "2 files, 5 bytes");
        std::fs::write(&path, "other").expect("written");
        let error = add_to(&mut SeedSet::default(), &files).expect_err("another").to_string();
        assert!(error.ends_with("tool.bin was changed after the build was planned"), "{error}");
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(add_to(&mut set, &files), Err(BesideError::Unreadable { .. })));
    }
}
