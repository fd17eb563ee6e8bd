//! Finds the guest and logs in, saying all the time what is seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use forge_machine::{Guest, Machine, Power, StopLadder};

use super::install::{Again, eject, not_installed};
use super::{Connected, Running, Seeded, Watch, disk};
use crate::engine::error::chain;
use crate::engine::journal::KeptBuild;
use crate::engine::{Cx, Effect, StageError};
use crate::event::Stage;
use crate::plan::late::LateName;
use crate::plan::{AfterInstall, Delivery};
use crate::provision::Step;
use crate::remote::{
    AddressSource, BuildKey, Hints, Known, MachineAddresses, Password, Patience, SshAccess, Via, WaitInput,
    wait_for_guest,
};

/// What a connector is told of the login.
#[derive(Clone, Debug)]
pub struct Login {
    /// The VM, which knows the guest's addresses.
    pub machine: Arc<dyn Machine>,
    /// What is known of them besides.
    pub hints: Hints,
    /// The guest's interface whose addresses count alone.
    pub interface: Option<String>,
    /// The user.
    pub user: String,
    /// The build's key.
    pub key: Arc<BuildKey>,
    /// The host key's fingerprint, where the seed gave the guest its key.
    pub host_key: Option<String>,
    /// Whether an installer's own sshd may answer first.
    pub installs: bool,
    /// The password of the user whom the answers of an unattended Windows make.
    pub windows_password: Option<Password>,
    /// How long it may take.
    pub limit: Duration,
}

impl Login {
    /// Where the guest may be, from all who may know.
    pub(super) fn addresses(&self) -> Arc<dyn AddressSource> {
        let source = Arc::new(MachineAddresses(self.machine.clone()));
        Arc::new(Known { source, hints: self.hints.clone(), interface: self.interface.clone() })
    }
}

/// Logs in to guests: by SSH in the product, into a fake in the engine's tests.
#[async_trait]
pub trait Connector: std::fmt::Debug + Send + Sync {
    /// Waits for the guest and logs in; `seen` is told each change of what is seen. May be dropped.
    ///
    /// # Errors
    /// When the guest does not answer in time, with what was seen last.
    async fn connect(
        &self,
        login: &Login,
        seen: &(dyn for<'a> Fn(&'a str) + Send + Sync),
    ) -> Result<Arc<dyn Guest>, StageError>;
}

/// The fingerprint that the guest has to show from the first time on, where its seed gave it its host key.
fn given_host_key(cx: &Cx, key: &BuildKey) -> Result<Option<String>, StageError> {
    if !cx.plan.access.ssh.host_key_in_seed {
        return Ok(None);
    }
    let given =
        key.host_key().map_err(|error| StageError::caused("the guest's host key is not known", error))?;
    Ok(Some(given.fingerprint))
}

/// For how long a guest may show the same other host key than its seed's: an sshd may answer before cloud-init has read the
/// seed, and a slow machine takes its time between the two.
const SEED_IS_READ: Duration = Duration::from_secs(60);

/// How often the VM's state is asked for while the guest is awaited: rarely enough to cost nothing.
const STATE_EVERY: Duration = Duration::from_secs(2);

/// Waits for the guest and logs in.
///
/// # Errors
/// When the guest does not answer in time, stops, shows a screen that is known for a dead end (a kernel panic, a rescue
/// shell), or its screen stands still for too long.
pub async fn connect(cx: &mut Cx, mut running: Running, seeded: &Seeded) -> Result<Connected, StageError> {
    let limit = cx.plan.deadlines.connect;
    let began = Instant::now();
    let mut login = Login {
        machine: running.machine.clone(),
        hints: seeded.hints.clone(),
        interface: cx.plan.access.ssh.interface.clone(),
        user: cx.plan.access.user.clone(),
        key: seeded.key.clone(),
        host_key: given_host_key(cx, &seeded.key)?,
        installs: cx.plan.after_install.is_some(),
        windows_password: cx.plan.windows_password(&seeded.key).map(Password::new),
        limit,
    };
    let ways = Via::in_words(&cx.plan.access.via);
    cx.doing(Stage::Connect, format!("waiting for {ways} as {}", login.user));
    let connector = cx.connector.clone();
    let tell = |seen: &str| {
        let fetched = seeded.fetched_in_words();
        let seen = if fetched.is_empty() { seen.to_owned() } else { format!("{seen}; {fetched}") };
        cx.waiting(Stage::Connect, &ways, seen, limit);
    };
    // An installer may power the VM off when it is done, or reboot a VM that was started without a boot loader: its disks
    // are started then, once.
    let mut installing = cx.plan.after_install == Some(AfterInstall::Reboot);
    let result = loop {
        let step = cx
            .cancellable_effect(Effect::Login, async {
                tokio::select! {
                    biased;
                    result = cx.alive(login.machine.as_ref(), connector.connect(&login, &tell)) => {
                        result.map(Some)
                    }
                    early = ends_early(cx, &running, seeded) => match early {
                        Early::Stopped(_) if installing => Ok(None),
                        early => Err(early.into_error()),
                    },
                }
            })
            .await;
        match step {
            Ok(Some(guest)) => {
                let live = if login.installs { not_installed(cx, guest.as_ref()).await? } else { None };
                let Some(why) = live else { break Ok(guest) };
                guest.close().await;
                tell(&match cx.plan.access.windows {
                    true => format!("Windows answers, and is not ready ({why})"),
                    false => {
                        format!("the installer's own system answers, and not the installed one ({why})")
                    }
                });
                login.limit = limit.saturating_sub(began.elapsed());
                if login.limit.is_zero() {
                    break Err(StageError::new(format!(
                        "until the limit of {limit:?} nothing but a system that is not installed yet answered ({why})"
                    ))
                    .hint("does the installer end, and does the VM start from its disk then?"));
                }
                let pause = async {
                    tokio::time::sleep(STATE_EVERY).await;
                    Ok::<_, StageError>(())
                };
                cx.cancellable(pause).await?;
            }
            Err(error) => break Err(error),
            Ok(None) => {
                installing = false;
                cx.doing(Stage::Connect, "the installer is done; starting what it installed");
                eject(cx, &running.machine).await?;
                // Its recording ends before another one goes on in the same folder.
                running.watch = super::Watch::default();
                running.watch = start_again(cx, &running.machine).await?;
            }
        }
    };
    let guest = match result {
        Ok(guest) => guest,
        Err(error) => {
            running.watch.picture(cx, "connect failed");
            if error.is_interruption() {
                return Err(error);
            }
            let mut error = running.watch.last_lines().into_iter().fold(error, StageError::seen);
            // Of a guest whose target does not answer any more nobody knows anything.
            let machine = running.machine.as_ref();
            let asked = cx.cancellable(async { Ok::<_, StageError>(machine.state().await) }).await?;
            let runs = matches!(&asked, Ok(state) if state.power == Power::Running);
            if let Err(silent) = asked {
                error = error.of_target().seen(format!("the target, asked for the VM: {}", chain(&silent)));
            }
            let fetched = seeded.fetched_in_words();
            if !fetched.is_empty() {
                error = error.seen(fetched.clone());
            }
            // A guest that ended or never began to boot could not ask for anything.
            let strangers = seeded.strangers();
            if let Some(stranger) = strangers.first() {
                error = error.hint(format!(
                    "{stranger} asked for the seed and is in none of `seed.allowed-networks` of the target in forge.toml: is it the guest, or a router before it?"
                ));
            } else if runs && fetched.starts_with("no seed file") && running.watch.dead_end().is_none() {
                error = error.hint(format!(
                    "the guest never asked for its seed: can it reach {}:{} from its network?",
                    cx.bindings.get(LateName::SeedAddress).unwrap_or("?"),
                    cx.bindings.get(LateName::SeedPort).unwrap_or("?"),
                ));
            }
            return Err(error);
        }
    };
    // cloud-init reads its seed at every boot, and takes a guest without one for a new instance, with new host keys.
    if !cx.plan.provision.iter().any(Step::may_reboot) {
        seeded.close();
    }
    if cx.plan.after_install.is_some() {
        // A drive whose door the guest holds shut is emptied when the VM has stopped.
        if let Err(error) = eject(cx, &running.machine).await {
            if error.is_interruption() {
                return Err(error);
            }
            cx.warn(
                crate::engine::error::chain(&error),
                "the media are taken out when the guest has stopped",
            );
        }
    }
    let described = guest.describe();
    if let Some((_, address)) = described.split_once('@') {
        cx.bindings.bind(LateName::GuestAddress, address);
    }
    Ok(Connected { machine: running.machine, watch: running.watch, guest, key: seeded.key.clone() })
}

/// Why waiting on makes no sense.
enum Early {
    /// The VM has stopped, in the target's word.
    Stopped(String),
    /// Something else.
    Dead(StageError),
}

impl Early {
    fn into_error(self) -> StageError {
        match self {
            Self::Stopped(detail) => {
                StageError::new(format!("the VM stopped before the guest answered (it is {detail})"))
                    .hint("the last picture of its screen is in the evidence")
            }
            Self::Dead(error) => error,
        }
    }
}

/// Ends when waiting on makes no sense: the VM stopped, its screen says that the guest is dead, or stands still for
/// longer than the boot may.
async fn ends_early(cx: &Cx, running: &Running, seeded: &Seeded) -> Early {
    let began = Instant::now();
    let mut again = Again::default();
    loop {
        tokio::time::sleep(STATE_EVERY).await;
        match running.machine.state().await {
            Ok(state) => {
                if let Some(error) = disk::failed(&state) {
                    return Early::Dead(error);
                }
                if state.power != Power::Running {
                    return Early::Stopped(state.detail);
                }
            }
            // An answer that does not come says nothing about the guest.
            Err(error) => tracing::debug!(%error, "the VM's state is not known"),
        }
        if let Some(error) = running.stuck(cx.plan.deadlines.boot, began) {
            return Early::Dead(error);
        }
        // What was installed by an installer that is over does not read its answers.
        if cx.plan.after_install.is_some()
            && let Some(error) = again.look(cx, &running.watch, seeded)
        {
            return Early::Dead(error);
        }
    }
}

impl Running {
    /// Why waiting for the guest makes no sense: its screen says that it is dead, or stands still for longer than it may.
    pub(super) fn stuck(&self, limit: Duration, began: Instant) -> Option<StageError> {
        if let Some(sighting) = self.watch.dead_end() {
            return Some(
                StageError::new(format!("the guest will not come up: {}", sighting.known.name))
                    .seen(format!("the screen: {}", sighting.line))
                    .hint(sighting.known.advice),
            );
        }
        let still = self.watch.unchanged_for()?;
        (still.min(began.elapsed()) >= limit).then(|| {
            StageError::new(format!("the screen has not changed for {} s", still.as_secs())).hint(
                "the guest hangs, or boots without a console: raise `deadlines.boot` if that is its way",
            )
        })
    }
}

/// How long the guest of a kept build that still runs gets to shut down before its power is cut.
const STOP: Duration = Duration::from_secs(60);

/// Gives a kept VM its seed again. Whoever died in the middle of sealing does not know how far that came: a guest that
/// was sealed has no user to log in as, but like any clone of its template it takes one from a seed at its next start.
/// What came by a drive or a disc is still there; what was served is served anew.
async fn seed_again(
    cx: &mut Cx,
    machine: &Arc<dyn Machine>,
    key: Arc<BuildKey>,
) -> Result<Option<Seeded>, StageError> {
    let failed = |error| StageError::port(format!("{} could not be stopped", machine.reference()), error);
    if machine.state().await.map_err(failed)?.power != Power::Stopped {
        cx.doing(Stage::Connect, "stopping the kept VM, to start it anew");
        let ladder = StopLadder { agent: STOP, acpi: STOP, power_off: true };
        cx.cancellable(async { machine.stop(&ladder).await.map_err(failed) }).await?;
    }
    if cx.plan.seed.delivery != Delivery::Smbios {
        return Ok(None);
    }
    let seeded = super::seed::seed_user(cx, key).await?;
    let attachments = seeded.attachments(cx)?;
    let spec = super::media::prepare(cx).await?;
    let mark = cx.mark.clone();
    cx.effect(Effect::Configure, async {
        machine.configure(&spec, &mark, &attachments).await.map_err(|error| {
            StageError::port(format!("{} could not be given its seed again", machine.reference()), error)
        })
    })
    .await?;
    Ok(Some(seeded))
}

/// Starts a VM that has stopped, and opens its screen.
pub(super) async fn start_again(cx: &Cx, machine: &Arc<dyn Machine>) -> Result<Watch, StageError> {
    cx.effect(Effect::Start, async {
        let failed = |error| StageError::port(format!("{} could not be started", machine.reference()), error);
        let task = machine.submit_start().await.map_err(failed)?;
        cx.wait(&task).await.map_err(failed)
    })
    .await?;
    Ok(Watch::open(cx, machine.clone()).await.unwrap_or_default())
}

/// The key that was kept for a kept VM.
///
/// # Errors
/// When it is not there any more.
pub fn kept_key(kept: &KeptBuild) -> Result<Arc<BuildKey>, StageError> {
    let path = kept.key_file.as_ref().ok_or_else(|| {
        StageError::new("the build's key was not kept, so nobody can log in to seal the guest")
    })?;
    let text = std::fs::read_to_string(path).map_err(|error| {
        StageError::caused(format!("the build's key {} can't be read", path.display()), error)
    })?;
    BuildKey::from_openssh(&text)
        .map_err(|error| StageError::caused(format!("{} holds no key", path.display()), error))
        .map(Arc::new)
}

/// The operations of the seal after which a guest makes itself new host keys.
const NEW_HOST_KEYS: [&str; 2] = ["ssh-host-keys", "cloud-init"];

/// Starts a kept VM again and logs in with the key that was kept for it.
///
/// # Errors
/// When the key is gone, the VM can't be started, or the same guest does not answer.
pub async fn reconnect(
    cx: &mut Cx,
    machine: Arc<dyn Machine>,
    kept: &KeptBuild,
) -> Result<Connected, StageError> {
    let key = kept_key(kept)?;
    if cx.plan.access.makes_console_password() {
        cx.evidence.redactor().add_passing(&key.console_password());
    }
    if cx.plan.access.windows {
        cx.evidence.redactor().add_passing(&key.windows_password());
    }
    // Served until the guest has answered.
    let seeded = seed_again(cx, &machine, key.clone()).await?;
    cx.doing(Stage::Connect, "starting the kept VM");
    let watch = start_again(cx, &machine).await?;
    let limit = cx.plan.deadlines.connect;
    let login = Login {
        machine: machine.clone(),
        hints: seeded.as_ref().map(|seeded| seeded.hints.clone()).unwrap_or_default(),
        interface: cx.plan.access.ssh.interface.clone(),
        user: cx.plan.access.user.clone(),
        key: key.clone(),
        // Another than the seed's is not held against the guest: without its seed cloud-init may take it for a new
        // instance and make it new keys.
        host_key: given_host_key(cx, &key)?,
        installs: false,
        windows_password: cx.plan.windows_password(&key).map(Password::new),
        limit,
    };
    let connector = cx.connector.clone();
    let ways = Via::in_words(&cx.plan.access.via);
    let tell = |seen: &str| cx.waiting(Stage::Connect, &ways, seen, limit);
    let guest = cx.cancellable_effect(Effect::Login, connector.connect(&login, &tell)).await?;
    if kept.host_key.is_some() && guest.host_key() != kept.host_key {
        if cx.plan.seal.iter().any(|operation| NEW_HOST_KEYS.contains(&operation.as_str())) {
            cx.doing(Stage::Connect, "it has new host keys: sealing had begun, and removes the old ones");
        } else {
            cx.warn(
                "the kept guest shows another host key than during the build",
                "no operation of `[seal]` removes host keys; cloud-init makes new ones when it takes the guest for a new \
                 instance, else look who answers there",
            );
        }
    }
    Ok(Connected { machine, watch, guest, key })
}

/// Logs in by SSH.
#[derive(Clone, Debug, Default)]
pub struct SshConnector {
    /// Credentials besides the build's key, and the way to the guest.
    pub access: SshAccess,
}

#[async_trait]
impl Connector for SshConnector {
    async fn connect(
        &self,
        login: &Login,
        seen: &(dyn for<'a> Fn(&'a str) + Send + Sync),
    ) -> Result<Arc<dyn Guest>, StageError> {
        let input = WaitInput {
            source: login.addresses(),
            user: login.user.clone(),
            key: login.key.clone(),
            access: SshAccess {
                patience: match &login.host_key {
                    _ if login.installs => Patience::Installer,
                    Some(_) => Patience::Seed(SEED_IS_READ),
                    None => Patience::None,
                },
                ..self.access.clone()
            },
            host_key: login.host_key.clone(),
            limit: login.limit,
        };
        match wait_for_guest(input, seen).await {
            Ok(guest) => Ok(guest),
            Err(error) => {
                let hint = error.hint();
                let failed = StageError::caused("the guest did not let the build in", error);
                Err(if hint.is_empty() { failed } else { failed.hint(hint) })
            }
        }
    }
}
