//! Faults of a cluster on builds of a real guest, by the real program: there something boots, shuts down and takes its time,
//! which VMs in name only do not. That every call is tried with every fault is their part (`lab_faults`).

use forge_lab::Fault;
use futures_util::{StreamExt as _, stream};

use crate::lab_faults::{refusal, tried, words_of};
use crate::support::lab_site::{Done, FIRST_ID, LabSite, PROFILE};

const CLONE: &str = "/nodes/*/qemu/*/clone";
const CONFIG: &str = "/nodes/*/qemu/*/config";
const START: &str = "/nodes/*/qemu/*/status/start";
const CURRENT: &str = "/nodes/*/qemu/*/status/current";
const SHUTDOWN: &str = "/nodes/*/qemu/*/status/shutdown";
const TEMPLATE: &str = "/nodes/*/qemu/*/template";
const AGENT: &str = "/nodes/*/qemu/*/agent/network-get-interfaces";

/// Guests that are built at once: as many as a small machine has processors.
const AT_ONCE: usize = 2;

/// Method, path, which of the calls, and what becomes of it.
type Case = (&'static str, &'static str, usize, fn() -> Fault);

const CASES: [Case; 15] = [
    ("POST", CLONE, 1, || Fault::DoThenDrop),
    ("POST", CLONE, 1, || Fault::TaskFailAt { percent: 40.0, text: "no space left on device".into() }),
    ("PUT", CONFIG, 2, || refusal(596, "Connection timed out")),
    ("POST", START, 1, || Fault::DoThenDrop),
    ("POST", START, 1, || Fault::TaskDie),
    ("GET", CURRENT, 1, || Fault::Truncate { bytes: 5 }),
    ("GET", AGENT, 1, || refusal(403, "Permission check failed")),
    ("GET", AGENT, 1, || Fault::DropBefore),
    ("GET", AGENT, 2, || refusal(596, "Connection timed out")),
    ("GET", AGENT, 2, || Fault::Truncate { bytes: 5 }),
    ("POST", SHUTDOWN, 1, || Fault::DoThenDrop),
    ("POST", SHUTDOWN, 1, || refusal(500, "got no worker upid - start worker failed")),
    ("POST", TEMPLATE, 1, || refusal(595, "No route to host")),
    ("POST", TEMPLATE, 1, || Fault::DoThenDrop),
    ("POST", TEMPLATE, 1, || Fault::TaskFail { text: "storage 'local' is full".into() }),
];

/// Asserts that the end of a build that failed says what it failed of.
fn assert_told(done: &Done, words: &[&str]) {
    let (_, end) = done.stderr.split_once("error in stage ").expect("it names the stage");
    assert!(end.contains("because: "), "{end}");
    for words in words {
        assert!(end.contains(words), "it does not say `{words}`: {end}");
    }
}

/// What is left after a build, after `forge gc`, and after `forge finish` where there is something to be finished. A build that
/// failed says all of these words.
async fn judge(site: &LabSite, done: &Done, case: &str, words: &[&str]) {
    site.lab.faults().clear();
    let said = format!("{case}: {:?}\n{}", done.code, done.stderr);
    let gc = site.run(&["gc"]).await;
    assert_eq!(gc.code, Some(0), "{said}{}{}", gc.stdout, gc.stderr);
    match site.others().as_slice() {
        [] => {
            assert!(matches!(done.code, Some(1 | 4)), "{said}");
            assert_told(done, words);
            site.assert_nothing_left();
            site.assert_old_template(true, case);
            return;
        }
        [vm] if vm.template => assert!(matches!(done.code, Some(0 | 5)), "{said}"),
        [vm] => {
            assert!(matches!(done.code, Some(1 | 4)) && !vm.running, "{said}");
            assert_told(done, words);
            let finished = site.run(&["finish", &vm.vmid.to_string()]).await;
            assert_eq!(finished.code, Some(0), "{said}{}", finished.stderr);
        }
        others => panic!("{said}{others:?}"),
    }
    site.assert_old_template(false, case);
    site.assert_template_only(FIRST_ID);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_befalls_a_build_of_a_tiny_guest_it_ends_whole_or_leaves_nothing() -> anyhow::Result<()> {
    let try_case = async |(method, path, call, make): Case| {
        let Some(site) = LabSite::with_tiny_guest(false).await? else { return anyhow::Ok(()) };
        let site = site.with_old_template("tiny").await?;
        let fault = make();
        let case = format!("{method} {path} no. {call}: {fault:?}");
        let words = words_of(&fault);
        let handle = site.lab.faults().on(method, path).call(call).then(fault);
        let done = site.run(&["build", "tiny.toml"]).await;
        assert_eq!(handle.fired(), 1, "{case}: {}", done.stderr);
        judge(&site, &done, &case, &[&words, tried((method, path, call))]).await;
        site.close().await;
        Ok(())
    };
    let results: Vec<anyhow::Result<()>> =
        stream::iter(CASES).map(try_case).buffer_unordered(AT_ONCE).collect().await;
    results.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_lost_while_a_script_runs_in_a_tiny_guest_loses_nothing_of_its_work()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let site = site.with_old_template("tiny").await?;
    // Long enough for the node to be gone when the scripts have succeeded.
    let script = "echo at work; sleep 10";
    site.write("tiny.toml", &PROFILE.replace("echo hello from $(hostname)", script));
    let mut build = site.start(&["build", "tiny.toml"]);
    build.says("| at work").await;
    site.lab.set_online("pve", false);
    let done = build.ended().await;
    assert!(matches!(done.code, Some(1 | 4)), "{}", done.stderr);
    assert!(done.stderr.contains("node pve"), "it names the node: {}", done.stderr);
    site.lab.set_online("pve", true);
    judge(&site, &done, "a lost node", &["no connection to node pve"]).await;
    assert!(site.lab.vm(FIRST_ID).is_some_and(|vm| vm.template), "its scripts had succeeded");
    site.close().await;
    Ok(())
}
