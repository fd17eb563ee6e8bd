//! The guest agent as a connection to the guest, through Proxmox's API (`API2/Qemu/Agent.pm`; observed on PVE 9.2).
//!
//! `command` is an array; a file takes 61440 characters, which base64 makes of 46080 bytes; `exec-status` answers once.
//! Output comes back as characters of Latin-1, one a byte.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_machine::{AgentChannel, AgentError, AgentExit};
use serde_json::Value;

use crate::api::client::decode;
use crate::api::encode::Params;
use crate::api::error::ApiError;
use crate::machine::ProxmoxMachine;

/// Most bytes of one `file-write`.
const CHUNK: usize = 46_080;

fn told(call: &'static str) -> impl Fn(ApiError) -> AgentError {
    move |error| match &error {
        ApiError::Denied { .. } => AgentError::Denied { source: error.into() },
        ApiError::Refused { detail, .. } if detail.contains("No QEMU guest agent configured") => {
            AgentError::Denied { source: error.into() }
        }
        ApiError::Refused { detail, .. } if detail.contains("has been disabled") => {
            AgentError::Denied { source: error.into() }
        }
        // Not up yet, busy, going down; and a program that it has forgotten, whose answer was lost.
        ApiError::Refused { detail, .. }
            if !["is not running", "got timeout", "does not exist"]
                .iter()
                .any(|known| detail.contains(known)) =>
        {
            AgentError::Refused { call, source: error.into() }
        }
        _ => AgentError::Silent { source: error.into() },
    }
}

/// What a program wrote.
fn bytes(answer: &Value, name: &str) -> Vec<u8> {
    let text = answer.get(name).and_then(Value::as_str).unwrap_or_default();
    let latin1: Result<Vec<u8>, _> = text.chars().map(|c| u8::try_from(u32::from(c))).collect();
    latin1.unwrap_or_else(|_| text.as_bytes().to_vec())
}

/// A truth value in any of Proxmox's forms.
fn is_true(value: &Value) -> bool {
    value.as_bool().or_else(|| value.as_i64().map(|number| number != 0)).unwrap_or(value == "1")
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[async_trait]
impl AgentChannel for ProxmoxMachine {
    fn chunk(&self) -> usize {
        CHUNK
    }

    async fn start(&self, words: &[&str]) -> Result<i64, AgentError> {
        let path = self.path(&["agent", "exec"]);
        let body = words.iter().fold(Params::new(), |body, word| body.also("command", word));
        let reply = self.client().post(&path, &body).await.map_err(told("run a program"))?;
        let answer: Value = decode("POST agent/exec", reply.data).map_err(told("run a program"))?;
        integer(&answer["pid"]).ok_or_else(|| AgentError::Silent { source: "its answer has no pid".into() })
    }

    async fn ended(&self, number: i64) -> Result<Option<AgentExit>, AgentError> {
        let path = self.path(&["agent", "exec-status"]);
        let query = Params::new().with("pid", number);
        let answer: Value =
            self.client().get(&path, &query).await.map_err(told("tell how a program ended"))?;
        if !is_true(&answer["exited"]) {
            return Ok(None);
        }
        let code = integer(&answer["exitcode"]).and_then(|code| i32::try_from(code).ok());
        let code = code.filter(|_| answer.get("signal").is_none());
        Ok(Some(AgentExit { code, stdout: bytes(&answer, "out-data"), stderr: bytes(&answer, "err-data") }))
    }

    async fn write(&self, path: &str, content: &[u8]) -> Result<(), AgentError> {
        let method = self.path(&["agent", "file-write"]);
        let body =
            Params::new().with("file", path).with("content", STANDARD.encode(content)).with("encode", 0);
        self.client().post(&method, &body).await.map(drop).map_err(told("write a file"))
    }
}
