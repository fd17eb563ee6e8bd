//! Reaches a guest by the first of several ways that works: all are tried at once, and the order says which is wanted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use forge_machine::{AgentChannel, Guest};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until};

use super::connect::{Connector, Login, SshConnector};
use crate::engine::StageError;
use crate::remote::{
    AddressSource, AgentGuest, ConsoleLogin, MachinePort, Named, Password, SerialChannel, Via, WinRmGuest,
    WinRmInput, WinRmLogin, WinRmPlan,
};

/// How long a better way is still waited for when a lesser one has come about: an agent answers before SSH does.
const PATIENCE: Duration = Duration::from_secs(60);

/// The ways, the best first.
#[derive(Clone, Debug)]
pub struct Ways {
    /// Which, in their order.
    pub via: Vec<Via>,
    /// How SSH logs in.
    pub ssh: SshConnector,
    /// How WinRM is spoken.
    pub winrm: WinRmPlan,
}

type Came = Result<Arc<dyn Guest>, StageError>;

#[async_trait]
impl Connector for Ways {
    async fn connect(
        &self,
        login: &Login,
        seen: &(dyn for<'a> Fn(&'a str) + Send + Sync),
    ) -> Result<Arc<dyn Guest>, StageError> {
        let told = Mutex::new(vec![String::new(); self.via.len()]);
        let told = &told;
        let ways = self.via.iter().enumerate().map(|(rank, via)| {
            let tell = move |words: &str| {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(mine) = told.get_mut(rank) {
                    *mine = format!("{via}: {words}");
                }
                let all: Vec<&str> =
                    told.iter().map(String::as_str).filter(|words| !words.is_empty()).collect();
                seen(&all.join("; "));
            };
            async move { self.one(*via, login, &tell).await }.boxed()
        });
        first_of(ways.collect(), PATIENCE).await
    }
}

/// The first in order that comes about; one behind it is taken when the better ones failed, or did not come within the
/// patience after it.
async fn first_of(ways: Vec<BoxFuture<'_, Came>>, patience: Duration) -> Came {
    // Whether it is still tried, by rank.
    let mut open = vec![true; ways.len()];
    let mut trying: FuturesUnordered<_> =
        ways.into_iter().enumerate().map(|(rank, way)| async move { (rank, way.await) }).collect();
    let mut best: Option<(usize, Arc<dyn Guest>)> = None;
    let mut until: Option<Instant> = None;
    let mut failures: Vec<(usize, StageError)> = Vec::new();
    loop {
        let rank_of_best = best.as_ref().map_or(open.len(), |(rank, _)| *rank);
        if !open.iter().take(rank_of_best).any(|open| *open) {
            break;
        }
        let patience_ends = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let came = tokio::select! {
            came = trying.next() => came,
            () = patience_ends => None,
        };
        let Some((rank, came)) = came else { break };
        if let Some(open) = open.get_mut(rank) {
            *open = false;
        }
        match came {
            Ok(guest) => {
                until = until.or(Some(Instant::now() + patience));
                let worse =
                    if rank < rank_of_best { best.replace((rank, guest)) } else { Some((rank, guest)) };
                if let Some((_, worse)) = worse {
                    worse.close().await;
                }
            }
            Err(error) => failures.push((rank, error)),
        }
    }
    if let Some((_, guest)) = best {
        return Ok(guest);
    }
    failures.sort_by_key(|(rank, _)| *rank);
    let mut failures = failures.into_iter().map(|(_, error)| error);
    let first = failures.next().unwrap_or_else(|| StageError::new("no way to the guest is named"));
    Err(failures.fold(first, |error, other| error.seen(crate::engine::error::chain(&other))))
}

impl Ways {
    async fn one(
        &self,
        via: Via,
        login: &Login,
        seen: &(dyn for<'a> Fn(&'a str) + Send + Sync),
    ) -> Result<Arc<dyn Guest>, StageError> {
        match via {
            Via::Ssh => self.ssh.connect(login, seen).await,
            Via::WinRm => {
                let source: Arc<dyn AddressSource> = match &self.ssh.access.host {
                    Some(host) => Arc::new(Named { host: host.clone(), port: self.winrm.port() }),
                    None => login.addresses(),
                };
                let password = match &login.windows_password {
                    Some(password) => password.clone(),
                    None => Password::new(self.ssh.access.password().unwrap_or_default()),
                };
                let input = WinRmInput {
                    source,
                    port: self.winrm.port(),
                    login: Arc::new(WinRmLogin {
                        user: login.user.clone(),
                        password,
                        auth: self.winrm.auth,
                        tls: self.winrm.use_ssl,
                        certificate: self.winrm.certificate(),
                        name: self.ssh.access.host.clone(),
                    }),
                };
                match WinRmGuest::connect(input, login.limit, seen).await {
                    Ok(guest) => Ok(guest),
                    Err(error) => Err(StageError::caused("WinRM did not let the build in", error)),
                }
            }
            Via::Agent => {
                let channel = login.machine.agent().ok_or_else(|| {
                    StageError::new("the VM has no guest agent").hint("let `vm.agent` be true")
                })?;
                by(channel, login, seen).await
            }
            Via::Serial => {
                let console = ConsoleLogin {
                    user: login.user.clone(),
                    password: self.ssh.access.password().unwrap_or_else(|| login.key.console_password()),
                };
                let port = Arc::new(MachinePort(login.machine.clone()));
                by(Arc::new(SerialChannel::new(port, console)), login, seen).await
            }
        }
    }
}

async fn by(
    channel: Arc<dyn AgentChannel>,
    login: &Login,
    seen: &(dyn for<'a> Fn(&'a str) + Send + Sync),
) -> Result<Arc<dyn Guest>, StageError> {
    let what = format!("{} did not let the build in", channel.name());
    match AgentGuest::connect(channel, &login.user, login.limit, seen).await {
        Ok(guest) => Ok(guest),
        Err(error) => Err(StageError::caused(what, error)),
    }
}

#[cfg(test)]
mod tests;
