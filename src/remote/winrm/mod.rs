//! The guest over WinRM: Windows' own remote shell, for guests without SSH.
//!
//! Each command has a connection and a shell of its own: nothing of it is left when it is over, and two commands never
//! wait for each other. Command lines go to `cmd.exe` as they are ([`Command::native`]); forge's own are PowerShell
//! ([`super::powershell`]).
//!
//! Invariants: an exit code counts only when the server said that the command is done; a shell that is gone, or a
//! connection that was lost, is [`ExecOutcome::Disconnected`].
//!
//! Tried with a stand-in of the protocol and with the independent NTLM of pyspnego, never with a real Windows.

mod ntlm;
mod soap;
mod transport;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use forge_machine::{Command, ExecOutcome, Guest, GuestError, OutputSink, Stream};
use tokio::time::{sleep, timeout};

use self::soap::{Ask, ENVELOPE};
use self::transport::{AskError, Transport};
pub use self::transport::{WinRmAuth, WinRmLogin};
use super::powershell;
use super::wait::AddressSource;

/// The ports of WinRM without and with TLS.
pub const PORTS: (u16, u16) = (5985, 5986);
/// What an envelope needs besides the bytes that it carries, generously.
const AROUND: usize = 8 * 1024;
/// How many bytes of input one envelope carries at most: they are there in base64.
const PIECE: usize = (ENVELOPE - AROUND) / 4 * 3;
/// The smallest piece that is tried when a server takes less than all do.
const SMALLEST_PIECE: usize = 4 * 1024;
/// The longest line that `cmd.exe` takes is 8191 characters.
const LONGEST_LINE: usize = 8000;
/// The pause after a port that did not answer.
const PAUSE: Duration = Duration::from_millis(500);
/// The pauses after a refused login. Windows locks an account after ten of them within ten minutes (the default since
/// Windows 11 22H2), and the account may only just be being made.
const REFUSED_PAUSES: [Duration; 4] =
    [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(30)];
const REFUSED_PAUSE: Duration = Duration::from_secs(90);
/// How long one try may take, and how long closing a shell is waited for.
const TRY_LIMIT: Duration = Duration::from_secs(60);
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// How often, and after which pause, input is sent again that a command had no room for.
const MOST_BUSY: u32 = 12;
const BUSY_PAUSE: Duration = Duration::from_secs(5);
/// How long the one reconnection may take that is tried when no shell can be opened.
const RECONNECT_LIMIT: Duration = Duration::from_secs(60);

/// How a guest is found and logged in to.
#[derive(Clone)]
pub struct WinRmInput {
    /// Where it may be; the ports are not looked at.
    pub source: Arc<dyn AddressSource>,
    /// The port of WinRM.
    pub port: u16,
    /// Who logs in, and how.
    pub login: Arc<WinRmLogin>,
}

/// A guest that is reached by WinRM.
pub struct WinRmGuest {
    input: WinRmInput,
    address: Mutex<SocketAddr>,
}

impl fmt::Debug for WinRmGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WinRmGuest").field("guest", &self.describe()).finish_non_exhaustive()
    }
}

/// A shell, closed when it is dropped.
struct Shell {
    transport: Arc<Transport>,
    id: String,
    command: Option<String>,
    closed: bool,
}

impl Shell {
    async fn open(address: SocketAddr, login: &Arc<WinRmLogin>) -> Result<Self, AskError> {
        let transport = Arc::new(Transport::new(address, login)?);
        let ask = Ask::Create;
        let answer = transport.ask(&ask, None).await?;
        let id = answer.shell.ok_or_else(|| AskError::Broken {
            what: ask.name(),
            detail: "the answer names no shell".into(),
        })?;
        Ok(Self { transport, id, command: None, closed: false })
    }

    async fn ask(&self, ask: &Ask<'_>) -> Result<soap::Answer, AskError> {
        self.transport.ask(ask, Some(&self.id)).await
    }

    /// Closes it; a server that does not answer any more is not waited for.
    async fn close(mut self) {
        self.closed = true;
        let bye = self.ask(&Ask::Delete);
        if !matches!(timeout(CLOSE_LIMIT, bye).await, Ok(Ok(_))) {
            tracing::debug!("the shell could not be closed");
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.closed, tokio::runtime::Handle::try_current()) {
            let (transport, id) = (self.transport.clone(), std::mem::take(&mut self.id));
            let command = self.command.take();
            runtime.spawn(async move {
                let bye = async {
                    if let Some(command) = &command {
                        _ = transport.ask(&Ask::Terminate { command }, Some(&id)).await;
                    }
                    // Where it can't be asked, the guest is gone anyway.
                    _ = transport.ask(&Ask::Delete, Some(&id)).await;
                };
                _ = timeout(CLOSE_LIMIT, bye).await;
            });
        }
    }
}

impl WinRmGuest {
    /// Waits until WinRM answers and takes the login; `seen` is told each change of what is seen. May be dropped.
    ///
    /// # Errors
    /// When that does not come about within the limit, with what was seen last.
    pub async fn connect(
        input: WinRmInput,
        limit: Duration,
        seen: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Arc<Self>, GuestError> {
        let address = find(&input, limit, seen).await?;
        Ok(Arc::new(Self { input, address: Mutex::new(address) }))
    }

    fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of a question whose effect is known not to have come about.
    fn failed(&self, error: AskError) -> GuestError {
        match error {
            AskError::Refused(detail) => GuestError::Refused { guest: self.describe(), detail },
            AskError::Lost { .. } => {
                GuestError::Unreachable { guest: self.describe(), detail: error.to_string() }
            }
            error => GuestError::Broken {
                what: format!("{} does not work over WinRM", self.describe()),
                source: error.into(),
            },
        }
    }

    async fn shell(&self) -> Result<Shell, GuestError> {
        match Shell::open(self.address(), &self.input.login).await {
            // Nothing is begun by it; a server that is just starting or stopping answers with faults.
            Err(error @ (AskError::Lost { .. } | AskError::Broken { .. } | AskError::Fault { .. })) => {
                tracing::debug!(%error, "no shell could be opened: looking for the guest again");
                self.reconnect(RECONNECT_LIMIT).await?;
                Shell::open(self.address(), &self.input.login).await.map_err(|error| self.failed(error))
            }
            opened => opened.map_err(|error| self.failed(error)),
        }
    }

    /// Runs a command without looking at its time limit.
    async fn run(&self, command: &Command, output: &mut dyn OutputSink) -> Result<ExecOutcome, GuestError> {
        let wrong = |detail: &str| GuestError::Broken {
            what: format!("{} can't run this command", self.describe()),
            source: detail.to_owned().into(),
        };
        if !command.native || !command.env.is_empty() {
            return Err(wrong("it is for /bin/sh, and Windows has none"));
        }
        if command.line.len() > LONGEST_LINE {
            return Err(wrong("its line is longer than cmd.exe takes"));
        }
        let mut shell = self.shell().await?;
        let started =
            shell.ask(&Ask::Command { line: &command.line, piped: !command.stdin.is_empty() }).await;
        let id = match started {
            Ok(soap::Answer { command: Some(id), .. }) => id,
            Ok(_) => return Err(wrong("the server names no command")),
            // It may have been started: nobody knows.
            Err(AskError::Lost { .. }) => return Ok(ExecOutcome::Disconnected),
            Err(error) => return Err(self.failed(error)),
        };
        shell.command = Some(id.clone());
        if !feed(&shell, &id, &command.stdin, output).await {
            return Ok(ExecOutcome::Disconnected);
        }
        let outcome = listen(&shell, &id, output).await;
        if outcome == ExecOutcome::Disconnected {
            // Where the guest is up after all, the command is ended in the background.
            drop(shell);
        } else {
            shell.close().await;
        }
        Ok(outcome)
    }
}

/// Gives a command its input. False when the guest was lost. What a command does not want to read is its own affair: how
/// it ended is told by [`listen`].
async fn feed(shell: &Shell, command: &str, mut bytes: &[u8], output: &mut dyn OutputSink) -> bool {
    let mut most = PIECE;
    let mut busy = 0;
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(most.min(bytes.len()));
        match shell.ask(&Ask::Send { command, bytes: piece, end: rest.is_empty() }).await {
            Ok(_) => bytes = rest,
            // It was taken, and the program has not read it yet: usual while PowerShell starts.
            Err(AskError::Fault { fault, .. }) if fault.is_timeout() => bytes = rest,
            Err(AskError::Fault { fault, .. }) if fault.is_busy() && busy < MOST_BUSY => {
                busy += 1;
                sleep(BUSY_PAUSE).await;
            }
            Err(AskError::Fault { fault, .. }) if fault.is_too_large() && most > SMALLEST_PIECE => most /= 2,
            // The end of its input is asked for all the same, or it might wait for it for ever.
            Err(error @ AskError::Fault { .. }) => {
                say(output, &error);
                let _ = shell.ask(&Ask::Send { command, bytes: &[], end: true }).await;
                return true;
            }
            Err(error) => {
                say(output, &error);
                return false;
            }
        }
    }
    true
}

/// Reads a command's output to its end.
async fn listen(shell: &Shell, command: &str, output: &mut dyn OutputSink) -> ExecOutcome {
    loop {
        match shell.ask(&Ask::Receive { command }).await {
            Ok(answer) => {
                for (stderr, bytes) in &answer.streams {
                    output.write(if *stderr { Stream::Stderr } else { Stream::Stdout }, bytes);
                }
                if answer.done {
                    return answer.exit.map_or(ExecOutcome::Signalled, ExecOutcome::Exited);
                }
            }
            Err(AskError::Fault { fault, .. }) if fault.is_timeout() => {}
            Err(error) => {
                if !matches!(&error, AskError::Fault { fault, .. } if fault.is_no_shell()) {
                    say(output, &error);
                }
                return ExecOutcome::Disconnected;
            }
        }
    }
}

/// Puts the server's words beside the command's own, so that they stand among its last lines.
fn say(output: &mut dyn OutputSink, error: &AskError) {
    output.write(Stream::Stderr, format!("(WinRM, {error})\n").as_bytes());
}

/// Waits for the guest.
async fn find(
    input: &WinRmInput,
    limit: Duration,
    seen: &(dyn Fn(&str) + Send + Sync),
) -> Result<SocketAddr, GuestError> {
    let began = Instant::now();
    let mut told = String::new();
    let mut refusals = 0;
    loop {
        let report = input.source.addresses().await;
        let mut words = report.detail.clone();
        let mut refused = None;
        for (ip, _) in report.candidates {
            let address = SocketAddr::new(ip, input.port);
            let left = limit.saturating_sub(began.elapsed()).min(TRY_LIMIT).max(Duration::from_secs(1));
            match timeout(left, Shell::open(address, &input.login)).await {
                Ok(Ok(shell)) => {
                    shell.close().await;
                    return Ok(address);
                }
                Ok(Err(AskError::Refused(detail))) => {
                    words = format!("{address}: {detail}");
                    refused = Some(detail);
                }
                Ok(Err(error)) => words = format!("{address}: {error}"),
                Err(_late) => words = format!("{address}: no answer within {} s", left.as_secs()),
            }
        }
        if words != told {
            seen(&words);
            told.clone_from(&words);
        }
        let pause = match &refused {
            Some(_) => {
                let pause = REFUSED_PAUSES.get(refusals).copied().unwrap_or(REFUSED_PAUSE);
                refusals += 1;
                pause
            }
            None => PAUSE,
        };
        if began.elapsed() + pause >= limit {
            let guest = format!("{} by WinRM", input.login.user);
            let detail = format!("not there within {} s; last seen: {words}", limit.as_secs_f32());
            return Err(match refused {
                Some(_) => GuestError::Refused { guest, detail: words },
                None => GuestError::Unreachable { guest, detail },
            });
        }
        sleep(pause).await;
    }
}

#[async_trait]
impl Guest for WinRmGuest {
    fn describe(&self) -> String {
        let (address, user) = (self.address(), &self.input.login.user);
        match address.port() {
            5985 | 5986 => format!("{user}@{}", address.ip()),
            _ => format!("{user}@{address}"),
        }
    }

    fn host_key(&self) -> Option<String> {
        None
    }

    fn host_public_key(&self) -> Option<String> {
        None
    }

    async fn exec(&self, command: &Command, output: &mut dyn OutputSink) -> Result<ExecOutcome, GuestError> {
        super::exec::in_time(command, self.run(command, output)).await
    }

    async fn put(&self, path: &str, content: &[u8], _mode: u32) -> Result<(), GuestError> {
        powershell::put(self, path, content).await
    }

    async fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, GuestError> {
        powershell::get(self, path, limit).await
    }

    async fn reconnect(&self, limit: Duration) -> Result<(), GuestError> {
        let address = find(&self.input, limit, &|_| {}).await?;
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
        Ok(())
    }

    async fn close(&self) {}
}
