//! The gate of `forge build --test`: what becomes of a template between its build and its trial, whatever else happens.

use std::time::Duration;

use forge_lab::{Fault, Gate};

use crate::support::lab_site::{FIRST_ID, LIMIT, LabSite, PROFILE, Running, reached};

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
    assert_eq!(tags(&site), [(FIRST_ID, "forge;validated".to_owned())]);
    let newer = site.run(&["build", "tiny.toml", "--test"]).await;
    assert_eq!(newer.code, Some(0), "{}{}", newer.stdout, newer.stderr);
    let second = FIRST_ID + 1;
    assert_eq!(tags(&site)[1], (second, "forge;latest;validated".to_owned()));
    gate.release();
    let older = older.ended().await;
    assert_eq!(older.code, Some(0), "{}{}", older.stdout, older.stderr);
    assert_eq!(
        tags(&site),
        [(FIRST_ID, "forge;validated".to_owned()), (second, "forge;latest;validated".to_owned())]
    );
    site.assert_old_template(false, "two newer ones are there");
    assert_eq!(site.journals(), [""; 0]);
    site.close().await;
    Ok(())
}
