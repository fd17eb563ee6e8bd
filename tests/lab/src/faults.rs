//! Scripted faults: what a route does at its n-th call.
//!
//! A rule counts the calls that match it from the moment it was added, and fires at one of them, from one on, or at
//! all. Faults come after authentication and before the body is read. A held request goes on even when its client hung
//! up, as a real pvedaemon does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// What happens to a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers with an error without reading the body, and does nothing.
    Refuse {
        /// HTTP status.
        status: u16,
        /// Reason phrase and message.
        reason: String,
    },
    /// Does the work, then cuts the connection without an answer.
    DoThenDrop,
    /// Cuts the connection and does nothing.
    DropBefore,
    /// Waits at the gate, then does the work.
    Hold(Gate),
    /// Does the work, then waits at the gate before answering.
    HoldAfter(Gate),
    /// The task of the call fails with this text instead of doing its work.
    TaskFail {
        /// The exit status of the task.
        text: String,
    },
    /// The task of the call does its work, then fails with this text.
    TaskFailAfter {
        /// The exit status of the task.
        text: String,
    },
    /// The task of the call logs a warning; when it ends well, it ends with `WARNINGS: n`.
    TaskWarn {
        /// The warning.
        text: String,
    },
    /// The task of the call waits at the gate before its work; it can be stopped there.
    TaskHold(Gate),
    /// The task of the call waits at the gate after its work; it can be stopped there.
    TaskHoldAfter(Gate),
    /// Waits, then does the work.
    Delay(Duration),
    /// Does the work, then waits before answering.
    DelayAfter(Duration),
    /// Does the work and answers, but cuts the connection after that many bytes of the answer's body.
    Truncate {
        /// Bytes that still come.
        bytes: usize,
    },
    /// The task of the call writes that many lines before its work, one after each pause.
    TaskTalk {
        /// How many.
        lines: u32,
        /// The pause before each.
        every: Duration,
    },
    /// The task of the call never ends; it can be stopped.
    TaskHang,
    /// The task of the call fails when its work is that far. Work that says nothing of its progress fails at its end.
    TaskFailAt {
        /// How far, in percent.
        percent: f64,
        /// The exit status of the task.
        text: String,
    },
    /// The worker of the call's task dies without a last line: `unexpected status`.
    TaskDie,
    /// The body of the call is read no faster than this.
    SlowUpload {
        /// Bytes a second.
        bytes_per_second: u64,
    },
    /// The websocket of the call is cut after that many bytes to the client.
    LoseWebsocket {
        /// Bytes that still come.
        after_bytes: u64,
    },
    /// The guest agent does not answer the call.
    AgentGone,
    /// From this call on the nodes' clocks are wrong.
    ClockSkew {
        /// By how many seconds, ahead when positive.
        seconds: i64,
    },
    /// From its next question for one on, the call's VM has another address (on real bridges).
    MoveAddress,
}

/// A gate at which something waits until a test lets it go on. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate {
    reached: Arc<watch::Sender<usize>>,
    open: Arc<watch::Sender<bool>>,
}

impl Default for Gate {
    fn default() -> Self {
        Gate::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Gate { reached: Arc::new(watch::Sender::new(0)), open: Arc::new(watch::Sender::new(false)) }
    }

    /// Returns once something waits (or has waited) at the gate. Cancel-safe.
    pub async fn reached(&self) {
        let mut reached = self.reached.subscribe();
        // The sender lives in `self`, so waiting can't fail.
        let _ = reached.wait_for(|count| *count > 0).await;
    }

    /// Whether something has come to the gate.
    pub fn is_reached(&self) -> bool {
        *self.reached.borrow() > 0
    }

    /// Opens the gate for good.
    pub fn release(&self) {
        self.open.send_replace(true);
    }

    /// Waits at the gate until it is open. Cancel-safe.
    pub async fn pass(&self) {
        self.reached.send_modify(|count| *count += 1);
        let mut open = self.open.subscribe();
        let _ = open.wait_for(|open| *open).await;
    }
}

/// At which calls a rule fires.
#[derive(Debug, Clone, Copy)]
enum Calls {
    Only(usize),
    From(usize),
}

impl Calls {
    fn hold(self, number: usize) -> bool {
        match self {
            Calls::Only(call) => number == call,
            Calls::From(call) => number >= call,
        }
    }
}

#[derive(Debug)]
struct Rule {
    method: String,
    pattern: Vec<String>,
    calls: Calls,
    seen: usize,
    fired: Arc<AtomicUsize>,
    fault: Fault,
}

/// The rules of one lab.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    rules: Arc<Mutex<Vec<Rule>>>,
}

/// A rule being written: `faults.on("POST", "/nodes/*/qemu/*/clone").call(1).then(fault)`.
#[derive(Debug)]
pub struct FaultBuilder {
    faults: Faults,
    method: String,
    pattern: Vec<String>,
    calls: Calls,
}

/// A rule that was added.
#[derive(Debug, Clone)]
pub struct FaultHandle {
    fired: Arc<AtomicUsize>,
}

impl FaultHandle {
    /// How often the rule has fired.
    pub fn fired(&self) -> usize {
        self.fired.load(Ordering::SeqCst)
    }
}

impl Faults {
    /// Begins a rule for a method (`*` for any) and a path, `*` standing for one segment and a last `**` for any number.
    pub fn on(&self, method: &str, path: &str) -> FaultBuilder {
        FaultBuilder {
            faults: self.clone(),
            method: method.to_owned(),
            pattern: path.split('/').skip(1).map(str::to_owned).collect(),
            calls: Calls::Only(1),
        }
    }

    /// Takes all rules away. What waits at a gate keeps waiting.
    pub fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Counts a call and returns the faults that fire at it.
    pub(crate) fn take(&self, method: &str, path: &[String]) -> Vec<Fault> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut firing = Vec::new();
        for rule in rules
            .iter_mut()
            .filter(|rule| (rule.method == "*" || rule.method == method) && matches(&rule.pattern, path))
        {
            rule.seen += 1;
            if rule.calls.hold(rule.seen) {
                rule.fired.fetch_add(1, Ordering::SeqCst);
                firing.push(rule.fault.clone());
            }
        }
        firing
    }
}

impl FaultBuilder {
    /// Fires at the n-th call from now on (the first is 1, and the default).
    #[must_use]
    pub fn call(mut self, number: usize) -> Self {
        self.calls = Calls::Only(number);
        self
    }

    /// Fires at the n-th call and at every later one.
    #[must_use]
    pub fn from(mut self, number: usize) -> Self {
        self.calls = Calls::From(number);
        self
    }

    /// Fires at every call.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.calls = Calls::From(1);
        self
    }

    /// Adds the rule.
    pub fn then(self, fault: Fault) -> FaultHandle {
        let fired = Arc::new(AtomicUsize::new(0));
        let rule = Rule {
            method: self.method,
            pattern: self.pattern,
            calls: self.calls,
            seen: 0,
            fired: Arc::clone(&fired),
            fault,
        };
        self.faults.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
        FaultHandle { fired }
    }
}

fn matches(pattern: &[String], path: &[String]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((head, [])), _) if head == "**" => true,
        (Some((head, pattern)), Some((segment, path))) => {
            (head == "*" || head == segment) && matches(pattern, path)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('/').skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn a_rule_fires_at_its_call_only() {
        let faults = Faults::default();
        let handle = faults.on("GET", "/nodes/*/qemu/*/**").call(2).then(Fault::DropBefore);
        assert!(faults.take("GET", &path("/nodes/pve/qemu/1/config")).is_empty());
        assert_eq!(faults.take("GET", &path("/nodes/pve/qemu/1/status/current")).len(), 1);
        assert!(faults.take("GET", &path("/nodes/pve/qemu/1/config")).is_empty());
        assert_eq!(handle.fired(), 1);
        assert!(faults.take("POST", &path("/nodes/pve/qemu/1/config")).is_empty());
    }
}
