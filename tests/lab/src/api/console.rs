//! `vncproxy` and `vncwebsocket`.
//!
//! A proxy is a task that waits 10 s for one connection with its port; its ticket is bound to user, VM and port and
//! holds the VNC password's 8 characters in front, as 9.2 does (proxmox.md §3.7).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::{Answer, Call, websocket};
use crate::error::{ApiError, ApiResult};
use crate::faults::Fault;

/// How long a proxy waits for its client.
const WAIT: Duration = Duration::from_secs(10);

/// How long a ticket is good.
const TICKET: i64 = 40;

/// First port of VNC proxies.
const FIRST_PORT: u16 = 5900;

/// The proxies that wait, by port.
#[derive(Debug)]
pub struct Consoles {
    secret: [u8; 32],
    waiting: Mutex<HashMap<u16, Option<oneshot::Sender<oneshot::Receiver<()>>>>>,
}

impl Default for Consoles {
    fn default() -> Self {
        Consoles { secret: crate::ids::bytes(), waiting: Mutex::default() }
    }
}

impl Consoles {
    fn lock(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<u16, Option<oneshot::Sender<oneshot::Receiver<()>>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a free port, at which a client can be handed over once.
    fn open(&self) -> (u16, oneshot::Receiver<oneshot::Receiver<()>>) {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        let port = (FIRST_PORT..u16::MAX).find(|port| !waiting.contains_key(port)).unwrap_or(FIRST_PORT);
        waiting.insert(port, Some(sender));
        (port, receiver)
    }

    fn take(&self, port: u16) -> Option<oneshot::Sender<oneshot::Receiver<()>>> {
        self.lock().get_mut(&port).and_then(Option::take)
    }

    fn close(&self, port: u16) {
        self.lock().remove(&port);
    }

    fn signature(&self, user: &str, path: &str, port: u16, time: i64) -> String {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update(format!("PVEVNC:{time:08X}:{user}:{path}:{port}"));
        STANDARD.encode(hash.finalize())
    }

    fn ticket(&self, user: &str, path: &str, port: u16) -> String {
        let time = crate::ids::now();
        format!("PVEVNC:{time:08X}::{}", self.signature(user, path, port, time))
    }

    fn verify(&self, ticket: &str, user: &str, path: &str, port: u16) -> bool {
        let Some(start) = ticket.find("PVEVNC:") else { return false };
        let mut parts = ticket[start..].splitn(4, ':');
        let time = parts.nth(1).and_then(|time| i64::from_str_radix(time, 16).ok()).unwrap_or(0);
        let signature = parts.nth(1).unwrap_or_default();
        let age = crate::ids::now() - time;
        (-20..=TICKET).contains(&age) && signature == self.signature(user, path, port, time)
    }
}

/// `POST vncproxy`.
pub fn proxy(call: &Call) -> ApiResult<Answer> {
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let path = format!("/vms/{vmid}");
    let password = crate::ids::vnc_password();
    let (port, handed) = cluster.consoles.open();
    let ticket = format!("{password}:{}", cluster.consoles.ticket(&call.caller.0, &path, port));
    let shared = password.clone();
    let closing = Arc::clone(&cluster);
    let Answer::Data(upid) = call.spawn_with_undo(
        "vncproxy",
        vmid,
        |log| async move {
            let _ = &log;
            if let Ok(Some(process)) = cluster.process(&node, vmid) {
                let set = json!({"protocol": "vnc", "password": shared, "connected": "keep"});
                process.qmp.execute("set_password", set).await.map_err(|error| error.to_string())?;
                let expire = json!({"protocol": "vnc", "time": "+30"});
                process.qmp.execute("expire_password", expire).await.map_err(|error| error.to_string())?;
            }
            let handed = tokio::time::timeout(WAIT, handed).await;
            let result = match handed {
                Ok(Ok(ended)) => {
                    // The session's end is the task's end, however it ends.
                    let _ = ended.await;
                    Ok(())
                }
                Ok(Err(_)) => Ok(()),
                Err(_) => Err("connection timed out".to_owned()),
            };
            cluster.consoles.close(port);
            result
        },
        async move { closing.consoles.close(port) },
    )?
    else {
        return Err(ApiError::die("no task"));
    };
    Ok(json!({
        "port": port.to_string(), "user": call.caller.0, "ticket": ticket, "password": password, "upid": upid,
        "cert": call.cluster.identity.ca_pem,
    })
    .into())
}

/// `GET vncwebsocket`.
pub async fn websocket(call: Call) -> ApiResult<Answer> {
    let vmid = call.vmid();
    let port: u16 = call.params.number("port").unwrap_or(0);
    let ticket = call.params.text("vncticket");
    let consoles = &call.cluster.consoles;
    if !consoles.verify(ticket, &call.caller.0, &format!("/vms/{vmid}"), port) {
        return Err(ApiError::unauthorized("permission denied - invalid PVEVNC ticket"));
    }
    let key = call
        .headers
        .get("sec-websocket-key")
        .and_then(|key| key.to_str().ok())
        .ok_or_else(|| ApiError::die("missing Sec-WebSocket-Key"))?;
    let accept = {
        let mut hash = Sha1::new();
        hash.update(key.as_bytes());
        hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        STANDARD.encode(hash.finalize())
    };
    let on_upgrade = call.upgrade.ok_or_else(|| ApiError::die("unable to upgrade connection"))?;
    let process = call.cluster.process(call.params.text("node"), vmid)?;
    let turn = consoles.take(port);
    let limit = call.faults.iter().find_map(|fault| match fault {
        Fault::LoseWebsocket { after_bytes } => Some(*after_bytes),
        _ => None,
    });
    tokio::spawn(async move {
        let Ok(upgraded) = on_upgrade.await else { return };
        // A port that nobody waits at, or a VM without a screen: the connection closes without an answer.
        let (Some(turn), Some(process)) = (turn, process) else { return };
        let (ended, ending) = oneshot::channel();
        if turn.send(ending).is_err() {
            return;
        }
        if let Ok(vnc) = UnixStream::connect(&process.vnc_socket).await {
            websocket::bridge(TokioIo::new(upgraded), vnc, limit).await;
        }
        let _ = ended.send(());
    });
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert("sec-websocket-accept", accept);
    }
    if let Some(protocol) = call.headers.get("sec-websocket-protocol") {
        headers.insert("sec-websocket-protocol", protocol.clone());
    }
    Ok(Answer::Upgrade(Box::new(response)))
}
