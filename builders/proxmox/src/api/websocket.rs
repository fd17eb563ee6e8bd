//! The VNC screen through pveproxy: `vncproxy` opens it, `vncwebsocket` carries raw RFB in binary frames.
//!
//! The node's worker waits 10 s for one connection, on the very server that answered `vncproxy`, so the websocket is
//! opened at once and to the same address. Server frames are at most 128 KiB; ours at most 64 KiB, because pveproxy
//! drops what is larger than 128 KiB (observed on PVE 9.2).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use http::{HeaderValue, Request, header};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::api::client::{Client, decode};
use crate::api::encode::{Params, path};
use crate::api::envelope::Refusal;
use crate::api::error::{ApiError, Intent, trust_error};
use crate::api::limits::in_words;
use crate::api::types::VncProxy;

const LARGEST_FRAME: usize = 64 * 1024;
/// VNC authentication uses 8 characters.
const VNC_PASSWORD: usize = 8;

/// An open VNC connection: raw RFB, and the password for it.
pub struct VncConnection {
    /// The bytes.
    pub stream: RfbStream,
    /// The VNC password.
    pub password: String,
}

impl Client {
    /// Opens a running VM's screen. May be dropped: the node's worker gives up after 10 s.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn open_vnc(&self, node: &str, vmid: &str) -> Result<VncConnection, ApiError> {
        let proxy_path = path(&["nodes", node, "qemu", vmid, "vncproxy"]);
        // `generate-password` makes servers before 8.4.8 send a password of its own too (PVE 6.2 and later).
        let body = Params::new().with("websocket", 1).with("generate-password", 1);
        let reply = self.post(&proxy_path, &body).await?;
        let from = (reply.peer, reply.endpoint);
        let proxy: VncProxy = decode(&format!("POST {proxy_path}"), reply.data)?;
        let password = match proxy.password {
            Some(password) if !password.is_empty() => password,
            _ => proxy.ticket.chars().take(VNC_PASSWORD).collect(),
        };
        let stream = self.open_proxied((node, vmid), proxy.port, &proxy.ticket, from).await?;
        Ok(VncConnection { stream, password })
    }

    /// Opens the websocket of a console that was just asked for, at the server that answered.
    pub(super) async fn open_proxied(
        &self,
        (node, vmid): (&str, &str),
        port: u64,
        ticket: &str,
        (peer, endpoint): (Option<SocketAddr>, usize),
    ) -> Result<RfbStream, ApiError> {
        let query = Params::new().with("port", port).with("vncticket", ticket);
        let target =
            format!("/api2/json{}?{}", path(&["nodes", node, "qemu", vmid, "vncwebsocket"]), query.encode());
        let request = format!("GET /nodes/{node}/qemu/{vmid}/vncwebsocket");
        let opening = self.open_websocket(&target, &request, peer, endpoint);
        let limit = self.limits().connect;
        let socket = tokio::time::timeout(limit, opening).await.map_err(|_| ApiError::Unreachable {
            peer: self.peer().to_owned(),
            detail: format!("{request} was not answered within {}", in_words(limit)),
            source: None,
        })??;
        Ok(RfbStream::new(socket))
    }

    async fn open_websocket(
        &self,
        target: &str,
        request: &str,
        peer: Option<SocketAddr>,
        endpoint: usize,
    ) -> Result<WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>, ApiError> {
        let unreachable = |phase: &str, source: io::Error| match trust_error(&source) {
            Some(trust) => {
                let (peer, detail) = (self.peer().to_owned(), trust.to_string());
                ApiError::Untrusted { peer, detail, seen: trust.seen() }
            }
            None => ApiError::Unreachable {
                peer: self.peer().to_owned(),
                detail: format!("{phase}: {source}"),
                source: Some(Box::new(source)),
            },
        };
        let (Some(address), Some(endpoint)) = (peer, self.endpoint_of(endpoint)) else {
            return Err(ApiError::Refused {
                request: request.to_owned(),
                detail: "the address of the answering server is not known".to_owned(),
            });
        };
        let authority = endpoint.authority();
        let tcp = TcpStream::connect(address).await.map_err(|source| unreachable("TCP", source))?;
        tcp.set_nodelay(true).map_err(|source| unreachable("TCP", source))?;
        let tcp = match &endpoint.tunnel {
            Some(tunnel) => {
                tunnel.open(tcp, &authority).await.map_err(|source| unreachable("proxy", source))?
            }
            None => tcp,
        };
        let host = endpoint.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|source| ApiError::Malformed {
            request: request.to_owned(),
            source: Box::new(source),
        })?;
        let tls = TlsConnector::from(self.tls())
            .connect(name, tcp)
            .await
            .map_err(|source| unreachable("TLS", source))?;
        let signed = self.sign(false).await?;
        let mut handshake = Request::builder()
            .uri(format!("wss://{authority}{target}"))
            .header(header::HOST, &authority)
            .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
            .header(header::UPGRADE, HeaderValue::from_static("websocket"))
            .header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
            .header(header::SEC_WEBSOCKET_KEY, generate_key())
            .header(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("binary"))
            .body(())
            .map_err(|source| ApiError::Malformed {
                request: request.to_owned(),
                source: Box::new(source),
            })?;
        handshake.headers_mut().extend(signed);
        let config = WebSocketConfig::default().write_buffer_size(0);
        let (socket, _) = tokio_tungstenite::client_async_with_config(handshake, tls, Some(config))
            .await
            .map_err(|error| self.handshake_error(request, error))?;
        Ok(socket)
    }

    fn handshake_error(&self, request: &str, error: WsError) -> ApiError {
        match error {
            WsError::Http(response) => {
                let body = response.body().as_deref().unwrap_or_default();
                let reason = response.status().canonical_reason().unwrap_or_default().as_bytes().to_vec();
                let refusal = Refusal::read(Some(&reason), body);
                ApiError::from_refusal(
                    self.peer(),
                    request,
                    Intent::Read,
                    response.status().as_u16(),
                    &refusal,
                )
            }
            // The ticket stands in the URL, so only the kind of error is told.
            WsError::Io(source) => ApiError::Unreachable {
                peer: self.peer().to_owned(),
                detail: format!("the screen's connection was cut: {source}"),
                source: Some(Box::new(source)),
            },
            other => ApiError::Malformed { request: request.to_owned(), source: Box::new(other) },
        }
    }
}

/// The payload of a websocket's binary frames as a byte stream.
///
/// Every write is one frame and is handed to the connection at once; flushing is only needed to wait for it.
pub struct RfbStream {
    socket: WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>,
    unread: Bytes,
}

impl RfbStream {
    fn new(socket: WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>) -> Self {
        Self { socket, unread: Bytes::new() }
    }
}

impl AsyncRead for RfbStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.unread.has_remaining() {
                let count = self.unread.remaining().min(buf.remaining());
                buf.put_slice(&self.unread.split_to(count));
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(payload))) => self.unread = payload,
                Some(Ok(Message::Text(text))) => self.unread = Bytes::from(text),
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            }
        }
    }
}

impl AsyncWrite for RfbStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(into_io)?;
        let count = data.len().min(LARGEST_FRAME);
        let frame = Message::Binary(Bytes::copy_from_slice(&data[..count]));
        Pin::new(&mut self.socket).start_send(frame).map_err(into_io)?;
        // RFB clients rarely flush; what can leave now leaves now, the rest with the next call.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.socket).poll_flush(cx) {
            return Poll::Ready(Err(into_io(error)));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(into_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Ok(()) | Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(into_io(error))),
        }
    }
}

fn into_io(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        WsError::ConnectionClosed | WsError::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::other(other),
    }
}
