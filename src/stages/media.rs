//! Brings the media of a build to where the target reads them.

use std::path::PathBuf;

use async_trait::async_trait;
use forge_machine::{Fetch, Location, MachineSpec, Medium, PortError};

use crate::engine::{Cx, StageError};
use crate::event::{Event, Events, Stage};

/// The build VM as the target makes it: every medium at its place there.
///
/// # Errors
/// When a medium can't be had, or is not what its checksum says.
pub async fn prepare(cx: &Cx) -> Result<MachineSpec, StageError> {
    let spec = &cx.plan.machine;
    if spec.media().next().is_none() {
        return Ok(spec.clone());
    }
    cx.doing(Stage::Create, "looking at its media");
    let fetch = Here { events: cx.events.clone() };
    cx.cancellable(async {
        cx.hypervisor
            .prepare_media(spec, &fetch)
            .await
            .map_err(|error| StageError::port("a medium of the build can't be had", error))
    })
    .await
}

/// Files of this machine.
struct Here {
    events: Events,
}

#[async_trait]
impl Fetch for Here {
    async fn fetch(&self, medium: &Medium) -> Result<PathBuf, PortError> {
        match &medium.location {
            Location::File(path) => Ok(path.clone()),
            Location::Url(_) | Location::Volume(_) => {
                Err(PortError::NotFound { what: format!("{medium} on this machine") })
            }
        }
    }

    fn tell(&self, what: &str) {
        self.events.emit(Event::Doing { stage: Stage::Create, what: what.to_owned() });
    }
}
