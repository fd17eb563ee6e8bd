//! The server as a stranger on the network sees it: over plain TCP.

use std::sync::Arc;
use std::sync::mpsc;

use http::{HeaderMap, Method, StatusCode, Uri};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;

const USER_DATA: &str = "#cloud-config\n{}\n";

async fn start_with(
    allowed_networks: Vec<Network>,
    observer: Arc<dyn SeedObserver>,
    limits: Limits,
) -> (SeedServer, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let set = SeedSet::default()
        .with("user-data", USER_DATA)
        .with("meta-data", "instance-id: x\n")
        .with("answers/big", vec![b'x'; 8 << 20]);
    let shutdown = CancellationToken::new();
    let options = ServerOptions { token: SeedToken::generate(), allowed_networks };
    let server =
        SeedServer::start_within(listener, set, options, observer, shutdown.clone(), limits).expect("starts");
    (server, shutdown.drop_guard())
}

async fn start() -> (SeedServer, DropGuard) {
    start_with(Vec::new(), Arc::new(()), LIMITS).await
}

async fn raw(server: &SeedServer, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.local_addr()).await.expect("listening");
    let mut answer = Vec::new();
    // A server that cuts a bad client off is as good as one that answers it.
    if stream.write_all(request).await.is_ok() {
        let _cut_off = stream.read_to_end(&mut answer).await;
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn parsed(answer: &str) -> (u16, String) {
    let status = answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

async fn ask(server: &SeedServer, method: &str, path: &str) -> (u16, String) {
    parsed(&raw(server, format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await)
}

fn at(server: &SeedServer, name: &str) -> String {
    format!("{}{name}", server.token().path())
}

#[tokio::test]
async fn only_get_and_head_of_the_seeds_own_names_are_answered() {
    let (server, _stop) = start().await;
    let token = server.token().expose().to_owned();
    assert_eq!(ask(&server, "GET", &at(&server, "user-data")).await, (200, USER_DATA.into()));
    assert_eq!(ask(&server, "GET", &at(&server, "user-data?x=1")).await, (200, USER_DATA.into()));
    let absolute = format!("http://elsewhere{}", at(&server, "user-data"));
    assert_eq!(ask(&server, "GET", &absolute).await, (200, USER_DATA.into()), "RFC 9112, 3.2.2");
    for path in [
        "/".to_owned(),
        "*".to_owned(),
        "/user-data".to_owned(),
        format!("/{token}"),
        at(&server, ""),
        at(&server, "nosuch"),
        at(&server, "answers"),
        at(&server, "answers/"),
        at(&server, "../user-data"),
        at(&server, "./user-data"),
        at(&server, "../../../../etc/passwd"),
        at(&server, "..%2f..%2fetc%2fpasswd"),
        at(&server, "..\\user-data"),
        at(&server, "%75ser-data"),
        at(&server, "user-data%00"),
        at(&server, "user-data/"),
        at(&server, "/user-data"),
        at(&server, "USER-DATA"),
        format!("//{token}/user-data"),
        format!("/x/../{token}/user-data"),
        format!("/%{:02x}{}/user-data", token.as_bytes()[0], &token[1..]),
        format!("/{}/user-data", "0".repeat(32)),
        format!("/{}/user-data", &token[..31]),
        format!("/{token}0/user-data"),
        format!("http://{token}/user-data"),
    ] {
        assert_eq!(ask(&server, "GET", &path).await, (404, String::new()), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "get"] {
        assert_eq!(ask(&server, method, &at(&server, "user-data")).await, (405, String::new()), "{method}");
    }
}

#[tokio::test]
async fn head_tells_the_length_and_sends_nothing() {
    let (server, _stop) = start().await;
    let request = format!("HEAD {} HTTP/1.1\r\nHost: x\r\n\r\n", at(&server, "user-data"));
    let answer = raw(&server, request.as_bytes()).await.to_lowercase();
    assert_eq!(parsed(&answer), (200, String::new()));
    assert!(answer.contains(&format!("content-length: {}\r\n", USER_DATA.len())), "{answer}");
    assert!(answer.contains("content-type: text/plain; charset=utf-8\r\n"), "{answer}");
    assert_eq!(server.fetches()[0].bytes, 0);
}

#[tokio::test]
async fn a_fetch_is_told_without_the_secret() {
    struct Tell(std::sync::Mutex<mpsc::Sender<Fetch>>);
    impl SeedObserver for Tell {
        fn fetched(&self, fetch: &Fetch) {
            self.0.lock().expect("sound").send(fetch.clone()).expect("received");
        }
    }
    let (sender, told) = mpsc::channel();
    let (server, _stop) = start_with(Vec::new(), Arc::new(Tell(sender.into())), LIMITS).await;
    let token = server.token().expose().to_owned();
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nUser-Agent: Cloud-Init/22.4.2\r\n\r\n",
        at(&server, "meta-data")
    );
    raw(&server, request.as_bytes()).await;
    ask(&server, "GET", &at(&server, "nosuch")).await;
    ask(&server, "POST", &format!("/x/{token}")).await;
    let told: Vec<Fetch> = told.try_iter().collect();
    assert_eq!(told, server.fetches());
    let short: Vec<_> =
        told.iter().map(|f| (f.path.as_str(), f.status, f.bytes, f.user_agent.as_deref())).collect();
    let expected = [
        ("meta-data", 200, 15, Some("Cloud-Init/22.4.2")),
        ("/***/nosuch", 404, 0, None),
        ("/x/***", 405, 0, None),
    ];
    assert_eq!(short, expected);
    assert!(told.is_sorted_by_key(|fetch| fetch.at_ms));
    assert!(!format!("{server:?}{told:?}{:?}", server.token()).contains(&token));
}

#[tokio::test]
async fn a_closed_seed_is_gone_and_a_stranger_does_not_see_that_it_was_there() {
    let (server, _stop) = start().await;
    assert_eq!(ask(&server, "GET", &at(&server, "user-data")).await.0, 200);
    server.close();
    assert_eq!(ask(&server, "GET", &at(&server, "user-data")).await, (410, String::new()));
    assert_eq!(ask(&server, "HEAD", &at(&server, "user-data")).await, (410, String::new()));
    assert_eq!(ask(&server, "GET", "/user-data").await, (404, String::new()));
}

#[tokio::test]
async fn a_client_of_another_network_learns_nothing() {
    let other = vec!["10.0.0.0/8".parse().expect("a network")];
    let (server, _stop) = start_with(other, Arc::new(()), LIMITS).await;
    assert_eq!(ask(&server, "GET", &at(&server, "user-data")).await, (404, String::new()));
    assert_eq!(ask(&server, "POST", &at(&server, "user-data")).await, (404, String::new()));
    let ours = vec!["10.0.0.0/8".parse().expect("a network"), "127.0.0.0/8".parse().expect("a network")];
    let (server, _stop) = start_with(ours, Arc::new(()), LIMITS).await;
    assert_eq!(ask(&server, "GET", &at(&server, "user-data")).await.0, 200);
}

#[tokio::test]
async fn nonsense_does_not_stop_the_server() {
    let (server, _stop) = start().await;
    let requests: [&[u8]; 9] = [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\x01\x02\xff\xfe\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xc3\x28 HTTP/1.1\r\nHost: \xff\r\nUser-Agent: \xff\xfe\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 99999999999999999999\r\n\r\nzz",
    ];
    for request in requests {
        let mut stream = TcpStream::connect(server.local_addr()).await.expect("listening");
        stream.write_all(request).await.expect("writable");
        stream.shutdown().await.expect("half closed");
        let mut answer = Vec::new();
        let _cut_off = stream.read_to_end(&mut answer).await;
        let (status, body) = parsed(&String::from_utf8_lossy(&answer));
        assert!(status != 200 && body.is_empty(), "{request:?}: {status} {body}");
    }
    assert_eq!(ask(&server, "GET", &at(&server, "user-data")).await.0, 200);
}

#[tokio::test]
async fn oversized_requests_are_refused() {
    let (server, _stop) = start().await;
    let long_header = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(HEADERS + 1));
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    for request in [long_header, many_headers, long_path] {
        let (status, body) = parsed(&raw(&server, request.as_bytes()).await);
        // 0: cut off before the whole request was written.
        assert!(matches!(status, 0 | 400 | 414 | 431) && body.is_empty(), "{status}");
    }
    assert_eq!(server.fetches(), [], "none of them reached the seed");
    assert_eq!(ask(&server, "GET", &at(&server, "user-data")).await.0, 200);
}

#[tokio::test]
async fn a_connection_carries_one_request() {
    let (server, _stop) = start().await;
    let one = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", at(&server, "user-data"));
    let answer = raw(&server, one.repeat(3).as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    server.wait_idle().await;
    assert_eq!(server.fetches().len(), 1);
}

#[tokio::test]
async fn a_slow_client_is_cut_off() {
    let limits = Limits { header_time: Duration::from_millis(50), ..LIMITS };
    let (server, _stop) = start_with(Vec::new(), Arc::new(()), limits).await;
    let mut stream = TcpStream::connect(server.local_addr()).await.expect("listening");
    stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.expect("writable");
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the server waits for ever");
    assert_ne!(parsed(&String::from_utf8_lossy(&answer)).0, 200);
    server.wait_idle().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let limits = Limits { connection_time: Duration::from_millis(200), ..LIMITS };
    let (server, _stop) = start_with(Vec::new(), Arc::new(()), limits).await;
    let mut stream = TcpStream::connect(server.local_addr()).await.expect("listening");
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", at(&server, "answers/big"));
    stream.write_all(request.as_bytes()).await.expect("writable");
    let mut open = server.shared.open.subscribe();
    let cut_off = async {
        open.wait_for(|open| *open == 1).await.expect("served");
        server.wait_idle().await;
    };
    tokio::time::timeout(Duration::from_secs(30), cut_off)
        .await
        .expect("the client keeps its place for ever");
}

#[tokio::test]
async fn clients_beyond_the_limit_are_dropped_and_a_place_comes_free() {
    let limits = Limits { connections: 2, ..LIMITS };
    let (server, _stop) = start_with(Vec::new(), Arc::new(()), limits).await;
    let mut open = server.shared.open.subscribe();
    let first = TcpStream::connect(server.local_addr()).await.expect("listening");
    let second = TcpStream::connect(server.local_addr()).await.expect("listening");
    open.wait_for(|open| *open == 2).await.expect("served");
    assert_eq!(ask(&server, "GET", &at(&server, "user-data")).await.0, 0, "no place is left");
    drop((first, second));
    server.wait_idle().await;
    assert_eq!(ask(&server, "GET", &at(&server, "user-data")).await.0, 200);
}

#[tokio::test]
async fn shutting_down_ends_open_connections_and_listening() {
    let (server, stop) = start().await;
    let mut stream = TcpStream::connect(server.local_addr()).await.expect("listening");
    server.shared.open.subscribe().wait_for(|open| *open == 1).await.expect("served");
    drop(stop);
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    server.wait_idle().await;
    let refused = async {
        while TcpStream::connect(server.local_addr()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), refused).await.expect("it still listens");
}

#[tokio::test]
async fn curl_fetches_the_seed() {
    let (server, _stop) = start().await;
    let url = server.url("127.0.0.1".parse().expect("an address"));
    assert!(url.ends_with('/'));
    let curl = tokio::process::Command::new("curl")
        .args(["--silent", "--fail", "--noproxy", "*"])
        .arg(format!("{url}user-data"))
        .output()
        .await;
    match curl {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), USER_DATA),
        Err(error) => crate::skipped(&format!("curl can't be run here: {error}")),
    }
}

#[test]
fn the_url_is_one_for_both_kinds_of_address() {
    let token = SeedToken::generate();
    let digits = token.expose();
    assert_eq!(url([192, 0, 2, 1].into(), 8800, &token), format!("http://192.0.2.1:8800/{digits}/"));
    assert_eq!(
        url("2001:db8::1".parse().expect("ok"), 8800, &token),
        format!("http://[2001:db8::1]:8800/{digits}/")
    );
}

proptest! {
    #[test]
    fn no_path_but_the_exact_one_is_answered_with_content(path in "/?[ -~]{0,60}|(/|%2f|\\.|TOKEN|user-data|%00|;|\\?|#){0,8}") {
        let token = SeedToken::generate();
        let shared = Shared {
            set: SeedSet::default().with("user-data", USER_DATA),
            options: ServerOptions { token: token.clone(), allowed_networks: Vec::new() },
            observer: Arc::new(()),
            started: Instant::now(),
            fetches: Mutex::default(),
            closed: AtomicBool::new(false),
            open: watch::Sender::new(0),
        };
        let path = path.replace("TOKEN", token.expose());
        if let Ok(uri) = path.parse::<Uri>() {
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            let response = answer::answer(&Method::GET, &uri, &HeaderMap::new(), peer, &shared);
            let exact = uri.path() == format!("{}user-data", token.path());
            prop_assert_eq!(response.status(), if exact { StatusCode::OK } else { StatusCode::NOT_FOUND });
            let told = format!("{:?}", shared.fetches.lock().expect("sound"));
            prop_assert!(!told.contains(token.expose()), "the secret is told");
        }
    }
}

/// Bytes that a client might send: pieces of a request, and any others between them.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let known: [&[u8]; 16] = [
        b"user-data",
        b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b" HTTP/1.1\r\n",
        b"\r\n\r\n",
        b"/",
        b"..",
        b"%2f",
        b"?",
        b"#",
        b" ",
        b"GET ",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\0",
        b"http://x",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let known = prop::sample::select(known.to_vec()).prop_map(<[u8]>::to_vec);
    let any = prop::collection::vec(any::<u8>(), 0..20);
    prop::collection::vec(prop_oneof![4 => known, 1 => any], 0..10).prop_map(|pieces| pieces.concat())
}

#[test]
fn no_bytes_over_the_wire_are_answered_with_content_but_the_right_request() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (server, _stop) = runtime.block_on(start());
    let secret = server.token().expose().to_owned();
    let send = |request: Vec<u8>| {
        runtime.block_on(async {
            let mut stream = TcpStream::connect(server.local_addr()).await.expect("listening");
            let mut answer = Vec::new();
            // A server that has heard enough closes, and then none of these has to succeed.
            let _sent = stream.write_all(&request).await;
            let _ended = stream.shutdown().await;
            let _read = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        })
    };
    let mut runner = proptest::test_runner::TestRunner::default();
    let checked = runner.run(&(any::<bool>(), requests()), |(told, bytes)| {
        let before = if told { format!("GET /{secret}/") } else { String::new() };
        let answer = send([before.as_bytes(), &bytes].concat());
        let name = bytes.strip_prefix(b"user-data").and_then(<[u8]>::first);
        // What follows is a query, a fragment or the end of the path.
        let right = told && matches!(name, Some(b' ' | b'?' | b'#'));
        prop_assert!(right || !answer.contains(USER_DATA), "{answer}");
        prop_assert!(!answer.contains(&secret), "{answer}");
        Ok(())
    });
    checked.expect("no other is answered");
    let sound = format!("GET /{secret}/user-data HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    assert_eq!(parsed(&send(sound)), (200, USER_DATA.into()), "it answers afterwards");
}
