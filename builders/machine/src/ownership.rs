//! How a VM says whose it is: a line in its description that people and `forge gc` can both read.
//!
//! A clone carries neither tags nor notes of ours until its task is over, so the nonce is also part of the VM's
//! name; the description carries what `gc --orphans` needs without a journal: owner, start, heartbeat.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ChainId, Nonce};

/// What a marked VM is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildState {
    /// A build is at work on it.
    Building,
    /// A build failed after its keep point: `forge finish` goes on with it, `forge gc` leaves it alone.
    Kept,
    /// A build failed before that and was told to leave its VM (`--on-error`): `forge gc --left` removes it.
    Left,
}

/// The mark of a build on its VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ownership {
    /// The build's random name.
    pub nonce: Nonce,
    /// The build's chain id.
    pub chain_id: ChainId,
    /// `user@host` of the forge process.
    pub owner: String,
    /// When the build began.
    pub started: Timestamp,
    /// When forge last wrote the mark.
    pub heartbeat: Timestamp,
    /// Whether a build is at work or the VM was kept.
    pub state: BuildState,
    /// The memory that the build gives the VM, in MiB, which may still have its source's; `None` leaves it that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
}

const OPEN: &str = "<!-- forge ";
const CLOSE: &str = " -->";

impl Ownership {
    /// The VM's description (Proxmox: notes, Markdown): a sentence for people, then the mark in a comment that
    /// Proxmox's page does not show.
    #[must_use]
    pub fn to_description(&self) -> String {
        let sentence = match self.state {
            BuildState::Building => {
                format!("forge is building on this VM ({}, by {}).", self.chain_id, self.owner)
            }
            BuildState::Kept => format!(
                "Kept by forge after a late failure ({}, by {}): `forge finish` makes the template.",
                self.chain_id, self.owner
            ),
            BuildState::Left => format!(
                "Left by forge to be looked at ({}, by {}): `forge gc --left` removes it.",
                self.chain_id, self.owner
            ),
        };
        format!("{sentence}\n\n{}\n", self.to_comment())
    }

    /// The mark alone, as a comment that Proxmox's page does not show.
    #[must_use]
    pub fn to_comment(&self) -> String {
        // A value that could close the comment early is escaped; JSON reads it back unchanged.
        let json = serde_json::to_string(self).unwrap_or_default().replace('>', "\\u003e");
        format!("{OPEN}{json}{CLOSE}")
    }

    /// A description without its mark.
    #[must_use]
    pub fn without_mark(text: &str) -> String {
        match text.split_once(OPEN).and_then(|(before, rest)| Some((before, rest.split_once(CLOSE)?.1))) {
            Some((before, after)) => format!("{}{}", before.trim_end(), after.trim_end()),
            None => text.to_owned(),
        }
    }

    /// Reads the mark back from a description; `None` when there is none that makes sense.
    #[must_use]
    pub fn from_description(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once(OPEN)?;
        let (json, _) = rest.split_once(CLOSE)?;
        serde_json::from_str(json).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Ownership {
        Ownership {
            nonce: Nonce::from_bytes([0xab; 8]),
            chain_id: ChainId::new("CHAIN-20261121T040506Z-debian-12"),
            owner: "ops --> <b>@ci".into(),
            started: "2026-11-21T04:05:06Z".parse().expect("valid"),
            heartbeat: "2026-11-21T04:06:06Z".parse().expect("valid"),
            state: BuildState::Building,
            memory_mib: None,
        }
    }

    #[test]
    fn a_mark_survives_the_description_whatever_the_owner_is_called() {
        let mark = sample();
        let text = format!("written by hand above\n{}and below", mark.to_description());
        assert_eq!(Ownership::from_description(&text), Some(mark));
    }

    #[test]
    fn a_foreign_description_has_no_mark() {
        for text in ["", "forge", "<!-- forge -->", "<!-- forge {} -->", "<!-- forge {\"nonce\":1"] {
            assert_eq!(Ownership::from_description(text), None, "{text}");
        }
    }
}
