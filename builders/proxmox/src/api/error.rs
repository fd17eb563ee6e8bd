//! What became of a request, and Proxmox's error texts sorted into what a caller does about them.
//!
//! Proxmox has no error codes: a missing VM is a 500 like any other failure, so the text decides. The texts here
//! were observed on PVE 9.2 or read in qemu-server, pve-guest-common and pve-http-server; the tests name them all.

use std::error::Error as StdError;

use forge_machine::PortError;
use forge_machine::error::Cause;
use thiserror::Error;

use crate::api::envelope::Refusal;
use crate::api::limits::{Limits, in_words};
use crate::api::tls::{Fingerprint, TrustError};
use crate::permissions::explain_denial;

/// How a request or a task failed.
#[derive(Debug, Error)]
pub enum ApiError {
    /// No connection: the request was certainly not carried out.
    #[error("{peer} can't be reached: {detail}")]
    Unreachable {
        /// The server.
        peer: String,
        /// Which phase failed and how.
        detail: String,
        /// The transport's error.
        #[source]
        source: Option<Cause>,
    },
    /// The server's certificate is not trusted; nothing was sent.
    #[error("{peer} shows a certificate that is not trusted: {detail}")]
    Untrusted {
        /// The server.
        peer: String,
        /// What was expected and what was seen.
        detail: String,
        /// The fingerprint of the certificate that was shown.
        seen: Fingerprint,
    },
    /// A change was asked for and no answer came: it may or may not have been made.
    #[error("no answer to {request}: {detail}")]
    Unanswered {
        /// Method and path.
        request: String,
        /// What came instead.
        detail: String,
        /// The transport's error.
        #[source]
        source: Option<Cause>,
    },
    /// The token was refused.
    #[error("{peer} refused the token: {detail}")]
    Unauthorized {
        /// The server.
        peer: String,
        /// The server's words.
        detail: String,
    },
    /// The token lacks a privilege.
    #[error("{request} was denied: {detail}")]
    Denied {
        /// Method and path.
        request: String,
        /// The server's words: path and privilege.
        detail: String,
    },
    /// The VM itself does not exist on the node.
    #[error("{subject} does not exist")]
    VmMissing {
        /// The VM, as `VM 9000 on pve`.
        subject: String,
    },
    /// Something else does not exist: a node, a storage, a volume, a task.
    #[error("{request} failed: {detail}")]
    Missing {
        /// Method and path.
        request: String,
        /// The server's words.
        detail: String,
    },
    /// The VM is locked, by its config (`clone`) or by another call's file lock (`flock`).
    #[error("{subject} is locked ({lock})")]
    Locked {
        /// The VM.
        subject: String,
        /// The lock.
        lock: String,
    },
    /// The VMID is in use.
    #[error("{request} failed: {detail}")]
    IdTaken {
        /// Method and path.
        request: String,
        /// The server's words.
        detail: String,
    },
    /// The request was refused, or its task failed, for any other reason.
    #[error("{request} failed: {detail}")]
    Refused {
        /// Method and path, or the task.
        request: String,
        /// The server's words, field errors and last log lines included.
        detail: String,
    },
    /// The answer makes no sense.
    #[error("the answer to {request} can't be understood")]
    Malformed {
        /// Method and path.
        request: String,
        /// The cause.
        #[source]
        source: Cause,
    },
}

/// Whether a request changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It only reads.
    Read,
    /// It changes something.
    Write,
}

impl ApiError {
    /// Sorts a transport error.
    ///
    /// Before the connection stands nothing was carried out. Afterwards a change may have been made.
    #[must_use]
    pub fn from_transport(
        peer: &str,
        request: &str,
        intent: Intent,
        limits: &Limits,
        error: reqwest::Error,
    ) -> Self {
        let error = error.without_url();
        if let Some(trust) = find_cause::<TrustError>(&error) {
            let (peer, detail) = (peer.to_owned(), trust.to_string());
            return Self::Untrusted { peer, detail, seen: trust.seen() };
        }
        // Of a time that is over its length and what was asked for say more than the library does.
        let late = match (error.is_timeout(), error.is_connect()) {
            (true, true) => Some(format!("no connection within {}, for {request}", in_words(limits.connect))),
            (true, false) => Some(format!("{request} was not answered within {}", in_words(limits.exchange))),
            (false, _) => None,
        };
        let is_late = late.is_some();
        let detail = late.unwrap_or_else(|| innermost(&error));
        let never_sent = error.is_connect()
            || error.is_builder()
            || find_cause::<hyper::Error>(&error).is_some_and(hyper::Error::is_canceled);
        if never_sent || intent == Intent::Read {
            let source = (!is_late).then(|| Cause::from(error));
            return Self::Unreachable { peer: peer.to_owned(), detail, source };
        }
        let source = (!is_late).then(|| Cause::from(error));
        Self::Unanswered { request: request.to_owned(), detail, source }
    }

    /// Sorts an answer with a status of 400 or more.
    #[must_use]
    pub fn from_refusal(peer: &str, request: &str, intent: Intent, status: u16, refusal: &Refusal) -> Self {
        let mut text = refusal.full_text();
        if text.is_empty() {
            text = format!("HTTP {status} without a reason");
        }
        match status {
            401 => Self::Unauthorized { peer: peer.to_owned(), detail: text },
            // No privilege is missing where a pool is: a server says it with the same number.
            403 if is_missing_pool(&text) => Self::Missing { request: request.to_owned(), detail: text },
            403 => Self::Denied { request: request.to_owned(), detail: text },
            // AnyEvent's own numbers: 595 the connection to pvedaemon or the other node failed; 596 to 599 it stood and
            // then failed or timed out, after which pvedaemon goes on with the work.
            595 => Self::Unreachable {
                peer: peer.to_owned(),
                detail: behind(request, status, &text),
                source: None,
            },
            502 | 504 | 596..=599 if intent == Intent::Write => Self::Unanswered {
                request: request.to_owned(),
                detail: behind(request, status, &text),
                source: None,
            },
            502 | 504 | 596..=599 => Self::Unreachable {
                peer: peer.to_owned(),
                detail: behind(request, status, &text),
                source: None,
            },
            _ => Self::from_text(request, &text, text.clone()),
        }
    }

    /// Adds to a denial who lacks what, and the commands that grant it; any other error stays as it is.
    #[must_use]
    pub fn explained(self, role: &str, token_id: &str) -> Self {
        match self {
            Self::Denied { request, detail } => {
                let detail = match explain_denial(role, token_id, &detail) {
                    Some(help) => format!("{detail}: {help}"),
                    None => detail,
                };
                Self::Denied { request, detail }
            }
            other => other,
        }
    }

    /// Sorts an error text of a request or a task; `detail` is what is told when it is of no special class.
    #[must_use]
    pub fn from_text(request: &str, text: &str, detail: String) -> Self {
        let request = request.to_owned();
        if let Some((_, rest)) = text.split_once("is locked (")
            && let Some((lock, _)) = rest.split_once(')')
        {
            return Self::Locked { subject: subject_of(&request), lock: lock.to_owned() };
        }
        if text.contains("can't lock file") || text.contains("can't acquire lock") {
            return Self::Locked { subject: subject_of(&request), lock: "flock".to_owned() };
        }
        let vm_missing = (text.contains("onfiguration file '")
            && text.contains("/qemu-server/")
            && text.contains("does not exist"))
            || text.contains("unable to find configuration file for VM")
            || text.contains("no such VM (");
        if vm_missing {
            return Self::VmMissing { subject: subject_of(&request) };
        }
        if text.contains("config file already exists")
            || text.contains("already exists on node")
            || is_taken_field(text)
        {
            return Self::IdTaken { request, detail };
        }
        if text.contains("does not exist") || text.contains("no such ") || text.contains("hostname lookup '")
        {
            return Self::Missing { request, detail };
        }
        Self::Refused { request, detail }
    }

    /// Turns it into the port's error. `action` is a verb phrase (`clone VM 9000`).
    #[must_use]
    pub fn at(self, action: &str) -> PortError {
        let what = action.to_owned();
        match self {
            Self::Unreachable { peer, detail, source } => {
                PortError::Unreachable { target: peer, detail, source }
            }
            Self::Untrusted { peer, detail, seen } => {
                PortError::Untrusted { target: peer, detail, seen: seen.to_string() }
            }
            Self::Unanswered { detail, source, .. } => {
                PortError::OutcomeUnknown { what, source: source.or_else(|| Some(detail.into())) }
            }
            Self::Unauthorized { peer, detail } => PortError::Unauthorized { target: peer, detail },
            Self::Denied { detail, .. } => PortError::Denied { what, detail },
            Self::VmMissing { subject } => PortError::NotFound { what: subject },
            Self::Missing { detail, .. } | Self::Refused { detail, .. } => PortError::Failed { what, detail },
            Self::Locked { subject, lock } => PortError::Locked { what: subject, lock },
            Self::IdTaken { detail, .. } => PortError::IdTaken { id: first_number(&detail).unwrap_or(what) },
            Self::Malformed { request, source } => PortError::Broken {
                what: format!("the answer to {request} can't be understood"),
                source: Some(source),
            },
        }
    }

    /// Whether the VM does not exist on its node.
    #[must_use]
    pub fn is_vm_missing(&self) -> bool {
        matches!(self, Self::VmMissing { .. })
    }

    /// Whether a lock was in the way; then nothing was done.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }
}

/// `{"vmid": "VM N already exists"}` is how `nextid` and `create` say it.
fn is_taken_field(text: &str) -> bool {
    text.contains("vmid: ") && text.contains("already exists")
}

/// `Permission check failed (pool 'x' does not exist)`, which Proxmox says of a pool that nobody has made.
fn is_missing_pool(text: &str) -> bool {
    text.contains("(pool '") && text.contains("does not exist)")
}

fn first_number(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_digit()).find(|part| part.len() >= 3).map(str::to_owned)
}

/// `VM 9000 on pve`, from a request's path or the name of a task.
fn subject_of(request: &str) -> String {
    let parts: Vec<&str> = request.split(['/', ' ', '?']).collect();
    let after = |word: &str| {
        parts
            .iter()
            .position(|part| *part == word)
            .and_then(|at| parts.get(at + 1))
            .filter(|part| !part.is_empty())
    };
    match (after("qemu").or_else(|| after("VM")), after("nodes").or_else(|| after("on"))) {
        (Some(id), Some(node)) => format!("VM {id} on {node}"),
        (Some(id), None) => format!("VM {id}"),
        _ => request.to_owned(),
    }
}

/// Words for a failure behind the server that answered: HTTP 595 to 599 mean that it could not talk to its own daemon
/// or to the node that the request is for (pve-http-server passes AnyEvent's numbers on), 502 and 504 come from a
/// proxy before it.
fn behind(request: &str, status: u16, text: &str) -> String {
    let node = request.split_once("/nodes/").and_then(|(_, rest)| rest.split(['/', ' ', '?']).next());
    let whom = match node {
        Some(node) if !node.is_empty() => format!("node {node}"),
        _ => "its own pvedaemon".to_owned(),
    };
    match status {
        595 => format!("the server answers, but has no connection to {whom} (HTTP 595: {text})"),
        596..=599 => format!("the server answers, but lost its connection to {whom} (HTTP {status}: {text})"),
        _ => format!("a proxy before the server got no answer from it (HTTP {status}: {text})"),
    }
}

/// Walks a chain of causes, also through `io::Error` and `rustls::Error`, which hide what they wrap.
fn find_cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            match io.get_ref() {
                Some(inner) => {
                    current = Some(inner);
                    continue;
                }
                None => return None,
            }
        }
        if let Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) =
            error.downcast_ref::<rustls::Error>()
        {
            let inner: &'a (dyn StdError + 'static) = other.0.as_ref();
            current = Some(inner);
            continue;
        }
        current = error.source();
    }
    None
}

/// The trust error in a chain of causes, when there is one.
#[must_use]
pub fn trust_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a TrustError> {
    find_cause(error)
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(status: u16, text: &str, intent: Intent) -> String {
        let refusal = Refusal { text: text.to_owned(), fields: Vec::new() };
        let error =
            ApiError::from_refusal("pve", "PUT /nodes/pve/qemu/9000/config", intent, status, &refusal);
        let class = match &error {
            ApiError::Unreachable { .. } => "unreachable",
            ApiError::Untrusted { .. } => "untrusted",
            ApiError::Unanswered { .. } => "unanswered",
            ApiError::Unauthorized { .. } => "unauthorized",
            ApiError::Denied { .. } => "denied",
            ApiError::VmMissing { .. } => "vm missing",
            ApiError::Missing { .. } => "missing",
            ApiError::Locked { lock, .. } => return format!("locked {lock}"),
            ApiError::IdTaken { .. } => "id taken",
            ApiError::Refused { .. } => "refused",
            ApiError::Malformed { .. } => "malformed",
        };
        class.to_owned()
    }

    #[test]
    fn the_texts_of_proxmox_are_sorted_by_what_to_do_about_them() {
        let table = [
            (401, "Authentication failed!", "unauthorized"),
            (403, "Permission check failed (/vms/9000, VM.Console)", "denied"),
            (500, "VM is locked (clone)", "locked clone"),
            (500, "VM is locked (backup)", "locked backup"),
            (500, "can't lock file '/var/lock/qemu-server/lock-9200.conf' - got timeout", "locked flock"),
            (500, "Configuration file 'nodes/pve/qemu-server/999.conf' does not exist", "vm missing"),
            (500, "unable to find configuration file for VM 999 on node 'pve'", "vm missing"),
            (500, "no such VM ('999')", "vm missing"),
            (500, "unable to create VM 9100: config file already exists", "id taken"),
            (500, "unable to create VM 9100 - VM 9100 already exists on node 'pve'", "id taken"),
            (500, "storage 'nosuch' does not exist", "missing"),
            (500, "bridge 'vmbr9' does not exist", "missing"),
            (500, "hostname lookup 'nosuch' failed - failed to get address info for: nosuch:", "missing"),
            (500, "VM 9000 is running - destroy failed", "refused"),
            (500, "checksum mismatch (file change by other user?)", "refused"),
            (595, "Connection refused", "unreachable"),
            (596, "Connection timed out", "unanswered"),
            (400, "", "refused"),
        ];
        for (status, text, class) in table {
            assert_eq!(sorted(status, text, Intent::Write), class, "{status} {text}");
        }
        assert_eq!(sorted(596, "Connection timed out", Intent::Read), "unreachable");
    }

    #[test]
    fn a_taken_vmid_is_known_by_its_field_error_too() {
        let refusal = Refusal {
            text: "Parameter verification failed.".into(),
            fields: vec![("vmid".into(), "VM 100 already exists".into())],
        };
        let error = ApiError::from_refusal("pve", "GET /cluster/nextid", Intent::Read, 400, &refusal);
        assert!(matches!(error, ApiError::IdTaken { .. }), "{error:?}");
        assert_eq!(error.at("find an id").to_string(), "id 100 was taken by another VM in the meantime");
    }

    #[test]
    fn a_lock_names_the_vm_of_its_request() {
        let error =
            ApiError::from_text("PUT /nodes/pve/qemu/9000/config", "VM is locked (clone)", String::new());
        assert_eq!(error.at("configure it").to_string(), "VM 9000 on pve is locked (clone)");
    }

    #[test]
    fn an_unanswered_change_stays_unknown_at_the_port() {
        let refusal = Refusal::default();
        let error =
            ApiError::from_refusal("pve", "POST /x", Intent::Write, 596, &refusal).at("clone VM 9000");
        assert!(error.is_outcome_unknown(), "{error:?}");
    }

    #[test]
    fn a_failure_behind_the_server_names_the_node_that_could_not_be_reached() {
        let told = |status, request: &str, intent, text: &str| {
            let refusal = Refusal { text: text.to_owned(), fields: Vec::new() };
            match ApiError::from_refusal("pve", request, intent, status, &refusal) {
                ApiError::Unreachable { detail, .. } | ApiError::Unanswered { detail, .. } => detail,
                other => panic!("{other:?}"),
            }
        };
        let start = "POST /nodes/pve2/qemu/9000/status/start";
        assert_eq!(
            told(595, start, Intent::Write, "No route to host"),
            "the server answers, but has no connection to node pve2 (HTTP 595: No route to host)"
        );
        assert_eq!(
            told(596, start, Intent::Write, "Connection timed out"),
            "the server answers, but lost its connection to node pve2 (HTTP 596: Connection timed out)"
        );
        assert_eq!(
            told(595, "GET /version", Intent::Read, "Connection refused"),
            "the server answers, but has no connection to its own pvedaemon (HTTP 595: Connection refused)"
        );
        assert!(
            told(502, "GET /version", Intent::Read, "Bad Gateway").starts_with("a proxy before the server")
        );
    }
}
