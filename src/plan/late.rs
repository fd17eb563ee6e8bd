//! Values that only exist while a build runs, as places in a text.
//!
//! The list is closed: a plan can be checked, printed and hashed without any of them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that becomes known while the build runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LateName {
    /// The build VM's id.
    VmId,
    /// The node that holds it.
    VmNode,
    /// The URL of the seed, with its secret path, ending in `/`.
    SeedUrl,
    /// The address of the seed server as the guest sees it.
    SeedAddress,
    /// Its port.
    SeedPort,
    /// What the installer's kernel is told to find its answers.
    SeedArguments,
    /// The public key made for this build, in OpenSSH's form.
    AccessPublicKey,
    /// The guest's address.
    GuestAddress,
    /// The build's nonce.
    BuildNonce,
}

impl LateName {
    /// All names.
    pub const ALL: [Self; 9] = [
        Self::VmId,
        Self::VmNode,
        Self::SeedUrl,
        Self::SeedAddress,
        Self::SeedPort,
        Self::SeedArguments,
        Self::AccessPublicKey,
        Self::GuestAddress,
        Self::BuildNonce,
    ];

    /// The name as profiles write it (`seed.url`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VmId => "vm.id",
            Self::VmNode => "vm.node",
            Self::SeedUrl => "seed.url",
            Self::SeedAddress => "seed.address",
            Self::SeedPort => "seed.port",
            Self::SeedArguments => "seed.arguments",
            Self::AccessPublicKey => "access.public-key",
            Self::GuestAddress => "guest.address",
            Self::BuildNonce => "build.nonce",
        }
    }

    /// The value of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|late| late.as_str() == name)
    }
}

impl fmt::Display for LateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A piece of a [`LateText`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Known text.
    Text(String),
    /// A value that is not known yet.
    Late(LateName),
}

/// A text with places for late values; printed and stored as `…<seed.url>…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LateText(Vec<Part>);

impl LateText {
    /// A text of these parts.
    #[must_use]
    pub fn new(parts: Vec<Part>) -> Self {
        Self(parts)
    }

    /// The parts.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The names it needs.
    pub fn names(&self) -> impl Iterator<Item = LateName> + '_ {
        self.0.iter().filter_map(|part| match part {
            Part::Late(name) => Some(*name),
            Part::Text(_) => None,
        })
    }

    /// Reads the printed form back.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let late = LateName::ALL.into_iter().find_map(|name| {
                rest.strip_prefix('<')?
                    .strip_prefix(name.as_str())?
                    .strip_prefix('>')
                    .map(|tail| (name, tail))
            });
            if let Some((name, tail)) = late {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Late(name));
                rest = tail;
            } else {
                literal.push(character);
                rest = rest.get(character.len_utf8()..).unwrap_or_default();
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Self(parts)
    }
}

impl fmt::Display for LateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Late(name) => write!(f, "<{name}>"),
        })
    }
}

impl Serialize for LateText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LateText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::parse(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_text_is_read_back_from_what_it_prints() {
        for text in [
            "",
            "plain",
            "<seed.url>",
            " inst.ks=<seed.url>/ks.cfg<enter>",
            "<vm.id><vm.node>",
            "a < b <nosuch>",
        ] {
            assert_eq!(LateText::parse(text).to_string(), text);
        }
        let names: Vec<_> = LateText::parse("x<seed.url>y<access.public-key>").names().collect();
        assert_eq!(names, [LateName::SeedUrl, LateName::AccessPublicKey]);
    }
}
