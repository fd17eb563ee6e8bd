//! A cache of images under `<root>/<name>-<hash of the recipe>/`.
//!
//! A folder appears under its final name only when it is complete. `<name>.lock` is held while one is made, so that
//! parallel tests wait for the first instead of making it twice.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use super::command::remove_tree;

/// Everything an image depends on, hashed piece by piece.
pub struct Recipe {
    name: &'static str,
    digest: Sha256,
}

impl Recipe {
    /// A recipe for the image called `name`.
    pub fn new(name: &'static str) -> Self {
        Self { name, digest: Sha256::new() }
    }

    /// Adds one piece: a file's text, a tool's version. The length goes in too, so that pieces can't run together.
    pub fn with(mut self, piece: &str) -> Self {
        self.digest.update((piece.len() as u64).to_le_bytes());
        self.digest.update(piece.as_bytes());
        self
    }

    /// The folder's name: the image's name and 16 hex digits.
    fn folder(self) -> String {
        let hash = self.digest.finalize();
        let digits: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{digits}", self.name)
    }
}

/// Returns the image's folder, calling `make` with a fresh folder to fill when the cache lacks it.
///
/// # Errors
/// The cache can't be written, the process isn't root while the image must be made, or `make` fails; what it left is
/// removed then.
pub fn get_or_make(
    cache_root: &Path,
    recipe: Recipe,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let name = recipe.name;
    let folder = cache_root.join(recipe.folder());
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(cache_root).with_context(|| format!("{} can't be made", cache_root.display()))?;
    let lock_path = cache_root.join(format!("{name}.lock"));
    let lock = File::create(&lock_path).with_context(|| format!("{} can't be made", lock_path.display()))?;
    lock.lock().with_context(|| format!("{} can't be locked", lock_path.display()))?;
    if folder.is_dir() {
        return Ok(folder);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "the {name} guest is not in {} and only root can make it; run once: sudo env FORGE_LAB_CACHE={} PATH=\"$PATH\" \
             cargo lab images {name}",
            cache_root.display(),
            cache_root.display()
        );
    }
    let partial = cache_root.join(format!(".{name}-partial"));
    remove_tree(&partial)?;
    fs::create_dir(&partial).with_context(|| format!("{} can't be made", partial.display()))?;
    tracing::info!("making the {name} guest in {}", folder.display());
    let started = Instant::now();
    if let Err(error) = make(&partial) {
        remove_tree(&partial)?;
        return Err(error.context(format!("the {name} guest can't be made")));
    }
    fs::rename(&partial, &folder).with_context(|| format!("{} can't be made", folder.display()))?;
    tracing::info!("made the {name} guest in {} s", started.elapsed().as_secs());
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_s_pieces_do_not_run_together() {
        let one = Recipe::new("x").with("ab").with("c").folder();
        let two = Recipe::new("x").with("a").with("bc").folder();
        assert_ne!(one, two);
        assert_eq!(one, Recipe::new("x").with("ab").with("c").folder());
    }

    #[test]
    fn an_image_in_the_cache_is_not_made_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(Recipe::new("x").with("1").folder());
        fs::create_dir(&folder).unwrap();
        let found = get_or_make(root.path(), Recipe::new("x").with("1"), |_| panic!("made again")).unwrap();
        assert_eq!(found, folder);
    }
}
