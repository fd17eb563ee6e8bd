//! The QEMU Machine Protocol: commands, replies and events over a Unix socket (QEMU docs, `interop/qmp-spec`).
//!
//! One task owns the socket; [`Qmp`] is a cheap handle on it. Replies find their caller by an id, so any number of
//! callers may be waiting at the same time. The task ends when all handles are gone, or when QEMU closes the
//! socket or sends something that is not QMP.
//!
//! Invariants: a line is at most 16 MiB; a caller never waits longer than [`REPLY_LIMIT`]; nothing QEMU sends can
//! make this module panic.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::line::{LineReader, shorten};
use crate::socket;

/// How long a command may take until QEMU answers it.
pub const REPLY_LIMIT: Duration = Duration::from_secs(30);
/// How long [`Qmp::connect`] waits for QEMU's greeting. QEMU serves one client at a time: the next one is accepted
/// by the kernel and hears nothing.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// The longest line that is accepted; the largest known answer (`query-qmp-schema`) has about 200 kB.
const LINE_LIMIT: usize = 16 * 1024 * 1024;
/// How many events a slow receiver may be behind before it loses the oldest.
const EVENT_BACKLOG: usize = 256;

/// An error of a QMP connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QmpError {
    /// Nobody listens at the socket.
    #[error("no connection to the QMP socket {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// Something listens, and does not greet as QMP does.
    #[error("no QMP greeting from {path}: {detail}")]
    Handshake {
        /// The socket.
        path: PathBuf,
        /// What came instead.
        detail: String,
    },
    /// QEMU refused or failed a command.
    #[error("QEMU refused `{command}`: {desc} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// QMP's error class (`GenericError`, `CommandNotFound`, …).
        class: String,
        /// QEMU's words.
        desc: String,
    },
    /// No answer, or no event, in time.
    #[error("no {what} within {limit:?}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The connection is closed.
    #[error("the QMP connection is closed: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
}

/// An asynchronous event of QEMU.
#[derive(Clone, Debug, PartialEq)]
pub struct QmpEvent {
    /// Its name (`POWERDOWN`, `SHUTDOWN`, `RESET`, …).
    pub name: String,
    /// Its data; null when it has none.
    pub data: Value,
    /// When QEMU sent it, by the host's clock; `None` when QEMU could not tell.
    pub timestamp: Option<SystemTime>,
}

/// What `query-status` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunStatus {
    /// Whether the CPUs run.
    pub running: bool,
    /// QEMU's word for it (`running`, `paused`, `prelaunch`, `shutdown`, `internal-error`, …).
    pub status: String,
}

/// The picture formats of [`Qmp::screendump`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScreenshotFormat {
    /// Portable Network Graphics; only where QEMU was built with libpng (Proxmox's often was not).
    Png,
    /// Portable pixmap, always there.
    Ppm,
}

struct Request {
    command: String,
    arguments: Value,
    reply: oneshot::Sender<Result<Value, QmpError>>,
}

/// A handle on a QMP connection. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Qmp {
    requests: mpsc::Sender<Request>,
    // Weak, so that receivers learn of the end of the connection while handles live on.
    events: broadcast::WeakSender<QmpEvent>,
    close_reason: Arc<OnceLock<String>>,
}

impl Qmp {
    /// Connects to a QMP socket on which QEMU is already listening.
    ///
    /// Cancel-safe: dropping closes the socket.
    ///
    /// # Errors
    /// When nobody listens, or no QMP greeting comes within 5 s.
    pub async fn connect(path: &Path) -> Result<Self, QmpError> {
        let stream = socket::connect(path)
            .await
            .map_err(|source| QmpError::Connect { path: path.to_owned(), source })?;
        Self::greet(stream, path, Instant::now() + GREETING_LIMIT).await
    }

    /// Connects to the QMP socket of a QEMU that is just starting: tries again until somebody listens.
    ///
    /// Cancel-safe: dropping closes the socket.
    ///
    /// # Errors
    /// When nobody listened, or no greeting came, within the limit.
    pub async fn connect_within(path: &Path, limit: Duration) -> Result<Self, QmpError> {
        let deadline = Instant::now() + limit;
        let stream = socket::connect_until(path, deadline)
            .await
            .map_err(|source| QmpError::Connect { path: path.to_owned(), source })?;
        Self::greet(stream, path, deadline).await
    }

    async fn greet(stream: UnixStream, path: &Path, deadline: Instant) -> Result<Self, QmpError> {
        let (read, mut write) = stream.into_split();
        let mut lines = LineReader::new(read, LINE_LIMIT);
        let handshake = async {
            let greeting = next_value(&mut lines).await?;
            if greeting.get("QMP").is_none() {
                return Err(format!("got {}", shorten(&greeting.to_string(), 200)));
            }
            write
                .write_all(b"{\"execute\":\"qmp_capabilities\"}\n")
                .await
                .map_err(|error| error.to_string())?;
            loop {
                let answer = next_value(&mut lines).await?;
                if answer.get("return").is_some() {
                    return Ok(());
                }
                if let Some(error) = answer.get("error") {
                    return Err(format!("capabilities refused: {}", shorten(&error.to_string(), 200)));
                }
            }
        };
        timeout_at(deadline, handshake)
            .await
            .unwrap_or_else(|_| Err("nothing came in time (is another client connected?)".to_owned()))
            .map_err(|detail| QmpError::Handshake { path: path.to_owned(), detail })?;

        let (requests, incoming) = mpsc::channel(64);
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let close_reason = Arc::new(OnceLock::new());
        let handle = Self { requests, events: events.downgrade(), close_reason: Arc::clone(&close_reason) };
        let connection =
            Connection { lines, write, incoming, events, pending: HashMap::new(), next_id: 0, close_reason };
        tokio::spawn(connection.run());
        Ok(handle)
    }

    /// Runs a command and hands back what QEMU returns. `arguments` is an object, or null for none.
    ///
    /// May be called by many at once. Cancel-safe for the connection: a dropped call's answer is thrown away, the
    /// command is carried out all the same.
    ///
    /// # Errors
    /// QEMU's refusal with class and text; a closed connection; no answer within [`REPLY_LIMIT`].
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { command: command.to_owned(), arguments, reply };
        let exchange = async {
            self.requests.send(request).await.map_err(|_| self.closed_error())?;
            answer.await.map_err(|_| self.closed_error())?
        };
        timeout(REPLY_LIMIT, exchange).await.unwrap_or_else(|_| {
            Err(QmpError::TimedOut { what: format!("answer to `{command}`"), limit: REPLY_LIMIT })
        })
    }

    /// Runs a line of the human monitor and hands back what it prints.
    ///
    /// The monitor reports most of its errors as printed text, not as an error.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn human_monitor(&self, line: &str) -> Result<String, QmpError> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line })).await?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Subscribes to the events from now on. A receiver more than 256 events behind loses the oldest; it is
    /// closed when the connection is.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<QmpEvent> {
        match self.events.upgrade() {
            Some(sender) => sender.subscribe(),
            None => broadcast::channel(1).1,
        }
    }

    /// Whether the connection is closed (QEMU has ended, usually).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Waits until the connection is closed. Cancel-safe.
    pub async fn closed(&self) {
        self.requests.closed().await;
    }

    /// Asks whether the CPUs run.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn query_status(&self) -> Result<RunStatus, QmpError> {
        let answer = self.execute("query-status", Value::Null).await?;
        Ok(RunStatus {
            running: answer.get("running").and_then(Value::as_bool).unwrap_or(false),
            status: answer.get("status").and_then(Value::as_str).unwrap_or("unknown").to_owned(),
        })
    }

    /// Presses the ACPI power button. Whether the guest obeys is seen by the event `SHUTDOWN`.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn system_powerdown(&self) -> Result<(), QmpError> {
        self.execute("system_powerdown", Value::Null).await.map(drop)
    }

    /// Ends QEMU at once. A connection that closes before the answer came counts as done.
    ///
    /// # Errors
    /// As [`Qmp::execute`], but for a closed connection.
    pub async fn quit(&self) -> Result<(), QmpError> {
        match self.execute("quit", Value::Null).await {
            Ok(_) | Err(QmpError::Closed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Presses keys together and releases them in reverse order, by qcode names (`shift`, `a`, `ret`).
    ///
    /// QEMU answers at once and holds the keys for `hold_ms` milliseconds (100 when `None`). Its queue holds 1024
    /// entries; what does not fit is dropped without a word, so callers pace themselves.
    ///
    /// # Errors
    /// As [`Qmp::execute`]; an unknown key name is refused by QEMU.
    pub async fn send_key(&self, keys: &[&str], hold_ms: Option<u32>) -> Result<(), QmpError> {
        let keys: Vec<Value> = keys.iter().map(|key| json!({ "type": "qcode", "data": key })).collect();
        let mut arguments = json!({ "keys": keys });
        if let (Some(hold), Some(object)) = (hold_ms, arguments.as_object_mut()) {
            object.insert("hold-time".to_owned(), json!(hold));
        }
        self.execute("send-key", arguments).await.map(drop)
    }

    /// Has QEMU write a picture of the first screen to a file (a path as QEMU's process sees it).
    ///
    /// # Errors
    /// As [`Qmp::execute`]; a QEMU without libpng refuses [`ScreenshotFormat::Png`].
    pub async fn screendump(&self, path: &Path, format: ScreenshotFormat) -> Result<(), QmpError> {
        let format = match format {
            ScreenshotFormat::Png => "png",
            ScreenshotFormat::Ppm => "ppm",
        };
        let arguments = json!({ "filename": path.to_string_lossy(), "format": format });
        self.execute("screendump", arguments).await.map(drop)
    }

    /// Waits for an event that comes after this call. Where it could come earlier, subscribe first with
    /// [`Qmp::events`] and use [`next_event`].
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// When it does not come within the limit, or the connection closes.
    pub async fn wait_for_event(&self, name: &str, limit: Duration) -> Result<QmpEvent, QmpError> {
        match next_event(&mut self.events(), name, limit).await {
            Err(QmpError::Closed { .. }) => Err(self.closed_error()),
            other => other,
        }
    }

    fn closed_error(&self) -> QmpError {
        let reason = self.close_reason.get().cloned();
        QmpError::Closed { reason: reason.unwrap_or_else(|| "its task is gone".to_owned()) }
    }
}

/// Waits for an event of that name in a subscription. Cancel-safe: other events that came are consumed.
///
/// # Errors
/// When it does not come within the limit, or the connection closes.
pub async fn next_event(
    events: &mut broadcast::Receiver<QmpEvent>,
    name: &str,
    limit: Duration,
) -> Result<QmpEvent, QmpError> {
    let search = async {
        loop {
            match events.recv().await {
                Ok(event) if event.name == name => return Ok(event),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    tracing::warn!(lost, "QMP events were lost while waiting for {name}");
                }
                Err(broadcast::error::RecvError::Closed) => {
                    return Err(QmpError::Closed { reason: format!("while waiting for {name}") });
                }
            }
        }
    };
    timeout(limit, search)
        .await
        .unwrap_or_else(|_| Err(QmpError::TimedOut { what: format!("event {name}"), limit }))
}

type Pending = (String, oneshot::Sender<Result<Value, QmpError>>);

/// The owner of the socket.
struct Connection {
    lines: LineReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    incoming: mpsc::Receiver<Request>,
    events: broadcast::Sender<QmpEvent>,
    pending: HashMap<u64, Pending>,
    next_id: u64,
    close_reason: Arc<OnceLock<String>>,
}

impl Connection {
    async fn run(mut self) {
        let reason = loop {
            tokio::select! {
                request = self.incoming.recv() => match request {
                    None => break "all handles are gone".to_owned(),
                    Some(request) => if let Err(error) = self.send(request).await {
                        break format!("writing failed: {error}");
                    },
                },
                value = next_value(&mut self.lines) => match value {
                    Ok(value) => self.dispatch(&value),
                    Err(reason) => break reason,
                },
            }
        };
        tracing::debug!(reason, "QMP connection closed");
        // Told before the channels close, so that whoever wakes up finds it.
        let reason = self.close_reason.get_or_init(|| reason).clone();
        for (_, (_, reply)) in self.pending.drain() {
            let _ = reply.send(Err(QmpError::Closed { reason: reason.clone() }));
        }
    }

    async fn send(&mut self, request: Request) -> io::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        let mut message = json!({ "execute": request.command, "id": id });
        if let (Some(object), false) = (message.as_object_mut(), request.arguments.is_null()) {
            object.insert("arguments".to_owned(), request.arguments);
        }
        // Callers that gave up leave their place behind; it goes here, so that the table stays small.
        self.pending.retain(|_, (_, reply)| !reply.is_closed());
        self.pending.insert(id, (request.command, request.reply));
        let mut line = message.to_string();
        line.push('\n');
        self.write.write_all(line.as_bytes()).await
    }

    fn dispatch(&mut self, value: &Value) {
        if let Some(name) = value.get("event").and_then(Value::as_str) {
            let event = QmpEvent {
                name: name.to_owned(),
                data: value.get("data").cloned().unwrap_or(Value::Null),
                timestamp: value.get("timestamp").and_then(read_timestamp),
            };
            tracing::debug!(event = event.name, data = %event.data, "QMP event");
            // Nobody listening is fine.
            let _ = self.events.send(event);
            return;
        }
        let Some((command, reply)) =
            value.get("id").and_then(Value::as_u64).and_then(|id| self.pending.remove(&id))
        else {
            tracing::debug!(message = shorten(&value.to_string(), 200), "QMP message for nobody");
            return;
        };
        let result = match (value.get("return"), value.get("error")) {
            (Some(result), _) => Ok(result.clone()),
            (None, error) => {
                let (class, desc) = read_error(error.unwrap_or(&Value::Null));
                Err(QmpError::Refused { command, class, desc })
            }
        };
        let _ = reply.send(result);
    }
}

/// Class and text of an error object, as QMP and the guest agent both write it.
pub(crate) fn read_error(error: &Value) -> (String, String) {
    let field = |name: &str| error.get(name).and_then(Value::as_str).map(|text| shorten(text, 2000));
    (
        field("class").unwrap_or_else(|| "GenericError".to_owned()),
        field("desc").unwrap_or_else(|| "no reason given".to_owned()),
    )
}

fn read_timestamp(value: &Value) -> Option<SystemTime> {
    // QEMU writes -1 when it can't tell the time (qmp-spec, "Event occurrence").
    let seconds = value.get("seconds")?.as_u64()?;
    let micros = value.get("microseconds")?.as_u64()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))?)
}

async fn next_value(lines: &mut LineReader<OwnedReadHalf>) -> Result<Value, String> {
    match lines.next_line().await {
        Ok(Some(line)) => serde_json::from_slice(&line).map_err(|error| {
            format!("not JSON ({error}): {}", shorten(&String::from_utf8_lossy(&line), 200))
        }),
        Ok(None) => Err("QEMU closed it".to_owned()),
        Err(error) => Err(format!("reading failed: {error}")),
    }
}

#[cfg(test)]
#[path = "qmp_tests.rs"]
mod tests;
