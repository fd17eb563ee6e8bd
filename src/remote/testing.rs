//! Stand-ins for guests: this machine's own shell, and an SSH server that can be told to misbehave.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use forge_machine::{Command, ExecOutcome, Guest, GuestError, OutputSink, Stream};
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process;

/// What is done to a command line before it is run.
type Change = Box<dyn Fn(&str) -> String + Send + Sync>;

/// Runs commands on this machine.
pub(crate) struct LocalGuest {
    as_nobody: bool,
    scratch: tempfile::TempDir,
    /// Changes command lines before they are run.
    change: Option<Change>,
    /// A letter of what such a command reads and of what it prints is another one.
    damaged: Option<&'static str>,
}

impl std::fmt::Debug for LocalGuest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalGuest").field("as_nobody", &self.as_nobody).finish_non_exhaustive()
    }
}

impl Default for LocalGuest {
    fn default() -> Self {
        Self { as_nobody: false, scratch: scratch(), change: None, damaged: None }
    }
}

/// Hands output on, with a letter of each piece changed.
struct Flip<'a>(&'a mut dyn OutputSink);

impl OutputSink for Flip<'_> {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        flip(&mut bytes);
        self.0.write(stream, &bytes);
    }
}

fn flip(bytes: &mut [u8]) {
    if let Some(first) = bytes.first_mut() {
        *first ^= 1;
    }
}

/// A temporary folder for what scripts that are cut off leave behind; everybody may write there.
fn scratch() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    dir
}

fn names(folder: &tempfile::TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

impl LocalGuest {
    /// What lies in its temporary folder.
    pub fn left(&self) -> Vec<String> {
        names(&self.scratch)
    }

    /// One that runs as a user who may not become root; `None` where that can't be had.
    pub fn unprivileged() -> Option<Self> {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--clear-groups", "true"]);
        let works = command.status().is_ok_and(|status| status.success());
        works.then(|| Self { as_nobody: true, ..Self::default() })
    }

    /// This one, with its command lines changed before they are run.
    pub fn changing(self, change: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self { change: Some(Box::new(change)), ..self }
    }

    /// One on whose wire a letter is changed: of what commands that begin so read, and of what they print.
    pub fn damaging(begin: &'static str) -> Self {
        Self { damaged: Some(begin), ..Self::default() }
    }
}

#[async_trait]
impl Guest for LocalGuest {
    fn describe(&self) -> String {
        "forge@local".into()
    }

    fn host_key(&self) -> Option<String> {
        None
    }

    fn host_public_key(&self) -> Option<String> {
        None
    }

    async fn exec(&self, command: &Command, output: &mut dyn OutputSink) -> Result<ExecOutcome, GuestError> {
        let mut command = command.clone();
        if let Some(change) = &self.change {
            command.line = change(&command.line);
        }
        let mut flipped = Flip(output);
        let damaged = self.damaged.is_some_and(|begin| command.line.starts_with(begin));
        let output: &mut dyn OutputSink = if damaged {
            flip(&mut command.stdin);
            &mut flipped
        } else {
            flipped.0
        };
        let command = &command;
        // Memory and disk are the same to this guest.
        let line = super::exec::line(command).replace("/dev/shm", self.scratch.path().to_str().unwrap());
        let mut child = if self.as_nobody {
            let mut child = process::Command::new("setpriv");
            child.args(["--reuid=65534", "--clear-groups", "/bin/sh"]);
            child
        } else {
            process::Command::new("/bin/sh")
        };
        child.arg("-c").arg(line).kill_on_drop(true).env("TMPDIR", self.scratch.path());
        child.stdin(std::process::Stdio::piped());
        child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = child.spawn().unwrap();
        let (mut stdin, mut stdout, mut stderr) =
            (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let bytes = command.stdin.clone();
        tokio::spawn(async move { stdin.write_all(&bytes).await });
        let (mut out, mut err) = ([0; 4096], [0; 4096]);
        let work = async {
            let (mut out_open, mut err_open) = (true, true);
            while out_open || err_open {
                tokio::select! {
                    n = stdout.read(&mut out), if out_open => match n.unwrap() {
                        0 => out_open = false,
                        n => output.write(Stream::Stdout, &out[..n]),
                    },
                    n = stderr.read(&mut err), if err_open => match n.unwrap() {
                        0 => err_open = false,
                        n => output.write(Stream::Stderr, &err[..n]),
                    },
                }
            }
            child.wait().await.unwrap().code().map_or(ExecOutcome::Signalled, ExecOutcome::Exited)
        };
        match command.timeout {
            None => Ok(work.await),
            Some(limit) => tokio::time::timeout(limit, work)
                .await
                .map_err(|_| GuestError::TimedOut { what: command.line.clone(), limit }),
        }
    }

    async fn put(&self, path: &str, content: &[u8], _mode: u32) -> Result<(), GuestError> {
        std::fs::write(path, content).unwrap();
        Ok(())
    }

    async fn get(&self, path: &str, _limit: u64) -> Result<Vec<u8>, GuestError> {
        Ok(std::fs::read(path).unwrap())
    }

    async fn reconnect(&self, _limit: Duration) -> Result<(), GuestError> {
        Ok(())
    }

    async fn close(&self) {}
}

/// How the server misbehaves; may be changed while it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Refuse this many logins by key.
    pub refuse_keys: usize,
    /// Accept this many connections and say nothing.
    pub hang: usize,
    /// Accept this many connections and close them.
    pub close: usize,
    /// Have no SFTP.
    pub no_sftp: bool,
    /// Show another host key.
    pub other_host_key: bool,
    /// Cut the connection when a command's output contains this.
    pub cut_at: Option<&'static str>,
    /// Carry nothing any more, and keep the connection, when a command's output contains this.
    pub freeze_at: Option<&'static str>,
    /// Reset the connection then instead of closing it.
    pub reset: bool,
    /// Carry bytes this slowly: 256 of them, then a pause.
    pub slow: Option<Duration>,
    /// Refuse to run commands.
    pub refuse_commands: bool,
    /// Refuse this many channels.
    pub refuse_channels: usize,
    /// End commands without an exit status.
    pub no_exit_status: bool,
    /// Tell the exit status before the output.
    pub status_first: bool,
    /// Be a Windows whose disk is this folder: its PowerShell is played.
    pub windows: Option<std::path::PathBuf>,
    /// Lose what a command prints after so many bytes.
    pub most_output: Option<usize>,
    /// Cut the connection when so many bytes of a command's input have come; the command reads its end then.
    pub cut_input_at: Option<usize>,
}

/// An SSH server on loopback that runs commands with this machine's shell.
pub(crate) struct SshServer {
    pub address: SocketAddr,
    pub faults: Arc<Mutex<Faults>>,
    pub connections: Arc<AtomicUsize>,
    /// How many channels were opened.
    pub channels: Arc<AtomicUsize>,
    /// How many commands have ended.
    pub ended: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
    scratch: tempfile::TempDir,
}

impl Drop for SshServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SshServer {
    pub async fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await.unwrap();
        Self::start_on(listener, faults)
    }

    pub fn start_on(listener: TcpListener, faults: Faults) -> Self {
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Mutex::new(faults));
        let connections = Arc::new(AtomicUsize::new(0));
        let (channels, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (shared, counter) = (faults.clone(), connections.clone());
        let (opened, over) = (channels.clone(), ended.clone());
        let scratch = scratch();
        let temporary = scratch.path().to_owned();
        let keys: Vec<PrivateKey> =
            (0..2).map(|_| PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()).collect();
        let task = tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            let mut hanging = Vec::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut now = shared.lock().unwrap();
                if now.hang > 0 {
                    now.hang -= 1;
                    hanging.push(stream);
                    continue;
                }
                if now.close > 0 {
                    now.close -= 1;
                    continue;
                }
                counter.fetch_add(1, Ordering::SeqCst);
                let config = Config {
                    keys: vec![keys[usize::from(now.other_host_key)].clone()],
                    auth_rejection_time: Duration::from_millis(1),
                    inactivity_timeout: None,
                    ..Config::default()
                };
                let handler = Server {
                    faults: shared.clone(),
                    channels: HashMap::new(),
                    inputs: HashMap::new(),
                    taken: 0,
                    opened: opened.clone(),
                    over: over.clone(),
                    cut: None,
                    temporary: temporary.clone(),
                };
                let slow = now.slow;
                drop(now);
                sessions.spawn(async move {
                    let (cut, mut cut_now) = tokio::sync::mpsc::channel::<Cut>(1);
                    let handler = Server { cut: Some(cut), ..handler };
                    // A session of russh runs in a task of its own, so the wire before it is what can be cut.
                    let mut stream = stream;
                    let (near, far) = tokio::io::duplex(1 << 16);
                    let serve = async {
                        if let Ok(session) = russh::server::run_stream(Arc::new(config), far, handler).await {
                            _ = session.await;
                        }
                        std::future::pending::<()>().await;
                    };
                    let carried = async {
                        let (from, to) = stream.split();
                        let (from_near, to_near) = tokio::io::split(near);
                        tokio::select! {
                            () = carry(from, to_near, slow) => {}
                            () = carry(from_near, to, slow) => {}
                        }
                    };
                    let how = tokio::select! {
                        () = serve => Cut::Close,
                        () = carried => Cut::Close,
                        Some(how) = cut_now.recv() => how,
                    };
                    match how {
                        Cut::Close => {}
                        Cut::Reset => stream.set_zero_linger().unwrap(),
                        Cut::Freeze => std::future::pending::<()>().await,
                    }
                });
            }
        });
        Self { address, faults, connections, channels, ended, task, scratch }
    }

    /// What lies in its temporary folder.
    pub fn left(&self) -> Vec<String> {
        names(&self.scratch)
    }

    pub fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().unwrap());
    }
}

/// How a connection ends.
enum Cut {
    Close,
    Reset,
    Freeze,
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, slow: Option<Duration>) {
    let mut buffer = vec![0; if slow.is_some() { 256 } else { 1 << 16 }];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
            return;
        }
        if let Some(pause) = slow {
            tokio::time::sleep(pause).await;
        }
    }
}

struct Server {
    faults: Arc<Mutex<Faults>>,
    channels: HashMap<ChannelId, Channel<Msg>>,
    inputs: HashMap<ChannelId, tokio::sync::mpsc::UnboundedSender<Vec<u8>>>,
    /// How many bytes of input have come.
    taken: usize,
    opened: Arc<AtomicUsize>,
    over: Arc<AtomicUsize>,
    cut: Option<tokio::sync::mpsc::Sender<Cut>>,
    temporary: std::path::PathBuf,
}

fn take(count: &mut usize) -> bool {
    let some = *count > 0;
    *count = count.saturating_sub(1);
    some
}

impl Handler for Server {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, _: &str, _: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(if take(&mut self.faults.lock().unwrap().refuse_keys) { Auth::reject() } else { Auth::Accept })
    }

    async fn auth_publickey(&mut self, user: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(if user == "forge" { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if take(&mut self.faults.lock().unwrap().refuse_channels) {
            drop(reply);
            return Ok(());
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let program =
            ["/usr/lib/openssh/sftp-server", "/usr/lib/ssh/sftp-server", "/usr/libexec/openssh/sftp-server"]
                .into_iter()
                .find(|path| std::path::Path::new(path).exists());
        match program {
            Some(program) if name == "sftp" && !self.faults.lock().unwrap().no_sftp => {
                session.channel_success(id)?;
                self.spawn(id, program.to_owned(), session.handle());
            }
            _ => session.channel_failure(id)?,
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.faults.lock().unwrap().refuse_commands {
            return session.channel_failure(id);
        }
        session.channel_success(id)?;
        let line = String::from_utf8(data.to_vec()).unwrap();
        let windows = self.faults.lock().unwrap().windows.clone();
        match windows {
            Some(disk) => self.play(id, line, disk, session.handle()),
            None => self.spawn(id, line, session.handle()),
        }
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        let before = self.taken;
        self.taken += data.len();
        let most = self.faults.lock().unwrap().cut_input_at.unwrap_or(usize::MAX);
        if let Some(input) = self.inputs.get(&id) {
            _ = input.send(data[..data.len().min(most.saturating_sub(before))].to_vec());
        }
        if let (true, Some(cut)) = (self.taken >= most, &self.cut) {
            self.inputs.clear();
            _ = cut.send(Cut::Close).await;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.inputs.remove(&id);
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.inputs.remove(&id);
        self.channels.remove(&id);
        Ok(())
    }
}

impl Server {
    /// Plays a command of PowerShell, once its input has ended.
    fn play(&mut self, id: ChannelId, line: String, disk: std::path::PathBuf, handle: Handle) {
        let (sender, mut input) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
        self.inputs.insert(id, sender);
        if let Some(mut channel) = self.channels.remove(&id) {
            tokio::spawn(async move { while channel.wait().await.is_some() {} });
        }
        tokio::spawn(async move {
            let mut stdin = Vec::new();
            while let Some(bytes) = input.recv().await {
                stdin.extend(bytes);
            }
            let (out, err, code) = super::windows_tests::played(line, stdin, &disk);
            for piece in out.chunks(30_000) {
                _ = handle.data(id, piece.to_vec()).await;
            }
            _ = handle.extended_data(id, 1, err).await;
            _ = handle.exit_status_request(id, code).await;
            _ = handle.eof(id).await;
            _ = handle.close(id).await;
        });
    }

    fn spawn(&mut self, id: ChannelId, line: String, handle: Handle) {
        let (sender, mut input) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
        self.inputs.insert(id, sender);
        // The data comes to the handler too; the channel's own buffer must not fill up.
        if let Some(mut channel) = self.channels.remove(&id) {
            tokio::spawn(async move { while channel.wait().await.is_some() {} });
        }
        let (faults, cut) = (self.faults.lock().unwrap().clone(), self.cut.clone());
        let (temporary, over) = (self.temporary.clone(), self.over.clone());
        tokio::spawn(async move {
            let mut child = process::Command::new("/bin/sh");
            let line = line.replace("/dev/shm", temporary.to_str().unwrap());
            child.arg("-c").arg(line).kill_on_drop(true).env("TMPDIR", temporary);
            child.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            let mut child = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
            let (mut stdin, mut stdout, mut stderr) =
                (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
            tokio::spawn(async move {
                while let Some(bytes) = input.recv().await {
                    if stdin.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
            });
            let errors = handle.clone();
            let stderr = tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
                    _ = errors.extended_data(id, 1, buffer[..n].to_vec()).await;
                }
            });
            let mut buffer = [0; 4096];
            let mut before = String::new();
            if faults.status_first {
                _ = handle.exit_status_request(id, 0).await;
            }
            let mut most = faults.most_output.unwrap_or(usize::MAX);
            while let Ok(n @ 1..) = stdout.read(&mut buffer).await {
                _ = handle.data(id, buffer[..n.min(most)].to_vec()).await;
                most = most.saturating_sub(n);
                if let (Some(at), Some(cut)) = (faults.cut_at.or(faults.freeze_at), &cut) {
                    before.push_str(&String::from_utf8_lossy(&buffer[..n]));
                    if before.contains(at) {
                        let how = if faults.freeze_at.is_some() { Cut::Freeze } else { Cut::Close };
                        _ = cut.send(if faults.reset { Cut::Reset } else { how }).await;
                        return;
                    }
                }
            }
            _ = stderr.await;
            let status = child.wait().await.unwrap();
            over.fetch_add(1, Ordering::SeqCst);
            if !faults.no_exit_status && !faults.status_first {
                match status.code() {
                    Some(code) => _ = handle.exit_status_request(id, u32::try_from(code).unwrap()).await,
                    None => {
                        let killed = handle.exit_signal_request(
                            id,
                            russh::Sig::KILL,
                            false,
                            String::new(),
                            String::new(),
                        );
                        _ = killed.await;
                    }
                }
            }
            _ = handle.eof(id).await;
            _ = handle.close(id).await;
        });
    }
}
