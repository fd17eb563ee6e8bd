//! The forms of settings: what a value may be, by the kind of the answer file where that matters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::Kind;

/// What a setting's value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Text without line breaks; empty is nothing.
    Line,
    /// Text of several lines.
    Text,
    /// True or false.
    Flag,
    /// A list of lines.
    Lines,
    /// One of some words.
    Word(&'static [&'static str]),
    /// `http://`, `https://` or `ftp://` and more; empty is nothing.
    Url,
    /// An IPv4 address with its prefix (`192.0.2.10/24`); empty is nothing.
    Cidr4,
    /// An IPv6 address with its prefix; empty is nothing.
    Cidr6,
    /// An IPv4 address; empty is nothing.
    Address4,
    /// An IPv6 address; empty is nothing.
    Address6,
    /// A list of addresses.
    Addresses,
    /// A name of a device such as `sda`; empty is nothing.
    Device,
    /// A name without blanks, such as a locale.
    Name,
    /// A time zone; Windows has names of its own for them.
    Zone,
    /// A list of host names and addresses.
    Hosts,
    /// A list of what the system's package manager calls a package.
    Packages,
    /// Five times five letters and digits; empty is nothing.
    ProductKey,
}

impl Form {
    /// What a person is told to give.
    #[must_use]
    pub fn expected(self, kind: Kind) -> String {
        match self {
            Self::Zone if kind == Kind::Autounattend => {
                "a time zone as Windows names it (W. Europe Standard Time)".into()
            }
            Self::Zone => "a time zone (Europe/Berlin)".into(),
            Self::Hosts => "an array of host names or addresses".into(),
            Self::Packages if kind == Kind::Autounattend => {
                "an array of names of capabilities (OpenSSH.Server~~~~0.0.1.0)".into()
            }
            Self::Packages => "an array of names of packages".into(),
            Self::ProductKey => "a product key of 5 times 5 letters and digits".into(),
            Self::Line => "text on one line".into(),
            Self::Text => "text".into(),
            Self::Flag => "true or false".into(),
            Self::Lines => "an array of strings without line breaks".into(),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Url => "a URL (http, https or ftp)".into(),
            Self::Cidr4 => "an IPv4 address with its prefix (192.0.2.10/24)".into(),
            Self::Cidr6 => "an IPv6 address with its prefix (2001:db8::10/64)".into(),
            Self::Address4 => "an IPv4 address".into(),
            Self::Address6 => "an IPv6 address".into(),
            Self::Addresses => "an array of IP addresses".into(),
            Self::Device => "the name of a device without /dev/ (sda)".into(),
            Self::Name => "a name of letters, digits and `_-+./:@,`".into(),
        }
    }

    pub(super) fn fits(self, kind: Kind, value: &Value) -> bool {
        let line = |text: &str| !text.chars().any(char::is_control);
        let list = |fits: &dyn Fn(&str) -> bool| {
            value.as_array().is_some_and(|items| items.iter().all(|item| item.as_str().is_some_and(fits)))
        };
        let text = value.as_str();
        match self {
            Self::Line => text.is_some_and(line),
            Self::Text => text.is_some_and(|text| !text.contains('\0')),
            Self::Flag => value.is_boolean(),
            Self::Lines => list(&|item| !item.is_empty() && line(item)),
            Self::Word(words) => text.is_some_and(|text| words.contains(&text)),
            Self::Url => text.is_some_and(|text| text.is_empty() || is_url(text)),
            Self::Cidr4 => text.is_some_and(|text| text.is_empty() || cidr::<Ipv4Addr>(text, 32).is_some()),
            Self::Cidr6 => text.is_some_and(|text| text.is_empty() || cidr::<Ipv6Addr>(text, 128).is_some()),
            Self::Address4 => text.is_some_and(|text| text.is_empty() || text.parse::<Ipv4Addr>().is_ok()),
            Self::Address6 => text.is_some_and(|text| text.is_empty() || text.parse::<Ipv6Addr>().is_ok()),
            Self::Addresses => list(&|item| item.parse::<IpAddr>().is_ok()),
            Self::Device => text.is_some_and(|text| text.chars().all(|c| c.is_ascii_alphanumeric())),
            Self::Zone => text.is_some_and(|text| is_zone(kind, text)),
            Self::Hosts => list(&|item| item.parse::<IpAddr>().is_ok() || is_host(item)),
            Self::Packages => list(&|item| is_package(kind, item)),
            Self::ProductKey => text.is_some_and(|text| text.is_empty() || is_product_key(text)),
            Self::Name => text.is_some_and(|text| {
                let plain = |c: char| c.is_ascii_alphanumeric() || "_-+./:@,".contains(c);
                !text.is_empty() && !text.starts_with('-') && text.chars().all(plain)
            }),
        }
    }
}

/// A name of the tz database, by its rules for names (`theory.html`, "Names of timezones"), or one of Windows' (`tzutil /l`).
/// Which there are depends on the system.
fn is_zone(kind: Kind, text: &str) -> bool {
    if kind == Kind::Autounattend {
        let plain = |c: char| c.is_ascii_alphanumeric() || " .()_+-/".contains(c);
        return text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(plain);
    }
    let part = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_+-".contains(c);
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.chars().all(plain)
    };
    text.split('/').all(part)
}

/// RFC 1123, 2.1; an underscore is no host's, but some name servers have it.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(plain)
    };
    // What ends in a number is an address, and this is none.
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    text.len() <= 253
        && !last.chars().all(|c| c.is_ascii_digit())
        && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

/// A package with all that a package manager takes: groups (`@core`), versions (`nginx=1.24-1`, `kernel-0:5.14-1.el9`),
/// architectures, patterns and files. None begins with `-`, which would be an option, or in a kickstart a package to leave out.
fn is_package(kind: Kind, text: &str) -> bool {
    let more = match kind {
        Kind::Autounattend => "._~-",
        // These go to the package manager as words of their own, without a shell.
        Kind::Nocloud => "@^._+:~=/*?[]()- ",
        _ => "@^._+:~=/*?[]-",
    };
    // Only a group's name has blanks.
    let blanks = text.starts_with('@') || !text.contains(' ');
    !text.is_empty()
        && blanks
        && !text.starts_with(['-', ' ', '='])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

/// Microsoft, "Unattended Windows Setup Reference", `ProductKey`: 25 characters with hyphens.
fn is_product_key(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == 5
        && groups.iter().all(|group| group.len() == 5 && group.chars().all(|c| c.is_ascii_alphanumeric()))
}

pub(super) fn is_url(text: &str) -> bool {
    let rest = ["http://", "https://", "ftp://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && rest.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '<' | '>' | '\\' | '`'))
    })
}

fn cidr<A: std::str::FromStr>(text: &str, bits: u8) -> Option<A> {
    let (address, prefix) = text.split_once('/')?;
    let prefix_fits = prefix.bytes().all(|b| b.is_ascii_digit()) && prefix.parse::<u8>().ok()? <= bits;
    address.parse().ok().filter(|_| prefix_fits)
}
