//! What can be done with one VM of the fake.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;

use super::{FakeOp, FakeWorld, missing, unlocked};
use crate::agent::AgentChannel;
use crate::console::{Display, KeyChord};
use crate::error::PortError;
use crate::ids::{TaskHandle, VmRef};
use crate::ownership::{BuildState, Ownership};
use crate::port::{AddressReport, Artefact, Attachments, Machine, MachineState, Power, StopLadder, StopRung};
use crate::spec::{Finish, MachineSpec};

/// A VM of a [`FakeWorld`].
#[derive(Debug)]
pub(super) struct FakeMachine {
    pub(super) world: FakeWorld,
    pub(super) at: VmRef,
}

#[async_trait]
impl Machine for FakeMachine {
    fn reference(&self) -> &VmRef {
        &self.at
    }

    async fn configure(
        &self,
        _spec: &MachineSpec,
        mark: &Ownership,
        attachments: &Attachments,
    ) -> Result<(), PortError> {
        let (at, mark, attachments) = (self.at.clone(), mark.clone(), attachments.clone());
        self.world
            .effect(FakeOp::Configure, format!("configure {}", at.id), move |state| {
                let vm = unlocked(state, &at)?;
                vm.name = mark.nonce.vm_name();
                vm.description = mark.to_description();
                vm.tags = vec!["forge-build".into()];
                vm.onboot = false;
                vm.protection = false;
                vm.attachments = attachments;
                Ok(())
            })
            .await
    }

    async fn submit_start(&self) -> Result<TaskHandle, PortError> {
        let at = self.at.clone();
        self.world
            .effect(FakeOp::Start, format!("start {}", at.id), move |state| {
                let vm = unlocked(state, &at)?;
                if vm.template {
                    return Err(PortError::failed("start", "you can't start a vm if it's a template"));
                }
                vm.power = Power::Running;
                Ok(TaskHandle::finished(at.node))
            })
            .await
    }

    async fn state(&self) -> Result<MachineState, PortError> {
        let state = self.world.state();
        let vm = state.vms.get(&self.at).ok_or_else(|| missing(&self.at))?;
        Ok(MachineState {
            power: vm.power,
            detail: format!("{:?}", vm.power).to_lowercase(),
            template: vm.template,
        })
    }

    async fn display(&self) -> Result<Display, PortError> {
        Err(PortError::Unsupported { backend: "fake", what: "show a screen".into() })
    }

    async fn serial(&self, _from: u64) -> Result<Vec<u8>, PortError> {
        Ok(Vec::new())
    }

    async fn press(&self, _chords: &[KeyChord]) -> Result<(), PortError> {
        Err(PortError::Unsupported { backend: "fake", what: "press keys".into() })
    }

    fn agent(&self) -> Option<Arc<dyn AgentChannel>> {
        None
    }

    async fn addresses(&self) -> Result<AddressReport, PortError> {
        let running = self.world.state().vms.get(&self.at).is_some_and(|vm| vm.power == Power::Running);
        Ok(AddressReport {
            candidates: running.then_some((IpAddr::V4(Ipv4Addr::LOCALHOST), 22)).into_iter().collect(),
            detail: if running { "the fake agent".into() } else { "the VM is stopped".into() },
            agent: running,
            ..AddressReport::default()
        })
    }

    async fn stop(&self, _ladder: &StopLadder) -> Result<StopRung, PortError> {
        let was = self.world.state().vms.get(&self.at).map(|vm| vm.power).ok_or_else(|| missing(&self.at))?;
        self.power_off().await?;
        Ok(if was == Power::Stopped { StopRung::AlreadyStopped } else { StopRung::Shutdown })
    }

    async fn eject(&self, _spec: &MachineSpec) -> Result<(), PortError> {
        Ok(())
    }

    async fn detach(&self, _spec: &MachineSpec) -> Result<(), PortError> {
        let at = self.at.clone();
        self.world
            .effect(FakeOp::Detach, format!("detach {}", at.id), move |state| {
                let vm = unlocked(state, &at)?;
                if vm.power != Power::Stopped {
                    return Err(PortError::failed("detach", "the VM runs"));
                }
                vm.attachments = Attachments::default();
                Ok(())
            })
            .await
    }

    async fn describe(&self, mark: &Ownership) -> Result<(), PortError> {
        let mark = mark.clone();
        let mut state = self.world.state();
        let vm = unlocked(&mut state, &self.at)?;
        if vm.template {
            return Err(PortError::failed("describe", "it is a template by now"));
        }
        vm.description = mark.to_description();
        if mark.state != BuildState::Building {
            vm.tags = vec!["forge-kept".into()];
        }
        Ok(())
    }

    async fn submit_finalize(&self, finish: &Finish) -> Result<TaskHandle, PortError> {
        let (at, finish) = (self.at.clone(), finish.clone());
        self.world
            .effect(FakeOp::Finalize, format!("finalize {}", at.id), move |state| {
                let Finish::Template { notes, .. } = finish else {
                    return Err(PortError::Unsupported { backend: "fake", what: "write files".into() });
                };
                let vm = unlocked(state, &at)?;
                if vm.power != Power::Stopped {
                    return Err(PortError::failed(
                        "finalize",
                        "you can't convert a VM to template if VM is running",
                    ));
                }
                vm.description = notes;
                vm.template = true;
                Ok(TaskHandle::finished(at.node))
            })
            .await
    }

    async fn publish(&self, finish: &Finish) -> Result<(), PortError> {
        let (at, finish) = (self.at.clone(), finish.clone());
        self.world
            .effect(FakeOp::Publish, format!("publish {}", at.id), move |state| {
                let vm = unlocked(state, &at)?;
                if let (Finish::Template { name, tags, notes }, true) = (finish, vm.template) {
                    vm.name = name;
                    vm.tags = tags;
                    vm.description = notes;
                    return Ok(());
                }
                Err(PortError::failed("publish", "it is no template"))
            })
            .await
    }

    async fn untag(&self, tag: &str) -> Result<(), PortError> {
        let (at, tag) = (self.at.clone(), tag.to_owned());
        self.world
            .effect(FakeOp::Untag, format!("untag {}", at.id), move |state| {
                unlocked(state, &at)?.tags.retain(|each| *each != tag);
                Ok(())
            })
            .await
    }

    async fn tag(&self, tag: &str) -> Result<(), PortError> {
        let (at, tag) = (self.at.clone(), tag.to_owned());
        self.world
            .effect(FakeOp::Tag, format!("tag {}", at.id), move |state| {
                let vm = unlocked(state, &at)?;
                if !vm.template {
                    return Err(PortError::failed("tag", "it is no template"));
                }
                if !vm.tags.contains(&tag) {
                    vm.tags.push(tag);
                }
                Ok(())
            })
            .await
    }

    async fn discard(&self, chain_id: &str) -> Result<(), PortError> {
        let (at, line) = (self.at.clone(), format!("* chain id: {chain_id}"));
        self.world
            .effect(FakeOp::Destroy, format!("discard {}", at.id), move |state| {
                if !state.vms.contains_key(&at) {
                    return Ok(());
                }
                let vm = unlocked(state, &at)?;
                let is_it = vm.template && vm.description.lines().any(|each| each == line);
                if !is_it || vm.tags.iter().any(|tag| tag == crate::TAG_LATEST) {
                    return Err(PortError::failed("discard", "it is not the one, or published"));
                }
                state.vms.remove(&at);
                Ok(())
            })
            .await
    }

    async fn artefact(&self, _finish: &Finish) -> Result<Artefact, PortError> {
        let state = self.world.state();
        let vm = state.vms.get(&self.at).filter(|vm| vm.template).ok_or_else(|| missing(&self.at))?;
        Ok(Artefact::Template { vm: self.at.clone(), name: vm.name.clone() })
    }

    async fn power_off(&self) -> Result<(), PortError> {
        let mut state = self.world.state();
        unlocked(&mut state, &self.at)?.power = Power::Stopped;
        drop(state);
        self.world.changed.send_replace(());
        Ok(())
    }

    async fn destroy(&self) -> Result<(), PortError> {
        let at = self.at.clone();
        self.world
            .effect(FakeOp::Destroy, format!("destroy {}", at.id), move |state| {
                if !state.vms.contains_key(&at) {
                    return Ok(());
                }
                let vm = unlocked(state, &at)?;
                if vm.template {
                    return Err(PortError::failed("destroy", "it is a template"));
                }
                if vm.power != Power::Stopped {
                    return Err(PortError::failed(
                        "destroy",
                        format!("VM {} is running - destroy failed", at.id),
                    ));
                }
                state.vms.remove(&at);
                Ok(())
            })
            .await
    }
}
