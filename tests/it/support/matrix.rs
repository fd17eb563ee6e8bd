//! The fault matrix: for every effect, before and after it, a failure, an interruption, and the death of the process.
//!
//! Before the keep point nothing remains; between keep and commit one stopped, marked VM that `forge finish` turns
//! into the template; after the commit point exactly the template, published. The template of an earlier build is never
//! harmed, and loses `latest` only when the new one bears it. Generated from the list of effects, for any target.

use forge::engine::effect::{Effect, When};
use forge::event::{Ending, Region};

use super::fake_build::Blow;
use super::workbench::Workbench;

/// A target with a boot VM, and what is left on it.
pub trait Scene {
    /// Where builds run.
    fn bench(&self) -> &Workbench;
    /// Nothing but the boot VM is there.
    fn assert_nothing_left(&self, case: &str);
    /// One VM is there, stopped and marked as kept.
    fn assert_kept(&self, case: &str);
    /// One VM is there, the template as planned, without anything of the build.
    fn assert_template(&self, case: &str);
    /// The test is done with it.
    fn close(self) -> impl Future<Output = ()>;
}

fn region(effect: Effect, when: When) -> Region {
    match (effect, when) {
        (Effect::Finalize, When::After) | (Effect::Publish | Effect::Retire, _) => Region::Committed,
        (effect, _) if effect <= Effect::Provision => Region::Building,
        _ => Region::Keeping,
    }
}

fn assert_done<S: Scene>(scene: &S, case: &str) {
    scene.assert_template(case);
    assert_eq!(scene.bench().journal_files(), [""; 0], "{case}");
}

/// A build that nothing happens to.
pub async fn without_faults<S: Scene>(scene: S) {
    let ending = scene.bench().build_with(None).await.expect("it lives");
    assert_eq!(ending.exit_code(), 0, "{ending:?}");
    assert_done(&scene, "no fault");
    scene.close().await;
}

/// A failure and an interruption, before and after each effect.
pub async fn failures_and_interruptions<S: Scene>(make: impl AsyncFn() -> S) {
    for effect in Effect::ALL {
        for when in [When::Before, When::After] {
            for blow in [Blow::Fail, Blow::Interrupt] {
                let scene = make().await;
                failure_or_interruption(&scene, effect, when, blow).await;
                scene.close().await;
            }
        }
    }
}

async fn failure_or_interruption<S: Scene>(scene: &S, effect: Effect, when: When, blow: Blow) {
    let case = format!("{blow:?} {when:?} {effect:?}");
    let ending = scene.bench().build_with(Some((effect, when, blow))).await.expect("it lives");
    match region(effect, when) {
        Region::Building if blow == Blow::Interrupt && (effect, when) == (Effect::Provision, When::After) => {
            // The work was done when the interruption was noticed: it is kept.
            assert!(matches!(ending, Ending::Kept { .. }), "{case}: {ending:?}");
            scene.assert_kept(&case);
        }
        Region::Building => {
            scene.assert_nothing_left(&case);
            let code = if blow == Blow::Fail { 1 } else { 130 };
            assert_eq!(ending.exit_code(), code, "{case}: {ending:?}");
            let stage = ending.failure().expect("failed").stage;
            assert_eq!(stage, Some(stage_noticed(effect, when, blow)), "{case}");
            assert_eq!(scene.bench().journal_files(), [""; 0], "{case}");
        }
        Region::Keeping => {
            assert!(matches!(ending, Ending::Kept { .. }), "{case}: {ending:?}");
            scene.assert_kept(&case);
            let finished = scene.bench().finish().await;
            assert_eq!(finished.exit_code(), 0, "{case}: {finished:?}");
            assert_done(scene, &case);
        }
        Region::Committed => {
            let expected = if blow == Blow::Fail { 5 } else { 0 };
            assert_eq!(ending.exit_code(), expected, "{case}: {ending:?}");
            if blow == Blow::Fail && effect != Effect::Finalize {
                // What is left to do of publishing is in the journal.
                assert_eq!(scene.bench().journal_files().len(), 1, "{case}: the journal");
                let found = scene.bench().gc().await;
                assert!(found.iter().all(|each| each.ok), "{case}: {found:?}");
            }
            assert_done(scene, &case);
        }
    }
}

/// An interruption after an effect is noticed at the next one, which may be in the next stage.
fn stage_noticed(effect: Effect, when: When, blow: Blow) -> forge::event::Stage {
    // After it is configured a build asks whether it may start yet.
    if blow == Blow::Interrupt && when == When::After && effect != Effect::Configure {
        let next = Effect::ALL.iter().position(|each| *each == effect).expect("listed") + 1;
        return Effect::ALL[next].stage();
    }
    effect.stage()
}

/// The death of the process before and after each effect, then `forge gc`, and `forge finish` of what is kept.
pub async fn deaths<S: Scene>(make: impl AsyncFn() -> S) {
    for effect in Effect::ALL {
        for when in [When::Before, When::After] {
            let scene = make().await;
            death(&scene, effect, when).await;
            scene.close().await;
        }
    }
}

async fn death<S: Scene>(scene: &S, effect: Effect, when: When) {
    let case = format!("death {when:?} {effect:?}");
    let ending = scene.bench().build_with(Some((effect, when, Blow::Die))).await;
    assert_eq!(ending, None, "{case}");
    let found = scene.bench().gc().await;
    assert!(found.iter().all(|each| each.ok), "{case}: {found:?}");
    match region(effect, when) {
        Region::Building => {
            scene.assert_nothing_left(&case);
            assert_eq!(scene.bench().journal_files(), [""; 0], "{case}");
        }
        Region::Keeping => {
            scene.assert_kept(&case);
            let again = scene.bench().gc().await;
            assert!(again.iter().all(|each| each.ok), "{case}: a second gc: {again:?}");
            scene.assert_kept(&case);
            let finished = scene.bench().finish().await;
            assert_eq!(finished.exit_code(), 0, "{case}: {finished:?}");
            assert_done(scene, &case);
        }
        Region::Committed => assert_done(scene, &case),
    }
}
