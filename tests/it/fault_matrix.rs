//! For every effect, before and after it: a failure, an interruption, and the death of the process.
//!
//! Before the keep point nothing remains; between keep and commit one stopped, marked VM that `forge finish` turns
//! into the template; after the commit point exactly the template. Generated from the list of effects.

use std::time::Duration;

use forge::engine::effect::{Effect, When};
use forge::event::{Ending, Region};
use forge_machine::fake::{FakeOp, FakeVm};
use forge_machine::{BuildState, Ownership, Power, VmRef};

use crate::support::fake_build::{Blow, Site};

fn region(effect: Effect, when: When) -> Region {
    match (effect, when) {
        (Effect::Finalize, When::After) => Region::Committed,
        (effect, _) if effect <= Effect::Provision => Region::Building,
        _ => Region::Keeping,
    }
}

fn others(site: &Site) -> Vec<(VmRef, FakeVm)> {
    site.world.vms().into_iter().filter(|(at, _)| at.id != "9000").collect()
}

fn assert_template(site: &Site, case: &str) {
    let left = others(site);
    assert_eq!(left.len(), 1, "{case}: {left:?}");
    let vm = &left[0].1;
    assert!(vm.template && vm.name == "tpl-fake" && vm.power == Power::Stopped, "{case}: {vm:?}");
    assert_eq!(vm.attachments, forge_machine::Attachments::default(), "{case}: the seed is still attached");
    assert!(!vm.onboot && !vm.protection, "{case}: inherited from the source: {vm:?}");
    assert_eq!(site.journal_files(), [""; 0], "{case}");
}

fn assert_kept(site: &Site, case: &str) {
    let left = others(site);
    assert_eq!(left.len(), 1, "{case}: {left:?}");
    let vm = &left[0].1;
    assert_eq!((vm.power, vm.template), (Power::Stopped, false), "{case}");
    let mark = Ownership::from_description(&vm.description).expect("marked");
    assert_eq!(mark.state, BuildState::Kept, "{case}");
    assert!(vm.tags.contains(&"forge-kept".to_owned()), "{case}: {:?}", vm.tags);
}

#[tokio::test]
async fn a_build_without_faults_makes_exactly_the_template() {
    let site = Site::new();
    let ending = site.build_with(None).await.expect("it lives");
    assert_eq!(ending.exit_code(), 0, "{ending:?}");
    assert_template(&site, "no fault");
}

#[tokio::test]
async fn a_failure_or_interruption_at_any_effect_leaves_what_its_region_says() {
    for effect in Effect::ALL {
        for when in [When::Before, When::After] {
            for blow in [Blow::Fail, Blow::Interrupt] {
                let case = format!("{blow:?} {when:?} {effect:?}");
                let site = Site::new();
                let ending = site.build_with(Some((effect, when, blow))).await.expect("it lives");
                match region(effect, when) {
                    Region::Building
                        if blow == Blow::Interrupt && (effect, when) == (Effect::Provision, When::After) =>
                    {
                        // The work was done when the interruption was noticed: it is kept.
                        assert!(matches!(ending, Ending::Kept { .. }), "{case}: {ending:?}");
                        assert_kept(&site, &case);
                    }
                    Region::Building => {
                        assert_eq!(others(&site), [], "{case}");
                        assert_eq!(
                            ending.exit_code(),
                            if blow == Blow::Fail { 1 } else { 130 },
                            "{case}: {ending:?}"
                        );
                        assert_eq!(
                            ending.failure().expect("failed").stage,
                            Some(stage_noticed(effect, when, blow)),
                            "{case}"
                        );
                        assert_eq!(site.journal_files(), [""; 0], "{case}");
                    }
                    Region::Keeping => {
                        assert!(matches!(ending, Ending::Kept { .. }), "{case}: {ending:?}");
                        assert_kept(&site, &case);
                        let finished = site.finish().await;
                        assert_eq!(finished.exit_code(), 0, "{case}: {finished:?}");
                        assert_template(&site, &case);
                    }
                    Region::Committed => {
                        let expected = if blow == Blow::Fail { 5 } else { 0 };
                        assert_eq!(ending.exit_code(), expected, "{case}: {ending:?}");
                        assert_template(&site, &case);
                    }
                }
            }
        }
    }
}

/// An interruption after an effect is noticed at the next one, which may be in the next stage.
fn stage_noticed(effect: Effect, when: When, blow: Blow) -> forge::event::Stage {
    if blow == Blow::Interrupt && when == When::After {
        let next = Effect::ALL.iter().position(|each| *each == effect).expect("listed") + 1;
        return Effect::ALL[next].stage();
    }
    effect.stage()
}

#[tokio::test]
async fn after_a_death_at_any_effect_gc_leaves_what_its_region_says() {
    for effect in Effect::ALL {
        for when in [When::Before, When::After] {
            let case = format!("death {when:?} {effect:?}");
            let site = Site::new();
            let ending = site.build_with(Some((effect, when, Blow::Die))).await;
            assert_eq!(ending, None, "{case}");
            let found = site.gc().await;
            assert!(found.iter().all(|each| each.ok), "{case}: {found:?}");
            match region(effect, when) {
                Region::Building => {
                    assert_eq!(others(&site), [], "{case}: {found:?}");
                    assert_eq!(site.journal_files(), [""; 0], "{case}");
                }
                Region::Keeping => {
                    assert_kept(&site, &case);
                    let again = site.gc().await;
                    assert!(again.iter().all(|each| each.ok), "{case}: a second gc: {again:?}");
                    assert_kept(&site, &case);
                    let finished = site.finish().await;
                    assert_eq!(finished.exit_code(), 0, "{case}: {finished:?}");
                    assert_template(&site, &case);
                }
                Region::Committed => assert_template(&site, &case),
            }
        }
    }
}

#[tokio::test]
async fn a_lost_answer_never_loses_work_and_never_leaves_a_vm() {
    for op in [FakeOp::Create, FakeOp::Configure, FakeOp::Start, FakeOp::Detach, FakeOp::Finalize] {
        let site = Site::new();
        site.world.lose_answer(op);
        let ending = site.build_with(None).await.expect("it lives");
        match op {
            FakeOp::Configure | FakeOp::Start => {
                assert_eq!(ending.exit_code(), 1, "{op:?}: {ending:?}");
                assert_eq!(others(&site), [], "{op:?}");
            }
            _ => {
                assert_eq!(ending.exit_code(), 0, "{op:?}: {ending:?}");
                assert_template(&site, &format!("lost {op:?}"));
            }
        }
    }
}

#[tokio::test]
async fn an_interruption_in_the_middle_of_a_slow_clone_stops_it_and_leaves_nothing() {
    let site = Site::new();
    site.world.set_clone_time(Duration::from_secs(3600));
    let ending =
        site.interrupt_when("the clone", |vms| vms.values().any(|vm| vm.lock == Some("clone"))).await;
    assert_eq!(ending.exit_code(), 130, "{ending:?}");
    assert_eq!(others(&site), []);
}

#[tokio::test]
async fn a_foreign_vm_that_took_the_id_is_left_untouched() {
    let site = Site::new();
    site.world.set_clone_time(Duration::from_millis(20));
    let point = Some((Effect::SubmitCreate, When::Before, Blow::Die));
    assert_eq!(site.build_with(point).await, None);
    let foreign = FakeVm { power: Power::Running, ..FakeVm::new("somebody-elses") };
    site.world.put(VmRef::new("100", "fake"), foreign.clone());
    let found = site.gc().await;
    assert!(found.iter().all(|each| each.ok), "{found:?}");
    assert_eq!(others(&site), [(VmRef::new("100", "fake"), foreign)]);
}

#[tokio::test]
async fn what_cannot_be_removed_is_told_and_gc_tries_again() {
    let site = Site::new();
    site.world.refuse(FakeOp::Destroy, "the storage is offline");
    let ending = site.build_with(Some((Effect::Login, When::After, Blow::Fail))).await.expect("it lives");
    assert_eq!(ending.exit_code(), 4, "{ending:?}");
    let Ending::Failed { left_behind, .. } = &ending else { unreachable!("failed") };
    assert!(left_behind[0].contains("the storage is offline"), "{left_behind:?}");
    let found = site.gc().await;
    assert!(found.iter().any(|each| !each.ok), "{found:?}");
    site.world.allow(FakeOp::Destroy);
    let found = site.gc().await;
    assert!(found.iter().all(|each| each.ok), "{found:?}");
    assert_eq!(others(&site), []);
    assert_eq!(site.journal_files(), [""; 0]);
}
