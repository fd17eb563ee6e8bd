//! `POST upload`: what was spooled is checked and copied to its storage by a task (upload.txt, Status.pm's facts).

use std::path::Path;

use sha2::Digest as _;

use super::super::{Answer, Call};
use crate::error::{ApiError, ApiResult};
use crate::state::Volume;

/// Where a file of a content type goes: its name as the storage keeps it.
///
/// # Errors
/// The 400 of a wrong extension.
pub fn checked_name(content: &str, name: &str) -> ApiResult<String> {
    let name = normal_name(name);
    let ends = |list: &[&str]| {
        let lower = name.to_ascii_lowercase();
        list.iter().any(|end| lower.ends_with(end) && lower.len() > end.len())
    };
    let right = match content {
        "iso" => ends(&[".iso", ".img"]),
        "vztmpl" => ends(&[".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tar"]),
        _ => ends(&[".ova", ".qcow2", ".raw", ".vmdk"]),
    };
    match (right, content) {
        (true, _) => Ok(name),
        (false, "import") => Err(ApiError::parameter("filename", "invalid filename or wrong extension")),
        (false, _) => Err(ApiError::parameter("filename", "wrong file extension")),
    }
}

/// A name without its path, and without characters that a volume can't have.
fn normal_name(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '_' };
    name.chars().map(kept).collect()
}

/// `POST upload`.
pub fn upload(mut call: Call) -> ApiResult<Answer> {
    let node = call.node().to_owned();
    let storage = call.params.text("storage").to_owned();
    let content = call.params.text("content").to_owned();
    let Some(spooled) = call.upload.take() else {
        return Err(ApiError::die("missing temporary file name"));
    };
    let name = checked_name(&content, call.params.text("filename"))?;
    if !call.cluster.storages.get_on(&node, &storage)?.takes(&content) {
        return Err(ApiError::die(format!("storage '{storage}' does not support '{content}' content")));
    }
    let sum = match (call.params.get("checksum-algorithm"), call.params.get("checksum")) {
        (Some(algorithm), Some(sum)) => Some((algorithm.to_owned(), sum.to_owned())),
        _ => None,
    };
    let cluster = std::sync::Arc::clone(&call.cluster);
    call.spawn("imgcopy", String::new(), |log| async move {
        log.line(format!("starting file import from: {}", spooled.shown));
        if let Some((algorithm, expected)) = sum {
            let got = hash_of(&spooled.path, &algorithm).await?;
            if !got.eq_ignore_ascii_case(&expected) {
                log.line("calculating checksum...");
                return Err(format!("checksum mismatch: got '{got}' != expect '{expected}'"));
            }
            log.line("calculating checksum...OK, checksum verified");
        }
        if content == "import" {
            check_image(&spooled.path, &spooled.shown, &name, &log)?;
        }
        let volid = format!("{storage}:{content}/{name}");
        let target = Volume::parse(&volid)?.display_path();
        log.line(format!("target node: {node}"));
        log.line(format!("target file: {target}"));
        log.line(format!("file size is: {}", spooled.size));
        log.line(format!("command: cp -- {} {target}", spooled.shown));
        let path = cluster.storages.path(&node, &volid)?;
        let replaced = path.metadata().map_or(0, |metadata| metadata.len());
        if !cluster.storages.has_room(&node, &storage, spooled.size.saturating_sub(replaced))? {
            // The copy that did not end is removed, and with it the file it was to replace.
            let _ = std::fs::remove_file(&path);
            return Err(format!("import failed: cp: error writing '{target}': No space left on device"));
        }
        copy(&spooled.path, &path).await.map_err(|error| format!("import failed: cp: {error}"))?;
        log.line("finished file import successfully");
        Ok(())
    })
}

async fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(folder) = to.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    tokio::fs::copy(from, to).await.map(drop)
}

/// The checksum of a file, in hex.
///
/// # Errors
/// It can't be read, or the lab does not know the algorithm.
pub async fn hash_of(path: &Path, algorithm: &str) -> Result<String, String> {
    let (path, algorithm) = (path.to_path_buf(), algorithm.to_owned());
    let hashed = tokio::task::spawn_blocking(move || hash_blocking(&path, &algorithm)).await;
    hashed.map_err(|error| error.to_string())?
}

fn hash_blocking(path: &Path, algorithm: &str) -> Result<String, String> {
    fn all<D: sha2::Digest>(path: &Path, mut hash: D) -> Result<Vec<u8>, String> {
        each(path, |bytes| hash.update(bytes))?;
        Ok(hash.finalize().to_vec())
    }
    fn md5(path: &Path) -> Result<Vec<u8>, String> {
        let mut hash = md5::Context::new();
        each(path, |bytes| hash.consume(bytes))?;
        Ok(hash.finalize().0.to_vec())
    }
    let hash = match algorithm {
        "md5" => md5(path),
        "sha1" => all(path, sha1::Sha1::new()),
        "sha224" => all(path, sha2::Sha224::new()),
        "sha256" => all(path, sha2::Sha256::new()),
        "sha384" => all(path, sha2::Sha384::new()),
        "sha512" => all(path, sha2::Sha512::new()),
        other => Err(format!("unknown checksum algorithm '{other}'")),
    };
    hash.map(|hash| crate::ids::hex(&hash))
}

fn each(path: &Path, mut take: impl FnMut(&[u8])) -> Result<(), String> {
    let mut file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(|error| error.to_string())? {
            0 => return Ok(()),
            read => take(&buffer[..read]),
        }
    }
}

/// What qemu-img would say of an image that is none of its format: by the first bytes, so that it costs no process.
fn check_image(path: &Path, shown: &str, name: &str, log: &crate::tasks::TaskLog) -> Result<(), String> {
    let format = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let magic: &[u8] = match format.as_str() {
        "qcow2" => b"QFI\xfb",
        "vmdk" => b"KDMV",
        _ => return Ok(()),
    };
    let mut first = [0; 4];
    let read =
        std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut first));
    if read.is_ok() && first == magic {
        return Ok(());
    }
    let command = format!("/usr/bin/qemu-img info '--output=json' {shown} -f {format}");
    log.line(format!("command '{command}' failed: exit code 1"));
    Err(format!("qemu-img: Could not open '{shown}': Image is not in {format} format"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_harmless_and_extensions_belong_to_contents() {
        assert_eq!(checked_name("iso", "../a/my seed.iso").expect("good"), "my_seed.iso");
        assert_eq!(checked_name("iso", "disk.img").expect("good"), "disk.img");
        assert_eq!(checked_name("import", "x.qcow2").expect("good"), "x.qcow2");
        let error = checked_name("iso", "seed.txt").expect_err("refused");
        assert_eq!(error.errors.expect("errors")["filename"], "wrong file extension");
        assert!(checked_name("import", "x.iso").is_err());
    }
}
