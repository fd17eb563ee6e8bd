//! Files that only their owner may read, written whole or not at all.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file that is being made beside the one whose place it takes.
#[derive(Debug)]
pub struct Draft {
    file: File,
    draft: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Opens one; the folders on the way are made. From here on, writing can hardly fail.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn open(path: &Path, mode: u32) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let draft = folder.join(format!(".{name}.{}", std::process::id()));
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).mode(mode).open(&draft)?;
        Ok(Self { file, draft, path: path.to_owned() })
    }

    /// Gives it the mode of the file whose place it takes, when there is one.
    ///
    /// # Errors
    /// When it can't be changed.
    pub fn keep_mode(self) -> io::Result<Self> {
        match std::fs::metadata(&self.path) {
            Ok(there) => self.file.set_permissions(there.permissions())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(self)
    }

    /// Writes it and puts it into its place.
    ///
    /// # Errors
    /// When it can't be written; what was there before is there still.
    pub fn write(mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        std::fs::rename(&self.draft, &self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is gone when it was put into its place.
        _ = std::fs::remove_file(&self.draft);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_draft_takes_the_place_of_what_was_there_and_leaves_nothing_when_it_is_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/.env");
        drop(Draft::open(&path, 0o600).expect("opened"));
        assert!(!path.exists());
        std::fs::write(&path, "old").expect("written");
        Draft::open(&path, 0o600).expect("opened").write("new").expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "new");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().expect("some")).expect("there").count(), 1);
    }
}
