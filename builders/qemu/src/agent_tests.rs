//! The agent's protocol against a scripted agent: silence, stale answers, refusals.

use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// An agent that answers commands by a function of command name; `None` is silence. Tells each connection.
pub(crate) fn agent(
    path: &Path,
    stale: &'static [u8],
    reply: impl Fn(&str) -> Option<Value> + Send + Sync + 'static,
) -> mpsc::UnboundedReceiver<()> {
    let listener = UnixListener::bind(path).expect("bound");
    let (tell, connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        // One client at a time, as QEMU serves them.
        while let Ok((stream, _)) = listener.accept().await {
            let _ = tell.send(());
            let (read, mut write) = stream.into_split();
            let mut lines = LineReader::new(read, LINE_LIMIT);
            if write.write_all(stale).await.is_err() {
                continue;
            }
            while let Ok(Some(line)) = lines.next_line().await {
                let text = line.strip_prefix(&[SENTINEL]).unwrap_or(&line);
                let message: Value = serde_json::from_slice(text).expect("JSON");
                let command = message["execute"].as_str().expect("a command").to_owned();
                let mut answer = Vec::new();
                if command == "guest-sync-delimited" {
                    answer.push(SENTINEL);
                    answer.extend(json!({ "return": message["arguments"]["id"] }).to_string().bytes());
                } else if let Some(value) = reply(&command) {
                    answer.extend(value.to_string().bytes());
                } else {
                    continue;
                }
                answer.push(b'\n');
                if write.write_all(&answer).await.is_err() {
                    break;
                }
            }
        }
    });
    connections
}

#[tokio::test]
async fn answers_come_back_and_refusals_keep_class_and_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("qga");
    let _connections = agent(&path, b"", |command| {
        Some(match command {
            "guest-ping" => json!({ "return": {} }),
            _ => json!({ "error": { "class": "CommandDisabled", "desc": "not here" } }),
        })
    });
    let agent = GuestAgent::new(&path);
    agent.ping(LONG).await.expect("there");
    let error =
        agent.execute("guest-exec", json!({ "path": "/bin/true" }), LONG).await.expect_err("disabled");
    assert_eq!(error.to_string(), "the guest agent refused `guest-exec`: not here (CommandDisabled)");
    agent.ping(LONG).await.expect("a refusal does not harm the link");
}

#[tokio::test]
async fn stale_answers_before_the_sync_are_never_taken_for_ours() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("qga");
    let stale = b"{\"return\": \"stale\"}\n\xff{\"return\": 5}\nrubbish\n\xff\n{\"ret\xff{\"return\": 6}\n";
    let _connections = agent(&path, stale, |_| Some(json!({ "return": "fresh" })));
    let answer = GuestAgent::new(&path).execute("guest-info", Value::Null, LONG).await.expect("answered");
    assert_eq!(answer, json!("fresh"));
}

#[tokio::test]
async fn after_a_silent_call_the_next_one_finds_its_place_on_a_new_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("qga");
    let mut connections =
        agent(&path, b"", |command| (command != "guest-slow").then(|| json!({ "return": command })));
    let agent = GuestAgent::new(&path);
    let error =
        agent.execute("guest-slow", Value::Null, Duration::from_millis(100)).await.expect_err("silent");
    assert!(matches!(error, AgentError::NotAnswering { .. }), "{error}");
    assert!(error.to_string().contains("went silent after the command was sent"), "{error}");
    assert_eq!(agent.execute("guest-info", Value::Null, LONG).await.expect("back"), json!("guest-info"));
    assert_eq!(agent.execute("guest-time", Value::Null, LONG).await.expect("kept"), json!("guest-time"));
    connections.recv().await.expect("the first connection");
    connections.recv().await.expect("the second, after the silence");
    assert!(connections.try_recv().is_err(), "the third call keeps the link of the second");
}

#[tokio::test]
async fn callers_at_once_are_served_one_after_another() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("qga");
    let _connections = agent(&path, b"", |command| Some(json!({ "return": command })));
    let agent = Arc::new(GuestAgent::new(&path));
    let calls: Vec<_> = (0..20)
        .map(|number| {
            let agent = Arc::clone(&agent);
            tokio::spawn(async move {
                let name = format!("guest-{number}");
                (agent.execute(&name, Value::Null, LONG).await, name)
            })
        })
        .collect();
    for call in calls {
        let (answer, name) = call.await.expect("no panic");
        assert_eq!(answer.expect("answered"), json!(name));
    }
}

#[tokio::test]
async fn no_socket_and_no_agent_are_told_apart_in_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let short = Duration::from_millis(50);
    let error = GuestAgent::new(&directory.path().join("none")).ping(short).await.expect_err("none");
    assert!(error.to_string().contains("its socket could not be opened"), "{error}");

    // QEMU takes the bytes and nobody in the guest reads them.
    let path = directory.path().join("qga");
    let _listener = UnixListener::bind(&path).expect("bound");
    let error = GuestAgent::new(&path).ping(short).await.expect_err("silent");
    assert!(error.to_string().contains("not running"), "{error}");
}

#[tokio::test]
async fn rubbish_in_an_answer_is_an_error_and_not_a_panic() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("qga");
    let _connections = agent(&path, b"", |command| {
        Some(match command {
            "guest-a" => json!([]),
            "guest-b" => json!({ "error": "x" }),
            _ => Value::Null,
        })
    });
    let agent = GuestAgent::new(&path);
    for command in ["guest-a", "guest-b", "guest-c"] {
        let error = agent.execute(command, Value::Null, LONG).await.expect_err("rubbish");
        assert!(matches!(error, AgentError::Refused { .. }), "{error}");
    }
}
