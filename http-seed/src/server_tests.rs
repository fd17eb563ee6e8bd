//! The server as a stranger on the network sees it: over plain TCP.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;

async fn start(allowed_networks: Vec<(IpAddr, u8)>) -> (SeedServer, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let set =
        SeedSet::default().with("user-data", "#cloud-config\n{}\n").with("meta-data", "instance-id: x\n");
    let stop = CancellationToken::new();
    let options = ServerOptions { token: SeedToken::generate(), allowed_networks };
    let server = SeedServer::start(listener, set, options, Arc::new(()), stop.clone()).expect("starts");
    (server, stop.drop_guard())
}

async fn raw(server: &SeedServer, request: &str) -> String {
    let mut stream = TcpStream::connect(server.local_addr()).await.expect("listening");
    stream.write_all(request.as_bytes()).await.expect("writable");
    let mut answer = String::new();
    // A server that cuts a bad client off is as good as one that answers it.
    let _cut_off = stream.read_to_string(&mut answer).await;
    answer
}

async fn ask(server: &SeedServer, method: &str, path: &str) -> (u16, String) {
    let answer =
        raw(server, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    let status = answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

#[tokio::test]
async fn only_get_and_head_of_the_seeds_own_names_are_answered() {
    let (server, _stop) = start(Vec::new()).await;
    let token = server.token().expose().to_owned();
    let at = |name: &str| format!("/{token}/{name}");
    assert_eq!(ask(&server, "GET", &at("user-data")).await, (200, "#cloud-config\n{}\n".into()));
    assert_eq!(ask(&server, "HEAD", &at("user-data")).await, (200, String::new()));
    for path in [
        "/".to_owned(),
        "/user-data".to_owned(),
        format!("/{token}"),
        at(""),
        at("nosuch"),
        at("../user-data"),
        at("%75ser-data"),
        at("/user-data"),
        format!("//{token}/user-data"),
        format!("/{}/user-data", "0".repeat(32)),
        format!("/{}/user-data", token.to_uppercase().replace(char::is_numeric, "A")),
    ] {
        assert_eq!(ask(&server, "GET", &path).await, (404, String::new()), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        assert_eq!(ask(&server, method, &at("user-data")).await.0, 405, "{method}");
    }
}

#[tokio::test]
async fn a_fetch_is_told_without_the_secret() {
    let (server, _stop) = start(Vec::new()).await;
    let token = server.token().expose().to_owned();
    ask(&server, "GET", &format!("/{token}/meta-data")).await;
    ask(&server, "GET", &format!("/{token}/nosuch")).await;
    let told: Vec<(String, u16)> =
        server.fetches().into_iter().map(|fetch| (fetch.path, fetch.status)).collect();
    assert_eq!(told, [("meta-data".to_owned(), 200), ("/***/nosuch".to_owned(), 404)]);
    assert!(!format!("{server:?}{:?}", server.token()).contains(&token));
}

#[tokio::test]
async fn a_closed_seed_is_gone() {
    let (server, _stop) = start(Vec::new()).await;
    let path = format!("/{}/user-data", server.token().expose());
    assert_eq!(ask(&server, "GET", &path).await.0, 200);
    server.close();
    assert_eq!(ask(&server, "GET", &path).await, (410, String::new()));
}

#[tokio::test]
async fn a_client_of_another_network_learns_nothing() {
    let (server, _stop) = start(vec![("10.0.0.0".parse().expect("an address"), 8)]).await;
    let path = format!("/{}/user-data", server.token().expose());
    assert_eq!(ask(&server, "GET", &path).await, (404, String::new()));
    assert!(within("10.200.1.1".parse().expect("ok"), ("10.0.0.0".parse().expect("ok"), 8)));
    assert!(!within("11.0.0.1".parse().expect("ok"), ("10.0.0.0".parse().expect("ok"), 8)));
    assert!(within("1.2.3.4".parse().expect("ok"), ("0.0.0.0".parse().expect("ok"), 0)));
}

#[tokio::test]
async fn nonsense_does_not_stop_the_server() {
    let (server, _stop) = start(Vec::new()).await;
    for request in ["\r\n\r\n", "GET\r\n\r\n", "\u{0}\u{1}\u{2}\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        raw(&server, request).await;
    }
    let huge = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    raw(&server, &huge).await;
    let path = format!("/{}/user-data", server.token().expose());
    assert_eq!(ask(&server, "GET", &path).await.0, 200);
}
