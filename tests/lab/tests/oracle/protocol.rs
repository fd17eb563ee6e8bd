//! The HTTP layer, authentication and permissions (http-auth-errors.txt, least-privilege-matrix.txt).

use std::time::{Duration, Instant};

use forge_lab::{ImportVm, LEAST_PRIVILEGES_PVE9};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::{Client, header, read_head};
use super::{TOKEN, fast_lab};

#[tokio::test]
async fn status_lines_and_bodies_are_those_of_a_real_server() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    let bad = "400 Parameter verification failed.";
    let additional = "property is not defined in schema and the schema does not allow additional properties";
    let cases = [
        ("GET", "/cluster/nextid", "", "200 OK", json!({"data": "100"})),
        ("GET", "/cluster/nextid?vmid=100", "", "200 OK", json!({"data": "100"})),
        ("GET", "/nodes/pve/storage/local/content", "", "200 OK", json!({"data": []})),
        (
            "GET",
            "/nodes/nosuch/qemu",
            "",
            "500 hostname lookup 'nosuch' failed - failed to get address info for: nosuch: Temporary failure in name resolution",
            json!({"data": null, "message": "hostname lookup 'nosuch' failed - failed to get address info for: nosuch: Temporary failure in name resolution\n"}),
        ),
        (
            "GET",
            "/nodes/pve/qemu/999/config",
            "",
            "500 Configuration file 'nodes/pve/qemu-server/999.conf' does not exist",
            json!({"data": null, "message": "Configuration file 'nodes/pve/qemu-server/999.conf' does not exist\n"}),
        ),
        (
            "GET",
            "/nosuch",
            "",
            "501 Method 'GET /nosuch' not implemented",
            json!({"data": null, "message": "Method 'GET /nosuch' not implemented"}),
        ),
        (
            "POST",
            "/nodes/pve/qemu",
            "vmid=x",
            bad,
            json!({"data": null, "message": "Parameter verification failed.\n", "errors": {"vmid": "type check ('integer') failed - got 'x'"}}),
        ),
        (
            "POST",
            "/nodes/pve/qemu",
            "vmid=50&bogus=1",
            bad,
            json!({"data": null, "message": "Parameter verification failed.\n", "errors": {"vmid": "invalid format - value does not look like a valid VM ID\n", "bogus": additional}}),
        ),
        (
            "POST",
            "/access/ticket",
            "username=automation%40pve&password=pw123456",
            "403 Permission check failed (URI '/access/ticket' not available with API token, need proper ticket.",
            json!({"data": null, "message": "Permission check failed (URI '/access/ticket' not available with API token, need proper ticket.\n)\n"}),
        ),
    ];
    for (method, path, form, line, body) in cases {
        let reply = client.call(method, path, form).await?;
        assert_eq!((reply.line().as_str(), reply.json()), (line, body), "{method} {path} {form}");
        let closes = header(&reply.head, "connection").as_deref() == Some("close");
        assert_eq!(closes, reply.status >= 400, "{}", reply.head);
    }
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_http_layer_refuses_what_pveproxy_refuses() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    let post = |more: &str, body: &str| format!("{}{body}", client.head("POST", "/nodes/pve/qemu", more));
    let cases = [
        (client.head("HEAD", "/version", ""), "501 method 'HEAD' not available", ""),
        (
            format!("{}x=1", client.head("GET", "/version", "Content-Length: 3\r\n")),
            "501 Unexpected content for method 'GET'",
            "Unexpected content for method 'GET'",
        ),
        (
            format!("{}x=1", client.head("DELETE", "/nodes/pve/qemu/9000", "Content-Length: 3\r\n")),
            "501 Unexpected content for method 'DELETE'",
            "Unexpected content for method 'DELETE'",
        ),
        (
            post("Content-Type: text/plain\r\nContent-Length: 6\r\n", "vmid=1"),
            "506 upload 'Content-Type 'text/plain' not implemented",
            "upload 'Content-Type 'text/plain' not implemented",
        ),
        (
            post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            "501 chunked transfer encoding not supported",
            "chunked transfer encoding not supported",
        ),
        (
            post("Content-Type: application/json\r\nContent-Length: 12\r\n", "{\"vmid\":9000"),
            "500 , or } expected while parsing object/hash, at character offset 12 (before \"(end of string)\") at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 934.",
            ", or } expected while parsing object/hash, at character offset 12 (before \"(end of string)\") at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 934.\n",
        ),
    ];
    for (request, line, body) in cases {
        let reply = client.send(request.as_bytes()).await?;
        assert_eq!((reply.line().as_str(), reply.body.as_str()), (line, body));
    }
    lab.stop().await;
    Ok(())
}

/// Its decoder splits at `;` as at `&`: whoever sends a boot order as it is written sets something else.
#[tokio::test]
async fn a_semicolon_as_it_is_separates_parameters() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    let config = "/nodes/pve/qemu/9000/config";
    let reply = client.call("PUT", config, "memory=256;cores=3").await?;
    assert_eq!(reply.line(), "200 OK");
    let set = client.get(config).await?.data();
    assert_eq!((&set["memory"], &set["cores"]), (&json!("256"), &json!(3)));
    let reply = client.call("PUT", config, "memory=512;bogus=1").await?;
    assert_eq!(reply.line(), "400 Parameter verification failed.");
    assert!(reply.json()["errors"]["bogus"].is_string(), "{}", reply.body);
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_fingerprint_is_that_of_the_certificate_and_idle_connections_are_closed() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    let mut stream = client.connect().await?;
    let digest = match stream.get_ref().1.peer_certificates() {
        Some([leaf, ..]) => Sha256::digest(leaf),
        _ => anyhow::bail!("no certificate"),
    };
    let shown: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(shown.join(":"), lab.fingerprint());
    stream.write_all(client.head("GET", "/version", "").as_bytes()).await?;
    let (head, _) = read_head(&mut stream).await?;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let begin = Instant::now();
    let mut rest = Vec::new();
    // A close without TLS's goodbye is an error, and a close all the same.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await?;
    assert!(begin.elapsed() > Duration::from_secs(4), "{:?}", begin.elapsed());
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_401_comes_late_and_empty() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    let stranger = Client { token: None, ..client.clone() };
    let forger = Client { token: Some(format!("PVEAPIToken={TOKEN}=0-0")), ..client };
    let begin = Instant::now();
    let (none, wrong) = tokio::try_join!(stranger.get("/version"), forger.get("/version"))?;
    assert!(begin.elapsed() >= Duration::from_secs(3));
    assert_eq!((none.line().as_str(), none.body.as_str()), ("401 No ticket", ""));
    assert_eq!((wrong.line().as_str(), wrong.body.as_str()), ("401 Authentication failed!", ""));
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_least_privileges_suffice_and_each_missing_one_is_named() -> anyhow::Result<()> {
    let (lab, _) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9400, cloudinit_drive: true, ..ImportVm::default() }).await?;
    let secret = lab.add_token("least@pve!t1", &[("/", LEAST_PRIVILEGES_PVE9)]);
    let client = Client::new(&lab, "least@pve!t1", &secret)?;
    let vm = "/nodes/pve/qemu/9400";
    let missing = "403 Permission check failed (/vms/9400, ";
    let cases = [
        ("VM.Allocate", "POST", format!("{vm}/template"), "", format!("{missing}VM.Allocate)")),
        (
            "VM.Allocate",
            "POST",
            format!("{vm}/clone"),
            "newid=9500",
            "403 Permission check failed".to_owned(),
        ),
        ("VM.Clone", "POST", format!("{vm}/clone"), "newid=9500", format!("{missing}VM.Clone)")),
        ("VM.Audit", "GET", format!("{vm}/config"), "", format!("{missing}VM.Audit)")),
        ("VM.Console", "PUT", format!("{vm}/sendkey"), "key=a", format!("{missing}VM.Console)")),
        ("VM.PowerMgmt", "POST", format!("{vm}/status/start"), "", format!("{missing}VM.PowerMgmt)")),
        (
            "VM.GuestAgent.Audit",
            "POST",
            format!("{vm}/agent/ping"),
            "",
            format!("{missing}VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted)"),
        ),
        (
            "VM.Config.CDROM",
            "PUT",
            format!("{vm}/config"),
            "ide2=none,media=cdrom",
            format!("{missing}VM.Config.CDROM)"),
        ),
        ("VM.Config.CPU", "PUT", format!("{vm}/config"), "cores=2", format!("{missing}VM.Config.CPU)")),
        (
            "VM.Config.Cloudinit",
            "PUT",
            format!("{vm}/config"),
            "ide3=local:cloudinit",
            format!("{missing}VM.Config.Cloudinit)"),
        ),
        (
            "VM.Config.Disk",
            "PUT",
            format!("{vm}/config"),
            "boot=order%3Dscsi0",
            format!("{missing}VM.Config.Disk)"),
        ),
        ("VM.Config.HWType", "PUT", format!("{vm}/config"), "vga=std", format!("{missing}VM.Config.HWType)")),
        (
            "VM.Config.Memory",
            "PUT",
            format!("{vm}/config"),
            "memory=1024",
            format!("{missing}VM.Config.Memory)"),
        ),
        (
            "VM.Config.Network",
            "PUT",
            format!("{vm}/config"),
            "net0=virtio,bridge=vmbr0",
            format!("{missing}VM.Config.Network)"),
        ),
        (
            "VM.Config.Options",
            "PUT",
            format!("{vm}/config"),
            "tags=a",
            format!("{missing}VM.Config.Options)"),
        ),
        (
            "Datastore.AllocateSpace",
            "PUT",
            format!("{vm}/config"),
            "scsi1=local:1",
            "403 Permission check failed (/storage/local, Datastore.AllocateSpace)".to_owned(),
        ),
        (
            "Datastore.AllocateSpace",
            "POST",
            format!("{vm}/clone"),
            "newid=9500",
            "403 Permission check failed (/storage/local, Datastore.AllocateSpace)".to_owned(),
        ),
        (
            "SDN.Use",
            "POST",
            format!("{vm}/clone"),
            "newid=9500",
            "403 Permission check failed (/sdn/zones/localnetwork/vmbr0, SDN.Use)".to_owned(),
        ),
        (
            "Sys.Audit",
            "GET",
            "/nodes/pve/status".to_owned(),
            "",
            "403 Permission check failed (/nodes/pve, Sys.Audit)".to_owned(),
        ),
    ];
    for (privilege, method, path, form, line) in cases {
        let rest: Vec<&str> =
            LEAST_PRIVILEGES_PVE9.iter().copied().filter(|name| *name != privilege).collect();
        lab.set_token_access("least@pve!t1", &[("/", &rest)]);
        let reply = client.call(method, &path, form).await?;
        assert_eq!(reply.line(), line, "without {privilege}: {method} {path} {form}");
    }
    lab.set_token_access("least@pve!t1", &[("/", LEAST_PRIVILEGES_PVE9)]);
    let permissions = client.get("/access/permissions").await?.data();
    assert_eq!(permissions["/vms"]["VM.Clone"], 1);
    assert_eq!(client.done("POST", &format!("{vm}/clone"), "newid=9500&name=c").await?, "OK");
    assert_eq!(client.done("DELETE", "/nodes/pve/qemu/9500?purge=1", "").await?, "OK");
    lab.stop().await;
    Ok(())
}
