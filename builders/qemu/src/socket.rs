//! Connecting to Unix sockets, whatever the length of their path.
//!
//! A socket address holds 107 bytes of path (unix(7)); work directories are often deeper. A long path is reached
//! through its directory's descriptor: `/proc/self/fd/N/name`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

/// The longest path that fits into a socket address, its closing zero byte included.
const ADDRESS_LIMIT: usize = 107;

/// Connects once.
pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= ADDRESS_LIMIT {
        return UnixStream::connect(path).await;
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path of a socket"));
    };
    // Held open until the connection stands, because the address leads through it.
    let directory = File::open(directory)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).await
}

/// Connects, trying again until the deadline while nobody listens yet.
pub(crate) async fn connect_until(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let mut pause = Duration::from_millis(5);
    loop {
        match connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
                    && Instant::now() + pause < deadline =>
            {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(error) => return Err(error),
        }
    }
}
