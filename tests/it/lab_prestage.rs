//! `forge prestage` against the lab: real bytes on a storage, by the node or by way of this machine.

use forge_lab::{Fault, Gate, LEAST_PRIVILEGES_PVE9};
use sha2::{Digest as _, Sha256};

use crate::support::lab_site::{LabSite, TOKEN, reached};
use crate::support::web::{Page, Web};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A token that may put media on storages; `download` lets the nodes download them, too.
fn allow(site: &LabSite, download: bool) {
    let mut privileges = [LEAST_PRIVILEGES_PVE9, &["Datastore.AllocateTemplate"]].concat();
    if download {
        privileges.push("Sys.AccessNetwork");
    }
    site.lab.set_token_access(TOKEN, &[("/", &privileges)]);
}

/// What the lab's storage holds of a medium.
fn stored(site: &LabSite, name: &str) -> Vec<u8> {
    let found = site.media_files().into_iter().find(|path| path.to_string_lossy().ends_with(name));
    std::fs::read(found.expect("the storage has it")).expect("read")
}

#[tokio::test(flavor = "multi_thread")]
async fn proxmox_gets_media_by_the_node_or_by_way_of_this_machine_and_once() -> anyhow::Result<()> {
    let content = b"bytes of a medium".repeat(30_000);
    let web =
        Web::with([("one.iso", Page::new(content.clone())), ("two.iso", Page::new(content.clone()))]).await;
    let site = LabSite::in_name_only().await?;
    std::fs::write(site.path().join("mine.iso"), b"mine".repeat(1000))?;
    site.write(
        "media.toml",
        &format!(
            "schema = 1\nname = \"media\"\n[source]\nclone = \"boot-vm\"\n\
             iso = {{ url = \"{}\", checksum = \"{}\" }}\nadditional-isos = [\"mine.iso\"]\n",
            web.url("one.iso"),
            hex(&content)
        ),
    );
    // By the node; then it is there, and the node compares it.
    allow(&site, true);
    for how in [["by the node", "sent"], ["was there", "was there"]] {
        let done = site.run(&["--cache-dir", "cache", "--json", "prestage", "media.toml"]).await;
        assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
        let planned = site.run(&["--cache-dir", "cache", "plan", "media.toml"]).await;
        assert!(planned.stdout.contains("pve downloads media by itself"), "{}", planned.stdout);
        let staged: Vec<serde_json::Value> = done
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .filter(|object: &serde_json::Value| object["event"] == "prestaged")
            .collect();
        assert_eq!([staged[0]["how"].as_str(), staged[1]["how"].as_str()], how.map(Some), "{}", done.stdout);
        let place = format!("local:iso/forge-{}-one.iso", &hex(&content)[..20]);
        assert_eq!(
            (staged[0]["place"].as_str(), staged[0]["node"].as_str()),
            (Some(place.as_str()), Some("pve"))
        );
    }
    assert_eq!(stored(&site, "-one.iso"), content);
    assert_eq!(stored(&site, "-mine.iso"), b"mine".repeat(1000));
    assert_eq!(web.gets().len(), 1, "the node has downloaded it, once, and nobody for the plan");
    assert!(!site.path().join("cache/media").exists(), "nothing came by way of this machine");

    // A token that may not let the node download: by way of this machine.
    allow(&site, false);
    let text = std::fs::read_to_string(site.path().join("media.toml"))?;
    site.write("media.toml", &text.replace("one.iso", "two.iso"));
    let planned = site.run(&["--cache-dir", "cache", "plan", "media.toml"]).await;
    for words in [
        "media come to pve by way of this machine",
        "lacks Sys.AccessNetwork",
        "compared on the way, then sent",
    ] {
        assert!(planned.stdout.contains(words), "`{words}` is not in {}", planned.stdout);
    }
    let done = site.run(&["--cache-dir", "cache", "prestage", "media.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("two.iso") && done.stdout.contains("sent"), "{}", done.stdout);
    assert_eq!(stored(&site, "-two.iso"), content);

    // One that may not put media there at all.
    site.lab.set_token_access(TOKEN, &[("/", LEAST_PRIVILEGES_PVE9)]);
    site.write("media.toml", &text.replace("one.iso", "gone.iso"));
    let done = site.run(&["--cache-dir", "cache", "prestage", "media.toml"]).await;
    assert!(done.code == Some(1) && done.stderr.contains("error: media: "), "{}{}", done.stdout, done.stderr);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_medium_comes_by_way_of_this_machine_with_the_memory_of_a_small_one() -> anyhow::Result<()> {
    const MIB: usize = 1 << 20;
    let mut peaks = Vec::new();
    for size in [MIB, 192 * MIB] {
        let content: Vec<u8> = (0..size).map(|at| (at / 4096 * 31) as u8).collect();
        let digest = hex(&content);
        let web = Web::with([("large.iso", Page::new(content))]).await;
        let site = LabSite::in_name_only().await?;
        allow(&site, false);
        site.write(
            "media.toml",
            &format!(
                "schema = 1\nname = \"media\"\n[source]\nclone = \"boot-vm\"\niso = {{ url = \"{}\", checksum = \"{digest}\" }}\n",
                web.url("large.iso")
            ),
        );
        let running = site.start(&["--cache-dir", "cache", "prestage", "media.toml"]);
        let (done, peak) = running.ended_with_peak().await;
        assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
        assert!(done.stdout.contains("sent"), "{}", done.stdout);
        assert_eq!(hex(&stored(&site, "-large.iso")), digest);
        peaks.push(peak);
        site.close().await;
    }
    let [small, large] = peaks.as_slice() else { panic!("{peaks:?}") };
    assert!(*small > 0 && *large < small + 48 * 1024, "{small} KiB for 1 MiB, {large} KiB for 192 MiB");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_want_the_same_medium_at_once_send_it_once() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    allow(&site, false);
    std::fs::write(site.path().join("mine.iso"), b"mine".repeat(1000))?;
    site.write(
        "media.toml",
        "schema = 1\nname = \"media\"\n[source]\nclone = \"boot-vm\"\niso = \"mine.iso\"\n",
    );
    let gate = Gate::new();
    site.lab.faults().on("POST", "/nodes/*/storage/*/upload").then(Fault::TaskHold(gate.clone()));
    let prestage = || site.start(&["--cache-dir", "cache", "prestage", "media.toml"]);
    let mut first = prestage();
    reached(&gate, &mut first).await;
    let mut second = prestage();
    second.says("another forge brings local:iso/forge-").await;
    gate.release();
    let (first, second) = (first.ended().await, second.ended().await);
    assert!(first.code == Some(0) && first.stdout.contains("sent"), "{}{}", first.stdout, first.stderr);
    assert!(
        second.code == Some(0) && second.stdout.contains("was there"),
        "{}{}",
        second.stdout,
        second.stderr
    );
    let uploads = site.lab.requests().iter().filter(|call| call.path.ends_with("/upload")).count();
    assert_eq!(uploads, 1);
    assert_eq!(stored(&site, "-mine.iso"), b"mine".repeat(1000));
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_by_way_of_this_machine_that_breaks_is_gone_on_with_and_arrives_whole()
-> anyhow::Result<()> {
    let content = b"bytes of a medium".repeat(30_000);
    let page = Page { breaks: [200_000, 100_000].into(), ..Page::new(content.clone()) };
    let web = Web::with([("one.iso", page)]).await;
    let site = LabSite::in_name_only().await?;
    allow(&site, false);
    site.write(
        "media.toml",
        &format!(
            "schema = 1\nname = \"media\"\n[source]\nclone = \"boot-vm\"\niso = {{ url = \"{}\", checksum = \"{}\" }}\n",
            web.url("one.iso"),
            hex(&content)
        ),
    );
    let done = site.run(&["--cache-dir", "cache", "prestage", "media.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let ranges = web.ranges();
    assert!(ranges.len() == 3 && ranges[0].is_none(), "{ranges:?}");
    let goes_on = |range: &Option<String>| range.as_deref().is_some_and(|range| range != "bytes=0-");
    assert!(ranges[1..].iter().all(goes_on), "{ranges:?}");
    assert_eq!(stored(&site, "-one.iso"), content);
    site.close().await;
    Ok(())
}
