//! `forge prestage` against the lab: real bytes on a storage, by the node or by way of this machine.

use std::time::Duration;

use forge_lab::{Fault, Gate, LEAST_PRIVILEGES_PVE9};
use sha2::{Digest as _, Sha256};

use crate::support::lab_site::{LabSite, Running, TOKEN, reached};
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

/// A lab whose nodes may not download, and the profile `media.toml` with one medium of the web.
async fn by_way_of_here(url: &str, digest: &str) -> anyhow::Result<LabSite> {
    let site = LabSite::in_name_only().await?;
    allow(&site, false);
    site.write(
        "media.toml",
        &format!(
            "schema = 1\nname = \"media\"\n[source]\nclone = \"boot-vm\"\n\
             iso = {{ url = \"{url}\", checksum = \"{digest}\" }}\n"
        ),
    );
    Ok(site)
}

const PRESTAGE: [&str; 4] = ["--cache-dir", "cache", "prestage", "media.toml"];

/// How many uploads the lab has seen, also those that go on.
fn uploads(site: &LabSite) -> usize {
    site.lab.requests().iter().filter(|call| call.path.ends_with("/upload")).count()
}

/// Waits until the lab sees an upload of what is still being downloaded.
async fn is_sent_meanwhile(site: &LabSite, running: &mut Running) {
    running.says("-one.iso while it is downloaded").await;
    let seen = async {
        while uploads(site) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("it is sent");
}

/// Some MiB, others for each number.
fn some_mib(number: u8) -> Vec<u8> {
    (0..3_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ number).collect()
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
        "compared on the way, and sent meanwhile",
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
        let site = by_way_of_here(&web.url("large.iso"), &digest).await?;
        let running = site.start(&PRESTAGE);
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
    assert_eq!(uploads(&site), 1);
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
    let site = by_way_of_here(&web.url("one.iso"), &hex(&content)).await?;
    let done = site.run(&PRESTAGE).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let ranges = web.ranges();
    assert!(ranges.len() == 3 && ranges[0].is_none(), "{ranges:?}");
    let goes_on = |range: &Option<String>| range.as_deref().is_some_and(|range| range != "bytes=0-");
    assert!(ranges[1..].iter().all(goes_on), "{ranges:?}");
    assert_eq!(stored(&site, "-one.iso"), content);
    assert_eq!(uploads(&site), 1, "the upload noticed nothing");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_medium_is_sent_while_it_is_downloaded_and_kept_for_the_next_node() -> anyhow::Result<()> {
    let content = some_mib(1);
    let web = Web::with([("one.iso", Page { gate: Some(1 << 20), ..Page::new(content.clone()) })]).await;
    let site = by_way_of_here(&web.url("one.iso"), &hex(&content)).await?;
    let mut running = site.start(&PRESTAGE);
    is_sent_meanwhile(&site, &mut running).await;
    assert!(site.media_files().is_empty(), "two thirds of it have not come");
    web.open();
    let done = running.ended().await;
    assert!(done.code == Some(0) && done.stdout.contains("sent"), "{}{}", done.stdout, done.stderr);
    assert_eq!((uploads(&site), web.gets().len()), (1, 1));
    assert_eq!(stored(&site, "-one.iso"), content);
    let kept = site.path().join("cache/media").join(format!("sha256-{}", hex(&content)));
    assert_eq!(std::fs::read(kept)?, content);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_the_server_cuts_since_the_source_stands_still_begins_again_when_more_comes()
-> anyhow::Result<()> {
    let content = some_mib(2);
    let web = Web::with([("one.iso", Page { gate: Some(1 << 20), ..Page::new(content.clone()) })]).await;
    let site = by_way_of_here(&web.url("one.iso"), &hex(&content)).await?;
    let mut running = site.start(&PRESTAGE);
    is_sent_meanwhile(&site, &mut running).await;
    // The lab cuts a body that waits, as Proxmox VE does.
    running.says("broke off; the download goes on").await;
    web.open();
    let done = running.ended().await;
    assert!(done.code == Some(0) && done.stdout.contains("sent"), "{}{}", done.stdout, done.stderr);
    assert_eq!((uploads(&site), web.gets().len()), (2, 1), "the download noticed nothing");
    assert_eq!(stored(&site, "-one.iso"), content);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_replaced_while_it_is_sent_never_becomes_a_mix_of_both() -> anyhow::Result<()> {
    let content = some_mib(4);
    let next = Page { etag: Some("\"two\""), ..Page::new(content.clone()) };
    let page = Page {
        gate: Some(1 << 20),
        breaks: [3 << 19].into(),
        next: Some(Box::new(next)),
        ..Page::new(some_mib(3))
    };
    let web = Web::with([("one.iso", page)]).await;
    let site = by_way_of_here(&web.url("one.iso"), &hex(&content)).await?;
    let mut running = site.start(&PRESTAGE);
    is_sent_meanwhile(&site, &mut running).await;
    web.open();
    let done = running.ended().await;
    assert!(done.code == Some(0) && done.stdout.contains("sent"), "{}{}", done.stdout, done.stderr);
    assert_eq!(uploads(&site), 2, "what was sent of the old one was of no use");
    assert_eq!(stored(&site, "-one.iso"), content);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_its_checksum_says_is_never_whole_on_the_storage() -> anyhow::Result<()> {
    let page = Page { gate: Some(1 << 20), ..Page::new(some_mib(5)) };
    let web = Web::with([("one.iso", page)]).await;
    let site = by_way_of_here(&web.url("one.iso"), &hex(b"another")).await?;
    let mut running = site.start(&PRESTAGE);
    is_sent_meanwhile(&site, &mut running).await;
    web.open();
    let done = running.ended().await;
    let says = done.stderr.contains("is not what its checksum says: sha256 is ");
    assert!(done.code == Some(1) && says, "{}{}", done.stdout, done.stderr);
    assert_eq!((uploads(&site), site.media_files()), (1, Vec::new()));
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_medium_whose_length_is_not_told_is_whole_in_the_cache_before_it_is_sent() -> anyhow::Result<()> {
    let content = some_mib(6);
    let web = Web::with([("one.iso", Page { length: false, ..Page::new(content.clone()) })]).await;
    let site = by_way_of_here(&web.url("one.iso"), &hex(&content)).await?;
    let done = site.run(&PRESTAGE).await;
    assert!(done.code == Some(0) && done.stdout.contains("sent"), "{}{}", done.stdout, done.stderr);
    assert!(!done.stderr.contains("while it is downloaded"), "{}", done.stderr);
    assert_eq!((uploads(&site), stored(&site, "-one.iso") == content), (1, true));
    site.close().await;
    Ok(())
}
