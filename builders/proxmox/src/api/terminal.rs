//! A VM's serial port through pveproxy: `termproxy` opens it, `vncwebsocket` carries it.
//!
//! What is said first is `USER:TICKET` and a line break, which `OK` answers. From then on the guest's bytes come as they
//! are; what is typed goes as `0:LENGTH:BYTES`, and `2` is a sign of life (pve-xtermjs, `termproxy`).

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{interval, timeout};

use crate::api::client::{Client, decode};
use crate::api::encode::{Params, path};
use crate::api::error::ApiError;
use crate::api::types::TermProxy;
use crate::api::websocket::RfbStream;

/// How long the greeting may take.
const GREETING: Duration = Duration::from_secs(10);
/// How often a sign of life is given, as Proxmox's own page does.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
/// Most bytes on their way in either direction, and in one packet.
const BUFFER: usize = 16 * 1024;

impl Client {
    /// Opens a running VM's first serial port. May be dropped: the node's worker gives up after 10 s.
    ///
    /// # Errors
    /// See [`ApiError`]; also when the VM has no such port.
    pub async fn open_terminal(&self, node: &str, vmid: &str) -> Result<DuplexStream, ApiError> {
        let proxy_path = path(&["nodes", node, "qemu", vmid, "termproxy"]);
        let request = format!("POST {proxy_path}");
        let reply = self.post(&proxy_path, &Params::new().with("serial", "serial0")).await?;
        let from = (reply.peer, reply.endpoint);
        let proxy: TermProxy = decode(&request, reply.data)?;
        let mut wire = self.open_proxied((node, vmid), proxy.port, &proxy.ticket, from).await?;
        let greeting = async {
            wire.write_all(format!("{}:{}\n", proxy.user, proxy.ticket).as_bytes()).await?;
            wire.flush().await?;
            let mut answer = [0; 2];
            wire.read_exact(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let detail = match timeout(GREETING, greeting).await {
            Ok(Ok(answer)) if answer == *b"OK" => {
                let (ours, theirs) = tokio::io::duplex(BUFFER);
                // It ends when either side does.
                tokio::spawn(carry(theirs, wire));
                return Ok(ours);
            }
            Ok(Ok(answer)) => format!("`{}` instead of OK", String::from_utf8_lossy(&answer)),
            Ok(Err(error)) => format!("the connection was cut: {error}"),
            Err(_) => format!("no OK within {GREETING:?}"),
        };
        Err(ApiError::Refused { request, detail: format!("the serial port did not open: {detail}") })
    }
}

/// Carries bytes both ways until either side ends.
async fn carry(near: DuplexStream, wire: RfbStream) {
    let (mut from_near, mut to_near) = tokio::io::split(near);
    let (mut from_wire, mut to_wire) = tokio::io::split(wire);
    let outwards = async {
        let mut buffer = vec![0; BUFFER];
        let mut pulse = interval(SIGN_OF_LIFE);
        loop {
            let packet = tokio::select! {
                read = from_near.read(&mut buffer) => match read {
                    Ok(count @ 1..) => {
                        let mut packet = format!("0:{count}:").into_bytes();
                        packet.extend_from_slice(buffer.get(..count).unwrap_or_default());
                        packet
                    }
                    _ => return,
                },
                _ = pulse.tick() => b"2".to_vec(),
            };
            if to_wire.write_all(&packet).await.is_err() || to_wire.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = outwards => {}
        _ = tokio::io::copy(&mut from_wire, &mut to_near) => {}
    }
}
