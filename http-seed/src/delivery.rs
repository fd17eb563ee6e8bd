//! The ladder of ways by which a seed, or its address, reaches a guest: best first.

use std::fmt;

/// A way for the seed to reach the guest; the order is the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Delivery {
    /// The hypervisor's own cloud-init drive.
    CloudInitDrive,
    /// The SMBIOS system serial carries the address.
    Smbios,
    /// A disc that holds the seed.
    SeedDisc,
    /// The address is typed at the boot menu.
    Typed,
}

impl Delivery {
    /// The rungs, best first.
    pub const LADDER: [Self; 4] = [Self::CloudInitDrive, Self::Smbios, Self::SeedDisc, Self::Typed];

    /// Its name in a profile.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CloudInitDrive => "cloud-init-drive",
            Self::Smbios => "smbios",
            Self::SeedDisc => "disc",
            Self::Typed => "typed",
        }
    }

    /// The rung with a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::LADDER.into_iter().find(|rung| rung.name() == name)
    }

    /// Whether the guest fetches the seed over HTTP, so that it must reach the machine that builds.
    #[must_use]
    pub fn is_served(self) -> bool {
        matches!(self, Self::Smbios | Self::Typed)
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CloudInitDrive => "the hypervisor's own cloud-init drive: no network and no typing",
            Self::Smbios => "the SMBIOS serial carries the address: no typing, no upload",
            Self::SeedDisc => "a disc holds the seed: no network from guest to here, but an upload",
            Self::Typed => "the address is typed at the boot menu: works everywhere, needs the screen",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_is_ordered_and_each_rung_has_its_name() {
        assert!(Delivery::LADDER.is_sorted());
        for rung in Delivery::LADDER {
            assert_eq!(Delivery::from_name(rung.name()), Some(rung));
        }
        assert_eq!(Delivery::from_name("smbos"), None);
    }
}
