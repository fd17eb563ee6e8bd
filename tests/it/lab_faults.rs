//! Every call of a build, failing in every way: the build succeeds or says why not, and after `forge gc` nothing of it is
//! left but what its region promises. The template of an earlier build is never harmed.
//!
//! The VMs run in name only and the guest answers at once.

use std::time::Duration;

use forge::event::Ending;
use forge_lab::{Fault, Gate};
use futures_util::{StreamExt as _, stream};

use crate::lab_matrix::OnLab;
use crate::support::lab_site::{FIRST_ID, OLD};
use crate::support::matrix::Scene as _;

const CREATE: &str = "/nodes/*/qemu";
const CLONE: &str = "/nodes/*/qemu/*/clone";
const CONFIG: &str = "/nodes/*/qemu/*/config";
const START: &str = "/nodes/*/qemu/*/status/start";
const CURRENT: &str = "/nodes/*/qemu/*/status/current";
const SHUTDOWN: &str = "/nodes/*/qemu/*/status/shutdown";
const TEMPLATE: &str = "/nodes/*/qemu/*/template";

/// Method, path, which of them.
pub type Call = (&'static str, &'static str, usize);

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

/// What a build that fails of a fault has to say of it: the server's own words, or those for an answer that never came.
pub fn words_of(fault: &Fault) -> String {
    match fault {
        Fault::Refuse { reason, .. } => reason.clone(),
        Fault::TaskFail { text } | Fault::TaskFailAfter { text } | Fault::TaskFailAt { text, .. } => {
            text.clone()
        }
        Fault::TaskDie => "unexpected status".into(),
        Fault::TaskHang => "no progress for".into(),
        Fault::DropBefore | Fault::DoThenDrop | Fault::Truncate { .. } => "no answer to".into(),
        Fault::DelayAfter(_) => "(nothing: who is only late is waited for)".into(),
        other => panic!("nobody has said what is to be told of {other:?}"),
    }
}

/// What a build was about when one of its calls failed, in the words of the failure.
pub fn tried((_, path, number): Call) -> &'static str {
    match (path, number) {
        ("/cluster/nextid", _) => "no id could be chosen for the build VM",
        (CLONE | CREATE, _) => "could not be created",
        (CONFIG, 1 | 2) => "could not be configured",
        (CONFIG, 3) => "could not be taken out",
        (CONFIG, 4) => "the build's settings could not be taken off the VM",
        (TEMPLATE | CONFIG, _) => "the artefact could not be made",
        (START | CURRENT, _) => "could not be started",
        (SHUTDOWN, _) => "the guest did not shut down",
        _ => "the template is published, but an older one still bears the tag `latest` too",
    }
}

/// What is left after a build, and after `forge gc` for what it could not clean up itself. A build that failed says all of
/// these words, and so what it failed of.
pub async fn judge(scene: &OnLab, ending: &Ending, case: &str, words: &[&str]) {
    scene.site.lab.faults().clear();
    if let Some(failure) = ending.failure() {
        let told = format!("{}: {}", failure.heading, failure.causes.join(": "));
        for words in words {
            assert!(told.contains(words), "{case}: it does not say `{words}`: {failure:?}");
        }
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
    let cases = CALLS.into_iter().flat_map(|call| faults.iter().map(move |make| (call, make)));
    let try_case = async |((method, path, call), make): (Call, &fn() -> Fault)| {
        let scene = OnLab::new().await;
        let fault = make();
        let case = format!("{method} {path} no. {call}: {fault:?}");
        let words = words_of(&fault);
        let handle = scene.site.lab.faults().on(method, path).call(call).then(fault);
        let ending = scene.bench.build_with(None).await.expect("it lives");
        assert_eq!(handle.fired(), 1, "{case}: {ending:?}");
        if path.contains("8999") && case.contains("403") {
            // Two bear `latest` then, and the newest is the answer; a warning says so.
            assert!(matches!(ending, Ending::Done { .. }), "{case}: {ending:?}");
            scene.site.assert_old_template(true, &case);
            assert_eq!(scene.site.others()[0].tags, "forge;latest", "{case}");
        } else {
            judge(&scene, &ending, &case, &[&words, tried((method, path, call))]).await;
        }
        scene.close().await;
    };
    stream::iter(cases).for_each_concurrent(AT_ONCE, try_case).await;
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
            judge(&scene, &ending, &case, &[&words_of(&make()), tried(("POST", path, 1))]).await;
            scene.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_of_an_install_fails_nothing_is_left_and_no_template_is_harmed() {
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
    for ((method, path, call), make) in cases {
        let scene = OnLab::installing().await;
        let case = format!("install: {method} {path} no. {call}: {:?}", make());
        let handle = scene.site.lab.faults().on(method, path).call(call).then(make());
        let ending = scene.bench.build_with(None).await.expect("it lives");
        assert_eq!(handle.fired(), 1, "{case}: {ending:?}");
        judge(&scene, &ending, &case, &[&words_of(&make()), tried((method, path, call))]).await;
        scene.close().await;
    }
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
        judge(&scene, &ending, &format!("lost at change {call}"), &["no connection to node pve"]).await;
        assert!(scene.site.lab.vm(OLD).is_some() && scene.site.others().iter().all(|vm| vm.vmid == FIRST_ID));
        scene.close().await;
    }
}
