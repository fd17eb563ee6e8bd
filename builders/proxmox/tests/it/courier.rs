//! Media find their way to a storage: once, compared, and by the node itself where it may.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use async_trait::async_trait;
use forge_lab::{Fault, Gate};
use forge_machine::{Growth, PortError};
use forge_proxmox::ProxmoxHypervisor;
use forge_proxmox::api::transfer::sha256_of;
use forge_proxmox::media::{Courier, Fetch, Medium, Origin, Turns};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Bench, bench};

/// Has one file for every URL, and remembers what it was told.
#[derive(Default)]
struct Here {
    file: PathBuf,
    told: Mutex<Vec<String>>,
    fetched: Mutex<usize>,
}

#[async_trait]
impl Fetch for Here {
    async fn fetch(&self, _url: &str, _growth: Option<&Growth>) -> Result<PathBuf, PortError> {
        *self.fetched.lock().expect("nobody panicked") += 1;
        Ok(self.file.clone())
    }

    fn tell(&self, what: &str) {
        self.told.lock().expect("nobody panicked").push(what.to_owned());
    }
}

async fn bring(pve: &ProxmoxHypervisor, here: &Here, medium: &Medium<'_>) -> Result<String, PortError> {
    let turns = Turns::default();
    Courier::new(pve.client(), &turns, "pve", Some("local"), here).await?.bring(medium).await
}

fn calls(bench: &Bench, end: &str) -> usize {
    bench.lab.requests().iter().filter(|call| call.method == "POST" && call.path.ends_with(end)).count()
}

fn write(folder: &Path, name: &str, fill: u8) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, vec![fill; 300_000]).expect("the folder is ours");
    path
}

/// Serves one file to everybody; gives the address.
async fn serve(bytes: Vec<u8>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    bytes.len()
                );
                let _gone = stream.write_all(head.as_bytes()).await;
                if !request[..read].starts_with(b"HEAD") {
                    let _gone = stream.write_all(&bytes).await;
                }
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_file_is_sent_once_and_found_under_its_digest_afterwards() {
    let bench = bench().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "my disc.iso", 1);
    let digest = sha256_of(&file).await.expect("read");
    let here = Here::default();
    for (download, known) in [(false, false), (true, true), (false, true)] {
        let pve = bench.with_media(download);
        let digest = known.then_some(("sha256", digest.as_str()));
        let medium = Medium { origin: Origin::File(&file), digest, content: "iso" };
        let volume = bring(&pve, &here, &medium).await.expect("brought");
        assert_eq!(
            volume,
            format!("local:iso/forge-{}-my_disc.iso", &sha256_of(&file).await.expect("read")[..20])
        );
        assert_eq!(calls(&bench, "/upload"), 1);
    }
    assert!(here.told.lock().expect("nobody panicked").iter().any(|told| told.contains("100 % of 0 MiB")));
    bench.lab.stop().await;
}

#[tokio::test]
async fn builds_that_want_the_same_file_share_one_transfer() {
    let bench = bench().await;
    let pve = bench.with_media(false);
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "shared.iso", 2);
    let (here, turns) = (Here::default(), Turns::default());
    let one = async {
        let courier = Courier::new(pve.client(), &turns, "pve", None, &here).await.expect("asked");
        courier.bring(&Medium { origin: Origin::File(&file), digest: None, content: "iso" }).await
    };
    let again = async {
        let courier = Courier::new(pve.client(), &turns, "pve", None, &here).await.expect("asked");
        courier.bring(&Medium { origin: Origin::File(&file), digest: None, content: "iso" }).await
    };
    let (one, again) = tokio::join!(one, again);
    assert_eq!(one.expect("brought"), again.expect("brought"));
    assert_eq!(calls(&bench, "/upload"), 1);
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_download_that_the_node_is_busy_with_for_another_machine_is_waited_for() {
    let bench = bench().await;
    let pve = bench.with_media(true);
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "busy.iso", 8);
    let digest = sha256_of(&file).await.expect("read");
    let url = format!("{}/busy.iso", serve(std::fs::read(&file).expect("read")).await);
    let medium = Medium { origin: Origin::Url(&url), digest: Some(("sha256", &digest)), content: "iso" };
    let gate = Gate::new();
    bench.lab.faults().on("POST", "/nodes/*/storage/*/download-url").then(Fault::TaskHold(gate.clone()));
    // Each has turns of its own, as on two machines.
    let (one, another) = (Here::default(), Here::default());
    let told = || another.told.lock().expect("nobody panicked").join("\n");
    let second = async {
        gate.reached().await;
        let watch = async {
            while !told().contains("pve is busy with downloading forge-") {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            gate.release();
        };
        tokio::join!(bring(&pve, &another, &medium), watch).0
    };
    let (first, second) = tokio::join!(bring(&pve, &one, &medium), second);
    assert_eq!(first.expect("brought"), second.expect("brought"));
    assert!(told().contains("is there; the node compares it") && !told().contains("downloads http"));
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_node_that_may_downloads_by_itself_and_else_the_file_comes_by_way_of_this_machine() {
    let bench = bench().await;
    let folder = tempfile::tempdir().expect("a folder");
    let here = Here { file: write(folder.path(), "x.iso", 3), ..Here::default() };
    let digest = sha256_of(&here.file).await.expect("read");
    let url = format!("{}/a/disc.iso?mirror=1", serve(std::fs::read(&here.file).expect("read")).await);
    let with =
        |url, digest| Medium { origin: Origin::Url(url), digest: Some(("sha256", digest)), content: "iso" };
    let pve = bench.with_media(true);
    let volume = bring(&pve, &here, &with(&url, &digest)).await.expect("brought");
    assert_eq!(volume, format!("local:iso/forge-{}-disc.iso", &digest[..20]));
    assert_eq!((calls(&bench, "/upload"), *here.fetched.lock().expect("nobody panicked")), (0, 0));

    // What is not what its checksum says is refused, and does not come another way.
    let wrong = "0".repeat(64);
    let error = bring(&pve, &here, &with(&url, &wrong)).await.expect_err("refused");
    assert!(format!("{error:?}").contains("checksum mismatch"), "{error:?}");
    assert_eq!(calls(&bench, "/upload"), 0);

    // A node without a way to the web, and a token that may not ask it.
    let other = write(folder.path(), "other.iso", 4);
    let here = Here { file: other.clone(), ..Here::default() };
    let digest = sha256_of(&other).await.expect("read");
    let nowhere = "http://127.0.0.1:9/other.iso";
    bring(&pve, &here, &with(nowhere, &digest)).await.expect("brought");
    assert_eq!((calls(&bench, "/upload"), *here.fetched.lock().expect("nobody panicked")), (1, 1));
    let third = write(folder.path(), "third.iso", 5);
    let here = Here { file: third.clone(), ..Here::default() };
    let digest = sha256_of(&third).await.expect("read");
    bring(&bench.with_media(false), &here, &with(nowhere, &digest)).await.expect("brought");
    assert_eq!((calls(&bench, "/upload"), *here.fetched.lock().expect("nobody panicked")), (2, 1));

    // An address with a login is told to nobody: not to the node, whose tasks write it down, and not to who listens.
    let fourth = write(folder.path(), "fourth.iso", 6);
    let here = Here { file: fourth.clone(), ..Here::default() };
    let digest = sha256_of(&fourth).await.expect("read");
    for (number, login) in ["me:geheim", "token-of-me"].iter().enumerate() {
        let before = calls(&bench, "/download-url");
        let url = format!("http://{login}@127.0.0.1:9/fourth.iso");
        let medium = Medium { origin: Origin::Url(&url), digest: Some(("sha256", &digest)), content: "iso" };
        bring(&pve, &here, &medium).await.expect("brought");
        let told = here.told.lock().expect("nobody panicked").join("\n");
        let says = told.contains("http://127.0.0.1:9/fourth.iso needs a login");
        assert!(says && !told.contains(login), "{told}");
        // What is there already is compared, by an address that nobody asks.
        assert_eq!(calls(&bench, "/download-url") - before, number);
    }
    assert_eq!((calls(&bench, "/upload"), *here.fetched.lock().expect("nobody panicked")), (3, 1));
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_volume_that_is_named_must_be_there_and_be_what_its_checksum_says() {
    let bench = bench().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "there.iso", 6);
    bench.lab.import_iso("local", "there.iso", &file).expect("put there");
    let digest = sha256_of(&file).await.expect("read");
    let wrong = "0".repeat(64);
    let here = Here::default();
    for (volume, digest, download, words) in [
        ("local:iso/there.iso", None, false, ""),
        ("local:iso/there.iso", Some(digest.as_str()), true, ""),
        ("local:iso/there.iso", Some(wrong.as_str()), true, "checksum mismatch"),
        ("local:iso/there.iso", Some(digest.as_str()), false, "Sys.AccessNetwork"),
        ("local:iso/gone.iso", None, true, "does not list it"),
        ("there.iso", None, true, "is no volume"),
    ] {
        let medium = Medium {
            origin: Origin::Volume(volume),
            digest: digest.map(|hex| ("sha256", hex)),
            content: "iso",
        };
        match bring(&bench.with_media(download), &here, &medium).await {
            Ok(brought) => assert_eq!((brought.as_str(), words), (volume, "")),
            Err(error) => {
                assert!(!words.is_empty() && format!("{error:?}").contains(words), "{words}: {error:?}");
            }
        }
    }
    assert_eq!(calls(&bench, "/upload"), 0);
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_file_that_was_changed_on_the_storage_is_not_taken_for_the_one_that_was_put_there() {
    let bench = bench().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "good.iso", 7);
    let digest = sha256_of(&file).await.expect("read");
    let name = format!("forge-{}-good.iso", &digest[..20]);
    let here = Here::default();
    let medium = Medium { origin: Origin::File(&file), digest: None, content: "iso" };
    // Of another size: seen by anybody. Of the same size: by the node.
    for (size, download, words) in
        [(200, false, "remove it from the storage"), (300_000, true, "checksum mismatch")]
    {
        let changed = folder.path().join("changed.iso");
        std::fs::write(&changed, vec![9; size]).expect("ours");
        bench.lab.import_iso("local", &name, &changed).expect("put there");
        let error = bring(&bench.with_media(download), &here, &medium).await.expect_err("refused");
        assert!(format!("{error:?}").contains(words), "{words}: {error:?}");
    }
    assert_eq!(calls(&bench, "/upload"), 0);
    bench.lab.stop().await;
}
