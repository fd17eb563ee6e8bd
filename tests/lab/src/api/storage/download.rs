//! `POST download-url` and `GET query-url-metadata` (download-import-pools-tasks.txt).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use super::super::{Answer, Call};
use super::fetch;
use super::upload::{checked_name, hash_of};
use crate::cluster::Cluster;
use crate::error::{ApiError, ApiResult};
use crate::state::Volume;
use crate::tasks::TaskLog;

/// `GET query-url-metadata`.
pub async fn metadata(call: &Call) -> ApiResult<Answer> {
    let url = call.params.text("url");
    let verify = call.params.get("verify-certificates") != Some("0");
    let (head, _) = fetch::ask(Method::HEAD, url, verify).await.map_err(ApiError::die)?;
    if !head.good {
        return Err(ApiError::die(format!("invalid server response: '{}'", head.line)));
    }
    let mut answer = json!({});
    if let Some(size) = head.length {
        answer["size"] = size.into();
    }
    let from_path =
        || url.split(['?', '#']).next().and_then(|path| path.rsplit('/').next()).map(str::to_owned);
    if let Some(name) = head.name.or_else(from_path).filter(|name| !name.is_empty()) {
        answer["filename"] = name.into();
    }
    if let Some(kind) = head.kind {
        answer["mimetype"] = kind.split(';').next().map_or(Value::Null, |kind| kind.trim().into());
    }
    Ok(answer.into())
}

/// What is to be downloaded.
struct Download {
    cluster: Arc<Cluster>,
    node: String,
    storage: String,
    url: String,
    verify: bool,
    path: PathBuf,
    shown: String,
    sum: Option<(String, String)>,
    compression: Option<String>,
}

/// `POST download-url`.
pub fn download(call: &Call) -> ApiResult<Answer> {
    let (storage, content) = (call.params.text("storage"), call.params.text("content"));
    if !call.cluster.storages.get_on(call.node(), storage)?.takes(content) {
        return Err(ApiError::die(format!(
            "storage '{storage}' is not configured for content-type '{content}'"
        )));
    }
    let name = checked_name(content, call.params.text("filename"))?;
    let compression = call.params.get("compression").map(str::to_owned);
    if compression.is_some() && content != "iso" {
        return Err(ApiError::die(format!("decompression not supported for {content}")));
    }
    let volid = format!("{storage}:{content}/{name}");
    let job = Download {
        cluster: Arc::clone(&call.cluster),
        node: call.node().to_owned(),
        storage: storage.to_owned(),
        url: call.params.text("url").to_owned(),
        verify: call.params.get("verify-certificates") != Some("0"),
        path: call.cluster.storages.path(call.node(), &volid)?,
        shown: Volume::parse(&volid)?.display_path(),
        sum: match (call.params.get("checksum-algorithm"), call.params.get("checksum")) {
            (Some(algorithm), Some(sum)) => Some((algorithm.to_owned(), sum.to_owned())),
            _ => None,
        },
        compression,
    };
    call.spawn("download", name, |log| async move { job.run(&log).await })
}

impl Download {
    async fn run(&self, log: &TaskLog) -> Result<(), String> {
        log.line(format!("downloading {} to {}", self.url, self.shown));
        if self.path.exists() {
            return self.compare(log).await;
        }
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        }
        let part = self.beside("tmp_dwnl", log);
        let result = self.fetch(log, &part).await;
        // What did not become the file goes.
        let _ = std::fs::remove_file(&part);
        result
    }

    fn beside(&self, what: &str, log: &TaskLog) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{what}.{}", log.pid()));
        name.into()
    }

    /// A file that is there is never replaced; with a checksum that fits it counts as downloaded.
    async fn compare(&self, log: &TaskLog) -> Result<(), String> {
        let Some((algorithm, expected)) = &self.sum else {
            return Err(format!("refusing to override existing file '{}'", self.shown));
        };
        let got = hash_of(&self.path, algorithm).await?;
        if got.eq_ignore_ascii_case(expected) {
            log.line(
                "calculating checksum of existing file...OK, got correct file already, no need to download",
            );
            return Ok(());
        }
        log.line("calculating checksum of existing file...");
        Err(format!("checksum mismatch: got '{got}' != expect '{expected}', aborting"))
    }

    async fn fetch(&self, log: &TaskLog, part: &Path) -> Result<(), String> {
        let shown = format!("{}.tmp_dwnl.{}", self.shown, log.pid());
        let answered = fetch::ask(Method::GET, &self.url, self.verify).await;
        // The exit codes are wget's: 4 is the network, 8 is what the server said.
        let (head, body) = answered.map_err(|error| {
            log.line(error);
            "download failed: exit code 4".to_owned()
        })?;
        log.line(format!("HTTP request sent, awaiting response... {}", head.line));
        if !head.good {
            let (status, reason) = head.line.split_once(' ').unwrap_or((&head.line, ""));
            log.line(format!("ERROR {status}: {reason}."));
            return Err("download failed: exit code 8".to_owned());
        }
        log.line(format!("Saving to: '{shown}'"));
        if let Some(length) = head.length
            && !self.cluster.storages.has_room(&self.node, &self.storage, length)?
        {
            log.line(format!("{shown}: No space left on device"));
            return Err("download failed: exit code 3".to_owned());
        }
        let length = fetch::save(body, part).await.map_err(|error| {
            log.line(error);
            "download failed: exit code 4".to_owned()
        })?;
        log.line(format!("'{shown}' saved [{length}/{length}]"));
        if let Some((algorithm, expected)) = &self.sum {
            let got = hash_of(part, algorithm).await?;
            if !got.eq_ignore_ascii_case(expected) {
                log.line("calculating checksum...");
                return Err(format!("checksum mismatch: got '{got}' != expect '{expected}'"));
            }
            log.line("calculating checksum...OK, checksum verified");
        }
        let mut ready = part.to_path_buf();
        if let Some(compression) = &self.compression {
            let unpacked = self.beside("tmp_dcom", log);
            log.line(format!("decompressing {shown} to {}.tmp_dcom.{}", self.shown, log.pid()));
            unpack(compression, part, &unpacked).await?;
            ready = unpacked;
        }
        std::fs::rename(&ready, &self.path).map_err(|error| format!("unable to save file: {error}"))?;
        log.line(format!("download of '{}' to '{}' finished", self.url, self.shown));
        Ok(())
    }
}

/// Unpacks a file: gzip itself, the others with their own programs, as Proxmox does.
async fn unpack(compression: &str, from: &Path, to: &Path) -> Result<(), String> {
    if compression == "gz" {
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        let unpacked = tokio::task::spawn_blocking(move || {
            let mut reader = flate2::read::MultiGzDecoder::new(std::fs::File::open(from)?);
            std::io::copy(&mut reader, &mut std::fs::File::create(to)?)
        });
        return match unpacked.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("decompression failed: {error}")),
            Err(error) => Err(format!("decompression failed: {error}")),
        };
    }
    let program = match compression {
        "zst" => "zstd",
        "lzo" => "lzop",
        _ => "bzip2",
    };
    let target = std::fs::File::create(to).map_err(|error| error.to_string())?;
    let status = Command::new(program)
        .args(["-d", "-c"])
        .arg(from)
        .stdout(target)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| format!("decompression failed: {program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("decompression failed: {program}: {status}")) }
}
