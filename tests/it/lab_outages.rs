//! A cluster that is in trouble for longer than one call: tasks that hang, nodes that go away in the middle of a build,
//! storages that are full, an agent that never comes up, an answer that is lost while the work behind it takes its time.
//!
//! As everywhere: the build succeeds or names the cause, after `forge gc` nothing of it is left but what its region
//! promises, and the template of an earlier build is never harmed.

use std::collections::BTreeSet;
use std::time::Duration;

use forge::event::{Ending, Event};
use forge_lab::{Fault, Gate};
use futures_util::{StreamExt as _, stream};

use crate::lab_faults::{AT_ONCE, CALLS, judge, refusal, tried, words_of};
use crate::lab_matrix::{OnLab, plan_for};
use crate::support::lab_site::{FIRST_ID, LabSite, PROFILE};
use crate::support::matrix::Scene as _;

const CLONE: &str = "/nodes/*/qemu/*/clone";
const START: &str = "/nodes/*/qemu/*/status/start";
const SHUTDOWN: &str = "/nodes/*/qemu/*/status/shutdown";
const TEMPLATE: &str = "/nodes/*/qemu/*/template";

/// How long tasks may say nothing new: far longer than one takes on a busy machine.
const STALL: Duration = Duration::from_secs(10);

/// A lab whose tasks are given up soon, and whose guest has little time to shut down.
async fn impatient() -> OnLab {
    let mut plan = plan_for(FIRST_ID + 98);
    plan.deadlines.shutdown = Duration::from_secs(1);
    OnLab::with(plan, STALL).await
}

fn told(ending: &Ending) -> String {
    ending.failure().map(|failure| format!("{} {:?}", failure.heading, failure.causes)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_hangs_is_given_up_and_stopped_and_nothing_is_left() {
    let try_task = async |path| {
        let scene = impatient().await;
        let handle = scene.site.lab.faults().on("POST", path).then(Fault::TaskHang);
        let ending = scene.bench.build_with(None).await.expect("it lives");
        assert_eq!(handle.fired(), 1, "{path}");
        let words = if path == SHUTDOWN { "did not shut down" } else { "no progress for" };
        assert!(told(&ending).contains(words), "{path}: {ending:?}");
        assert_eq!(scene.site.lab.running_tasks(), [], "{path}: what was given up does not go on");
        judge(&scene, &ending, path, &[words, tried(("POST", path, 1))]).await;
        scene.close().await;
    };
    stream::iter([CLONE, START, SHUTDOWN, TEMPLATE]).for_each_concurrent(AT_ONCE, try_task).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_cleaning_up_hangs_it_is_told_and_gc_does_it_later() {
    for (method, path) in [("DELETE", "/nodes/*/qemu/*"), ("POST", "/nodes/*/qemu/*/status/stop")] {
        let scene = impatient().await;
        let lab = &scene.site.lab;
        // The guest never answers, so the build fails while its VM runs.
        lab.faults().on("POST", "/nodes/*/qemu/*/vncproxy").always().then(refusal(500, "no screen"));
        lab.faults().on("POST", START).then(Fault::TaskFailAfter { text: "start failed".into() });
        let handle = lab.faults().on(method, path).always().then(Fault::TaskHang);
        let ending = scene.bench.build_with(None).await.expect("it lives");
        assert!(handle.fired() > 0, "{path}");
        assert_eq!(ending.exit_code(), 4, "{path}: {ending:?}");
        assert!(format!("{ending:?}").contains("no progress for"), "{path}: {ending:?}");
        judge(&scene, &ending, path, &["could not be started", "start failed"]).await;
        scene.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_lost_while_it_works_for_the_build_is_named_and_gc_clears_up_when_it_is_back() {
    let try_moment = async |(path, after)| {
        let case = format!("lost in {path}, {}", if after { "after the work" } else { "before the work" });
        let scene = impatient().await;
        let lab = &scene.site.lab;
        let gate = Gate::new();
        let hold = if after { Fault::TaskHoldAfter(gate.clone()) } else { Fault::TaskHold(gate.clone()) };
        lab.faults().on("POST", path).then(hold);
        let lose = async {
            gate.reached().await;
            lab.set_online("pve", false);
        };
        let (ending, ()) = tokio::join!(scene.bench.build_with(None), lose);
        let ending = ending.expect("it lives");
        assert!(ending.exit_code() != 0, "{case}: {ending:?}");
        assert!(format!("{ending:?}").contains("node pve"), "{case}: it names the node: {ending:?}");
        let words = ["no connection to node pve"];
        // The node was only cut off: its work went on meanwhile.
        gate.release();
        lab.set_online("pve", true);
        while !lab.running_tasks().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        judge(&scene, &ending, &case, &words).await;
        scene.close().await;
    };
    let moments = [(CLONE, false), (CLONE, true), (START, true), (SHUTDOWN, true), (TEMPLATE, true)];
    stream::iter(moments).for_each_concurrent(AT_ONCE, try_moment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_away_for_a_moment_while_it_works_costs_the_build_nothing() {
    for path in [CLONE, START, TEMPLATE] {
        let scene = OnLab::new().await;
        let lab = &scene.site.lab;
        let gate = Gate::new();
        lab.faults().on("POST", path).then(Fault::TaskHold(gate.clone()));
        let away = async {
            gate.reached().await;
            let asked = || lab.requests().iter().filter(|each| each.status == Some(595)).count();
            lab.set_online("pve", false);
            while asked() < 3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            lab.set_online("pve", true);
            gate.release();
        };
        let (ending, ()) = tokio::join!(scene.bench.build_with(None), away);
        let ending = ending.expect("it lives");
        assert!(matches!(ending, Ending::Done { .. }), "{path}: {ending:?}");
        scene.assert_template(path);
        scene.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_clone_whose_answer_was_lost_is_waited_for_and_built_on() {
    let scene = OnLab::new().await;
    let lab = &scene.site.lab;
    let gate = Gate::new();
    lab.faults().on("POST", CLONE).then(Fault::TaskHold(gate.clone()));
    lab.faults().on("POST", CLONE).then(Fault::DoThenDrop);
    let slow = async {
        gate.reached().await;
        // Longer than what has not begun yet is waited for.
        tokio::time::sleep(Duration::from_secs(14)).await;
        gate.release();
    };
    let (ending, ()) = tokio::join!(scene.bench.build_with(None), slow);
    let ending = ending.expect("it lives");
    assert!(matches!(ending, Ending::Done { .. }), "{ending:?}");
    let said = scene.bench.told().into_iter().any(|event| {
        matches!(event, Event::Waiting { seen, .. } if seen.contains("answer to the creation was lost") && seen.contains("locked (clone)"))
    });
    assert!(said, "it says what it waits for: {:?}", scene.bench.told());
    scene.assert_template("adopted");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_clone_at_an_id_that_another_has_taken_goes_on_with_the_next_id() {
    let scene = OnLab::new().await;
    let lab = &scene.site.lab;
    let gate = Gate::new();
    lab.faults().on("POST", CLONE).then(Fault::Hold(gate.clone()));
    lab.faults().on("POST", CLONE).then(Fault::DoThenDrop);
    let faster = async {
        gate.reached().await;
        let vm = forge_lab::ImportVm { vmid: FIRST_ID, name: "somebody".into(), ..Default::default() };
        lab.import_vm(vm).await.expect("imported");
        gate.release();
    };
    let (ending, ()) = tokio::join!(scene.bench.build_with(None), faster);
    let ending = ending.expect("it lives");
    assert!(matches!(ending, Ending::Done { .. }), "{ending:?}");
    let names: Vec<(u32, String)> = scene.site.others().into_iter().map(|vm| (vm.vmid, vm.name)).collect();
    assert_eq!(names, [(FIRST_ID, "somebody".into()), (FIRST_ID + 1, "tpl-fake".into())]);
    scene.close().await;
}

/// `GET /nodes/*/qemu/*/config` for a request; the ids of tasks and VMs stand for any.
fn route(method: &str, path: &str) -> (String, String) {
    let mut last = "";
    let segments = path.split('/').map(|segment| {
        let any = matches!(last, "nodes" | "qemu") || segment.starts_with("UPID:");
        last = segment;
        if any { "*" } else { segment }
    });
    (method.to_owned(), segments.collect::<Vec<_>>().join("/"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_that_a_build_calls_is_tried_with_every_fault() {
    let scene = OnLab::new().await;
    let ending = scene.bench.build_with(None).await.expect("it lives");
    assert!(matches!(ending, Ending::Done { .. }), "{ending:?}");
    let called: BTreeSet<(String, String)> =
        scene.site.lab.requests().iter().map(|each| route(&each.method, &each.path)).collect();
    scene.close().await;
    // The others have a grid of their own.
    let rest: Vec<_> = called
        .iter()
        .filter(|(method, path)| !CALLS.iter().any(|(has, at, _)| has == method && at == path))
        .collect();
    assert!(rest.len() >= 3 && called.len() > CALLS.len() / 2, "{called:?}");
    let faults: [fn() -> Fault; 6] = [
        || refusal(403, "Permission check failed"),
        || refusal(500, "internal error"),
        || refusal(596, "Connection timed out"),
        || Fault::DropBefore,
        || Fault::Truncate { bytes: 5 },
        || Fault::DelayAfter(Duration::from_millis(500)),
    ];
    let cases =
        rest.into_iter().flat_map(|(method, path)| faults.iter().map(move |make| (method, path, make)));
    let try_case = async |(method, path, make): (&String, &String, &fn() -> Fault)| {
        let scene = OnLab::new().await;
        let case = format!("{method} {path}: {:?}", make());
        let handle = scene.site.lab.faults().on(method, path).then(make());
        let ending = scene.bench.build_with(None).await.expect("it lives");
        assert_eq!(handle.fired(), 1, "{case}");
        judge(&scene, &ending, &case, &[&words_of(&make())]).await;
        scene.close().await;
    };
    stream::iter(cases).for_each_concurrent(AT_ONCE, try_case).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_full_is_named_wherever_the_build_needs_room_on_it() -> anyhow::Result<()> {
    let full =
        "error with cfs lock 'storage-local': command '/sbin/lvcreate' failed: insufficient free space";
    for (method, path) in
        [("POST", CLONE), ("PUT", "/nodes/*/qemu/*/resize"), ("POST", "/nodes/*/qemu/*/config")]
    {
        let site = LabSite::in_name_only().await?.with_old_template("tiny").await?;
        let more =
            "[vm]\ndisks = [{ slot = \"scsi0\", size = \"20GiB\" }, { slot = \"scsi1\", size = \"1GiB\" }]\n";
        site.write("tiny.toml", &format!("{PROFILE}\n{more}"));
        let handle = site.lab.faults().on(method, path).then(Fault::TaskFail { text: full.into() });
        let done = site.run(&["build", "tiny.toml"]).await;
        assert_eq!((done.code, handle.fired()), (Some(1), 1), "{path}: {}", done.stderr);
        assert!(done.stderr.contains("insufficient free space"), "{path}: {}", done.stderr);
        site.assert_nothing_left();
        site.assert_old_template(true, path);
        site.close().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_never_comes_up_is_named_when_the_time_is_over() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?.with_old_template("tiny").await?;
    site.write("tiny.toml", &PROFILE.replace("\"15m\"", "\"4s\""));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("guest agent is not running"), "{}", done.stderr);
    site.assert_nothing_left();
    site.assert_old_template(true, "no agent");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_lost_while_the_guest_is_awaited_is_told_and_gc_clears_up_when_it_is_back()
-> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?.with_old_template("tiny").await?;
    site.write("tiny.toml", &PROFILE.replace("\"15m\"", "\"20s\""));
    let mut build = site.start(&["build", "tiny.toml"]);
    build.says("connect: waiting for SSH").await;
    site.lab.set_online("pve", false);
    build.says("has no connection to node pve").await;
    let done = build.ended().await;
    assert_eq!(done.code, Some(4), "{}", done.stderr);
    assert!(done.stderr.contains("forge gc"), "{}", done.stderr);
    assert_eq!(site.others().len(), 1, "it could not be removed");
    site.lab.set_online("pve", true);
    let gc = site.run(&["gc"]).await;
    assert_eq!(gc.code, Some(0), "{}", gc.stderr);
    site.assert_nothing_left();
    site.assert_old_template(true, "a lost node");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tasks_warn_of_is_shown_and_the_build_succeeds() {
    let scene = OnLab::new().await;
    for path in [CLONE, START, TEMPLATE] {
        let text = format!("warned by {path}");
        scene.site.lab.faults().on("POST", path).then(Fault::TaskWarn { text });
    }
    let ending = scene.bench.build_with(None).await.expect("it lives");
    assert!(matches!(ending, Ending::Done { .. }), "{ending:?}");
    let warned: Vec<String> = scene
        .bench
        .told()
        .into_iter()
        .filter_map(|event| match event {
            Event::Warning { message, .. } if message.contains(" warns: ") => Some(message),
            _ => None,
        })
        .collect();
    let expected = [CLONE, START, TEMPLATE].map(|path| format!("Proxmox VE warns: warned by {path}"));
    assert_eq!(warned, expected);
    scene.assert_template("warned");
    scene.close().await;
}
