//! `kill -9`, Ctrl-C and lost answers at chosen moments, on the lab: what is left is exactly what may be left.

use std::time::{Duration, Instant};

use forge_lab::{Fault, Gate, ImportVm};
use nix::sys::signal::Signal;

use crate::support::lab_site::{FIRST_ID, LabSite, PROFILE, reached};

const CLONE: &str = "/nodes/*/qemu/*/clone";
const CONFIG: &str = "/nodes/*/qemu/*/config";
const START: &str = "/nodes/*/qemu/*/status/start";
pub(crate) const SHUTDOWN: &str = "/nodes/*/qemu/*/status/shutdown";
const TEMPLATE: &str = "/nodes/*/qemu/*/template";

/// What "within seconds" may be on a machine that is busy with other things.
const SECONDS: Duration = Duration::from_secs(30);

pub(crate) async fn gc_finds_its_way(site: &LabSite) -> String {
    let done = site.run(&["gc"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    format!("{}{}", done.stdout, done.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_keep_point_gc_leaves_nothing() -> anyhow::Result<()> {
    type Make = fn(Gate) -> Fault;
    // While the call is held its work comes only after the kill: as with a request that is still on its way.
    let moments: [(&str, &str, Make); 9] = [
        ("POST", CLONE, Fault::Hold),
        ("POST", CLONE, Fault::HoldAfter),
        ("POST", CLONE, Fault::TaskHold),
        ("POST", CLONE, Fault::TaskHoldAfter),
        ("PUT", CONFIG, Fault::Hold),
        ("PUT", CONFIG, Fault::HoldAfter),
        ("POST", START, Fault::Hold),
        ("POST", START, Fault::HoldAfter),
        ("POST", START, Fault::TaskHold),
    ];
    for (method, path, make) in moments {
        let moment = format!("{method} {path} {:?}", make(Gate::new()));
        let site = LabSite::in_name_only().await?;
        let gate = Gate::new();
        let fault = make(gate.clone());
        let is_task = matches!(fault, Fault::TaskHold(_) | Fault::TaskHoldAfter(_));
        let is_held = path == CLONE && matches!(fault, Fault::TaskHold(_));
        site.lab.faults().on(method, path).then(fault);
        let mut build = site.start(&["build", "tiny.toml"]);
        reached(&gate, &mut build).await;
        if is_task && path == CLONE {
            // The journal knows the task by now.
            build.says("create: cloning boot-vm").await;
        }
        build.kill().await;
        assert_eq!(site.journals().len(), 1, "{moment}: the journal is there");
        // A clone that is held stays held: `gc` must stop it.
        if !is_held {
            gate.release();
        }
        let told = gc_finds_its_way(&site).await;
        assert_eq!(site.others(), [], "{moment}: {told}");
        site.assert_nothing_left();
        gate.release();
        site.close().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_clone_s_task_is_known_gc_waits_for_the_clone_and_removes_it() -> anyhow::Result<()>
{
    let site = LabSite::in_name_only().await?;
    let (answer, task) = (Gate::new(), Gate::new());
    site.lab.faults().on("POST", CLONE).then(Fault::HoldAfter(answer.clone()));
    site.lab.faults().on("POST", CLONE).then(Fault::TaskHold(task.clone()));
    let mut build = site.start(&["build", "tiny.toml"]);
    reached(&answer, &mut build).await;
    build.kill().await;
    answer.release();
    let before = site.lab.requests().len();
    let gc = site.start(&["gc"]);
    // It looks at the locked VM more than once.
    while site.lab.requests().len() < before + 6 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(site.others().len(), 1);
    task.release();
    let done = gc.ended().await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_waits_for_the_guest_the_next_build_clears_up_before_it_begins() -> anyhow::Result<()>
{
    let site = LabSite::in_name_only().await?;
    let mut build = site.start(&["build", "tiny.toml"]);
    build.says("connect: waiting for SSH").await;
    build.kill().await;
    assert_eq!(site.others().len(), 1);
    let gate = Gate::new();
    site.lab.faults().on("POST", CLONE).then(Fault::TaskHold(gate.clone()));
    let mut next = site.start(&["build", "tiny.toml"]);
    reached(&gate, &mut next).await;
    let told = next.said();
    assert!(told.contains("left by CHAIN-") && told.contains("removed"), "{told}");
    assert_eq!(site.others().len(), 1, "only the new build's VM is there");
    next.signal(Signal::SIGINT);
    assert_eq!(next.ended().await.code, Some(130));
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_in_the_middle_of_a_slow_clone_it_ends_within_seconds_and_leaves_nothing()
-> anyhow::Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let site = LabSite::in_name_only().await?;
        let gate = Gate::new();
        site.lab.faults().on("POST", CLONE).then(Fault::TaskHold(gate.clone()));
        let mut build = site.start(&["build", "tiny.toml"]);
        reached(&gate, &mut build).await;
        build.says("create: cloning boot-vm").await;
        let interrupted = Instant::now();
        build.signal(signal);
        let done = build.ended().await;
        assert!(interrupted.elapsed() < SECONDS, "{:?}", interrupted.elapsed());
        assert_eq!(done.code, Some(130), "{}", done.stderr);
        assert!(done.stderr.contains("nothing is left on the target"), "{}", done.stderr);
        site.assert_nothing_left();
        site.close().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_interruption_ends_the_clean_up_and_says_how_to_go_on() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let gate = Gate::new();
    site.lab.faults().on("DELETE", "/nodes/*/qemu/*").then(Fault::Hold(gate.clone()));
    let mut build = site.start(&["build", "tiny.toml"]);
    build.says("connect: waiting for SSH").await;
    build.signal(Signal::SIGINT);
    reached(&gate, &mut build).await;
    let interrupted = Instant::now();
    build.signal(Signal::SIGINT);
    let done = build.ended().await;
    assert!(interrupted.elapsed() < SECONDS, "{:?}", interrupted.elapsed());
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert!(done.stderr.contains("`forge gc` does the rest"), "{}", done.stderr);
    assert_eq!(site.journals().len(), 1);
    gate.release();
    gc_finds_its_way(&site).await;
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_vm_that_took_the_id_of_a_killed_build_is_untouched() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let gate = Gate::new();
    site.lab.faults().on("POST", CLONE).then(Fault::Hold(gate.clone()));
    let mut build = site.start(&["build", "tiny.toml"]);
    reached(&gate, &mut build).await;
    build.kill().await;
    site.lab.import_vm(ImportVm { vmid: FIRST_ID, name: "payroll".into(), ..ImportVm::default() }).await?;
    let foreign = site.lab.vm(FIRST_ID);
    gate.release();
    let told = gc_finds_its_way(&site).await;
    assert!(told.contains("`payroll`") && told.contains("untouched"), "{told}");
    assert_eq!(site.lab.vm(FIRST_ID), foreign);
    assert_eq!(site.others().len(), 1);
    assert_eq!(site.journals(), Vec::<String>::new());
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_id_is_taken_in_the_meantime_takes_the_next_and_removes_only_its_own()
-> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let (first, second) = (Gate::new(), Gate::new());
    site.lab.faults().on("POST", CLONE).call(1).then(Fault::Hold(first.clone()));
    site.lab.faults().on("POST", CLONE).call(2).then(Fault::TaskHold(second.clone()));
    let mut build = site.start(&["build", "tiny.toml"]);
    reached(&first, &mut build).await;
    site.lab.import_vm(ImportVm { vmid: FIRST_ID, name: "payroll".into(), ..ImportVm::default() }).await?;
    let foreign = site.lab.vm(FIRST_ID);
    first.release();
    reached(&second, &mut build).await;
    build.says("create: cloning boot-vm (9000, full) at id 9002").await;
    build.signal(Signal::SIGINT);
    assert_eq!(build.ended().await.code, Some(130));
    assert_eq!(site.others(), Vec::from_iter(foreign));
    assert_eq!(site.journals(), Vec::<String>::new());
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_answer_to_the_clone_is_lost_the_build_goes_on_with_the_vm_that_is_there()
-> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.lab.faults().on("POST", CLONE).then(Fault::DoThenDrop);
    let mut build = site.start(&["build", "tiny.toml"]);
    build.says("connect: waiting for SSH").await;
    assert!(
        build.said().contains("the answer to the creation was lost, but the VM is there"),
        "{}",
        build.said()
    );
    assert_eq!(site.others().len(), 1, "one VM, not two");
    build.signal(Signal::SIGINT);
    assert_eq!(build.ended().await.code, Some(130));
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_request_to_clone_is_lost_the_build_fails_and_leaves_nothing() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.lab.faults().on("POST", CLONE).then(Fault::DropBefore);
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("VM 9001 on pve could not be created"), "{}", done.stderr);
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_clone_task_is_quoted_and_leaves_nothing() -> anyhow::Result<()> {
    for fault in [
        Fault::TaskFail { text: "storage 'local' is full".into() },
        Fault::TaskFailAfter { text: "storage 'local' is full".into() },
    ] {
        let site = LabSite::in_name_only().await?;
        site.lab.faults().on("POST", CLONE).then(fault);
        let done = site.run(&["build", "tiny.toml"]).await;
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        assert!(done.stderr.contains("storage 'local' is full"), "{}", done.stderr);
        site.assert_nothing_left();
        site.close().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_builds_at_once_get_ids_of_their_own() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write("other.toml", &PROFILE.replace("\"tiny\"", "\"other\""));
    let gate = Gate::new();
    site.lab.faults().on("POST", CLONE).always().then(Fault::TaskHold(gate.clone()));
    let one = site.start(&["build", "tiny.toml"]);
    let mut two = site.start(&["build", "tiny.toml", "other.toml", "--parallel", "2"]);
    let mut looked = 0;
    while site.others().len() < 3 {
        looked += 1;
        assert!(looked < 3000, "{}\n{}", one.said(), two.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    two.says("other   create: cloning").await;
    let ids: Vec<u32> = site.others().iter().map(|vm| vm.vmid).collect();
    assert_eq!(ids, [FIRST_ID, FIRST_ID + 1, FIRST_ID + 2]);
    one.signal(Signal::SIGINT);
    two.signal(Signal::SIGINT);
    assert_eq!((one.ended().await.code, two.ended().await.code), (Some(130), Some(130)));
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

/// Asserts that one VM is kept for `forge finish`, stopped and marked, and nothing else.
fn assert_kept(site: &LabSite) {
    let others = site.others();
    assert_eq!(others.len(), 1, "{others:?}");
    let vm = &others[0];
    assert!(!vm.running && !vm.template && vm.lock.is_none(), "{vm:?}");
    assert!(format!("{} {}", vm.tags, vm.description).contains("kept"), "{vm:?}");
    assert!(site.lab.qemu_pids().is_empty(), "no guest runs");
    let journals = site.journals();
    assert_eq!(journals.len(), 2, "the journal and the key: {journals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_keep_point_gc_keeps_a_tiny_guest_that_finish_turns_into_the_template()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let gate = Gate::new();
    site.lab.faults().on("POST", SHUTDOWN).then(Fault::Hold(gate.clone()));
    let mut build = site.start(&["build", "tiny.toml"]);
    reached(&gate, &mut build).await;
    build.kill().await;
    gate.release();
    let told = gc_finds_its_way(&site).await;
    assert!(told.contains("forge finish 9001"), "{told}");
    assert_kept(&site);
    let told = gc_finds_its_way(&site).await;
    assert!(told.contains("forge finish 9001"), "a second time it is the same: {told}");
    assert_kept(&site);
    let done = site.run(&["finish", "9002"]).await;
    assert_eq!(done.code, Some(3), "{}", done.stderr);
    assert!(done.stderr.contains("9001 of lab (tiny)"), "{}", done.stderr);
    let done = site.run(&["finish", "9001"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_that_can_not_be_sealed_is_kept_and_finish_seals_it_when_it_can() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    kept_and_finished(site).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debian_guest_seeded_by_smbios_that_can_not_be_sealed_is_kept_and_finish_makes_the_template()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_debian(false).await? else { return Ok(()) };
    kept_and_finished(site).await
}

/// The first seal fails, and `forge finish` boots the kept VM again, without its seed, and seals it.
async fn kept_and_finished(site: LabSite) -> anyhow::Result<()> {
    // Nobody becomes root until the next boot. The tiny guest then finds no seed, and so no longer knows its user.
    let block = r#"
[[provision]]
name = "no root until the next boot"
become = true
shell = [
  "echo 'forge ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/91-forge",
  "mount --bind /bin/false $(command -v sudo)",
]
"#;
    site.write("tiny.toml", &format!("{PROFILE}{block}"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(
        done.stderr.contains("forge finish 9001") && done.stderr.contains("needs root"),
        "{}",
        done.stderr
    );
    assert_kept(&site);
    let done = site.run(&["finish", "9001"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_the_commit_point_of_a_tiny_guest_the_template_stays() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let gate = Gate::new();
    site.lab.faults().on("POST", TEMPLATE).then(Fault::HoldAfter(gate.clone()));
    let mut build = site.start(&["build", "tiny.toml"]);
    reached(&gate, &mut build).await;
    build.kill().await;
    gate.release();
    let told = gc_finds_its_way(&site).await;
    assert!(told.contains("it is the template by now and stays"), "{told}");
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_of_a_tiny_guest_that_comes_after_gc_still_ends_with_the_template_alone()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let gate = Gate::new();
    site.lab.faults().on("POST", TEMPLATE).then(Fault::Hold(gate.clone()));
    let mut build = site.start(&["build", "tiny.toml"]);
    reached(&gate, &mut build).await;
    build.kill().await;
    gc_finds_its_way(&site).await;
    assert_kept(&site);
    gate.release();
    while !site.lab.vm(FIRST_ID).is_some_and(|vm| vm.template) || !site.lab.running_tasks().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gc_finds_its_way(&site).await;
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_answer_to_the_conversion_of_a_tiny_guest_is_lost_the_build_has_succeeded()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let dropped = site.lab.faults().on("POST", TEMPLATE).then(Fault::DoThenDrop);
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(dropped.fired(), 1);
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}
