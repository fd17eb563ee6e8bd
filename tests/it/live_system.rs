//! An installer's live system that lets the build in is not taken for what it installs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use forge::engine::StageError;
use forge::event::Event;
use forge::plan::{AfterInstall, Plan};
use forge::stages::connect::{Connector, Login};
use forge_machine::fake::{FakeHypervisor, FakeWorld};
use forge_machine::{Command, ExecOutcome, Guest, GuestError, OutputSink, Stream};

use crate::support::fake_build::plan;
use crate::support::workbench::Workbench;

/// Says something to each command.
#[derive(Debug)]
struct Says(&'static str);

#[async_trait]
impl Guest for Says {
    fn describe(&self) -> String {
        "forge@127.0.0.1".into()
    }
    fn host_key(&self) -> Option<String> {
        None
    }
    fn host_public_key(&self) -> Option<String> {
        None
    }
    async fn exec(&self, command: &Command, output: &mut dyn OutputSink) -> Result<ExecOutcome, GuestError> {
        if command.line.contains("/run/install") {
            output.write(Stream::Stdout, self.0.as_bytes());
        }
        Ok(if self.0 == "cut" { ExecOutcome::Disconnected } else { ExecOutcome::Exited(0) })
    }
    async fn put(&self, _: &str, _: &[u8], _: u32) -> Result<(), GuestError> {
        Ok(())
    }
    async fn get(&self, _: &str, _: u64) -> Result<Vec<u8>, GuestError> {
        Ok(Vec::new())
    }
    async fn reconnect(&self, _: Duration) -> Result<(), GuestError> {
        Ok(())
    }
    async fn close(&self) {}
}

/// Lets the live system answer first, then what was installed.
#[derive(Debug)]
struct LiveFirst(AtomicUsize);

#[async_trait]
impl Connector for LiveFirst {
    async fn connect(
        &self,
        login: &Login,
        _seen: &(dyn for<'a> Fn(&'a str) + Send + Sync),
    ) -> Result<Arc<dyn Guest>, StageError> {
        assert!(login.installs && login.limit <= Duration::from_secs(30));
        let all = ["it has /run/install\nits root is tmpfs\n", "cut", ""];
        Ok(Arc::new(Says(all.get(self.0.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or_default())))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installer_s_live_system_that_lets_the_build_in_is_waited_out() {
    let world = FakeWorld::with_boot_vm();
    let mut plan = Plan { after_install: Some(AfterInstall::Reboot), ..plan() };
    plan.deadlines.connect = Duration::from_secs(30);
    let mut bench = Workbench::new(plan, Box::new(move || Arc::new(FakeHypervisor::new(world.clone()))));
    let connector = Arc::new(LiveFirst(AtomicUsize::new(0)));
    bench.connector = connector.clone();
    let ending = bench.build_with(None).await.expect("it ends");
    assert_eq!(ending.exit_code(), 0, "{ending:?}");
    assert_eq!(connector.0.load(Ordering::SeqCst), 3, "the third is the installed system");
    let told: Vec<String> = bench
        .told()
        .into_iter()
        .filter_map(|event| match event {
            Event::Waiting { seen, .. } => Some(seen),
            _ => None,
        })
        .collect();
    for words in ["it has /run/install, its root is tmpfs", "its connection was lost at once"] {
        assert!(told.iter().any(|seen| seen.contains(words)), "{words}: {told:?}");
    }
}
