//! Makes a VM's work directory with its disks: an overlay or a copy of an image, empty ones for what else there is.

use std::path::Path;
use std::sync::Arc;

use forge_machine::{FileFormat, MachineSpec, Ownership, PortError, SourceSpec, TaskHandle, VmRef};
use tokio::sync::watch;

use crate::args::{DISK_FILE, file_of};
use crate::base::Base;
use crate::drives::{disk_file, disks_of};
use crate::hypervisor::{Job, NODE, Shared};
use crate::image::ImageInfo;
use crate::machine::with_causes;
use crate::workdir::WorkDir;

/// The size of a disk that was not said: planning has refused it.
const SMALLEST: u64 = 1 << 20;

/// Makes everything but a full copy at once; a copy is work that is waited for.
pub(crate) async fn submit(
    shared: &Arc<Shared>,
    spec: &MachineSpec,
    at: &VmRef,
    mark: &Ownership,
) -> Result<TaskHandle, PortError> {
    let image = match &spec.source {
        SourceSpec::Clone { .. } => {
            return Err(PortError::Unsupported { backend: "QEMU", what: "clone VMs".to_owned() });
        }
        SourceSpec::New => None,
        SourceSpec::Image { image, copy } => {
            let file = file_of(image).ok_or_else(|| PortError::NotFound { what: image.to_string() })?;
            Some((file, *copy))
        }
    };
    let dir = shared.directory(at)?;
    dir.create(mark)?;
    let first_empty = usize::from(image.is_some());
    for index in first_empty..disks_of(spec).len() {
        let size = spec.disks.get(index).and_then(|disk| disk.size).unwrap_or(SMALLEST);
        let file = dir.file(&disk_file(index));
        let made = shared.tool.create(&file, FileFormat::Qcow2, size).await;
        made.map_err(|error| PortError::broken("an empty disk could not be made", error))?;
    }
    match image {
        None => Ok(TaskHandle::finished(NODE)),
        Some((base, false)) => {
            overlay(shared, spec, &dir, &base).await?;
            Ok(TaskHandle::finished(NODE))
        }
        Some((base, true)) => {
            let (tell, done) = watch::channel(None);
            let (of_task, spec) = (Arc::clone(shared), spec.clone());
            let work = tokio::spawn(async move {
                let outcome = copy(&of_task, &spec, &dir, &base).await;
                tell.send_replace(Some(outcome.map_err(|error| with_causes(&error))));
            });
            let (lock, what) = ("copy", "copying the image of");
            shared.set_job(at, Job { lock, what, abort: work.abort_handle(), done });
            Ok(TaskHandle { id: at.id.clone(), node: at.node.clone() })
        }
    }
}

async fn overlay(shared: &Shared, spec: &MachineSpec, dir: &WorkDir, base: &Path) -> Result<(), PortError> {
    let info = sound(shared, base).await?;
    let wanted = wanted_size(spec, base, info.virtual_size)?.filter(|size| *size > info.virtual_size);
    let target = dir.file(DISK_FILE);
    let failed = |error| PortError::broken(format!("{} can't be built from", base.display()), error);
    dir.write_base(&Base::of(base).map_err(failed)?)?;
    let made = shared.tool.create_overlay(&target, base, &info.format, wanted).await;
    made.map_err(|error| {
        PortError::broken(format!("an overlay of {} could not be made", base.display()), error)
    })
}

/// A downloaded image is seen here for the first time.
async fn sound(shared: &Shared, base: &Path) -> Result<ImageInfo, PortError> {
    let sound = shared.tool.sound(base).await;
    sound.map_err(|error| PortError::broken(format!("{} can't be built from", base.display()), error))
}

/// The size that the first disk is to have. Of an image that is downloaded nobody knows before that it is larger.
fn wanted_size(spec: &MachineSpec, base: &Path, image: u64) -> Result<Option<u64>, PortError> {
    let Some(disk) = spec.disks.first() else { return Ok(None) };
    match disk.size {
        Some(size) if size < image => Err(PortError::failed(
            format!("make {} of {size} bytes from {}", disk.slot, base.display()),
            format!(
                "the image has {image}, and a disk is grown, never shrunk: ask for more, or leave the size out"
            ),
        )),
        size => Ok(size),
    }
}

/// The work directory's own disk of the same content; it is grown when the VM is configured.
async fn copy(shared: &Shared, spec: &MachineSpec, dir: &WorkDir, base: &Path) -> Result<(), PortError> {
    let failed = |error| PortError::broken(format!("{} could not be copied", base.display()), error);
    let info = sound(shared, base).await?;
    wanted_size(spec, base, info.virtual_size)?;
    let target = dir.file(DISK_FILE);
    shared.tool.convert(base, &info.format, &target, FileFormat::Qcow2, false).await.map_err(failed)
}

#[cfg(test)]
#[path = "create_tests.rs"]
mod tests;
