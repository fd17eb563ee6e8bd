//! A recording played to a console: an RFB server without a VM behind it.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::{Instant, sleep_until};

use super::{Recording, RecordingError};
use crate::console::{Console, ConsoleError};
use crate::frame::Frame;

/// The pseudo-encoding of a new size (RFC 6143 §7.8.2).
const DESKTOP_SIZE: i32 = -223;

impl Recording {
    /// Opens a console that shows the recording at its own pace, and its last frame from then on. Keys go nowhere.
    ///
    /// With tokio's time paused, as in tests, hours pass at once.
    ///
    /// # Errors
    /// When there is no picture in it, or one can't be read.
    pub async fn play(&self) -> Result<Console, ReplayError> {
        let mut frames = Vec::new();
        for shot in &self.shots {
            if let Some(frame) = self.picture(shot).map_err(ReplayError::Recording)? {
                frames.push((Duration::from_millis(shot.t_ms), frame));
            }
        }
        if frames.is_empty() {
            return Err(ReplayError::Empty);
        }
        let (ours, theirs) = duplex(256 * 1024);
        tokio::spawn(async move {
            // The console went away: nobody watches any more.
            let _nobody_watches = serve(theirs, frames).await;
        });
        Console::open(ours, None).await.map_err(ReplayError::Console)
    }
}

/// Why a recording can't be played.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Its files can't be read.
    #[error("the recording can't be read")]
    Recording(#[source] RecordingError),
    /// There are no pictures in it.
    #[error("the recording has no pictures")]
    Empty,
    /// The console did not open on it.
    #[error("the recording can't be shown")]
    Console(#[source] ConsoleError),
}

/// The server's half of opening a display of RFB 3.8 without a password.
pub(crate) async fn open(stream: &mut DuplexStream, size: [u8; 4], name: &str) -> std::io::Result<()> {
    stream.write_all(b"RFB 003.008\n").await?;
    stream.read_exact(&mut [0; 12]).await?;
    stream.write_all(&[1, 1]).await?;
    stream.read_exact(&mut [0; 1]).await?;
    stream.write_all(&[0; 4]).await?;
    stream.read_exact(&mut [0; 1]).await?;
    stream.write_all(&size).await?;
    // The client asks for its own pixel format.
    stream.write_all(&[0; 16]).await?;
    stream.write_u32(u32::try_from(name.len()).unwrap_or(0)).await?;
    stream.write_all(name.as_bytes()).await
}

async fn serve(mut stream: DuplexStream, frames: Vec<(Duration, Frame)>) -> std::io::Result<()> {
    let mut frames = frames.into_iter().peekable();
    let Some((_, first)) = frames.peek() else { return Ok(()) };
    open(&mut stream, size(first), "replay").await?;
    let began = Instant::now();
    let mut shown: Option<Frame> = None;
    let mut asked = false;
    loop {
        let due = frames.peek().map(|(at, _)| began + *at);
        tokio::select! {
            kind = stream.read_u8() => asked |= take_message(kind?, &mut stream).await?,
            () = wait_until(due), if asked => {
                let Some((_, frame)) = frames.next() else { continue };
                stream.write_all(&update(shown.as_ref(), &frame)).await?;
                shown = Some(frame);
                asked = false;
            }
        }
    }
}

/// Takes the rest of a message; `true` when it asks for an update.
async fn take_message(kind: u8, stream: &mut DuplexStream) -> std::io::Result<bool> {
    let length = match kind {
        0 => 19,
        2 => {
            let mut head = [0; 3];
            stream.read_exact(&mut head).await?;
            usize::from(u16::from_be_bytes([head[1], head[2]])) * 4
        }
        3 => 9,
        4 => 7,
        5 => 5,
        _ => return Err(std::io::ErrorKind::InvalidData.into()),
    };
    stream.read_exact(&mut vec![0; length]).await?;
    Ok(kind == 3)
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Width and height as the wire has them.
fn size(frame: &Frame) -> [u8; 4] {
    let side = |side: u32| u16::try_from(side).unwrap_or(u16::MAX).to_be_bytes();
    let ([a, b], [c, d]) = (side(frame.width()), side(frame.height()));
    [a, b, c, d]
}

/// A whole picture as an update of raw pixels, with the new size before it where it changed.
fn update(before: Option<&Frame>, frame: &Frame) -> Vec<u8> {
    let resized =
        before.is_some_and(|before| (before.width(), before.height()) != (frame.width(), frame.height()));
    let mut bytes = vec![0, 0, 0, 1 + u8::from(resized)];
    if resized {
        bytes.extend([0; 4]);
        bytes.extend(size(frame));
        bytes.extend(DESKTOP_SIZE.to_be_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend(size(frame));
    bytes.extend([0; 4]);
    for y in 0..frame.height() {
        bytes.extend(frame.row(0, y, frame.width()).iter().flat_map(|pixel| pixel.to_le_bytes()));
    }
    bytes
}
