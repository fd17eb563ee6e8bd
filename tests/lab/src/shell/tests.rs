//! What was run on a real PVE 9.2.11, and what it printed (transcripts `pveum-cli`, `pvesh-pvesm-cli`).

use super::*;
use crate::{Lab, LabConfig};

async fn node() -> anyhow::Result<(Lab, Node)> {
    let lab = Lab::start(LabConfig { run_guests: false, ..LabConfig::default() }).await?;
    let cluster = Arc::clone(lab.cluster());
    let node = Node { cluster, config: ShellConfig::default(), lines: Arc::default() };
    Ok((lab, node))
}

#[tokio::test]
async fn refusals_are_worded_and_end_as_on_a_real_node() -> anyhow::Result<()> {
    let (_lab, node) = node().await?;
    for line in [
        "pveum user add automation@pve --comment 'image builds'",
        "pveum role add ForgeBuild --privs 'VM.Allocate VM.Audit'",
        "pveum user token add automation@pve forge --privsep 1",
    ] {
        let printed = node.run(line).await;
        assert_eq!((printed.code, printed.stderr.as_str()), (0, ""), "{line}");
    }
    let table = [
        ("pveum user add automation@pve", 2, "create user failed: user 'automation@pve' already exists\n"),
        (
            "pveum role add ForgeBuild --privs VM.Audit",
            255,
            "create role failed: role 'ForgeBuild' already exists\n",
        ),
        (
            "pveum role modify ForgeBuild --privs VM.Monitor",
            255,
            "400 Parameter verification failed.\nprivs: invalid format - invalid privilege 'VM.Monitor'\n\n\
             pveum role modify <roleid> [OPTIONS]\n",
        ),
        (
            "pveum user token add automation@pve forge",
            255,
            "400 Parameter verification failed.\ntokenid: Token already exists.\n\
             pveum user token add <userid> <tokenid> [OPTIONS] [FORMAT_OPTIONS]\n",
        ),
        (
            "pveum user token remove automation@pve nosuch",
            255,
            "no such token 'nosuch' for user 'automation@pve'\n",
        ),
        ("pveum passwd", 255, "400 not enough arguments\npveum passwd <userid> [OPTIONS]\n"),
        (
            "pveum acl modify / --tokens automation@pve!nosuch --roles ForgeBuild",
            255,
            "ACL update failed: no such token 'nosuch' for user 'automation@pve'\n",
        ),
        (
            "pveum acl modify / --users nobody@pve --roles ForgeBuild",
            255,
            "ACL update failed: user 'nobody@pve' does not exist\n",
        ),
        (
            "pveum acl modify / --users automation@pve --roles NoRole",
            255,
            "ACL update failed: role 'NoRole' does not exist\n",
        ),
        (
            "pveum acl modify /bad/path --users automation@pve --roles ForgeBuild",
            255,
            "400 Parameter verification failed.\npath: invalid ACL path '/bad/path'\n\
             pveum acl modify <path> --roles <string> [OPTIONS]\n",
        ),
        (
            "pvesm status --output-format json",
            255,
            "Unknown option: output-format\n400 unable to parse option\npvesm status  [OPTIONS]\n",
        ),
        (
            "pvesh get /nodes/nosuch/version --output-format json",
            11,
            "hostname lookup 'nosuch' failed - failed to get address info for: nosuch: Temporary failure in name \
             resolution\n",
        ),
        ("nosuch -x", 127, "bash: line 1: nosuch: command not found\n"),
    ];
    for (line, code, stderr) in table {
        let printed = node.run(line).await;
        assert_eq!(
            (printed.code, printed.stderr.as_str(), printed.stdout.as_str()),
            (code, stderr, ""),
            "{line}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn answers_are_those_of_the_api_and_what_is_changed_is_changed() -> anyhow::Result<()> {
    let (lab, node) = node().await?;
    let version = node.run("pvesh get /nodes/localhost/version --output-format json").await;
    assert_eq!(version.stdout, "{\"release\":\"9.2\",\"repoid\":\"14a22df3\",\"version\":\"9.2.11\"}\n");
    let made = node.run("pvesh create /access/users --userid x@pve --output-format json").await;
    assert_eq!(made, Printed::default(), "what answers nothing prints nothing");
    let token = node.run("pveum user token add x@pve forge --privsep 1 --output-format json").await;
    let token: Value = serde_json::from_str(&token.stdout)?;
    assert_eq!(token["full-tokenid"], "x@pve!forge");
    assert_eq!(token["info"], serde_json::json!({"privsep": "1"}));
    assert!(lab.access_state().contains(token["value"].as_str().unwrap_or("?")));
    let tokens = node.run("pveum user token list x@pve --output-format json").await;
    assert_eq!(tokens.stdout, "[{\"expire\":0,\"privsep\":1,\"tokenid\":\"forge\"}]\n");
    let granted = node.run("pveum acl modify /vms --roles PVEVMUser --tokens 'x@pve!forge'").await;
    assert_eq!(granted.code, 0, "{}", granted.stderr);
    let acl = node.run("pveum acl list").await;
    assert!(acl.stdout.contains("│ /vms │ PVEVMUser │ token │ x@pve!forge │ 1"), "{}", acl.stdout);
    let status = node.run("pvesm status --content iso").await;
    let mut lines = status.stdout.lines();
    let header = "Name         Type     Status     Total (KiB)      Used (KiB) Available (KiB)        %";
    assert_eq!(lines.next(), Some(header));
    assert!(
        lines.next().is_some_and(|line| line.starts_with("local         dir     active ")),
        "{}",
        status.stdout
    );
    for line in ["id -u", "command -v pveum", "command -v pvesh"] {
        assert_eq!(node.run(line).await.code, 0, "{line}");
    }
    Ok(())
}
