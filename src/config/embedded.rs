//! The profiles that are in the binary: found by name where there is no file of that name.

use std::path::{Path, PathBuf};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../os-profiles/", $name)))),*]
    };
}

/// Every profile and base of `os-profiles/`.
const FILES: &[(&str, &str)] = files![
    "base-autoinstall.toml",
    "base-cloud.toml",
    "base-install.toml",
    "base-kickstart.toml",
    "base-kickstart-grub.toml",
    "base-linux.toml",
    "base-preseed.toml",
    "base-windows.toml",
    "almalinux-10.toml",
    "almalinux-10-cloud.toml",
    "almalinux-9.toml",
    "almalinux-9-cloud.toml",
    "centos-stream-10.toml",
    "centos-stream-10-cloud.toml",
    "centos-stream-9.toml",
    "centos-stream-9-cloud.toml",
    "debian-12.toml",
    "debian-12-cloud.toml",
    "debian-12-iso.toml",
    "debian-12-typed.toml",
    "debian-13-cloud.toml",
    "debian-13-iso.toml",
    "fedora-43.toml",
    "fedora-43-cloud.toml",
    "opensuse-leap-15.6.toml",
    "opensuse-leap-15.6-cloud.toml",
    "opensuse-leap-16.0.toml",
    "opensuse-leap-16.0-cloud.toml",
    "rhel-10.toml",
    "rhel-10-cloud.toml",
    "rhel-9.toml",
    "rhel-9-cloud.toml",
    "rocky-10.toml",
    "rocky-10-cloud.toml",
    "rocky-9.toml",
    "rocky-9-cloud.toml",
    "ubuntu-22.04.toml",
    "ubuntu-22.04-cloud.toml",
    "ubuntu-24.04.toml",
    "ubuntu-24.04-cloud.toml",
    "ubuntu-26.04.toml",
    "ubuntu-26.04-cloud.toml",
    "win11.toml",
    "win2019.toml",
    "win2022.toml",
    "win2025.toml",
];

/// How the path of an embedded file begins in findings and evidence.
const MARK: &str = "forge:";

/// The text of a file of `os-profiles/`.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(each, _)| *each == name).map(|(_, text)| *text)
}

/// The names of the profiles, without the bases.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().filter_map(|(name, _)| name.strip_suffix(".toml")).filter(|name| !name.starts_with("base-"))
}

/// All files.
pub fn files() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The embedded file that a path means: `rocky-9`, `rocky-9.toml`, or a base that an embedded profile extends.
#[must_use]
pub fn lookup(path: &Path) -> Option<(PathBuf, &'static str)> {
    let name = path.to_str()?;
    let name = name.strip_prefix(MARK).unwrap_or(name);
    let file = if name.ends_with(".toml") { name.to_owned() } else { format!("{name}.toml") };
    let text = text(&file)?;
    Some((PathBuf::from(format!("{MARK}{file}")), text))
}

/// Whether a path is of an embedded file.
#[must_use]
pub fn is_embedded(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(MARK))
}

/// What a file is called in `extends`: beside the file that names it, or in the binary.
#[must_use]
pub fn beside(file: &Path, base: &str) -> PathBuf {
    if is_embedded(file) {
        return PathBuf::from(format!("{MARK}{base}"));
    }
    let path = file.parent().unwrap_or(Path::new("")).join(base);
    match lookup(Path::new(base)) {
        Some((embedded, _)) if !path.exists() => embedded,
        _ => path,
    }
}
