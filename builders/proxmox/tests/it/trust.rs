//! Who is believed, and who is let in.

use std::time::{Duration, Instant};

use forge_lab::LEAST_PRIVILEGES_PVE9;
use forge_machine::{Hypervisor as _, PortError};
use forge_proxmox::api::encode::Params;
use forge_proxmox::{ProxmoxConfig, ProxmoxHypervisor, Secret, TlsChoice};

use crate::support::{bench, mark, query, spec};

async fn asked(pve: &ProxmoxHypervisor) -> Result<(), PortError> {
    pve.facts(&query()).await.map(|_| ())
}

#[tokio::test]
async fn the_pinned_certificate_and_the_clusters_authority_are_trusted() {
    let bench = bench().await;
    asked(&bench.pve).await.expect("the pin fits");

    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bench.lab.ca_pem()).expect("written");
    let by_authority = bench.client(|config| config.tls = TlsChoice::CaFile(file.path().to_owned()));
    asked(&by_authority).await.expect("the authority vouches");

    let insecure = bench.client(|config| config.tls = TlsChoice::Insecure);
    asked(&insecure).await.expect("anything goes");
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_wrong_pin_names_both_fingerprints_and_sends_no_token() {
    let bench = bench().await;
    let wrong = "00:".repeat(31) + "00";
    let pinned = bench.client(|config| config.tls = TlsChoice::Fingerprint(wrong.clone()));
    match asked(&pinned).await.expect_err("refused") {
        PortError::Untrusted { detail, .. } => {
            assert!(detail.contains(&wrong) && detail.contains(bench.lab.fingerprint()), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    assert!(bench.lab.requests().is_empty());

    let by_system = bench.client(|config| config.tls = TlsChoice::System);
    match asked(&by_system).await.expect_err("nobody vouches for it") {
        PortError::Untrusted { detail, .. } => assert!(detail.contains(bench.lab.fingerprint()), "{detail}"),
        other => panic!("{other:?}"),
    }
    assert!(bench.lab.requests().is_empty());
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_once_and_not_tried_again() {
    let bench = bench().await;
    let stranger =
        bench.client(|config| config.token_secret = Secret::new("00000000-0000-0000-0000-000000000000"));
    let began = Instant::now();
    let error = asked(&stranger).await.expect_err("refused");
    assert!(matches!(error, PortError::Unauthorized { .. }), "{error:?}");
    assert!(began.elapsed().as_secs() < 6, "one delay of 3 s, not several: {:?}", began.elapsed());
    assert_eq!(bench.lab.requests().len(), 1);
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_target_that_does_not_listen_is_unreachable() {
    let bench = bench().await;
    let config = bench.config.clone();
    bench.lab.stop().await;
    let pve = ProxmoxHypervisor::connect(config).expect("sound settings");
    let error = asked(&pve).await.expect_err("nobody listens");
    assert!(matches!(error, PortError::Unreachable { .. }), "{error:?}");
}

#[test]
fn settings_that_can_t_work_are_refused_without_a_connection() {
    let config = ProxmoxConfig {
        target: "lab".into(),
        url: "http://127.0.0.1:8006".into(),
        more_urls: Vec::new(),
        proxy: forge_proxmox::ProxyChoice::None,
        token_id: "forge@pve!build".into(),
        role: None,
        token_secret: "x".into(),
        tls: TlsChoice::Insecure,
        nodes: Vec::new(),
        disk_storage: None,
        iso_storage: None,
        bridge: None,
    };
    assert!(ProxmoxHypervisor::connect(config).is_err());
}

#[tokio::test]
async fn a_user_with_a_password_builds_by_tickets_that_are_renewed_and_never_shows_the_password() {
    let bench = bench().await;
    bench.lab.set_password("ops@pve", "correct horse");
    bench.lab.set_user_access("ops@pve", &[("/", LEAST_PRIVILEGES_PVE9)]);
    let by_password = bench.client(|config| {
        config.token_id = "ops@pve".into();
        config.token_secret = Secret::new("correct horse");
    });
    assert!(!format!("{by_password:?}").contains("horse"));
    let tickets = || bench.lab.requests().iter().filter(|each| each.path.ends_with("/access/ticket")).count();
    let mark = mark(31);
    let at = by_password.propose_id(&spec(), &[]).await.expect("an id");
    let task = by_password.submit_create(&spec(), &at, &mark).await.expect("a write, with the CSRF token");
    by_password.wait(&task).await.expect("cloned");
    by_password.machine(&at).destroy().await.expect("removed");
    assert_eq!(tickets(), 1, "one ticket does for all of it");

    // A ticket at half its life, here at none, is renewed by itself; whoever asks meanwhile waits for the new one.
    let restless = by_password.client().clone().renewing_tickets_after(Duration::ZERO);
    for _ in 0..3 {
        restless.get::<serde_json::Value>("/version", &Params::new()).await.expect("asked");
    }
    assert_eq!(tickets(), 4);

    let wrong = bench.client(|config| {
        config.token_id = "ops@pve".into();
        config.token_secret = Secret::new("wrong horse");
    });
    let error = asked(&wrong).await.expect_err("refused");
    assert!(matches!(error, PortError::Unauthorized { .. }), "{error:?}");
    assert_eq!(tickets(), 5, "a wrong password is tried once");
    bench.lab.stop().await;
}
