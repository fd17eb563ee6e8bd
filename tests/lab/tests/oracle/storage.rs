//! Storages: upload, download, limits, deleting, pruning (upload.txt, download-import-pools-tasks.txt).

use std::net::SocketAddr;

use forge_lab::{LabConfig, StorageConfig};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::client::{Client, Reply};
use super::{fast_lab, lab_with};

const UPLOAD: &str = "/nodes/pve/storage/local/upload";
const BAD: &str = "400 Parameter verification failed.";

fn field(name: &str, value: &str) -> String {
    format!("Content-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}")
}

fn file(name: &str, data: &str) -> String {
    format!(
        "Content-Disposition: form-data; name=\"filename\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n{data}"
    )
}

async fn upload(client: &Client, path: &str, boundary: &str, parts: &[String]) -> anyhow::Result<Reply> {
    let bare = boundary.trim_matches('"');
    let body: String = parts.iter().map(|part| format!("--{bare}\r\n{part}\r\n")).collect();
    let body = format!("{body}--{bare}--\r\n");
    let more = format!(
        "Content-Type: multipart/form-data; boundary={boundary}\r\nContent-Length: {}\r\n",
        body.len()
    );
    client.send(format!("{}{body}", client.head("POST", path, &more)).as_bytes()).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn uploads_answer_as_a_real_server() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    let data = "x".repeat(100_000);
    let sum = hex(&Sha256::digest(data.as_bytes()));
    let iso = || field("content", "iso");

    let reply = upload(&client, UPLOAD, "XyZ", &[iso(), file("seed.iso", &data)]).await?;
    let upid = reply.data().as_str().unwrap_or_default().to_owned();
    assert!(upid.contains(":imgcopy::automation@pve!forge:"), "{upid}");
    let (exit, log) = client.task(&reply).await?;
    assert_eq!(exit, "OK");
    let spool = log[0].strip_prefix("starting file import from: ").unwrap_or_default().to_owned();
    assert!(spool.starts_with("/var/tmp/pveupload-"), "{log:?}");
    assert_eq!(
        log[1..],
        [
            "target node: pve".to_owned(),
            "target file: /var/lib/vz/template/iso/seed.iso".to_owned(),
            "file size is: 100000".to_owned(),
            format!("command: cp -- {spool} /var/lib/vz/template/iso/seed.iso"),
            "finished file import successfully".to_owned(),
            "TASK OK".to_owned(),
        ]
    );
    let sums = |sum: &str| {
        [iso(), field("checksum-algorithm", "sha256"), field("checksum", sum), file("seed2.iso", &data)]
    };
    let good = upload(&client, UPLOAD, "B", &sums(&sum)).await?;
    assert_eq!(client.task(&good).await?.1[1], "calculating checksum...OK, checksum verified");
    let zeros = "0".repeat(64);
    let wrong = upload(&client, UPLOAD, "B", &sums(&zeros)).await?;
    assert_eq!(client.task(&wrong).await?.0, format!("checksum mismatch: got '{sum}' != expect '{zeros}'"));
    let image =
        upload(&client, UPLOAD, "B", &[field("content", "import"), file("disk.qcow2", &data)]).await?;
    let (exit, log) = client.task(&image).await?;
    assert!(
        exit.starts_with("qemu-img: Could not open '/var/tmp/pveupload-")
            && exit.ends_with("': Image is not in qcow2 format"),
        "{exit}"
    );
    assert_eq!(log.len(), 3);
    for (path, parts) in [
        (format!("{UPLOAD}?content=iso"), vec![file("seed6.iso", &data)]),
        (UPLOAD.to_owned(), vec![iso(), file("my seed.iso", &data)]),
        (UPLOAD.to_owned(), vec![iso(), file("tiny.iso", "")]),
        (UPLOAD.to_owned(), vec![field("content", "import"), file("disk.raw", &data)]),
    ] {
        let reply = upload(&client, &path, "B", &parts).await?;
        assert_eq!(client.task(&reply).await?.0, "OK", "{path}");
    }

    let failed = "500 upload failed at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 1370.";
    let lower = |part: String| part.replace("Content-Disposition", "content-disposition");
    let turned = "Content-Type: x/y\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"q.iso\"\r\n\r\nabc";
    let cases = [
        (
            "B",
            vec![file("a.iso", &data)],
            BAD,
            json!({"content": "property is missing and it is not optional"}),
        ),
        (
            "B",
            vec![field("checksum", "00"), field("checksum-algorithm", "sha256"), iso(), file("a.iso", "x")],
            "400 Bad Request",
            Value::Null,
        ),
        ("B", vec![iso(), file("seed.txt", "x")], BAD, json!({"filename": "wrong file extension"})),
        (
            "B",
            vec![field("content", "snippets"), file("a.yaml", "x")],
            BAD,
            json!({"content": "value 'snippets' does not have a value in the enumeration 'iso, vztmpl, import'"}),
        ),
        ("B", vec![iso()], failed, Value::Null),
        (
            "\"B\"",
            vec![iso(), file("q.iso", "abc")],
            "500 upload failed at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 1370.",
            Value::Null,
        ),
        ("B", vec![lower(iso()), lower(file("q.iso", "abc"))], failed, Value::Null),
        ("B", vec![iso(), turned.to_owned()], failed, Value::Null),
    ];
    for (boundary, parts, line, errors) in cases {
        let reply = upload(&client, UPLOAD, boundary, &parts).await?;
        assert_eq!((reply.line().as_str(), reply.json()["errors"].clone()), (line, errors), "{parts:?}");
    }

    let list = client.get("/nodes/pve/storage/local/content?content=iso").await?.data();
    let names: Vec<&str> =
        list.as_array().into_iter().flatten().filter_map(|entry| entry["volid"].as_str()).collect();
    assert_eq!(
        names,
        [
            "local:iso/my_seed.iso",
            "local:iso/seed.iso",
            "local:iso/seed2.iso",
            "local:iso/seed6.iso",
            "local:iso/tiny.iso"
        ]
    );
    for path in ["local:iso/seed.iso", "local:iso%2Fseed.iso"] {
        let shown = client.get(&format!("/nodes/pve/storage/local/content/{path}")).await?.data();
        assert_eq!(
            shown,
            json!({"path": "/var/lib/vz/template/iso/seed.iso", "size": 100_352, "used": 102_400, "format": "raw"})
        );
    }
    lab.set_token_access(super::TOKEN, &[("/", &["Datastore.AllocateTemplate", "Datastore.Audit"])]);
    let content = "/nodes/pve/storage/local/content";
    let refused = client.call("DELETE", &format!("{content}/local:iso%2Fseed2.iso"), "").await?;
    assert_eq!(refused.line(), "403 Permission check failed (/storage/local, Datastore.Allocate)");
    lab.set_token_access(super::TOKEN, &[("/", &["Datastore.Allocate", "Datastore.Audit"])]);
    assert_eq!(client.done("DELETE", &format!("{content}/local:iso%2Fseed6.iso"), "").await?, "OK");
    for name in ["local:iso%2Ftiny.iso", "iso%2Fseed2.iso", "local:iso%2Fnosuch.iso"] {
        let reply = client.call("DELETE", &format!("{content}/{name}?delay=5"), "").await?;
        assert_eq!((reply.status, reply.data()), (200, Value::Null), "{name}");
    }
    let refused = upload(&client, UPLOAD, "B", &[iso(), file("seed.iso", "x")]).await?;
    assert_eq!(refused.line(), "403 Permission check failed (/storage/local, Datastore.AllocateTemplate)");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_full_storage_and_a_full_spool_refuse_uploads() -> anyhow::Result<()> {
    let storages =
        vec![StorageConfig::everything("local").with_size(150_000), StorageConfig::of("disks", &["images"])];
    let config = LabConfig { run_guests: false, storages, spool_size: Some(120_000), ..LabConfig::default() };
    let (lab, client) = lab_with(config).await?;
    let iso = || field("content", "iso");
    let first = upload(&client, UPLOAD, "B", &[iso(), file("a.iso", &"x".repeat(100_000))]).await?;
    assert_eq!(client.task(&first).await?.0, "OK");
    let second = upload(&client, UPLOAD, "B", &[iso(), file("b.iso", &"x".repeat(100_000))]).await?;
    assert_eq!(
        client.task(&second).await?.0,
        "import failed: cp: error writing '/var/lib/vz/template/iso/b.iso': No space left on device"
    );
    let again = upload(&client, UPLOAD, "B", &[iso(), file("a.iso", &"y".repeat(100_000))]).await?;
    assert_eq!(client.task(&again).await?.0, "OK", "a file that is replaced makes room");
    let large = upload(&client, UPLOAD, "B", &[iso(), file("c.iso", &"x".repeat(200_000))]).await?;
    assert_eq!(large.line(), "500 write to temporary file failed - No space left on device");
    assert_eq!(large.body, "write to temporary file failed - No space left on device\n");
    let status = client.get("/nodes/pve/storage/local/status").await?.data();
    assert_eq!(
        (&status["total"], status["used"].as_u64() >= Some(100_000)),
        (&json!(150_000), true),
        "{status}"
    );
    let other = upload(&client, "/nodes/pve/storage/disks/upload", "B", &[iso(), file("c.iso", "x")]).await?;
    assert_eq!(other.line(), "500 storage 'disks' does not support 'iso' content");
    lab.stop().await;
    Ok(())
}

/// A web server for one test: `/d.iso`, `/e.iso.gz`, `/moved`, and nothing else.
pub async fn web_server(iso: &'static str, gz: Vec<u8>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let gz = gz.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                let length = stream.read(&mut buffer).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let (line, body) = match path {
                    "/d.iso" => {
                        ("200 OK\r\nContent-Type: application/x-iso9660-image", iso.as_bytes().to_vec())
                    }
                    "/e.iso.gz" => ("200 OK\r\nContent-Type: application/gzip", gz),
                    "/moved" => ("302 Found\r\nLocation: /d.iso", Vec::new()),
                    _ => ("404 File not found", Vec::new()),
                };
                let answer =
                    format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                if !head.starts_with("HEAD") {
                    let _ = stream.write_all(&body).await;
                }
            });
        }
    });
    Ok(address)
}

#[tokio::test]
async fn downloads_answer_as_a_real_server() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    let iso = "the bytes of a disc";
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, iso.as_bytes())?;
    let gz = gz.finish()?;
    let (sum, gz_sum) = (hex(&Sha256::digest(iso.as_bytes())), hex(&Sha256::digest(&gz)));
    let web = web_server(iso, gz).await?;
    let metadata = |path: &str| format!("/nodes/pve/query-url-metadata?url=http%3A//{web}{path}");
    assert_eq!(
        client.get(&metadata("/d.iso")).await?.data(),
        json!({"mimetype": "application/x-iso9660-image", "filename": "d.iso", "size": iso.len()})
    );
    assert_eq!(
        client.get(&metadata("/nope.iso")).await?.line(),
        "500 invalid server response: '404 File not found'"
    );

    let download = "/nodes/pve/storage/local/download-url";
    let zeros = "0".repeat(64);
    let sha = |sum: &str| format!("&checksum-algorithm=sha256&checksum={sum}");
    let cases = [
        ("/d.iso", format!("content=iso&filename=d.iso{}", sha(&sum)), "OK".to_owned()),
        ("/d.iso", format!("content=iso&filename=d.iso{}", sha(&sum)), "OK".to_owned()),
        (
            "/d.iso",
            "content=iso&filename=d.iso".to_owned(),
            "refusing to override existing file '/var/lib/vz/template/iso/d.iso'".to_owned(),
        ),
        (
            "/d.iso",
            format!("content=iso&filename=d.iso{}", sha(&zeros)),
            format!("checksum mismatch: got '{sum}' != expect '{zeros}', aborting"),
        ),
        (
            "/d.iso",
            format!("content=iso&filename=d2.iso{}", sha(&zeros)),
            format!("checksum mismatch: got '{sum}' != expect '{zeros}'"),
        ),
        ("/nope.iso", "content=iso&filename=d3.iso".to_owned(), "download failed: exit code 8".to_owned()),
        ("/moved", "content=iso&filename=d4.iso".to_owned(), "OK".to_owned()),
        ("/e.iso.gz", format!("content=iso&filename=e.iso&compression=gz{}", sha(&gz_sum)), "OK".to_owned()),
        (
            "/e.iso.gz",
            format!("content=iso&filename=e.iso&compression=gz{}", sha(&gz_sum)),
            format!("checksum mismatch: got '{sum}' != expect '{gz_sum}', aborting"),
        ),
    ];
    for (path, form, outcome) in cases {
        assert_eq!(
            client.done("POST", download, &format!("url=http%3A//{web}{path}&{form}")).await?,
            outcome,
            "{path} {form}"
        );
    }
    for (form, errors) in [
        ("content=iso&filename=img.qcow2", json!({"filename": "wrong file extension"})),
        (
            "content=iso&filename=d9.iso&checksum=00",
            json!({"checksum-algorithm": "missing property required by 'checksum'"}),
        ),
    ] {
        let reply = client.call("POST", download, &format!("url=http%3A//{web}/d.iso&{form}")).await?;
        assert_eq!((reply.line().as_str(), reply.json()["errors"].clone()), (BAD, errors));
    }
    lab.set_token_access(super::TOKEN, &[("/", &["Datastore.AllocateTemplate"])]);
    assert_eq!(client.get(&metadata("/d.iso")).await?.line(), "403 Permission check failed");
    assert_eq!(
        client
            .call("POST", download, &format!("url=http%3A//{web}/d.iso&content=iso&filename=x.iso"))
            .await?
            .line(),
        "403 Permission check failed"
    );
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn storages_are_per_node_or_shared_and_their_backups_are_pruned() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut fast = StorageConfig::of("fast", &["images"]);
    fast.nodes = Some(vec!["pve2".to_owned()]);
    let config = LabConfig {
        run_guests: false,
        nodes: vec!["pve1".to_owned(), "pve2".to_owned()],
        storages: vec![
            StorageConfig::everything("local"),
            StorageConfig::of("nfs", &["iso", "images"]).shared(),
            fast,
        ],
        state_dir: Some(folder.path().to_path_buf()),
        ..LabConfig::default()
    };
    let (lab, client) = lab_with(config).await?;
    let names = |data: Value| -> Vec<String> {
        let all = data.as_array().into_iter().flatten().filter_map(|entry| entry["storage"].as_str());
        all.map(str::to_owned).collect()
    };
    assert_eq!(names(client.get("/nodes/pve1/storage").await?.data()), ["local", "nfs"]);
    assert_eq!(
        names(client.get("/nodes/pve2/storage?content=images").await?.data()),
        ["local", "nfs", "fast"]
    );
    assert_eq!(names(client.get("/storage").await?.data()), ["local", "nfs", "fast"]);
    let far = client.get("/nodes/pve1/storage/fast/status").await?;
    assert_eq!(far.line(), "500 storage 'fast' is not available on node 'pve1'");
    let reply = upload(
        &client,
        "/nodes/pve1/storage/nfs/upload",
        "B",
        &[field("content", "iso"), file("s.iso", "x")],
    )
    .await?;
    assert_eq!(client.task(&reply).await?.0, "OK");
    let seen = client.get("/nodes/pve2/storage/nfs/content").await?.data();
    assert_eq!(seen[0]["volid"], "nfs:iso/s.iso", "shared files are seen by every node");

    let dump = folder.path().join("storage/pve1/local/dump");
    std::fs::create_dir_all(&dump)?;
    for day in 1..=3 {
        std::fs::write(dump.join(format!("vzdump-qemu-100-2026_11_0{day}-08_00_00.vma.zst")), "x")?;
    }
    let prune = "/nodes/pve1/storage/local/prunebackups?prune-backups=keep-last%3D1";
    let marks = client.get(prune).await?.data();
    let marks: Vec<&str> =
        marks.as_array().into_iter().flatten().filter_map(|entry| entry["mark"].as_str()).collect();
    assert_eq!(marks, ["keep", "remove", "remove"]);
    assert_eq!(client.done("DELETE", prune, "").await?, "OK");
    let left = client.get("/nodes/pve1/storage/local/content?content=backup").await?.data();
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
    assert_eq!(left[0]["vmid"], 100);
    lab.stop().await;
    Ok(())
}
