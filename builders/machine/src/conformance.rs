//! What every backend must do, as one list of behaviours that runs over the strict fake, Proxmox on the lab, and
//! local QEMU.
//!
//! Each behaviour makes its own VM and removes it. A failure names the behaviour and what was seen.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::error::PortError;
use crate::growth::Growth;
use crate::ids::{ChainId, Nonce, VmRef};
use crate::ownership::{BuildState, Ownership};
use crate::port::{Artefact, Attachments, Fetch, Hypervisor, Power, Standing, StopLadder, StopRung};
use crate::source::{Checksum, Location, Medium};
use crate::spec::{Finish, MachineSpec};

/// What the suite runs over.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The backend.
    pub hypervisor: &'a dyn Hypervisor,
    /// A build VM to make again and again.
    pub spec: MachineSpec,
    /// What it can become.
    pub finish: Finish,
}

/// A behaviour's name and its failure.
pub type Failure = (&'static str, String);

type Outcome = Result<(), String>;

/// Runs every behaviour; gives the failures, empty when the backend conforms.
pub async fn run(subject: &Subject<'_>) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut note = |name: &'static str, outcome: Outcome| {
        if let Err(seen) = outcome {
            failures.push((name, seen));
        }
    };
    note("its media have their places on the target, however often they are prepared", media(subject).await);
    note("a created VM is ours and stopped", created_is_ours(subject).await);
    note("a taken id is told as taken", taken_id(subject).await);
    note("a VM of another nonce is foreign", other_nonce_is_foreign(subject).await);
    note("nothing stands at an id that was never used", unused_is_gone(subject).await);
    note("configuring twice is the same as once", configure_twice(subject).await);
    note("starting twice is the same as once, and power is seen", start_and_power_off(subject).await);
    note("a running VM does not become an artefact", running_is_not_finalized(subject).await);
    note("destroying twice is the same as once", destroy_twice(subject).await);
    note("stopping a stopped VM says so", stop_stopped(subject).await);
    note("a kept VM says so", kept_is_told(subject).await);
    note("a marked VM is found without a journal", orphan_is_found(subject).await);
    note(
        "an artefact is committed, and stays so when finalized again",
        finalized_is_committed(subject).await,
    );
    failures
}

struct Made {
    at: VmRef,
    mark: Ownership,
    spec: MachineSpec,
}

/// Gives files of this machine as they are.
struct Here;

#[async_trait]
impl Fetch for Here {
    async fn fetch(&self, medium: &Medium, _growth: Option<&Growth>) -> Result<PathBuf, PortError> {
        match &medium.location {
            Location::File(path) => Ok(path.clone()),
            other => Err(PortError::NotFound { what: other.to_string() }),
        }
    }

    fn tell(&self, _what: &str) {}
}

async fn media(subject: &Subject<'_>) -> Outcome {
    let first = subject.hypervisor.prepare_media(&subject.spec, &Here).await.map_err(text)?;
    let again = subject.hypervisor.prepare_media(&subject.spec, &Here).await.map_err(text)?;
    expect(first == again, format!("{first:?}, then {again:?}"))?;
    expect(first.media().count() == subject.spec.media().count(), format!("{first:?}"))?;
    let open = first.media().find(|medium| {
        matches!(medium.location, Location::Url(_)) || matches!(medium.checksum, Checksum::File(_))
    });
    expect(open.is_none(), format!("{open:?}"))
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn text(error: PortError) -> String {
    let mut words = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        words = format!("{words}: {cause}");
        next = cause.source();
    }
    words
}

fn expect(holds: bool, seen: impl Into<String>) -> Outcome {
    if holds { Ok(()) } else { Err(seen.into()) }
}

fn mark() -> Ownership {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let [a, b, c, d] = number.to_be_bytes();
    let [e, f, g, h] = std::process::id().to_be_bytes();
    Ownership {
        nonce: Nonce::from_bytes([a, b, c, d, e, f, g, h]),
        chain_id: ChainId::new(format!("CHAIN-conformance-{number}")),
        owner: "conformance@test".into(),
        started: Timestamp::now(),
        heartbeat: Timestamp::now(),
        state: BuildState::Building,
        memory_mib: None,
    }
}

async fn make(subject: &Subject<'_>) -> Result<Made, String> {
    let mark = mark();
    let spec = subject.hypervisor.prepare_media(&subject.spec, &Here).await.map_err(text)?;
    let mut refused = Vec::new();
    for _ in 0..20 {
        let at = subject.hypervisor.propose_id(&spec, &refused).await.map_err(text)?;
        match subject.hypervisor.submit_create(&spec, &at, &mark).await {
            Ok(task) => {
                subject.hypervisor.wait(&task).await.map_err(text)?;
                return Ok(Made { at, mark, spec });
            }
            Err(PortError::IdTaken { .. }) => refused.push(at),
            Err(error) => return Err(text(error)),
        }
    }
    Err("no id could be claimed".into())
}

async fn make_configured(subject: &Subject<'_>) -> Result<Made, String> {
    let made = make(subject).await?;
    let machine = subject.hypervisor.machine(&made.at);
    machine.configure(&made.spec, &made.mark, &Attachments::default()).await.map_err(text)?;
    Ok(made)
}

async fn remove(subject: &Subject<'_>, made: &Made) -> Outcome {
    let machine = subject.hypervisor.machine(&made.at);
    machine.power_off().await.map_err(text)?;
    machine.destroy().await.map_err(text)?;
    let standing = subject.hypervisor.standing(&made.at, &made.mark.nonce).await.map_err(text)?;
    expect(standing == Standing::Gone, format!("after destroy: {standing:?}"))
}

/// What the VM becomes, with the build's mark at the end of its notes, as the engine writes them.
fn finish_of(subject: &Subject<'_>, mark: &Ownership) -> Finish {
    match subject.finish.clone() {
        Finish::Template { name, tags, notes } => {
            Finish::Template { name, tags, notes: format!("{notes}\n\n{}", mark.to_comment()) }
        }
        files @ Finish::Files { .. } => files,
    }
}

async fn standing(subject: &Subject<'_>, made: &Made) -> Result<Standing, String> {
    subject.hypervisor.standing(&made.at, &made.mark.nonce).await.map_err(text)
}

async fn created_is_ours(subject: &Subject<'_>) -> Outcome {
    let made = make(subject).await?;
    let seen = standing(subject, &made).await?;
    remove(subject, &made).await?;
    expect(seen == Standing::Ours { power: Power::Stopped, kept: false }, format!("{seen:?}"))
}

async fn taken_id(subject: &Subject<'_>) -> Outcome {
    let made = make(subject).await?;
    let second = subject.hypervisor.submit_create(&made.spec, &made.at, &mark()).await;
    let still = standing(subject, &made).await?;
    remove(subject, &made).await?;
    expect(matches!(second, Err(PortError::IdTaken { .. })), format!("{second:?}"))?;
    expect(matches!(still, Standing::Ours { .. }), format!("the first VM afterwards: {still:?}"))
}

async fn other_nonce_is_foreign(subject: &Subject<'_>) -> Outcome {
    let made = make_configured(subject).await?;
    let seen = subject.hypervisor.standing(&made.at, &mark().nonce).await.map_err(text)?;
    remove(subject, &made).await?;
    expect(matches!(seen, Standing::Foreign { .. }), format!("{seen:?}"))
}

async fn unused_is_gone(subject: &Subject<'_>) -> Outcome {
    let at = subject.hypervisor.propose_id(&subject.spec, &[]).await.map_err(text)?;
    let seen = subject.hypervisor.standing(&at, &mark().nonce).await.map_err(text)?;
    expect(seen == Standing::Gone, format!("{seen:?}"))
}

async fn configure_twice(subject: &Subject<'_>) -> Outcome {
    let made = make_configured(subject).await?;
    let machine = subject.hypervisor.machine(&made.at);
    let again = machine.configure(&made.spec, &made.mark, &Attachments::default()).await.map_err(text);
    remove(subject, &made).await?;
    again
}

async fn start_and_power_off(subject: &Subject<'_>) -> Outcome {
    let made = make_configured(subject).await?;
    let machine = subject.hypervisor.machine(&made.at);
    for _ in 0..2 {
        let task = machine.submit_start().await.map_err(text)?;
        subject.hypervisor.wait(&task).await.map_err(text)?;
    }
    let running = machine.state().await.map_err(text)?;
    let ours = standing(subject, &made).await?;
    machine.power_off().await.map_err(text)?;
    let stopped = machine.state().await.map_err(text)?;
    remove(subject, &made).await?;
    expect(running.power == Power::Running, format!("after start: {running:?}"))?;
    expect(ours == Standing::Ours { power: Power::Running, kept: false }, format!("{ours:?}"))?;
    expect(stopped.power == Power::Stopped, format!("after power off: {stopped:?}"))
}

async fn running_is_not_finalized(subject: &Subject<'_>) -> Outcome {
    let made = make_configured(subject).await?;
    let machine = subject.hypervisor.machine(&made.at);
    let task = machine.submit_start().await.map_err(text)?;
    subject.hypervisor.wait(&task).await.map_err(text)?;
    let refused = match machine.submit_finalize(&finish_of(subject, &made.mark)).await {
        Ok(task) => subject.hypervisor.wait(&task).await,
        Err(error) => Err(error),
    };
    let seen = standing(subject, &made).await?;
    remove(subject, &made).await?;
    expect(refused.is_err(), "it was not refused")?;
    expect(matches!(seen, Standing::Ours { .. }), format!("{seen:?}"))
}

async fn destroy_twice(subject: &Subject<'_>) -> Outcome {
    let made = make(subject).await?;
    remove(subject, &made).await?;
    subject.hypervisor.machine(&made.at).destroy().await.map_err(text)
}

async fn stop_stopped(subject: &Subject<'_>) -> Outcome {
    let made = make_configured(subject).await?;
    let ladder = StopLadder { agent: Duration::from_secs(5), acpi: Duration::from_secs(5), power_off: false };
    let rung = subject.hypervisor.machine(&made.at).stop(&ladder).await.map_err(text);
    remove(subject, &made).await?;
    expect(rung == Ok(StopRung::AlreadyStopped), format!("{rung:?}"))
}

async fn kept_is_told(subject: &Subject<'_>) -> Outcome {
    let made = make_configured(subject).await?;
    let mark = Ownership { state: BuildState::Kept, ..made.mark.clone() };
    subject.hypervisor.machine(&made.at).describe(&mark).await.map_err(text)?;
    let seen = standing(subject, &made).await?;
    remove(subject, &made).await?;
    expect(seen == Standing::Ours { power: Power::Stopped, kept: true }, format!("{seen:?}"))
}

async fn orphan_is_found(subject: &Subject<'_>) -> Outcome {
    let made = make_configured(subject).await?;
    let orphans = subject.hypervisor.orphans().await.map_err(text)?;
    remove(subject, &made).await?;
    let found = orphans.iter().any(|orphan| orphan.vm == made.at && orphan.mark.nonce == made.mark.nonce);
    expect(found, format!("{orphans:?}"))
}

async fn finalized_is_committed(subject: &Subject<'_>) -> Outcome {
    let made = make_configured(subject).await?;
    let machine = subject.hypervisor.machine(&made.at);
    machine.detach(&made.spec).await.map_err(text)?;
    let finish = finish_of(subject, &made.mark);
    for _ in 0..2 {
        let task = machine.submit_finalize(&finish).await.map_err(text)?;
        subject.hypervisor.wait(&task).await.map_err(text)?;
    }
    if let Finish::Template { name, .. } = &finish {
        let unpublished = subject.hypervisor.templates(None).await.map_err(text)?;
        expect(!unpublished.iter().any(|each| each.name == *name), "its name before it is published")?;
    }
    for _ in 0..2 {
        machine.publish(&finish).await.map_err(text)?;
    }
    let artefact = machine.artefact(&finish).await.map_err(text)?;
    if let (Artefact::Template { vm, .. }, Finish::Template { name, tags, .. }) = (&artefact, &finish) {
        for tag in tags {
            let bearers = subject.hypervisor.templates(Some(tag)).await.map_err(text)?;
            expect(bearers.iter().any(|each| each.vm == *vm && each.name == *name), format!("{bearers:?}"))?;
            machine.untag(tag).await.map_err(text)?;
            machine.untag(tag).await.map_err(text)?;
            let bearers = subject.hypervisor.templates(Some(tag)).await.map_err(text)?;
            expect(!bearers.iter().any(|each| each.vm == *vm), format!("untagged: {bearers:?}"))?;
            machine.tag(tag).await.map_err(text)?;
            machine.tag(tag).await.map_err(text)?;
            let bearers = subject.hypervisor.templates(Some(tag)).await.map_err(text)?;
            expect(bearers.iter().any(|each| each.vm == *vm), format!("tagged: {bearers:?}"))?;
        }
        let seen = standing(subject, &made).await?;
        expect(*vm == made.at, format!("{artefact:?}"))?;
        expect(seen == Standing::Committed, format!("{seen:?}"))?;
        let destroyed = machine.destroy().await;
        expect(destroyed.is_err(), "a template was destroyed")?;
        let foreign = machine.discard("CHAIN-of-another").await;
        expect(foreign.is_err(), "another build's template was discarded")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHypervisor, FakeWorld};
    use crate::source::SourceSpec;

    #[tokio::test]
    async fn the_strict_fake_conforms_with_each_source_it_has() {
        let clone = SourceSpec::Clone {
            vm: VmRef::new("9000", "fake"),
            name: "boot-vm".into(),
            full: true,
            storage: None,
        };
        let iso = || vec![Medium::file("/isos/installer.iso")];
        for (source, isos) in [(clone.clone(), Vec::new()), (clone, iso()), (SourceSpec::New, iso())] {
            let hypervisor = FakeHypervisor::new(FakeWorld::with_boot_vm());
            let spec = MachineSpec { ids: Some((100, 199)), isos, ..MachineSpec::new(source, "fake") };
            let finish = Finish::Template {
                name: "tpl-x".into(),
                tags: vec!["x".into()],
                notes: "made by a test".into(),
            };
            let failures = run(&Subject { hypervisor: &hypervisor, spec, finish }).await;
            assert_eq!(failures, []);
        }
    }
}
