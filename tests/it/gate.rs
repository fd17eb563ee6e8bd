//! The gate of `forge build` and `forge finish`: what becomes of a template between its build and its trial, whatever else happens.

use std::time::Duration;

use forge_lab::{Fault, Gate, LEAST_PRIVILEGES_PVE9};
use forge_proxmox::api::encode::Params;
use forge_proxmox::{ProxmoxConfig, ProxmoxHypervisor};

use crate::lab_kills::{SHUTDOWN, gc_finds_its_way};
use crate::lab_matrix::config_of;
use crate::support::lab_site::{FIRST_ID, LIMIT, LabSite, PROFILE, Running, TOKEN, reached};

/// The tags of each template of the lab's that a build has made, by VMID.
fn tags(site: &LabSite) -> Vec<(u32, String)> {
    site.others().into_iter().map(|vm| (vm.vmid, vm.tags)).collect()
}

/// Waits until a template is there that waits for its trial.
async fn waits_for_its_trial(site: &LabSite, vmid: u32, running: &Running) {
    let untested = || site.lab.vm(vmid).is_some_and(|vm| vm.template && vm.tags.contains("untested"));
    let waited = tokio::time::timeout(LIMIT, async {
        while !untested() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "VM {vmid} never waited for its trial:\n{}", running.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_of_a_tiny_guest_that_the_target_keeps_from_its_trial_is_neither_marked_nor_taken()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    let words = "start failed: cannot set up guest memory 'pc.ram': Cannot allocate memory";
    let start = format!("/nodes/pve/qemu/{}/status/start", FIRST_ID + 1);
    site.lab.faults().on("POST", &start).then(Fault::TaskFail { text: words.into() });
    let done = site.run(&["build", "tiny.toml", "--test"]).await;
    assert_eq!(done.code, Some(6), "{}{}", done.stdout, done.stderr);
    for said in
        ["Cannot allocate memory", "could not be tried", "forge test 9001 --mark", "forge promote 9001"]
    {
        assert!(done.stderr.contains(said), "`{said}` is not in:\n{}", done.stderr);
    }
    assert_eq!(
        tags(&site),
        [(FIRST_ID, "forge;untested".to_owned())],
        "the clone is gone, the template as it was"
    );
    assert_eq!(site.journals(), [""; 0]);

    // Nobody takes it for good: neither by the latest nor by tags, but for its own.
    let done = site.run(&["latest", "--profile", "tiny"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(3), ""), "{}", done.stderr);
    let by_tags =
        |tag: &str| PROFILE.replace("clone = \"boot-vm\"", &format!("clone = {{ tags = [\"{tag}\"] }}"));
    site.write("child.toml", &by_tags("forge"));
    let done = site.run(&["plan", "child.toml"]).await;
    assert_eq!(done.code, Some(3), "{}{}", done.stdout, done.stderr);
    let words = "no template with the tags forge may be taken: tpl-tiny (VM 9001 on pve) waits for its test (`untested`)";
    assert!(done.stderr.contains(words) && done.stderr.contains("forge test 9001 --mark"), "{}", done.stderr);
    site.write("child.toml", &by_tags("untested"));
    let done = site.run(&["plan", "child.toml"]).await;
    assert_eq!(done.code, Some(0), "it is asked for: {}", done.stderr);

    // A trial by hand says the same.
    site.lab.faults().on("POST", &start).then(Fault::TaskFail { text: words.into() });
    let done = site.run(&["test", "tpl-tiny", "--mark"]).await;
    assert_eq!(done.code, Some(6), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("tpl-tiny could not be tried"), "{}", done.stderr);
    assert_eq!(tags(&site), [(FIRST_ID, "forge;untested".to_owned())]);

    // Once the target is well again it is tried, and taken.
    site.lab.faults().clear();
    let done = site.run(&["test", "tpl-tiny", "--mark", "--no-second-boot"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert_eq!(tags(&site), [(FIRST_ID, "forge;validated".to_owned())]);
    let done = site.run(&["latest", "--profile", "tiny"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "9001\n"), "{}", done.stderr);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_build_of_a_tiny_guest_is_tried_too_before_it_is_published_when_it_is_finished()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    let site = site.with_old_template("tiny").await?;
    let gate = Gate::new();
    site.lab.faults().on("POST", SHUTDOWN).then(Fault::Hold(gate.clone()));
    // Where the evidence stands is as a site's other tools expect it.
    let layout = ["--evidence-layout", "builds/{profile}/{time}"];
    let mut build =
        site.start(&[&["build", "tiny.toml", "--test", "--output", "proof"], &layout[..]].concat());
    reached(&gate, &mut build).await;
    build.kill().await;
    gate.release();
    let told = gc_finds_its_way(&site).await;
    assert!(told.contains("forge finish 9001"), "{told}");
    let done = site.run(&[&["finish", "9001"], &layout[..]].concat()).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("tpl-tiny (VM 9001) is the latest of tiny"), "{}", done.stderr);
    assert_eq!(tags(&site), [(FIRST_ID, "forge;latest;validated".to_owned())]);
    site.assert_old_template(false, "the finished one is the latest");
    let builds = site.path().join("proof/builds");
    assert!(builds.join("tiny/latest/proof.json").is_file());
    assert!(builds.join("test-tpl-tiny/latest/checks.json").is_file(), "its trial left its evidence");
    let name = std::fs::read_link(builds.join("tiny/latest"))?.display().to_string();
    assert!(name.len() == 16 && name.ends_with('Z'), "a time: {name}");
    let verified = site.run(&["evidence", "verify", "proof/builds/tiny/latest"]).await;
    assert_eq!(verified.code, Some(0), "{}{}", verified.stdout, verified.stderr);
    assert_eq!(site.journals(), [""; 0]);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_tried_is_told_by_the_plan() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write("windows.toml", &PROFILE.replace("family = \"linux\"", "family = \"windows\""));
    for command in ["plan", "build"] {
        let done = site.run(&[command, "windows.toml", "--test"]).await;
        assert_eq!(done.code, Some(3), "{}{}", done.stdout, done.stderr);
        assert!(
            done.stderr.contains("a Windows template can't be tried before it is published"),
            "{}",
            done.stderr
        );
    }
    // A policy that keeps the tags of a trial from the token is told before the build, and none is needed without a trial.
    let admin = site.lab.add_token("root@pam!admin", &[("/", &["Sys.Modify", "Sys.Audit"])]);
    let config = config_of(&site.lab.url(), site.lab.fingerprint(), &admin);
    let admin = ProxmoxHypervisor::connect(ProxmoxConfig { token_id: "root@pam!admin".into(), ..config })?;
    let body = Params::new()
        .with("user-tag-access", "user-allow=list,user-allow-list=forge;latest;forge-build;forge-kept");
    admin.client().put("/cluster/options", &body).await?;
    let may = [LEAST_PRIVILEGES_PVE9, &["Sys.Audit"]].concat();
    site.lab.set_token_access(TOKEN, &[("/", &may)]);
    let done = site.run(&["plan", "tiny.toml", "--test"]).await;
    assert_eq!(done.code, Some(3), "{}{}", done.stdout, done.stderr);
    for tag in ["untested", "validated", "test-failed"] {
        assert!(done.stderr.contains(&format!("keeps the tag `{tag}` from")), "{tag}: {}", done.stderr);
    }
    assert!(done.stderr.contains("or publish without a trial: --no-test"), "{}", done.stderr);
    let done = site.run(&["plan", "tiny.toml", "--no-test"]).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{}", done.stdout);
    let done = site.run(&["doctor"]).await;
    let told = |words: &str| done.stdout.lines().any(|line| line.contains(words));
    assert!(
        done.code == Some(0) && told("warn  tags") && told("keeps the tag `deprecated` from"),
        "{}",
        done.stdout
    );

    // Nor is anything tagged `deprecated` by whom that is not allowed.
    let site = site.with_old_template("tiny").await?;
    crate::lab_versions::template(&site, 8998, "tiny", 400, "forge").await?;
    let done = site.run(&["prune", "--keep", "1", "--deprecate", "--yes"]).await;
    assert_eq!(done.code, Some(3), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("keeps the tag `deprecated` from"), "{}", done.stderr);
    let done = site.run(&["prune", "--keep", "1", "--yes"]).await;
    assert_eq!(done.code, Some(0), "to remove it takes no tag: {}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("warning: VM 8998 goes untagged"), "{}", done.stderr);
    assert_eq!(site.lab.vm(8998), None);
    site.close().await;
    Ok(())
}

/// So long forge waits for the answer to a call, less what it takes to notice.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(38);

#[tokio::test(flavor = "multi_thread")]
async fn two_gated_builds_of_a_tiny_guest_that_publish_at_once_end_with_one_latest() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    let site = site.with_old_template("tiny").await?;
    // The older of the two has passed its trial and knows what bears `latest`, when it is held: at the third change of its
    // template, after `validated` was put on and `untested` taken off.
    let mut older = site.start(&["build", "tiny.toml", "--test"]);
    waits_for_its_trial(&site, FIRST_ID, &older).await;
    let gate = Gate::new();
    let config = format!("/nodes/pve/qemu/{FIRST_ID}/config");
    site.lab.faults().on("PUT", &config).call(3).then(Fault::Hold(gate.clone()));
    reached(&gate, &mut older).await;
    let held = std::time::Instant::now();
    assert_eq!(tags(&site), [(FIRST_ID, "forge;validated".to_owned())]);
    let newer = site.run(&["build", "tiny.toml", "--test"]).await;
    assert_eq!(newer.code, Some(0), "{}{}", newer.stdout, newer.stderr);
    let second = FIRST_ID + 1;
    assert_eq!(tags(&site)[1], (second, "forge;latest;validated".to_owned()));
    let held = held.elapsed();
    gate.release();
    let older = older.ended().await;
    assert_eq!(older.code, Some(0), "{}{}", older.stdout, older.stderr);
    assert_eq!(tags(&site)[1], (second, "forge;latest;validated".to_owned()), "it stays the newest");
    if held > PATIENCE {
        eprintln!(
            "skipped: on this busy machine the older one has long given its call up and asked again: {held:?}"
        );
        return Ok(());
    }
    assert_eq!(
        tags(&site),
        [(FIRST_ID, "forge;validated".to_owned()), (second, "forge;latest;validated".to_owned())]
    );
    site.assert_old_template(false, "two newer ones are there");
    assert_eq!(site.journals(), [""; 0]);
    site.close().await;
    Ok(())
}
