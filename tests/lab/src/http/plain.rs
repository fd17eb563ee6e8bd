//! Plain HTTP on the port of HTTPS: pveproxy sends the client to the same address with TLS.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::IDLE;

/// Most bytes of a request's head.
const LIMIT: usize = 8 << 10;

/// Answers one request with a redirection: 301 to a GET, 308 to the others.
pub(super) async fn redirect(mut stream: TcpStream) {
    let mut head = Vec::new();
    let read = async {
        let mut buffer = [0; 1024];
        while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < LIMIT {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return false,
                Ok(length) => head.extend_from_slice(&buffer[..length]),
            }
        }
        true
    };
    if !tokio::time::timeout(IDLE, read).await.unwrap_or(false) {
        return;
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    // A client that has left needs no answer.
    let _ = stream.write_all(response(&head).as_bytes()).await;
}

fn response(head: &str) -> String {
    let mut words = head.lines().next().unwrap_or_default().split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or("/"));
    let host = head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    });
    let line = if method == "GET" { "301 Moved Permanently" } else { "308 Permanent Redirect" };
    format!(
        "HTTP/1.1 {line}\r\nLocation: https://{}{path}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        host.unwrap_or("localhost")
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_client_is_sent_to_the_same_place_with_tls() {
        let get = super::response("GET /api2/json/version HTTP/1.1\r\nHost: 127.0.0.1:8006\r\n\r\n");
        assert!(get.starts_with(
            "HTTP/1.1 301 Moved Permanently\r\nLocation: https://127.0.0.1:8006/api2/json/version\r\n"
        ));
        assert!(
            super::response("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 308 Permanent Redirect\r\n")
        );
    }
}
