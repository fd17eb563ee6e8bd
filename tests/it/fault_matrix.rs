//! The fault matrix on the strict fake, and what only the fake can be made to do.

use std::sync::Arc;
use std::time::Duration;

use forge::engine::effect::{Effect, When};
use forge::event::Ending;
use forge_machine::fake::{FakeHypervisor, FakeOp, FakeVm, FakeWorld};
use forge_machine::{BuildState, Ownership, Power, VmRef};

use crate::support::fake_build::{Blow, plan};
use crate::support::matrix::{self, Scene};
use crate::support::workbench::Workbench;

/// A fake world with a boot VM.
struct Site {
    world: FakeWorld,
    bench: Workbench,
}

impl Site {
    fn new() -> Self {
        let world = FakeWorld::with_boot_vm();
        world.put(VmRef::new("8999", "fake"), old_template(true));
        let opened = world.clone();
        let bench = Workbench::new(plan(), Box::new(move || Arc::new(FakeHypervisor::new(opened.clone()))));
        Self { world, bench }
    }
}

impl Scene for Site {
    fn bench(&self) -> &Workbench {
        &self.bench
    }

    fn assert_nothing_left(&self, case: &str) {
        assert_eq!(others(self), [], "{case}");
        assert_eq!(old(self), old_template(true), "{case}");
    }

    fn assert_template(&self, case: &str) {
        let left = others(self);
        assert_eq!(left.len(), 1, "{case}: {left:?}");
        let vm = &left[0].1;
        assert!(vm.template && vm.name == "tpl-fake" && vm.power == Power::Stopped, "{case}: {vm:?}");
        let seedless = forge_machine::Attachments::default();
        assert_eq!(vm.attachments, seedless, "{case}: the seed is still attached");
        assert!(!vm.onboot && !vm.protection, "{case}: inherited from the source: {vm:?}");
        assert_eq!(vm.tags, ["forge", "latest"], "{case}");
        assert_eq!(old(self), old_template(false), "{case}");
    }

    fn assert_kept(&self, case: &str) {
        let left = others(self);
        assert_eq!(left.len(), 1, "{case}: {left:?}");
        let vm = &left[0].1;
        assert_eq!((vm.power, vm.template), (Power::Stopped, false), "{case}");
        let mark = Ownership::from_description(&vm.description).expect("marked");
        assert_eq!(mark.state, BuildState::Kept, "{case}");
        assert!(vm.tags.contains(&"forge-kept".to_owned()), "{case}: {:?}", vm.tags);
        assert_eq!(old(self), old_template(true), "{case}");
    }

    async fn close(self) {}
}

fn others(site: &Site) -> Vec<(VmRef, FakeVm)> {
    site.world.vms().into_iter().filter(|(at, _)| at.id != "9000" && at.id != "8999").collect()
}

/// The template that an earlier build of the profile made.
fn old_template(is_latest: bool) -> FakeVm {
    let mut vm = FakeVm::new("tpl-fake");
    vm.template = true;
    vm.tags = if is_latest { vec!["forge".into(), "latest".into()] } else { vec!["forge".into()] };
    vm.description = "* chain id: CHAIN-20260101T000000Z-fake\n* profile: fake".into();
    vm
}

fn old(site: &Site) -> FakeVm {
    site.world.vms().remove(&VmRef::new("8999", "fake")).expect("nothing removes a template")
}

#[tokio::test]
async fn a_build_without_faults_makes_exactly_the_template() {
    matrix::without_faults(Site::new()).await;
}

#[tokio::test]
async fn a_failure_or_interruption_at_any_effect_leaves_what_its_region_says() {
    matrix::failures_and_interruptions(async || Site::new()).await;
}

#[tokio::test]
async fn after_a_death_at_any_effect_gc_leaves_what_its_region_says() {
    matrix::deaths(async || Site::new()).await;
}

#[tokio::test]
async fn a_lost_answer_never_loses_work_and_never_leaves_a_vm() {
    for op in
        [FakeOp::Create, FakeOp::Configure, FakeOp::Start, FakeOp::Detach, FakeOp::Finalize, FakeOp::Publish]
    {
        let site = Site::new();
        site.world.lose_answer(op);
        let ending = site.bench.build_with(None).await.expect("it lives");
        match op {
            FakeOp::Configure | FakeOp::Start => {
                assert_eq!(ending.exit_code(), 1, "{op:?}: {ending:?}");
                assert_eq!(others(&site), [], "{op:?}");
            }
            _ => {
                assert_eq!(ending.exit_code(), 0, "{op:?}: {ending:?}");
                site.assert_template(&format!("lost {op:?}"));
            }
        }
    }
}

#[tokio::test]
async fn an_interruption_in_the_middle_of_a_slow_clone_stops_it_and_leaves_nothing() {
    let site = Site::new();
    site.world.set_clone_time(Duration::from_secs(3600));
    let cloning = site.world.until("the clone", |vms| vms.values().any(|vm| vm.lock == Some("clone")));
    let ending = site.bench.interrupt_when(cloning).await;
    assert_eq!(ending.exit_code(), 130, "{ending:?}");
    assert_eq!(others(&site), []);
}

#[tokio::test]
async fn a_foreign_vm_that_took_the_id_is_left_untouched() {
    let site = Site::new();
    site.world.set_clone_time(Duration::from_millis(20));
    let point = Some((Effect::SubmitCreate, When::Before, Blow::Die));
    assert_eq!(site.bench.build_with(point).await, None);
    let foreign = FakeVm { power: Power::Running, ..FakeVm::new("somebody-elses") };
    site.world.put(VmRef::new("100", "fake"), foreign.clone());
    let found = site.bench.gc().await;
    assert!(found.iter().all(|each| each.ok), "{found:?}");
    assert_eq!(others(&site), [(VmRef::new("100", "fake"), foreign)]);
}

#[tokio::test]
async fn what_cannot_be_removed_is_told_and_gc_tries_again() {
    let site = Site::new();
    site.world.refuse(FakeOp::Destroy, "the storage is offline");
    let point = Some((Effect::Login, When::After, Blow::Fail));
    let ending = site.bench.build_with(point).await.expect("it lives");
    assert_eq!(ending.exit_code(), 4, "{ending:?}");
    let Ending::Failed { left_behind, .. } = &ending else { unreachable!("failed") };
    assert!(left_behind[0].contains("the storage is offline"), "{left_behind:?}");
    let found = site.bench.gc().await;
    assert!(found.iter().any(|each| !each.ok), "{found:?}");
    site.world.allow(FakeOp::Destroy);
    let found = site.bench.gc().await;
    assert!(found.iter().all(|each| each.ok), "{found:?}");
    assert_eq!(others(&site), []);
    assert_eq!(site.bench.journal_files(), [""; 0]);
}

#[tokio::test]
async fn a_template_that_could_not_be_published_is_published_by_gc() {
    for op in [FakeOp::Publish, FakeOp::Untag] {
        let site = Site::new();
        site.world.refuse(op, "the cluster has no quorum");
        let ending = site.bench.build_with(None).await.expect("it lives");
        assert_eq!(ending.exit_code(), 5, "{op:?}: {ending:?}");
        let told = ending.failure().expect("told").hints.concat();
        assert!(told.contains("`forge gc` publishes it"), "{op:?}: {told}");
        assert_eq!(old(&site), old_template(true), "{op:?}: the old one is the answer until the new one is");
        let found = site.bench.gc().await;
        assert!(found.iter().any(|each| !each.ok), "{op:?}: {found:?}");
        site.world.allow(op);
        let found = site.bench.gc().await;
        assert!(found.iter().all(|each| each.ok), "{op:?}: {found:?}");
        site.assert_template(&format!("{op:?}"));
        assert_eq!(site.bench.journal_files(), [""; 0]);
    }
}

#[tokio::test]
async fn a_kept_vm_that_is_another_s_by_now_is_not_touched_by_finish() {
    let site = Site::new();
    let point = Some((Effect::Seal, When::Before, Blow::Fail));
    let ending = site.bench.build_with(point).await.expect("it lives");
    assert!(matches!(ending, Ending::Kept { .. }), "{ending:?}");
    let [(at, _)] = others(&site).try_into().expect("one VM");
    let foreign = FakeVm { power: Power::Running, ..FakeVm::new("somebody-elses") };
    site.world.put(at.clone(), foreign.clone());
    let ending = site.bench.finish().await;
    let failure = ending.failure().expect("there is nothing to finish");
    assert!(failure.heading.contains("is `somebody-elses` now"), "{failure:?}");
    assert_eq!(others(&site), [(at, foreign)]);
    assert_eq!(site.bench.journal_files().len(), 2, "journal and key stay until gc has looked at them");
    let found = site.bench.gc().await;
    assert!(found.iter().all(|each| each.ok), "{found:?}");
    assert_eq!(site.bench.journal_files(), [""; 0]);
}

#[tokio::test]
async fn a_kept_build_that_nobody_wants_any_more_is_given_up_on_request_only() {
    let site = Site::new();
    let point = Some((Effect::Seal, When::Before, Blow::Fail));
    let ending = site.bench.build_with(point).await.expect("it lives");
    assert!(matches!(ending, Ending::Kept { .. }), "{ending:?}");
    let found = site.bench.gc_left().await;
    assert!(found.iter().all(|each| each.ok && each.result.contains("forge gc --kept")), "{found:?}");
    assert_eq!(others(&site).len(), 1, "its scripts had succeeded");
    let found = site.bench.gc_kept().await;
    assert!(found.iter().all(|each| each.ok), "{found:?}");
    assert!(found.iter().any(|each| each.what.contains("which was kept")), "{found:?}");
    assert_eq!(others(&site), []);
    assert_eq!(site.bench.journal_files(), [""; 0]);
}
