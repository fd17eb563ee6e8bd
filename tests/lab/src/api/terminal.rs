//! `POST termproxy`: a VM's serial port over `vncwebsocket`.
//!
//! The client's first line is `USER:TICKET`; `OK` answers it. From then on the guest's bytes come as they are, and the
//! client sends `0:LENGTH:BYTES`, `1:COLUMNS:ROWS:` or `2` (proxmox.md §3.7, not seen on a real server).

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::console::{Backend, open_proxy};
use super::{Answer, Call};
use crate::cluster::Cluster;
use crate::error::ApiResult;

/// How long the first line may take.
const GREETING: Duration = Duration::from_secs(10);
/// Most bytes of the first line, and of one packet.
const LIMIT: usize = 128 << 10;

/// `POST termproxy`.
pub fn proxy(call: &Call) -> ApiResult<Answer> {
    let vm = call.cluster.vm(call.node(), call.vmid())?;
    let shown = vm.get("vga").and_then(|vga| {
        let parsed = crate::schema::parse_property_string("vga", vga).ok()?;
        parsed.get("type").filter(|kind| kind.starts_with("serial")).cloned()
    });
    let given = call.params.get("serial").map(str::to_owned);
    let port = given.or(shown).or_else(|| {
        let mut ports = (0..4).map(|number| format!("serial{number}"));
        ports.find(|port| vm.get(port).is_some())
    });
    let opened = open_proxy(call, Backend::Serial(port))?;
    Ok(json!({
        "port": opened.port.to_string(), "user": call.caller.0, "ticket": opened.ticket, "upid": opened.upid,
    })
    .into())
}

/// What a session is about.
pub struct Session {
    /// The lab.
    pub cluster: Arc<Cluster>,
    /// Who may open it.
    pub user: String,
    /// The VM.
    pub vmid: u32,
    /// Its number among the consoles.
    pub port: u16,
    /// The serial port; `None` when the VM has none.
    pub serial: Option<String>,
}

impl Session {
    /// Carries bytes both ways until either side ends or the client breaks a rule.
    pub async fn run(self, client: impl AsyncRead + AsyncWrite) {
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let mut buffered = Vec::new();
        let first = tokio::time::timeout(GREETING, line(&mut from_client, &mut buffered)).await;
        let Ok(Some(first)) = first else { return };
        if !self.admits(&first) || to_client.write_all(b"OK").await.is_err() {
            return;
        }
        let socket = match &self.serial {
            Some(serial) => {
                let folder = self.cluster.run_dir.join(self.vmid.to_string());
                UnixStream::connect(folder.join(format!("{serial}.sock"))).await.ok()
            }
            None => None,
        };
        let Some(socket) = socket else {
            // What `qm terminal` says is what the client sees.
            let _ = to_client.write_all(b"unable to find a serial interface\r\n").await;
            return;
        };
        let (mut from_guest, mut to_guest) = socket.into_split();
        let inwards = async {
            while let Some(data) = packet(&mut from_client, &mut buffered).await {
                if to_guest.write_all(&data).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = inwards => {}
            _ = tokio::io::copy(&mut from_guest, &mut to_client) => {}
        }
    }

    fn admits(&self, line: &str) -> bool {
        let Some((user, ticket)) = line.split_once(':') else { return false };
        let path = format!("/vms/{}", self.vmid);
        user == self.user && self.cluster.consoles.verify(ticket, user, &path, self.port)
    }
}

/// Reads more; false at the end.
async fn fill(stream: &mut (impl AsyncRead + Unpin), buffered: &mut Vec<u8>) -> bool {
    buffered.len() <= LIMIT && stream.read_buf(buffered).await.is_ok_and(|read| read > 0)
}

/// Bytes up to a mark, without it; `None` at the end and when they are no text.
async fn up_to(mark: u8, stream: &mut (impl AsyncRead + Unpin), buffered: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffered.iter().position(|byte| *byte == mark) {
            let text: Vec<u8> = buffered.drain(..=end).take(end).collect();
            return String::from_utf8(text).ok();
        }
        if !fill(stream, buffered).await {
            return None;
        }
    }
}

async fn line(stream: &mut (impl AsyncRead + Unpin), buffered: &mut Vec<u8>) -> Option<String> {
    up_to(b'\n', stream, buffered).await
}

/// The bytes of the next packet: none of a size or a sign of life. `None` at the end and when it is no packet.
async fn packet(stream: &mut (impl AsyncRead + Unpin), buffered: &mut Vec<u8>) -> Option<Vec<u8>> {
    while buffered.is_empty() {
        if !fill(stream, buffered).await {
            return None;
        }
    }
    match buffered[0] {
        b'0' => {
            (up_to(b':', stream, buffered).await? == "0").then_some(())?;
            let length: usize = up_to(b':', stream, buffered).await?.parse().ok()?;
            if length > LIMIT {
                return None;
            }
            while buffered.len() < length {
                if !fill(stream, buffered).await {
                    return None;
                }
            }
            Some(buffered.drain(..length).collect())
        }
        b'1' => {
            (up_to(b':', stream, buffered).await? == "1").then_some(())?;
            for _ in ["columns", "rows"] {
                up_to(b':', stream, buffered).await?.parse::<u16>().ok()?;
            }
            Some(Vec::new())
        }
        b'2' => {
            buffered.remove(0);
            Some(Vec::new())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn packets(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut all, mut buffered) = (Vec::new(), Vec::new());
        while let Some(data) = packet(&mut bytes, &mut buffered).await {
            all.push(data);
        }
        all
    }

    #[tokio::test]
    async fn packets_are_told_apart_however_they_come() {
        assert_eq!(packets(b"20:3:a:b1:80:25:0:1:\n").await, [&b""[..], b"a:b", b"", b"\n"]);
        for wrong in [&b"3"[..], b"0:x:a", b"0:9:short", b"1:80:x:", b"01:1:a", b"0:999999999:a"] {
            assert!(packets(wrong).await.is_empty(), "{wrong:?}");
        }
    }
}
