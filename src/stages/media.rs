//! Brings the media of a build to where the target reads them.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use forge_machine::{Fetch, Growth, Location, MachineSpec, Medium, PortError};

use crate::engine::{Cx, StageError};
use crate::event::{Event, Events, Stage};
use crate::media::{Store, Watch};
use crate::plan::Plan;

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
    let fetch = Here::of(cx);
    cx.cancellable(async {
        cx.hypervisor
            .prepare_media(spec, &fetch)
            .await
            .map_err(|error| StageError::port("a medium of the build can't be had", error))
    })
    .await
}

/// A medium as a file of this machine, downloaded where it is none.
///
/// # Errors
/// When it can't be had, or is not what its checksum says.
pub(super) async fn here(cx: &Cx, medium: &Medium) -> Result<PathBuf, StageError> {
    if let Location::File(path) = &medium.location {
        return Ok(path.clone());
    }
    let here = Here::of(cx);
    cx.cancellable(async {
        let fetched = here.fetch(medium, None).await;
        fetched.map_err(|error| StageError::port(format!("{medium} can't be had"), error))
    })
    .await
}

/// Files of this machine, and those that are downloaded to it.
struct Here<'a> {
    store: Store,
    plan: &'a Plan,
    telling: Telling,
}

impl<'a> Here<'a> {
    fn of(cx: &'a Cx) -> Self {
        let telling = Telling { events: cx.events.clone(), last: Mutex::default() };
        Self { store: cx.media.clone(), plan: &cx.plan, telling }
    }
}

#[async_trait]
impl Fetch for Here<'_> {
    async fn fetch(&self, medium: &Medium, growth: Option<&Growth>) -> Result<PathBuf, PortError> {
        let planned = self.plan.downloads.iter().find(|planned| match &medium.location {
            Location::Url(url) => *url == planned.url,
            Location::File(_) | Location::Volume(_) => false,
        });
        let mirrors = planned.map(|planned| planned.mirrors.as_slice()).unwrap_or_default();
        Ok(self.store.bring_growing(medium, mirrors, growth, &self.telling).await?.path)
    }

    fn tell(&self, what: &str) {
        self.telling.doing(what);
    }
}

/// Tells it as events of the build, each thing once.
struct Telling {
    events: Events,
    last: Mutex<String>,
}

impl Watch for Telling {
    fn doing(&self, what: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != what {
            what.clone_into(&mut last);
            self.events.emit(Event::Doing { stage: Stage::Create, what: what.to_owned() });
        }
    }

    fn progress(&self, name: &str, done: u64, total: Option<u64>) {
        let name = name.to_owned();
        self.events.emit(Event::Transferring { stage: Stage::Create, name, done, total, up: false });
    }

    fn warn(&self, what: &str) {
        self.events.emit(Event::Warning { message: what.to_owned(), help: String::new() });
    }
}
