//! A build whose provisioners had succeeded when forge was killed or stopped: it is gone on with, and nothing of their work is
//! lost.

use forge_lab::images;
use nix::sys::signal::Signal;

use crate::support::local_site::{LocalSite, UnderWay, checked};

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

/// A site whose profile `work.toml` does this work; `None`, with the reason printed, where there can be none.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn site(work: &str) -> anyhow::Result<Option<LocalSite>> {
    if std::env::var_os("FORGE_LAB").is_none() {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
        return Ok(None);
    }
    let disk = images::tiny(&images::default_cache_root())?.disk;
    let site = LocalSite::new();
    site.write("work.toml", &profile("work", &disk.display().to_string(), work));
    Ok(Some(site))
}

/// The VM that a build has told of.
fn vm(said: &str) -> String {
    let at = said.split("VM ").find(|rest| rest.starts_with("vm-")).expect("it names the VM");
    at.split_whitespace().next().expect("a word").to_owned()
}

#[test]
fn a_tiny_guest_whose_forge_is_killed_while_it_is_sealed_keeps_what_its_scripts_did() -> anyhow::Result<()> {
    let work = "echo provisioned >/etc/marker; head -c 3000000 /dev/urandom >/etc/blob";
    let Some(site) = site(work)? else { return Ok(()) };
    let mut build = UnderWay::start(site.command(&["build", "work.toml"]));
    let said = build.says(" seal: ");
    // As the kernel does it when there is no memory left: neither forge nor its QEMU can do anything more.
    build.signal(Signal::SIGKILL);
    assert_eq!(build.ended().code, None);

    let said = site.succeeds(&["finish", &vm(&said)]);
    assert!(said.contains("tpl-work"), "{said}");
    site.assert_nothing_left();

    let image = site.image("tpl-work.qcow2").display().to_string();
    site.write("look.toml", &profile("look", &image, "cat /etc/marker; wc -c </etc/blob"));
    let said = site.succeeds(&["build", "look.toml"]);
    assert!(said.contains("| provisioned") && said.contains("| 3000000"), "{said}");
    Ok(())
}

/// The writing of images takes minutes where disks are large: it is stopped at once, and nothing of the work is lost. A
/// stand-in for `qemu-img` does not come to an end with it.
#[test]
fn a_tiny_guest_whose_images_are_being_written_is_kept_when_forge_is_stopped_or_killed() -> anyhow::Result<()>
{
    let Some(site) = site("echo provisioned >/etc/marker")? else { return Ok(()) };
    site.stand_in(
        "qemu-img",
        "case $1 in convert) for last; do :; done; echo half >\"$last\"; exec sleep 3600;; esac; exec $REAL \"$@\"",
    );
    let writes = |_: &str| site.processes().iter().any(|line| line.contains("sleep 3600"));
    let mut build = UnderWay::start(site.command(&["build", "work.toml"]));
    build.until("images are being written", writes);
    let vm = vm(&build.said());
    build.signal(Signal::SIGINT);
    let said = build.ended();
    assert!(said.code == Some(130) && said.text.contains(&format!("forge finish {vm}")), "{said:?}");
    site.assert_nothing_runs();
    assert_eq!(site.images(), Vec::<String>::new(), "the half file is gone");

    let mut finish = UnderWay::start(site.command(&["finish", &vm]));
    finish.until("images are being written again", writes);
    finish.signal(Signal::SIGKILL);
    assert_eq!(finish.ended().code, None);
    site.assert_nothing_runs();

    std::fs::remove_file(site.path().join("bin/qemu-img"))?;
    std::fs::write(site.image("tpl-work.qcow2"), "years of work")?;
    let said = site.run(&["finish", &vm]);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(said.text.contains("it is there already") && said.text.contains("--force"), "{said:?}");
    assert_eq!(std::fs::read(site.image("tpl-work.qcow2"))?, b"years of work");
    site.succeeds(&["finish", "--force", &vm]);
    assert_eq!(checked(&site.image("tpl-work.qcow2"), "qcow2"), 256 << 20);
    site.assert_nothing_left();
    Ok(())
}
