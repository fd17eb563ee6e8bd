//! Several builds side by side: over the nodes of a cluster, within their memory, each on its own.

use std::collections::BTreeSet;

use forge_lab::{Fault, Gate, LEAST_PRIVILEGES_PVE9};
use nix::sys::signal::Signal;

use crate::support::lab_site::{FIRST_ID, LabSite, PROFILE, TOKEN, reached};

fn profile(name: &str) -> String {
    PROFILE.replace("\"tiny\"", &format!("{name:?}")).replace("tpl-tiny", &format!("tpl-{name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_builds_of_tiny_guests_over_three_nodes_from_two_processes_share_eight_vmids()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_three_nodes().await? else { return Ok(()) };
    site.write(
        "forge.toml",
        &std::fs::read_to_string(site.path().join("forge.toml"))?.replace("9099", "9008"),
    );
    let names: Vec<String> = (1..=8).map(|number| format!("web-{number}")).collect();
    for name in &names {
        site.write(&format!("{name}.toml"), &profile(name));
    }
    let files: Vec<String> = names.iter().map(|name| format!("{name}.toml")).collect();
    let start = |files: &[String]| {
        let mut arguments = vec!["build", "--parallel", "4"];
        arguments.extend(files.iter().map(String::as_str));
        site.start(&arguments)
    };
    let (one, two) = (start(&files[..4]), start(&files[4..]));
    for done in [one.ended().await, two.ended().await] {
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stderr.contains("4 builds: 4 done"), "{}", done.stderr);
    }
    let made = site.others();
    assert_eq!(made.iter().map(|vm| vm.vmid).collect::<Vec<_>>(), Vec::from_iter(FIRST_ID..FIRST_ID + 8));
    let called: BTreeSet<&str> = made.iter().map(|vm| vm.name.as_str()).collect();
    assert_eq!(called.len(), 8, "{called:?}");
    assert!(made.iter().all(|vm| vm.template && vm.tags.contains("latest")), "{made:?}");
    let nodes: BTreeSet<&str> = made.iter().map(|vm| vm.node.as_str()).collect();
    assert_eq!(nodes.len(), 3, "they spread over the nodes: {nodes:?}");
    assert_eq!(site.journals(), Vec::<String>::new());
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_a_tiny_guest_that_fails_does_not_stop_the_one_beside_it() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    site.write("good.toml", &profile("good"));
    site.write(
        "bad.toml",
        &profile("bad").replace("echo hello from $(hostname)", "echo 'no space left'; exit 3"),
    );
    let done = site.run(&["build", "bad.toml", "good.toml", "--parallel", "2"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("2 builds: 1 done, 1 failed"), "{}", done.stderr);
    let made = site.others();
    assert_eq!(made.iter().map(|vm| vm.name.as_str()).collect::<Vec<_>>(), ["tpl-good"]);
    assert!(made[0].template);
    assert_eq!(site.journals(), Vec::<String>::new());
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_waits_while_the_memory_is_for_another_that_is_about_to_start() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.lab.set_token_access(TOKEN, &[("/", &[LEAST_PRIVILEGES_PVE9, &["Sys.Audit"]].concat())]);
    // The lab's nodes have 14 GiB free.
    site.write("tiny.toml", &format!("{PROFILE}\n[vm]\nmemory = \"10GiB\"\n"));
    let gate = Gate::new();
    site.lab.faults().on("POST", "/nodes/*/qemu/*/status/start").then(Fault::Hold(gate.clone()));
    let mut first = site.start(&["build", "tiny.toml"]);
    reached(&gate, &mut first).await;
    let mut second = site.start(&["build", "tiny.toml"]);
    second.says("waiting for memory").await;
    second
        .says("pve has 14336 MiB free, 10240 MiB of it for VM 9001 about to start, and 10240 MiB are needed")
        .await;
    assert_eq!(site.others().len(), 1, "nothing is made while it waits");
    gate.release();
    second.says("connect: waiting for SSH").await;
    for build in [first, second] {
        build.signal(Signal::SIGINT);
        assert_eq!(build.ended().await.code, Some(130));
    }
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}
