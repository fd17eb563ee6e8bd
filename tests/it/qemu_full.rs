//! A build on the QEMU of this machine whose file system fills up while the guest works.

use std::process::{Command, Output};

use forge_lab::images;

use crate::support::local_site::{LocalSite, Said};

/// Gives the VMs' folder a file system of its own that is soon full, in a view of it that only what is started has.
const SMALL: &str = "set -e; mkdir -p state/qemu; mount -t tmpfs -o size=96M none state/qemu; exec \"$@\"";

const PROFILE: &str = r#"schema = 1
name = "full"

[os]
family = "linux"

[source]
image = IMAGE

[vm]
memory = "256MiB"
disks = [{ slot = "virtio0" }, { slot = "virtio1", size = "1GiB" }]

[deadlines]
connect = "15m"

[[provision]]
name = "fill"
become = true
shell = ["yes 'more than there is room for' | head -c 300000000 > /dev/vdb; sync"]
"#;

/// QEMU pauses a VM whose disk can't be written: nothing in the guest would ever end.
#[test]
fn a_tiny_guest_whose_disk_finds_no_space_is_given_up_and_says_why() -> anyhow::Result<()> {
    if std::env::var_os("FORGE_LAB").is_none() || std::env::var_os("FORGE_LAB_NETNS").is_none() {
        println!(
            "skipped: it needs a real guest and a mount of its own; `cargo lab test` runs it in its namespace"
        );
        return Ok(());
    }
    let site = LocalSite::new();
    let image = images::tiny(&images::default_cache_root())?.disk;
    site.write("full.toml", &PROFILE.replace("IMAGE", &format!("{:?}", image.display().to_string())));
    let forge = site.command(&["build", "full.toml"]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SMALL, "sh"]).arg(forge.get_program());
    let done: Output = command.args(forge.get_args()).current_dir(site.path()).output()?;
    let done = Said::from(done);
    assert_eq!(done.code, Some(1), "{}", done.text);
    for words in [
        "error in stage provision: the VM was paused: one of its disks can't be read or written (io-error)",
        "provisioner 1 of 1 (`fill`) was at work",
        "most likely full",
        "nothing is left on the target",
    ] {
        assert!(done.text.contains(words), "{words}: {}", done.text);
    }
    assert_eq!(site.images(), Vec::<String>::new(), "no image has its final name");
    site.assert_nothing_left();
    Ok(())
}
