//! Knocks at an SSH port until a banner shows, saying what is seen meanwhile.
//!
//! Tries overlap: a new connection is made twice a second while older ones still wait. QEMU's user network accepts a
//! first connection before the guest is up, lets it hang and resets it some 20 s later (measured); a SYN sent to an
//! interface that is not up yet is lost and retried by the kernel only after 1, 3, 7 s. A single try would sit such
//! a time out. One patient try beside them is for an sshd that needs longer for its banner than they live. The number
//! of tries in flight stays below OpenSSH's `MaxStartups` (10); an sshd that has not yet noticed which of them are gone
//! may say all the same that it has too many, and is left alone for a while then.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::route::{Route, Wire};

/// How often a new try is made while older ones are unanswered.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// How long one try may go without a banner. A loaded sshd under emulation needs more than a second.
const TRY_LIFE: Duration = Duration::from_secs(4);
/// How long the patient try may: QEMU's network resets one that is not answered after some 20 s.
const PATIENT_LIFE: Duration = Duration::from_secs(30);
/// The same through proxies and bastions.
const THROUGH_LIFE: Duration = Duration::from_secs(15);
/// How long a port that says something other than a banner is listened to: less than until the next try.
const CHATTER: Duration = Duration::from_millis(300);

/// What is seen at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The host answers that nothing listens there.
    Refused,
    /// No route to the host, or nobody has the address.
    NoRoute,
    /// The connection request is not answered.
    TimedOut,
    /// The connection is accepted and nothing is said.
    NoBanner,
    /// The connection is accepted and closed again without a word.
    Closed,
    /// An SSH server.
    Banner(String),
    /// Something that is no SSH server, or one that sends visitors away; its first words.
    NotSsh(String),
    /// Another failure of the connection, in the system's words.
    Failed(String),
}

impl Probe {
    /// Whether it is an sshd that says that too many connections wait for a login (OpenSSH's `MaxStartups`).
    pub(super) fn is_crowded(&self) -> bool {
        matches!(self, Self::NotSsh(words) if words.contains("MaxStartups"))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::NoRoute => f.write_str("no route"),
            Self::TimedOut => f.write_str("does not answer"),
            Self::NoBanner => f.write_str("accepts, no banner"),
            Self::Closed => f.write_str("accepts and closes, no banner"),
            Self::Banner(banner) => f.write_str(banner),
            Self::NotSsh(words) => write!(f, "not an SSH banner: {words}"),
            Self::Failed(words) => f.write_str(words),
        }
    }
}

/// Looks at a port for at most `limit`, and tells what was seen last. May be dropped.
pub async fn probe(address: IpAddr, port: u16, limit: Duration) -> Probe {
    let last = std::sync::Mutex::new(Probe::TimedOut);
    let seen = |probe: Probe| {
        if let Ok(mut last) = last.lock() {
            *last = probe;
        }
    };
    match timeout(limit, knock(&Route::default(), SocketAddr::new(address, port), &seen)).await {
        Ok(Ok((_, banner))) => Probe::Banner(banner),
        Ok(Err(probe)) => probe,
        Err(_) => last.into_inner().unwrap_or(Probe::TimedOut),
    }
}

/// Connects until a banner shows or the port gives a definite answer; tells of silence as long as it lasts.
///
/// The stream is handed over with the banner still unread. May be dropped.
pub(super) async fn knock(
    route: &Route,
    address: SocketAddr,
    seen: &(dyn Fn(Probe) + Send + Sync),
) -> Result<(Box<dyn Wire>, String), Probe> {
    if !route.is_direct() {
        return knock_through(route, address).await;
    }
    let accepted = AtomicBool::new(false);
    let mut tries = FuturesUnordered::new();
    tries.push(timeout(TRY_LIFE, attempt(address, &accepted)));
    let mut silent = false;
    let mut patient = std::pin::pin!(be_patient(address, &accepted));
    loop {
        tokio::select! {
            found = &mut patient => return Ok(found),
            Some(end) = tries.next() => match end {
                Ok(answer) => return answer,
                Err(_too_old) => {}
            },
            () = sleep(TRY_EVERY) => {
                if silent {
                    seen(if accepted.load(Ordering::Relaxed) { Probe::NoBanner } else { Probe::TimedOut });
                }
                silent = true;
                tries.push(timeout(TRY_LIFE, attempt(address, &accepted)));
            }
        }
    }
}

/// One try at a time that lives long; what goes wrong with it the others see too.
async fn be_patient(address: SocketAddr, accepted: &AtomicBool) -> (Box<dyn Wire>, String) {
    loop {
        sleep(TRY_LIFE).await;
        if let Ok(Ok(found)) = timeout(PATIENT_LIFE, attempt(address, accepted)).await {
            return found;
        }
    }
}

/// One try through proxies and bastions: they know better than a timer when a port does not answer, and each try is a
/// channel of theirs.
async fn knock_through(route: &Route, address: SocketAddr) -> Result<(Box<dyn Wire>, String), Probe> {
    let mut stream = route.connect(address).await.map_err(|error| Probe::Failed(error.to_string()))?;
    let mut read = Vec::new();
    let line = timeout(THROUGH_LIFE, async {
        loop {
            let byte = stream.read_u8().await.map_err(|_| Probe::Closed)?;
            read.push(byte);
            let complete = read.ends_with(b"\n");
            let start = read[..read.len() - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let line = String::from_utf8_lossy(&read[start..]).trim_end().to_owned();
            if complete && line.starts_with("SSH-") {
                return Ok(line);
            }
            if read.len() > 4096 {
                return Err(Probe::NotSsh(line.chars().filter(|c| !c.is_control()).take(80).collect()));
            }
        }
    });
    let banner = line.await.map_err(|_| Probe::NoBanner)??;
    // What was read is put back before the rest.
    let (reading, writing) = tokio::io::split(stream);
    let whole = tokio::io::join(std::io::Cursor::new(read).chain(reading), writing);
    Ok((Box::new(whole), banner))
}

async fn attempt(address: SocketAddr, accepted: &AtomicBool) -> Result<(Box<dyn Wire>, String), Probe> {
    let stream = TcpStream::connect(address).await.map_err(|error| judge(&error))?;
    accepted.store(true, Ordering::Relaxed);
    let banner = banner(&stream).await?;
    // Without it each small packet of a handshake may wait for an acknowledgement.
    stream.set_nodelay(true).map_err(|error| judge(&error))?;
    Ok((Box::new(stream), banner))
}

/// Peeks for the banner, so that the SSH client reads it again.
async fn banner(stream: &TcpStream) -> Result<String, Probe> {
    let mut buffer = [0_u8; 1024];
    let began = Instant::now();
    let mut before = 0;
    loop {
        let length = stream.peek(&mut buffer).await.map_err(|error| judge(&error))?;
        if length == 0 {
            return Err(Probe::Closed);
        }
        let text = String::from_utf8_lossy(&buffer[..length]);
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        if let Some(line) = complete.lines().find(|line| line.starts_with("SSH-")) {
            return Ok(line.trim_end().to_owned());
        }
        if length == buffer.len() || (!complete.is_empty() && began.elapsed() > CHATTER) {
            let words = complete.lines().next().unwrap_or_default();
            return Err(Probe::NotSsh(words.chars().filter(|c| !c.is_control()).take(80).collect()));
        }
        if length == before {
            // A peek of the same bytes returns at once; the rest of the line is under way.
            sleep(Duration::from_millis(10)).await;
        }
        before = length;
    }
}

fn judge(error: &std::io::Error) -> Probe {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => Probe::Refused,
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => Probe::NoRoute,
        Kind::TimedOut => Probe::TimedOut,
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => {
            Probe::Closed
        }
        _ => Probe::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn each_kind_of_answer_is_told_apart() {
        let free = TcpListener::bind((HOME, 0)).await.unwrap().local_addr().unwrap().port();
        assert_eq!(probe(HOME, free, Duration::from_secs(5)).await, Probe::Refused);
        for (says, expected) in [
            (&b"SSH-2.0-OpenSSH_9.2p1\r\n"[..], Probe::Banner("SSH-2.0-OpenSSH_9.2p1".into())),
            (b"Welcome\r\nSSH-2.0-x\r\n", Probe::Banner("SSH-2.0-x".into())),
            (b"Exceeded MaxStartups\r\n", Probe::NotSsh("Exceeded MaxStartups".into())),
            (b"", Probe::Closed),
        ] {
            let listener = TcpListener::bind((HOME, 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(says).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            assert_eq!(probe(HOME, port, Duration::from_secs(5)).await, expected);
            server.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_first_connection_that_hangs_does_not_delay_the_next() {
        let listener = TcpListener::bind((HOME, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let hanging = listener.accept().await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"SSH-2.0-late\r\n").await.unwrap();
            (hanging, stream)
        });
        assert_eq!(probe(HOME, port, Duration::from_secs(20)).await, Probe::Banner("SSH-2.0-late".into()));
        server.await.unwrap();
    }

    #[tokio::test]
    async fn an_sshd_that_needs_longer_than_most_tries_live_is_found_by_the_patient_one() {
        let listener = TcpListener::bind((HOME, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    sleep(TRY_LIFE + TRY_EVERY).await;
                    // Most of them are gone by then.
                    _ = stream.write_all(b"SSH-2.0-slow\r\n").await;
                    sleep(TRY_LIFE).await;
                });
            }
        });
        assert_eq!(probe(HOME, port, PATIENT_LIFE * 2).await, Probe::Banner("SSH-2.0-slow".into()));
        server.abort();
    }

    #[test]
    fn an_sshd_that_has_too_many_connections_is_known() {
        assert!(Probe::NotSsh("Exceeded MaxStartups".into()).is_crowded());
        assert!(!Probe::NotSsh("220 mail".into()).is_crowded());
        assert!(!Probe::Closed.is_crowded());
    }

    #[tokio::test]
    async fn an_accepted_connection_without_a_banner_is_told_as_such() {
        let listener = TcpListener::bind((HOME, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(probe(HOME, port, Duration::from_millis(1300)).await, Probe::NoBanner);
    }
}
