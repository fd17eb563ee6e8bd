//! The guest agent as a connection to the guest: programs and small files over its socket.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_machine::{AgentChannel, AgentError, AgentExit};
use serde_json::{Value, json};

use crate::agent::{AgentError as CallError, GuestAgent};

/// How long it may take to say that it is there.
const PRESENT: Duration = Duration::from_secs(3);
/// How long one command of the agent may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Most bytes of one write: a line of some 700 KB, which an emulated guest takes in well within the limit.
const CHUNK: usize = 512 * 1024;

fn told(call: &'static str) -> impl Fn(CallError) -> AgentError {
    move |error| match &error {
        CallError::NotAnswering { .. } | CallError::Garbled { .. } => {
            AgentError::Silent { source: error.into() }
        }
        // Distributions of Red Hat's switch off what can change the guest.
        CallError::Refused { class, desc, .. }
            if class == "CommandNotFound" || class == "CommandDisabled" || desc.contains("disabled") =>
        {
            AgentError::Denied { source: error.into() }
        }
        CallError::Refused { .. } => AgentError::Refused { call, source: error.into() },
    }
}

fn garbled(what: &str) -> AgentError {
    AgentError::Silent { source: format!("its answer has no {what}").into() }
}

/// How many of so many bytes the agent says it has written. None at all would be asked for again for ever.
fn taken(answer: &Value, offered: usize) -> Result<usize, AgentError> {
    let count = answer["count"].as_u64().and_then(|count| usize::try_from(count).ok());
    let words = match count {
        Some(count) if (1..=offered).contains(&count) => return Ok(count),
        Some(count) => format!("it says that it wrote {count} of {offered} bytes"),
        None => format!("it does not say how many of {offered} bytes it wrote"),
    };
    Err(AgentError::Refused { call: "write a file", source: words.into() })
}

#[async_trait]
impl AgentChannel for GuestAgent {
    fn chunk(&self) -> usize {
        CHUNK
    }

    async fn start(&self, words: &[&str]) -> Result<i64, AgentError> {
        let (program, arguments) = words.split_first().ok_or_else(|| garbled("program"))?;
        // Where no agent listens yet, the next try must come soon.
        self.ping(PRESENT).await.map_err(told("answer"))?;
        let call = json!({ "path": program, "arg": arguments, "capture-output": true });
        let answer = self.execute("guest-exec", call, LIMIT).await.map_err(told("run a program"))?;
        answer["pid"].as_i64().ok_or_else(|| garbled("pid"))
    }

    async fn ended(&self, number: i64) -> Result<Option<AgentExit>, AgentError> {
        let answer = self.execute("guest-exec-status", json!({ "pid": number }), LIMIT).await;
        let answer = answer.map_err(|error| match told("tell how a program ended")(error) {
            // It has forgotten the program: its answer was lost, or the guest started anew.
            AgentError::Refused { source, .. } => AgentError::Silent { source },
            other => other,
        })?;
        if !answer["exited"].as_bool().unwrap_or(false) {
            return Ok(None);
        }
        let stream = |name: &str| match answer.get(name).and_then(Value::as_str) {
            Some(text) => STANDARD.decode(text).map_err(|error| AgentError::Silent { source: error.into() }),
            None => Ok(Vec::new()),
        };
        let code = answer["exitcode"].as_i64().and_then(|code| i32::try_from(code).ok());
        let code = code.filter(|_| answer.get("signal").is_none());
        Ok(Some(AgentExit { code, stdout: stream("out-data")?, stderr: stream("err-data")? }))
    }

    async fn write(&self, path: &str, content: &[u8]) -> Result<(), AgentError> {
        let told = told("write a file");
        let open = json!({ "path": path, "mode": "w" });
        let handle = self.execute("guest-file-open", open, LIMIT).await.map_err(&told)?;
        let mut rest = content;
        let mut written = Ok(());
        while !rest.is_empty() {
            let call = json!({ "handle": handle, "buf-b64": STANDARD.encode(rest) });
            match self.execute("guest-file-write", call, LIMIT).await {
                Ok(answer) => match taken(&answer, rest.len()) {
                    Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                    Err(error) => {
                        written = Err(error);
                        break;
                    }
                },
                Err(error) => {
                    written = Err(told(error));
                    break;
                }
            }
        }
        // Closing writes what the agent still holds, so its failure counts too.
        let closed = self.execute("guest-file-close", json!({ "handle": handle }), LIMIT).await;
        written.and(closed.map(drop).map_err(&told))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use crate::agent::tests::agent;

    use super::*;

    /// Writes ten bytes to an agent that answers each write with the next of these; tells the calls.
    async fn write(path: &Path, answers: Vec<Value>) -> (Result<(), AgentError>, Vec<String>) {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (told, answers) = (Arc::clone(&calls), Mutex::new(answers.into_iter()));
        let _connections = agent(path, b"", move |command| {
            told.lock().expect("whole").push(command.to_owned());
            let value = match command {
                "guest-file-open" => json!(7),
                "guest-file-write" => answers.lock().expect("whole").next()?,
                _ => json!({}),
            };
            Some(json!({ "return": value }))
        });
        let outcome = GuestAgent::new(path).write("/etc/motd", b"0123456789").await;
        let calls = calls.lock().expect("whole").clone();
        (outcome, calls)
    }

    #[tokio::test]
    async fn a_file_that_is_taken_in_parts_is_written_to_its_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let answers = vec![json!({ "count": 4, "eof": false }), json!({ "count": 6, "eof": false })];
        let (outcome, calls) = write(&directory.path().join("qga"), answers).await;
        outcome.expect("written");
        assert_eq!(calls, ["guest-file-open", "guest-file-write", "guest-file-write", "guest-file-close"]);
    }

    #[tokio::test]
    async fn an_agent_that_writes_nothing_or_does_not_say_how_much_is_an_error_and_the_file_is_closed() {
        for (answer, words) in [
            (json!({ "count": 0, "eof": false }), "it says that it wrote 0 of 10 bytes"),
            (json!({ "count": 11, "eof": false }), "it says that it wrote 11 of 10 bytes"),
            (json!({ "count": -1 }), "how many of 10 bytes"),
            (json!({ "eof": false }), "how many of 10 bytes"),
            (json!({}), "how many of 10 bytes"),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let answers = vec![answer.clone(), answer.clone()];
            let (outcome, calls) = write(&directory.path().join("qga"), answers).await;
            let error = outcome.expect_err("nothing was written");
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            assert!(format!("{error}: {cause}").contains(words), "{answer}: {error}: {cause}");
            assert_eq!(calls, ["guest-file-open", "guest-file-write", "guest-file-close"], "{answer}");
        }
    }
}
