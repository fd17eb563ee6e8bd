//! The guest agent, as far as a connection to the guest is made of it: programs that are started and asked for, and
//! small files that are written. The backends bring these calls to the agent (QEMU docs, `interop/qemu-ga-ref`).

use async_trait::async_trait;
use thiserror::Error;

use crate::error::Cause;

/// How a program ended that the agent had started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentExit {
    /// Its exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

/// A call to the guest agent failed. Its words go on from [`AgentChannel::name`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Nothing came back: nobody knows whether the call was carried out.
    #[error("does not answer")]
    Silent {
        /// What was seen.
        #[source]
        source: Cause,
    },
    /// The agent answered, and refused the call or failed in it.
    #[error("refused to {call}")]
    Refused {
        /// The call, as in `run a program`.
        call: &'static str,
        /// Its words.
        #[source]
        source: Cause,
    },
    /// The target does not let this build make such calls, or the VM has no agent: asking again changes nothing.
    #[error("can't be used")]
    Denied {
        /// Why.
        #[source]
        source: Cause,
    },
}

/// The guest agent of one VM. The calls may be dropped: what they began in the guest goes on.
#[async_trait]
pub trait AgentChannel: std::fmt::Debug + Send + Sync {
    /// What it is, for messages.
    fn name(&self) -> &'static str {
        "the guest agent"
    }

    /// Most bytes of a program's output that should come in one answer.
    fn most(&self) -> u64 {
        512 * 1024
    }

    /// Most bytes that one [`AgentChannel::write`] takes.
    fn chunk(&self) -> usize;

    /// Starts a program, by its absolute path and arguments, as the agent's own user (root) with an empty standard
    /// input; gives its number.
    ///
    /// # Errors
    /// See [`AgentError`].
    async fn start(&self, words: &[&str]) -> Result<i64, AgentError>;

    /// Asks how a program ended; `None` while it runs. It answers once only: whoever loses the answer never knows.
    ///
    /// # Errors
    /// See [`AgentError`].
    async fn ended(&self, number: i64) -> Result<Option<AgentExit>, AgentError>;

    /// Writes a small file, replacing what is there. It can be read by everybody whom its folder lets in.
    ///
    /// # Errors
    /// See [`AgentError`].
    async fn write(&self, path: &str, content: &[u8]) -> Result<(), AgentError>;

    /// Ends what was opened for it; a later call opens it again.
    async fn close(&self) {}
}
