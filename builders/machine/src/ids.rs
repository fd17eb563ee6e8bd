//! Names by which a build and its VM are known: chain id, nonce, VM reference, task handle.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The random name by which a build owns its VM: 16 lower-case hexadecimal digits.
///
/// It goes into the creating call itself, so that a VM whose creation was cut off can still be told from a
/// foreign one that took the same id.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(String);

impl Nonce {
    /// Makes a nonce from 8 random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Takes a nonce from text; `None` when it is not 16 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let ok = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ok.then(|| Self(text.to_owned()))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that a build VM bears until its template is finished: `forge-<nonce>`, a valid DNS name.
    #[must_use]
    pub fn vm_name(&self) -> String {
        format!("forge-{}", self.0)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({})", self.0)
    }
}

/// The one handle over log, events, evidence and the VM's notes: `CHAIN-<UTC time>-<profile>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(String);

impl ChainId {
    /// Wraps text that is already a chain id (made by the engine, or read back from a journal).
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a VM is: the id it has on its target, and the node that holds it.
///
/// On Proxmox the id is the VMID (`"9001"`); on local QEMU it is the name of the build's work directory and the
/// node is `"localhost"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VmRef {
    /// The VM's id on the target.
    pub id: String,
    /// The node that holds it.
    pub node: String,
}

impl VmRef {
    /// Makes a reference.
    #[must_use]
    pub fn new(id: impl Into<String>, node: impl Into<String>) -> Self {
        Self { id: id.into(), node: node.into() }
    }
}

impl fmt::Display for VmRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VM {} on {}", self.id, self.node)
    }
}

/// Work that the target does on its own once it was submitted (a Proxmox task, by its UPID).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskHandle {
    /// The target's name for the work; empty when it was finished before the call returned.
    pub id: String,
    /// The node that does it.
    pub node: String,
}

impl TaskHandle {
    /// A handle to work that was already finished when its submission returned.
    #[must_use]
    pub fn finished(node: impl Into<String>) -> Self {
        Self { id: String::new(), node: node.into() }
    }

    /// Whether there is nothing to wait for.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.id.is_empty()
    }
}
