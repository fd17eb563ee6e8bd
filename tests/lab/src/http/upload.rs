//! `multipart/form-data` as pveproxy reads it: fields in one order only, the file last, straight into a spool file.
//!
//! Facts of pve-http-server's AnyEvent.pm and upload.txt: the fields `content`, `checksum-algorithm`, `checksum` and the
//! file come in this order; `Content-Disposition` is spelled so, and is the first header of the file's part; a quoted
//! boundary is never found. What is out of order ends in a message with line ends, which pveproxy answers with an empty
//! 400.

use std::path::PathBuf;

use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt as _;

use super::read::{Body, Stop};
use crate::cluster::Cluster;
use crate::error::ApiError;

/// The fields before the file, in the only order in which they are seen.
const ORDER: [&str; 3] = ["content", "checksum-algorithm", "checksum"];

/// Most bytes before the file's data.
const HEAD_LIMIT: usize = 64 << 10;

/// A file that was received, still in the spool folder. It is removed when this is dropped.
#[derive(Debug)]
pub struct Spooled {
    /// Where it is.
    pub path: tempfile::TempPath,
    /// The path a real server would show.
    pub shown: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Reads a body of parts.
pub(super) async fn read(
    cluster: &Cluster,
    body: &mut Body,
    boundary: &str,
) -> Result<(Map<String, Value>, Spooled), Stop> {
    let mut buffer = Vec::new();
    let (params, data) = loop {
        match head(&buffer, boundary) {
            Head::File(params, start) => break (params, start),
            Head::Refused(text) => return Err(ApiError::plain(500, text).into()),
            Head::Incomplete if buffer.len() > HEAD_LIMIT => return Err(failed()),
            Head::Incomplete => {}
        }
        match body.next().await? {
            Some(bytes) => buffer.extend_from_slice(&bytes),
            None => return Err(failed()),
        }
    };
    buffer.drain(..data);
    let mut spool = Spool::open(cluster).await?;
    let close = format!("\n--{boundary}--").into_bytes();
    loop {
        if let Some(end) = find(&buffer, &close) {
            let end = if end > 0 && buffer[end - 1] == b'\r' { end - 1 } else { end };
            spool.write(&buffer[..end]).await?;
            return Ok((params, spool.finish().await?));
        }
        // An end that has come in part stays in the buffer.
        let keep = close.len() + 1;
        if buffer.len() > keep {
            let ready = buffer.len() - keep;
            spool.write(&buffer[..ready]).await?;
            buffer.drain(..ready);
        }
        match body.next().await? {
            Some(bytes) => buffer.extend_from_slice(&bytes),
            None => return Err(failed()),
        }
    }
}

fn failed() -> Stop {
    ApiError::plain(500, "upload failed at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 1370.").into()
}

/// What the bytes before the file's data tell.
#[derive(Debug, PartialEq)]
enum Head {
    Incomplete,
    Refused(String),
    File(Map<String, Value>, usize),
}

fn head(buffer: &[u8], boundary: &str) -> Head {
    let mut params = Map::new();
    let mut order = ORDER.as_slice();
    let Some(mut at) = after_delimiter(buffer, boundary, 0) else { return Head::Incomplete };
    loop {
        let Some((headers, data)) = part_headers(buffer, at) else { return Head::Incomplete };
        if let Some(name) = quoted(&headers, "; filename=\"").filter(|name| !name.is_empty())
            && headers.starts_with("Content-Disposition: form-data; name=\"")
        {
            let field = quoted(&headers, "; name=\"").unwrap_or_default();
            if field != "filename" {
                return Head::Refused(format!(
                    "wrong field name '{field}' for file upload, expected 'filename' at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 1333."
                ));
            }
            params.insert("filename".to_owned(), name.trim().into());
            return Head::File(params, data);
        }
        if headers.contains("; filename=\"") {
            return Head::Incomplete;
        }
        let Some(field) = quoted(&headers, "Content-Disposition: form-data; name=\"") else {
            return Head::Incomplete;
        };
        let Some(position) = order.iter().position(|name| *name == field) else {
            return Head::Refused(format!("wrong field name '{field}\r\n' for file upload"));
        };
        let Some(next) = after_delimiter(buffer, boundary, data) else { return Head::Incomplete };
        order = &order[position + 1..];
        let value = &buffer[data..next];
        let end = find(value, format!("--{boundary}").as_bytes()).unwrap_or(value.len());
        params.insert(field, String::from_utf8_lossy(&value[..end]).trim().into());
        at = next;
    }
}

/// Where the part begins that follows the next delimiter.
fn after_delimiter(buffer: &[u8], boundary: &str, from: usize) -> Option<usize> {
    let delimiter = format!("--{boundary}").into_bytes();
    let mut at = from;
    loop {
        let end = at + find(buffer.get(at..)?, &delimiter)? + delimiter.len();
        match buffer.get(end..)? {
            [b'\r', b'\n', ..] => return Some(end + 2),
            [b'\n', ..] => return Some(end + 1),
            _ => at = end,
        }
    }
}

/// The headers of a part and where its data begins.
fn part_headers(buffer: &[u8], at: usize) -> Option<(String, usize)> {
    let rest = &buffer[at..];
    let ends = [find(rest, b"\r\n\r\n").map(|end| (end, 4)), find(rest, b"\n\n").map(|end| (end, 2))];
    let (end, width) = ends.into_iter().flatten().min()?;
    Some((String::from_utf8_lossy(&rest[..end]).into_owned(), at + end + width))
}

fn quoted(text: &str, before: &str) -> Option<String> {
    let start = text.find(before)? + before.len();
    text[start..].split('"').next().map(str::to_owned)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A spool file being written.
struct Spool<'a> {
    cluster: &'a Cluster,
    file: tokio::fs::File,
    spooled: Spooled,
}

impl<'a> Spool<'a> {
    async fn open(cluster: &'a Cluster) -> Result<Self, Stop> {
        let name = format!("pveupload-{}", crate::ids::hex(&crate::ids::bytes::<16>()));
        let folder = folder(cluster);
        let path = folder.join(&name);
        let opened = async {
            tokio::fs::create_dir_all(&folder).await?;
            tokio::fs::File::create(&path).await
        };
        let file = opened.await.map_err(|error| write_failed(&error))?;
        let path = tempfile::TempPath::try_from_path(path).map_err(|error| write_failed(&error))?;
        Ok(Spool { cluster, file, spooled: Spooled { path, shown: format!("/var/tmp/{name}"), size: 0 } })
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        if let Some(limit) = self.cluster.config.spool_size {
            let used: u64 = std::fs::read_dir(folder(self.cluster))
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.metadata().ok())
                .map(|metadata| metadata.len())
                .sum();
            if used + bytes.len() as u64 > limit {
                let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
                return Err(write_failed(&full));
            }
        }
        self.file.write_all(bytes).await.map_err(|error| write_failed(&error))?;
        if self.cluster.config.spool_size.is_some() {
            // So that the next look at the folder sees it.
            self.file.flush().await.map_err(|error| write_failed(&error))?;
        }
        self.spooled.size += bytes.len() as u64;
        Ok(())
    }

    async fn finish(mut self) -> Result<Spooled, Stop> {
        self.file.flush().await.map_err(|error| write_failed(&error))?;
        Ok(self.spooled)
    }
}

fn folder(cluster: &Cluster) -> PathBuf {
    cluster.run_dir.join("spool")
}

fn write_failed(error: &std::io::Error) -> Stop {
    let text = match error.kind() {
        std::io::ErrorKind::StorageFull => "No space left on device".to_owned(),
        _ => error.to_string(),
    };
    ApiError::plain(500, format!("write to temporary file failed - {text}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(list: &[&str]) -> Vec<u8> {
        list.iter().map(|part| format!("--B\r\n{part}\r\n")).collect::<String>().into_bytes()
    }

    const CONTENT: &str = "Content-Disposition: form-data; name=\"content\"\r\n\r\niso";
    const SUM: &str = "Content-Disposition: form-data; name=\"checksum\"\r\n\r\nff";
    const FILE: &str = "Content-Disposition: form-data; name=\"filename\"; filename=\"a b.iso\"\r\nContent-Type: x/y\r\n\r\nDATA";

    #[test]
    fn fields_are_seen_in_one_order_only() {
        let good = parts(&[CONTENT, SUM, FILE]);
        let Head::File(params, start) = head(&good, "B") else { panic!("{:?}", head(&good, "B")) };
        assert_eq!(
            Value::Object(params),
            serde_json::json!({"content": "iso", "checksum": "ff", "filename": "a b.iso"})
        );
        assert_eq!(&good[start..start + 4], b"DATA");
        let Head::Refused(text) = head(&parts(&[SUM, CONTENT, FILE]), "B") else { panic!("accepted") };
        assert!(text.contains('\r'), "{text}");
        assert_eq!(head(&parts(&[CONTENT]), "B"), Head::Incomplete, "no file");
        let lower = FILE.replace("Content-Disposition", "content-disposition");
        assert_eq!(head(&parts(&[CONTENT, &lower]), "B"), Head::Incomplete);
        let later = format!("Content-Type: x/y\r\n{}", FILE.replace("\r\nContent-Type: x/y", ""));
        assert_eq!(head(&parts(&[CONTENT, &later]), "B"), Head::Incomplete);
        assert_eq!(head(&good, "\"B\""), Head::Incomplete, "a quoted boundary");
    }
}
