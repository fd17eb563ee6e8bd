//! A build whose provisioners had succeeded when forge was killed: it is gone on with, and nothing of their work is lost.

use std::process::Stdio;
use std::time::{Duration, Instant};

use forge_lab::images;

use crate::support::local_site::LocalSite;

/// How long a build may take to come to its seal: far beyond what it needs, so that only a hang is an error.
const LIMIT: Duration = Duration::from_secs(900);

const PROFILE: &str = r#"schema = 1
name = "NAME"

[os]
family = "linux"

[source]
image = { file = "IMAGE" }

[vm]
memory = "384MiB"

[deadlines]
connect = "15m"

[[provision]]
name = "work"
become = true
shell = ["SHELL"]
"#;

fn profile(name: &str, image: &str, shell: &str) -> String {
    PROFILE.replace("NAME", name).replace("IMAGE", image).replace("SHELL", shell)
}

#[test]
fn a_tiny_guest_whose_forge_is_killed_while_it_is_sealed_keeps_what_its_scripts_did() -> anyhow::Result<()> {
    if std::env::var_os("FORGE_LAB").is_none() {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
        return Ok(());
    }
    let disk = images::tiny(&images::default_cache_root())?.disk;
    let site = LocalSite::new();
    let work = "echo provisioned >/etc/marker; head -c 3000000 /dev/urandom >/etc/blob";
    site.write("work.toml", &profile("work", &disk.display().to_string(), work));
    let log = site.path().join("log");
    let file = std::fs::File::create(&log)?;
    let mut build = site.command(&["build", "work.toml"]);
    let mut forge = build.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
    let began = Instant::now();
    let said = loop {
        let said = std::fs::read_to_string(&log)?;
        if said.contains(" seal: ") {
            break said;
        }
        let ended = forge.try_wait()?;
        assert!(ended.is_none() && began.elapsed() < LIMIT, "{ended:?}: {said}{}", site.serial());
        std::thread::sleep(Duration::from_millis(5));
    };
    // As the kernel does it when there is no memory left: neither forge nor its QEMU can do anything more.
    forge.kill()?;
    forge.wait()?;

    let at = said.split("VM ").find(|rest| rest.starts_with("vm-")).expect("it names the VM");
    let vm = at.split_whitespace().next().expect("a word");
    let said = site.succeeds(&["finish", vm]);
    assert!(said.contains("tpl-work"), "{said}");
    site.assert_nothing_left();

    let image = site.image("tpl-work.qcow2").display().to_string();
    site.write("look.toml", &profile("look", &image, "cat /etc/marker; wc -c </etc/blob"));
    let said = site.succeeds(&["build", "look.toml"]);
    assert!(said.contains("| provisioned") && said.contains("| 3000000"), "{said}");
    Ok(())
}
