//! Disk images, by `qemu-img`.
//!
//! Every call is a process of its own that is killed when its future is dropped; a half-written target is then the
//! caller's to remove. Formats are always named, because a guest can write a header into a raw disk that makes
//! guessing dangerous; only [`ImageTool::info`] may guess, on images the user named himself.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};

use forge_machine::FileFormat;
use serde::Deserialize;
use thiserror::Error;

use crate::line::shorten;
use crate::process::{dying_with_us, find_program};
use crate::search;
use crate::spawner;

/// An error of `qemu-img`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It could not be started.
    #[error("`{command}` could not be started")]
    Spawn {
        /// The command line.
        command: String,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("`{command}` ended with {status}: {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// It printed something that can't be understood.
    #[error("the output of `{command}` can't be read")]
    Output {
        /// The command line.
        command: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Why an image is not to be built from.
#[derive(Debug, Error)]
pub enum Unsound {
    /// It can't be read at all.
    #[error("it can't be read")]
    Unreadable(#[source] ImageError),
    /// Its name promises a format that it is not in.
    #[error(
        "its name says {named}, and its content is {found}: it may be something else that was saved under that name"
    )]
    Misnamed {
        /// The name's ending.
        named: String,
        /// What its content is.
        found: String,
    },
    /// It is damaged, most often because a copy or a download of it was cut off.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// Endings that stand for one format each; parts of VMware's images are raw, and called `.vmdk` too.
const ENDINGS: [(&str, &str); 3] = [("qcow2", "qcow2"), ("vdi", "vdi"), ("vhdx", "vhdx")];
/// `qemu-img check`: the image is whole, or nothing but space is lost in it, or its format can't be checked (its manual).
const WHOLE: [i32; 3] = [0, 3, 63];

/// What `qemu-img info` tells.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageInfo {
    /// The format's name (`qcow2`, `raw`, `vmdk`, …).
    pub format: String,
    /// The disk's size as the guest sees it, in bytes.
    pub virtual_size: u64,
    /// What the file takes up, in bytes.
    #[serde(default)]
    pub actual_size: u64,
    /// The image it is an overlay of.
    pub backing_filename: Option<PathBuf>,
}

/// `qemu-img`.
#[derive(Clone, Debug)]
pub struct ImageTool {
    binary: PathBuf,
}

impl Default for ImageTool {
    fn default() -> Self {
        Self::new("qemu-img")
    }
}

impl ImageTool {
    /// Names the program: a path, or a name looked up in `PATH`.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self { binary: binary.into() }
    }

    /// Makes an empty image of that size in bytes.
    ///
    /// # Errors
    /// When `qemu-img` fails.
    pub async fn create(&self, path: &Path, format: FileFormat, size: u64) -> Result<(), ImageError> {
        let arguments = vec![
            "create".into(),
            "-q".into(),
            "-f".into(),
            format.to_string().into(),
            "--".into(),
            path.into(),
            size.to_string().into(),
        ];
        self.run(arguments).await.map(drop)
    }

    /// Makes a qcow2 overlay that takes the writes for `base`, which is never written to. A `size` in bytes makes
    /// the disk larger than the base. The base's path is made absolute, so that the overlay may be moved.
    ///
    /// # Errors
    /// When `qemu-img` fails.
    pub async fn create_overlay(
        &self,
        overlay: &Path,
        base: &Path,
        base_format: &str,
        size: Option<u64>,
    ) -> Result<(), ImageError> {
        let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
        let mut arguments: Vec<OsString> =
            ["create", "-q", "-f", "qcow2", "-F", base_format, "-b"].map(OsString::from).into();
        arguments.extend([base.into(), "--".into(), overlay.into()]);
        arguments.extend(size.map(|size| size.to_string().into()));
        self.run(arguments).await.map(drop)
    }

    /// Copies an image with all it is based on into one new file. `compress` takes zstd for qcow2 (QEMU 5.1 and
    /// later read it) and the stream-optimized form for vmdk; qemu-img can't compress raw images.
    ///
    /// # Errors
    /// When `qemu-img` fails; the target may be half there.
    pub async fn convert(
        &self,
        source: &Path,
        source_format: &str,
        target: &Path,
        target_format: FileFormat,
        compress: bool,
    ) -> Result<(), ImageError> {
        let mut arguments: Vec<OsString> =
            ["convert", "-q", "-f", source_format, "-O", target_format.name()].map(OsString::from).into();
        let options: &[&str] = match (compress, target_format) {
            (true, FileFormat::Qcow2) => &["-c", "-o", "compression_type=zstd"],
            (true, FileFormat::Vmdk) => &["-o", "subformat=streamOptimized"],
            _ => &[],
        };
        arguments.extend(options.iter().map(OsString::from));
        arguments.extend(["--".into(), source.into(), target.into()]);
        self.run(arguments).await.map(drop)
    }

    /// Reads an image's header, also while a VM uses it. `format: None` guesses it from the header.
    ///
    /// # Errors
    /// When there is no such image, or `qemu-img` fails.
    pub async fn info(&self, path: &Path, format: Option<&str>) -> Result<ImageInfo, ImageError> {
        let mut arguments: Vec<OsString> = ["info", "-U", "--output=json"].map(OsString::from).into();
        if let Some(format) = format {
            arguments.extend(["-f".into(), format.into()]);
        }
        arguments.extend(["--".into(), path.into()]);
        let command = self.show(&arguments);
        let output = self.run(arguments).await?;
        serde_json::from_slice(&output).map_err(|source| ImageError::Output { command, source })
    }

    /// Tells where the pieces of an image lie.
    ///
    /// # Errors
    /// When there is no such image, or `qemu-img` fails.
    pub(crate) async fn map(&self, path: &Path, format: &str) -> Result<Vec<search::Extent>, ImageError> {
        let mut arguments: Vec<OsString> =
            ["map", "--output=json", "-f", format, "--"].map(OsString::from).into();
        arguments.push(path.into());
        let command = self.show(&arguments);
        let output = self.run(arguments).await?;
        search::extents(&output).map_err(|source| ImageError::Output { command, source })
    }

    /// Reads the header of an image that the user named, and looks whether all is there that its tables speak of: an
    /// image that was cut off boots into nothing, or breaks in the middle of a build. Reads no data.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn sound(&self, path: &Path) -> Result<ImageInfo, Unsound> {
        let info = self.info(path, None).await.map_err(Unsound::Unreadable)?;
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if let Some((_, format)) = ENDINGS.iter().find(|(known, _)| *known == ending)
            && *format != info.format
        {
            return Err(Unsound::Misnamed { named: ending, found: info.format });
        }
        let mut arguments: Vec<OsString> =
            ["check", "-U", "-f", &info.format, "--"].map(OsString::from).into();
        arguments.push(path.into());
        let (command, output) = self.call(&arguments).await.map_err(Unsound::Unreadable)?;
        match output.status.code() {
            Some(code) if WHOLE.contains(&code) => Ok(info),
            Some(2) => {
                let words = format!("{}\n{}", text(&output.stderr), text(&output.stdout));
                let first = words.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
                let errors =
                    words.lines().find(|line| line.contains("errors were found")).unwrap_or_default();
                let words = [first, errors.trim()].into_iter().filter(|part| !part.is_empty());
                Err(Unsound::Damaged(format!("`{command}` says: {}", words.collect::<Vec<_>>().join("; "))))
            }
            _ => {
                let stderr = shorten(text(&output.stderr).trim(), 2000);
                Err(Unsound::Unreadable(ImageError::Failed { command, status: output.status, stderr }))
            }
        }
    }

    /// Makes a disk larger (in bytes); a smaller size is refused.
    ///
    /// # Errors
    /// When `qemu-img` fails.
    pub async fn resize(&self, path: &Path, format: &str, size: u64) -> Result<(), ImageError> {
        let mut arguments: Vec<OsString> = ["resize", "-q", "-f", format].map(OsString::from).into();
        arguments.extend(["--".into(), path.into(), size.to_string().into()]);
        self.run(arguments).await.map(drop)
    }

    async fn run(&self, arguments: Vec<OsString>) -> Result<Vec<u8>, ImageError> {
        let (command, output) = self.call(&arguments).await?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let stderr = shorten(text(&output.stderr).trim(), 2000);
        Err(ImageError::Failed { command, status: output.status, stderr })
    }

    /// Runs it to its end, however that is; the command line as it is shown, and what came.
    async fn call(&self, arguments: &[OsString]) -> Result<(String, Output), ImageError> {
        let command = self.show(arguments);
        tracing::debug!(command, "running");
        let failed = |source| ImageError::Spawn { command: command.clone(), source };
        // It would go on writing, and hold its files, when forge is gone.
        let binary = find_program(&self.binary).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let mut child = dying_with_us(&binary);
        child.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C in the terminal is forge's own affair.
        child.process_group(0).kill_on_drop(true);
        let child = spawner::spawn(child).await.map_err(failed)?;
        let output = child.wait_with_output().await.map_err(failed)?;
        Ok((command, output))
    }

    fn show(&self, arguments: &[OsString]) -> String {
        let words = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
        std::iter::once(self.binary.display().to_string()).chain(words).collect::<Vec<_>>().join(" ")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool() -> Option<ImageTool> {
        let found = crate::process::find_program(Path::new("qemu-img")).map(ImageTool::new);
        if found.is_none() {
            println!("skipped: qemu-img is not installed");
        }
        found
    }

    #[tokio::test]
    async fn an_overlay_is_larger_than_its_base_and_flattens_into_one_file() {
        let Some(tool) = tool() else { return };
        let dir = tempfile::tempdir().expect("a directory");
        let (base, overlay, flat) =
            (dir.path().join("base, with comma"), dir.path().join("overlay"), dir.path().join("flat"));
        tool.create(&base, FileFormat::Raw, 1 << 20).await.expect("created");
        tool.create_overlay(&overlay, &base, "raw", Some(2 << 20)).await.expect("overlaid");
        let info = tool.info(&overlay, Some("qcow2")).await.expect("read");
        assert_eq!((info.format.as_str(), info.virtual_size), ("qcow2", 2 << 20));
        assert_eq!(info.backing_filename.as_deref(), Some(base.as_path()));

        tool.resize(&overlay, "qcow2", 3 << 20).await.expect("grown");
        tool.convert(&overlay, "qcow2", &flat, FileFormat::Qcow2, false).await.expect("flattened");
        let info = tool.info(&flat, None).await.expect("read");
        assert_eq!((info.virtual_size, info.backing_filename), (3 << 20, None));
    }

    #[tokio::test]
    async fn an_image_that_was_cut_off_or_is_something_else_is_told_from_a_sound_one() {
        let Some(tool) = tool() else { return };
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for (name, format) in
            [("a.qcow2", FileFormat::Qcow2), ("a.raw", FileFormat::Raw), ("a.vmdk", FileFormat::Vmdk)]
        {
            tool.create(&at(name), format, 64 << 20).await.expect("created");
            assert_eq!(tool.sound(&at(name)).await.expect("sound").virtual_size, 64 << 20, "{name}");
        }
        std::fs::write(at("data"), vec![7; 4 << 20]).expect("written");
        tool.convert(&at("data"), "raw", &at("b.qcow2"), FileFormat::Qcow2, false).await.expect("converted");
        tool.sound(&at("b.qcow2")).await.expect("sound");
        let whole = std::fs::metadata(at("b.qcow2")).expect("there").len();
        for length in [200, whole / 2] {
            let file = std::fs::OpenOptions::new().write(true).open(at("b.qcow2")).expect("opened");
            file.set_len(length).expect("cut off");
            drop(file);
            let error = tool.sound(&at("b.qcow2")).await.expect_err("cut off").to_string();
            assert!(error.starts_with("it is damaged: ") && error.contains("errors were found"), "{error}");
        }
        std::fs::write(at("page.qcow2"), "<html>404</html>").expect("written");
        let error = tool.sound(&at("page.qcow2")).await.expect_err("a page").to_string();
        assert!(error.contains("its name says qcow2, and its content is raw"), "{error}");
        let error = tool.sound(&at("nowhere.raw")).await.expect_err("missing");
        assert!(matches!(error, Unsound::Unreadable(_)), "{error}");
    }

    #[tokio::test]
    async fn an_error_carries_the_command_and_its_words() {
        let Some(tool) = tool() else { return };
        let error = tool.info(Path::new("/nonexistent/disk"), None).await.expect_err("missing").to_string();
        assert!(error.contains("info -U --output=json -- /nonexistent/disk"), "{error}");
        assert!(error.contains("No such file or directory"), "{error}");

        let error =
            ImageTool::new("/nonexistent/qemu-img").info(Path::new("x"), None).await.expect_err("missing");
        assert!(matches!(error, ImageError::Spawn { .. }), "{error}");
    }
}
