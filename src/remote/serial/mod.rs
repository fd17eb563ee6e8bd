//! The serial console as the last way to the guest: logs in there, and does over one line of text what the guest agent
//! does, so that the connection itself is the agent's ([`super::AgentGuest`]).
//!
//! Anybody may write on that line, above all the kernel; so each order and each answer has a number and a checksum, and
//! what was damaged is asked for again. A guest that was started anew is logged in to again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_machine::error::Cause;
use forge_machine::{AgentChannel, AgentError, AgentExit, DisplayStream, PortError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::quote;
use crate::engine::error::chain;
use login::{Do, Login};
use wire::{Answer, Came, Lines, sum};

mod login;
#[cfg(test)]
mod tests;
mod wire;

pub use login::ConsoleLogin;

/// Most bytes of one order's content: with base64 and line ends it stays below what a terminal of Linux keeps unread.
const CHUNK: usize = 12 * 1024;
/// Most bytes of output in one answer; a damaged one is sent again as a whole.
const MOST: u64 = 24 * 1024;
/// Bytes of base64 in a line; a terminal takes at most 4095.
const LINE: usize = 1000;
/// How long one order may take; the guest's end waits a second for output.
const ORDER: Duration = Duration::from_secs(20);
/// How long one call tries to log in before it says what it sees.
const LOGIN: Duration = Duration::from_secs(15);

/// Opens the port: it is opened anew whenever it is lost.
#[async_trait]
pub trait OpenPort: fmt::Debug + Send + Sync {
    /// Opens it.
    ///
    /// # Errors
    /// When it can't be had now.
    async fn open(&self) -> Result<Box<dyn DisplayStream>, PortError>;
}

/// The first serial port of a VM.
#[derive(Clone, Debug)]
pub struct MachinePort(pub Arc<dyn forge_machine::Machine>);

#[async_trait]
impl OpenPort for MachinePort {
    async fn open(&self) -> Result<Box<dyn DisplayStream>, PortError> {
        self.0.terminal().await
    }
}

/// The guest behind a serial port, with the calls of an agent.
pub struct SerialChannel {
    port: Arc<dyn OpenPort>,
    login: ConsoleLogin,
    /// Begins every line that is meant.
    mark: String,
    line: Mutex<Line>,
    numbers: AtomicI64,
    ended: std::sync::Mutex<BTreeMap<i64, AgentExit>>,
}

impl fmt::Debug for SerialChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerialChannel").field("login", &self.login).finish_non_exhaustive()
    }
}

/// What comes from the port.
type Reader = ReadHalf<Box<dyn DisplayStream>>;

/// The open port.
#[derive(Default)]
struct Line {
    stream: Option<(Reader, mpsc::UnboundedSender<String>)>,
    lines: Lines,
    /// Whether the guest's end answers.
    ready: bool,
    /// Whether it has answered before, so that it may only have to be greeted.
    known: bool,
    /// Whether an order has no answer.
    waits: bool,
    orders: u64,
}

fn silent(detail: impl Into<Cause>) -> AgentError {
    AgentError::Silent { source: detail.into() }
}

impl SerialChannel {
    /// The guest behind that port. Asks nobody.
    #[must_use]
    pub fn new(port: Arc<dyn OpenPort>, login: ConsoleLogin) -> Self {
        Self {
            port,
            login,
            mark: format!("forge-line-{:016x}", rand::random::<u64>()),
            line: Mutex::default(),
            numbers: AtomicI64::new(1),
            ended: std::sync::Mutex::default(),
        }
    }

    /// Gives an order and waits for its answer. May be dropped: a late answer is passed over.
    async fn order(&self, words: &[&str], content: &[u8]) -> Result<AgentExit, AgentError> {
        let mut line = self.line.lock().await;
        if line.stream.is_none() {
            let stream = self.port.open().await.map_err(|error| match error {
                PortError::Unsupported { .. } | PortError::Denied { .. } => {
                    AgentError::Denied { source: error.into() }
                }
                error => silent(chain(&error)),
            })?;
            let (reader, writer) = tokio::io::split(stream);
            let (typed, keys) = mpsc::unbounded_channel();
            // It ends with its sender. What was begun to be typed is typed to its end, whoever is dropped meanwhile.
            tokio::spawn(type_all(writer, keys));
            *line = Line {
                stream: Some((reader, typed)),
                known: line.known,
                orders: line.orders,
                ..Line::default()
            };
        }
        // An order without an answer: nothing more is typed until somebody is known to listen.
        if line.waits {
            line.ready = false;
            line.waits = false;
        }
        if !line.ready {
            line.log_in(&self.mark, &self.login).await?;
        }
        line.orders += 1;
        let id = line.orders;
        let ([order, rest @ ..], sha) = (words, sum(content)) else { return Err(silent("no order")) };
        let mut body = String::new();
        for piece in STANDARD.encode(content).as_bytes().chunks(LINE) {
            body.push_str(&String::from_utf8_lossy(piece));
            body.push('\n');
        }
        line.type_in(format!("{} {order} {id} {sha} {} {}\n{body}", self.mark, body.len(), rest.join(" ")))?;
        line.waits = true;
        let answered = timeout(ORDER, line.answer(&self.mark, id)).await;
        let answered =
            answered.unwrap_or_else(|_| Err(silent(format!("no answer within {} s", ORDER.as_secs()))));
        line.waits = matches!(&answered, Err(AgentError::Silent { .. }));
        answered
    }
}

/// Types what is handed over, piece after piece.
async fn type_all(mut writer: WriteHalf<Box<dyn DisplayStream>>, mut keys: mpsc::UnboundedReceiver<String>) {
    while let Some(text) = keys.recv().await {
        // Whoever reads notices that the port is gone.
        if writer.write_all(text.as_bytes()).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

impl Line {
    fn type_in(&mut self, text: impl Into<String>) -> Result<(), AgentError> {
        let sent = self.stream.as_ref().is_some_and(|(_, typed)| typed.send(text.into()).is_ok());
        if sent { Ok(()) } else { Err(self.lost(std::io::ErrorKind::BrokenPipe.into())) }
    }

    /// Reads what comes within a time; nothing is no error.
    async fn read(&mut self, limit: Duration) -> Result<bool, AgentError> {
        let Some((stream, _)) = &mut self.stream else { return Err(silent("the port is not open")) };
        let mut buffer = [0; 4096];
        match timeout(limit, stream.read(&mut buffer)).await {
            Err(_) => Ok(false),
            Ok(Ok(count @ 1..)) => {
                self.lines.push(buffer.get(..count).unwrap_or_default());
                Ok(true)
            }
            Ok(Ok(_)) => Err(self.lost(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(Err(error)) => Err(self.lost(error)),
        }
    }

    /// The port is gone, and opened again at the next order.
    fn lost(&mut self, error: std::io::Error) -> AgentError {
        self.stream = None;
        self.ready = false;
        silent(error)
    }

    async fn log_in(&mut self, mark: &str, who: &ConsoleLogin) -> Result<(), AgentError> {
        let (began, mut heard) = (Instant::now(), Instant::now());
        let mut login = Login::new(mark, self.known);
        while began.elapsed() < LOGIN {
            while let Some(line) = self.lines.next() {
                if !login::is_of_the_kernel(&line) {
                    heard = Instant::now();
                }
                let Some(user) = login.line(&line) else {
                    if login.refused {
                        return Err(silent(login.seen));
                    }
                    continue;
                };
                if user != who.user && user != "root" {
                    let detail = format!("{user} is logged in there instead of {}", who.user);
                    return Err(AgentError::Refused { call: "let the build in", source: detail.into() });
                }
                (self.ready, self.known) = (true, true);
                return Ok(());
            }
            let wait = match login.prompt(&self.lines.prompt(), heard.elapsed(), who) {
                Do::Wait(wait) => wait,
                Do::Type(text) => {
                    self.lines.answered();
                    self.type_in(format!("{text}\n"))?;
                    heard = Instant::now();
                    continue;
                }
            };
            let before = self.lines.prompt();
            self.read(wait.min(Duration::from_secs(1))).await?;
            let now = self.lines.prompt();
            if now != before && !login::is_of_the_kernel(&now) {
                heard = Instant::now();
            }
        }
        Err(silent(if login.seen.is_empty() { "it says nothing".to_owned() } else { login.seen }))
    }

    async fn answer(&mut self, mark: &str, id: u64) -> Result<AgentExit, AgentError> {
        let (mut answer, mut heard) = (Answer::to(mark, id), Instant::now());
        loop {
            while let Some(line) = self.lines.next() {
                match answer.line(&line) {
                    Came::More => {}
                    Came::Whole(exit) => return Ok(exit),
                    Came::Broken => return Err(silent("what came over the line was damaged")),
                }
            }
            if self.read(login::QUIET).await? {
                heard = Instant::now();
                continue;
            }
            if self.lines.prompt().trim_end().ends_with("login:") {
                (self.ready, self.known) = (false, false);
                return Err(silent("it asks who logs in: the guest was started anew"));
            }
            if heard.elapsed() >= login::SILENCE {
                // Whoever asks for a login asks again.
                self.type_in("\n")?;
                heard = Instant::now();
            }
        }
    }
}

impl Drop for SerialChannel {
    /// Nobody stays logged in.
    fn drop(&mut self) {
        let line = self.line.get_mut();
        if line.ready {
            // A guest that does not hear it is gone.
            _ = line.type_in(format!("{} bye\n", self.mark));
        }
    }
}

#[async_trait]
impl AgentChannel for SerialChannel {
    fn name(&self) -> &'static str {
        "the serial console"
    }

    fn most(&self) -> u64 {
        MOST
    }

    fn chunk(&self) -> usize {
        CHUNK
    }

    async fn start(&self, words: &[&str]) -> Result<i64, AgentError> {
        let words: Vec<_> = words.iter().map(|word| quote::sh(word)).collect();
        let exit = self.order(&["run"], format!("exec {}\n", words.join(" ")).as_bytes()).await?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut ended) = self.ended.lock() {
            ended.insert(number, exit);
        }
        Ok(number)
    }

    async fn ended(&self, number: i64) -> Result<Option<AgentExit>, AgentError> {
        let exit = self.ended.lock().ok().and_then(|mut ended| ended.remove(&number));
        exit.map(Some).ok_or_else(|| silent("nothing of that number was started"))
    }

    async fn write(&self, path: &str, content: &[u8]) -> Result<(), AgentError> {
        let exit = self.order(&["put", &STANDARD.encode(path)], content).await?;
        match exit.code {
            Some(0) => Ok(()),
            _ => {
                let said = String::from_utf8_lossy(&exit.stderr).trim().to_owned();
                Err(AgentError::Refused { call: "write a file", source: said.into() })
            }
        }
    }

    async fn close(&self) {
        let mut line = self.line.lock().await;
        if line.ready {
            _ = line.type_in(format!("{} bye\n", self.mark));
        }
        *line = Line { orders: line.orders, ..Line::default() };
    }
}
