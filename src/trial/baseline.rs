//! What a profile's templates are to have, and what a clone has beside or without it. Pure, but for reading and writing
//! the file.
//!
//! A baseline is an inventory of packages, units, users and listening ports in a file that belongs beside the profile, in
//! its repository. Newer versions of the same packages are no drift: a template is built anew to get them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::inventory::{Difference, Inventory, differences};

/// The name of the check.
pub const CHECK: &str = "no drift";

/// The sections of an inventory that a baseline has.
pub const SECTIONS: [&str; 4] = ["packages", "services", "users", "ports"];

/// What a trial's clone is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Baseline {
    /// The file.
    pub file: PathBuf,
    /// What is in it; `None` when there is no such file, or it is to be written.
    pub inventory: Option<Inventory>,
}

/// A file can't be read or written as a baseline.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BaselineError {
    /// The file system refuses.
    #[error("the baseline {} can't be read or written", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{} is no baseline", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl Baseline {
    /// The baseline of a profile in the folder of baselines; one that is not there has no inventory.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub fn of(folder: &Path, profile: &str) -> Result<Self, BaselineError> {
        let file = folder.join(format!("{profile}.json"));
        let inventory = match std::fs::read(&file) {
            Ok(bytes) => Some(
                serde_json::from_slice(&bytes)
                    .map_err(|source| BaselineError::Malformed { path: file.clone(), source })?,
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(BaselineError::File { path: file, source }),
        };
        Ok(Self { file, inventory })
    }

    /// Writes what is in a clone as the baseline.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn accept(&self, found: &Inventory) -> Result<(), BaselineError> {
        let at = |source| BaselineError::File { path: self.file.clone(), source };
        if let Some(folder) = self.file.parent() {
            std::fs::create_dir_all(folder).map_err(at)?;
        }
        let json = serde_json::to_string_pretty(&watched(found)).unwrap_or_default();
        std::fs::write(&self.file, format!("{json}\n")).map_err(at)
    }
}

/// The sections that a baseline has.
fn watched(inventory: &Inventory) -> Inventory {
    let wanted = |name: &String| SECTIONS.contains(&name.as_str());
    Inventory(
        inventory
            .0
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(name, things)| (name.clone(), things.clone()))
            .collect(),
    )
}

/// How a clone differs from its baseline. Packages are compared by name, whatever numbers of versions are in it.
#[must_use]
pub fn drift(baseline: &Inventory, found: &Inventory) -> Vec<Difference> {
    let known = |inventory: &Inventory| -> BTreeSet<String> {
        inventory.0.get("packages").into_iter().flat_map(BTreeMap::keys).map(|name| stem(name)).collect()
    };
    let (before, after) = (known(baseline), known(found));
    let mut drift = differences(&watched(baseline), &watched(found));
    drift.retain(|each| {
        let stem = stem(&each.name);
        each.section != "packages" || before.contains(&stem) != after.contains(&stem)
    });
    drift
}

/// A package's name without the versions that some have in it (`linux-image-6.1.0-56-cloud-amd64`).
fn stem(name: &str) -> String {
    let part = |part: &str| {
        if part.starts_with(|c: char| c.is_ascii_digit()) { "*".into() } else { part.to_owned() }
    };
    name.split('-').map(part).collect::<Vec<String>>().join("-")
}

/// A drift in one line.
#[must_use]
pub fn in_words(drift: &[Difference]) -> String {
    let one =
        |each: &Difference| format!("{}{} {}", each.mark(), each.section.trim_end_matches('s'), each.name);
    let first: Vec<String> = drift.iter().take(5).map(one).collect();
    let more = drift.len().saturating_sub(first.len());
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{rest}", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_packages_are_no_drift_and_more_or_fewer_are_as_are_units_users_and_ports() {
        let baseline = Inventory::read(
            "[packages]\nlinux-image-6.1.0-55-amd64:amd64\t6.1.1\nvim:amd64\t9.0\n[services]\nssh.service\tenabled\n\
             [users]\nroot\tuid 0\n[ports]\ntcp/22\t\n[files]\n/etc/motd\t12\n[sizes]\n/usr\t5 MiB\n",
        );
        let same = Inventory::read(
            "[packages]\nlinux-image-6.1.0-56-amd64:amd64\t6.1.2\nvim:amd64\t9.1\n[services]\nssh.service\tenabled\n\
             [users]\nroot\tuid 0\n[ports]\ntcp/22\t\n[files]\n/etc/motd\t13\n[sizes]\n/usr\t6 MiB\n",
        );
        assert_eq!(drift(&baseline, &same), []);
        let other = Inventory::read(
            "[packages]\nlinux-image-6.1.0-55-amd64:amd64\t6.1.1\nnginx:amd64\t1\n[services]\nssh.service\tdisabled\n\
             [users]\nroot\tuid 0\neve\tuid 0\n[ports]\ntcp/22\t\ntcp/80\t\n[files]\n[sizes]\n",
        );
        let found = drift(&baseline, &other);
        assert_eq!(
            in_words(&found),
            "+package nginx:amd64, -package vim:amd64, +port tcp/80, ~service ssh.service, +user eve"
        );
        let many: Vec<Difference> = found.iter().cycle().take(7).cloned().collect();
        assert!(in_words(&many).ends_with(" and 2 more"), "{}", in_words(&many));
    }

    #[test]
    fn a_baseline_is_written_without_files_and_sizes_and_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("baselines");
        let none = Baseline::of(&root, "web").expect("it need not be there");
        assert_eq!((none.inventory.as_ref(), none.file.as_path()), (None, root.join("web.json").as_path()));
        let found = Inventory::read("[packages]\nvim\t9\n[files]\n/etc/motd\t12\n");
        none.accept(&found).expect("written");
        let read = Baseline::of(&root, "web").expect("read").inventory.expect("it is there");
        assert_eq!(read, Inventory::read("[packages]\nvim\t9\n"));
        assert_eq!(drift(&read, &found), []);
        std::fs::write(root.join("web.json"), "[]").expect("written");
        assert!(matches!(Baseline::of(&root, "web"), Err(BaselineError::Malformed { .. })));
    }
}
