//! The parts of a build without a real guest: a fault at a chosen point, a guest that answers, a plan.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use forge::engine::StageError;
use forge::engine::effect::{Effect, Faults, When};
use forge::event::{Envelope, Sink};
use forge::plan::{AccessPlan, Deadlines, Delivery, Plan, SeedPlan};
use forge::stages::connect::{Connector, Login};
use forge_machine::{
    ChainId, Command, ExecOutcome, Finish, Guest, GuestError, MachineSpec, OutputSink, SourceSpec, VmRef,
};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What happens at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The stage fails.
    Fail,
    /// The user interrupts.
    Interrupt,
    /// The process dies: everything is dropped, nothing is cleaned up.
    Die,
}

/// A fault at one point.
#[derive(Debug)]
pub struct At {
    /// Where, when and what.
    pub point: Option<(Effect, When, Blow)>,
    /// The build's token.
    pub cancel: CancellationToken,
    /// Told when the process is to die.
    pub reached: Arc<Notify>,
}

#[async_trait]
impl Faults for At {
    async fn reach(&self, effect: Effect, when: When) -> Result<(), String> {
        match self.point {
            Some((at, then, blow)) if at == effect && then == when => match blow {
                Blow::Fail => Err(format!("injected {when:?} {effect:?}")),
                Blow::Interrupt => {
                    self.cancel.cancel();
                    Ok(())
                }
                Blow::Die => {
                    self.reached.notify_one();
                    std::future::pending().await
                }
            },
            _ => Ok(()),
        }
    }
}

/// A guest that answers and does nothing but what it is given for its commands.
#[derive(Debug)]
pub struct FakeGuest {
    /// Its host key's fingerprint.
    pub host_key: Option<&'static str>,
    /// How its commands end, and what they print.
    pub exec: fn(&Command, &mut dyn OutputSink) -> ExecOutcome,
}

impl Default for FakeGuest {
    fn default() -> Self {
        Self { host_key: Some("SHA256:fake"), exec: |_, _| ExecOutcome::Exited(0) }
    }
}

#[async_trait]
impl Guest for FakeGuest {
    fn describe(&self) -> String {
        "forge@127.0.0.1".into()
    }
    fn host_key(&self) -> Option<String> {
        self.host_key.map(str::to_owned)
    }

    fn host_public_key(&self) -> Option<String> {
        None
    }
    async fn exec(&self, command: &Command, output: &mut dyn OutputSink) -> Result<ExecOutcome, GuestError> {
        Ok((self.exec)(command, output))
    }
    async fn put(&self, _path: &str, _content: &[u8], _mode: u32) -> Result<(), GuestError> {
        Ok(())
    }
    async fn get(&self, _path: &str, _limit: u64) -> Result<Vec<u8>, GuestError> {
        Ok(Vec::new())
    }
    async fn reconnect(&self, _limit: Duration) -> Result<(), GuestError> {
        Ok(())
    }
    async fn close(&self) {}
}

/// Logs in at once.
#[derive(Debug)]
pub struct FakeConnector;

#[async_trait]
impl Connector for FakeConnector {
    async fn connect(
        &self,
        login: &Login,
        seen: &(dyn for<'a> Fn(&'a str) + Send + Sync),
    ) -> Result<Arc<dyn Guest>, StageError> {
        seen("the fake guest answers");
        assert!(login.host_key.as_deref().is_none_or(|key| key == "SHA256:fake"));
        Ok(Arc::new(FakeGuest::default()))
    }
}

/// Collects events.
#[derive(Clone, Default)]
pub struct Collect(pub Arc<Mutex<Vec<Envelope>>>);

impl Sink for Collect {
    fn take(&mut self, envelope: &Envelope, _view: &forge::event::BuildView) {
        self.0.lock().expect("not poisoned").push(envelope.clone());
    }
}

/// A plan for the fake, without provisioners and seal operations.
pub fn plan() -> Plan {
    Plan {
        version: forge::plan::VERSION,
        purpose: forge::plan::Purpose::Build,
        chain_id: ChainId::new("CHAIN-20261121T040506Z-fake"),
        profile: "fake".into(),
        profile_files: Vec::new(),
        target: "fake".into(),
        product: "fake 1".into(),
        notes: Vec::new(),
        planned: Timestamp::UNIX_EPOCH,
        machine: MachineSpec {
            ids: Some((100, 199)),
            ..MachineSpec::new(
                SourceSpec::Clone {
                    vm: VmRef::new("9000", "fake"),
                    name: "boot-vm".into(),
                    full: true,
                    storage: None,
                },
                "fake",
            )
        },
        downloads: Vec::new(),
        places: std::collections::BTreeMap::new(),
        after_install: None,
        kernel_cmdline: None,
        boot_disc: None,
        seed: SeedPlan {
            delivery: Delivery::Smbios,
            why: "a test".into(),
            bind: "127.0.0.1".into(),
            ports: (0, 0),
            allowed_networks: Vec::new(),
            address: Some("127.0.0.1".into()),
            interface: None,
            endpoint: None,
            hostname: None,
            user_data: None,
            network_config: None,
            answers: None,
            ip_config: "ip=dhcp".into(),
            files: Vec::new(),
            disc: None,
            floppy: None,
        },
        boot: Vec::new(),
        access: AccessPlan {
            winrm: Default::default(),
            windows: false,
            user: "forge".into(),
            create: true,
            via: forge::remote::via::usual(),
            ssh: forge::remote::SshPlan::default(),
        },
        provision: Vec::new(),
        seal_dry_run: false,
        gate: false,
        baseline: None,
        origin: forge::plan::origin::Origin::default(),
        seal: Vec::new(),
        finish: Finish::Template {
            name: "tpl-fake".into(),
            tags: vec!["forge".into(), "latest".into()],
            notes: "Made by a test.\n\n* chain id: CHAIN-20261121T040506Z-fake\n* profile: fake".into(),
        },
        deadlines: Deadlines {
            boot: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            shutdown: Duration::from_secs(5),
            build: None,
        },
    }
}
