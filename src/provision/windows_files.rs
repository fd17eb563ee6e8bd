//! Files to and from a Windows: one at a time, by PowerShell, their checksums compared.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use forge_machine::Guest;

use super::{Direction, FileStep, OutputObserver, ProvisionError};
use crate::engine::error::chain;

/// The largest file that is carried: it is held in memory.
const LARGEST: u64 = 512 << 20;

/// Carries what a step says.
///
/// # Errors
/// With the file and the reason.
pub(super) async fn carry(
    guest: &dyn Guest,
    step: &FileStep,
    observer: &mut dyn OutputObserver,
) -> Result<(), ProvisionError> {
    let near = if step.content.is_some() { "the text".to_owned() } else { step.local.display().to_string() };
    let result = match step.direction {
        Direction::Upload => upload(guest, step).await,
        Direction::Download => download(guest, step).await,
    };
    let (what, words) = match step.direction {
        Direction::Upload => (format!("the upload of {near} to {} failed", step.remote), "uploaded"),
        Direction::Download => (format!("the download of {} to {near} failed", step.remote), "downloaded"),
    };
    let length = result.map_err(|why| ProvisionError::Transfer { what, why })?;
    observer.line(&format!("{words} {length} bytes"), false);
    Ok(())
}

async fn upload(guest: &dyn Guest, step: &FileStep) -> Result<usize, String> {
    let unread = |error: std::io::Error| format!("it can't be read: {error}");
    let content = match &step.content {
        Some(text) => text.clone().into_bytes(),
        None => {
            let about = tokio::fs::metadata(&step.local).await.map_err(unread)?;
            if !about.is_file() {
                return Err("it is no file, and folders can't be carried to Windows yet".into());
            }
            if about.len() > LARGEST {
                return Err(format!("it is larger than {} MiB", LARGEST >> 20));
            }
            tokio::fs::read(&step.local).await.map_err(unread)?
        }
    };
    let name = step.local.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // A name with a slash at its end is a folder's.
    let to = match step.remote.ends_with(['/', '\\']) {
        true => format!("{}{name}", step.remote),
        false => step.remote.clone(),
    };
    guest.put(&to, &content, 0o644).await.map_err(|error| chain(&error))?;
    Ok(content.len())
}

async fn download(guest: &dyn Guest, step: &FileStep) -> Result<usize, String> {
    let content = guest.get(&step.remote, LARGEST).await.map_err(|error| chain(&error))?;
    let name = step.remote.rsplit(['/', '\\']).next().unwrap_or_default();
    let shown = step.local.to_string_lossy();
    let to =
        if shown.ends_with('/') || step.local.is_dir() { step.local.join(name) } else { step.local.clone() };
    let folder = to.parent().unwrap_or(Path::new("."));
    let unwritten = |error: std::io::Error| format!("it can't be written: {error}");
    tokio::fs::create_dir_all(folder).await.map_err(unwritten)?;
    // Half a file never stands under the name.
    let part = folder.join(format!(".forge-{:016x}", rand::random::<u64>()));
    tokio::fs::write(&part, &content).await.map_err(unwritten)?;
    if let Some(mode) = step.mode {
        let bits = std::fs::Permissions::from_mode(mode);
        tokio::fs::set_permissions(&part, bits).await.map_err(unwritten)?;
    }
    tokio::fs::rename(&part, &to).await.map_err(unwritten)?;
    Ok(content.len())
}
