//! Where a build VM comes from: a VM to clone, a disk image, nothing but empty disks; and the media and the kernel it
//! may be started with.
//!
//! ```text
//! source            isos        kernel    what it is
//! Clone             none        none      a boot VM is cloned
//! Clone             one, more   none      a boot VM that finds media in its drives
//! Image             any         none      a disk image is customised
//! New               one, more   none      an install from the first medium
//! New               any         some      an install whose kernel is started without a boot loader: nothing is typed
//! ```
//!
//! A profile names media by URL, by a file of this machine, or by a volume of the target. Planning replaces a
//! publisher's file of sums by the sum in it; [`crate::Hypervisor::prepare_media`] replaces every medium by its place on
//! the target.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ids::VmRef;
use crate::spec::CloneSelector;

/// A digest's algorithm: those that publishers use and Packer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// MD5: tells a broken download, and no attacker.
    Md5,
    /// SHA-1: likewise.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512];

    /// Its name, as Packer and Proxmox VE write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits a digest has.
    #[must_use]
    pub fn digits(self) -> usize {
        match self {
            Self::Md5 => 32,
            Self::Sha1 => 40,
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// The algorithm whose digests have so many digits.
    #[must_use]
    pub fn of_length(digits: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.digits() == digits)
    }
}

/// What proves that a medium is the one that was meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checksum {
    /// Nothing does.
    None,
    /// Its digest.
    #[serde(rename_all = "kebab-case")]
    Digest {
        /// The algorithm.
        algorithm: Algorithm,
        /// Lower-case hexadecimal digits.
        hex: String,
    },
    /// The publisher's file of sums: a URL, or a path of this machine.
    File(String),
}

impl Checksum {
    /// Reads the forms that Packer's `iso_checksum` has: `sha256:…`, the bare digits (their number tells the algorithm),
    /// `file:URL-or-path`, `none`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digest = |algorithm: Algorithm, hex: &str| {
            let fits = hex.len() == algorithm.digits() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            fits.then(|| Self::Digest { algorithm, hex: hex.to_ascii_lowercase() })
        };
        if text == "none" {
            return Some(Self::None);
        }
        match text.split_once(':') {
            Some(("file", place)) if !place.is_empty() => Some(Self::File(place.to_owned())),
            Some((name, hex)) => {
                digest(Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)?, hex)
            }
            None => digest(Algorithm::of_length(text.len())?, text),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Digest { algorithm, hex } => write!(f, "{}:{hex}", algorithm.name()),
            Self::File(place) => write!(f, "file:{}", shown(place)),
        }
    }
}

/// Where the user and password of a URL begin and end, without the `@`; `None` when it carries none.
fn login_at(url: &str) -> Option<(usize, usize)> {
    let start = url.find("://")? + 3;
    let rest = url.get(start..)?;
    let authority = rest.get(..rest.find(['/', '?', '#']).unwrap_or(rest.len()))?;
    Some((start, start + authority.rfind('@')?))
}

/// The user and password that a URL carries (`me:geheim`); `None` when it carries none.
#[must_use]
pub fn login(url: &str) -> Option<&str> {
    login_at(url).and_then(|(start, end)| url.get(start..end))
}

/// A URL as it may be shown: without the user and password that it may carry. Anything else stays as it is.
#[must_use]
pub fn shown(url: &str) -> String {
    match login_at(url) {
        Some((start, end)) => {
            let (scheme, rest) = (url.get(..start), url.get(end + 1..));
            format!("{}{}", scheme.unwrap_or_default(), rest.unwrap_or_default())
        }
        None => url.to_owned(),
    }
}

/// Where a medium is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Location {
    /// It is downloaded, by HTTP.
    Url(String),
    /// A file of this machine.
    File(PathBuf),
    /// A volume of the target (`local:iso/debian.iso`).
    Volume(String),
}

/// For people: of a URL without the user and password that it may carry.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&shown(url)),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Volume(volume) => f.write_str(volume),
        }
    }
}

/// What becomes of the drives of a build's media when the artefact is made. By profile: `source.iso-drives`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IsoDrives {
    /// They go.
    #[default]
    Drop,
    /// They stay, empty.
    Empty,
    /// They stay, with their media.
    Keep,
}

impl IsoDrives {
    /// The words of a profile.
    pub const NAMES: [&str; 3] = ["drop", "empty", "keep"];

    /// By its word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "drop" => Some(Self::Drop),
            "empty" => Some(Self::Empty),
            "keep" => Some(Self::Keep),
            _ => None,
        }
    }
}

/// A file that a build reads: an install medium, a disk image, a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Medium {
    /// Where it is.
    pub location: Location,
    /// What proves it.
    pub checksum: Checksum,
}

impl Medium {
    /// A file of this machine, taken as it is.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { location: Location::File(path.into()), checksum: Checksum::None }
    }

    /// The last part of its name (`debian-13.iso`); empty when there is none.
    #[must_use]
    pub fn file_name(&self) -> String {
        let text = self.location.to_string();
        let path = match &self.location {
            Location::Url(url) => url.split(['?', '#']).next().unwrap_or_default(),
            _ => text.as_str(),
        };
        path.rsplit(['/', ':']).next().unwrap_or_default().to_owned()
    }
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.location)
    }
}

/// A kernel or initrd that is started without a boot loader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootFile {
    /// A file of its own.
    Medium(Medium),
    /// A path inside the first of the build's ISOs (`/install.amd/vmlinuz`).
    InIso(String),
}

impl fmt::Display for BootFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Medium(medium) => write!(f, "{medium}"),
            Self::InIso(path) => write!(f, "{path} of the medium"),
        }
    }
}

/// A kernel that is started without a boot loader. Its command line is an attachment, because the seed's address is in
/// it. It is for one start only: once the guest has rebooted or stopped, the VM boots from its disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KernelSpec {
    /// The kernel.
    pub kernel: BootFile,
    /// The initrds, loaded one after the other.
    pub initrds: Vec<BootFile>,
    /// Whether its command line tells it how fast the processor's clock is (`tsc_early_khz=`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_told_clock: bool,
}

/// What a profile wants to start from, before the target was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceSelector {
    /// A VM or template on the target.
    Clone(CloneSelector),
    /// A disk image.
    Image(Medium),
    /// A new VM with empty disks.
    New,
}

/// What a build starts from, after the target was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceSpec {
    /// A VM or template on the target.
    #[serde(rename_all = "kebab-case")]
    Clone {
        /// The VM to clone.
        vm: VmRef,
        /// Its name, for messages.
        name: String,
        /// Copies the disks; `false` makes overlays that pin the base.
        full: bool,
        /// The storage for the copied disks; `None` keeps the source's.
        storage: Option<String>,
    },
    /// A disk image.
    #[serde(rename_all = "kebab-case")]
    Image {
        /// The image; never written to.
        image: Medium,
        /// Whether the build works on a full copy of it instead of an overlay.
        copy: bool,
    },
    /// A new VM with empty disks, for an installer.
    New,
}

impl SourceSpec {
    /// An overlay of a disk image of this machine.
    #[must_use]
    pub fn image(path: impl Into<PathBuf>) -> Self {
        Self::Image { image: Medium::file(path), copy: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_has_all_of_packers_forms() {
        let hex = "ab".repeat(32);
        for (text, shown) in [
            (format!("sha256:{}", hex.to_uppercase()), Some(format!("sha256:{hex}"))),
            (hex.clone(), Some(format!("sha256:{hex}"))),
            ("ab".repeat(64), Some(format!("sha512:{}", "ab".repeat(64)))),
            ("ab".repeat(20), Some(format!("sha1:{}", "ab".repeat(20)))),
            (format!("md5:{}", "0".repeat(32)), Some(format!("md5:{}", "0".repeat(32)))),
            ("file:https://x/SHA256SUMS".into(), Some("file:https://x/SHA256SUMS".into())),
            ("file:./SHA256SUMS".into(), Some("file:./SHA256SUMS".into())),
            ("none".into(), Some("none".into())),
            ("".into(), None),
            ("file:".into(), None),
            ("sha256:12".into(), None),
            (format!("sha1:{hex}"), None),
            (format!("crc:{hex}"), None),
            ("zz".repeat(32), None),
        ] {
            assert_eq!(Checksum::parse(&text).map(|sum| sum.to_string()), shown, "{text}");
        }
    }

    #[test]
    fn what_a_url_carries_to_log_in_with_is_not_shown() {
        for (url, login, words) in [
            ("https://me:geheim@x.org/a@b.iso", Some("me:geheim"), "https://x.org/a@b.iso"),
            ("https://me:ge@heim@x.org:8443?q=1", Some("me:ge@heim"), "https://x.org:8443?q=1"),
            ("https://TOKEN@x.org/a.iso", Some("TOKEN"), "https://x.org/a.iso"),
            ("https://x.org/a@b.iso", None, "https://x.org/a@b.iso"),
            ("https://x.org?q=a@b", None, "https://x.org?q=a@b"),
            ("https://x.org#a@b", None, "https://x.org#a@b"),
        ] {
            assert_eq!((super::login(url), shown(url).as_str()), (login, words), "{url}");
            let medium = Medium { location: Location::Url(url.into()), checksum: Checksum::File(url.into()) };
            let kernel = BootFile::Medium(medium.clone());
            assert_eq!((medium.to_string(), kernel.to_string()), (words.to_owned(), words.to_owned()));
            assert_eq!(medium.checksum.to_string(), format!("file:{words}"));
        }
        assert_eq!(shown("/isos/a@b.iso"), "/isos/a@b.iso");
    }

    #[test]
    fn a_mediums_name_is_the_last_part_of_its_place() {
        for (location, name) in [
            (Location::Url("https://x/a/debian.iso?mirror=1#top".into()), "debian.iso"),
            (Location::File("/isos/rocky.iso".into()), "rocky.iso"),
            (Location::Volume("local:iso/win.iso".into()), "win.iso"),
            (Location::Url("https://x/".into()), ""),
        ] {
            assert_eq!(Medium { location, checksum: Checksum::None }.file_name(), name);
        }
    }
}
