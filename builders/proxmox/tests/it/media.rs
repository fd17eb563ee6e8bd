//! Files on their way to a storage.

use std::sync::Mutex;

use forge_lab::Fault;
use forge_proxmox::api::error::ApiError;
use forge_proxmox::api::transfer::{Upload, sha256_of};

use crate::support::bench;

/// A file of some MiB whose parts differ.
fn file(folder: &std::path::Path, name: &str, mib: usize) -> std::path::PathBuf {
    let path = folder.join(name);
    let bytes: Vec<u8> = (0..mib << 20).map(|at| (at >> 12) as u8 ^ (at % 251) as u8).collect();
    std::fs::write(&path, bytes).expect("the folder is ours");
    path
}

fn nobody(_: u64, _: u64) {}

#[tokio::test]
async fn a_file_is_sent_in_pieces_and_compared_by_the_server() {
    let bench = bench().await;
    let pve = bench.with_media(false);
    let folder = tempfile::tempdir().expect("a folder");
    // No whole number of pieces, and nothing at all.
    let path = file(folder.path(), "some.iso", 5);
    std::fs::OpenOptions::new().write(true).open(&path).expect("ours").set_len((5 << 20) - 77).expect("cut");
    std::fs::write(folder.path().join("empty.iso"), "").expect("written");
    for name in ["some.iso", "empty.iso"] {
        let path = folder.path().join(name);
        let digest = sha256_of(&path).await.expect("read");
        let upload = Upload {
            node: "pve",
            storage: "local",
            content: "iso",
            name,
            file: &path,
            digest: Some(("sha256", &digest)),
            proved: false,
        };
        let told = Mutex::new(Vec::new());
        let tell = |sent, size| told.lock().expect("nobody panicked").push((sent, size));
        let upid = pve.client().upload(&upload, &tell).await.expect("sent").expect("a task");
        pve.client().wait_task(&upid).await.expect("in its place");
        let size = std::fs::metadata(&path).expect("there").len();
        assert_eq!(told.lock().expect("nobody panicked").last(), Some(&(size, size)));
        let there = pve.client().volumes("pve", "local", "iso").await.expect("listed");
        let volume = there.iter().find(|each| each.volid == format!("local:iso/{name}"));
        assert_eq!(volume.map(|each| each.size), Some(size), "{there:?}");
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_file_that_is_not_what_its_checksum_says_never_arrives() {
    let bench = bench().await;
    let pve = bench.with_media(false);
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(folder.path(), "wrong.iso", 2);
    // The first is found out here before the last byte is sent, the second, which is not computed here, by the server.
    for (algorithm, digits) in [("sha256", 64), ("md5", 32)] {
        let digest = "0".repeat(digits);
        let upload = Upload {
            node: "pve",
            storage: "local",
            content: "iso",
            name: "wrong.iso",
            file: &path,
            digest: Some((algorithm, &digest)),
            proved: false,
        };
        let outcome = async {
            match pve.client().upload(&upload, &nobody).await? {
                Some(upid) => pve.client().wait_task(&upid).await,
                None => Ok(()),
            }
        };
        let error = outcome.await.expect_err("refused");
        let ApiError::Refused { detail, .. } = &error else { panic!("{error:?}") };
        assert!(detail.contains("checksum") && detail.contains(&digest), "{detail}");
        let there = pve.client().volumes("pve", "local", "iso").await.expect("listed");
        assert!(!there.iter().any(|each| each.volid.contains("wrong")), "{there:?}");
    }
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_refused_and_a_lost_upload_are_told_from_each_other() {
    let bench = bench().await;
    let pve = bench.with_media(false);
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(folder.path(), "a.iso", 1);
    let upload = Upload {
        node: "pve",
        storage: "local",
        content: "iso",
        name: "a.iso",
        file: &path,
        digest: None,
        proved: false,
    };
    bench.lab.faults().on("POST", "/nodes/*/storage/*/upload").call(1).then(Fault::DoThenDrop);
    let error = pve.client().upload(&upload, &nobody).await.expect_err("the answer is lost");
    assert!(matches!(error, ApiError::Unanswered { .. }), "{error:?}");
    let text = Upload { name: "a.txt", ..upload };
    let error = pve.client().upload(&text, &nobody).await.expect_err("no such ending");
    let ApiError::Refused { detail, .. } = &error else { panic!("{error:?}") };
    assert!(detail.contains("wrong file extension"), "{detail}");
    bench.lab.stop().await;
}
