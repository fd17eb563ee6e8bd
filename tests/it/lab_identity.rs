//! A guest stays the same one over restarts and new addresses; its clones do not.

use std::process::Stdio;
use std::time::Duration;

use forge_lab::{LabConfig, SshForward, images};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::support::lab_site::{FIRST_ID, LIMIT, LabSite, SECRET_VARIABLE};

const HEAD: &str = "schema = 1\nname = \"tiny\"\n[os]\nfamily = \"linux\"\n[template]\nname = \"tpl-tiny\"\n[source]\n\
                    clone = \"boot-vm\"\n[deadlines]\nconnect = \"15m\"\n";

/// Tells this machine where the guest is, waits until it may go on, and starts the guest anew.
fn around(number: u32) -> String {
    format!(
        "\n[[provision]]\nname = \"where {number}\"\nshell = [\"ip -4 -o addr show eth0 | sed 's/.*inet \\\\([0-9.]*\\\\).*/at \\\\1/'\"]\n\
         \n[[provision]]\nname = \"gate {number}\"\n\
         shell-local = [\"touch ready-{number}\", \"until [ -e go-{number} ]; do sleep 0.1; done\"]\n\
         \n[[provision]]\nname = \"anew {number}\"\nreboot = true\ntimeout = \"15m\"\n"
    )
}

/// A site whose guests have addresses of their own; `None`, with the reason printed, where there can be none.
#[expect(clippy::print_stdout, reason = "a test that is skipped says why")]
async fn on_a_bridge() -> anyhow::Result<Option<LabSite>> {
    let config = LabConfig { ssh: SshForward::Bridge, ..LabConfig::default() };
    let site = match LabSite::with_tiny_guest_in(config).await {
        Ok(Some(site)) => site,
        Ok(None) => return Ok(None),
        Err(error) if std::env::var_os("FORGE_LAB_NETNS").is_none() => {
            println!("skipped: only the namespace of cargo lab test has real bridges: {error:#}");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let toml =
        site.forge_toml().replace("127.0.0.1\", address = \"10.0.2.2", &site.lab.host_address().to_string());
    let toml = toml.replace("bind = \"198", "address = \"198");
    site.write("forge.toml", &toml.replace("seed = { ", "seed = { bind = \"0.0.0.0\", "));
    Ok(Some(site))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_is_started_anew_five_times_in_one_build_while_its_address_changes() -> anyhow::Result<()>
{
    let Some(site) = on_a_bridge().await? else { return Ok(()) };
    let steps: String = (1..=5).map(around).collect();
    let last = "\n[[provision]]\nname = \"last\"\nshell = [\"ip -4 -o addr show eth0 | sed 's/.*inet \\\\([0-9.]*\\\\).*/at \\\\1/'\"]\n";
    site.write("tiny.toml", &format!("{HEAD}{steps}{last}"));
    let running = site.start(&["build", "tiny.toml"]);
    let moving = async {
        for number in 1..=5 {
            let gate = site.path().join(format!("ready-{number}"));
            while !gate.exists() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let vmid = site.others().first().expect("the build VM").vmid;
            site.lab.move_address(vmid).expect("it is on a bridge");
            std::fs::write(site.path().join(format!("go-{number}")), "").expect("the folder is ours");
        }
        std::future::pending::<()>().await;
    };
    let done = tokio::select! {
        done = running.ended() => done,
        () = moving => unreachable!("it never ends"),
    };
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let mut addresses: Vec<&str> =
        done.stderr.lines().filter_map(|line| Some(line.split_once("| at ")?.1)).collect();
    assert_eq!(addresses.len(), 6, "{}", done.stderr);
    addresses.dedup();
    // The lab's DHCP server does not give an address again that the guest had before, so not every move is one.
    assert!(addresses.len() >= 3, "it moved: {}", done.stderr);
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

/// Nothing in the guest tells an address; the seed server has seen who asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_guest_without_an_agent_is_found_where_its_seed_was_fetched_from() -> anyhow::Result<()> {
    let Some(site) = on_a_bridge().await? else { return Ok(()) };
    let step = "\n[vm]\nagent = false\n\n[[provision]]\nname = \"hello\"\nshell = [\"echo hello from $(hostname)\"]\n";
    site.write("tiny.toml", &format!("{HEAD}{step}"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("has fetched its seed"), "{}", done.stderr);
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

/// `script` gives the program a terminal of its own.
#[tokio::test(flavor = "multi_thread")]
async fn somebody_at_a_terminal_is_asked_about_a_failure_in_a_tiny_guest_and_may_have_it_tried_again()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_tiny_guest(true).await? else { return Ok(()) };
    let step = "\n[[provision]]\nname = \"fails once\"\nshell = [\"[ -e tried ] || { touch tried; echo why; exit 3; }\", \"echo it worked\"]\n\
                [[provision]]\nname = \"stop here\"\nbreakpoint = \"look around\"\n";
    site.write("tiny.toml", &format!("{HEAD}{step}"));
    let line = format!("{} --state-dir state build tiny.toml --on-error ask", env!("CARGO_BIN_EXE_forge"));
    let mut child = Command::new("script")
        .args(["-qfec", &line, "/dev/null"])
        .current_dir(site.path())
        .env(SECRET_VARIABLE, &site.secret)
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (mut typed, mut shown) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let mut screen = String::new();
    let talk = async {
        let mut buffer = [0; 4096];
        let (mut answered, mut inside) = (0, String::new());
        while let Ok(count @ 1..) = shown.read(&mut buffer).await {
            screen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            // Something that is no answer, and then one.
            if answered == 0 && screen.contains("r tries it again") {
                answered = 1;
                typed.write_all(b"what?\n").await?;
            }
            if answered == 1 && screen.contains("c, a or r") {
                answered = 2;
                typed.write_all(b"r\n").await?;
            }
            // The line that is shown lets somebody in while the build stands still.
            if answered == 2 && screen.contains("press Enter to go on") {
                answered = 3;
                let line =
                    screen.lines().find_map(|line| line.split_once("to get in: ")).expect("it is shown").1;
                let options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null";
                // Behind it stands what draws the progress below.
                let (words, address) = line.split_once('@').expect("an address");
                let address: String =
                    address.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
                let line = format!("{words}@{address} {options} 'echo in as $(id -un)'");
                let output = Command::new("sh").args(["-c", &line]).output().await?;
                inside = format!(
                    "{line}: {}{}",
                    String::from_utf8_lossy(&output.stderr),
                    String::from_utf8_lossy(&output.stdout)
                );
                typed.write_all(b"\n").await?;
            }
        }
        anyhow::Ok((answered, inside))
    };
    let answered = tokio::time::timeout(LIMIT, talk).await;
    let status = tokio::time::timeout(LIMIT, child.wait()).await??;
    let (answers, inside) = answered??;
    assert!(answers == 3 && inside.ends_with("in as forge\n"), "{answers} {inside}\n{screen}");
    assert!(screen.contains("look around"), "{screen}");
    assert!(status.success() && screen.contains("| it worked"), "{status}\n{screen}");
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

/// What tells one machine from another, and whether cloud-init has taken this one for a new one.
const PROBE: &str = r#"
[[provision]]
name = "identity"
become = true
shell = [
  "cloud-init status --wait >/dev/null",
  "if getent passwd forge; then exit 1; fi",
  "test \"$(cat /home/*/.ssh/authorized_keys | wc -l)\" = 1",
  "test \"$(ls /var/lib/cloud/instances | wc -l)\" = 1",
  "test \"$(grep -c 'running .init. at' /var/log/cloud-init-output.log)\" = 1",
  "exec >/var/tmp/identity",
  "cat /etc/machine-id", "cat /etc/ssh/ssh_host_*_key.pub | cut -d' ' -f2", "sha256sum </var/lib/systemd/random-seed",
  "cat /var/lib/cloud/data/instance-id",
]

[[provision]]
name = "tell"
become = true
download = "/var/tmp/identity"
destination = "NAME-identity"
"#;

/// A role, two tags, a vault and `become`, run twice.
fn write_playbook(site: &LabSite) -> anyhow::Result<()> {
    std::fs::create_dir_all(site.path().join("book/roles/app/tasks"))?;
    site.write(
        "book/site.yml",
        "- hosts: web\n  vars_files: [vault.yml]\n  roles:\n    - { role: app, tags: [app] }\n  tasks:\n\
         \x20   - copy: { content: '{{ word }}', dest: /etc/forge-word, mode: '0600' }\n      tags: [word]\n\
         \x20   - copy: { content: 'no', dest: /etc/forge-never }\n      tags: [never]\n",
    );
    site.write(
        "book/roles/app/tasks/main.yml",
        "- copy: { content: '{{ forge_profile }} {{ ansible_facts.distribution }}', dest: /etc/forge-app }\n",
    );
    site.write("book/vault.yml", "word: from the vault\n");
    site.write("vault-password", "open sesame\n");
    let output = std::process::Command::new("ansible-vault")
        .args(["encrypt", "--vault-password-file", "vault-password", "book/vault.yml"])
        .current_dir(site.path())
        .env("LC_ALL", "C.UTF-8")
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// `cargo lab soak clones`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "three builds of Debian: cargo lab soak clones"]
async fn soak_two_clones_of_a_debian_template_that_ansible_provisioned_have_nothing_of_each_other()
-> anyhow::Result<()> {
    let Some(site) = LabSite::with_debian(true).await? else { return Ok(()) };
    write_playbook(&site)?;
    let ansible = |name: &str| {
        format!(
            "\n[[provision]]\nname = \"{name}\"\nansible = \"book/site.yml\"\nbecome = true\ngroups = [\"web\"]\n\
             vault-password-file = \"vault-password\"\nextra-arguments = [\"--tags\", \"app,word\"]\n"
        )
    };
    let check = "\n[[provision]]\nname = \"checked\"\nbecome = true\n\
        shell = [\"test \\\"$(cat /etc/forge-app)\\\" = 'tiny Debian'\", \"test \\\"$(cat /etc/forge-word)\\\" = 'from the vault'\", \"! test -e /etc/forge-never\"]\n";
    let again = ansible("again");
    site.write("tiny.toml", &format!("{HEAD}{}{again}{check}", ansible("first")));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let recaps: Vec<&str> = done.stderr.lines().filter(|line| line.contains("changed=")).collect();
    assert_eq!(recaps.len(), 2, "{}", done.stderr);
    assert!(recaps[0].contains("changed=2") && recaps[1].contains("changed=0"), "{recaps:?}");
    site.assert_template_only(FIRST_ID);

    for name in ["one", "two"] {
        let head =
            HEAD.replace("boot-vm", "tpl-tiny").replace("name = \"tiny\"", &format!("name = \"{name}\""));
        let head = head.replace("\"tpl-tiny\"\n[source]", &format!("\"tpl-{name}\"\n[source]"));
        let access = "[access]\nuser = \"probe\"\n";
        site.write(&format!("{name}.toml"), &format!("{head}{access}{}", PROBE.replace("NAME", name)));
    }
    let done = site.run(&["build", "one.toml", "two.toml", "--parallel", "2"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let read = |name: &str| std::fs::read_to_string(site.path().join(format!("{name}-identity")));
    let (one, two) = (read("one")?, read("two")?);
    println!("{one}\n{two}");
    assert!(one.lines().count() >= 5 && one.lines().count() == two.lines().count(), "{one}\n{two}");
    for line in one.lines() {
        assert!(line.len() > 20 && !two.contains(line), "both have {line}");
    }
    site.close().await;
    Ok(())
}

/// A real `agetty` with PAM behind it, and the seal's dry run. `cargo lab soak console`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long build of Debian: cargo lab soak console"]
async fn soak_debian_is_built_by_its_serial_console() -> anyhow::Result<()> {
    let Some(site) = LabSite::with_debian(true).await? else { return Ok(()) };
    let more = "[vm]\nnetworks = [{ link-down = true }]\n[access]\nvia = [\"serial\"]\n\
        \n[[provision]]\nname = \"who\"\nshell = [\"test \\\"$(id -un)\\\" = forge\", \"cloud-init status --wait\"]\n\
        \n[[provision]]\nname = \"anew\"\nreboot = true\n\
        \n[[provision]]\nname = \"root\"\nbecome = true\nshell = [\"test \\\"$(id -u)\\\" = 0\", \"echo by root\"]\n\
        \n[seal]\ndry-run = true\n";
    site.write("tiny.toml", &format!("{HEAD}{more}"));
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(0), "{}{}{}", done.stdout, done.stderr, site.lab.serial_log(FIRST_ID));
    assert!(done.stderr.contains("| by root"), "{}", done.stderr);
    for words in
        ["/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key", "/home/forge", "the guest was not sealed"]
    {
        assert!(done.stderr.contains(words), "`{words}` is not told:\n{}", done.stderr);
    }
    site.assert_template_only(FIRST_ID);
    site.close().await;
    Ok(())
}

impl LabSite {
    /// With the tiny guest as boot VM in a lab of that kind.
    async fn with_tiny_guest_in(config: LabConfig) -> anyhow::Result<Option<Self>> {
        Self::with_guest_in(config, false, |cache| images::tiny(cache).map(|image| image.disk)).await
    }
}
