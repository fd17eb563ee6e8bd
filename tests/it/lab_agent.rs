//! The same provisioners over each way to a real guest: SSH, and with the network cut the guest agent and the serial
//! console.

use std::process::Command;

use forge_lab::{LEAST_PRIVILEGES_PVE9, images};

use crate::support::lab_site::{FIRST_ID, LabSite, TOKEN};

/// Every kind of work in the guest, with what is expected of it.
const STEPS: &str = r#"
[[provision]]
name = "who and where"
env = { WORDS = "it's \"so\" $HOME" }
shell = [": >made", "test \"$(stat -c %a made)\" = 644", "test \"$(id -un)\" = forge", "test \"$(pwd)\" = /home/forge", "test \"$HOME\" = /home/forge",
         "test \"$WORDS\" = 'it'\\''s \"so\" $HOME'", "test -z \"$(cat)\"", "echo out; echo err >&2", "exit 3"]
valid-exit-codes = [3]

[[provision]]
name = "root"
become = true
shell = ["test \"$(id -u)\" = 0", "echo by-root >/etc/made", "test \"$(stat -c %a /etc/made)\" = 644"]

[[provision]]
name = "there"
upload = "folder/"
destination = "carried"

[[provision]]
name = "text"
content = "a text\n"
destination = "/etc/forge-was-here"
mode = "0640"
become = true

[[provision]]
name = "arrived"
become = true
shell = ["cd /home/forge/carried", "test \"$(cat a) $(cat deep/b)\" = 'A B'", "cmp big deep/big",
         "test \"$(stat -c %a /etc/forge-was-here)\" = 640"]

[[provision]]
name = "anew"
reboot = true

[[provision]]
name = "still there"
wait-for = { file = "/etc/forge-was-here" }

[[provision]]
name = "back"
download = "carried/deep/b"
destination = "came-back"
"#;

/// The network is cut.
const CUT: &str =
    "\n[[provision]]\nname = \"cut\"\nshell = [\"test \\\"$(cat /sys/class/net/eth0/carrier)\\\" = 0\"]\n";

fn write_folder(site: &std::path::Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(site.join("folder/deep"))?;
    std::fs::write(site.join("folder/a"), "A")?;
    std::fs::write(site.join("folder/deep/b"), "B")?;
    // More than one piece, and no text.
    let big: Vec<u8> = (0..150_000_u32).map(|n| (n * 7 % 256) as u8).collect();
    std::fs::write(site.join("folder/big"), &big)?;
    std::fs::write(site.join("folder/deep/big"), &big)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_without_a_network_is_built_by_its_agent_alone() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    write_folder(site.path())?;
    let head = "schema = 1\nname = \"tiny\"\n[os]\nfamily = \"linux\"\n[source]\nclone = \"boot-vm\"\n\
                [vm]\nnetworks = [{ link-down = true }]\n[access]\nvia = [\"agent\"]\n[deadlines]\nconnect = \"15m\"\n";
    site.write("tiny.toml", &format!("{head}{CUT}{STEPS}"));

    let done = site.run(&["plan", "tiny.toml"]).await;
    assert_eq!(done.code, Some(3), "{}", done.stderr);
    assert!(done.stderr.contains("lacks VM.GuestAgent.Unrestricted"), "{}", done.stderr);
    let privileges = [LEAST_PRIVILEGES_PVE9, &["VM.GuestAgent.Unrestricted"]].concat();
    site.lab.set_token_access(TOKEN, &[("/", &privileges)]);
    let done = site.run(&["plan", "tiny.toml"]).await;
    assert!(done.stdout.contains("the guest agent as forge"), "{}{}", done.stdout, done.stderr);

    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    site.assert_template_only(FIRST_ID);
    assert_eq!(std::fs::read_to_string(site.path().join("came-back"))?, "B");
    let wanted = ["| out", "| err", "forge by the guest agent"];
    assert!(wanted.iter().all(|words| done.stderr.contains(words)), "{}", done.stderr);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_over_its_limit_is_ended_in_a_tiny_guest_also_as_root() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(false).await? else { return Ok(()) };
    let steps = r#"
[[provision]]
name = "for ever"
become = true
timeout = "3s"
shell = ["echo begun", "sleep 4321"]

[[provision]]
name = "is it gone"
on-error = true
become = true
shell = ["echo failed: $FORGE_FAILED_STEP", "n=0", "while pgrep -f 'sleep [4]321'; do n=$((n + 1)); test $n -lt 60; sleep 1; done", "echo it is gone"]
"#;
    let head = "schema = 1\nname = \"tiny\"\n[os]\nfamily = \"linux\"\n[source]\nclone = \"boot-vm\"\n\
                [deadlines]\nconnect = \"15m\"\n";
    site.write("tiny.toml", &format!("{head}{steps}"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}{}", done.stdout, done.stderr);
    for words in ["was not done within 3s", "| begun", "failed: for ever", "it is gone"] {
        assert!(done.stderr.contains(words), "`{words}` is not in:\n{}", done.stderr);
    }
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_is_built_by_ssh_with_the_same_provisioners() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    write_folder(site.path())?;
    // The other ways would do as well, and are given up when this one has come.
    let head = "schema = 1\nname = \"tiny\"\n[os]\nfamily = \"linux\"\n[source]\nclone = \"boot-vm\"\n\
                [access]\nvia = [\"ssh\", \"agent\", \"serial\"]\n[deadlines]\nconnect = \"15m\"\n";
    let alone = "\n[[provision]]\nname = \"nothing of the others\"\nbecome = true\n\
                 shell = [\"left() { ls -d /var/tmp/forge-agent-* /tmp/forge-agent-* /tmp/forge-serial-* /dev/shm/forge-agent-* 2>/dev/null; ps | grep '[f]orge-line-'; }\",\n\
                 \"n=0; while [ -n \\\"$(left)\\\" ]; do n=$((n + 1)); if [ $n -gt 30 ]; then left; exit 1; fi; sleep 1; done\"]\n";
    site.write("tiny.toml", &format!("{head}{alone}{STEPS}"));
    let privileges = [LEAST_PRIVILEGES_PVE9, &["VM.GuestAgent.Unrestricted"]].concat();
    site.lab.set_token_access(TOKEN, &[("/", &privileges)]);
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains(" s  forge@"), "it is SSH that came: {}", done.stderr);
    site.assert_template_only(FIRST_ID);
    assert_eq!(std::fs::read_to_string(site.path().join("came-back"))?, "B");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_without_network_and_agent_is_built_by_its_serial_console() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    write_folder(site.path())?;
    let head = "schema = 1\nname = \"tiny\"\n[os]\nfamily = \"linux\"\n[source]\nclone = \"boot-vm\"\n\
                [vm]\nagent = false\nnetworks = [{ link-down = true }]\n[access]\nvia = [\"serial\"]\n\
                [deadlines]\nconnect = \"15m\"\n";
    site.write("tiny.toml", &format!("{head}{CUT}{STEPS}"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    site.assert_template_only(FIRST_ID);
    assert_eq!(std::fs::read_to_string(site.path().join("came-back"))?, "B");
    let wanted = ["| out", "| err", "forge by the serial console"];
    assert!(wanted.iter().all(|words| done.stderr.contains(words)), "{}", done.stderr);
    // What the build logged in by is neither in the template's settings nor in the evidence.
    let template = site.others().remove(0);
    assert!(!template.config.contains_key("cipassword"), "{:?}", template.config);
    let shown = walk(&site.evidence())?;
    assert!(!shown.is_empty() && shown.iter().all(|text| !text.contains("$6$")), "{shown:#?}");
    site.close().await;
    Ok(())
}

/// All texts below a folder.
fn walk(folder: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            texts.extend(walk(&path)?);
        } else {
            texts.push(String::from_utf8_lossy(&std::fs::read(path)?).into_owned());
        }
    }
    Ok(texts)
}

#[test]
fn a_tiny_guest_on_local_qemu_is_built_by_its_agent_alone() -> anyhow::Result<()> {
    on_local_qemu("agent")
}

#[test]
fn a_tiny_guest_on_local_qemu_is_built_by_its_serial_console_alone() -> anyhow::Result<()> {
    on_local_qemu("serial")
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn on_local_qemu(via: &str) -> anyhow::Result<()> {
    if std::env::var_os("FORGE_LAB").is_none() && std::env::var_os("FORGE_LAB_CACHE").is_none() {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
        return Ok(());
    }
    let image = images::tiny(&images::default_cache_root())?.disk;
    let folder = tempfile::Builder::new().prefix("forge-agent-").tempdir()?;
    write_folder(folder.path())?;
    std::fs::write(
        folder.path().join("forge.toml"),
        "[targets.local]\ntype = \"qemu\"\nimages = \"images\"\n",
    )?;
    let head = format!(
        "schema = 1\nname = \"tiny\"\n[os]\nfamily = \"linux\"\n[source]\nimage = \"{}\"\n[seed]\ndelivery = [\"smbios\"]\n\
         [access]\nvia = [\"{via}\"]\n[deadlines]\nconnect = \"15m\"\n",
        image.display()
    );
    std::fs::write(folder.path().join("tiny.toml"), format!("{head}{STEPS}"))?;
    let output = Command::new(env!("CARGO_BIN_EXE_forge"))
        .args(["--state-dir", "state", "build", "tiny.toml"])
        .current_dir(folder.path())
        .output()?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    let way = if via == "serial" { "forge by the serial console" } else { "forge by the guest agent" };
    assert!(said.contains(way), "{said}");
    assert_eq!(std::fs::read_to_string(folder.path().join("came-back"))?, "B");
    Ok(())
}
