//! The files that a VM starts with besides its disks: a kernel without a boot loader, UEFI variables.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use forge_machine::{BootFile, KernelSpec, MachineSpec, PortError};

use crate::args::{FIRMWARE_VARIABLES_FILE, Kernel, file_of};
use crate::firmware::Firmware;
use crate::image::ImageTool;
use crate::iso::Iso;
use crate::workdir::WorkDir;

/// The kernel that was taken out of a medium.
const KERNEL_FILE: &str = "kernel";
/// The initrds, one after the other: the kernel unpacks them so (Linux, `driver-api/early-userspace`).
const INITRD_FILE: &str = "initrd";

/// Looks whether every file of a spec is there, and every path in its first medium.
pub(crate) async fn check(spec: &MachineSpec) -> Result<(), PortError> {
    let spec = spec.clone();
    in_background(move || {
        for path in spec.media().filter_map(file_of) {
            if let Err(error) = File::open(&path) {
                return Err(PortError::broken(format!("{} can't be opened", path.display()), error));
            }
        }
        let Some(kernel) = &spec.kernel else { return Ok(()) };
        for file in std::iter::once(&kernel.kernel).chain(&kernel.initrds) {
            if let BootFile::InIso(path) = file {
                open(&spec, path)?.check(path).map_err(|error| failed(path, error))?;
            }
        }
        Ok(())
    })
    .await
}

/// Puts the kernel and its initrds where the VM finds them.
pub(crate) async fn kernel(
    dir: &WorkDir,
    spec: &MachineSpec,
    cmdline: &str,
) -> Result<Option<Kernel>, PortError> {
    let (dir, spec, cmdline) = (dir.clone(), spec.clone(), cmdline.to_owned());
    in_background(move || {
        let Some(KernelSpec { kernel, initrds }) = &spec.kernel else { return Ok(None) };
        let kernel = place(&dir, &spec, std::slice::from_ref(kernel), KERNEL_FILE)?;
        let initrd = match initrds.as_slice() {
            [] => None,
            some => Some(place(&dir, &spec, some, INITRD_FILE)?),
        };
        Ok(Some(Kernel { kernel, initrd, cmdline }))
    })
    .await
}

/// One file is used where it is; what is in a medium, or of several parts, is written into the work directory.
fn place(dir: &WorkDir, spec: &MachineSpec, files: &[BootFile], name: &str) -> Result<PathBuf, PortError> {
    if let [BootFile::Medium(medium)] = files {
        return file_of(medium).ok_or_else(|| PortError::NotFound { what: medium.to_string() });
    }
    let broken = |error: io::Error| PortError::broken(format!("the {name} could not be written"), error);
    let mut target = File::create(dir.file(name)).map_err(broken)?;
    for file in files {
        match file {
            BootFile::InIso(path) => {
                open(spec, path)?.extract(path, &mut target).map_err(|error| failed(path, error))?;
            }
            BootFile::Medium(medium) => {
                let path = file_of(medium).ok_or_else(|| PortError::NotFound { what: medium.to_string() })?;
                let mut source = File::open(&path).map_err(broken)?;
                io::copy(&mut source, &mut target).map_err(broken)?;
            }
        }
    }
    Ok(PathBuf::from(name))
}

fn open(spec: &MachineSpec, path: &str) -> Result<Iso, PortError> {
    let medium = spec.isos.first().and_then(file_of);
    let medium = medium.ok_or_else(|| PortError::NotFound { what: format!("a medium with {path}") })?;
    Iso::open(&medium).map_err(|error| failed(path, error))
}

fn failed(path: &str, error: crate::iso::IsoError) -> PortError {
    PortError::broken(format!("{path} can't be taken out of the medium"), error)
}

/// Gives the VM variables of its own, unless it has some.
pub(crate) async fn variables(tool: &ImageTool, dir: &WorkDir, firmware: &Firmware) -> Result<(), PortError> {
    let target = dir.file(FIRMWARE_VARIABLES_FILE);
    if target.exists() {
        return Ok(());
    }
    let failed = |error: forge_machine::error::Cause| {
        PortError::broken("the UEFI variables could not be copied", error)
    };
    // Under another name first, since half of them would be taken for all.
    let aside = dir.file(".efivars.new");
    copy(tool, &firmware.variables, &firmware.variables_format, &aside).await.map_err(failed)?;
    std::fs::rename(&aside, &target).map_err(|error| failed(error.into()))
}

async fn copy(
    tool: &ImageTool,
    source: &Path,
    format: &str,
    target: &Path,
) -> Result<(), forge_machine::error::Cause> {
    if format != "raw" {
        tool.convert(source, format, target, forge_machine::FileFormat::Raw, false).await?;
        return Ok(());
    }
    // The template may be read-only, and the copy must not be: so its content is copied alone.
    let mut from = File::open(source)?;
    let mut to = File::create(target)?;
    io::copy(&mut from, &mut to)?;
    Ok(())
}

async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| PortError::broken("work in the background was cut off", error))?
}
