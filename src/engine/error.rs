//! Why a stage failed, with what was seen last and what to do.

use std::collections::BTreeMap;

use forge_machine::PortError;
use forge_machine::error::Cause;
use thiserror::Error;

use super::bindings::Unbound;
use super::journal::JournalError;
use crate::event::{Failure, Stage};

/// The failure of a stage. Display says what failed; the cause is the source.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct StageError {
    what: String,
    #[source]
    source: Option<Cause>,
    last_seen: Vec<String>,
    hints: Vec<String>,
    interrupted: bool,
    outcome_unknown: bool,
    of_target: bool,
}

impl StageError {
    /// A failure without a cause of its own.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
            last_seen: Vec::new(),
            hints: Vec::new(),
            interrupted: false,
            outcome_unknown: false,
            of_target: false,
        }
    }

    /// A failure of a hypervisor, with the hint that goes with its kind.
    pub fn port(what: impl Into<String>, source: PortError) -> Self {
        let mut error = Self::new(what);
        error.outcome_unknown = source.is_outcome_unknown();
        error.of_target = true;
        error.hints.extend(hint(&source));
        error.source = Some(Box::new(source));
        error
    }

    /// A failure with a cause.
    pub fn caused(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self { source: Some(source.into()), ..Self::new(what) }
    }

    /// The user interrupted the build.
    #[must_use]
    pub fn interruption() -> Self {
        Self { interrupted: true, ..Self::new("the build was interrupted") }
    }

    /// Adds something that was seen last.
    #[must_use]
    pub fn seen(mut self, what: impl Into<String>) -> Self {
        self.last_seen.push(what.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, what: impl Into<String>) -> Self {
        self.hints.push(what.into());
        self
    }

    /// Says that the target is at fault, whatever the guest would have done.
    #[must_use]
    pub fn of_target(mut self) -> Self {
        self.of_target = true;
        self
    }

    /// Adds where the profile sets what a target refused by names of its own.
    #[must_use]
    pub fn placed(self, places: &BTreeMap<String, String>) -> Self {
        let text = chain(&self);
        refused_fields(&text).into_iter().fold(self, |error, field| match places.get(field) {
            Some(place) => error.hint(format!("`{field}` is set by {place}")),
            None => error,
        })
    }

    /// Whether the user interrupted the build.
    #[must_use]
    pub fn is_interruption(&self) -> bool {
        self.interrupted
    }

    /// Whether nobody knows if the last request was carried out.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        self.outcome_unknown
    }

    /// The form for events and people.
    #[must_use]
    pub fn to_failure(&self, stage: Option<Stage>) -> Failure {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Failure {
            stage,
            heading: self.what.clone(),
            causes,
            last_seen: self.last_seen.clone(),
            hints: self.hints.clone(),
            interrupted: self.interrupted,
            of_target: self.of_target,
        }
    }
}

impl From<JournalError> for StageError {
    fn from(error: JournalError) -> Self {
        Self::caused("can't keep the journal, so nothing more is changed", error)
            .hint("see that the state folder is on a disk with room, or name another with --state-dir")
    }
}

impl From<Unbound> for StageError {
    fn from(error: Unbound) -> Self {
        Self::caused("a value of the plan is missing", error)
    }
}

/// The fields in `Parameter verification failed (memory: …; net0: …)`, as the Proxmox builder writes Proxmox's answer.
fn refused_fields(text: &str) -> Vec<&str> {
    let Some((_, rest)) = text.split_once("arameter verification failed (") else { return Vec::new() };
    let names = rest.split("; ").filter_map(|part| part.split_once(": ").map(|(name, _)| name));
    let sound =
        |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let mut fields: Vec<&str> = names.filter(sound).collect();
    fields.dedup();
    fields
}

/// What to do about an error of the port.
#[must_use]
pub fn hint(error: &PortError) -> Option<String> {
    if let PortError::Untrusted { seen, .. } = error {
        return Some(format!(
            "compare it with what `pvenode cert info` shows on the host; if it is the same, write this into the target's \
             table in forge.toml: tls = {{ fingerprint = \"{seen}\" }}"
        ));
    }
    let words = match error {
        PortError::Unreachable { .. } => {
            Some("check the target's `url`, its service and the firewall between")
        }
        PortError::Unauthorized { .. } => {
            Some("check `token-id` and `token-secret`, or `user` and `password`; has the token expired?")
        }
        PortError::Denied { .. } => {
            Some("`forge plan` names every missing privilege and the command that grants it")
        }
        PortError::OutcomeUnknown { .. } => Some("`forge gc` looks after whatever it has made"),
        _ => None,
    };
    words.map(str::to_owned)
}

/// An error with its causes in one line: `a: b: c`.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_refuses_is_told_by_the_line_of_the_profile() {
        let places = [("memory", "vm.memory (web.toml:12)"), ("net0", "vm.networks[0] (web.toml:14)")]
            .map(|(key, place)| (key.to_owned(), place.to_owned()))
            .into();
        let refused = |detail: &str| {
            let port = PortError::failed("configure VM 9001 on pve", detail);
            StageError::port("VM 9001 could not be configured", port).placed(&places).to_failure(None).hints
        };
        assert_eq!(
            refused("Parameter verification failed (memory: type check failed - got 'x'; ide9: no such key)"),
            ["`memory` is set by vm.memory (web.toml:12)"]
        );
        assert_eq!(refused("Parameter verification failed (memory: too much; net0: no bridge)").len(), 2);
        assert_eq!(refused("memory: the host has none"), Vec::<String>::new());
    }
}
