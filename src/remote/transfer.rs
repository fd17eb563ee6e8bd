//! Files to and from the guest: SFTP, or plain commands where the server has no SFTP.

use std::time::Duration;

use forge_machine::{Command, ExecOutcome, Guest, GuestError, OutputSink, Stream};
use russh::ChannelMsg;
use russh_sftp::client::{Config, SftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::quote::sh;
use super::ssh::SshGuest;

/// How long a server may take to say whether it has SFTP.
const SUBSYSTEM_LIMIT: Duration = Duration::from_secs(20);

/// Opens SFTP on a fresh channel; `None` when the server has none.
pub(super) async fn sftp(channel: russh::Channel<russh::client::Msg>) -> Option<SftpSession> {
    let asked = async move {
        let mut channel = channel;
        channel.request_subsystem(true, "sftp").await.ok()?;
        loop {
            match channel.wait().await? {
                ChannelMsg::Success => break,
                ChannelMsg::Failure | ChannelMsg::Close | ChannelMsg::Eof => return None,
                _ => {}
            }
        }
        // OpenSSH says yes even when its SFTP program is missing: the first answer of the protocol is what counts.
        let config = Config { request_timeout_secs: 60, ..Config::default() };
        SftpSession::new_with_config(channel.into_stream(), config).await.ok()
    };
    timeout(SUBSYSTEM_LIMIT, asked).await.ok().flatten()
}

fn failed(path: &str, source: impl Into<forge_machine::error::Cause>) -> GuestError {
    GuestError::Transfer { path: path.to_owned(), source: source.into() }
}

fn too_large(path: &str, limit: u64) -> GuestError {
    failed(path, format!("it is larger than {limit} bytes"))
}

/// The temporary name beside a file: the same folder, so that the rename is atomic.
fn beside(path: &str) -> String {
    format!("{path}.forge-{:016x}", rand::random::<u64>())
}

pub(super) async fn put(guest: &SshGuest, path: &str, content: &[u8], mode: u32) -> Result<(), GuestError> {
    let part = beside(path);
    if let Some(sftp) = guest.sftp().await? {
        let written = async {
            let attributes = FileAttributes { permissions: Some(0o600), ..FileAttributes::default() };
            let flags = OpenFlags::CREATE | OpenFlags::EXCLUDE | OpenFlags::WRITE;
            let mut file = sftp.open_with_flags_and_attributes(&part, flags, attributes).await?;
            file.write_all(content).await?;
            file.sync_all().await?;
            file.close().await?;
            Ok::<_, forge_machine::error::Cause>(())
        };
        let written = written.await;
        if written.is_err() {
            // A disk without room is not left with less of it.
            _ = sftp.remove_file(&part).await;
        }
        _ = sftp.close().await;
        written.map_err(|error| failed(path, error))?;
        // SFTP's own rename refuses to replace a file.
        place(guest, path, &part, mode, "", &[]).await
    } else {
        put_by_command(guest, path, content, mode).await
    }
}

/// Writes a file by plain commands.
pub(super) async fn put_by_command(
    guest: &dyn Guest,
    path: &str,
    content: &[u8],
    mode: u32,
) -> Result<(), GuestError> {
    place(guest, path, &beside(path), mode, "umask 077; cat >\"$part\" || fail; ", content).await
}

/// Gives the temporary file its mode and its name, after `first` has made it.
async fn place(
    guest: &dyn Guest,
    path: &str,
    part: &str,
    mode: u32,
    first: &str,
    stdin: &[u8],
) -> Result<(), GuestError> {
    let mode = mode & 0o7777;
    let line = format!(
        "part={}; to={}; fail() {{ rm -f \"$part\"; exit 1; }}; {first}chmod {mode:o} \"$part\" && mv -f \"$part\" \"$to\" || fail",
        sh(part),
        sh(path),
    );
    let command = Command { line, stdin: stdin.to_vec(), ..Command::default() };
    let mut output = Vec::new();
    let outcome = guest.exec(&command, &mut output).await?;
    succeeded(outcome, &output, path)
}

pub(super) async fn get(guest: &SshGuest, path: &str, limit: u64) -> Result<Vec<u8>, GuestError> {
    if let Some(sftp) = guest.sftp().await? {
        let read = async {
            let file = sftp.open(path).await?;
            let mut content = Vec::new();
            file.take(limit.saturating_add(1)).read_to_end(&mut content).await?;
            Ok::<_, forge_machine::error::Cause>(content)
        };
        let read = read.await;
        _ = sftp.close().await;
        let content = read.map_err(|error| failed(path, error))?;
        return if content.len() as u64 > limit { Err(too_large(path, limit)) } else { Ok(content) };
    }
    get_by_command(guest, path, limit).await
}

/// Reads a file by plain commands.
pub(super) async fn get_by_command(guest: &dyn Guest, path: &str, limit: u64) -> Result<Vec<u8>, GuestError> {
    // What ends the content: a command's status says nothing of output that was lost after it.
    let end = format!("forge-end-{:032x}", rand::random::<u128>());
    let most = limit.saturating_add(end.len() as u64);
    let mut output = Capped { content: Vec::new(), errors: Vec::new(), limit: most };
    let line = format!("head -c {} <{} && printf %s {end}", limit.saturating_add(1), sh(path));
    let outcome = guest.exec(&Command::new(line), &mut output).await?;
    succeeded(outcome, &output.errors, path)?;
    if output.content.len() as u64 <= most {
        let Some(length) = output.content.strip_suffix(end.as_bytes()).map(<[u8]>::len) else {
            return Err(failed(path, format!("only the first {} bytes of it came", output.content.len())));
        };
        output.content.truncate(length);
    }
    if output.content.len() as u64 > limit { Err(too_large(path, limit)) } else { Ok(output.content) }
}

struct Capped {
    content: Vec<u8>,
    errors: Vec<u8>,
    limit: u64,
}

impl OutputSink for Capped {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout if self.content.len() as u64 <= self.limit => {
                self.content.extend_from_slice(bytes);
            }
            Stream::Stderr if self.errors.len() < 4096 => self.errors.extend_from_slice(bytes),
            _ => {}
        }
    }
}

fn succeeded(outcome: ExecOutcome, output: &[u8], path: &str) -> Result<(), GuestError> {
    let said = String::from_utf8_lossy(output).trim().to_owned();
    match outcome {
        ExecOutcome::Exited(0) => Ok(()),
        ExecOutcome::Exited(_) if !said.is_empty() => Err(failed(path, said)),
        ExecOutcome::Exited(status) => Err(failed(path, format!("the command exited with status {status}"))),
        ExecOutcome::Signalled => Err(failed(path, "the command was killed by a signal")),
        ExecOutcome::Disconnected => Err(failed(path, "the connection was lost")),
    }
}
