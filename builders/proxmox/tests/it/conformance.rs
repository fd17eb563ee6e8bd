//! The port's own list of behaviours, over Proxmox on the lab.

use forge_machine::Finish;
use forge_machine::conformance::{Subject, run};

use crate::support::{bench, spec};

#[tokio::test]
async fn proxmox_on_the_lab_conforms_to_the_port() {
    let bench = bench().await;
    let finish =
        Finish::Template { name: "tpl-x".into(), tags: vec!["x".into()], notes: "made by a test".into() };
    let failures = run(&Subject { hypervisor: &bench.pve, spec: spec(), finish }).await;
    assert_eq!(failures, []);
}
