//! Turns a stopped VM's overlay into image files, with their checksums and a manifest.
//!
//! ```text
//!  overlay ─qemu-img─► .NAME.qcow2.forge-<nonce> ─hash─┐
//!          ─qemu-img─► .NAME.vmdk.forge-<nonce>  ─hash─┼─► NAME.SHA256SUMS, NAME.manifest.json ─► renames
//!          ─qemu-img─► raw in the work directory ─zstd─┘        (under temporary names too)
//! ```
//!
//! Each file is written under a temporary name beside its final one, read once for its checksum while the next one
//! is being written, and brought to the disk; nothing has its final name before everything is whole. The manifest is
//! renamed last: that is the commit point, and where a manifest is, all that it names is whole. The temporary names
//! stand in the work directory before the files are made, so that removing the work directory removes them too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use forge_machine::{
    Artefact, FileFormat, Finish, MANIFEST_ENDING, PortError, SUMS_ENDING, VARIABLES_ENDING,
};
use serde::{Deserialize, Serialize};

use crate::args::{DISK_FILE, FIRMWARE_VARIABLES_FILE};
use crate::base;
use crate::digest::{self, Digested, Stop};
use crate::drives::disk_file;
use crate::image::ImageTool;
use crate::workdir::WorkDir;

/// A raw image on its way to being compressed.
const RAW_FILE: &str = "disk.raw";

/// The files of a result, checked and made absolute.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    directory: PathBuf,
    name: String,
    formats: Vec<FileFormat>,
    compress: bool,
    replace: bool,
    about: BTreeMap<String, String>,
}

impl Wanted {
    pub(crate) fn new(finish: &Finish) -> Result<Self, PortError> {
        let Finish::Files { directory, name, formats, compress, replace, about } = finish else {
            return Err(PortError::Unsupported { backend: "QEMU", what: "make templates".to_owned() });
        };
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0', '\n', '\\']);
        if !plain {
            return Err(PortError::failed("naming the image", format!("`{name}` is no file name")));
        }
        let directory = std::path::absolute(directory)
            .map_err(|error| PortError::broken(format!("{} is no directory", directory.display()), error))?;
        let mut unique = Vec::new();
        for format in formats {
            if !unique.contains(format) {
                unique.push(*format);
            }
        }
        if unique.is_empty() {
            return Err(PortError::failed("writing the image", "no format is asked for"));
        }
        Ok(Self {
            directory,
            name: name.clone(),
            formats: unique,
            compress: *compress,
            replace: *replace,
            about: about.clone(),
        })
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.directory.join(self.file_name(ending))
    }

    fn aside(&self, ending: &str, nonce: &str) -> PathBuf {
        self.directory.join(format!(".{}.forge-{nonce}", self.file_name(ending)))
    }

    fn file_name(&self, ending: &str) -> String {
        // The further disks are `NAME-1.qcow2` and so on, as Packer names them.
        let separator = if ending.starts_with('-') { "" } else { "." };
        format!("{}{separator}{ending}", self.name)
    }

    /// The images of so many disks: the disk's number, the format, and the ending of the name.
    fn images(&self, disks: usize) -> Vec<(usize, FileFormat, String)> {
        let of_disk = |disk: usize| {
            self.formats.iter().map(move |format| {
                let ending = format.ending(self.compress);
                let ending = if disk == 0 { ending.to_owned() } else { format!("-{disk}.{ending}") };
                (disk, *format, ending)
            })
        };
        (0..disks).flat_map(of_disk).collect()
    }
}

/// The manifest that lies beside the images.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Manifest {
    /// The version of this form.
    version: u32,
    name: String,
    /// The first disk's size as the guest sees it, in bytes.
    virtual_size: u64,
    /// What the engine tells of the build: chain id, profile, source, time, version of forge.
    build: BTreeMap<String, String>,
    files: Vec<ManifestFile>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ManifestFile {
    name: String,
    /// `qcow2`, `raw`, `vmdk`, or `efivars`. Further disks are `NAME-1.qcow2` and so on.
    format: String,
    /// How it is compressed, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compression: Option<String>,
    /// In bytes.
    size: u64,
    sha256: String,
}

/// A file that is whole under its temporary name.
struct Ready {
    ending: String,
    format: &'static str,
    compression: Option<&'static str>,
    digested: Digested,
}

/// Files under temporary names, removed when they are not wanted any more: on a disk that is full they are what fills it.
struct Asides(Vec<PathBuf>);

impl Drop for Asides {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = std::fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(%error, path = %path.display(), "a file under a temporary name stays for now");
            }
        }
    }
}

/// Writes the files. One that fails, or is dropped before the renames, leaves nothing of them; the work directory names
/// those that a dead forge leaves.
pub(crate) async fn write_files(
    tool: &ImageTool,
    dir: &WorkDir,
    wanted: &Wanted,
) -> Result<Artefact, PortError> {
    base::unchanged(dir, "writing the image")?;
    let mark = dir.mark()?.ok_or_else(|| dir.missing())?;
    let nonce = mark.nonce.as_str();
    let variables = dir.file(FIRMWARE_VARIABLES_FILE);
    let disks = (1..).take_while(|index| dir.file(&disk_file(*index)).exists()).count() + 1;
    let images_wanted = wanted.images(disks);
    let mut endings: Vec<String> = images_wanted.iter().map(|(.., ending)| ending.clone()).collect();
    if variables.exists() {
        endings.push(VARIABLES_ENDING.to_owned());
    }
    endings.extend([SUMS_ENDING, MANIFEST_ENDING].map(str::to_owned));
    refuse_taken(wanted, &endings)?;
    let asides: Vec<PathBuf> = endings.iter().map(|ending| wanted.aside(ending, nonce)).collect();
    dir.write_outputs(&asides)?;
    let mut asides = Asides(asides);
    std::fs::create_dir_all(&wanted.directory)
        .map_err(|error| PortError::broken(format!("{} can't be made", wanted.directory.display()), error))?;

    let ready = images(tool, dir, wanted, images_wanted, nonce, &variables).await?;
    let disk = tool
        .info(&dir.file(DISK_FILE), Some("qcow2"))
        .await
        .map_err(|error| PortError::broken("the size of the disk can't be read", error))?;
    let manifest = manifest(wanted, disk.virtual_size, &ready);
    for (ending, text) in [(SUMS_ENDING, sums(&manifest)), (MANIFEST_ENDING, json(&manifest)?)] {
        write_whole(&wanted.aside(ending, nonce), &text).map_err(|error| {
            PortError::broken(format!("{} could not be written", wanted.path(ending).display()), error)
        })?;
    }
    // From here on what has a name is not taken away, and what has none yet is the work directory's.
    asides.0.clear();
    publish_all(wanted, &endings, nonce)?;
    Ok(artefact(wanted, manifest.files))
}

/// Writes the images; each is hashed while the next one is written.
async fn images(
    tool: &ImageTool,
    dir: &WorkDir,
    wanted: &Wanted,
    images: Vec<(usize, FileFormat, String)>,
    nonce: &str,
    variables: &Path,
) -> Result<Vec<Ready>, PortError> {
    let stop = Stop::default();
    let mut work = Vec::new();
    for (number, format, ending) in images {
        let disk = dir.file(&disk_file(number));
        let shown = wanted.path(&ending);
        let failed = |error: forge_machine::error::Cause| {
            PortError::broken(format!("{} could not be written", shown.display()), error)
        };
        let aside = wanted.aside(&ending, nonce);
        let packed = wanted.compress && format == FileFormat::Raw;
        let target = if packed { dir.file(&format!("{number}-{RAW_FILE}")) } else { aside.clone() };
        tool.convert(&disk, "qcow2", &target, format, wanted.compress)
            .await
            .map_err(|error| failed(Box::new(error).into()))?;
        let hashed = if packed {
            // Made here, not in the task: a stopped build removes its files, and none may appear after that.
            let file = File::create(&aside).map_err(|error| failed(error.into()))?;
            digest::compress(target, file, stop.token())
        } else {
            digest::read(aside, stop.token())
        };
        work.push((ending, format, shown.clone(), hashed));
    }
    let mut ready = Vec::new();
    for (ending, format, shown, hashed) in work {
        let digested =
            hashed.await.map_err(io::Error::other).and_then(|result| result).map_err(|error| {
                PortError::broken(format!("{} could not be written", shown.display()), error)
            })?;
        let compression = match (wanted.compress, format) {
            (false, _) => None,
            (true, FileFormat::Vmdk) => Some("stream-optimized"),
            (true, _) => Some("zstd"),
        };
        ready.push(Ready { ending, format: format.name(), compression, digested });
    }
    if variables.exists() {
        let aside = wanted.aside(VARIABLES_ENDING, nonce);
        let copied = std::fs::copy(variables, &aside)
            .and_then(|_| digest::of_file(&aside, &stop.token()))
            .map_err(|error| PortError::broken("the UEFI variables could not be kept", error))?;
        ready.push(Ready {
            ending: VARIABLES_ENDING.to_owned(),
            format: "efivars",
            compression: None,
            digested: copied,
        });
    }
    Ok(ready)
}

/// Files that are there and shall not be replaced are found before hours of work are put into new ones.
fn refuse_taken(wanted: &Wanted, endings: &[String]) -> Result<(), PortError> {
    if wanted.replace {
        return Ok(());
    }
    match endings.iter().map(|ending| wanted.path(ending)).find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(taken(&path)),
        None => Ok(()),
    }
}

fn taken(path: &Path) -> PortError {
    PortError::failed(
        format!("writing {}", path.display()),
        "it is there already; it is replaced with `--force` only",
    )
}

fn manifest(wanted: &Wanted, virtual_size: u64, ready: &[Ready]) -> Manifest {
    let files = ready
        .iter()
        .map(|file| ManifestFile {
            name: wanted.file_name(&file.ending),
            format: file.format.to_owned(),
            compression: file.compression.map(str::to_owned),
            size: file.digested.size,
            sha256: file.digested.sha256.clone(),
        })
        .collect();
    Manifest { version: 1, name: wanted.name.clone(), virtual_size, build: wanted.about.clone(), files }
}

fn sums(manifest: &Manifest) -> String {
    manifest.files.iter().map(|file| format!("{}  {}\n", file.sha256, file.name)).collect()
}

fn json(manifest: &Manifest) -> Result<String, PortError> {
    serde_json::to_string_pretty(manifest)
        .map(|text| text + "\n")
        .map_err(|error| PortError::broken("the manifest could not be written", error))
}

fn artefact(wanted: &Wanted, files: Vec<ManifestFile>) -> Artefact {
    let files =
        files.into_iter().map(|file| (wanted.directory.join(file.name), file.sha256, file.size)).collect();
    Artefact::Files { files }
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Gives the files their final names, the manifest last. Nothing awaits in here, so that it is never cut in two.
fn publish_all(wanted: &Wanted, endings: &[String], nonce: &str) -> Result<(), PortError> {
    let mut replaced = Vec::new();
    if wanted.replace {
        replaced = replaced_files(wanted, endings);
        // An old manifest must not vouch for new files while they are being replaced.
        for ending in [MANIFEST_ENDING, SUMS_ENDING] {
            let path = wanted.path(ending);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(PortError::broken(format!("{} can't be replaced", path.display()), error));
                }
                _ => {}
            }
        }
    }
    let mut published = Vec::new();
    for ending in endings {
        let path = wanted.path(ending);
        let moved = if wanted.replace {
            std::fs::rename(wanted.aside(ending, nonce), &path)
        } else {
            rename_into_nothing(&wanted.aside(ending, nonce), &path)
        };
        if let Err(error) = moved {
            if !wanted.replace {
                // What was just put there is ours, and it is no whole set.
                for path in &published {
                    let _ = std::fs::remove_file(path);
                }
            }
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists => taken(&path),
                _ => PortError::broken(format!("{} could not be put in place", path.display()), error),
            });
        }
        published.push(path);
    }
    for path in replaced {
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "a file of the set that was replaced is still there");
        }
    }
    // The names are there: what comes now is no failure of the build any more.
    if let Err(error) = File::open(&wanted.directory).and_then(|directory| directory.sync_all()) {
        tracing::warn!(%error, directory = %wanted.directory.display(), "new names not yet on the disk for sure");
    }
    Ok(())
}

/// The files that only the set to be replaced has: what its manifest names, and the new one has not. Without a manifest
/// nobody knows what belonged to it, and a manifest can only speak of files that bear its name.
fn replaced_files(wanted: &Wanted, endings: &[String]) -> Vec<PathBuf> {
    let old = std::fs::read(wanted.path(MANIFEST_ENDING)).ok();
    let old: Option<Manifest> = old.and_then(|text| serde_json::from_slice(&text).ok());
    let files = old.map(|manifest| manifest.files).unwrap_or_default();
    let stays = |name: &str| endings.iter().any(|ending| wanted.file_name(ending) == name);
    let ours = |name: &str| name.starts_with(&wanted.name) && !name.contains(['/', '\0']);
    let names = files.into_iter().map(|file| file.name).filter(|name| ours(name) && !stays(name));
    names.map(|name| wanted.directory.join(name)).collect()
}

/// Renames, unless something has that name.
fn rename_into_nothing(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system that can't do it in one step (renameat2(2)): a link fails when the name is taken.
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads finished files again: those that the manifest names.
pub(crate) async fn read_files(wanted: &Wanted) -> Result<Artefact, PortError> {
    let path = wanted.path(MANIFEST_ENDING);
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => PortError::NotFound { what: path.display().to_string() },
        _ => PortError::broken(format!("{} can't be read", path.display()), error),
    };
    let text = std::fs::read(&path).map_err(broken)?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| broken(io::Error::other(error)))?;
    let stop = Stop::default();
    for file in &manifest.files {
        let path = wanted.directory.join(&file.name);
        let found = digest::read(path.clone(), stop.token()).await.map_err(io::Error::other);
        let found = found.and_then(|result| result).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PortError::NotFound { what: path.display().to_string() },
            _ => PortError::broken(format!("{} can't be read", path.display()), error),
        })?;
        if found.sha256 != file.sha256 {
            let what = format!("reading {} again", path.display());
            return Err(PortError::failed(what, "it is not what its manifest says"));
        }
    }
    Ok(artefact(wanted, manifest.files))
}

#[cfg(test)]
#[path = "finalize_tests.rs"]
mod tests;
