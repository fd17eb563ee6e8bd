//! What goes wrong, on purpose: faults by number of the call, tasks that fail on their way, clocks, nodes that are down,
//! and the rules of the HTTP layer that take time.

use std::io::Read as _;
use std::time::{Duration, Instant};

use forge_lab::{Clock, Fault, Gate, ImportVm, Lab, LabConfig, Scenario, StorageConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{Client, header, read_head};
use super::{fast_lab, lab_with};

const CLONE: &str = "/nodes/pve/qemu/9000/clone";

/// A lab whose time stands until the test moves it; its tasks take 100 s.
async fn still_lab() -> anyhow::Result<(Lab, Client)> {
    let task_time = Duration::from_secs(100);
    let (lab, client) =
        lab_with(LabConfig { run_guests: false, clock: Clock::Explicit, task_time, ..LabConfig::default() })
            .await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    Ok((lab, client))
}

/// Moves the lab's time in small steps while something waits for it.
async fn moving<T>(lab: &Lab, waits: impl Future<Output = T>) -> T {
    tokio::pin!(waits);
    loop {
        tokio::select! {
            value = &mut waits => return value,
            () = tokio::time::sleep(Duration::from_millis(2)) => lab.advance(Duration::from_secs(1)),
        }
    }
}

#[tokio::test]
async fn a_task_stands_until_the_test_moves_it_and_fails_where_it_is_told_to() -> anyhow::Result<()> {
    let (lab, client) = still_lab().await?;
    let text = "clone failed: copy failed: No space left on device".to_owned();
    lab.faults()
        .on("POST", "/nodes/*/qemu/*/clone")
        .then(Fault::TaskFailAt { percent: 40.0, text: text.clone() });
    let failing = client.call("POST", CLONE, "newid=9101").await?;
    assert_eq!(lab.vm(9101).and_then(|vm| vm.lock).as_deref(), Some("clone"));
    lab.advance(Duration::from_secs(39));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(lab.vm(9101).is_some(), "39 % are done");
    let begin = lab.running_tasks();
    assert_eq!(begin, [("qmclone".to_owned(), "9000".to_owned())]);
    let (exit, log) = moving(&lab, client.task(&failing)).await?;
    assert_eq!(
        (exit.as_str(), log.last().map(String::as_str)),
        (text.as_str(), Some(format!("TASK ERROR: {text}").as_str()))
    );
    assert!(lab.vm(9101).is_none(), "a clone that failed leaves nothing");
    assert_eq!(moving(&lab, client.done("POST", CLONE, "newid=9102")).await?, "OK");

    lab.faults().on("POST", "/nodes/*/qemu/*/status/start").then(Fault::TaskHang);
    let hanging = client.call("POST", "/nodes/pve/qemu/9102/status/start", "").await?;
    lab.advance(Duration::from_secs(1000));
    let upid = hanging.data().as_str().unwrap_or_default().to_owned();
    assert_eq!(client.get(&format!("/nodes/pve/tasks/{upid}/status")).await?.data()["status"], "running");
    assert_eq!(client.call("DELETE", &format!("/nodes/pve/tasks/{upid}"), "").await?.status, 200);
    assert_eq!(client.task(&hanging).await?.0, "received interrupt");

    lab.faults().on("POST", "/nodes/*/qemu/*/template").then(Fault::TaskDie);
    let (exit, log) = moving(&lab, async {
        let dying = client.call("POST", "/nodes/pve/qemu/9102/template", "").await?;
        client.task(&dying).await
    })
    .await?;
    assert_eq!((exit.as_str(), log.len()), ("unexpected status", 0), "{log:?}");
    let paths = ["source=active", "errors=1", "typefilter=qmclone", "statusfilter=ok", "since=4102444800"];
    let mut counts = Vec::new();
    for query in paths {
        counts.push(client.get(&format!("/nodes/pve/tasks?{query}")).await?.json()["total"].clone());
    }
    assert_eq!(counts, [0, 3, 2, 1, 0]);
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_call_that_takes_30_s_ends_with_596_and_is_done_all_the_same() -> anyhow::Result<()> {
    let (lab, client) = still_lab().await?;
    let gate = Gate::new();
    lab.faults().on("PUT", "/nodes/*/qemu/*/config").then(Fault::Hold(gate.clone()));
    let put = async { client.call("PUT", "/nodes/pve/qemu/9000/config", "description=late").await };
    let waits = async {
        gate.reached().await;
        lab.advance(Duration::from_secs(29));
        tokio::time::sleep(Duration::from_millis(50)).await;
        lab.advance(Duration::from_secs(1));
    };
    let (reply, ()) = tokio::join!(put, waits);
    let reply = reply?;
    assert_eq!((reply.line().as_str(), reply.body.as_str()), ("596 Connection timed out", ""));
    assert_eq!(lab.vm(9000).expect("there").description, "");
    gate.release();
    for _ in 0..500 {
        if lab.vm(9000).expect("there").description == "late" {
            lab.stop().await;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the change is never made")
}

#[tokio::test]
async fn answers_are_late_or_break_off_and_uploads_are_slow() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.faults().on("GET", "/version").call(1).then(Fault::Truncate { bytes: 10 });
    let mut stream = client.connect().await?;
    stream.write_all(client.head("GET", "/version", "").as_bytes()).await?;
    let (head, mut rest) = read_head(&mut stream).await?;
    let promised: usize = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    // The connection ends without TLS's goodbye.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(promised > 10 && rest.len() <= 10, "{promised} promised, {} came", rest.len());

    lab.faults().on("GET", "/version").call(1).then(Fault::DelayAfter(Duration::from_millis(300)));
    let begin = Instant::now();
    assert_eq!(client.get("/version").await?.status, 200);
    assert!(begin.elapsed() >= Duration::from_millis(300));

    lab.faults()
        .on("POST", "/nodes/*/storage/*/upload")
        .then(Fault::SlowUpload { bytes_per_second: 100_000 });
    let data = "x".repeat(50_000);
    let part = |head: &str, data: &str| {
        format!("--B\r\nContent-Disposition: form-data; name={head}\r\n\r\n{data}\r\n")
    };
    let body =
        format!("{}{}--B--\r\n", part("\"content\"", "iso"), part("\"filename\"; filename=\"a.iso\"", &data));
    let more = format!("Content-Type: multipart/form-data; boundary=B\r\nContent-Length: {}\r\n", body.len());
    let head = client.head("POST", "/nodes/pve/storage/local/upload", &more);
    let begin = Instant::now();
    let reply = client.send(format!("{head}{body}").as_bytes()).await?;
    assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());
    assert_eq!(client.task(&reply).await?.0, "OK");

    // A refusal comes before the body.
    lab.faults()
        .on("POST", "/nodes/*/storage/*/upload")
        .then(Fault::Refuse { status: 501, reason: "no".to_owned() });
    let head = client.head(
        "POST",
        "/nodes/pve/storage/local/upload",
        &more.replace(&body.len().to_string(), "999999999"),
    );
    assert_eq!(client.send(head.as_bytes()).await?.line(), "501 no");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_stalled_upload_is_cut_off_and_leaves_no_spool_file() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let config =
        LabConfig { run_guests: false, state_dir: Some(folder.path().to_path_buf()), ..LabConfig::default() };
    let (lab, client) = lab_with(config).await?;
    let more = "Content-Type: multipart/form-data; boundary=B\r\nContent-Length: 100000\r\n";
    let mut stream = client.connect().await?;
    let part =
        "--B\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"a.iso\"\r\n\r\nsome bytes";
    let head = client.head("POST", "/nodes/pve/storage/local/upload?content=iso", more);
    stream.write_all(format!("{head}{part}").as_bytes()).await?;
    let begin = Instant::now();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await?;
    assert!(begin.elapsed() > Duration::from_secs(4) && rest.is_empty(), "{:?} {rest:?}", begin.elapsed());
    let spool = folder.path().join("run/spool");
    assert_eq!(std::fs::read_dir(spool)?.count(), 0);
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_http_layer_has_its_limits_forms_and_ways() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    let many: String = (0..70).map(|number| format!("X-{number}: 1\r\n")).collect();
    let many = client.send(client.head("GET", "/version", &many).as_bytes()).await?;
    assert_eq!(many.line(), "501 too many http header lines (> 64)");
    let long = format!("X-Long: {}\r\n", "y".repeat(9000));
    assert_eq!(
        client.send(client.head("GET", "/version", &long).as_bytes()).await?.line(),
        "501 http header too large"
    );
    let large = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 600000\r\n";
    assert_eq!(
        client.send(client.head("POST", "/pools", large).as_bytes()).await?.line(),
        "501 for data too large"
    );

    let packed = client.head("GET", "/access/permissions", "Accept-Encoding: gzip\r\n");
    let mut stream = client.connect().await?;
    stream.write_all(packed.as_bytes()).await?;
    let (head, mut body) = read_head(&mut stream).await?;
    assert_eq!(header(&head, "content-encoding").as_deref(), Some("gzip"), "{head}");
    let length: usize = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while body.len() < length {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await?;
        body.extend(&buffer[..read]);
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(body.as_slice()).read_to_string(&mut text)?;
    assert!(text.contains("VM.Clone"));

    let extjs = |path: &str| client.head("GET", path, "").replace("/api2/json", "/api2/extjs");
    let good = client.send(extjs("/version").as_bytes()).await?;
    assert_eq!((good.status, &good.json()["success"]), (200, &json!(1)));
    let bad = client.send(extjs("/nodes/pve/qemu/999/config").as_bytes()).await?;
    assert_eq!(bad.line(), "200 OK");
    let text = "Configuration file 'nodes/pve/qemu-server/999.conf' does not exist\n";
    assert_eq!(bad.json(), json!({"success": 0, "status": 500, "message": text, "data": null}));

    let mut plain = TcpStream::connect(lab.address()).await?;
    plain.write_all(format!("GET /x HTTP/1.1\r\nHost: {}\r\n\r\n", lab.address()).as_bytes()).await?;
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await?;
    assert!(
        answer.starts_with(&format!(
            "HTTP/1.1 301 Moved Permanently\r\nLocation: https://{}/x\r\n",
            lab.address()
        )),
        "{answer}"
    );

    // What pvedaemon answers says both; what pveproxy answers itself keeps the connection, a hundred times.
    let told = client.get("/cluster/resources").await?;
    assert!(told.head.to_lowercase().contains("connection: keep-alive"), "{}", told.head);
    let mut stream = client.connect().await?;
    for number in 1..=100 {
        stream.write_all(client.head("GET", "/version", "").as_bytes()).await?;
        let (head, mut body) = read_head(&mut stream).await?;
        let length: usize = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while body.len() < length {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await?;
            anyhow::ensure!(read > 0, "cut at request {number}");
            body.extend(&buffer[..read]);
        }
        let closes = head.to_lowercase().contains("connection: close");
        assert_eq!(closes, number == 100, "request {number}: {head}");
    }
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_scenario_file_sets_up_the_lab_and_its_faults() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/small-cluster.toml"))?;
    let scenario = Scenario::parse(&text)?;
    let mut config = LabConfig { run_guests: false, agent_ping: Duration::ZERO, ..LabConfig::default() };
    scenario.configure(&mut config)?;
    let (lab, client) = lab_with(config).await?;
    scenario.fill(&lab, None).await?;
    let nodes = client.get("/nodes").await?.data();
    let status = |name: &str| {
        let all = nodes.as_array().into_iter().flatten();
        all.filter(|node| node["node"] == name).map(|node| node["status"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((status("pve1"), status("pve3")), (vec![json!("online")], vec![json!("offline")]));
    let down = client.get("/nodes/pve3/qemu").await?;
    assert_eq!((down.line().as_str(), down.body.as_str()), ("595 No route to host", ""));
    let ci = Client::new(&lab, "ann@pve!ci", "00000000-0000-4000-8000-000000000000")?;
    assert_eq!(ci.get("/storage").await?.data().as_array().map(Vec::len), Some(2));
    let machine = jiff::Timestamp::now().as_second();
    let lab_s = client.get("/nodes/pve1/time").await?.data()["time"].as_i64().unwrap_or(0);
    assert!((85..=95).contains(&(lab_s - machine)), "{lab_s} {machine}");

    for (vmid, node) in [(101, "pve1"), (102, "pve2")] {
        lab.import_vm(ImportVm { vmid, node: Some(node.to_owned()), ..ImportVm::default() }).await?;
    }
    let ask = |node: &str, vmid: u32| format!("/nodes/{node}/qemu/{vmid}/agent/network-get-interfaces");
    for (node, vmid) in [("pve1", 101), ("pve2", 102)] {
        for _ in 0..5 {
            // Neither runs, so it is the number of the call and the node that count here.
            assert_eq!(client.get(&ask(node, vmid)).await?.line(), format!("500 VM {vmid} is not running"));
        }
    }
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_rule_counts_per_node_and_holds_from_a_call_on() -> anyhow::Result<()> {
    let config = LabConfig {
        run_guests: false,
        nodes: vec!["pve1".to_owned(), "pve2".to_owned()],
        storages: vec![StorageConfig::everything("local")],
        ..LabConfig::default()
    };
    let (lab, client) = lab_with(config).await?;
    let text = "[[fault]]\non = \"GET /nodes/*/qemu\"\nnode = \"pve2\"\nfrom = 2\n\
                then = { refuse = { status = 599, reason = \"Too many redirections\" } }\n\
                [[fault]]\non = \"* /version\"\nthen = { clock-skew = 3600 }\n";
    Scenario::parse(text)?.fill(&lab, None).await?;
    let mut lines = Vec::new();
    for node in ["pve1", "pve2", "pve1", "pve2", "pve2"] {
        lines.push(client.get(&format!("/nodes/{node}/qemu")).await?.status);
    }
    assert_eq!(lines, [200, 200, 200, 599, 599]);
    let before = jiff::Timestamp::now().as_second();
    client.get("/version").await?;
    let now = client.get("/nodes/pve1/time").await?.data()["time"].as_i64().unwrap_or(0);
    assert!(now - before >= 3600);
    lab.stop().await;
    Ok(())
}
