//! The ways to the guest, as a profile names them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A way to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// SSH, over the network.
    Ssh,
    /// WinRM, over the network.
    #[serde(rename = "winrm")]
    WinRm,
    /// The guest agent, through the hypervisor.
    Agent,
    /// The serial console, through the hypervisor.
    Serial,
}

impl Via {
    /// The words of `access.via`.
    pub const NAMES: [&str; 4] = ["ssh", "winrm", "agent", "serial"];

    /// The way of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "ssh" => Some(Self::Ssh),
            "winrm" => Some(Self::WinRm),
            "agent" => Some(Self::Agent),
            "serial" => Some(Self::Serial),
            _ => None,
        }
    }

    /// Ways in their order, in words.
    #[must_use]
    pub fn in_words(ways: &[Self]) -> String {
        ways.iter().map(ToString::to_string).collect::<Vec<_>>().join(", else ")
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ssh => "SSH",
            Self::WinRm => "WinRM",
            Self::Agent => "the guest agent",
            Self::Serial => "the serial console",
        })
    }
}

/// SSH alone: what a profile that says nothing means.
#[must_use]
pub fn usual() -> Vec<Via> {
    vec![Via::Ssh]
}

/// Whether these are the usual ways.
#[must_use]
pub fn is_usual(ways: &[Via]) -> bool {
    ways == [Via::Ssh]
}
