//! What runs on this machine: shell lines, programs that get the build as JSON, and a person at a breakpoint.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until};

use super::perform::Around;
use super::{LocalStep, LocalWork, OutputObserver, ProvisionError, StepOutcome, ansible, shown};
use crate::remote::{LineSplitter, Tail};

/// How long a program's output is still read after its end: a daemon that it left in the background may hold it open for
/// ever.
const AFTERMATH: Duration = Duration::from_secs(2);

/// How many of the last lines are kept for messages.
const TAIL: usize = 20;

/// How long a program that is to end, and its children, may take for it.
const ENDING: Duration = Duration::from_secs(5);

/// Ends a program with all its children when the step is given up.
struct Group(Option<Pid>);

impl Group {
    /// Asks all of them to end, and ends those that do not.
    async fn end(mut self) {
        let Some(id) = self.0.take() else { return };
        let began = Instant::now();
        // It fails when everything has ended.
        let mut left = killpg(id, Signal::SIGTERM).is_ok();
        while left && began.elapsed() < ENDING {
            sleep(Duration::from_millis(50)).await;
            left = killpg(id, None).is_ok();
        }
        if left {
            _ = killpg(id, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(id) = self.0.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => _ = runtime.spawn(Self(Some(id)).end()),
            Err(_) => _ = killpg(id, Signal::SIGTERM),
        }
    }
}

/// The guest's `user`, `host` and `port`, out of `user@host:port`.
pub(super) fn parts(described: &str) -> (String, String, u16) {
    // A guest that is not reached over the network has no address that a program could use.
    let Some((user, rest)) = described.split_once('@') else { return (String::new(), String::new(), 0) };
    let (host, port) = host_and_port(rest);
    (user.to_owned(), host, port)
}

/// The `host` and `port` out of `host:port`, or out of `host` alone.
pub(crate) fn host_and_port(address: &str) -> (String, u16) {
    match address.parse::<std::net::SocketAddr>() {
        Ok(address) => (address.ip().to_string(), address.port()),
        Err(_) => (address.to_owned(), 22),
    }
}

/// What a program is told of the build: version 1 of a form that only grows.
fn document(around: &Around<'_>, name: &str) -> serde_json::Value {
    let (user, host, port) = parts(&around.guest.describe());
    json!({
        "version": 1,
        "step": name,
        "guest": {
            "user": user,
            "host": host,
            "port": port,
            "host-key": around.guest.host_key(),
            "private-key-file": around.key_file,
        },
        "env": around.env,
    })
}

pub(super) async fn run(
    around: &Around<'_>,
    name: &str,
    step: &LocalStep,
    observer: &mut dyn OutputObserver,
) -> Result<StepOutcome, ProvisionError> {
    let none = BTreeMap::new();
    let (words, stdin) = match &step.what {
        LocalWork::Ansible(work) => return ansible::run(around, work, step, observer).await,
        LocalWork::Shell(text) => {
            (vec!["/bin/sh".to_owned(), "-e".into(), "-c".into(), text.clone()], Vec::new())
        }
        LocalWork::Exec(words) => {
            let text = document(around, name).to_string();
            (words.clone(), format!("{text}\n").into_bytes())
        }
    };
    program(around, step, (&words, &none), stdin, observer).await
}

/// Runs one program of this machine with more variables than the step's, which go before them.
pub(super) async fn program(
    around: &Around<'_>,
    step: &LocalStep,
    (words, more): (&[String], &BTreeMap<String, String>),
    stdin: Vec<u8>,
    observer: &mut dyn OutputObserver,
) -> Result<StepOutcome, ProvisionError> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(StepOutcome { exit: 0, disconnected: false, rebooted: false });
    };
    // A relative path means a program beside the profile; a bare name is looked for in the PATH.
    let program = if program.contains('/') { step.dir.join(program) } else { program.into() };
    let (user, host, port) = parts(&around.guest.describe());
    let failed =
        |source| ProvisionError::Local { what: format!("{} can't be run", program.display()), source };
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .envs(around.env)
        .envs([
            ("FORGE_GUEST_USER", user),
            ("FORGE_GUEST_HOST", host),
            ("FORGE_GUEST_PORT", port.to_string()),
        ])
        .envs(around.key_file.map(|path| ("FORGE_GUEST_KEY_FILE", path)))
        .envs(more)
        .envs(&step.env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0);
    if !step.dir.as_os_str().is_empty() {
        command.current_dir(&step.dir);
    }
    let mut child = command.spawn().map_err(failed)?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let mut tail = Tail::new(TAIL);
    let work = async {
        let (Some(mut input), Some(mut out), Some(mut err)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return child.wait().await;
        };
        let (mut out_lines, mut err_lines) = (LineSplitter::default(), LineSplitter::default());
        let feed = async move {
            // A program that does not read its input is within its rights.
            _ = input.write_all(&stdin).await;
        };
        let read = async {
            let mut status = None;
            let mut over: Option<Instant> = None;
            let (mut out_bytes, mut err_bytes) = (vec![0; 8192], vec![0; 8192]);
            let (mut out_open, mut err_open) = (true, true);
            while out_open || err_open {
                let (stderr, bytes) = tokio::select! {
                    ended = child.wait(), if status.is_none() => {
                        status = Some(ended?);
                        over = Some(Instant::now() + AFTERMATH);
                        continue
                    }
                    () = async { sleep_until(over.unwrap_or_else(Instant::now)).await }, if over.is_some() => break,
                    n = out.read(&mut out_bytes), if out_open => match n? {
                        0 => { out_open = false; continue }
                        n => (false, out_bytes.get(..n).unwrap_or_default()),
                    },
                    n = err.read(&mut err_bytes), if err_open => match n? {
                        0 => { err_open = false; continue }
                        n => (true, err_bytes.get(..n).unwrap_or_default()),
                    },
                };
                let lines = if stderr { &mut err_lines } else { &mut out_lines };
                lines.push(bytes, |line| {
                    tail.push(line);
                    observer.line(line, stderr);
                });
            }
            for (lines, stderr) in [(&mut out_lines, false), (&mut err_lines, true)] {
                lines.flush(|line| {
                    tail.push(line);
                    observer.line(line, stderr);
                });
            }
            match status {
                Some(status) => Ok::<_, std::io::Error>(status),
                None => child.wait().await,
            }
        };
        let feed = async {
            feed.await;
            // The program's own end is what is waited for.
            std::future::pending::<std::convert::Infallible>().await
        };
        tokio::select! {
            never = feed => match never {},
            status = read => status,
        }
    };
    let ended = match step.timeout {
        Some(limit) => tokio::time::timeout(limit, work).await.map_err(|_elapsed| limit),
        None => Ok(work.await),
    };
    let status = match ended {
        Ok(status) => status.map_err(failed)?,
        Err(limit) => {
            group.end().await;
            return Err(ProvisionError::TimedOut { limit, tail: shown(&tail.into_lines()) });
        }
    };
    group.0 = None;
    let exit = status.code();
    if let Some(exit) = exit.filter(|exit| step.valid_exit_codes.contains(exit)) {
        return Ok(StepOutcome { exit, disconnected: false, rebooted: false });
    }
    let allowed: Vec<String> = step.valid_exit_codes.iter().map(ToString::to_string).collect();
    Err(ProvisionError::LocalFailed {
        how: exit.map_or_else(|| format!("ended by {status}"), |exit| format!("exited with status {exit}")),
        allowed: allowed.join(", "),
        tail: shown(&tail.into_lines()),
    })
}

/// Whether a person can be asked: standard input and error are a terminal's.
#[must_use]
pub fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Shows how to get in and waits for Enter; where nobody can press it, the build goes on.
pub(super) async fn breakpoint(around: &Around<'_>, note: &str, observer: &mut dyn OutputObserver) {
    let (user, host, port) = parts(&around.guest.describe());
    if !note.is_empty() {
        observer.line(note, false);
    }
    let key = around.key_file.map(|path| format!(" -i {}", path.display())).unwrap_or_default();
    let port = if port == 22 { String::new() } else { format!(" -p {port}") };
    if host.is_empty() {
        observer.line(&format!("the guest is reached as {}, not by SSH", around.guest.describe()), false);
    } else {
        observer.line(&format!("to get in: ssh{key}{port} {user}@{host}"), false);
    }
    if !around.interactive {
        observer.line("nobody is at a terminal to press Enter: the build goes on", true);
        return;
    }
    let mut lines = crate::ui::input::fresh().await;
    observer.line("press Enter to go on", false);
    // The end of the input is an answer too.
    _ = lines.recv().await;
}
