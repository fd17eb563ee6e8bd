//! Logging in, users, tokens, roles, the access list and pools (pveum-cli.txt, pvesh-pvesm-cli.txt).

use std::time::Duration;

use forge_lab::{Clock, ImportVm, Lab, LabConfig, PveVersion};
use serde_json::json;

use super::client::{Client, Reply};
use super::{fast_lab, lab_with};

/// Root's password in these tests.
const PASSWORD: &str = "lab-secret-1";

/// A client of root@pam with a ticket.
async fn root(lab: &Lab, client: &Client) -> anyhow::Result<Client> {
    lab.set_password("root@pam", PASSWORD);
    log_in(client, "root@pam", PASSWORD).await
}

async fn log_in(client: &Client, user: &str, password: &str) -> anyhow::Result<Client> {
    let nobody = Client { token: None, cookie: None, ..client.clone() };
    let form = format!("username={user}&password={password}");
    let data = nobody.call("POST", "/access/ticket", &form).await?.data();
    let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
    Ok(Client { cookie: Some((text("ticket"), text("CSRFPreventionToken"))), ..nobody })
}

async fn ok(client: &Client, method: &str, path: &str, form: &str) -> anyhow::Result<Reply> {
    let reply = client.call(method, path, form).await?;
    anyhow::ensure!(reply.status == 200, "{method} {path} {form}: {} {}", reply.line(), reply.body);
    Ok(reply)
}

#[tokio::test]
async fn a_ticket_opens_the_api_for_two_hours_and_its_writes_need_the_csrf_token() -> anyhow::Result<()> {
    let config = LabConfig {
        run_guests: false,
        clock: Clock::Explicit,
        auth_delay: Duration::ZERO,
        ..LabConfig::default()
    };
    let (lab, client) = lab_with(config).await?;
    let root = root(&lab, &client).await?;
    assert_eq!(root.get("/version").await?.line(), "200 OK");
    assert_eq!(root.call("POST", "/pools", "poolid=forge").await?.line(), "200 OK");
    let forged =
        Client { cookie: root.cookie.clone().map(|(ticket, _)| (ticket, String::new())), ..root.clone() };
    assert_eq!(forged.get("/version").await?.status, 200, "reading needs no such token");
    let refused = forged.call("POST", "/pools", "poolid=other").await?;
    assert_eq!(
        (refused.line().as_str(), refused.body.as_str()),
        ("401 Permission denied - invalid csrf token", "")
    );

    lab.advance(Duration::from_secs(2 * 3600 - 60));
    assert_eq!(root.get("/version").await?.status, 200);
    let ticket = root.cookie.clone().map(|(ticket, _)| ticket).unwrap_or_default();
    let renewed = log_in(&client, "root@pam", &ticket.replace('+', "%2B")).await?;
    lab.advance(Duration::from_secs(120));
    let old = root.get("/version").await?;
    assert_eq!((old.line().as_str(), old.body.as_str()), ("401 Authentication failed!", ""));
    assert_eq!(renewed.get("/version").await?.status, 200, "a ticket renews itself");

    let wrong = Client { token: None, ..client.clone() };
    let wrong = wrong.call("POST", "/access/ticket", "username=root@pam&password=nonsense").await?;
    assert_eq!(wrong.line(), "401 authentication failure");
    assert_eq!(wrong.json(), json!({"data": null, "message": "authentication failure\n"}));
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_bootstrap_of_a_site_makes_a_token_that_may_do_what_it_was_given() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    let root = root(&lab, &client).await?;
    ok(&root, "POST", "/access/users", "userid=build@pve&comment=image+builds").await?;
    ok(&root, "POST", "/access/roles", "roleid=ForgeBuild&privs=VM.Audit+VM.Clone").await?;
    let made = ok(&root, "POST", "/access/users/build@pve/token/forge", "privsep=1").await?.data();
    assert_eq!(made["full-tokenid"], "build@pve!forge");
    assert_eq!(made["info"], json!({"privsep": "1"}));
    let secret = made["value"].as_str().unwrap_or_default();
    let token = Client::new(&lab, "build@pve!forge", secret)?;
    lab.import_vm(ImportVm { vmid: 100, ..ImportVm::default() }).await?;
    let config = "/nodes/pve/qemu/100/config";
    let missing = "403 Permission check failed (/vms/100, VM.Audit)";
    assert_eq!(token.get(config).await?.line(), missing, "no entry at all");
    ok(&root, "PUT", "/access/acl", "path=/&roles=ForgeBuild&tokens=build@pve!forge").await?;
    assert_eq!(token.get(config).await?.line(), missing, "the user has none");
    ok(&root, "PUT", "/access/acl", "path=/&roles=ForgeBuild&users=build@pve").await?;
    assert_eq!(token.get(config).await?.status, 200);
    let acl = ok(&root, "GET", "/access/acl", "").await?.data();
    let entry = json!({"path": "/", "type": "token", "ugid": "build@pve!forge", "roleid": "ForgeBuild", "propagate": 1});
    assert!(acl.as_array().into_iter().flatten().any(|other| *other == entry), "{acl}");
    let user = ok(&root, "GET", "/access/users/build@pve", "").await?.data();
    assert_eq!(user["tokens"], json!({"forge": {"expire": 0, "privsep": 1}}));

    // A token that is made anew has lost its entries.
    ok(&root, "DELETE", "/access/users/build@pve/token/forge", "").await?;
    let made = ok(&root, "POST", "/access/users/build@pve/token/forge", "").await?.data();
    let again = Client::new(&lab, "build@pve!forge", made["value"].as_str().unwrap_or_default())?;
    assert_eq!(again.get(config).await?.line(), missing);

    let bad = "400 Parameter verification failed.";
    let cases = [
        (
            "POST",
            "/access/users",
            "userid=build@pve",
            "500 create user failed: user 'build@pve' already exists",
            json!(null),
        ),
        (
            "POST",
            "/access/roles",
            "roleid=ForgeBuild",
            "500 create role failed: role 'ForgeBuild' already exists",
            json!(null),
        ),
        (
            "POST",
            "/access/roles",
            "roleid=R&privs=VM.Monitor",
            bad,
            json!({"privs": "invalid format - invalid privilege 'VM.Monitor'\n"}),
        ),
        ("POST", "/access/users/build@pve/token/forge", "", bad, json!({"tokenid": "Token already exists."})),
        (
            "DELETE",
            "/access/users/build@pve/token/nope",
            "",
            "500 no such token 'nope' for user 'build@pve'",
            json!(null),
        ),
        (
            "PUT",
            "/access/acl",
            "path=/&roles=ForgeBuild&tokens=build@pve!nosuch",
            "500 ACL update failed: no such token 'nosuch' for user 'build@pve'",
            json!(null),
        ),
        (
            "PUT",
            "/access/acl",
            "path=/&roles=ForgeBuild&users=nobody@pve",
            "500 ACL update failed: user 'nobody@pve' does not exist",
            json!(null),
        ),
        (
            "PUT",
            "/access/acl",
            "path=/&roles=NoRole&users=build@pve",
            "500 ACL update failed: role 'NoRole' does not exist",
            json!(null),
        ),
        (
            "PUT",
            "/access/acl",
            "path=/bad/path&roles=ForgeBuild&users=build@pve",
            bad,
            json!({"path": "invalid ACL path '/bad/path'"}),
        ),
        (
            "PUT",
            "/access/roles/Administrator",
            "privs=VM.Audit",
            "500 auto-generated role 'Administrator' cannot be modified",
            json!(null),
        ),
    ];
    for (method, path, form, line, errors) in cases {
        let reply = root.call(method, path, form).await?;
        assert_eq!(
            (reply.line().as_str(), reply.json()["errors"].clone()),
            (line, errors),
            "{method} {path} {form}"
        );
    }
    let refused = again.call("POST", "/access/users", "userid=foo@pve").await?;
    assert_eq!(refused.line(), "403 Permission check failed (/access/realm/pve, Realm.AllocateUser)");
    ok(&root, "DELETE", "/access/users/build@pve", "").await?;
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn groups_passwords_and_rights_over_a_pool() -> anyhow::Result<()> {
    let config = LabConfig { run_guests: false, auth_delay: Duration::ZERO, ..LabConfig::default() };
    let (lab, client) = lab_with(config).await?;
    let root = root(&lab, &client).await?;
    ok(&root, "POST", "/access/groups", "groupid=builders").await?;
    ok(&root, "POST", "/access/users", "userid=ann@pve&groups=builders&password=first-secret").await?;
    ok(&root, "POST", "/pools", "poolid=forge&comment=x").await?;
    for path in ["/pool/forge", "/storage/local"] {
        ok(&root, "PUT", "/access/acl", &format!("path={path}&roles=PVEAdmin&groups=builders")).await?;
    }
    let ann = log_in(&client, "ann@pve", "first-secret").await?;
    ok(
        &ann,
        "PUT",
        "/access/password",
        "userid=ann@pve&password=second-secret&confirmation-password=first-secret",
    )
    .await?;
    assert_eq!(log_in(&client, "ann@pve", "first-secret").await?.get("/version").await?.status, 401);
    let ann = log_in(&client, "ann@pve", "second-secret").await?;

    let outside = ann.call("POST", "/nodes/pve/qemu", "vmid=9000").await?;
    assert_eq!(outside.line(), "403 Permission check failed");
    let nowhere = root.call("POST", "/nodes/pve/qemu", "vmid=9302&pool=nopool").await?;
    assert_eq!(nowhere.line(), "403 Permission check failed (pool 'nopool' does not exist)");
    assert_eq!(
        ann.done("POST", "/nodes/pve/qemu", "vmid=9000&pool=forge&scsi0=local:1&cores=2").await?,
        "OK"
    );
    assert_eq!(ann.get("/nodes/pve/qemu/9000/config").await?.data()["cores"], 2);
    let members = ok(&ann, "GET", "/pools/forge", "").await?.data()["members"].clone();
    assert_eq!((&members[0]["vmid"], &members[0]["id"]), (&json!(9000), &json!("qemu/9000")));
    let busy = root.call("DELETE", "/pools/forge", "").await?;
    assert_eq!(busy.line(), "500 delete pool failed: pool 'forge' is not empty (contains VMs)");
    assert_eq!(ann.done("DELETE", "/nodes/pve/qemu/9000", "").await?, "OK");
    ok(&root, "DELETE", "/pools/forge", "").await?;
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_lab_of_pve_8_has_its_privileges_and_its_schema() -> anyhow::Result<()> {
    let config = LabConfig { run_guests: false, version: PveVersion::V8, ..LabConfig::default() };
    let lab = Lab::start(config).await?;
    let secret = lab.add_full_token("root8@pve!t1");
    let client = Client::new(&lab, "root8@pve!t1", &secret)?;
    assert_eq!(client.get("/version").await?.data()["release"], "8.4");
    assert_eq!(client.get("/access/permissions").await?.data()["/"]["VM.Monitor"], 1);
    lab.import_vm(ImportVm { vmid: 100, ..ImportVm::default() }).await?;
    lab.set_token_access("root8@pve!t1", &[("/", &["VM.Audit", "Sys.Modify"])]);
    let ping = client.call("POST", "/nodes/pve/qemu/100/agent/ping", "").await?;
    assert_eq!(ping.line(), "403 Permission check failed (/vms/100, VM.Monitor)");
    let nine = client.call("POST", "/access/roles", "roleid=R&privs=VM.GuestAgent.Audit").await?;
    let text = "invalid format - invalid privilege 'VM.GuestAgent.Audit'\n";
    assert_eq!((nine.status, &nine.json()["errors"]["privs"]), (400, &json!(text)));
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_was_made_can_be_changed_and_removed() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    let root = root(&lab, &client).await?;
    for (method, path, form) in [
        ("GET", "/access/ticket", ""),
        ("POST", "/access/groups", "groupid=g1"),
        ("PUT", "/access/groups/g1", "comment=changed"),
        ("POST", "/access/users", "userid=u1@pve&groups=g1"),
        ("PUT", "/access/users/u1@pve", "enable=0&comment=off&groups="),
        ("POST", "/access/users/u1@pve/token/t1", "privsep=1&comment=x"),
        ("PUT", "/access/users/u1@pve/token/t1", "privsep=0&delete=comment"),
        ("POST", "/access/roles", "roleid=R1&privs=VM.Audit"),
        ("PUT", "/access/acl", "path=/vms&roles=R1&users=u1@pve&propagate=0"),
        ("POST", "/pools", "poolid=p1"),
        ("PUT", "/pools", "poolid=p1&storage=local"),
        ("PUT", "/pools/p1", "storage=local&delete=1&comment=empty"),
    ] {
        ok(&root, method, path, form).await?;
    }
    let user = ok(&root, "GET", "/access/users/u1@pve", "").await?.data();
    assert_eq!((&user["enable"], &user["comment"], &user["groups"]), (&json!(0), &json!("off"), &json!([])));
    let token = ok(&root, "PUT", "/access/users/u1@pve/token/t1", "regenerate=1").await?.data();
    assert_eq!((&token["privsep"], token["comment"].is_null()), (&json!(0), true));
    let secret = token["value"].as_str().unwrap_or_default();
    let disabled = Client::new(&lab, "u1@pve!t1", secret)?;
    assert_eq!(disabled.get("/version").await?.line(), "401 Authentication failed!", "its user is disabled");
    ok(&root, "PUT", "/access/users/u1@pve", "enable=1").await?;
    assert_eq!(disabled.get("/access/permissions?path=/vms").await?.data(), json!({"/vms": {"VM.Audit": 0}}));
    assert_eq!(
        ok(&root, "GET", "/access/groups/g1", "").await?.data(),
        json!({"members": [], "comment": "changed"})
    );
    assert_eq!(ok(&root, "GET", "/pools/p1", "").await?.data(), json!({"members": [], "comment": "empty"}));
    ok(&root, "DELETE", "/access/roles/R1", "").await?;
    assert_eq!(
        ok(&root, "GET", "/access/acl", "").await?.data().as_array().map(Vec::len),
        Some(2),
        "the test's own two"
    );
    for path in ["/access/groups/g1", "/pools?poolid=p1"] {
        ok(&root, "DELETE", path, "").await?;
    }
    let volume = ok(
        &root,
        "POST",
        "/nodes/pve/storage/local/content",
        "vmid=300&filename=vm-300-disk-0.qcow2&size=1G&format=qcow2",
    )
    .await?;
    assert_eq!(volume.data(), "local:300/vm-300-disk-0.qcow2");
    let foreign = root
        .call("POST", "/nodes/pve/storage/local/content", "vmid=300&filename=vm-301-disk-0.raw&size=1G")
        .await?;
    assert_eq!(foreign.line(), "500 illegal name 'vm-301-disk-0.raw' - should be 'vm-300-*'");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_task_is_seen_by_who_started_it_and_by_who_may_audit_the_node() -> anyhow::Result<()> {
    let (lab, client) = fast_lab().await?;
    lab.import_vm(ImportVm { vmid: 9000, ..ImportVm::default() }).await?;
    let mut clients = Vec::new();
    for id in ["ann@pve!t1", "ann@pve!t2", "bob@pve!t1"] {
        let secret = lab.add_token(id, &[("/", &["VM.PowerMgmt"])]);
        clients.push(Client::new(&lab, id, &secret)?);
    }
    lab.set_password("ann@pve", PASSWORD);
    let [ann, other_token, bob] = &clients[..] else { anyhow::bail!("three") };
    let start = ok(ann, "POST", "/nodes/pve/qemu/9000/status/start", "").await?;
    assert_eq!(ann.task(&start).await?.0, "OK");
    let upid = start.data().as_str().unwrap_or_default().to_owned();
    let status = format!("/nodes/pve/tasks/{upid}/status");
    let count = async |client: &Client| -> anyhow::Result<usize> {
        Ok(client.get("/nodes/pve/tasks").await?.data().as_array().map_or(0, Vec::len))
    };
    for stranger in [other_token, bob] {
        let refused = stranger.get(&status).await?;
        assert_eq!(refused.line(), "403 Permission check failed (/nodes/pve, Sys.Audit)");
        assert_eq!(count(stranger).await?, 0);
    }
    let herself = log_in(&client, "ann@pve", PASSWORD).await?;
    for owner in [ann, &herself] {
        assert_eq!((owner.get(&status).await?.status, count(owner).await?), (200, 1));
    }
    lab.set_token_access("bob@pve!t1", &[("/nodes/pve", &["Sys.Audit"])]);
    assert_eq!((bob.get(&status).await?.status, count(bob).await?), (200, 1));
    lab.stop().await;
    Ok(())
}
