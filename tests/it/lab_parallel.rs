//! Several builds side by side: over the nodes of a cluster, within their memory, each on its own.

use std::collections::BTreeSet;
use std::time::Duration;

use forge_lab::{Fault, Gate, ImportVm, LEAST_PRIVILEGES_PVE9, LabConfig, StorageConfig};
use nix::sys::signal::Signal;

use crate::support::lab_site::{BOOT_VM, FIRST_ID, LabSite, PROFILE, TOKEN, reached};

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
    let site = short_of_memory().await?;
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

/// A lab whose node has 14 GiB free, which the token may see, and a profile that needs 10 of them.
async fn short_of_memory() -> anyhow::Result<LabSite> {
    let site = LabSite::in_name_only().await?;
    site.lab.set_token_access(TOKEN, &[("/", &[LEAST_PRIVILEGES_PVE9, &["Sys.Audit"]].concat())]);
    site.write("tiny.toml", &format!("{PROFILE}\n[vm]\nmemory = \"10GiB\"\n"));
    Ok(site)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_builds_that_were_made_at_once_the_higher_vmid_waits_for_the_memory() -> anyhow::Result<()> {
    let site = short_of_memory().await?;
    let (cloning, starting) = (Gate::new(), Gate::new());
    // Neither sees the other before it clones.
    site.lab.faults().on("POST", "/nodes/*/qemu/*/clone").always().then(Fault::Hold(cloning.clone()));
    site.lab.faults().on("POST", "/nodes/*/qemu/*/status/start").then(Fault::Hold(starting.clone()));
    let mut builds = [site.start(&["build", "tiny.toml"]), site.start(&["build", "tiny.toml"])];
    let clones = || site.lab.requests().iter().filter(|call| call.path.ends_with("/clone")).count();
    while clones() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cloning.release();
    let words =
        "pve has 14336 MiB free, 10240 MiB of it for VM 9001 about to start, and 10240 MiB are needed";
    let waiting = loop {
        if let Some(number) = builds.iter().position(|build| build.said().contains(words)) {
            break number;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    reached(&starting, &mut builds[1 - waiting]).await;
    let made: Vec<u32> = site.others().iter().map(|vm| vm.vmid).collect();
    assert_eq!(made, [FIRST_ID, FIRST_ID + 1], "both were made");
    assert!(builds[waiting].said().contains("9002"), "{}", builds[waiting].said());
    assert!(!builds[1 - waiting].said().contains("waiting for memory"), "{}", builds[1 - waiting].said());
    let starts = || site.lab.requests().iter().filter(|call| call.path.ends_with("/status/start")).count();
    assert_eq!(starts(), 1, "one of them starts");
    starting.release();
    for build in &mut builds {
        build.says("connect: waiting for SSH").await;
    }
    assert_eq!(starts(), 2);
    for build in builds {
        build.signal(Signal::SIGINT);
        assert_eq!(build.ended().await.code, Some(130));
    }
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_is_not_configured_yet_counts_with_the_memory_that_its_build_will_give_it()
-> anyhow::Result<()> {
    // Before it has the build's tag, and before it has the build's hardware.
    for change in [1, 2] {
        let site = short_of_memory().await?;
        let source = site.lab.vm(BOOT_VM).expect("it is there").config["memory"].clone();
        assert!(source.parse::<u32>()? < 4096, "both would fit: {source}");
        let gate = Gate::new();
        let config = format!("/nodes/*/qemu/{FIRST_ID}/config");
        site.lab.faults().on("PUT", &config).call(change).then(Fault::Hold(gate.clone()));
        let mut first = site.start(&["build", "tiny.toml"]);
        reached(&gate, &mut first).await;
        assert_eq!(site.lab.vm(FIRST_ID).expect("it is made").config["memory"], source, "{change}");
        let mut second = site.start(&["build", "tiny.toml"]);
        second.says("10240 MiB of it for VM 9001 about to start, and 10240 MiB are needed").await;
        assert_eq!(site.others().len(), 1, "{change}: nothing is made while it waits");
        gate.release();
        second.says("connect: waiting for SSH").await;
        for build in [first, second] {
            build.signal(Signal::SIGINT);
            assert_eq!(build.ended().await.code, Some(130));
        }
        site.assert_nothing_left();
        site.close().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nodes_auto_a_build_goes_to_the_node_that_has_the_memory_for_it() -> anyhow::Result<()> {
    let config = LabConfig {
        run_guests: false,
        nodes: ["pve", "pve2", "pve3"].map(str::to_owned).to_vec(),
        storages: vec![StorageConfig::everything("local").shared()],
        ..LabConfig::default()
    };
    let site = LabSite::with(config, ImportVm::default()).await?;
    site.lab.set_token_access(TOKEN, &[("/", &[LEAST_PRIVILEGES_PVE9, &["Sys.Audit"]].concat())]);
    site.write("forge.toml", &site.forge_toml().replace(r#"nodes = ["pve"]"#, r#"nodes = "auto""#));
    site.write("tiny.toml", &format!("{PROFILE}\n[vm]\nmemory = \"3GiB\"\n"));
    for (node, gib) in [("pve", 1), ("pve2", 2), ("pve3", 4)] {
        site.lab.set_free_memory(node, gib << 30);
    }
    let mut build = site.start(&["build", "tiny.toml"]);
    build.says("connect: waiting for SSH").await;
    let made: Vec<(u32, String)> = site.others().into_iter().map(|vm| (vm.vmid, vm.node)).collect();
    assert_eq!(made, [(FIRST_ID, "pve3".to_owned())]);
    build.signal(Signal::SIGINT);
    assert_eq!(build.ended().await.code, Some(130));
    site.assert_nothing_left();
    let planned = site.run(&["plan", "tiny.toml"]).await;
    let words = "node pve3 of 3: 0 builds, 4096 MiB free";
    assert!(planned.stdout.contains(words), "{}{}", planned.stdout, planned.stderr);
    site.close().await;
    Ok(())
}
