//! Where a build's folder of evidence stands below the root: `{profile}/{chain-id}`, or as a site's other tools expect it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use forge_machine::ChainId;

/// A path with places in braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout(String);

/// What may stand in braces.
const PLACES: [&str; 3] = ["{profile}", "{chain-id}", "{time}"];

impl Default for Layout {
    fn default() -> Self {
        Self("{profile}/{chain-id}".to_owned())
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = PLACES.iter().fold(text.to_owned(), |text, place| text.replace(place, ""));
        if bare.contains(['{', '}']) {
            return Err(format!("it may hold {}", PLACES.join(", ")));
        }
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| ["", ".", ".."].contains(part)) {
            return Err("it is a relative path without . and ..".to_owned());
        }
        let last = parts.last().copied().unwrap_or_default();
        if !last.contains("{chain-id}") && !last.contains("{time}") {
            return Err(
                "its last part needs {chain-id} or {time}: each build has a folder of its own".to_owned()
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Layout {
    /// The folder of a build. Another's folder is never taken: of two within a second the second has its chain id too.
    #[must_use]
    pub fn location(&self, root: &Path, profile: &str, chain_id: &ChainId) -> PathBuf {
        let id = chain_id.as_str();
        let time = id.split('-').nth(1).unwrap_or(id);
        let filled = self.0.replace("{profile}", profile).replace("{chain-id}", id).replace("{time}", time);
        let path = root.join(filled);
        match path.symlink_metadata().is_ok() && !self.0.contains("{chain-id}") {
            true => path
                .with_file_name(format!("{}-{id}", path.file_name().unwrap_or_default().to_string_lossy())),
            false => path,
        }
    }

    /// The root below which a build's folder stands.
    #[must_use]
    pub fn root_of(&self, folder: &Path) -> PathBuf {
        let depth = self.0.split('/').count();
        folder.ancestors().nth(depth).map(Path::to_owned).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_filled_in_and_led_back_to_its_root() {
        let id = ChainId::new("CHAIN-20261122T100000Z-web-1f2e");
        let of =
            |text: &str| text.parse::<Layout>().map(|layout| layout.location(Path::new("out"), "web", &id));
        assert_eq!(of("{profile}/{chain-id}"), Ok("out/web/CHAIN-20261122T100000Z-web-1f2e".into()));
        assert_eq!(of("builds/{profile}/{time}"), Ok("out/builds/web/20261122T100000Z".into()));
        for layout in [Layout::default(), "builds/{profile}/{time}".parse().expect("it is one")] {
            assert_eq!(layout.root_of(&layout.location(Path::new("out/x"), "web", &id)), Path::new("out/x"));
        }
        for wrong in ["{profile}", "/{chain-id}", "../{time}", "{name}/{time}", "", "{time}/{profile}"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_second_build_within_a_second_has_a_folder_of_its_own() {
        let root = tempfile::tempdir().expect("a folder");
        let layout: Layout = "{profile}/{time}".parse().expect("it is one");
        let of = |id: &str| layout.location(root.path(), "web", &ChainId::new(id));
        let first = of("CHAIN-20261122T100000Z-web-1f2e");
        std::fs::create_dir_all(&first).expect("made");
        let second = of("CHAIN-20261122T100000Z-web-9999");
        assert_eq!(second.parent(), first.parent());
        assert!(second.ends_with("20261122T100000Z-CHAIN-20261122T100000Z-web-9999"), "{}", second.display());
    }
}
