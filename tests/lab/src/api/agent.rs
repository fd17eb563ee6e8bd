//! `/agent`: calls that go to the real guest agent.
//!
//! Proxmox's order of checks: the agent is configured, the VM runs, the agent answers a ping within 3 s. One answer
//! is changed on the way: the guest's address in QEMU's user network is shown as the lab's address for it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::error::{ApiError, ApiResult};
use crate::faults::Fault;
use crate::vm::{AgentFailure, RunningVm};

/// How long the agent may take for a command.
const COMMAND: Duration = Duration::from_secs(10);

/// The address every guest has in QEMU's user network.
const USER_NETWORK_ADDRESS: &str = "10.0.2.15";

/// Commands without parameters: name in the path, method, whether the result is wrapped.
const PLAIN: &[&str] = &[
    "fsfreeze-freeze",
    "fsfreeze-status",
    "fsfreeze-thaw",
    "fstrim",
    "get-fsinfo",
    "get-host-name",
    "get-memory-block-info",
    "get-memory-blocks",
    "get-osinfo",
    "get-time",
    "get-timezone",
    "get-users",
    "get-vcpus",
    "info",
    "network-get-interfaces",
    "ping",
    "shutdown",
    "suspend-disk",
    "suspend-hybrid",
    "suspend-ram",
];

/// What `GET agent` lists.
const LISTED: &[&str] = &[
    "exec",
    "exec-status",
    "file-read",
    "file-write",
    "fsfreeze-freeze",
    "fsfreeze-status",
    "fsfreeze-thaw",
    "fstrim",
    "get-fsinfo",
    "get-host-name",
    "get-memory-block-info",
    "get-memory-blocks",
    "get-osinfo",
    "get-time",
    "get-timezone",
    "get-users",
    "get-vcpus",
    "info",
    "network-get-interfaces",
    "ping",
    "set-user-password",
    "shutdown",
    "suspend-disk",
    "suspend-hybrid",
    "suspend-ram",
];

/// Answers a call below `/agent`.
pub async fn agent(method: &str, below: &str, call: Call) -> Option<ApiResult<Answer>> {
    let name = below.strip_prefix('/').unwrap_or(below).to_owned();
    Some(match (method, name.as_str()) {
        ("GET", "") => Ok(LISTED.iter().map(|name| json!({"name": name})).collect::<Value>().into()),
        ("POST", "") => {
            let command = call.params.text("command").to_owned();
            plain(&call, &command).await
        }
        ("POST", "exec") => exec(&call).await,
        ("GET", "exec-status") => exec_status(&call).await,
        ("GET", "file-read") => file_read(&call).await,
        ("POST", "file-write") => file_write(&call).await,
        ("POST", "set-user-password") => set_password(&call).await,
        (_, name) if PLAIN.contains(&name) => plain(&call, name).await,
        _ => return None,
    })
}

/// The process of a VM whose agent may be asked.
fn guest(call: &Call) -> ApiResult<Option<Arc<RunningVm>>> {
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    if !vm.agent_enabled() {
        return Err(ApiError::die("No QEMU guest agent configured"));
    }
    if !vm.is_running() {
        return Err(ApiError::die(format!("VM {} is not running", vm.vmid)));
    }
    call.cluster.process(call.node(), call.vmid())
}

async fn run(call: &Call, command: &str, arguments: Value) -> ApiResult<Value> {
    let process = guest(call)?;
    let gone = call.faults.iter().any(|fault| matches!(fault, Fault::AgentGone));
    let Some(process) = process.filter(|_| !gone) else {
        call.cluster.clock.sleep(call.cluster.config.agent_ping).await;
        return Err(not_there());
    };
    let result = process.ask_agent(command, arguments, call.cluster.config.agent_ping, COMMAND).await;
    result.map_err(|error| match error {
        AgentFailure::NotRunning => not_there(),
        AgentFailure::Refused(text) => ApiError::die(format!("Agent error: {text}")),
        AgentFailure::Timeout => {
            ApiError::die(format!("VM {} qga command '{command}' failed - got timeout", call.vmid()))
        }
    })
}

fn not_there() -> ApiError {
    ApiError::die("QEMU guest agent is not running")
}

async fn plain(call: &Call, name: &str) -> ApiResult<Answer> {
    let command = match name {
        "network-get-interfaces" => "guest-network-get-interfaces".to_owned(),
        name => format!("guest-{name}"),
    };
    let mut result = run(call, &command, Value::Null).await?;
    if name == "network-get-interfaces" && call.cluster.network.bridges().is_none() {
        let vm = call.cluster.vm(call.node(), call.vmid())?;
        let shown = call.cluster.network.shown_address(vm.slot).to_string();
        show_address(&mut result, &shown);
    }
    Ok(json!({"result": result}).into())
}

fn show_address(value: &mut Value, shown: &str) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|entry| show_address(entry, shown)),
        Value::Object(map) => map.values_mut().for_each(|entry| show_address(entry, shown)),
        Value::String(text) if text == USER_NETWORK_ADDRESS => shown.clone_into(text),
        _ => {}
    }
}

async fn exec(call: &Call) -> ApiResult<Answer> {
    let command = call.params.list("command");
    let Some((path, rest)) = command.split_first() else {
        return Err(ApiError::parameter("command", "property is missing and it is not optional"));
    };
    let mut arguments = json!({"path": path, "arg": rest, "capture-output": true});
    if let Some(input) = call.params.get("input-data") {
        arguments["input-data"] = encode(input)?.into();
    }
    match run(call, "guest-exec", arguments).await {
        Ok(result) => Ok(json!({"pid": result["pid"]}).into()),
        // The quotes in the agent's text are not ASCII and kill pvedaemon's answer.
        Err(error) if error.message.contains("Failed to execute child process") => {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let mut broken = ApiError::status(596, "Broken pipe");
            broken.body = crate::error::ErrorBody::Empty;
            Err(broken)
        }
        Err(error) => Err(error),
    }
}

async fn exec_status(call: &Call) -> ApiResult<Answer> {
    let pid: i64 = call.params.number("pid").unwrap_or(0);
    let result = run(call, "guest-exec-status", json!({"pid": pid})).await?;
    let mut answer = Map::new();
    for (key, value) in result.as_object().into_iter().flatten() {
        let value = match value {
            Value::Bool(flag) => Value::from(u8::from(*flag)),
            Value::String(text) if key.ends_with("-data") => decode(text).into(),
            other => other.clone(),
        };
        answer.insert(key.clone(), value);
    }
    for (data, flag) in [("out-data", "out-truncated"), ("err-data", "err-truncated")] {
        if answer.contains_key(data) {
            answer.entry(flag.to_owned()).or_insert_with(|| 0.into());
        }
    }
    Ok(Value::Object(answer).into())
}

/// Proxmox hands bytes on as characters of Latin-1, both ways: UTF-8 text comes out as one character a byte, and what
/// Latin-1 lacks can't be sent (observed: "üñ" written through the API takes 2 bytes in the guest).
fn decode(text: &str) -> String {
    latin1(&STANDARD.decode(text).unwrap_or_default())
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn encode(text: &str) -> ApiResult<String> {
    let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
    match bytes {
        Ok(bytes) => Ok(STANDARD.encode(bytes)),
        Err(_) => Err(ApiError::die(
            "Wide character in subroutine entry at /usr/share/perl5/PVE/QemuServer/Agent.pm",
        )),
    }
}

/// Most bytes `file-read` returns.
const READ_LIMIT: usize = 16 << 20;

async fn file_read(call: &Call) -> ApiResult<Answer> {
    let file = call.params.text("file");
    let handle = run(call, "guest-file-open", json!({"path": file, "mode": "r"})).await?;
    let mut bytes = Vec::new();
    let mut whole = false;
    while !whole && bytes.len() < READ_LIMIT {
        let chunk = run(call, "guest-file-read", json!({"handle": handle, "count": 1 << 20})).await?;
        bytes.extend(STANDARD.decode(chunk["buf-b64"].as_str().unwrap_or_default()).unwrap_or_default());
        whole = chunk["eof"].as_bool().unwrap_or(true);
    }
    run(call, "guest-file-close", json!({"handle": handle})).await?;
    let mut answer = json!({"content": latin1(&bytes), "bytes-read": bytes.len()});
    if !whole {
        answer["truncated"] = 1.into();
    }
    Ok(answer.into())
}

async fn file_write(call: &Call) -> ApiResult<Answer> {
    let content = call.params.text("content");
    let encoded = if call.params.get("encode") == Some("0") { content.to_owned() } else { encode(content)? };
    let arguments = json!({"path": call.params.text("file"), "mode": "wb"});
    let handle = run(call, "guest-file-open", arguments).await?;
    run(call, "guest-file-write", json!({"handle": handle, "buf-b64": encoded})).await?;
    run(call, "guest-file-close", json!({"handle": handle})).await?;
    Ok(Value::Null.into())
}

async fn set_password(call: &Call) -> ApiResult<Answer> {
    let arguments = json!({
        "username": call.params.text("username"),
        "password": encode(call.params.text("password"))?,
        "crypted": call.params.flag("crypted"),
    });
    let result = run(call, "guest-set-user-password", arguments).await?;
    Ok(json!({"result": result}).into())
}
