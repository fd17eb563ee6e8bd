//! Turns a stopped VM's overlay into image files.
//!
//! Each file is written under a temporary name beside its final one, hashed, brought to the disk, and renamed: the
//! last rename is the commit point. The temporary names stand in the work directory before the files are made, so
//! that removing the work directory removes them too.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use forge_machine::{Artefact, FileFormat, Finish, PortError};
use sha2::{Digest, Sha256};

use crate::args::DISK_FILE;
use crate::image::{ImageFormat, ImageTool};
use crate::workdir::WorkDir;

/// A file of the result: its format and its final path.
pub(crate) fn outputs(finish: &Finish) -> Result<Vec<(ImageFormat, PathBuf)>, PortError> {
    let Finish::Files { directory, name, formats } = finish else {
        return Err(PortError::Unsupported { backend: "QEMU", what: "make templates".to_owned() });
    };
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    if !plain {
        return Err(PortError::failed("naming the image", format!("`{name}` is no file name")));
    }
    let directory = std::path::absolute(directory)
        .map_err(|error| PortError::broken(format!("{} is no directory", directory.display()), error))?;
    let mut files = Vec::new();
    for format in formats {
        let (format, ending) = match format {
            FileFormat::Qcow2 => (ImageFormat::Qcow2, "qcow2"),
            FileFormat::Raw => (ImageFormat::Raw, "raw"),
        };
        if !files.iter().any(|(known, _)| *known == format) {
            files.push((format, directory.join(format!("{name}.{ending}"))));
        }
    }
    if files.is_empty() {
        return Err(PortError::failed("writing the image", "no format is asked for"));
    }
    Ok(files)
}

/// Writes the files. Dropping it before the renames leaves temporary files, which the work directory names.
pub(crate) async fn write_files(
    tool: &ImageTool,
    dir: &WorkDir,
    files: Vec<(ImageFormat, PathBuf)>,
) -> Result<Artefact, PortError> {
    let mark = dir.mark()?.ok_or_else(|| dir.missing())?;
    let mut work = Vec::new();
    for (format, path) in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = path.with_file_name(format!(".{name}.forge-{}", mark.nonce));
        work.push((format, path, aside));
    }
    dir.write_outputs(&work.iter().map(|(_, _, aside)| aside.clone()).collect::<Vec<_>>())?;

    let disk = dir.file(DISK_FILE);
    let mut ready = Vec::new();
    for (format, path, aside) in work {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|error| {
                PortError::broken(format!("{} can't be made", directory.display()), error)
            })?;
        }
        tool.convert(&disk, "qcow2", &aside, format)
            .await
            .map_err(|error| PortError::broken(format!("{} could not be written", path.display()), error))?;
        let (digest, size) = hash(aside.clone()).await?;
        ready.push((path, aside, digest, size));
    }

    let mut made = Vec::new();
    for (path, aside, digest, size) in ready {
        publish(&aside, &path).map_err(|error| {
            PortError::broken(format!("{} could not be put in place", path.display()), error)
        })?;
        made.push((path, digest, size));
    }
    Ok(Artefact::Files { files: made })
}

/// Reads finished files again.
pub(crate) async fn read_files(files: Vec<(ImageFormat, PathBuf)>) -> Result<Artefact, PortError> {
    let mut made = Vec::new();
    for (_, path) in files {
        let (digest, size) = hash(path.clone()).await?;
        made.push((path, digest, size));
    }
    Ok(Artefact::Files { files: made })
}

fn publish(aside: &Path, path: &Path) -> io::Result<()> {
    std::fs::rename(aside, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// SHA-256 (hex) and size of a file, which is on the disk afterwards.
async fn hash(path: PathBuf) -> Result<(String, u64), PortError> {
    let shown = path.display().to_string();
    let work = move || -> io::Result<(String, u64)> {
        let mut file = File::open(&path)?;
        file.sync_all()?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut size = 0;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            digest.update(buffer.get(..count).unwrap_or_default());
            size += count as u64;
        }
        Ok((digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), size))
    };
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other);
    done.and_then(|result| result).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PortError::NotFound { what: shown },
        _ => PortError::broken(format!("{shown} can't be read"), error),
    })
}
