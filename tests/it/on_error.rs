//! `--on-error`: what becomes of the VM of a build that fails before its keep point.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use forge::engine::effect::{Effect, When};
use forge::engine::on_error::{Ask, Choice, OnError};
use forge::event::{Ending, Event};
use forge::plan::Plan;
use forge::provision::{Action, LocalStep, LocalWork, Step};
use forge_machine::fake::{FakeHypervisor, FakeVm, FakeWorld};
use forge_machine::{BuildState, Ownership, Power};

use crate::support::fake_build::{Blow, plan};
use crate::support::workbench::Workbench;

fn local(name: &str, line: &str, dir: &Path) -> Step {
    let what = LocalWork::Shell(line.to_owned());
    let work =
        LocalStep { what, env: [].into(), valid_exit_codes: vec![0], timeout: None, dir: dir.to_owned() };
    Step::new(name, Action::Local(work))
}

/// A plan whose first provisioner fails at its first try, and whose `on-error` step leaves a file.
fn failing_once(dir: &Path) -> Plan {
    let fails = local("fails once", "test -e tried || { touch tried; exit 3; }", dir);
    let mut late = local("too bad", "printf %s \"$FORGE_FAILED_STEP\" >told", dir);
    late.on_error = true;
    Plan { provision: vec![fails, late], ..plan() }
}

struct Site {
    world: FakeWorld,
    bench: Workbench,
    dir: tempfile::TempDir,
}

impl Site {
    fn new(on_error: OnError) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let world = FakeWorld::with_boot_vm();
        let opened = world.clone();
        let plan = failing_once(dir.path());
        let mut bench = Workbench::new(plan, Box::new(move || Arc::new(FakeHypervisor::new(opened.clone()))));
        bench.on_error = on_error;
        Self { world, bench, dir }
    }

    fn vms(&self) -> Vec<FakeVm> {
        self.world.vms().into_iter().filter(|(at, _)| at.id != "9000").map(|(_, vm)| vm).collect()
    }

    /// What the `on-error` step wrote.
    fn told(&self) -> Option<String> {
        std::fs::read_to_string(self.dir.path().join("told")).ok()
    }

    fn assert_left_running(&self) {
        let [vm] = self.vms().try_into().expect("one VM");
        assert_eq!((vm.power, vm.template), (Power::Running, false));
        let mark = Ownership::from_description(&vm.description).expect("marked");
        assert_eq!(mark.state, BuildState::Left, "no gc without the journal may remove it");
    }
}

#[derive(Debug)]
struct Answers(Mutex<Vec<Choice>>);

impl Answers {
    fn that(answers: &[Choice]) -> OnError {
        OnError::Ask(Arc::new(Self(Mutex::new(answers.iter().rev().copied().collect()))))
    }
}

#[async_trait]
impl Ask for Answers {
    async fn ask(&self, tell: &(dyn Fn() + Sync), question: &str, _may_retry: bool) -> Choice {
        tell();
        assert!(question.contains("c cleans up and ends"), "{question}");
        self.0.lock().expect("not poisoned").pop().expect("asked no more often than expected")
    }
}

#[tokio::test]
async fn by_default_the_steps_for_failures_run_and_the_vm_is_removed() {
    let site = Site::new(OnError::CleanUp);
    let ending = site.bench.build_with(None).await.expect("it lives");
    assert!(matches!(&ending, Ending::Failed { left_behind, .. } if left_behind.is_empty()), "{ending:?}");
    assert_eq!(site.told().as_deref(), Some("fails once"));
    assert_eq!(site.vms(), []);
}

#[tokio::test]
async fn steps_for_failures_are_counted_by_themselves_and_an_empty_output_is_not_pointed_to() {
    let site = Site::new(OnError::default());
    let ending = site.bench.build_with(None).await.expect("it ends");
    let counted: Vec<_> = site
        .bench
        .told()
        .into_iter()
        .filter_map(|event| match event {
            Event::ProvisionerStarted { number, of, name, on_error } => Some((number, of, name, on_error)),
            _ => None,
        })
        .collect();
    assert_eq!(counted, [(1, 1, "fails once".to_owned(), false), (1, 1, "too bad".to_owned(), true)]);
    let failure = ending.failure().expect("it failed");
    assert!(failure.heading.contains("provisioner 1 of 1 (`fails once`) failed"), "{failure:?}");
    assert!(!failure.hints.iter().any(|hint| hint.contains("whole output")), "it said nothing: {failure:?}");
}

#[tokio::test]
async fn a_vm_is_left_as_it_is_until_gc_is_told_to_remove_it() {
    for (on_error, told) in [(OnError::Keep, Some("fails once")), (OnError::Abort, None)] {
        let site = Site::new(on_error);
        let ending = site.bench.build_with(None).await.expect("it lives");
        assert!(matches!(ending, Ending::Left { .. }), "{ending:?}");
        assert_eq!(ending.exit_code(), 1);
        assert_eq!(site.told().as_deref(), told);
        site.assert_left_running();
        let hints = ending.failure().expect("failed").hints.join("\n");
        let key =
            hints.split_whitespace().find(|word| word.ends_with(".key")).expect("how to get in").to_owned();
        assert!(Path::new(&key).exists(), "{hints}");
        // The next build of this machine, and `forge gc`, leave it alone.
        let found = site.bench.gc().await;
        assert!(found.iter().all(|each| each.ok && each.result.contains("--left")), "{found:?}");
        site.assert_left_running();
        let found = site.bench.gc_left().await;
        assert!(found.iter().all(|each| each.ok), "{found:?}");
        assert_eq!(site.vms(), []);
        assert!(!Path::new(&key).exists());
        assert_eq!(site.bench.journal_files(), [""; 0]);
    }
}

#[tokio::test]
async fn a_step_that_failed_is_tried_again_when_the_answer_is_so() {
    let site = Site::new(Answers::that(&[Choice::Retry]));
    let ending = site.bench.build_with(None).await.expect("it lives");
    assert_eq!(ending.exit_code(), 0, "{ending:?}");
    assert_eq!(site.told(), None);
    assert!(site.vms()[0].template);
}

#[tokio::test]
async fn whoever_is_asked_is_asked_once_wherever_the_build_fails() {
    for (answer, left) in [(Choice::CleanUp, 0), (Choice::Abort, 1)] {
        let site = Site::new(Answers::that(&[answer]));
        site.bench.build_with(None).await.expect("it lives");
        assert_eq!(site.vms().len(), left, "{answer:?} in a provisioner");
        if left > 0 {
            // The key of a VM that is left stays with it, and goes with it.
            let found = site.bench.gc_left().await;
            assert_eq!((found.iter().all(|each| each.ok), site.vms()), (true, Vec::new()), "{found:?}");
        }
        let site = Site::new(Answers::that(&[answer]));
        site.bench.build_with(Some((Effect::Login, When::Before, Blow::Fail))).await.expect("it lives");
        assert_eq!(site.vms().len(), left, "{answer:?} before any provisioner");
    }
}

#[tokio::test]
async fn an_interruption_cleans_up_whatever_on_error_says() {
    let site = Site::new(OnError::Abort);
    let ending = site.bench.build_with(Some((Effect::Login, When::Before, Blow::Interrupt))).await;
    assert_eq!(ending.expect("it lives").exit_code(), 130);
    assert_eq!(site.vms(), []);
}

#[tokio::test]
async fn a_vm_that_ended_while_a_step_was_at_work_is_why_the_step_failed() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = FakeWorld::with_boot_vm();
    let opened = world.clone();
    let line = "touch begun; until test -e ended; do sleep 0.02; done; exit 3";
    let plan = Plan { provision: vec![local("works on", line, dir.path())], ..plan() };
    let bench = Workbench::new(plan, Box::new(move || Arc::new(FakeHypervisor::new(opened.clone()))));
    let ends = async {
        while !dir.path().join("begun").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for (at, vm) in world.vms().into_iter().filter(|(at, _)| at.id != "9000") {
            world.put(at, FakeVm { power: Power::Stopped, ..vm });
        }
        std::fs::write(dir.path().join("ended"), "").expect("the folder is ours");
    };
    let (ending, ()) = tokio::join!(bench.build_with(None), ends);
    let ending = ending.expect("it lives");
    let failure = ending.failure().expect("failed");
    assert_eq!(
        failure.heading,
        "provisioner 1 of 1 (`works on`) failed: the VM does not run any more (stopped)"
    );
    assert!(failure.causes[0].contains("status 3"), "{failure:?}");
    assert!(failure.hints[0].contains("who ended it"), "{failure:?}");
}
