//! Media are downloaded once, proved, and survive what networks and servers do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use forge::media::{How, MediaError, Patience, Store, Watch};
use forge_machine::{Algorithm, Checksum, Location, Medium};
use sha2::{Digest as _, Sha256};

use crate::support::lab_site::LabSite;
use crate::support::web::{Page, Web};

/// What was told.
#[derive(Debug, Default)]
struct Ear(Mutex<Vec<String>>);

impl Watch for Ear {
    fn doing(&self, what: &str) {
        self.0.lock().expect("nobody panicked").push(what.to_owned());
    }

    fn progress(&self, name: &str, done: u64, total: Option<u64>) {
        self.0.lock().expect("nobody panicked").push(format!("{name} {done} of {total:?}"));
    }

    fn warn(&self, what: &str) {
        self.0.lock().expect("nobody panicked").push(format!("warning: {what}"));
    }
}

impl Ear {
    fn heard(&self, words: &str) -> bool {
        self.0.lock().expect("nobody panicked").iter().any(|each| each.contains(words))
    }
}

/// 700 000 bytes, others for each number.
fn bytes(number: u8) -> Vec<u8> {
    (0..700_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ number).collect()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn medium(url: &str, bytes: &[u8]) -> Medium {
    let checksum = Checksum::Digest { algorithm: Algorithm::Sha256, hex: hex(bytes) };
    Medium { location: Location::Url(url.to_owned()), checksum }
}

struct Cache {
    folder: tempfile::TempDir,
    store: Store,
    ear: Ear,
}

impl Cache {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let patience = Patience { pause: Duration::from_millis(5), ..Patience::default() };
        let store = Store::new(folder.path().join("media")).with_patience(patience);
        Self { folder, store, ear: Ear::default() }
    }

    async fn bring(&self, medium: &Medium) -> Result<(How, Vec<u8>), MediaError> {
        self.bring_from(medium, &[]).await
    }

    async fn bring_from(&self, medium: &Medium, mirrors: &[String]) -> Result<(How, Vec<u8>), MediaError> {
        let brought = self.store.bring(medium, mirrors, &self.ear).await?;
        let content = std::fs::read(&brought.path).expect("it is here");
        assert_eq!(content.len() as u64, brought.size);
        Ok((brought.how, content))
    }

    async fn refused(&self, medium: &Medium) -> String {
        self.bring(medium).await.expect_err("refused").to_string()
    }

    /// What is in the cache but for its locks.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.store.folder()).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".lock")).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_medium_is_downloaded_once_and_compared_each_time_it_is_taken() {
    let content = bytes(1);
    let web = Web::with([("a.iso", Page::new(content.clone()))]).await;
    let (cache, medium) = (Cache::new(), medium(&web.url("a.iso"), &content));
    assert!(cache.store.held(&medium).is_none());
    assert_eq!(cache.bring(&medium).await.expect("brought"), (How::Downloaded, content.clone()));
    assert_eq!(cache.bring(&medium).await.expect("brought"), (How::Cached, content.clone()));
    assert_eq!(web.ranges(), [None]);
    assert_eq!(cache.files(), [format!("sha256-{}", hex(&content))]);
    assert!(cache.ear.heard("a.iso 700000 of Some(700000)"), "{:?}", cache.ear);
    // Somebody has changed it: seen, told, and downloaded again.
    let held = cache.store.held(&medium).expect("held");
    assert!(std::fs::metadata(&held).expect("there").permissions().readonly());
    std::fs::remove_file(&held).expect("ours");
    std::fs::write(&held, bytes(2)).expect("ours");
    assert_eq!(cache.bring(&medium).await.expect("brought"), (How::Downloaded, content));
    assert!(cache.ear.heard("was damaged"), "{:?}", cache.ear);
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let content = bytes(3);
    let web = Web::with([(
        "a.iso",
        Page { breaks: [200_000, 100_000, 0, 0].into(), ..Page::new(content.clone()) },
    )])
    .await;
    let (cache, medium) = (Cache::new(), medium(&web.url("a.iso"), &content));
    assert_eq!(cache.bring(&medium).await.expect("brought").1, content);
    let calls = web.gets();
    let ranges: Vec<&str> = calls.iter().map(|call| call.range.as_deref().unwrap_or("all")).collect();
    assert_eq!(ranges, ["all", "bytes=200000-", "bytes=300000-", "bytes=300000-", "bytes=300000-"]);
    assert!(calls.iter().skip(1).all(|call| call.if_range.as_deref() == Some("\"one\"")), "{calls:?}");
    assert!(cache.ear.heard("breaks off after 200000 of 700000 bytes"), "{:?}", cache.ear);
}

#[tokio::test]
async fn a_later_build_goes_on_with_what_an_interrupted_one_has_downloaded() {
    let content = bytes(4);
    let web = Web::with([("a.iso", Page { gate: Some(300_000), ..Page::new(content.clone()) })]).await;
    let (cache, medium) = (Cache::new(), medium(&web.url("a.iso"), &content));
    // Its first batch is written when a megabyte is there, or when the connection breaks: so it breaks, then waits.
    web.change("a.iso", |page| page.breaks = [250_000].into());
    let interrupted = {
        let (store, medium) = (cache.store.clone(), medium.clone());
        tokio::spawn(async move { store.bring(&medium, &[], &forge::media::Unwatched).await })
    };
    while web.ranges().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    interrupted.abort();
    assert!(interrupted.await.expect_err("aborted").is_cancelled());
    web.open();
    assert_eq!(cache.bring(&medium).await.expect("brought"), (How::Downloaded, content));
    let ranges = web.ranges();
    assert_eq!(ranges.last().cloned().flatten().as_deref(), Some("bytes=250000-"), "{ranges:?}");
}

#[tokio::test]
async fn a_file_that_was_replaced_in_the_middle_is_downloaded_from_the_start() {
    let (before, after) = (bytes(5), bytes(6));
    // Seen by its ETag, else by its checksum; a server without parts sends the whole anyway.
    for (etag, ranges) in [(Some("\"two\""), true), (None, true), (None, false)] {
        let next = Page { etag, ranges, ..Page::new(after.clone()) };
        let first = Page { etag: etag.map(|_| "\"one\""), ranges, ..Page::new(before.clone()) };
        let page = Page { breaks: [250_000].into(), next: Some(Box::new(next)), ..first };
        let web = Web::with([("a.iso", page)]).await;
        let cache = Cache::new();
        let brought = cache.bring(&medium(&web.url("a.iso"), &after)).await;
        assert_eq!(brought.expect("brought").1, after, "{etag:?} {ranges}");
        assert_eq!(cache.files().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_knows_no_parts_is_asked_for_the_whole_again() {
    let content = bytes(7);
    let page = Page { ranges: false, breaks: [200_000, 400_000].into(), ..Page::new(content.clone()) };
    let web = Web::with([("a.iso", page)]).await;
    let (cache, medium) = (Cache::new(), medium(&web.url("a.iso"), &content));
    assert_eq!(cache.bring(&medium).await.expect("brought").1, content);
    assert_eq!(web.ranges().len(), 3);
    // One that never gets further is given up, with what it promised.
    web.change("a.iso", |page| page.breaks = [1000; 9].into());
    std::fs::remove_dir_all(cache.store.folder()).expect("ours");
    let words = cache.refused(&medium).await;
    assert!(words.contains("breaks off after 1000 of 700000 bytes"), "{words}");
    assert_eq!(web.ranges().len(), 3 + 5);
}

#[tokio::test]
async fn a_wrong_length_is_no_proof_of_anything() {
    let content = bytes(8);
    let web = Web::with([("a.iso", Page { promises: 100, ..Page::new(content.clone()) })]).await;
    let cache = Cache::new();
    // The server says itself that there is no more, and the checksum has the last word.
    let right = medium(&web.url("a.iso"), &content);
    assert_eq!(cache.bring(&right).await.expect("brought").1, content);
    let words = cache.refused(&medium(&web.url("a.iso"), &bytes(9))).await;
    assert!(words.contains("is not what its checksum says"), "{words}");
    web.change("a.iso", |page| page.ranges = false);
    let words = Cache::new().refused(&right).await;
    assert!(words.contains("breaks off after 700000 of 700100 bytes"), "{words}");
    // One that can't be true here.
    web.change("a.iso", |page| page.promises = 1 << 60);
    let words = Cache::new().refused(&right).await;
    assert!(words.contains("there is no space for a.iso") && words.contains("--cache-dir"), "{words}");
}

#[tokio::test]
async fn what_is_not_the_medium_is_refused_with_both_sums_and_not_kept() {
    let content = bytes(10);
    let web = Web::with([("a.iso", Page::new(content.clone()))]).await;
    let (cache, other) = (Cache::new(), bytes(11));
    let words = cache.refused(&medium(&web.url("a.iso"), &other)).await;
    for part in
        [web.url("a.iso"), hex(&content), hex(&other), "sha256".into(), "put its new `checksum`".into()]
    {
        assert!(words.contains(&part), "{part}: {words}");
    }
    assert_eq!(cache.files(), Vec::<String>::new());
    // A file of this machine likewise.
    let path = cache.folder.path().join("mine.iso");
    std::fs::write(&path, &content).expect("ours");
    let mine = |sum| Medium { location: Location::File(path.clone()), checksum: sum };
    let sums = cache.folder.path().join("SUMS");
    std::fs::write(&sums, format!("{}  mine.iso\n", hex(&content))).expect("ours");
    for sum in [medium("", &content).checksum, Checksum::File(sums.display().to_string()), Checksum::None] {
        assert_eq!(cache.bring(&mine(sum)).await.expect("brought").0, How::Local);
    }
    let words = cache.refused(&mine(medium("", &other).checksum)).await;
    assert!(
        words.contains("mine.iso") && words.contains(&hex(&other)) && words.contains(&hex(&content)),
        "{words}"
    );
}

#[tokio::test]
async fn refusals_say_what_happened_and_what_to_do() -> anyhow::Result<()> {
    let content = bytes(12);
    let web = Web::with([
        ("gzip.iso", Page { encoding: Some("gzip"), ..Page::new(content.clone()) }),
        ("locked.iso", Page { status: (403, 99), ..Page::new(content.clone()) }),
        ("down.iso", Page { status: (503, 99), ..Page::new(content.clone()) }),
    ])
    .await;
    let site = LabSite::in_name_only().await?;
    for (url, words) in [
        (web.url("gone.iso"), "answers 404 Not Found: the publisher has removed or renamed it"),
        (web.url("locked.iso"), "answers 403 Forbidden: it needs a login"),
        (web.url("down.iso"), "answers 503"),
        (web.url("gzip.iso"), "is sent as `gzip`"),
        ("http://127.0.0.1:9/a.iso".into(), "can't be read: no connection"),
        (format!("{}/a.iso", site.lab.url()), "shows a certificate that is not trusted"),
    ] {
        let cache = Cache::new();
        let told = cache.refused(&medium(&url, &content)).await;
        assert!(told.contains(words) && told.contains(&url), "{words}: {told}");
        assert!(!cache.files().iter().any(|name| name.starts_with("sha256-") && !name.contains(".part")));
    }
    // What passes by itself is waited for; a server that says no is believed at once.
    let tries = |name: &str| web.gets().iter().filter(|call| call.uri.ends_with(name)).count();
    assert_eq!((tries("down.iso"), tries("locked.iso")), (5, 1));
    web.change("down.iso", |page| page.status = (503, 2));
    assert_eq!(Cache::new().bring(&medium(&web.url("down.iso"), &content)).await?.1, content);
    site.close().await;
    Ok(())
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_for_lack_of_progress() {
    let content = bytes(13);
    let web =
        Web::with([("a.iso", Page { gate: Some(100_000), ranges: false, ..Page::new(content.clone()) })])
            .await;
    let cache = Cache::new();
    let patience = Patience { stall: Duration::from_secs(1), tries: 2, ..Patience::default() };
    let store = cache.store.clone().with_patience(patience);
    let medium = medium(&web.url("a.iso"), &content);
    let error = store.bring(&medium, &[], &cache.ear).await.expect_err("it is silent");
    assert!(error.to_string().contains("sent nothing for 1 s, after"), "{error}");
}

#[tokio::test]
async fn mirrors_are_asked_in_their_order_until_one_has_it() {
    let (content, other) = (bytes(14), bytes(15));
    let web = Web::with([
        ("one/a.iso", Page { breaks: [200_000; 9].into(), ranges: false, ..Page::new(content.clone()) }),
        ("two/a.iso", Page::new(other)),
        ("three/a.iso", Page::new(content.clone())),
    ])
    .await;
    let cache = Cache::new();
    let medium = medium(&web.url("none/a.iso"), &content);
    let mirrors: Vec<String> =
        ["one", "two", "three"].map(|mirror| web.url(&format!("{mirror}/a.iso"))).into();
    let words = cache.bring_from(&medium, &mirrors[..2]).await.expect_err("none has it").to_string();
    for part in ["none of 3 mirrors has a.iso", "404", "breaks off", "not what its checksum says"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert_eq!(cache.bring_from(&medium, &mirrors).await.expect("brought"), (How::Downloaded, content));
    assert!(cache.ear.heard("asking the next mirror"), "{:?}", cache.ear);
}

#[tokio::test]
async fn publishers_sums_are_asked_and_remembered_for_when_they_can_not_be() {
    let content = bytes(16);
    let sums = format!("{}  other.iso\n{} *a.iso\n", "0".repeat(64), hex(&content));
    let web = Web::with([("a.iso", Page::new(content.clone())), ("SHA256SUMS", Page::new(sums))]).await;
    let cache = Cache::new();
    let place = web.url("SHA256SUMS");
    let ask = |wanted: &'static str| {
        let (store, place, ear) = (&cache.store, &place, &cache.ear);
        async move { store.sum(place, &format!("https://elsewhere/{wanted}"), ear).await }
    };
    let expected = Checksum::Digest { algorithm: Algorithm::Sha256, hex: hex(&content) };
    assert_eq!(ask("a.iso").await.expect("there"), expected);
    let words = ask("b.iso").await.expect_err("it is not there").to_string();
    assert!(words.contains("has no checksum of b.iso, only of other.iso, a.iso"), "{words}");
    web.change("SHA256SUMS", |page| page.status = (503, 99));
    assert_eq!(ask("a.iso").await.expect("remembered"), expected);
    assert!(cache.ear.heard("warning: ") && cache.ear.heard("the copy of it in the cache is taken"));
    let medium =
        Medium { location: Location::Url(web.url("a.iso")), checksum: Checksum::File(place.clone()) };
    assert_eq!(cache.bring(&medium).await.expect("brought").1, content);
}

#[tokio::test]
async fn without_a_checksum_the_newest_is_taken_and_downloaded_only_when_it_is_new() {
    let (before, after) = (bytes(17), bytes(18));
    let web = Web::with([("a.iso", Page { breaks: [100_000].into(), ..Page::new(before.clone()) })]).await;
    let cache = Cache::new();
    let medium = Medium { location: Location::Url(web.url("a.iso")), checksum: Checksum::None };
    assert_eq!(cache.bring(&medium).await.expect("brought"), (How::Downloaded, before.clone()));
    assert_eq!(cache.bring(&medium).await.expect("brought"), (How::Cached, before.clone()));
    // A build that runs, or was kept, lies on the file that it got: it stays as it is.
    let in_use = cache.store.held(&medium).expect("held");
    web.change("a.iso", |page| *page = Page { etag: Some("\"two\""), ..Page::new(after.clone()) });
    assert_eq!(cache.bring(&medium).await.expect("brought"), (How::Downloaded, after.clone()));
    assert_eq!(std::fs::read(&in_use).expect("still there"), before);
    let newest = cache.store.held(&medium).expect("held");
    assert!(newest.display().to_string().ends_with(&hex(&after)), "{newest:?}");
    // The publisher takes it back: the same bytes are the same file, which is not touched.
    let inode =
        |path: &std::path::Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().expect("there"));
    let was = inode(&in_use);
    web.change("a.iso", |page| *page = Page { etag: Some("\"three\""), ..Page::new(before.clone()) });
    assert_eq!(cache.bring(&medium).await.expect("brought"), (How::Downloaded, before.clone()));
    assert_eq!((cache.store.held(&medium), inode(&in_use)), (Some(in_use.clone()), was));
    assert_eq!(cache.files().len(), 3, "two files and the notes: {:?}", cache.files());
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_that_want_the_same_medium_share_one_download() {
    let content = bytes(19);
    let web = Web::with([("a.iso", Page { gate: Some(100_000), ..Page::new(content.clone()) })]).await;
    let cache = Cache::new();
    let medium = medium(&web.url("a.iso"), &content);
    let ears: Vec<Arc<Ear>> = (0..4).map(|_| Arc::default()).collect();
    let tasks: Vec<_> = ears
        .iter()
        .map(|ear| {
            // Each with a store of its own, as another process has.
            let (store, medium, ear) =
                (Store::new(cache.store.folder().to_owned()), medium.clone(), ear.clone());
            tokio::spawn(async move { store.bring(&medium, &[], ear.as_ref()).await })
        })
        .collect();
    let waiting = || ears.iter().filter(|ear| ear.heard("another build downloads a.iso")).count();
    while waiting() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    web.open();
    let mut hows = Vec::new();
    for task in tasks {
        hows.push(task.await.expect("no panic").expect("brought").how);
    }
    assert_eq!(hows.iter().filter(|how| **how == How::Downloaded).count(), 1);
    assert_eq!(web.ranges(), [None]);
}

#[tokio::test]
async fn a_file_is_measured_without_being_downloaded() {
    let content = bytes(20);
    let web = Web::with([
        ("head.iso", Page::new(content.clone())),
        ("range.iso", Page { head: false, ..Page::new(content.clone()) }),
        ("plain.iso", Page { head: false, ranges: false, ..Page::new(content.clone()) }),
    ])
    .await;
    let cache = Cache::new();
    for name in ["head.iso", "range.iso", "plain.iso"] {
        assert_eq!(cache.store.probe(&web.url(name)).await.expect("asked"), Some(700_000), "{name}");
    }
    let error = cache.store.probe(&web.url("gone.iso")).await.expect_err("gone");
    assert!(error.to_string().contains("404"), "{error}");
    assert_eq!(cache.files(), Vec::<String>::new());
}
