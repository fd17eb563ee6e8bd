//! `vncproxy` and `vncwebsocket`, which `termproxy` uses too.
//!
//! A proxy is a task that waits 10 s for one connection with its port; its ticket is bound to user, VM and port and
//! holds the VNC password's 8 characters in front, as 9.2 does (proxmox.md §3.7).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

use super::terminal::Session;
use super::{Answer, Call, websocket};
use crate::error::{ApiError, ApiResult};
use crate::faults::Fault;

/// How long a proxy waits for its client.
const WAIT: Duration = Duration::from_secs(10);

/// How long a ticket is good.
const TICKET: i64 = 40;

/// Bytes that wait between a terminal and its websocket.
const PIPE: usize = 16 << 10;

/// First port of VNC proxies.
const FIRST_PORT: u16 = 5900;

/// What a proxy leads to.
#[derive(Debug, Clone)]
pub enum Backend {
    /// The screen.
    Screen,
    /// A serial port, if the VM has one.
    Serial(Option<String>),
}

/// A proxy that waits for its client.
#[derive(Debug)]
struct Waiting {
    backend: Backend,
    /// Takes what tells the end of the session.
    turn: oneshot::Sender<oneshot::Receiver<()>>,
}

/// The proxies, by port; a port whose client has come has none that waits.
#[derive(Debug)]
pub struct Consoles {
    secret: [u8; 32],
    waiting: Mutex<HashMap<u16, Option<Waiting>>>,
}

impl Default for Consoles {
    fn default() -> Self {
        Consoles { secret: crate::ids::bytes(), waiting: Mutex::default() }
    }
}

impl Consoles {
    fn lock(&self) -> MutexGuard<'_, HashMap<u16, Option<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a free port, at which a client can be handed over once.
    fn open(&self, backend: Backend) -> (u16, oneshot::Receiver<oneshot::Receiver<()>>) {
        let (turn, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        let port = (FIRST_PORT..u16::MAX).find(|port| !waiting.contains_key(port)).unwrap_or(FIRST_PORT);
        waiting.insert(port, Some(Waiting { backend, turn }));
        (port, receiver)
    }

    fn take(&self, port: u16) -> Option<Waiting> {
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

    /// Whether a ticket is good for a user, a path and a port, now.
    pub fn verify(&self, ticket: &str, user: &str, path: &str, port: u16) -> bool {
        let Some(start) = ticket.find("PVEVNC:") else { return false };
        let mut parts = ticket[start..].splitn(4, ':');
        let time = parts.nth(1).and_then(|time| i64::from_str_radix(time, 16).ok()).unwrap_or(0);
        let signature = parts.nth(1).unwrap_or_default();
        let age = crate::ids::now() - time;
        (-20..=TICKET).contains(&age) && signature == self.signature(user, path, port, time)
    }
}

/// A proxy that has been opened.
pub struct Opened {
    /// Its port.
    pub port: u16,
    /// Its ticket.
    pub ticket: String,
    /// The password of the VNC server.
    password: String,
    /// Its task.
    pub upid: String,
}

/// Opens a proxy: a task that waits for one client and lasts as long as its session.
///
/// # Errors
/// None of its own.
pub fn open_proxy(call: &Call, backend: Backend) -> ApiResult<Opened> {
    let (cluster, node, vmid) = (Arc::clone(&call.cluster), call.node().to_owned(), call.vmid());
    let path = format!("/vms/{vmid}");
    let is_screen = matches!(backend, Backend::Screen);
    let (port, handed) = cluster.consoles.open(backend);
    let ticket = cluster.consoles.ticket(&call.caller.0, &path, port);
    let password = crate::ids::vnc_password();
    let shared = password.clone();
    let closing = Arc::clone(&cluster);
    let Answer::Data(upid) = call.spawn_with_undo(
        "vncproxy",
        vmid,
        |_| async move {
            if is_screen && let Ok(Some(process)) = cluster.process(&node, vmid) {
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
    Ok(Opened { port, ticket, password, upid: upid.as_str().unwrap_or_default().to_owned() })
}

/// `POST vncproxy`.
pub fn proxy(call: &Call) -> ApiResult<Answer> {
    let Opened { port, ticket, password, upid } = open_proxy(call, Backend::Screen)?;
    Ok(json!({
        "port": port.to_string(), "user": call.caller.0, "ticket": format!("{password}:{ticket}"),
        "password": password, "upid": upid, "cert": call.cluster.identity.ca_pem,
    })
    .into())
}

/// `GET vncwebsocket`.
pub async fn websocket(call: Call) -> ApiResult<Answer> {
    let vmid = call.vmid();
    let port: u16 = call.params.number("port").unwrap_or(0);
    let ticket = call.params.text("vncticket");
    let consoles = &call.cluster.consoles;
    if signature_is_too_long(ticket) {
        return Err(ApiError::die("Signature longer than key at /usr/share/perl5/PVE/Ticket.pm line 83."));
    }
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
    let session = |serial| Session {
        cluster: Arc::clone(&call.cluster),
        user: call.caller.0.clone(),
        vmid,
        port,
        serial,
    };
    let terminal = match &turn {
        Some(Waiting { backend: Backend::Serial(serial), .. }) => Some(session(serial.clone())),
        _ => None,
    };
    tokio::spawn(async move {
        let Ok(upgraded) = on_upgrade.await else { return };
        // A port that nobody waits at, or a VM without a screen: the connection closes without an answer.
        let (Some(waiting), Some(process)) = (turn, process) else { return };
        let (ended, ending) = oneshot::channel();
        if waiting.turn.send(ending).is_err() {
            return;
        }
        let upgraded = TokioIo::new(upgraded);
        if let Some(terminal) = terminal {
            let (ours, theirs) = tokio::io::duplex(PIPE);
            tokio::join!(terminal.run(ours), websocket::bridge(upgraded, theirs, limit));
        } else if let Ok(vnc) = UnixStream::connect(&process.vnc_socket).await {
            websocket::bridge(upgraded, vnc, limit).await;
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
    // Of several protocols one is chosen; extensions are never taken.
    let offered = call.headers.get("sec-websocket-protocol").and_then(|offered| offered.to_str().ok());
    if offered.is_some_and(|offered| offered.split(',').any(|one| one.trim() == "binary")) {
        headers.insert("sec-websocket-protocol", HeaderValue::from_static("binary"));
    }
    Ok(Answer::Upgrade(Box::new(response)))
}

/// Whether a ticket's signature has more bytes than any of the lab's own.
fn signature_is_too_long(ticket: &str) -> bool {
    let signature = ticket.rsplit_once("::").map_or("", |(_, signature)| signature);
    let letters = signature.bytes().filter(|byte| *byte != b'=').count();
    letters * 6 / 8 > Sha256::output_size()
}
