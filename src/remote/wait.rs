//! Waits for the guest: asks again and again where it is, knocks at all its addresses at once, and logs in at the
//! first that shows a banner. Every change of what is seen is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use forge_machine::{AddressReport, Machine};
use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::FuturesUnordered;
use thiserror::Error;
use tokio::time::{sleep, timeout};

use super::access::{Patience, SshAccess};
use super::credentials::{Method, Progress};
use super::key::BuildKey;
use super::probe::{Probe, knock};
use super::route::{Route, resolve};
use super::session::{Credentials, KEEPALIVE, LoginError, Session};
use super::ssh::SshGuest;

/// The pause after a definite answer (refused, closed): short at first, since a guest that is just starting its
/// server refuses for a moment only.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two tries at a port.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The pause after an sshd has said that too many connections wait for a login: a busy guest needs time to notice that
/// they are gone.
const CROWDED_PAUSE: Duration = Duration::from_secs(5);
/// The pauses after a refused key. OpenSSH from 9.8 on shuts out an address whose refusals add up to 15 s of
/// penalty at 5 s each, so they stay below that.
const REFUSED_PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(3), Duration::from_secs(5)];
/// How often the addresses are asked for: nearly back to back while there is none, rarely when there is one.
const ASK_PAUSE: Duration = Duration::from_millis(100);
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How often the guest's addresses must be told, with none but other machines there, before that is the end: an address that
/// was the guest's before a reboot may be somebody else's by now, and its new one is told soon.
const TOLD: usize = 2;

/// Tells where the guest may be, again and again.
#[async_trait]
pub trait AddressSource: Send + Sync {
    /// Where it may be now; may take some seconds, and may be dropped. A failure to find out is a report without
    /// candidates whose detail says why.
    async fn addresses(&self) -> AddressReport;
}

/// The addresses that a VM's hypervisor knows.
#[derive(Clone, Debug)]
pub struct MachineAddresses(pub Arc<dyn Machine>);

#[async_trait]
impl AddressSource for MachineAddresses {
    async fn addresses(&self) -> AddressReport {
        match self.0.addresses().await {
            Ok(report) => report,
            Err(error) => AddressReport { detail: error.to_string(), ..AddressReport::default() },
        }
    }
}

/// One fixed address.
#[async_trait]
impl AddressSource for SocketAddr {
    async fn addresses(&self) -> AddressReport {
        AddressReport {
            candidates: vec![(self.ip(), self.port())],
            detail: "fixed address".into(),
            ..AddressReport::default()
        }
    }
}

/// A name or address that the profile gives.
#[derive(Clone, Debug)]
pub struct Named {
    /// The name or address.
    pub host: String,
    /// The port.
    pub port: u16,
}

#[async_trait]
impl AddressSource for Named {
    async fn addresses(&self) -> AddressReport {
        let detail = format!("{} by the profile", self.host);
        match resolve(&self.host).await {
            Ok(found) => AddressReport {
                candidates: found.into_iter().map(|address| (address, self.port)).collect(),
                detail,
                ..AddressReport::default()
            },
            Err(error) => AddressReport { detail: format!("{detail}: {error}"), ..AddressReport::default() },
        }
    }
}

/// The addresses of another source, at another port.
struct OtherPort {
    source: Arc<dyn AddressSource>,
    port: u16,
}

#[async_trait]
impl AddressSource for OtherPort {
    async fn addresses(&self) -> AddressReport {
        let mut report = self.source.addresses().await;
        for (_, port) in &mut report.candidates {
            // The target may have led port 22 elsewhere, and that is the better answer.
            if *port == 22 {
                *port = self.port;
            }
        }
        report
    }
}

/// Whom to wait for.
#[derive(Clone)]
pub struct WaitInput {
    /// Where the guest may be.
    pub source: Arc<dyn AddressSource>,
    /// The user to log in as.
    pub user: String,
    /// The build's key.
    pub key: Arc<BuildKey>,
    /// Other credentials, and the way there.
    pub access: SshAccess,
    /// The host key's fingerprint (`SHA256:…`), when it is known from before.
    pub host_key: Option<String>,
    /// How long it may take.
    pub limit: Duration,
}

/// The guest did not come.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WaitError {
    /// Nothing let the build in.
    #[error("no SSH login within {limit:?}; last seen: {last_seen}")]
    TimedOut {
        /// The limit.
        limit: Duration,
        /// What was seen last, of each address.
        last_seen: String,
    },
    /// The guest answers and never accepted the credentials.
    #[error("the guest refused the login of `{user}` until the limit of {limit:?}; last seen: {last_seen}")]
    Refused {
        /// The user.
        user: String,
        /// The limit.
        limit: Duration,
        /// What was seen last, of each address.
        last_seen: String,
    },
    /// Another machine than before answers.
    #[error("{guest} shows another host key than before: expected {expected}, saw {seen}")]
    HostKeyChanged {
        /// The guest, as `user@address`.
        guest: String,
        /// The fingerprint known from before.
        expected: String,
        /// The fingerprint shown now.
        seen: String,
    },
    /// The guest has not taken the host key that its seed brings.
    #[error("{guest} did not take the seed's host key: for {} s it has shown {seen}, and the seed has {given} for it", watched.as_secs())]
    SeedIgnored {
        /// The guest, as `user@address`.
        guest: String,
        /// The fingerprint of the seed's key.
        given: String,
        /// The fingerprint shown.
        seen: String,
        /// For how long.
        watched: Duration,
    },
}

impl WaitError {
    /// What to do about it; empty when there is nothing to say.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TimedOut { .. } => "",
            Self::Refused { .. } => {
                "does the seed (or the image) create this user with the build's key, and does its sshd allow keys?"
            }
            Self::SeedIgnored { .. } => {
                "does the guest run cloud-init, and read this seed rather than another source of data? else leave \
                 `access.host-key` out: the first key that is shown is recorded, and must stay"
            }
            Self::HostKeyChanged { .. } => {
                "another machine has this address, or the guest was installed anew: give the build VM an address of its own"
            }
        }
    }
}

/// Waits for the guest and logs in; `seen` is told each change of what is seen. May be dropped at any time.
///
/// # Errors
/// When nobody lets the build in before the limit, with what was seen last, or when another host key shows up than
/// the one known from before.
pub async fn wait_for_guest(
    input: WaitInput,
    seen: &(dyn Fn(&str) + Send + Sync),
) -> Result<Arc<SshGuest>, WaitError> {
    let access = input.access;
    let own = (!access.without_build_key).then(|| Method::Key(input.key.private()));
    let methods = own.into_iter().chain(access.methods).collect();
    let credentials = Credentials {
        user: input.user,
        methods: Arc::new(methods),
        old_algorithms: access.old_algorithms,
        keep_alive: access.keep_alive.unwrap_or(KEEPALIVE),
    };
    let source: Arc<dyn AddressSource> = match (access.host, access.port) {
        (None, None) => input.source,
        (Some(host), port) => Arc::new(Named { host, port: port.unwrap_or(22) }),
        (None, Some(port)) => Arc::new(OtherPort { source: input.source, port }),
    };
    let search = Search {
        source,
        credentials,
        host_key: input.host_key.or(access.host_key),
        limit: input.limit,
        route: access.route,
        windows: access.windows,
        patience: access.patience,
    };
    let session = find(&search, seen).await?;
    Ok(Arc::new(SshGuest::new(search, session)))
}

#[derive(Clone)]
pub(super) struct Search {
    pub source: Arc<dyn AddressSource>,
    pub credentials: Credentials,
    pub host_key: Option<String>,
    pub limit: Duration,
    pub route: Arc<Route>,
    pub windows: bool,
    /// For how long somebody else may answer at the guest's address.
    pub patience: Patience,
}

/// What is known of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sight {
    Nothing,
    Port(Probe),
    LoggingIn { banner: String },
    Login { banner: String, text: String, refused: bool, changed: Option<Other> },
}

/// Another host key than the known one, and since when nothing but it was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Other {
    key: String,
    since: Instant,
}

/// What is known altogether; shared between the candidates' loops and the words for it.
struct Board<'a> {
    state: Mutex<(String, BTreeMap<SocketAddr, Sight>, String)>,
    seen: &'a (dyn Fn(&str) + Send + Sync),
}

impl Board<'_> {
    fn set(&self, change: impl FnOnce(&mut String, &mut BTreeMap<SocketAddr, Sight>)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (detail, sights, told) = &mut *state;
        change(detail, sights);
        let words = in_words(detail, sights);
        if words != *told {
            told.clone_from(&words);
            (self.seen)(&words);
        }
    }

    fn sight(&self, address: SocketAddr, sight: Sight) {
        self.set(|_, sights| _ = sights.insert(address, sight));
    }

    fn sights(&self) -> BTreeMap<SocketAddr, Sight> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    fn last_seen(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).2.clone()
    }
}

fn in_words(detail: &str, sights: &BTreeMap<SocketAddr, Sight>) -> String {
    let mut words: Vec<String> = Vec::new();
    if !detail.is_empty() {
        words.push(detail.to_owned());
    }
    if sights.is_empty() {
        words.push("no address".to_owned());
    }
    words.extend(sights.iter().map(|(address, sight)| match sight {
        Sight::Nothing => format!("{address} asked"),
        Sight::Port(probe) => format!("{address} {probe}"),
        Sight::LoggingIn { banner } => format!("{address} {banner}, logging in"),
        Sight::Login { banner, text, .. } => format!("{address} {banner}, {text}"),
    }));
    words.join("; ")
}

/// Looks for the guest until it lets the build in.
pub(super) async fn find(search: &Search, seen: &(dyn Fn(&str) + Send + Sync)) -> Result<Session, WaitError> {
    let board = Board { state: Mutex::default(), seen };
    match timeout(search.limit, look(search, &board)).await {
        Ok(end) => end,
        Err(_) => Err(too_late(search, &board)),
    }
}

fn too_late(search: &Search, board: &Board<'_>) -> WaitError {
    let (sights, limit, last_seen) = (board.sights(), search.limit, board.last_seen());
    let last_seen = if last_seen.is_empty() { "nothing, not even an address".to_owned() } else { last_seen };
    if let Some(error) = sights.iter().find_map(|(address, sight)| changed(search, *address, sight)) {
        return error;
    }
    if sights.values().any(|sight| matches!(sight, Sight::Login { refused: true, .. })) {
        return WaitError::Refused { user: search.credentials.user.clone(), limit, last_seen };
    }
    WaitError::TimedOut { limit, last_seen }
}

fn changed(search: &Search, address: SocketAddr, sight: &Sight) -> Option<WaitError> {
    match sight {
        Sight::Login { changed: Some(other), .. } => {
            let guest = format!("{}@{address}", search.credentials.user);
            let expected = search.host_key.clone().unwrap_or_default();
            let (seen, watched) = (other.key.clone(), other.since.elapsed());
            Some(match search.patience {
                Patience::Seed(_) => WaitError::SeedIgnored { guest, given: expected, seen, watched },
                Patience::None | Patience::Installer => WaitError::HostKeyChanged { guest, expected, seen },
            })
        }
        _ => None,
    }
}

/// That the guest does not take the host key that its seed has for it: at one of its addresses nothing but the same other
/// key was shown for so long, and at none a server that may still be another.
fn ignored(search: &Search, sights: &BTreeMap<SocketAddr, Sight>) -> Option<WaitError> {
    let Patience::Seed(limit) = search.patience else { return None };
    let open = |sight: &Sight| matches!(sight, Sight::LoggingIn { .. } | Sight::Login { changed: None, .. });
    if sights.values().any(open) {
        return None;
    }
    sights.iter().find_map(|(address, sight)| match sight {
        Sight::Login { changed: Some(other), .. } if other.since.elapsed() >= limit => {
            changed(search, *address, sight)
        }
        _ => None,
    })
}

async fn look(search: &Search, board: &Board<'_>) -> Result<Session, WaitError> {
    let mut pursuits = FuturesUnordered::new();
    let mut pursued: BTreeMap<SocketAddr, AbortHandle> = BTreeMap::new();
    let mut ask = Box::pin(next_report(search, Duration::ZERO));
    let mut told = 0;
    loop {
        tokio::select! {
            report = &mut ask => {
                let pause = if report.candidates.is_empty() { ASK_PAUSE } else { ASK_AGAIN };
                ask = Box::pin(next_report(search, pause));
                let now: Vec<SocketAddr> = report.candidates.iter().map(|(ip, port)| (*ip, *port).into()).collect();
                // A silent agent says nothing against addresses that were learnt before.
                let keep_old = now.is_empty();
                if let Some(error) = ignored(search, &board.sights()) {
                    return Err(error);
                }
                if !keep_old && search.patience == Patience::None {
                    let sights = board.sights();
                    let other = |address: &SocketAddr| changed(search, *address, sights.get(address)?);
                    told = if now.iter().all(|address| other(address).is_some()) { told + 1 } else { 0 };
                    if let (true, Some(error)) = (told >= TOLD, now.iter().find_map(other)) {
                        return Err(error);
                    }
                }
                board.set(|detail, sights| {
                    *detail = report.detail;
                    sights.retain(|address, _| keep_old || now.contains(address));
                    for address in &now {
                        sights.entry(*address).or_insert(Sight::Nothing);
                    }
                });
                pursued.retain(|address, pursuit| {
                    let keep = keep_old || now.contains(address);
                    if !keep {
                        pursuit.abort();
                    }
                    keep
                });
                for address in now {
                    pursued.entry(address).or_insert_with(|| {
                        let (handle, registration) = AbortHandle::new_pair();
                        pursuits.push(Abortable::new(pursue(search, board, address), registration));
                        handle
                    });
                }
            }
            Some(end) = pursuits.next() => match end {
                Ok(session) => return Ok(session),
                Err(_aborted) => {}
            },
        }
    }
}

async fn next_report(search: &Search, pause: Duration) -> AddressReport {
    sleep(pause).await;
    search.source.addresses().await
}

/// Tries one address until it lets the build in. Another machine there may give way to the guest: an installer's sshd has a
/// key of its own, and addresses wander.
async fn pursue(search: &Search, board: &Board<'_>, address: SocketAddr) -> Session {
    let mut pause = FIRST_PAUSE;
    let mut progress = Progress::default();
    let mut refusals = 0;
    let mut other: Option<Other> = None;
    let mut last = Probe::TimedOut;
    loop {
        let began = Instant::now();
        let silent = |probe| board.sight(address, Sight::Port(probe));
        match knock(&search.route, address, &silent).await {
            Ok((stream, banner)) => {
                if refusals == 0 {
                    board.sight(address, Sight::LoggingIn { banner: banner.clone() });
                }
                let (credentials, known) = (&search.credentials, search.host_key.as_deref());
                let login = Session::login(stream, address, credentials, known, &mut progress);
                let error = match login.await {
                    Ok(session) => return session,
                    Err(error) => error,
                };
                let text = error.to_string();
                let refused = matches!(error, LoginError::Refused(_) | LoginError::More(_));
                other = match error {
                    LoginError::HostKeyChanged { seen: key, .. } => {
                        let since = other.filter(|other| other.key == key).map(|other| other.since);
                        Some(Other { key, since: since.unwrap_or_else(Instant::now) })
                    }
                    _ => None,
                };
                // Nothing was offered to it, so nothing was refused; it is not asked often.
                let again = refused || other.is_some();
                board.sight(address, Sight::Login { banner, text, refused, changed: other.clone() });
                pause = if again {
                    REFUSED_PAUSES[refusals.min(REFUSED_PAUSES.len() - 1)]
                } else {
                    LONGEST_PAUSE
                };
                refusals = if again { refusals + 1 } else { 0 };
            }
            Err(probe) => {
                // Something new, or an answer after a long silence: the next change is near.
                if probe != last || began.elapsed() > LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                } else {
                    pause = (pause * 3 / 2).min(LONGEST_PAUSE);
                }
                if probe.is_crowded() {
                    pause = CROWDED_PAUSE;
                }
                last = probe.clone();
                other = None;
                board.sight(address, Sight::Port(probe));
            }
        }
        sleep(pause).await;
    }
}
