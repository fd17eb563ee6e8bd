//! Lost answers, locks, failing tasks: what the engine is told.

use forge_lab::{Fault, Gate, LabConfig};
use forge_machine::{Attachments, Finish, Hypervisor as _, PortError, Power, Standing, StopRung};
use forge_proxmox::api::encode::Params;

use crate::support::{bench, bench_with, ladder, mark, query, spec};

const CLONE: &str = "/nodes/*/qemu/*/clone";

#[tokio::test]
async fn a_clone_whose_answer_was_lost_is_found_again_by_its_nonce() {
    let bench = bench().await;
    let mark = mark(1);
    let gate = Gate::new();
    bench.lab.faults().on("POST", CLONE).then(Fault::TaskHold(gate.clone()));
    bench.lab.faults().on("POST", CLONE).then(Fault::DoThenDrop);
    let at = bench.pve.propose_id(&spec(), &[]).await.expect("an id");
    let error = bench.pve.submit_create(&spec(), &at, &mark).await.expect_err("the answer is lost");
    assert!(error.is_outcome_unknown(), "{error:?}");
    gate.reached().await;
    let standing = bench.pve.standing(&at, &mark.nonce).await.expect("asked");
    assert_eq!(standing, Standing::Busy { lock: "clone".into() });
    gate.release();
    let standing = loop {
        match bench.pve.standing(&at, &mark.nonce).await.expect("asked") {
            Standing::Busy { .. } => tokio::task::yield_now().await,
            other => break other,
        }
    };
    assert_eq!(standing, Standing::Ours { power: Power::Stopped, kept: false });
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_clone_that_never_arrived_left_nothing() {
    let bench = bench().await;
    let mark = mark(2);
    bench.lab.faults().on("POST", CLONE).then(Fault::DropBefore);
    let at = bench.pve.propose_id(&spec(), &[]).await.expect("an id");
    let error = bench.pve.submit_create(&spec(), &at, &mark).await.expect_err("the answer is lost");
    assert!(error.is_outcome_unknown(), "{error:?}");
    assert_eq!(bench.pve.standing(&at, &mark.nonce).await.expect("asked"), Standing::Gone);
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_timeout_inside_proxmox_is_an_unknown_outcome() {
    let bench = bench().await;
    let fault = Fault::Refuse { status: 596, reason: "Connection timed out".into() };
    bench.lab.faults().on("POST", CLONE).then(fault);
    let at = bench.pve.propose_id(&spec(), &[]).await.expect("an id");
    let error = bench.pve.submit_create(&spec(), &at, &mark(3)).await.expect_err("no answer");
    assert!(error.is_outcome_unknown(), "{error:?}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_failed_task_tells_its_own_words() {
    let bench = bench().await;
    let text = "clone failed: no space left on device".to_owned();
    bench.lab.faults().on("POST", CLONE).then(Fault::TaskFail { text });
    let at = bench.pve.propose_id(&spec(), &[]).await.expect("an id");
    let task = bench.pve.submit_create(&spec(), &at, &mark(4)).await.expect("submitted");
    let error = bench.pve.wait(&task).await.expect_err("it failed");
    assert!(error.to_string().contains("no space left on device"), "{error}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_stopped_clone_leaves_nothing_behind() {
    let bench = bench().await;
    let mark = mark(5);
    let gate = Gate::new();
    bench.lab.faults().on("POST", CLONE).then(Fault::TaskHold(gate.clone()));
    let at = bench.pve.propose_id(&spec(), &[]).await.expect("an id");
    let task = bench.pve.submit_create(&spec(), &at, &mark).await.expect("submitted");
    gate.reached().await;
    bench.pve.stop_task(&task).await.expect("stopped");
    let error = bench.pve.wait(&task).await.expect_err("it was stopped");
    assert!(
        error.to_string().contains("interrupt") || error.to_string().contains("unexpected status"),
        "{error}"
    );
    assert_eq!(bench.pve.standing(&at, &mark.nonce).await.expect("asked"), Standing::Gone);
    bench.pve.stop_task(&task).await.expect("stopping twice is no error");
    bench.lab.stop().await;
}

#[tokio::test]
async fn configuring_waits_until_the_lock_is_gone() {
    let bench = bench().await;
    let at = bench.clone_vm(&mark(6)).await;
    for reason in
        ["VM is locked (backup)", "can't lock file '/var/lock/qemu-server/lock-9000.conf' - got timeout"]
    {
        let locked = Fault::Refuse { status: 500, reason: reason.into() };
        let rule = bench.lab.faults().on("PUT", "/nodes/*/qemu/*/config").then(locked);
        bench
            .pve
            .machine(&at)
            .configure(&spec(), &mark(6), &Attachments::default())
            .await
            .expect("configured");
        assert_eq!(rule.fired(), 1, "{reason}");
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_lost_answer_to_a_change_that_may_be_repeated_is_repeated_once() {
    let bench = bench().await;
    let at = bench.clone_vm(&mark(7)).await;
    let machine = bench.pve.machine(&at);
    bench.lab.faults().on("PUT", "/nodes/*/qemu/*/config").then(Fault::DoThenDrop);
    machine.configure(&spec(), &mark(7), &Attachments::default()).await.expect("configured");
    bench.lab.faults().clear();
    bench.lab.faults().on("PUT", "/nodes/*/qemu/*/config").always().then(Fault::DropBefore);
    let error =
        machine.configure(&spec(), &mark(7), &Attachments::default()).await.expect_err("lost for good");
    assert!(error.is_outcome_unknown(), "{error:?}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_lost_answer_to_the_conversion_is_unknown_and_standing_shows_what_became_of_it() {
    let bench = bench().await;
    let mark = mark(8);
    let at = bench.clone_vm(&mark).await;
    let finish = Finish::Template { name: "tpl".into(), tags: Vec::new(), notes: mark.to_description() };
    let template = "/nodes/*/qemu/*/template";
    bench.lab.faults().on("POST", template).then(Fault::DropBefore);
    let error = bench.pve.machine(&at).submit_finalize(&finish).await.expect_err("lost");
    assert!(error.is_outcome_unknown(), "{error:?}");
    let ours = Standing::Ours { power: Power::Stopped, kept: false };
    assert_eq!(bench.pve.standing(&at, &mark.nonce).await.expect("asked"), ours);

    bench.lab.faults().clear();
    bench.lab.faults().on("POST", template).then(Fault::DoThenDrop);
    let error = bench.pve.machine(&at).submit_finalize(&finish).await.expect_err("lost");
    assert!(error.is_outcome_unknown(), "{error:?}");
    while bench.pve.standing(&at, &mark.nonce).await.expect("asked") != Standing::Committed {
        tokio::task::yield_now().await;
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_guest_that_counts_as_running_for_a_moment_is_waited_for() {
    let bench = bench().await;
    let mark = mark(9);
    let at = bench.clone_vm(&mark).await;
    let reason = "you can't convert a VM to template if VM is running".to_owned();
    bench.lab.faults().on("POST", "/nodes/*/qemu/*/template").then(Fault::Refuse { status: 500, reason });
    let finish = Finish::Template { name: "tpl".into(), tags: Vec::new(), notes: mark.to_description() };
    let task = bench.pve.machine(&at).submit_finalize(&finish).await.expect("submitted");
    bench.pve.wait(&task).await.expect("converted");
    assert_eq!(bench.pve.standing(&at, &mark.nonce).await.expect("asked"), Standing::Committed);
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_guest_that_ignores_the_request_is_cut_off_only_when_that_is_allowed() {
    let bench = bench().await;
    let at = bench.clone_vm(&mark(10)).await;
    let machine = bench.pve.machine(&at);
    let task = machine.submit_start().await.expect("submitted");
    bench.pve.wait(&task).await.expect("started");
    let text = "VM quit/powerdown failed - got timeout".to_owned();
    bench.lab.faults().on("POST", "/nodes/*/qemu/*/status/shutdown").always().then(Fault::TaskFail { text });
    match machine.stop(&ladder(1, false)).await.expect_err("it still runs") {
        PortError::TimedOut { last_seen, .. } => {
            assert!(last_seen.contains("powerdown failed"), "{last_seen}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(machine.stop(&ladder(1, true)).await.expect("stopped"), StopRung::PowerOff);
    assert_eq!(machine.state().await.expect("asked").power, Power::Stopped);
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_lost_answer_to_removal_is_settled_by_looking() {
    let bench = bench().await;
    let mark = mark(11);
    let at = bench.clone_vm(&mark).await;
    bench.lab.faults().on("DELETE", "/nodes/*/qemu/*").then(Fault::DropBefore);
    let error = bench.pve.machine(&at).destroy().await.expect_err("it still stands");
    assert!(error.is_outcome_unknown(), "{error:?}");
    bench.pve.machine(&at).destroy().await.expect("removed");
    assert_eq!(bench.pve.standing(&at, &mark.nonce).await.expect("asked"), Standing::Gone);
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_read_survives_a_closed_connection_once() {
    let bench = bench().await;
    bench.lab.faults().on("GET", "/version").then(Fault::DropBefore);
    bench.pve.facts(&query()).await.expect("asked twice");
    bench.lab.faults().on("GET", "/version").always().then(Fault::DropBefore);
    let error = bench.pve.facts(&query()).await.expect_err("cut twice");
    assert!(matches!(error, PortError::Unreachable { .. }), "{error:?}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_denied_change_names_path_privilege_and_the_command_that_grants_it() {
    let bench = bench().await;
    let at = bench.clone_vm(&mark(12)).await;
    bench.lab.set_token_access(crate::support::TOKEN, &[("/", &["VM.Audit"])]);
    match bench.pve.machine(&at).submit_start().await.expect_err("denied") {
        PortError::Denied { detail, .. } => {
            assert!(
                detail.contains(&format!("/vms/{}", at.id)) && detail.contains("VM.PowerMgmt"),
                "{detail}"
            );
            let command = format!("pveum acl modify /vms/{} --roles ForgeBuild", at.id);
            assert!(detail.contains(&command), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_vm_on_another_node_is_found_and_removed() {
    let config =
        LabConfig { run_guests: false, nodes: vec!["pve".into(), "pve2".into()], ..LabConfig::default() };
    let bench = bench_with(config).await;
    let mark = mark(13);
    let vm = forge_lab::ImportVm {
        vmid: 9005,
        name: mark.nonce.vm_name(),
        node: Some("pve2".into()),
        ..forge_lab::ImportVm::default()
    };
    bench.lab.import_vm(vm).await.expect("imported");
    let believed = forge_machine::VmRef::new("9005", "pve");
    let ours = Standing::Ours { power: Power::Stopped, kept: false };
    assert_eq!(bench.pve.standing(&believed, &mark.nonce).await.expect("asked"), ours);
    bench.pve.machine(&believed).destroy().await.expect("removed");
    assert!(bench.lab.vm(9005).is_none());
    bench.lab.stop().await;
}

#[tokio::test]
async fn field_errors_reach_the_message() {
    let bench = bench().await;
    let bad = Params::new().with("bogus", 1);
    let error = bench.pve.client().put("/nodes/pve/qemu/100/config", &bad).await.expect_err("refused");
    assert!(error.to_string().contains("bogus: "), "{error}");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_tag_is_taken_off_without_undoing_what_somebody_else_changes_meanwhile() {
    let bench = bench().await;
    let mark = mark(21);
    let at = bench.clone_vm(&mark).await;
    let machine = bench.pve.machine(&at);
    let tags = vec!["golden".to_owned(), "latest".to_owned()];
    let finish = Finish::Template { name: "tpl".into(), tags, notes: mark.to_description() };
    let task = machine.submit_finalize(&finish).await.expect("submitted");
    bench.pve.wait(&task).await.expect("converted");
    machine.publish(&finish).await.expect("published");
    let gate = Gate::new();
    bench.lab.faults().on("PUT", "/nodes/*/qemu/*/config").then(Fault::Hold(gate.clone()));
    let untag = machine.untag("latest");
    let change = async {
        gate.reached().await;
        let path = format!("/nodes/pve/qemu/{}/config", at.id);
        let tags = forge_proxmox::api::encode::Params::new().with("tags", "golden;latest;checked");
        bench.pve.client().put(&path, &tags).await.expect("changed");
        gate.release();
    };
    let (untagged, ()) = tokio::join!(untag, change);
    untagged.expect("untagged");
    assert_eq!(bench.config_of(&at, "tags").as_deref(), Some("checked;golden"));
    bench.lab.stop().await;
}
