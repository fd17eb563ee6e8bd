//! A command on an SSH channel.

use std::time::Duration;

use forge_machine::{Command, ExecOutcome, GuestError, OutputSink, Stream};
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelWriteHalf, Sig};
use tokio::time::{Instant, sleep_until, timeout};

use super::quote;

/// How long output may still come after the exit status. A daemon that was left in the background may hold the
/// command's output open for ever; the command itself has ended.
const AFTERMATH: Duration = Duration::from_secs(2);
/// The same for output that does not cease: that of a daemon which talks on.
const AFTERMATH_IN_ALL: Duration = Duration::from_secs(10);
/// What is still on its way when a command ends comes at least this fast, in bytes a second, and is no more than fits into
/// the channel's window and a few buffers; what comes slower or is more is a daemon's.
const SLOWEST: u64 = 14 << 10;
const ON_ITS_WAY: u64 = 4 << 20;

/// The line for sshd, which hands it to the user's own shell: that may be one that is not like `/bin/sh`. What is meant for
/// that very shell goes as it is.
pub(super) fn line(command: &Command) -> String {
    if command.native {
        return command.line.clone();
    }
    let line = format!("{}{}", quote::exports(&command.env), command.line);
    format!("exec /bin/sh -c {}", quote::sh(&line))
}

/// A command's own end, or that of its time.
pub(super) async fn in_time(
    command: &Command,
    run: impl Future<Output = Result<ExecOutcome, GuestError>>,
) -> Result<ExecOutcome, GuestError> {
    let Some(limit) = command.timeout else { return run.await };
    timeout(limit, run).await.unwrap_or_else(|_| {
        let what = command.line.lines().next().unwrap_or_default();
        Err(GuestError::TimedOut { what: what.chars().take(120).collect(), limit })
    })
}

/// Why a command did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The server refuses to run commands on this account.
    #[error("the server refuses to run commands")]
    Refused,
    /// The connection failed before the command was accepted.
    #[error(transparent)]
    Connection(#[from] russh::Error),
}

/// Closes the channel when the command is given up: the server then ends the command, or lets it run into a closed
/// pipe.
struct CloseWhenDropped(Option<ChannelWriteHalf<Msg>>);

impl Drop for CloseWhenDropped {
    fn drop(&mut self) {
        if let (Some(channel), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                // Both fail when the connection is gone, and then nothing is left to be closed.
                if channel.signal(Sig::TERM).await.is_ok() {
                    _ = channel.close().await;
                }
            });
        }
    }
}

/// What a command reads.
pub(super) enum Input<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// What a file holds from where it is read next.
    File(tokio::fs::File),
}

impl<'a> Input<'a> {
    /// That of a command.
    pub fn of(command: &'a Command) -> std::io::Result<Self> {
        match &command.file {
            Some(file) => Ok(Self::File(tokio::fs::File::from_std(file.try_clone()?))),
            None => Ok(Self::Bytes(&command.stdin)),
        }
    }
}

/// Runs a command line on a fresh channel to its end.
///
/// Dropping it asks the server to end the command and closes the channel.
pub(super) async fn run(
    channel: Channel<Msg>,
    line: &str,
    stdin: Input<'_>,
    output: &mut dyn OutputSink,
) -> Result<ExecOutcome, StartError> {
    channel.exec(true, line).await?;
    let (mut reader, writer) = channel.split();
    let mut guard = CloseWhenDropped(Some(writer));
    let mut outcome = None;
    {
        let writer = guard.0.as_ref();
        // Written beside reading: a command that answers before it has read everything would block both sides.
        let feed = async {
            if let Some(writer) = writer {
                // A command that does not read its input to the end is within its rights.
                let written = match stdin {
                    Input::Bytes([]) => true,
                    Input::Bytes(bytes) => writer.data_bytes(bytes.to_vec()).await.is_ok(),
                    Input::File(file) => writer.data(file).await.is_ok(),
                };
                if written {
                    _ = writer.eof().await;
                }
            }
        };
        tokio::pin!(feed);
        let mut fed = false;
        let mut over: Option<Instant> = None;
        let mut ended: Option<Instant> = None;
        let mut after = 0_u64;
        loop {
            let message = tokio::select! {
                () = &mut feed, if !fed => {
                    fed = true;
                    continue;
                }
                message = reader.wait() => message,
                () = async { sleep_until(over.unwrap_or_else(Instant::now)).await }, if over.is_some() => break,
            };
            if let (Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }), Some(_)) =
                (&message, ended)
            {
                after += data.len() as u64;
            }
            match message {
                Some(ChannelMsg::Data { data }) => output.write(Stream::Stdout, &data),
                Some(ChannelMsg::ExtendedData { data, .. }) => output.write(Stream::Stderr, &data),
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    outcome = Some(ExecOutcome::Exited(i32::try_from(exit_status).unwrap_or(i32::MAX)));
                }
                Some(ChannelMsg::ExitSignal { .. }) => outcome = Some(ExecOutcome::Signalled),
                Some(ChannelMsg::Failure) => return Err(StartError::Refused),
                Some(ChannelMsg::Close) | None => break,
                Some(_) => {}
            }
            if outcome.is_some() {
                let now = Instant::now();
                let flowing = if after < ON_ITS_WAY { after / SLOWEST } else { 0 };
                let most = AFTERMATH_IN_ALL + Duration::from_secs(flowing);
                over = Some((now + AFTERMATH).min(*ended.get_or_insert(now) + most));
            }
        }
    }
    if outcome.is_some()
        && let Some(channel) = guard.0.take()
    {
        // The server may have closed its side only because the command is over.
        _ = channel.close().await;
    }
    Ok(outcome.unwrap_or(ExecOutcome::Disconnected))
}
