//! The files that a VM starts with besides its disks: a kernel without a boot loader, UEFI variables.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use forge_iso::Iso;
use forge_machine::{BootFile, KernelSpec, MachineSpec, PortError};

use crate::args::{FIRMWARE_VARIABLES_FILE, Kernel, file_of};
use crate::firmware::Firmware;
use crate::image::ImageTool;
use crate::workdir::WorkDir;

/// The kernel that was taken out of a medium.
const KERNEL_FILE: &str = "kernel";
/// How much of a kernel tells that it is one.
const KERNEL_START: u64 = 8192;
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
        for file in &kernel.initrds {
            if let BootFile::InIso(path) = file {
                open(&spec, path)?.check(path).map_err(|error| failed(path, error))?;
            }
        }
        let start = match &kernel.kernel {
            BootFile::InIso(path) => {
                open(&spec, path)?.start(path, KERNEL_START).map_err(|error| failed(path, error))?
            }
            BootFile::Medium(medium) => match file_of(medium) {
                Some(path) => start_of(&path)
                    .map_err(|error| PortError::broken(format!("{} can't be read", path.display()), error))?,
                None => return Ok(()),
            },
        };
        if is_kernel(&start) {
            return Ok(());
        }
        let name = match &kernel.kernel {
            BootFile::InIso(path) => format!("{path} of the medium"),
            BootFile::Medium(medium) => medium.to_string(),
        };
        let what = match start.as_slice() {
            [] => "it is empty",
            [0x1f, 0x8b, ..] => "it is packed by gzip: unpack it, or take the `vmlinuz` beside it",
            [b'0', b'7', b'0', ..] => "it is an initrd: name it as `source.initrd`",
            start if start.starts_with(b"<") => "it is a page of the web: look at its address",
            _ => "name the `vmlinuz` or `bzImage` of a Linux for x86",
        };
        Err(PortError::failed(
            format!("taking {name} as `source.kernel`"),
            format!("it is no kernel: {what}"),
        ))
    })
    .await
}

fn start_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::open(path)?, KERNEL_START), &mut start)?;
    Ok(start)
}

/// Whether a file begins as what QEMU starts as a kernel (`x86_load_linux`): a Linux with a boot protocol, an ELF, or what a
/// multiboot loader finds in its first 8 KiB.
fn is_kernel(start: &[u8]) -> bool {
    start.get(0x202..0x206) == Some(b"HdrS".as_slice())
        || start.starts_with(b"\x7fELF")
        || start.as_chunks::<4>().0.contains(&0x1bad_b002_u32.to_le_bytes())
}

/// Puts the kernel and its initrds where the VM finds them.
pub(crate) async fn kernel(
    dir: &WorkDir,
    spec: &MachineSpec,
    cmdline: &str,
) -> Result<Option<Kernel>, PortError> {
    let (dir, spec, cmdline) = (dir.clone(), spec.clone(), cmdline.to_owned());
    in_background(move || {
        let Some(KernelSpec { kernel, initrds, .. }) = &spec.kernel else { return Ok(None) };
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

fn failed(path: &str, error: forge_iso::IsoError) -> PortError {
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

/// Why a file can be no medium.
pub(crate) fn unfit(path: &Path) -> Option<String> {
    let shown = path.display();
    match File::open(path).and_then(|file| file.metadata()) {
        Err(error) => Some(format!("{shown} can't be opened: {error}")),
        Ok(found) if found.is_dir() => Some(format!("{shown} is a folder")),
        // A device, as an optical drive, does not say how large it is.
        Ok(found) if found.is_file() && found.len() == 0 => Some(format!("{shown} is empty")),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use forge_machine::{Medium, SourceSpec};

    use super::*;

    #[tokio::test]
    async fn a_kernel_that_is_none_is_told_by_its_name_and_what_it_is_instead() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut linux = vec![0; 0x300];
        linux[0x202..0x206].copy_from_slice(b"HdrS");
        let multiboot = [&[1; 64][..], &0x1bad_b002_u32.to_le_bytes()].concat();
        for (name, bytes, words) in [
            ("vmlinuz", linux, ""),
            ("vmlinux", b"\x7fELF\x02".to_vec(), ""),
            ("xen", multiboot, ""),
            ("empty", Vec::new(), "it is empty"),
            ("packed", vec![0x1f, 0x8b, 8, 0], "packed by gzip"),
            ("initrd", b"070701".to_vec(), "`source.initrd`"),
            ("page", b"<html>404</html>".to_vec(), "a page of the web"),
            ("notes", b"a kernel".to_vec(), "name the `vmlinuz`"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            let kernel = KernelSpec {
                kernel: BootFile::Medium(Medium::file(&path)),
                initrds: Vec::new(),
                is_told_clock: false,
            };
            let spec = MachineSpec { kernel: Some(kernel), ..MachineSpec::new(SourceSpec::New, "") };
            let told = check(&spec).await.err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(told.is_empty(), words.is_empty(), "{name}: {told}");
            let said = format!("/{name} as `source.kernel` failed: it is no kernel: ");
            assert!(words.is_empty() || (told.contains(&said) && told.contains(words)), "{told}");
        }
    }
}
