//! The seed server on any bytes over a real connection: it stays up, and gives its content to nobody who does not ask
//! for it by the whole secret path.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use forge_http_seed::SeedSet;
use forge_http_seed::server::{SeedServer, SeedToken, ServerOptions};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What only a right request may get.
const CONTENT: &str = "nobody-else-may-read-this";

async fn ask(server: &SeedServer, request: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let Ok(mut stream) = TcpStream::connect(server.local_addr()).await else { return answer };
    // A server that has heard enough closes, and then neither of these has to succeed.
    let _sent = stream.write_all(request).await;
    let _closed = stream.shutdown().await;
    let _read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    answer
}

fuzz_target!(|input: (u8, &[u8])| {
    let (wish, bytes) = input;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let mut set = SeedSet::default();
        set.add("user-data", CONTENT).expect("a name");
        let token = SeedToken::generate();
        let secret = token.expose().to_owned();
        let options = ServerOptions { token, allowed_networks: Vec::new() };
        let stop = CancellationToken::new();
        let server = SeedServer::start(listener, set, options, Arc::new(()), stop.clone()).expect("it starts");
        // Some inputs are told the secret, so that the rest of the path is tried too.
        let told = wish % 2 == 0;
        let request = if told {
            [b"GET /", secret.as_bytes(), b"/", bytes].concat()
        } else {
            bytes.to_vec()
        };
        let answer = ask(&server, &request).await;
        let has = |what: &str| answer.windows(what.len()).any(|window| window == what.as_bytes());
        // What follows the name is a query, a fragment or the end of the path.
        let name = bytes.strip_prefix(b"user-data").and_then(<[u8]>::first);
        let right = told && matches!(name, Some(b' ' | b'?' | b'#'));
        assert!(right || !has(CONTENT), "content for {request:?}");
        assert!(told || !has(&secret), "the secret for {request:?}");
        // It still answers.
        let url = server.url(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let path = url.splitn(4, '/').nth(3).expect("a path");
        let sound = ask(&server, format!("GET /{path}user-data HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        assert!(sound.ends_with(CONTENT.as_bytes()), "it answers afterwards");
        stop.cancel();
    });
});
