//! Disk images, made and copied by `qemu-img`; or, in a lab without guests, small files that only tell a size.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::Command;

/// Called with the copied share in percent.
pub type Progress<'a> = &'a (dyn Fn(f64) + Send + Sync);

/// How images are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// By `qemu-img`.
    Real,
    /// As files that hold nothing but a size.
    Stub,
}

impl Disks {
    /// Makes an empty image.
    ///
    /// # Errors
    /// The text of what failed.
    pub async fn create(self, path: &Path, format: &str, bytes: u64) -> Result<(), String> {
        prepare(path)?;
        match self {
            Disks::Real => run(["create", "-q", "-f", format, &text(path), &bytes.to_string()]).await,
            Disks::Stub => write_stub(path, bytes),
        }
    }

    /// Makes an overlay whose backing file is `backing`, absolute or relative to the overlay's folder.
    ///
    /// # Errors
    /// The text of what failed.
    pub async fn overlay(self, path: &Path, backing: &Path, format: &str) -> Result<(), String> {
        prepare(path)?;
        match self {
            Disks::Real => {
                run(["create", "-q", "-f", "qcow2", "-b", &text(backing), "-F", format, &text(path)]).await
            }
            Disks::Stub => {
                let backing = match path.parent() {
                    Some(folder) => folder.join(backing),
                    None => backing.to_path_buf(),
                };
                let bytes = self.size(&backing).await.unwrap_or(1 << 30);
                write_stub(path, bytes)
            }
        }
    }

    /// Copies an image as a whole, at most `rate` bytes a second. Dropping the future ends the copying.
    ///
    /// # Errors
    /// The text of what failed.
    pub async fn convert(
        self,
        from: &Path,
        to: &Path,
        format: &str,
        rate: Option<u64>,
        progress: Progress<'_>,
    ) -> Result<(), String> {
        prepare(to)?;
        if self == Disks::Stub {
            std::fs::copy(from, to).map_err(|error| format!("can't copy '{}': {error}", from.display()))?;
            progress(100.0);
            return Ok(());
        }
        let mut command = Command::new("qemu-img");
        command.args(["convert", "-p", "-O", format]);
        if let Some(rate) = rate {
            command.args(["-r", &rate.to_string()]);
        }
        command.arg(from).arg(to).kill_on_drop(true).stdin(Stdio::null());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("can't run qemu-img: {error}"))?;
        if let Some(stdout) = child.stdout.take() {
            follow(stdout, progress).await;
        }
        let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// The virtual size in bytes.
    ///
    /// # Errors
    /// The text of what failed.
    pub async fn size(self, path: &Path) -> Result<u64, String> {
        let info = self.info(path).await?;
        info["virtual-size"].as_u64().ok_or_else(|| format!("no size of '{}'", path.display()))
    }

    /// Grows an image.
    ///
    /// # Errors
    /// The text of what failed.
    pub async fn resize(self, path: &Path, format: &str, bytes: u64) -> Result<(), String> {
        match self {
            Disks::Real => run(["resize", "-q", "-f", format, &text(path), &bytes.to_string()]).await,
            Disks::Stub => write_stub(path, bytes),
        }
    }

    /// Makes (`-c`), goes back to (`-a`) or removes (`-d`) a snapshot inside a qcow2 image that nobody uses.
    ///
    /// # Errors
    /// The text of what failed.
    pub async fn snapshot(self, action: &str, name: &str, path: &Path) -> Result<(), String> {
        match self {
            Disks::Real => run(["snapshot", "-q", action, name, &text(path)]).await,
            Disks::Stub => Ok(()),
        }
    }

    async fn info(self, path: &Path) -> Result<Value, String> {
        match self {
            Disks::Real => {
                let output = Command::new("qemu-img")
                    .args(["info", "-U", "--output=json"])
                    .arg(path)
                    .kill_on_drop(true)
                    .output()
                    .await
                    .map_err(|error| format!("can't run qemu-img: {error}"))?;
                if !output.status.success() {
                    return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
                }
                serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
            }
            Disks::Stub => {
                let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
                Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| json!({"virtual-size": 1u64 << 30})))
            }
        }
    }

    /// The format of an image file.
    ///
    /// # Errors
    /// The text of what failed.
    pub async fn format(self, path: &Path) -> Result<String, String> {
        let info = self.info(path).await?;
        Ok(info["format"].as_str().unwrap_or("raw").to_owned())
    }
}

fn prepare(path: &Path) -> Result<(), String> {
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    std::fs::create_dir_all(&folder).map_err(|error| format!("can't create '{}': {error}", folder.display()))
}

fn write_stub(path: &Path, bytes: u64) -> Result<(), String> {
    let document = json!({"virtual-size": bytes, "format": "qcow2"});
    std::fs::write(path, document.to_string())
        .map_err(|error| format!("can't write '{}': {error}", path.display()))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

async fn run<const N: usize>(arguments: [&str; N]) -> Result<(), String> {
    let output = Command::new("qemu-img")
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("can't run qemu-img: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// Reads `qemu-img -p`'s `    (12.34/100%)` lines, which end with a carriage return.
async fn follow(stdout: tokio::process::ChildStdout, progress: Progress<'_>) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    while let Ok(byte) = reader.read_u8().await {
        if byte != b'\r' && byte != b'\n' {
            line.push(byte);
            continue;
        }
        let text = String::from_utf8_lossy(&line);
        if let Some(share) = text.trim().strip_prefix('(').and_then(|rest| rest.split('/').next())
            && let Ok(percent) = share.parse()
        {
            progress(percent);
        }
        line.clear();
    }
}
