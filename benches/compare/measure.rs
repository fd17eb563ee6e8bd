//! One clock and one set of marks for all builders, taken from outside: what the guest does is seen by a watcher that
//! asks neither forge nor Packer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::Builder;

/// How often the watcher and the floor look.
pub const TICK: Duration = Duration::from_millis(20);
/// How long a port that accepts may be silent until it is knocked at anew: QEMU's user network accepts before the guest
/// has an address.
const SILENCE: Duration = Duration::from_millis(500);

/// A moment of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// The guest's QEMU process is there.
    Runs,
    /// The guest's SSH server shows its banner.
    Banner,
    /// The script's first line came back.
    First,
    /// The script's last line came back.
    Last,
    /// The guest's QEMU process is gone.
    Off,
}

/// The marks of a build that is under way.
#[derive(Debug)]
pub struct Marks {
    began: Instant,
    marks: Mutex<BTreeMap<Mark, Duration>>,
}

impl Marks {
    /// Starts the clock.
    pub fn start() -> Self {
        Self { began: Instant::now(), marks: Mutex::default() }
    }

    /// The time since the build began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Marks this moment, unless it was marked before.
    pub fn set(&self, mark: Mark) {
        let now = self.elapsed();
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).entry(mark).or_insert(now);
    }

    /// Whether a moment was marked.
    pub fn has(&self, mark: Mark) -> bool {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&mark)
    }

    /// Marks the script's lines.
    pub fn line(&self, line: &str) {
        if line.contains(crate::scene::FIRST_LINE) {
            self.set(Mark::First);
        } else if line.contains(crate::scene::LAST_LINE) {
            self.set(Mark::Last);
        }
    }

    /// The build is over.
    pub fn end(self, builder: Builder, stages: Vec<(String, Duration)>) -> Run {
        let wall = self.elapsed();
        let marks = self.marks.into_inner().unwrap_or_else(PoisonError::into_inner);
        Run { builder, wall, marks, stages, memory: None, image: None }
    }
}

/// A build that is over.
#[derive(Debug)]
pub struct Run {
    /// Whose it was.
    pub builder: Builder,
    /// From its start to its end.
    pub wall: Duration,
    /// Its moments, since its start.
    pub marks: BTreeMap<Mark, Duration>,
    /// Its stages by forge's names, with their times.
    pub stages: Vec<(String, Duration)>,
    /// Most memory that the builder's own processes took together, in bytes, shared pages counted once.
    pub memory: Option<u64>,
    /// Bytes that the image takes.
    pub image: Option<u64>,
}

/// Watches the guest until it is gone, and then does nothing for ever. Never ends, so that it can stand beside a build.
pub async fn watch(
    marks: &Marks,
    runs: impl Fn() -> bool,
    address: impl Fn() -> Option<SocketAddr>,
) -> std::convert::Infallible {
    while !runs() {
        sleep(TICK).await;
    }
    marks.set(Mark::Runs);
    while runs() {
        match address() {
            Some(address) if has_banner(address).await => {
                marks.set(Mark::Banner);
                break;
            }
            _ => sleep(TICK).await,
        }
    }
    while runs() {
        sleep(TICK).await;
    }
    marks.set(Mark::Off);
    std::future::pending().await
}

/// Whether an SSH server answers there.
pub async fn has_banner(address: SocketAddr) -> bool {
    let knock = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let mut banner = [0; 4];
        stream.read_exact(&mut banner).await.ok()?;
        Some(&banner == b"SSH-")
    };
    matches!(timeout(SILENCE, knock).await, Ok(Some(true)))
}
