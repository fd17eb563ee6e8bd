//! A QEMU process that never outlives its owner, and whose last words are kept.
//!
//! A task owns the child, so that waiting, signalling and dropping never race for its pid: signals are sent by the
//! task that has not yet reaped it. Dropping [`QemuProcess`] kills it (as does the end of the runtime, through
//! tokio's `kill_on_drop`); a death of forge itself kills it through the kernel, by util-linux's
//! `setpriv --pdeathsig KILL`, where that is installed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::qmp::{Qmp, QmpError};
use crate::spawner;

/// How much of the end of the error log an error quotes.
const TAIL_BYTES: u64 = 4096;
/// The kernel kills the child when its parent dies *after* this was asked for; this finds a parent that died before
/// (prctl(2) names the race).
const PARENT_CHECK: &str = r#"[ "$PPID" = "$1" ] || exit 1; shift; exec "$@""#;
/// How long a process whose monitor failed may take to end, before the monitor's failure is told instead.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

/// An error of a QEMU process.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The program is not installed.
    #[error("program `{program}` was not found")]
    NotFound {
        /// The program as it was named.
        program: String,
    },
    /// It could not be started.
    #[error("`{program}` could not be started")]
    Spawn {
        /// The program.
        program: String,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// Its error log could not be opened.
    #[error("the log {path} could not be opened")]
    Log {
        /// The log.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("`{program}` ended with {status}{}", quote(.stderr_tail))]
    Exited {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote to its standard error.
        stderr_tail: String,
    },
    /// It runs, and its monitor can't be reached.
    #[error("the monitor of `{program}` can't be reached")]
    Monitor {
        /// The program.
        program: String,
        /// The monitor's error.
        #[source]
        source: QmpError,
    },
}

fn quote(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// How to start a process.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program: a path, or a name looked up in `PATH`.
    pub binary: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The file that takes its standard output and standard error; emptied at the start.
    pub stderr_log: PathBuf,
    /// Whether the kernel kills it when this process dies, whichever way. Without `setpriv` on this machine it is
    /// started without, and a warning is traced.
    pub die_with_parent: bool,
    /// Its working directory; `None` keeps ours. Lets QEMU open sockets by short relative paths.
    pub directory: Option<PathBuf>,
    /// Variables added to its environment.
    pub environment: Vec<(OsString, OsString)>,
}

impl Launch {
    /// A launch with no arguments, that dies with its parent, in our working directory.
    pub fn new(binary: impl Into<PathBuf>, stderr_log: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            arguments: Vec::new(),
            stderr_log: stderr_log.into(),
            die_with_parent: true,
            directory: None,
            environment: Vec::new(),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }
}

/// A program that the kernel kills when this process dies, whichever way, if it is started by [`spawner::spawn`]. Without
/// `setpriv` on this machine it may outlive us, and a warning is traced.
pub(crate) fn dying_with_us(binary: &Path) -> Command {
    let guards = find_program(Path::new("setpriv")).zip(find_program(Path::new("sh")));
    let Some((setpriv, shell)) = guards else {
        let program = binary.display();
        tracing::warn!("setpriv (util-linux) is not installed: {program} may outlive a killed forge");
        return Command::new(binary);
    };
    // Each replaces itself by the next one, so the pid is the program's own.
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(shell).args(["-c", PARENT_CHECK, "sh"]);
    command.arg(std::process::id().to_string()).arg(binary);
    command
}

/// A running (or ended) QEMU process. Dropping it kills the process.
#[derive(Debug)]
pub struct QemuProcess {
    program: String,
    pid: u32,
    stderr_log: PathBuf,
    signals: mpsc::UnboundedSender<Signal>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl QemuProcess {
    /// Starts it. It is not ready yet: see [`QemuProcess::connect_qmp`].
    ///
    /// Cancel-safe: a dropped call leaves no process.
    ///
    /// # Errors
    /// When the program does not exist or can't be started, or the log can't be opened.
    pub async fn spawn(launch: Launch) -> Result<Self, ProcessError> {
        let program = launch.binary.display().to_string();
        let binary = find_program(&launch.binary)
            .ok_or_else(|| ProcessError::NotFound { program: program.clone() })?;
        let log_error = |source| ProcessError::Log { path: launch.stderr_log.clone(), source };
        let log = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&launch.stderr_log)
            .map_err(log_error)?;
        let log_too = log.try_clone().map_err(log_error)?;

        let mut command = match launch.die_with_parent {
            true => dying_with_us(&binary),
            false => Command::new(&binary),
        };
        command
            .args(&launch.arguments)
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log_too)
            .stderr(log)
            // Of its own, so that Ctrl-C in the terminal reaches forge alone, which then stops it in order.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(directory) = &launch.directory {
            command.current_dir(directory);
        }
        let spawn_error = |source| ProcessError::Spawn { program: program.clone(), source };
        let child = spawner::spawn(command).await.map_err(spawn_error)?;
        let pid = child.id().ok_or_else(|| spawn_error(io::Error::other("it was gone at once")))?;
        // Not the arguments themselves: the SMBIOS serial and the kernel's command line hold the seed's secret address.
        tracing::debug!(pid, program, arguments = launch.arguments.len(), "process started");

        let (signals, requested) = mpsc::unbounded_channel();
        let (tell, exit) = watch::channel(None);
        tokio::spawn(guard(child, pid, requested, tell));
        Ok(Self { program, pid, stderr_log: launch.stderr_log, signals, exit })
    }

    /// Its process id. After it has ended the number may belong to another process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exited(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits for its end. Cancel-safe; any number may wait.
    ///
    /// # Errors
    /// When its end can't be observed any more (the runtime is shutting down).
    pub async fn wait(&self) -> Result<ExitStatus, ProcessError> {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        status.ok_or_else(|| ProcessError::Spawn {
            program: self.program.clone(),
            source: io::Error::other("its end can't be observed"),
        })
    }

    /// Asks it to end (SIGTERM); QEMU then closes its images and exits. Does not wait.
    pub fn terminate(&self) {
        let _ = self.signals.send(Signal::SIGTERM);
    }

    /// Kills it (SIGKILL). Does not wait.
    pub fn kill(&self) {
        let _ = self.signals.send(Signal::SIGKILL);
    }

    /// The last lines it wrote to its log, at most 4 KiB; empty when it wrote nothing.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        tail(&self.stderr_log).unwrap_or_default()
    }

    /// The error that tells of its end, with its last words.
    #[must_use]
    pub fn exit_error(&self, status: ExitStatus) -> ProcessError {
        ProcessError::Exited { program: self.program.clone(), status, stderr_tail: self.stderr_tail() }
    }

    /// Connects to its QMP socket while it starts, and fails at once when it ends instead.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`ProcessError::Exited`] with its last words, or [`ProcessError::Monitor`].
    pub async fn connect_qmp(&self, socket: &Path, limit: Duration) -> Result<Qmp, ProcessError> {
        tokio::select! {
            connected = Qmp::connect_within(socket, limit) => match connected {
                Ok(qmp) => Ok(qmp),
                // A QEMU that gives up closes its monitor a moment before it ends; its last words say more.
                Err(source) => match timeout(LAST_WORDS_LIMIT, self.wait()).await {
                    Ok(status) => Err(self.exit_error(status?)),
                    Err(_) => Err(ProcessError::Monitor { program: self.program.clone(), source }),
                },
            },
            status = self.wait() => Err(self.exit_error(status?)),
        }
    }
}

/// Owns the child until it is reaped: passes signals on, kills it when its handle is gone.
async fn guard(
    mut child: Child,
    pid: u32,
    mut requested: mpsc::UnboundedReceiver<Signal>,
    tell: watch::Sender<Option<ExitStatus>>,
) {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            signal = requested.recv() => match (signal, i32::try_from(pid)) {
                // Not reaped yet, so the pid is still its own.
                (Some(signal), Ok(raw)) => {
                    if let Err(error) = kill(Pid::from_raw(raw), signal) {
                        tracing::debug!(pid, %signal, %error, "signal not delivered");
                    }
                }
                _ => {
                    if let Err(error) = child.start_kill() {
                        tracing::debug!(pid, %error, "kill not delivered");
                    }
                    break child.wait().await;
                }
            },
        }
    };
    match status {
        Ok(status) => {
            tracing::debug!(pid, %status, "process ended");
            tell.send_replace(Some(status));
        }
        Err(error) => tracing::warn!(pid, %error, "process can't be waited for"),
    }
}

/// The executable that a name stands for: the path itself, or the first match in `PATH`.
#[must_use]
pub fn find_program(name: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let executable = |path: &Path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.components().count() > 1 {
        // Absolute, so that a working directory of the child does not change its meaning.
        return if executable(name) { std::path::absolute(name).ok() } else { None };
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|candidate| executable(candidate))
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
