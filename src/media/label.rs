//! What a medium says it is: the label of its ISO 9660 file system.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Where the primary volume descriptor lies (ECMA-119, 6.2.1).
const DESCRIPTOR: u64 = 16 * 2048;
/// The words by which publishers' labels begin, and what profiles call these distributions.
const WORDS: [(&str, &str); 9] = [
    ("rocky", "rocky"),
    ("almalinux", "almalinux"),
    ("rhel", "rhel"),
    ("centos-stream", "centos-stream"),
    ("fedora", "fedora"),
    ("ubuntu", "ubuntu"),
    ("debian", "debian"),
    ("opensuse-leap", "opensuse-leap"),
    ("leap", "opensuse-leap"),
];

/// The label of a medium; `None` for what is no ISO 9660 file system or can't be read.
#[must_use]
pub fn of(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    file.seek(SeekFrom::Start(DESCRIPTOR)).ok()?;
    let mut descriptor = [0; 72];
    file.read_exact(&mut descriptor).ok()?;
    // Type 1, `CD001`; the volume identifier is in the bytes 41 to 72 (ECMA-119, 8.4).
    let label = (descriptor.get(..6)? == b"\x01CD001").then(|| descriptor.get(40..))??;
    Some(String::from_utf8_lossy(label).trim_end_matches([' ', '\0']).to_owned())
}

/// How a label contradicts what a profile installs. A label that names no known distribution contradicts nothing.
#[must_use]
pub fn contradicts(label: &str, distribution: &str, version: &str) -> Option<String> {
    let lower = label.to_lowercase();
    let (word, named) = WORDS.into_iter().find(|(word, _)| lower.starts_with(word))?;
    if distribution.is_empty() {
        return None;
    }
    if named != distribution {
        return Some(format!("its label is \"{label}\", and the profile installs {distribution}"));
    }
    // The first number that is not the processor's name.
    let rest = lower.get(word.len()..)?.replace("x86_64", "").replace("amd64", "");
    let number = rest
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .find(|piece| piece.starts_with(|c: char| c.is_ascii_digit()))?;
    let wanted: Vec<&str> = version.split('.').filter(|piece| !piece.is_empty()).collect();
    let same = wanted.iter().zip(number.split('.')).all(|(wanted, found)| *wanted == found);
    (!same).then(|| format!("its label is \"{label}\", and the profile installs {distribution} {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_another_system_or_release_contradicts() {
        for (label, distribution, version) in [
            ("Rocky-9-6-x86_64-minimal", "rocky", "9"),
            ("Ubuntu-Server 24.04.3 LTS amd64", "ubuntu", "24.04"),
            ("Debian 12.11.0 amd64 n", "debian", "12"),
            ("Fedora-S-dvd-x86_64-43", "fedora", "43"),
            ("CentOS-Stream-9-BaseOS-x86_64", "centos-stream", "9"),
            ("SSS_X64FREE_EN-US_DV9", "windows", "2022"),
            ("FORGE_INSTALL", "rocky", "9"),
            ("Rocky-9-6-x86_64-minimal", "", ""),
            ("openSUSE-Leap-15.6-NET-x86_64", "opensuse-leap", "15.6"),
        ] {
            assert_eq!(contradicts(label, distribution, version), None, "{label}");
        }
        for (label, distribution, version) in [
            ("Ubuntu-Server 24.04.3 LTS amd64", "rocky", "9"),
            ("Rocky-10-0-x86_64-minimal", "rocky", "9"),
            ("Ubuntu-Server 22.04.5 LTS amd64", "ubuntu", "24.04"),
            ("Debian 13.1.0 amd64 n", "debian", "12"),
            ("Debian 12.11.0 amd64 n", "windows", "2022"),
        ] {
            let told = contradicts(label, distribution, version).expect("told");
            assert!(told.contains(label) && told.contains(distribution), "{told}");
        }
    }

    #[test]
    fn the_label_is_where_iso_9660_has_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.iso");
        let mut bytes = vec![0; 40 * 2048];
        bytes[16 * 2048..16 * 2048 + 6].copy_from_slice(b"\x01CD001");
        bytes[16 * 2048 + 40..16 * 2048 + 72].copy_from_slice(b"Debian 12.11.0 amd64 n          ");
        std::fs::write(&file, &bytes).expect("written");
        assert_eq!(of(&file).as_deref(), Some("Debian 12.11.0 amd64 n"));
        std::fs::write(&file, "no disc").expect("written");
        assert_eq!(of(&file), None);
    }
}
