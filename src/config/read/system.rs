//! Which systems each kind of a seed installs, by the names of `[os]`.

use forge_http_seed::answers::Kind;

use crate::config::findings::suggest;
use crate::config::profile::Os;

/// The kin of Red Hat's.
const EL: &[&str] =
    &["rhel", "rocky", "almalinux", "centos", "centos-stream", "ol", "oracle", "oraclelinux", "eurolinux"];

/// A kind, the distributions whose installers read it, and their releases that do; a point release counts as its release.
/// The releases are those that the publishers name; what an older or newer one takes, nobody looked up here.
const SYSTEMS: &[(Kind, &[&str], &[&str])] = &[
    (Kind::Autoinstall, &["ubuntu"], &["22.04", "24.04", "24.10", "25.04", "25.10", "26.04"]),
    (Kind::Preseed, &["debian"], &["11", "12", "13"]),
    (Kind::Kickstart, EL, &["9", "10"]),
    (Kind::Kickstart, &["fedora"], &["41", "42", "43", "44"]),
    (Kind::Autoyast, &["opensuse-leap", "sles"], &["15"]),
    (Kind::Agama, &["opensuse-leap", "sles"], &["16"]),
    (Kind::Agama, &["opensuse-tumbleweed"], &[]),
    (Kind::Autounattend, &["windows"], &["2016", "2019", "2022", "2025", "10", "11"]),
];

/// What does not fit, with the key of `[os]` or the kind that it is told at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// `distribution` or `version` of `[os]`, or `kind` of `[seed]`.
    pub(super) key: &'static str,
    pub(super) message: String,
    pub(super) help: String,
    /// Whether the installer would not go by the answers.
    pub(super) fatal: bool,
}

/// How kind and system contradict each other. A cloud image of any system takes `nocloud`.
pub(super) fn misfit(kind: Kind, os: &Os) -> Option<Misfit> {
    let (name, version) = (os.distribution.as_str(), os.version.as_str());
    if kind == Kind::Nocloud || name.is_empty() {
        return None;
    }
    let of_name: Vec<_> = SYSTEMS.iter().filter(|(_, names, _)| names.contains(&name)).collect();
    let named = |kinds: Vec<Kind>| kinds.into_iter().map(Kind::name).collect::<Vec<_>>().join(" or ");
    let escape = "`lint = false` of `[seed]` takes the answers as they are";
    if of_name.is_empty() {
        let known: Vec<&str> =
            SYSTEMS.iter().filter(|each| each.0 == kind).flat_map(|each| each.1.iter().copied()).collect();
        let message = format!("`{name}` is not one that forge knows to be installed by {}", kind.name());
        return Some(Misfit {
            key: "distribution",
            message,
            help: format!("{}; {escape}", suggest(name, &known)),
            // By the words of a release only can a kickstart be judged.
            fatal: kind == Kind::Kickstart,
        });
    }
    let fits = |releases: &[&str]| {
        let is = |release: &&str| {
            version.strip_prefix(release).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        version.is_empty() || releases.is_empty() || releases.iter().any(is)
    };
    let of_release: Vec<Kind> =
        of_name.iter().filter(|(_, _, releases)| fits(releases)).map(|(kind, ..)| *kind).collect();
    if of_release.contains(&kind) {
        return None;
    }
    if of_release.is_empty() {
        let releases: Vec<&str> = of_name.iter().flat_map(|each| each.2.iter().copied()).collect();
        return Some(Misfit {
            key: "version",
            message: format!("unknown release: there is no {name} {version} that forge knows"),
            help: format!("there is: {}; {escape}", releases.join(", ")),
            fatal: true,
        });
    }
    Some(Misfit {
        key: "kind",
        message: format!("{name} {version} is not installed by {}", kind.name()),
        help: format!("its kind is {}; {escape}", named(of_release)),
        fatal: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: Kind, distribution: &str, version: &str) -> Option<(&'static str, bool, String)> {
        let os = Os {
            family: "linux".into(),
            distribution: distribution.into(),
            version: version.into(),
            tested: None,
        };
        misfit(kind, &os).map(|found| (found.key, found.fatal, format!("{}; {}", found.message, found.help)))
    }

    #[test]
    fn a_release_or_a_kind_that_does_not_fit_is_told_with_what_does() {
        for (kind, distribution, version) in [
            (Kind::Autoinstall, "ubuntu", "24.04.3"),
            (Kind::Preseed, "debian", "12.11.0"),
            (Kind::Kickstart, "rocky", "9"),
            (Kind::Kickstart, "ol", "9.6"),
            (Kind::Agama, "opensuse-leap", "16.0"),
            (Kind::Agama, "opensuse-tumbleweed", "20261101"),
            (Kind::Autounattend, "windows", "11"),
            (Kind::Nocloud, "anything", "1"),
            (Kind::Preseed, "", ""),
            (Kind::Preseed, "debian", ""),
        ] {
            assert_eq!(told(kind, distribution, version), None, "{distribution} {version}");
        }
        for (kind, distribution, version, key, fatal, words) in [
            (
                Kind::Autoinstall,
                "ubuntu",
                "99.04",
                "version",
                true,
                "unknown release: there is no ubuntu 99.04",
            ),
            (Kind::Preseed, "debian", "banana", "version", true, "there is: 11, 12, 13"),
            (Kind::Preseed, "debian", "120", "version", true, "no debian 120"),
            (Kind::Autounattend, "windows", "95", "version", true, "no windows 95"),
            (Kind::Kickstart, "fedora", "12", "version", true, "41, 42"),
            (
                Kind::Preseed,
                "rocky",
                "9",
                "kind",
                true,
                "rocky 9 is not installed by preseed; its kind is kickstart",
            ),
            (Kind::Autoyast, "opensuse-leap", "16.0", "kind", true, "its kind is agama"),
            (Kind::Kickstart, "roky", "9", "distribution", true, "did you mean `rocky`?"),
            (Kind::Preseed, "kali", "2026.1", "distribution", false, "`lint = false`"),
        ] {
            let (at, is_fatal, said) = told(kind, distribution, version).expect("told");
            assert_eq!((at, is_fatal), (key, fatal), "{said}");
            assert!(said.contains(words), "{said}");
        }
    }
}
