//! What a medium says it is: the label of its ISO 9660 file system.

use std::path::Path;

/// The words by which publishers' labels begin, and what profiles call these distributions.
const WORDS: [(&str, &str); 12] = [
    ("rocky", "rocky"),
    ("almalinux", "almalinux"),
    ("rhel", "rhel"),
    ("centos-stream", "centos-stream"),
    ("fedora", "fedora"),
    ("ubuntu", "ubuntu"),
    ("debian", "debian"),
    ("opensuse-leap", "opensuse-leap"),
    ("leap", "opensuse-leap"),
    // Microsoft's of servers and clients: SSS_X64FREE_EN-US_DV9, CCCOMA_X64FRE_EN-US_DV9, CPBA_X64FRE_EN-US_DV9.
    ("sss_x64", "windows"),
    ("cccoma_x64", "windows"),
    ("cpba_x64", "windows"),
];

/// The label of a medium; `None` for what is no ISO 9660 file system or can't be read.
#[must_use]
pub fn of(path: &Path) -> Option<String> {
    Some(forge_iso::Iso::open(path).ok()?.label().to_owned())
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
    if named == "windows" {
        // Its numbers are of the disc.
        return None;
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
            ("SSS_X64FREE_EN-US_DV9", "rocky", "9"),
        ] {
            let told = contradicts(label, distribution, version).expect("told");
            assert!(told.contains(label) && told.contains(distribution), "{told}");
        }
    }
}
