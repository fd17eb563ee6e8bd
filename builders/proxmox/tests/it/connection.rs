//! Several endpoints, and proxies on the way to them.

use std::net::SocketAddr;

use forge_lab::ConnectProxy;
use forge_machine::{Hypervisor as _, PortError};
use forge_proxmox::{ProxmoxHypervisor, ProxyChoice, TlsChoice};
use tokio::net::TcpListener;

use crate::support::{Bench, bench, mark, query, spec};

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address")
}

/// A client that knows a dead endpoint before the lab's.
async fn after_a_dead_one(bench: &Bench) -> ProxmoxHypervisor {
    let dead = nobody().await;
    bench.client(|config| {
        config.more_urls = vec![std::mem::replace(&mut config.url, format!("https://{dead}"))];
    })
}

#[tokio::test]
async fn when_an_endpoint_is_gone_the_next_one_is_taken_from_then_on() {
    let bench = bench().await;
    let pve = after_a_dead_one(&bench).await;
    pve.facts(&query()).await.expect("the second answers");
    assert_eq!(pve.client().endpoint(), bench.lab.address().to_string());
    // What changes something too: nothing was sent to the one that is gone.
    let fresh = after_a_dead_one(&bench).await;
    let at = bench.pve.propose_id(&spec(), &[]).await.expect("an id");
    let task = fresh.submit_create(&spec(), &at, &mark(51)).await.expect("submitted");
    fresh.wait(&task).await.expect("cloned");
    let made = bench.lab.requests().iter().filter(|each| each.path.ends_with("/clone")).count();
    assert_eq!(made, 1);
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_not_sent_to_another_endpoint() {
    let bench = bench().await;
    let pve = bench.client(|config| config.more_urls = vec![config.url.clone()]);
    bench.lab.faults().on("POST", "/nodes/*/qemu/*/clone").then(forge_lab::Fault::DoThenDrop);
    let at = pve.propose_id(&spec(), &[]).await.expect("an id");
    let error = pve.submit_create(&spec(), &at, &mark(52)).await.expect_err("lost");
    assert!(error.is_outcome_unknown(), "{error:?}");
    let made = bench.lab.requests().iter().filter(|each| each.path.ends_with("/clone")).count();
    assert_eq!(made, 1);
    // A question may go there, and does.
    bench.lab.faults().on("GET", "/version").then(forge_lab::Fault::DropBefore);
    bench.lab.faults().on("GET", "/version").call(2).then(forge_lab::Fault::DropBefore);
    pve.facts(&query()).await.expect("the other endpoint answers");
    bench.lab.stop().await;
}

#[tokio::test]
async fn when_no_endpoint_answers_each_is_told_with_its_reason() {
    let bench = bench().await;
    let (one, two) = (nobody().await, nobody().await);
    let pve = bench.client(|config| {
        config.url = format!("https://{one}");
        config.more_urls = vec![format!("https://{two}")];
    });
    match pve.facts(&query()).await.expect_err("nobody listens") {
        PortError::Unreachable { detail, .. } => {
            assert!(detail.contains(&one.to_string()) && detail.contains(&two.to_string()), "{detail}");
            assert!(detail.contains("refused"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn each_node_may_have_a_certificate_of_its_own_and_an_unknown_one_is_never_passed_over() {
    let (bench, other) = (bench().await, bench().await);
    let both = vec![other.lab.fingerprint().to_owned(), bench.lab.fingerprint().to_owned()];
    let pve = bench.client(|config| config.tls = TlsChoice::Fingerprints(both.clone()));
    pve.facts(&query()).await.expect("one of them fits");
    // The first endpoint shows another certificate: that is no outage, and the second is not asked instead.
    let pve =
        bench.client(|config| config.more_urls = vec![std::mem::replace(&mut config.url, other.lab.url())]);
    match pve.facts(&query()).await.expect_err("refused") {
        PortError::Untrusted { detail, target, .. } => {
            assert!(detail.contains(other.lab.fingerprint()), "{detail}");
            assert!(target.contains(&other.lab.address().to_string()), "{target}");
        }
        error => panic!("{error:?}"),
    }
    bench.lab.stop().await;
    other.lab.stop().await;
}

#[tokio::test]
async fn the_api_and_the_screen_are_reached_through_a_proxy_that_sees_neither_token_nor_traffic() {
    let bench = bench().await;
    let proxy = ConnectProxy::to(Some(bench.lab.address())).await.expect("a port");
    // The name is the proxy's to resolve: this machine knows none such.
    let pve = bench.client(|config| {
        config.url = "https://pve1.nowhere.example:8006".into();
        config.proxy = ProxyChoice::Url(format!("http://me:s3cret@{}", proxy.address));
    });
    pve.facts(&query()).await.expect("through the proxy");
    let at = bench.clone_vm(&mark(53)).await;
    // The screen of a VM in name only closes at once; that it was opened shows in the lab's own record.
    let task = pve.machine(&at).submit_start().await.expect("submitted");
    pve.wait(&task).await.expect("started");
    let _screen = pve.machine(&at).display().await;
    let opened = bench.lab.requests().iter().any(|each| each.path.ends_with("/vncwebsocket"));
    assert!(opened, "the screen's websocket came through");
    let seen = proxy.requests();
    assert!(seen.len() >= 2, "{seen:?}");
    for head in &seen {
        let lower = head.to_ascii_lowercase();
        assert!(head.starts_with("CONNECT pve1.nowhere.example:8006 HTTP/1.1\r\n"), "{head}");
        assert!(lower.contains("proxy-authorization: basic bwu6cznjcmv0"), "the login at the proxy: {head}");
        assert!(!lower.contains("pveapitoken"), "{head}");
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_not_there_is_named() {
    let bench = bench().await;
    let refusing = ConnectProxy::to(None).await.expect("a port");
    for address in [refusing.address, nobody().await] {
        let pve = bench.client(|config| config.proxy = ProxyChoice::Url(format!("http://{address}")));
        match pve.facts(&query()).await.expect_err("no way through") {
            PortError::Unreachable { target, .. } => {
                assert!(target.contains(&format!("by the proxy {address}")), "{target}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(bench.lab.requests().is_empty());
    bench.lab.stop().await;
}
