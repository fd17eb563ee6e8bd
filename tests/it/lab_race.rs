//! Many builds at once, from several processes, for as many VMIDs as there are builds: each gets one, none is lost.
//!
//! The VMs run in name only and the guest answers at once, so what races is forge itself. The other processes are this
//! test binary, started again for its worker alone.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use forge::engine::run::{Build, run};
use forge::engine::{JournalDir, NoFaults};
use forge::event::{Bus, Redactor};
use forge::evidence::Folder;
use forge_machine::{BuildState, ChainId, Finish, Nonce, Ownership};
use forge_proxmox::{ProxmoxConfig, ProxmoxHypervisor};
use jiff::Timestamp;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::lab_matrix::{config_of, plan_for};
use crate::support::fake_build::{Collect, FakeConnector};
use crate::support::lab_site::{BOOT_VM, FIRST_ID, LIMIT, LabSite};

/// What a worker is told: the lab, its certificate, the token's secret, the state folder, the first build's number, how
/// many builds, the last VMID.
const WORK: &str = "FORGE_TEST_RACE";

async fn build(config: ProxmoxConfig, state: std::path::PathBuf, number: u8, last: u32) -> u8 {
    let mut plan = plan_for(last);
    plan.chain_id = ChainId::new(format!("CHAIN-20261121T040506Z-race-{number}"));
    plan.finish = Finish::Template {
        name: format!("tpl-race-{number}"),
        tags: vec!["race".into()],
        notes: format!("Template built by forge.\n\n* profile: race-{number}"),
    };
    let bus = Bus::start(vec![Box::new(Collect::default())], Redactor::default());
    let evidence = Folder::create(state.join(format!("evidence-{number}")), Redactor::default());
    let build = Build {
        hypervisor: Arc::new(ProxmoxHypervisor::connect(config).expect("its settings are sound")),
        connector: Arc::new(FakeConnector),
        events: bus.events(plan.chain_id.clone()),
        journals: JournalDir::in_state_dir(&state),
        evidence: evidence.expect("a folder"),
        media: forge::media::Store::new(state.join("media")),
        mark: Ownership {
            nonce: Nonce::from_bytes([number; 8]),
            chain_id: plan.chain_id.clone(),
            owner: "test@here".into(),
            started: Timestamp::now(),
            heartbeat: Timestamp::now(),
            state: BuildState::Building,
            memory_mib: None,
        },
        cancel: CancellationToken::new(),
        on_error: forge::engine::on_error::OnError::default(),
        faults: Arc::new(NoFaults),
        plan: Arc::new(plan),
    };
    let ending = run(build).await;
    bus.close();
    assert_eq!(ending.exit_code(), 0, "build {number}: {ending:?}");
    ending.exit_code()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other processes of the race below run it"]
async fn worker() {
    let Ok(work) = std::env::var(WORK) else { return };
    let work: Vec<&str> = work.split('\n').collect();
    let [url, fingerprint, secret, state, first, count, last] = work[..] else { panic!("{work:?}") };
    let config = config_of(url, fingerprint, secret);
    let (first, count): (u8, u8) = (first.parse().expect("a number"), count.parse().expect("a number"));
    let last = last.parse().expect("a number");
    let builds: Vec<_> = (first..first + count)
        .map(|number| tokio::spawn(build(config.clone(), state.into(), number, last)))
        .collect();
    for build in builds {
        build.await.expect("it made its template");
    }
}

/// Starts a worker process.
fn start(site: &LabSite, first: u8, count: u8, last: u32) -> tokio::process::Child {
    let state = site.path().join("state").display().to_string();
    let work = [
        site.lab.url(),
        site.lab.fingerprint().to_owned(),
        site.secret.clone(),
        state,
        first.to_string(),
        count.to_string(),
        last.to_string(),
    ];
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "lab_race::worker", "--ignored", "--nocapture"])
        .env(WORK, work.join("\n"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it can be run")
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_builds_from_five_processes_share_exactly_fifty_vmids() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let last = FIRST_ID + 49;
    let workers: Vec<_> = (0..5).map(|worker| start(&site, worker * 10, 10, last)).collect();
    for worker in workers {
        let output = tokio::time::timeout(LIMIT, worker.wait_with_output()).await??;
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{}", said.concat());
        assert!(said[0].contains("1 passed"), "{}", said[0]);
    }
    let others = site.others();
    let ids: Vec<u32> = others.iter().map(|vm| vm.vmid).collect();
    assert_eq!(ids, Vec::from_iter(FIRST_ID..=last));
    let names: BTreeSet<&str> = others.iter().map(|vm| vm.name.as_str()).collect();
    assert_eq!(names.len(), 50, "{names:?}");
    assert!(others.iter().all(|vm| vm.template && vm.name.starts_with("tpl-race-")), "{others:?}");
    assert_eq!(site.journals(), Vec::<String>::new());
    let tried = site.lab.requests().iter().filter(|each| each.path.ends_with("/clone")).count();
    // Each goes for the lowest first, so there are losers; but they do not chase each other through the whole range.
    assert!((51..1000).contains(&tried), "{tried} creations were tried");
    assert!(site.lab.vm(BOOT_VM).is_some_and(|vm| vm.lock.is_none()));
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_range_is_full_the_build_says_so_and_leaves_nothing() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write("forge.toml", &site.forge_toml().replace("9001-9099", "9000-9000"));
    let done = tokio::time::timeout(Duration::from_secs(120), site.run(&["build", "tiny.toml"])).await?;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("find a free VMID failed: 9000 is taken"), "{}", done.stderr);
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}
