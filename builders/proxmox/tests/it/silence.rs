//! A server that accepts and never answers: every call ends, and says what was asked and how long it waited.

use std::time::Duration;

use forge_lab::{Fault, Gate, LEAST_PRIVILEGES_PVE9};
use forge_machine::PortError;
use forge_proxmox::api::encode::Params;
use forge_proxmox::api::error::ApiError;
use forge_proxmox::api::limits::Limits;
use forge_proxmox::api::transfer::Upload;
use forge_proxmox::{ProxmoxHypervisor, Secret};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{Bench, bench, mark, spec};

const LIMITS: Limits = Limits {
    connect: Duration::from_millis(1500),
    exchange: Duration::from_millis(2500),
    still: Duration::from_secs(2),
};

fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        words.push_str(&format!(": {source}"));
        cause = source.source();
    }
    words
}

fn impatient(bench: &Bench) -> ProxmoxHypervisor {
    ProxmoxHypervisor::connect_within(bench.config.clone(), LIMITS).expect("sound settings")
}

#[tokio::test]
async fn a_port_that_accepts_and_says_nothing_is_given_up_with_words() {
    let bench = bench().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut config = bench.config.clone();
    config.url = format!("https://{}", listener.local_addr().expect("bound"));
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let pve = ProxmoxHypervisor::connect_within(config, LIMITS).expect("sound settings");
    for error in [
        pve.client().get::<Value>("/version", &Params::new()).await.expect_err("silence"),
        // What never got a connection was surely not carried out, also when it changes something.
        pve.client().put("/nodes/pve/qemu/100/config", &Params::new()).await.expect_err("silence"),
    ] {
        assert!(matches!(error, ApiError::Unreachable { .. }), "{error:?}");
        assert!(told(&error).contains("no connection within 1.5 s, for "), "{}", told(&error));
    }
    silent.abort();
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_call_that_is_never_answered_ends_and_says_what_was_asked_and_how_long_it_waited() {
    let bench = bench().await;
    let pve = impatient(&bench);
    let (client, none) = (pve.client(), Params::new());
    let gate = Gate::new();
    let hold = |method: &str, path: &str| {
        bench.lab.faults().clear();
        bench.lab.faults().on(method, path).always().then(Fault::Hold(gate.clone()));
    };
    hold("GET", "/version");
    let error = client.get::<Value>("/version", &none).await.expect_err("silence");
    assert!(matches!(error, ApiError::Unreachable { .. }), "{error:?}");
    assert!(told(&error).contains("GET /version was not answered within 2.5 s"), "{}", told(&error));

    // Of a change nobody knows whether it was made.
    let config = "/nodes/pve/qemu/100/config";
    hold("*", config);
    let put = client.put(config, &Params::new().with("cores", 2)).await.expect_err("silence");
    let post = client.post(config, &Params::new().with("cores", 2)).await.expect_err("silence");
    hold("DELETE", "/nodes/pve/qemu/100");
    let delete = client.delete("/nodes/pve/qemu/100", &none).await.expect_err("silence");
    for (error, request) in [
        (put, format!("PUT {config}")),
        (post, format!("POST {config}")),
        (delete, "DELETE /nodes/pve/qemu/100".into()),
    ] {
        assert!(matches!(error, ApiError::Unanswered { .. }), "{error:?}");
        let error = error.at("change VM 100");
        assert!(error.is_outcome_unknown(), "{error:?}");
        let words = format!("{request} was not answered within 2.5 s");
        assert!(told(&error).contains(&words), "{words}: {}", told(&error));
    }
    bench.lab.faults().clear();
    gate.release();
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_screen_and_an_upload_that_are_never_answered_end_with_words() {
    let bench = bench().await;
    let mark = mark(51);
    let at = bench.clone_vm(&mark).await;
    use forge_machine::Hypervisor as _;
    let task = bench.pve.machine(&at).submit_start().await.expect("submitted");
    bench.pve.wait(&task).await.expect("started");
    let pve = impatient(&bench);
    let gate = Gate::new();
    for (method, end, words) in [
        ("POST", "vncproxy", "vncproxy was not answered within 2.5 s"),
        ("GET", "vncwebsocket", "vncwebsocket was not answered within 1.5 s"),
    ] {
        let path = format!("/nodes/*/qemu/*/{end}");
        bench.lab.faults().on(method, &path).always().then(Fault::Hold(gate.clone()));
        let Err(error) = pve.machine(&at).display().await else { panic!("{end}: it answered") };
        assert!(told(&error).contains(words), "{end}: {}", told(&error));
        bench.lab.faults().clear();
    }

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("disc.iso");
    std::fs::write(&file, vec![1; 300_000]).expect("ours");
    bench.with_media(false);
    bench.lab.set_token_access(
        crate::support::TOKEN,
        &[("/", &[LEAST_PRIVILEGES_PVE9, &["Datastore.AllocateTemplate"]].concat())],
    );
    bench.lab.faults().on("POST", "/nodes/*/storage/*/upload").always().then(Fault::HoldAfter(gate.clone()));
    let upload = Upload {
        node: "pve",
        storage: "local",
        content: "iso",
        name: "disc.iso",
        file: &file,
        digest: None,
        proved: false,
    };
    let error = pve.client().upload(&upload, &|_, _| ()).await.expect_err("silence");
    let words = "POST /nodes/pve/storage/local/upload: nothing moved for 2 s after 300000 of 300000 bytes";
    assert!(told(&error).contains(words), "{}", told(&error));
    gate.release();
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_login_that_is_never_answered_ends_with_words_and_no_change_is_taken_for_made() {
    let bench = bench().await;
    bench.lab.set_password("ops@pve", "correct horse");
    bench.lab.set_user_access("ops@pve", &[("/", LEAST_PRIVILEGES_PVE9)]);
    let mut config = bench.config.clone();
    config.token_id = "ops@pve".into();
    config.token_secret = Secret::new("correct horse");
    let pve = ProxmoxHypervisor::connect_within(config, LIMITS).expect("sound settings");
    let gate = Gate::new();
    bench.lab.faults().on("POST", "/access/ticket").always().then(Fault::Hold(gate.clone()));
    use forge_machine::Hypervisor as _;
    let error = pve.propose_id(&spec(), &[]).await.expect_err("silence");
    assert!(matches!(error, PortError::Unreachable { .. }), "{error:?}");
    assert!(told(&error).contains("POST /access/ticket was not answered within 2.5 s"), "{}", told(&error));
    let change = pve.client().put("/nodes/pve/qemu/100/config", &Params::new()).await.expect_err("silence");
    assert!(matches!(change, ApiError::Unreachable { .. }), "it was never sent: {change:?}");
    gate.release();
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_ticket_that_is_refused_before_its_time_is_replaced_once_by_the_password() {
    let bench = bench().await;
    bench.lab.set_password("ops@pve", "correct horse");
    bench.lab.set_user_access("ops@pve", &[("/", LEAST_PRIVILEGES_PVE9)]);
    let pve = bench.client(|config| {
        config.token_id = "ops@pve".into();
        config.token_secret = Secret::new("correct horse");
    });
    let tickets = || bench.lab.requests().iter().filter(|each| each.path.ends_with("/access/ticket")).count();
    let refused = || Fault::Refuse { status: 401, reason: "permission denied - invalid PVE ticket".into() };
    let config = "/nodes/pve/qemu/100/config";
    pve.client().put(config, &Params::new().with("cores", 2)).await.expect("set");
    assert_eq!(tickets(), 1);
    // As after a change of the server's clock: the next call logs in anew, whatever it does.
    bench.lab.faults().on("PUT", config).then(refused());
    pve.client().put(config, &Params::new().with("cores", 3)).await.expect("set");
    assert_eq!((tickets(), bench.lab.vm(100).expect("there").config["cores"].as_str()), (2, "3"));
    // A server that takes no ticket at all is believed the second time.
    bench.lab.faults().on("GET", "/version").always().then(refused());
    let error = pve.client().get::<Value>("/version", &Params::new()).await.expect_err("refused");
    assert!(matches!(error, ApiError::Unauthorized { .. }), "{error:?}");
    assert_eq!(tickets(), 3);
    bench.lab.stop().await;
}

/// What the server held back is carried out in the end, when it was long done by a second call and something newer came.
#[tokio::test]
async fn a_change_that_is_carried_out_late_overwrites_nothing_newer() {
    use forge_machine::{BuildState, Hypervisor as _, Ownership};
    let bench = bench().await;
    let building = mark(54);
    let at = bench.clone_vm(&building).await;
    let pve = impatient(&bench);
    let machine = pve.machine(&at);
    let (gate, over) = (Gate::new(), Gate::new());
    let config = format!("/nodes/pve/qemu/{}/config", at.id);
    bench.lab.faults().on("PUT", &config).then(Fault::Hold(gate.clone()));
    bench.lab.faults().on("PUT", &config).then(Fault::HoldAfter(over.clone()));
    machine.describe(&building).await.expect("the second call is answered");
    let kept = Ownership { state: BuildState::Kept, ..building.clone() };
    machine.describe(&kept).await.expect("changed");
    let newer = bench.lab.vm(at.id.parse().expect("a number")).expect("it is there");
    assert!(newer.tags.contains("forge-kept"), "{newer:?}");
    gate.release();
    // It is answered to nobody: that it was carried out shows in the lab alone.
    tokio::time::timeout(Duration::from_secs(60), over.reached()).await.expect("it is carried out");
    let puts = || bench.lab.requests().into_iter().filter(|call| call.method == "PUT" && call.path == config);
    assert_eq!(puts().count(), 3, "the held one, the one in its place, and the newer");
    assert_eq!(bench.lab.vm(at.id.parse().expect("a number")), Some(newer), "nothing newer is overwritten");
    over.release();
    bench.lab.stop().await;
}
