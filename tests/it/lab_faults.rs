//! Every call of a build, failing in every way: the build succeeds or says why not, and after `forge gc` nothing of it is
//! left but what its region promises. The template of an earlier build is never harmed.
//!
//! The VMs run in name only and the guest answers at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forge::event::Ending;
use forge_lab::{Fault, Gate};
use futures_util::{StreamExt as _, stream};

use crate::lab_matrix::OnLab;
use crate::support::lab_site::{FIRST_ID, OLD};
use crate::support::matrix::Scene as _;

const CLONE: &str = "/nodes/*/qemu/*/clone";
const CONFIG: &str = "/nodes/*/qemu/*/config";
const START: &str = "/nodes/*/qemu/*/status/start";
const CURRENT: &str = "/nodes/*/qemu/*/status/current";
const SHUTDOWN: &str = "/nodes/*/qemu/*/status/shutdown";
const TEMPLATE: &str = "/nodes/*/qemu/*/template";

/// Method, path, which of them.
type Call = (&'static str, &'static str, usize);

/// The calls of a build.
pub const CALLS: [Call; 14] = [
    ("GET", "/cluster/nextid", 1),
    ("POST", CLONE, 1),
    ("PUT", CONFIG, 1),
    ("GET", CONFIG, 1),
    ("PUT", CONFIG, 2),
    ("POST", START, 1),
    ("GET", CURRENT, 1),
    ("POST", SHUTDOWN, 1),
    ("PUT", CONFIG, 3),
    ("POST", TEMPLATE, 1),
    ("PUT", CONFIG, 4),
    ("PUT", CONFIG, 5),
    ("PUT", "/nodes/*/qemu/8999/config", 1),
    ("GET", "/cluster/resources", 2),
];

pub fn refusal(status: u16, reason: &str) -> Fault {
    Fault::Refuse { status, reason: reason.into() }
}

/// Waits until the lab's tasks are over: one whose answer was lost may find only later that its VM is gone, and the worker
/// for a screen to which nobody connects gives up after 10 s.
async fn settled(scene: &OnLab, case: &str) {
    for _ in 0..1200 {
        if scene.site.lab.running_tasks().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{case}: tasks go on: {:?}", scene.site.lab.running_tasks());
}

/// What is left after a build, and after `forge gc` for what it could not clean up itself.
pub async fn judge(scene: &OnLab, ending: &Ending, case: &str) {
    scene.site.lab.faults().clear();
    if let Some(failure) = ending.failure() {
        let told = format!("{} {}", failure.heading, failure.causes.join(" "));
        assert!(told.len() > 20 && !failure.causes.is_empty(), "{case}: it names no cause: {failure:?}");
    }
    let found = scene.bench.gc().await;
    assert!(found.iter().all(|each| each.ok), "{case}: {found:?}");
    settled(scene, case).await;
    let left = scene.site.others();
    match left.as_slice() {
        [] => {
            assert!(matches!(ending, Ending::Failed { .. }), "{case}: {ending:?}");
            scene.assert_nothing_left(case);
        }
        [vm] if vm.template => {
            assert!(
                matches!(ending, Ending::Done { .. } | Ending::DoneWithFailure { .. }),
                "{case}: {ending:?}"
            );
            scene.assert_template(case);
        }
        _ => {
            scene.assert_kept(case);
            let finished = scene.bench.finish().await;
            assert_eq!(finished.exit_code(), 0, "{case}: {finished:?}");
            scene.assert_template(case);
        }
    }
    assert!(scene.bench.journal_files().is_empty(), "{case}: {:?}", scene.bench.journal_files());
    settled(scene, case).await;
}

/// How many labs are tried at once: much of a case is waiting.
pub const AT_ONCE: usize = 6;

async fn grid(faults: &[fn() -> Fault]) {
    let fired = AtomicUsize::new(0);
    let cases = CALLS.into_iter().flat_map(|call| faults.iter().map(move |make| (call, make)));
    let try_case = async |((method, path, call), make): (Call, &fn() -> Fault)| {
        let scene = OnLab::new().await;
        let fault = make();
        let case = format!("{method} {path} no. {call}: {fault:?}");
        let handle = scene.site.lab.faults().on(method, path).call(call).then(fault);
        let ending = scene.bench.build_with(None).await.expect("it lives");
        fired.fetch_add(handle.fired(), Ordering::Relaxed);
        if path.contains("8999") && case.contains("403") {
            // Two bear `latest` then, and the newest is the answer; a warning says so.
            assert!(matches!(ending, Ending::Done { .. }), "{case}: {ending:?}");
            scene.site.assert_old_template(true, &case);
            assert_eq!(scene.site.others()[0].tags, "forge;latest", "{case}");
        } else {
            judge(&scene, &ending, &case).await;
        }
        scene.close().await;
    };
    stream::iter(cases).for_each_concurrent(AT_ONCE, try_case).await;
    // A build that does without one of the calls is not tried by it.
    let fired = fired.into_inner();
    assert!(fired >= CALLS.len() * faults.len() * 2 / 3, "only {fired} faults were met");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_is_refused_nothing_is_left_and_no_template_is_harmed() {
    grid(&[
        || refusal(500, "got no worker upid - start worker failed"),
        || refusal(403, "Permission check failed"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_meets_a_broken_cluster_nothing_is_left_and_no_template_is_harmed() {
    grid(&[
        || refusal(595, "No route to host"),
        || refusal(596, "Connection timed out"),
        || refusal(502, "Bad Gateway"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_answer_is_lost_nothing_is_left_and_no_template_is_harmed() {
    grid(&[|| Fault::DropBefore, || Fault::DoThenDrop, || Fault::Truncate { bytes: 5 }]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_answer_is_late_the_build_succeeds() {
    let try_call = async |(method, path, call)| {
        let scene = OnLab::new().await;
        let late = Fault::DelayAfter(Duration::from_millis(700));
        scene.site.lab.faults().on(method, path).call(call).then(late);
        let ending = scene.bench.build_with(None).await.expect("it lives");
        assert!(matches!(ending, Ending::Done { .. }), "{method} {path}: {ending:?}");
        scene.assert_template(path);
        scene.close().await;
    };
    stream::iter(CALLS).for_each_concurrent(AT_ONCE, try_call).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_task_fails_or_dies_nothing_is_left_and_no_template_is_harmed() {
    let full = || Fault::TaskFail { text: "clone failed: no space left on device".into() };
    let full_after = || Fault::TaskFailAfter { text: "storage 'local' is full".into() };
    let half = || Fault::TaskFailAt { percent: 40.0, text: "no space left on device".into() };
    let faults: [fn() -> Fault; 4] = [full, full_after, half, || Fault::TaskDie];
    for path in [CLONE, START, SHUTDOWN, TEMPLATE] {
        for make in faults {
            let scene = OnLab::new().await;
            let case = format!("{path}: {:?}", make());
            let handle = scene.site.lab.faults().on("POST", path).then(make());
            let ending = scene.bench.build_with(None).await.expect("it lives");
            assert_eq!(handle.fired(), 1, "{case}");
            let told = format!("{ending:?}");
            if path == CLONE {
                let words = ["no space left", "is full", "unexpected status"];
                assert!(words.iter().any(|words| told.contains(words)), "{case}: {told}");
            }
            judge(&scene, &ending, &case).await;
            scene.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_of_an_install_fails_nothing_is_left_and_no_template_is_harmed() {
    const CREATE: &str = "/nodes/*/qemu";
    let without = OnLab::installing().await;
    let ending = without.bench.build_with(None).await.expect("it lives");
    assert!(matches!(ending, Ending::Done { .. }), "{ending:?}");
    without.assert_template("without faults");
    let template = without.site.lab.vm(FIRST_ID).expect("it is there");
    assert!(!template.config.values().any(|value| value.contains("installer.iso")), "{template:?}");
    without.close().await;
    let faults: [fn() -> Fault; 4] = [
        || refusal(403, "Permission check failed"),
        || refusal(595, "No route to host"),
        || Fault::DropBefore,
        || Fault::DoThenDrop,
    ];
    let tasks: [fn() -> Fault; 3] = [
        || Fault::TaskFail { text: "no space left on device".into() },
        || Fault::TaskFailAfter { text: "storage 'local' is full".into() },
        || Fault::TaskDie,
    ];
    let calls = [("POST", CREATE, 1), ("PUT", CONFIG, 1), ("PUT", CONFIG, 2), ("PUT", CONFIG, 3)];
    let cases = calls.into_iter().flat_map(|call| faults.map(|make| (call, make)));
    let cases = cases.chain(tasks.map(|make| (("POST", CREATE, 1), make)));
    let mut fired = 0;
    for ((method, path, call), make) in cases {
        let scene = OnLab::installing().await;
        let case = format!("install: {method} {path} no. {call}: {:?}", make());
        let handle = scene.site.lab.faults().on(method, path).call(call).then(make());
        let ending = scene.bench.build_with(None).await.expect("it lives");
        fired += handle.fired();
        judge(&scene, &ending, &case).await;
        scene.close().await;
    }
    assert!(fired >= 15, "only {fired} faults were met");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_lost_in_mid_build_and_comes_back_keeps_nothing_but_what_was_finished() {
    // While it is configured, and when its settings are taken off.
    for call in [1, 3] {
        let scene = OnLab::new().await;
        let gate = Gate::new();
        scene.site.lab.faults().on("PUT", CONFIG).call(call).then(Fault::HoldAfter(gate.clone()));
        let lose = async {
            gate.reached().await;
            scene.site.lab.set_online("pve", false);
            gate.release();
        };
        let (ending, ()) = tokio::join!(scene.bench.build_with(None), lose);
        let ending = ending.expect("it lives");
        assert!(ending.exit_code() != 0, "{call}: {ending:?}");
        assert!(format!("{ending:?}").contains("node pve"), "{call}: it names the node: {ending:?}");
        scene.site.lab.set_online("pve", true);
        judge(&scene, &ending, &format!("lost at change {call}")).await;
        assert!(scene.site.lab.vm(OLD).is_some() && scene.site.others().iter().all(|vm| vm.vmid == FIRST_ID));
        scene.close().await;
    }
}
