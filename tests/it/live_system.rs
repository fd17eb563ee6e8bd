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
use forge_machine::{Command, ExecOutcome, Guest, OutputSink, Stream};

use crate::support::fake_build::{FakeGuest, plan};
use crate::support::workbench::Workbench;

/// What the systems say of themselves, one after another: two that are not installed, and the installed one.
const SYSTEMS: [fn(&Command, &mut dyn OutputSink) -> ExecOutcome; 3] = [
    |command, output| {
        if command.line.contains("/run/install") {
            output.write(Stream::Stdout, b"it has /run/install\nits root is tmpfs\n");
        }
        ExecOutcome::Exited(0)
    },
    |_, _| ExecOutcome::Disconnected,
    |_, _| ExecOutcome::Exited(0),
];

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
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        let exec = SYSTEMS[number.min(SYSTEMS.len() - 1)];
        Ok(Arc::new(FakeGuest { host_key: None, exec }))
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
